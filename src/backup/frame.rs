//! The files of a backup: documents, one after the other, in frames that are compressed each for
//! itself.
//!
//! A file is `MAGIC`, then frames: the length of the documents, the length as stored, a CRC-32 of
//! both lengths and of what is stored, and that (zstd). The manifest holds the file's length and
//! its SHA-256. So a flipped byte is found at its frame, and a file that is cut, missing, or
//! another's is found by the manifest. Never decides which files there are.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::Error;
use crate::model::hex;

const MAGIC: &[u8; 8] = b"DRUMBAK1";
const HEAD: usize = 12;
/// A frame ends with the document that passes this size.
const FRAME_USUAL: usize = 1 << 20;
/// The largest frame that can be: one document over the usual size.
const FRAME_MAX: usize = 24 << 20;
const LEVEL: i32 = 3;

/// A file as the manifest knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    pub name: String,
    pub bytes: u64,
    /// How many bytes the documents have, before they are compressed.
    pub raw_bytes: u64,
    pub documents: u64,
    pub sha256: String,
}

/// Writes a file. It counts only when the manifest names it.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    sum: Sha256,
    frame: Vec<u8>,
    /// The first document of each frame to come, if it has one of its own.
    lead: Option<Vec<u8>>,
    entry: FileEntry,
}

impl Writer {
    /// Begins a file. One of that name is a leftover: no manifest names it yet.
    pub fn create(folder: &Path, name: String) -> Result<Self, Error> {
        let path = folder.join(&name);
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600);
        let file = opened.open(&path).map_err(Error::io("write", &path))?;
        let entry = FileEntry {
            name,
            bytes: 0,
            raw_bytes: 0,
            documents: 0,
            sha256: String::new(),
        };
        let mut writer = Self {
            path,
            file,
            sum: Sha256::new(),
            frame: Vec::new(),
            lead: None,
            entry,
        };
        writer.store(MAGIC)?;
        Ok(writer)
    }

    /// From now on each frame begins with this document, which does not count as one.
    pub fn lead(&mut self, document: Vec<u8>) -> Result<(), Error> {
        if self.lead.as_ref() != Some(&document) {
            self.end_frame()?;
            self.lead = Some(document);
        }
        Ok(())
    }

    pub fn push(&mut self, document: &[u8]) -> Result<(), Error> {
        if self.frame.is_empty()
            && let Some(lead) = &self.lead
        {
            self.frame.extend_from_slice(lead);
        }
        self.frame.extend_from_slice(document);
        self.entry.documents += 1;
        self.entry.raw_bytes += document.len() as u64;
        match self.frame.len() >= FRAME_USUAL {
            true => self.end_frame(),
            false => Ok(()),
        }
    }

    /// How many bytes the documents have that were put in so far.
    pub const fn raw_bytes(&self) -> u64 {
        self.entry.raw_bytes
    }

    pub const fn documents(&self) -> u64 {
        self.entry.documents
    }

    /// Ends the file, once it is on the disk.
    pub fn finish(mut self) -> Result<FileEntry, Error> {
        self.end_frame()?;
        self.file
            .sync_all()
            .map_err(Error::io("write", &self.path))?;
        self.entry.sha256 = hex(&self.sum.finalize());
        Ok(self.entry)
    }

    /// Writes the lead alone, for what it says.
    pub fn lead_alone(&mut self, document: Vec<u8>) -> Result<(), Error> {
        self.lead(document)?;
        if let Some(lead) = &self.lead {
            self.frame.extend_from_slice(lead);
        }
        self.end_frame()
    }

    fn end_frame(&mut self) -> Result<(), Error> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let packed = zstd::bulk::compress(&self.frame, LEVEL);
        let packed = packed.map_err(Error::io("compress for", &self.path))?;
        let lengths = [self.frame.len(), packed.len()].map(|length| {
            // Both are below FRAME_MAX and its bound when compressed.
            u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
        });
        let lengths = lengths.concat();
        let sum = checksum(&lengths, &packed).to_le_bytes();
        self.store(&lengths)?;
        self.store(&sum)?;
        self.store(&packed)?;
        self.frame.clear();
        Ok(())
    }

    fn store(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(bytes)
            .map_err(Error::io("write", &self.path))?;
        self.sum.update(bytes);
        self.entry.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Reads a file frame by frame, and proves at its end that it is what was written.
#[derive(Debug)]
pub struct Reader<'a> {
    path: PathBuf,
    entry: &'a FileEntry,
    file: BufReader<File>,
    sum: Sha256,
    left: u64,
}

