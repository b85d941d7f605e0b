//! The folder of a backup: its lock, its manifest, what a run that was killed has left in it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::Error;
use super::frame::{Reader, Writer};
use super::list;
use super::manifest::{self, Base, Manifest, Segment};

const LOCK: &str = "lock";
const DRAFT: &str = "manifest.json.new";
const SUFFIX: &str = ".dlb";

/// A folder that holds a backup, or is to hold one.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held as long as this is; absent for those who only read.
    _lock: Option<File>,
}

impl Folder {
    /// Opens a backup to read it.
    pub fn to_read(path: &Path) -> Result<(Self, Manifest), Error> {
        let folder = Self {
            path: path.to_owned(),
            _lock: None,
        };
        let manifest = folder.load()?.ok_or_else(|| {
            let path = path.display();
            Error::Folder(format!(
                "{path} holds no backup: `drumline backup {path}` makes one"
            ))
        })?;
        Ok((folder, manifest))
    }

    /// Opens a backup to write it, or an empty folder to begin one. What an earlier run has left is
    /// taken out.
    pub fn to_write(path: &Path) -> Result<(Self, Option<Manifest>), Error> {
        refuse_foreign(path)?;
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(path);
        made.map_err(Error::io("make the folder", path))?;
        let folder = Self {
            path: path.to_owned(),
            _lock: Some(lock(path)?),
        };
        let mut manifest = folder.load()?;
        folder.sweep(manifest.as_ref())?;
        if let Some(manifest) = manifest.as_mut().filter(|one| !one.gone.is_empty()) {
            folder.take_out_gone(manifest)?;
        }
        Ok((folder, manifest))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn load(&self) -> Result<Option<Manifest>, Error> {
        let path = self.path.join(manifest::NAME);
        match fs::read(&path) {
            Ok(bytes) => Manifest::from_text(&bytes).map(Some),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Replaces the manifest, in one step. From then on the files that it names are the backup.
    pub fn save(&self, manifest: &Manifest) -> Result<(), Error> {
        let draft = self.path.join(DRAFT);
        let text = manifest.to_text()?;
        let write = || {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            // The files that it names must be found by their names before it is.
            File::open(&self.path)?.sync_all()?;
            fs::rename(&draft, self.path.join(manifest::NAME))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(Error::io("write", &draft))
    }

    /// All bases, the oldest first.
    pub fn bases(&self, manifest: &Manifest) -> Result<Vec<Base>, Error> {
        let mut all = Vec::new();
        if let Some(older) = &manifest.older {
            let mut reader = Reader::open(&self.path, older)?;
            while let Some(mut frame) = reader.frame()? {
                while let Some(document) = frame.document()? {
                    let base = bson::deserialize_from_slice(document);
                    all.push(
                        base.map_err(|_| {
                            Error::damaged(&older.name, "it is not what was written")
                        })?,
                    );
                }
            }
        }
        all.extend(manifest.base.clone());
        Ok(all)
    }

    /// Has these be the bases, of which only the last one grows. It counts when the manifest is saved.
    pub fn set_bases(&self, manifest: &mut Manifest, mut all: Vec<Base>) -> Result<(), Error> {
        let last = all.pop();
        manifest.older = match all.is_empty() {
            true => None,
            false => {
                manifest.olders += 1;
                let number = last.as_ref().map_or(0, |base| base.number);
                let mut writer = Writer::create(&self.path, name_of(number, 'o', manifest.olders))?;
                for base in &all {
                    writer.push(&list::bytes(base)?)?;
                }
                Some(writer.finish()?)
            }
        };
        manifest.base = last;
        Ok(())
    }

    /// All segments of a base, in order. Refuses those that do not follow on one another.
    pub fn segments(&self, base: &Base) -> Result<Vec<Segment>, Error> {
        let all = base.segments.all(&self.path)?;
        for pair in all.windows(2) {
            if let [before, after] = pair
                && after.first <= before.last
            {
                return Err(Error::damaged(
                    &after.file.name,
                    "it does not follow on the one before",
                ));
            }
        }
        Ok(all)
    }

    /// The files of these bases that are there, with their lengths.
    pub fn files_of(&self, bases: &[u32]) -> Result<Vec<(PathBuf, u64)>, Error> {
        self.ours(|base, _| bases.contains(&base))
    }

    /// Takes out the files of the bases that the manifest calls gone, and what it says of them.
    pub fn take_out_gone(&self, manifest: &mut Manifest) -> Result<(), Error> {
        let older = manifest.older.as_ref().map(|older| older.name.as_str());
        let is_old = |name: &str| name.contains("-o") && Some(name) != older;
        let files = self.ours(|base, name| {
            (manifest.gone.contains(&base) && Some(name) != older) || is_old(name)
        })?;
        for (path, _) in files {
            fs::remove_file(&path).map_err(Error::io("delete", &path))?;
        }
        manifest.gone.clear();
        self.save(manifest)
    }

    /// The files of ours, by base and name, with their lengths.
    fn ours(&self, wanted: impl Fn(u32, &str) -> bool) -> Result<Vec<(PathBuf, u64)>, Error> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(Error::io("read", &self.path))? {
            let entry = entry.map_err(Error::io("read", &self.path))?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if base_in(name).is_some_and(|base| wanted(base, name)) {
                let bytes = entry.metadata().map(|file| file.len());
                let path = entry.path();
                let bytes = bytes.map_err(Error::io("read", &path))?;
                all.push((path, bytes));
            }
        }
        Ok(all)
    }

    /// Takes out what a run that was killed has left. It may have begun the next file of each kind
    /// and no other: so it is not looked for in all of the folder.
    fn sweep(&self, manifest: Option<&Manifest>) -> Result<(), Error> {
        let base = manifest.and_then(|manifest| manifest.base.as_ref());
        let number = base.map_or(0, |base| base.number);
        let olders = manifest.map_or(0, |manifest| manifest.olders);
        let mut left = vec![DRAFT.to_owned(), catalog_name(number + 1)];
        left.extend([number, number + 1].map(|base| name_of(base, 'o', olders + 1)));
        if let Some(base) = base {
            let next = [
                ('f', base.files.count),
                ('d', base.files.chapters()),
                ('s', base.segments.count),
                ('c', base.segments.chapters()),
            ];
            left.extend(next.map(|(kind, count)| name_of(number, kind, count + 1)));
        }
        for name in left {
            let path = self.path.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("delete", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The name of a file: `f` of documents, `s` of events, `d` and `c` of the chapters of both, `o` of older
/// bases.
pub fn name_of(base: u32, kind: char, number: usize) -> String {
    format!("b{base:04}-{kind}{number:06}{SUFFIX}")
}

/// The name of a base's catalog.
pub fn catalog_name(base: u32) -> String {
    format!("b{base:04}-catalog{SUFFIX}")
}

fn is_ours(name: &str) -> bool {
    base_in(name).is_some()
}

/// The base that a file of ours is of, by its name.
fn base_in(name: &str) -> Option<u32> {
    let name = name.strip_suffix(SUFFIX)?.strip_prefix('b')?;
    let (base, rest) = name.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = rest.strip_prefix(['f', 's', 'd', 'c', 'o']);
    let is_ours = digits(base) && (rest == "catalog" || number.is_some_and(digits));
    base.parse().ok().filter(|_| is_ours)
}

/// A folder that holds other things is no place for a backup.
fn refuse_foreign(path: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Err(Error::Folder(format!("{} is no folder", path.display())));
        }
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    if path.join(manifest::NAME).exists() {
        return Ok(());
    }
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        // A first run that was killed leaves a catalogue at the most; more than that had a manifest.
        let is_left = [LOCK, DRAFT, &catalog_name(1)].contains(&name);
        if !is_left && is_ours(name) {
            return Err(Error::Folder(format!(
                "{} holds files of a backup ('{name}') whose {} is missing: put that back, or give \
                 another folder",
                path.display(),
                manifest::NAME
            )));
        }
        if !is_left {
            return Err(Error::Folder(format!(
                "{} holds other files ('{name}') and no backup: give a new or an empty folder",
                path.display()
            )));
        }
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(Error::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked(folder.to_owned())),
        Err(error) => Err(Error::io("lock", &path)(error.into())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backup::manifest::tests::{file, manifest};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A folder that goes with the test.
    #[derive(Debug)]
    pub struct Temporary(PathBuf);

    impl Temporary {
        pub fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("drumline-backup-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_folder_of_other_things_and_a_file_are_refused_and_left_alone() {
        let folder = Temporary::new();
        fs::write(folder.path().join("photo.jpg"), "x").unwrap();
        let told = Folder::to_write(folder.path()).unwrap_err().to_string();
        assert!(told.contains("holds other files ('photo.jpg')"), "{told}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let file = folder.path().join("photo.jpg");
        let told = Folder::to_write(&file).unwrap_err().to_string();
        assert!(told.ends_with("is no folder"), "{told}");
        let told = Folder::to_read(folder.path()).unwrap_err().to_string();
        assert!(told.contains("holds no backup"), "{told}");
    }

    #[test]
    fn a_backup_that_has_lost_its_manifest_is_not_written_over() {
        let folder = Temporary::new();
        // A first run that was killed may leave this.
        fs::write(folder.path().join(catalog_name(1)), "x").unwrap();
        drop(Folder::to_write(folder.path()).unwrap());
        fs::write(folder.path().join("b0001-f000001.dlb"), "x").unwrap();
        let told = Folder::to_write(folder.path()).unwrap_err().to_string();
        assert!(told.contains("whose manifest.json is missing"), "{told}");
    }

    #[test]
    fn one_run_at_a_time_has_a_folder() {
        let place = Temporary::new();
        let first = Folder::to_write(place.path()).unwrap();
        let second = Folder::to_write(place.path());
        assert!(matches!(second, Err(Error::Locked(_))), "{second:?}");
        drop(first);
        Folder::to_write(place.path()).unwrap();
    }

    #[test]
    fn leftovers_go_and_what_the_manifest_names_stays() {
        let place = Temporary::new();
        let mut manifest = manifest();
        {
            let (folder, none) = Folder::to_write(place.path()).unwrap();
            assert_eq!(none, None);
            folder.save(&manifest).unwrap();
        }
        let names = [
            "b0001-catalog.dlb",
            "b0001-f000001.dlb",
            "b0001-s000001.dlb",
            "b0001-f000002.dlb",
            "b0001-s000002.dlb",
            "b0002-catalog.dlb",
            "manifest.json.new",
            "notes.txt",
            "b1-x.dlb",
            "b0001-c000001.dlb",
            "b0001-d000001.dlb",
            "b0002-o000001.dlb",
        ];
        for name in names {
            fs::write(place.path().join(name), "x").unwrap();
        }
        let (_, read) = Folder::to_write(place.path()).unwrap();
        manifest.sha256 = read.as_ref().unwrap().sha256.clone();
        assert_eq!(read, Some(manifest));
        let mut left: Vec<_> = fs::read_dir(place.path()).unwrap().flatten().collect();
        left.sort_by_key(fs::DirEntry::file_name);
        let left: Vec<_> = left
            .iter()
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        let stay = [
            "b0001-catalog.dlb",
            "b0001-f000001.dlb",
            "b0001-s000001.dlb",
            "b1-x.dlb",
            "lock",
            "manifest.json",
            "notes.txt",
        ];
        assert_eq!(left, stay);
    }

    #[test]
    fn many_segments_and_bases_are_read_as_they_were_written() {
        let place = Temporary::new();
        let (folder, _) = Folder::to_write(place.path()).unwrap();
        let mut manifest = manifest();
        let base = manifest.base.as_mut().unwrap();
        let template = base.segments.recent[0].clone();
        base.segments = list::List::default();
        let mut expected = Vec::new();
        for number in 1..=300_u32 {
            let mut segment = template.clone();
            segment.file = file(&name_of(1, 's', usize::try_from(number).unwrap()));
            (segment.first, segment.last) = ((number, 1).into(), (number, 5).into());
            let name = |chapter| name_of(1, 'c', chapter);
            base.segments
                .push(segment.clone(), place.path(), name)
                .unwrap();
            expected.push(segment);
        }
        assert_eq!(folder.segments(base).unwrap(), expected);
        let mut swapped = base.clone();
        swapped.segments.recent.swap(0, 1);
        let told = folder.segments(&swapped).unwrap_err().to_string();
        assert!(told.contains("does not follow"), "{told}");
        let mut bases = vec![base.clone(), base.clone(), base.clone()];
        bases[1].number = 2;
        bases[2].number = 3;
        folder.set_bases(&mut manifest, bases.clone()).unwrap();
        assert_eq!(folder.bases(&manifest).unwrap(), bases);
        assert_eq!(manifest.base.as_ref().unwrap().number, 3);
        // What a killed run may have begun is what the next one sweeps.
        folder.save(&manifest).unwrap();
        drop(folder);
        Folder::to_write(place.path()).unwrap();
        assert_eq!(
            fs::read_dir(place.path()).unwrap().count(),
            2 + 1 + 74,
            "lock, manifest, older bases, chapters"
        );
    }
}
