//! The client's clock between two commands: one small file for each cluster.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::clock::{Seen, Token};
use crate::model::hex;

/// How long a command waits for another one that is saving its clock, which takes microseconds.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// The most that a file may hold, in bytes: a number, a token and two line ends are less.
const FILE_BYTES_MAX: u64 = 1_024;

/// A file that holds the largest stamp that this user has seen on one cluster, as a decimal number,
/// and in a second line the token that came with it. Older files have no second line.
///
/// Writers take turns by a lock on a second file, which is never replaced; the file itself is
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
        Self {
            folder,
            name: format!("clock-{}", hex(&digest[..8])),
        }
    }

    /// What is saved; a clock at 0 if there is nothing yet.
    pub fn load(&self) -> io::Result<Seen> {
        let text = match self.read() {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Seen::default()),
            Err(error) => return Err(self.explain(error)),
        };
        let broken = || io::Error::new(ErrorKind::InvalidData, "it holds no clock");
        parse(&text).ok_or_else(|| self.explain(broken()))
    }

    /// Whatever the file has become, no more of it is read than a clock can take.
    fn read(&self) -> io::Result<String> {
        let mut text = String::new();
        let mut file = File::open(self.path(""))?.take(FILE_BYTES_MAX + 1);
        file.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Raises the saved clock to what was seen, unless it is there already.
    pub async fn raise(&self, seen: &Seen) -> io::Result<()> {
        if self.load().is_ok_and(|saved| saved >= *seen) {
            return Ok(());
        }
        let _lock = self.locked().await?;
        let saved = self.load().unwrap_or_default();
        let raised = saved.max(seen.clone());
        self.replace(&raised).map_err(|error| self.explain(error))
    }

    /// Sets the saved clock back, or on: it was that of another log.
    pub async fn restart(&self, seen: &Seen) -> io::Result<()> {
        let _lock = self.locked().await?;
        self.replace(seen).map_err(|error| self.explain(error))
    }

    async fn locked(&self) -> io::Result<File> {
        fs::create_dir_all(&self.folder).map_err(|error| self.explain(error))?;
        let lock = File::create(self.path(".lock")).map_err(|error| self.explain(error))?;
        self.lock(&lock).await?;
        Ok(lock)
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

    fn replace(&self, seen: &Seen) -> io::Result<()> {
        let token = seen.token.as_ref().map_or("", Token::as_str);
        fs::write(self.path(".new"), format!("{}\n{token}\n", seen.t))?;
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

fn parse(text: &str) -> Option<Seen> {
    let mut lines = text.lines();
    let t = lines.next()?.parse().ok().filter(|t| *t >= 0)?;
    let token = match lines.next() {
        None | Some("") => None,
        Some(line) => Some(Token::parse(line)?),
    };
    lines.next().is_none().then_some(Seen { t, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(t: i64, token: &str) -> Seen {
        Seen {
            t,
            token: Token::parse(token),
        }
    }

    fn clock_file(test: &str) -> ClockFile {
        let folder = std::env::temp_dir().join(format!("drumline-{test}-{}", bson::Uuid::new()));
        ClockFile::new(folder, ["http://a:1"])
    }

    #[tokio::test]
    async fn only_rises_until_it_is_restarted() {
        let file = clock_file("rises");
        assert_eq!(file.load().unwrap(), Seen::default());
        for (raised, then) in [
            (seen(5, ""), seen(5, "")),
            (seen(5, "a"), seen(5, "a")),
            (seen(3, "b"), seen(5, "a")),
            (seen(9, "c"), seen(9, "c")),
        ] {
            file.raise(&raised).await.unwrap();
            assert_eq!(file.load().unwrap(), then);
        }
        file.restart(&seen(2, "")).await.unwrap();
        assert_eq!(file.load().unwrap(), seen(2, ""));
        fs::remove_dir_all(&file.folder).unwrap();
    }

    #[test]
    fn a_file_of_an_older_version_is_a_clock_without_a_token() {
        let file = clock_file("older");
        fs::create_dir_all(&file.folder).unwrap();
        for older in ["17", "17\n"] {
            fs::write(file.path(""), older).unwrap();
            assert_eq!(file.load().unwrap(), seen(17, ""));
        }
        fs::remove_dir_all(&file.folder).unwrap();
    }

    #[tokio::test]
    async fn a_broken_file_is_reported_and_then_replaced() {
        let file = clock_file("broken");
        fs::create_dir_all(&file.folder).unwrap();
        let long = format!("4\n{}\n", "x".repeat(2_000));
        for broken in [
            "",
            "soon",
            "-4",
            "99999999999999999999",
            "4\na b\n",
            "4\na\nb\n",
            "\n4\n",
            &long,
        ] {
            fs::write(file.path(""), broken).unwrap();
            assert!(file.load().is_err(), "{broken:.20?} was taken");
        }
        fs::write(file.path(""), [0xff, 0xfe]).unwrap();
        assert!(file.load().is_err());
        file.raise(&seen(4, "a")).await.unwrap();
        assert_eq!(file.load().unwrap(), seen(4, "a"));
        fs::remove_dir_all(&file.folder).unwrap();
    }

    #[tokio::test]
    async fn a_lock_that_is_never_released_is_not_waited_for() {
        let file = clock_file("held");
        fs::create_dir_all(&file.folder).unwrap();
        let held = File::create(file.path(".lock")).unwrap();
        held.lock().unwrap();
        let error = file.raise(&seen(4, "")).await.unwrap_err();
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
