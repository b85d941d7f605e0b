//! The client's clock between two commands: one small file for each cluster.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

/// How long a command waits for another one that is saving its clock, which takes microseconds.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// A file that holds the largest stamp that this user has seen on one cluster, as a decimal number.
///
/// Writers take turns by a lock on a second file, which is never replaced; the number itself is
/// replaced by a rename, so that readers need no lock and never see half of it. It is not synced to the
/// disk: after a power cut an older clock is correct too, it only promises less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockFile {
    folder: PathBuf,
    name: String,
}

impl ClockFile {
    /// `cluster` names what the clock belongs to: the server URLs, or the hosts of the replica set.
    /// Each cluster has its own clock, or one with large stamps would push those of all others.
    pub fn new<'a>(folder: PathBuf, cluster: impl IntoIterator<Item = &'a str>) -> Self {
        let mut parts: Vec<_> = cluster.into_iter().collect();
        parts.sort_unstable();
        parts.dedup();
        let digest = Sha256::digest(parts.join(","));
        let hex: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            folder,
            name: format!("clock-{hex}"),
        }
    }

    /// The saved clock; 0 if there is none yet.
    pub fn load(&self) -> io::Result<i64> {
        let text = match fs::read_to_string(self.path("")) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(self.explain(error)),
        };
        match text.trim_end().parse() {
            Ok(t) if t >= 0 => Ok(t),
            _ => Err(self.explain(io::Error::new(ErrorKind::InvalidData, "it holds no clock"))),
        }
    }

    /// Raises the saved clock to `t`, unless it is there already.
    pub async fn raise(&self, t: i64) -> io::Result<()> {
        if self.load().is_ok_and(|saved| saved >= t) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).map_err(|error| self.explain(error))?;
        let lock = File::create(self.path(".lock")).map_err(|error| self.explain(error))?;
        self.lock(&lock).await?;
        let saved = self.load().unwrap_or(0);
        self.replace(saved.max(t))
            .map_err(|error| self.explain(error))
    }

    /// Does not wait for ever: the holder of the lock may be frozen.
    async fn lock(&self, file: &File) -> io::Result<()> {
        let deadline = Instant::now() + LOCK_WAIT_MAX;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    sleep(LOCK_PAUSE).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let error =
                        io::Error::new(ErrorKind::TimedOut, "another command holds its lock");
                    return Err(self.explain(error));
                }
                Err(TryLockError::Error(error)) => return Err(self.explain(error)),
            }
        }
    }

    fn replace(&self, t: i64) -> io::Result<()> {
        fs::write(self.path(".new"), format!("{t}\n"))?;
        fs::rename(self.path(".new"), self.path(""))
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}{suffix}", self.name))
    }

    fn explain(&self, error: io::Error) -> io::Error {
        io::Error::new(
            error.kind(),
            format!("{}: {error}", self.path("").display()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock_file(test: &str) -> ClockFile {
        let folder = std::env::temp_dir().join(format!("drumline-{test}-{}", bson::Uuid::new()));
        ClockFile::new(folder, ["http://a:1"])
    }

    #[tokio::test]
    async fn only_rises() {
        let file = clock_file("rises");
        assert_eq!(file.load().unwrap(), 0);
        for (raised, then) in [(5, 5), (3, 5), (9, 9)] {
            file.raise(raised).await.unwrap();
            assert_eq!(file.load().unwrap(), then);
        }
        fs::remove_dir_all(&file.folder).unwrap();
    }

    #[tokio::test]
    async fn a_broken_file_is_reported_and_then_replaced() {
        let file = clock_file("broken");
        fs::create_dir_all(&file.folder).unwrap();
        for broken in ["", "soon", "-4", "99999999999999999999"] {
            fs::write(file.path(""), broken).unwrap();
            assert!(file.load().is_err(), "{broken:?} was taken");
        }
        file.raise(4).await.unwrap();
        assert_eq!(file.load().unwrap(), 4);
        fs::remove_dir_all(&file.folder).unwrap();
    }

    #[tokio::test]
    async fn a_lock_that_is_never_released_is_not_waited_for() {
        let file = clock_file("held");
        fs::create_dir_all(&file.folder).unwrap();
        let held = File::create(file.path(".lock")).unwrap();
        held.lock().unwrap();
        let error = file.raise(4).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        fs::remove_dir_all(&file.folder).unwrap();
    }

    #[test]
    fn the_order_of_servers_does_not_matter() {
        let new = |servers: [&'static str; 2]| ClockFile::new(PathBuf::new(), servers);
        assert_eq!(
            new(["http://a:1", "http://b:1"]),
            new(["http://b:1", "http://a:1"])
        );
        assert_ne!(
            new(["http://a:1", "http://b:1"]),
            new(["http://a:1", "http://c:1"])
        );
    }
}
