//! A list that only grows. Its last items stand in the manifest, the others in files of a few items
//! each, its chapters: each names the one before and its sum, and the manifest names the last. So a
//! run rewrites a few items, however long the list is, and still every byte of it is proven.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::frame::{FileEntry, Reader, Writer};

/// So many items stand in the manifest; with one more they move into a chapter.
pub const RECENT_MAX: usize = 4;

/// What the manifest has of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List<T> {
    /// How many items there are in all.
    pub count: usize,
    /// The last chapter; absent before the first.
    pub chapter: Option<FileEntry>,
    pub recent: Vec<T>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            count: 0,
            chapter: None,
            recent: Vec::new(),
        }
    }
}

/// How a chapter begins.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    before: Option<FileEntry>,
}

impl<T> List<T> {
    /// How many chapters there are.
    pub const fn chapters(&self) -> usize {
        self.count.saturating_sub(self.recent.len()) / RECENT_MAX
    }
}

impl<T: Clone + Serialize + DeserializeOwned> List<T> {
    /// Adds an item. `name` gives the name of a chapter by its number, from 1 on.
    pub fn push(
        &mut self,
        item: T,
        folder: &Path,
        name: impl FnOnce(usize) -> String,
    ) -> Result<(), Error> {
        if self.recent.len() >= RECENT_MAX {
            let mut writer = Writer::create(folder, name(self.chapters() + 1))?;
            let head = Head {
                before: self.chapter.clone(),
            };
            writer.push(&bytes(&head)?)?;
            for item in &self.recent {
                writer.push(&bytes(item)?)?;
            }
            self.chapter = Some(writer.finish()?);
            self.recent.clear();
        }
        self.count += 1;
        self.recent.push(item);
        Ok(())
    }

    /// All items, in order.
    pub fn all(&self, folder: &Path) -> Result<Vec<T>, Error> {
        let mut chapters = Vec::new();
        let mut next = self.chapter.clone();
        while let Some(entry) = next {
            let (before, items) = chapter(folder, &entry)?;
            chapters.push(items);
            // A chain that leads on for ever was not written by us.
            if chapters.len() > self.chapters() {
                return Err(Error::damaged(&entry.name, "more stands before it"));
            }
            next = before;
        }
        let all = chapters.into_iter().rev().flatten();
        let all: Vec<T> = all.chain(self.recent.iter().cloned()).collect();
        match all.len() == self.count {
            true => Ok(all),
            false => Err(Error::damaged("the manifest", "a list has another length")),
        }
    }

    /// The names of the chapters' files.
    pub fn chapter_names(&self, folder: &Path) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        let mut next = self.chapter.clone();
        while let Some(entry) = next.filter(|_| names.len() < self.chapters()) {
            next = chapter::<T>(folder, &entry)?.0;
            names.push(entry.name);
        }
        Ok(names)
    }
}

fn chapter<T: DeserializeOwned>(
    folder: &Path,
    entry: &FileEntry,
) -> Result<(Option<FileEntry>, Vec<T>), Error> {
    let wrong = || Error::damaged(&entry.name, "it is not what was written");
    let (mut before, mut items) = (None, Vec::new());
    let mut reader = Reader::open(folder, entry)?;
    while let Some(mut frame) = reader.frame()? {
        while let Some(document) = frame.document()? {
            match &before {
                None => {
                    let head = bson::deserialize_from_slice::<Head>(document);
                    before = Some(head.map_err(|_| wrong())?.before);
                }
                Some(_) => {
                    let item = bson::deserialize_from_slice(document);
                    items.push(item.map_err(|_| wrong())?);
                }
            }
        }
    }
    Ok((before.ok_or_else(wrong)?, items))
}

/// An item of a list, as a file has it.
pub fn bytes(item: &impl Serialize) -> Result<Vec<u8>, Error> {
    let bytes = bson::serialize_to_vec(item);
    bytes.map_err(|error| Error::damaged("a list", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::folder::tests::Temporary;
    use std::fs;

    #[test]
    fn a_long_list_is_read_as_it_was_written_and_little_stands_in_the_manifest() {
        let place = Temporary::new();
        let name = |number: usize| format!("c{number}");
        let mut list = List::default();
        let mut expected = Vec::new();
        for item in 0..103 {
            let item = bson::doc! {"item": item};
            list.push(item.clone(), place.path(), name).unwrap();
            expected.push(item);
            assert!(list.recent.len() <= RECENT_MAX);
            assert_eq!(list.all(place.path()).unwrap(), expected);
        }
        assert_eq!((list.count, list.chapters()), (103, 25));
        assert_eq!(list.chapter_names(place.path()).unwrap().len(), 25);
        // One chapter in the place of another, changed or gone: found from the end.
        let (c3, c4) = (place.path().join("c3"), place.path().join("c4"));
        let (third, fourth) = (fs::read(&c3).unwrap(), fs::read(&c4).unwrap());
        fs::write(&c3, &fourth).unwrap();
        assert!(list.all(place.path()).is_err());
        let mut flipped = third.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&c3, flipped).unwrap();
        assert!(list.all(place.path()).is_err());
        fs::remove_file(&c3).unwrap();
        let told = list.all(place.path()).unwrap_err().to_string();
        assert_eq!(told, "the backup is damaged: c3: it is missing");
        fs::write(&c3, third).unwrap();
        list.all(place.path()).unwrap();
        list.count += 1;
        assert!(list.all(place.path()).is_err(), "another length");
    }
}
