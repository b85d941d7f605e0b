//! Sorts more rows than memory holds.
//!
//! A row is a few words, ordered by the first, then the second, and so on. What does not fit is
//! sorted in pieces that wait in a file without a name, so that nothing is left behind however the
//! process ends. Where the file system cannot make one, it loses its name as soon as it is open.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};

/// Rows that one sorter keeps in memory, in bytes. The checker has six sorters at a time at most.
pub(super) const SORT_BYTES_MAX: usize = 24 << 20;
/// Sorted pieces in one file. One more, and they become one piece.
const PIECES_MAX: usize = 64;
/// What is read of each piece at a time while pieces are merged, in bytes.
const READ_BYTES: usize = 128 << 10;
const WORD_BYTES: usize = 8;

/// A row.
pub(super) type Row<const N: usize> = [u64; N];

/// Takes rows in any order.
#[derive(Debug)]
pub(super) struct Sorter<const N: usize> {
    rows: Vec<Row<N>>,
    rows_max: usize,
    pieces: Vec<Piece>,
    pieces_max: usize,
}

/// A sorted piece of a file.
#[derive(Debug)]
struct Piece {
    file: Rc<File>,
    from: u64,
    to: u64,
}

impl<const N: usize> Sorter<N> {
    pub(super) fn new() -> Self {
        Self::bounded(SORT_BYTES_MAX / (N * WORD_BYTES), PIECES_MAX)
    }

    fn bounded(rows_max: usize, pieces_max: usize) -> Self {
        Self {
            rows: Vec::new(),
            rows_max,
            pieces: Vec::new(),
            pieces_max,
        }
    }

    pub(super) fn push(&mut self, row: Row<N>) -> io::Result<()> {
        if self.rows.len() == self.rows_max {
            self.put_away()?;
        }
        if self.rows.capacity() == 0 {
            self.rows.reserve_exact(self.rows_max);
        }
        self.rows.push(row);
        Ok(())
    }

    /// All rows in order.
    pub(super) fn sorted(mut self) -> io::Result<Sorted<N>> {
        if self.pieces.is_empty() {
            self.rows.sort_unstable();
            return Ok(Sorted::Memory(self.rows.into_iter()));
        }
        self.put_away()?;
        self.rows = Vec::new();
        Ok(Sorted::Files(Merge::new(self.pieces)?))
    }

    fn put_away(&mut self) -> io::Result<()> {
        self.rows.sort_unstable();
        let (file, from) = match self.pieces.last() {
            Some(last) => (Rc::clone(&last.file), last.to),
            None => (Rc::new(nameless()?), 0),
        };
        let mut out = Out::new(file, from);
        for row in self.rows.drain(..) {
            out.row(&row)?;
        }
        self.pieces.push(out.end()?);
        if self.pieces.len() >= self.pieces_max {
            self.join()?;
        }
        Ok(())
    }

    /// Makes one piece of all, in a new file.
    fn join(&mut self) -> io::Result<()> {
        let mut merge = Merge::<N>::new(std::mem::take(&mut self.pieces))?;
        let mut out = Out::new(Rc::new(nameless()?), 0);
        while let Some(row) = merge.next()? {
            out.row(&row)?;
        }
        self.pieces.push(out.end()?);
        Ok(())
    }
}

/// A file without a name, in the folder for temporary files.
fn nameless() -> io::Result<File> {
    let folder = std::env::temp_dir();
    // Whatever is wrong with the folder, the second way says it.
    never_named(&folder).or_else(|_| unlinked(&folder))
}

fn never_named(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(file.into())
}

/// A file that has lost its name already.
fn unlinked(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!("drumline-check-{}", bson::Uuid::new()));
    let explained = |error: io::Error| {
        let path = path.display();
        io::Error::new(error.kind(), format!("cannot use {path} to sort: {error}"))
    };
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&path).map_err(explained)?;
    fs::remove_file(&path).map_err(explained)?;
    Ok(file)
}

/// Writes a piece.
struct Out {
    file: Rc<File>,
    from: u64,
    to: u64,
    bytes: Vec<u8>,
}

impl Out {
    fn new(file: Rc<File>, from: u64) -> Self {
        Self {
            file,
            from,
            to: from,
            bytes: Vec::with_capacity(READ_BYTES),
        }
    }

    fn row(&mut self, row: &[u64]) -> io::Result<()> {
        if self.bytes.len() >= READ_BYTES {
            self.flush()?;
        }
        for word in row {
            self.bytes.write_all(&word.to_le_bytes())?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.bytes, self.to)?;
        self.to += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }

    fn end(mut self) -> io::Result<Piece> {
        self.flush()?;
        Ok(Piece {
            file: self.file,
            from: self.from,
            to: self.to,
        })
    }
}

