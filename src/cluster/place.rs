//! Where clusters live on disk: one root per user, in it one folder (or link) per cluster.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::Error;
use super::spec::{ClusterName, Spec};
use crate::config;

/// The folder that holds this user's clusters.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// `$XDG_DATA_HOME/drumline`, else `~/.local/share/drumline`.
    pub fn of_user() -> Result<Self, Error> {
        Ok(Self(user_folder("XDG_DATA_HOME", ".local/share")?))
    }

    /// The names of all clusters, sorted.
    pub fn names(&self) -> Vec<ClusterName> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| ClusterName::parse(entry.file_name().to_str()?).ok())
            .collect();
        names.sort();
        names
    }

    /// The place of a cluster, whether it exists or not.
    pub fn place(&self, name: &ClusterName) -> Place {
        let entry = self.0.join(name.as_str());
        // A cluster made with --data-dir lives elsewhere; a link under the root finds it by name.
        let folder = fs::read_link(&entry).unwrap_or_else(|_| entry.clone());
        Place { entry, folder }
    }

    /// Makes the place of a cluster, at `elsewhere` if that is given, and refuses to move one.
    pub(super) fn make(
        &self,
        name: &ClusterName,
        elsewhere: Option<&Path>,
    ) -> Result<Place, Error> {
        make_private_folder(&self.0)?;
        let place = self.place(name);
        if let Some(folder) = elsewhere {
            let folder = std::path::absolute(folder).map_err(Error::io("use", folder))?;
            if !place.exists() {
                refuse_foreign_folder(&folder, name)?;
                make_private_folder(&folder)?;
                symlink(&folder, &place.entry).map_err(Error::io("write", &place.entry))?;
                return Ok(self.place(name));
            }
            if folder != place.folder {
                return Err(Error::Usage(format!(
                    "the cluster '{name}' keeps its data in {}; leave --data-dir out, or give \
                     another --name",
                    place.folder.display()
                )));
            }
        }
        make_private_folder(&place.folder)?;
        Ok(place)
    }
}

/// A user's folder for this program by the XDG rules: relative values are ignored.
pub(super) fn user_folder(variable: &str, fallback: &str) -> Result<PathBuf, Error> {
    let chosen = config::env_path(variable).map(PathBuf::from);
    if let Some(folder) = chosen.filter(|folder| folder.is_absolute()) {
        return Ok(folder.join("drumline"));
    }
    let home = config::env_path("HOME").ok_or_else(|| {
        Error::Failed(format!(
            "neither {variable} nor HOME is set; set one of them"
        ))
    })?;
    Ok(PathBuf::from(home).join(fallback).join("drumline"))
}

/// A folder that holds other things is no place for a cluster, and `down --purge` must never
/// meet them; least of all the data of another cluster.
fn refuse_foreign_folder(folder: &Path, name: &ClusterName) -> Result<(), Error> {
    let place = Place {
        entry: folder.to_owned(),
        folder: folder.to_owned(),
    };
    let holds = match Spec::load(&place)? {
        Some(spec) if spec.name == *name => return Ok(()),
        Some(spec) => format!("holds the cluster '{}'", spec.name),
        None if is_empty(folder) => return Ok(()),
        None => "holds other files".to_owned(),
    };
    Err(Error::Usage(format!(
        "{} {holds}; give --data-dir an empty or new folder",
        folder.display()
    )))
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

/// The files of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The entry under the root: the folder itself or a link to it.
    entry: PathBuf,
    folder: PathBuf,
}

impl Place {
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether there is a cluster here, or the remains of one.
    pub fn exists(&self) -> bool {
        self.entry.symlink_metadata().is_ok()
    }

    pub(super) fn spec(&self) -> PathBuf {
        self.folder.join("cluster.json")
    }

    pub(super) fn run(&self) -> PathBuf {
        self.folder.join("run.json")
    }

    /// While this file is there and its writer lives, the child is not started again.
    pub(super) fn hold(&self, child: &str) -> PathBuf {
        self.folder.join("hold").join(child)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("up.log")
    }

    pub(super) fn secret(&self, name: &str) -> PathBuf {
        self.folder.join("secrets").join(name)
    }

    pub(super) fn member_data(&self, name: &str) -> PathBuf {
        self.folder.join("members").join(name).join("data")
    }

    pub(super) fn member_log(&self, name: &str) -> PathBuf {
        self.folder.join("members").join(name).join("mongod.log")
    }

    pub(super) fn node_log(&self, name: &str) -> PathBuf {
        self.folder.join("nodes").join(format!("{name}.log"))
    }

    /// Takes the lock that makes its holder the owner of the cluster; `None` if another has it.
    pub(super) fn lock(&self) -> Result<Option<Lock>, Error> {
        Lock::take(&self.folder.join("lock"))
    }

    /// Deletes what Drumline made here, and nothing else, while the lock is held.
    pub(super) fn delete(&self, lock: Lock) -> Result<(), Error> {
        for folder in ["members", "nodes", "secrets", "hold"] {
            gone(fs::remove_dir_all(self.folder.join(folder)), &self.folder)?;
        }
        for file in ["run.json", "up.log", "cluster.json", "lock"] {
            gone(fs::remove_file(self.folder.join(file)), &self.folder)?;
        }
        // A folder that holds something else stays, with that in it.
        let _ = fs::remove_dir(&self.folder);
        if self.entry != self.folder {
            gone(fs::remove_file(&self.entry), &self.entry)?;
        }
        drop(lock);
        Ok(())
    }
}

fn gone(result: io::Result<()>, path: &Path) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("delete", path)(error))
        }
        _ => Ok(()),
    }
}

/// An advisory lock on a file. The kernel releases it when its holder ends, by any cause.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(path: &Path) -> Result<Option<Self>, Error> {
        loop {
            if let Some(folder) = path.parent() {
                make_private_folder(folder)?;
            }
            let file = open_private(path, OpenOptions::new().create(true).truncate(false))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(Error::io("lock", path)(error.into())),
            }
            // The last holder may have deleted the file between our opening and our locking it:
            // then this lock is on a file that nobody else can see.
            let held = file.metadata().map_err(Error::io("lock", path))?;
            let named = fs::metadata(path);
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())) {
                return Ok(Some(Self { _file: file }));
            }
        }
    }
}

pub(super) fn make_private_folder(folder: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(Error::io("make the folder", folder))
}

fn open_private(path: &Path, options: &mut OpenOptions) -> Result<File, Error> {
    options
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("open", path))
}

/// Opens a log file to append to.
pub(super) fn open_log(path: &Path) -> Result<File, Error> {
    if let Some(folder) = path.parent() {
        make_private_folder(folder)?;
    }
    open_private(path, OpenOptions::new().create(true).append(true))
}

/// Writes a file that only its owner reads, whole or not at all: a reader, or a crash, meets the
/// old content or the new, never a part.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(name);
    let write = |file: &mut File| file.write_all(content).and_then(|()| file.sync_all());
    let result = open_private(&draft, OpenOptions::new().create(true).truncate(true)).and_then(
        |mut file| {
            write(&mut file)
                .and_then(|()| fs::rename(&draft, path))
                .map_err(Error::io("write", path))
        },
    );
    if result.is_err() {
        let _ = fs::remove_file(&draft);
    }
    result
}