impl<'a> Reader<'a> {
    pub fn open(folder: &Path, entry: &'a FileEntry) -> Result<Self, Error> {
        let path = folder.join(&entry.name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::damaged(&entry.name, "it is missing"));
            }
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let length = file.metadata().map_err(Error::io("read", &path))?.len();
        if length != entry.bytes {
            let why = format!("it has {length} bytes, not {}", entry.bytes);
            return Err(Error::damaged(&entry.name, why));
        }
        let mut reader = Self {
            path,
            entry,
            file: BufReader::with_capacity(256 << 10, file),
            sum: Sha256::new(),
            left: length,
        };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(Error::damaged(
                &entry.name,
                "it does not begin as one of ours",
            ));
        }
        Ok(reader)
    }

    /// The documents of the next frame; `None` at the end, when all of the file is proven.
    pub fn frame(&mut self) -> Result<Option<Frame>, Error> {
        if self.left == 0 {
            if hex(&self.sum.clone().finalize()) != self.entry.sha256 {
                return Err(self.damaged("its SHA-256 is another"));
            }
            return Ok(None);
        }
        let head = self.take(HEAD)?;
        let number = |at: usize| {
            let bytes = head.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let (raw, packed, sum) = (number(0), number(4), number(8));
        let length = usize::try_from(raw).unwrap_or(usize::MAX);
        if length > FRAME_MAX || u64::from(packed) > self.left {
            return Err(self.damaged("a frame is longer than one can be"));
        }
        let packed = self.take(usize::try_from(packed).unwrap_or(usize::MAX))?;
        if checksum(&head[..8], &packed) != sum {
            return Err(self.damaged("the checksum of a frame is another"));
        }
        match zstd::bulk::decompress(&packed, length) {
            Ok(bytes) if bytes.len() == length => Ok(Some(Frame { bytes, at: 0 })),
            _ => Err(self.damaged("a frame cannot be unpacked")),
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        if length as u64 > self.left {
            return Err(self.damaged("it ends within a frame"));
        }
        let mut bytes = vec![0; length];
        self.file
            .read_exact(&mut bytes)
            .map_err(Error::io("read", &self.path))?;
        self.sum.update(&bytes);
        self.left -= length as u64;
        Ok(bytes)
    }

    fn damaged(&self, why: &str) -> Error {
        Error::damaged(&self.entry.name, why)
    }
}

/// The documents of one frame.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    at: usize,
}

impl Frame {
    /// The next document; `None` at the end.
    pub fn document(&mut self) -> Result<Option<&[u8]>, Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let length = rest.first_chunk().map(|length| i32::from_le_bytes(*length));
        let length = length.and_then(|length| usize::try_from(length).ok());
        let document = length
            .filter(|length| *length >= 5)
            .and_then(|length| rest.get(..length));
        let document = document.ok_or(super::raw::Malformed)?;
        self.at += document.len();
        Ok(Some(document))
    }
}

fn checksum(lengths: &[u8], packed: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(lengths);
    sum.update(packed);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::folder::tests::Temporary;
    use bson::doc;
    use std::fs;

    fn write(folder: &Path, name: &str, count: i32) -> FileEntry {
        let mut writer = Writer::create(folder, name.into()).unwrap();
        writer.lead(doc! {"lead": name}.to_vec().unwrap()).unwrap();
        for number in 0..count {
            let document = doc! {"_id": number, "text": "x".repeat(20_000)};
            writer.push(&document.to_vec().unwrap()).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(folder: &Path, entry: &FileEntry) -> Result<Vec<i32>, Error> {
        let mut reader = Reader::open(folder, entry)?;
        let mut numbers = Vec::new();
        while let Some(mut frame) = reader.frame()? {
            assert_eq!(
                frame.document()?,
                Some(doc! {"lead": "a"}.to_vec().unwrap().as_slice())
            );
            while let Some(document) = frame.document()? {
                let id = crate::backup::raw::find(document, "_id").unwrap();
                numbers.push(i32::try_from(id.integer().unwrap()).unwrap());
            }
        }
        Ok(numbers)
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = Temporary::new();
        let entry = write(folder.path(), "a", 120);
        assert_eq!((entry.documents, entry.name.as_str()), (120, "a"));
        assert!(
            entry.raw_bytes > 2_400_000 && entry.bytes < 100_000,
            "{entry:?}"
        );
        assert_eq!(
            read(folder.path(), &entry).unwrap(),
            (0..120).collect::<Vec<_>>()
        );
    }

    #[test]
    fn every_byte_that_is_changed_is_found_and_every_cut() {
        let folder = Temporary::new();
        let entry = write(folder.path(), "a", 3);
        let path = folder.path().join("a");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for flip in [1_u8, 0x80, 0xFF] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                fs::write(&path, changed).unwrap();
                let found = read(folder.path(), &entry);
                assert!(
                    matches!(found, Err(Error::Damaged { .. })),
                    "{at}: {found:?}"
                );
            }
            fs::write(&path, &whole[..at]).unwrap();
            let found = read(folder.path(), &entry);
            assert!(
                matches!(found, Err(Error::Damaged { .. })),
                "cut at {at}: {found:?}"
            );
        }
        fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(read(folder.path(), &entry).is_err(), "longer");
        fs::remove_file(&path).unwrap();
        let text = read(folder.path(), &entry).unwrap_err().to_string();
        assert_eq!(text, "the backup is damaged: a: it is missing");
    }

    #[test]
    fn a_file_in_the_place_of_another_is_found() {
        let folder = Temporary::new();
        let a = write(folder.path(), "a", 2);
        let b = write(folder.path(), "b", 2);
        fs::rename(folder.path().join("b"), folder.path().join("a")).unwrap();
        assert_eq!(a.bytes, b.bytes, "only the content tells them apart");
        let mut reader = Reader::open(folder.path(), &a).unwrap();
        while let Ok(Some(_)) = reader.frame() {}
        assert!(reader.frame().is_err());
    }
}