/// Rows in order.
#[derive(Debug)]
pub(super) enum Sorted<const N: usize> {
    Memory(std::vec::IntoIter<Row<N>>),
    Files(Merge<N>),
}

impl<const N: usize> Sorted<N> {
    pub(super) fn next(&mut self) -> io::Result<Option<Row<N>>> {
        match self {
            Self::Memory(rows) => Ok(rows.next()),
            Self::Files(merge) => merge.next(),
        }
    }
}

/// Pieces that are read side by side.
#[derive(Debug)]
pub(super) struct Merge<const N: usize> {
    pieces: Vec<Reader<N>>,
    /// The next row of each piece, and which piece that is.
    heads: BinaryHeap<Reverse<(Row<N>, usize)>>,
}

impl<const N: usize> Merge<N> {
    fn new(pieces: Vec<Piece>) -> io::Result<Self> {
        let mut pieces: Vec<_> = pieces.into_iter().map(Reader::new).collect();
        let mut heads = BinaryHeap::new();
        for (number, piece) in pieces.iter_mut().enumerate() {
            heads.extend(piece.next()?.map(|row| Reverse((row, number))));
        }
        Ok(Self { pieces, heads })
    }

    fn next(&mut self) -> io::Result<Option<Row<N>>> {
        let Some(mut head) = self.heads.peek_mut() else {
            return Ok(None);
        };
        let Reverse((row, number)) = *head;
        match self.pieces[number].next()? {
            Some(next) => *head = Reverse((next, number)),
            None => drop(PeekMut::pop(head)),
        }
        Ok(Some(row))
    }
}

/// Reads a piece.
#[derive(Debug)]
struct Reader<const N: usize> {
    piece: Piece,
    bytes: Vec<u8>,
    at: usize,
}

impl<const N: usize> Reader<N> {
    const fn new(piece: Piece) -> Self {
        Self {
            piece,
            bytes: Vec::new(),
            at: 0,
        }
    }

    fn next(&mut self) -> io::Result<Option<Row<N>>> {
        if self.at == self.bytes.len() && !self.refill()? {
            return Ok(None);
        }
        let bytes = &self.bytes[self.at..self.at + N * WORD_BYTES];
        let mut row = [0; N];
        for (word, bytes) in row.iter_mut().zip(bytes.chunks_exact(WORD_BYTES)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        self.at += N * WORD_BYTES;
        Ok(Some(row))
    }

    /// Whole rows alone are read: a piece holds nothing else.
    fn refill(&mut self) -> io::Result<bool> {
        let rest = self.piece.to - self.piece.from;
        let rows = READ_BYTES / (N * WORD_BYTES);
        let most = rows * N * WORD_BYTES;
        let length = usize::try_from(rest).unwrap_or(most).min(most);
        self.bytes.resize(length, 0);
        let piece = &mut self.piece;
        piece.file.read_exact_at(&mut self.bytes, piece.from)?;
        piece.from += length as u64;
        self.at = 0;
        Ok(length > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in the tests of a cheap random order: no two of the first 2^64 are the same.
    fn mixed(n: u64) -> u64 {
        n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    #[test]
    fn rows_come_back_in_order_from_memory_and_from_files() {
        for (rows_max, pieces_max) in [(10_000, 64), (100, 64), (7, 4), (1, 2)] {
            let mut sorter = Sorter::bounded(rows_max, pieces_max);
            let mut expected = Vec::new();
            for n in 0..1_000 {
                let row = [mixed(n) % 50, mixed(n), n];
                sorter.push(row).unwrap();
                expected.push(row);
            }
            expected.sort_unstable();
            let mut sorted = sorter.sorted().unwrap();
            for row in expected {
                assert_eq!(sorted.next().unwrap(), Some(row));
            }
            assert_eq!(sorted.next().unwrap(), None);
        }
    }

    #[test]
    fn files_have_no_name() {
        let folder = std::env::temp_dir().join(format!("drumline-sort-{}", bson::Uuid::new()));
        let error = unlinked(&folder).unwrap_err();
        assert!(error.to_string().contains("to sort"), "{error}");
        fs::create_dir(&folder).unwrap();
        let mut files = vec![unlinked(&folder).unwrap()];
        // Not every file system can.
        files.extend(never_named(&folder));
        for file in files {
            file.write_all_at(b"row", 3).unwrap();
            let mut back = [0; 3];
            file.read_exact_at(&mut back, 3).unwrap();
            assert_eq!(&back, b"row");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        }
        fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn nothing_sorts_to_nothing() {
        let mut sorted = Sorter::<2>::new().sorted().unwrap();
        assert_eq!(sorted.next().unwrap(), None);
    }
}
