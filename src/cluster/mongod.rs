//! Where mongod comes from: the first of several ways that gives one which runs here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::error::Error;
use super::fetch::{self, Cache};
use super::report::Console;
use crate::config;

/// The versions that Drumline works with.
const MAJOR_OLDEST: u32 = 6;
const MAJOR_NEWEST: u32 = 8;
/// `mongod --version` answers at once, unless the disk is very slow.
const VERSION_MAX: Duration = Duration::from_secs(20);

/// A mongod program that was tried.
#[derive(Debug, Clone)]
pub struct Mongod {
    pub path: PathBuf,
    pub version: Version,
}

/// A version of MongoDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// Reads the first line of `mongod --version`: `db version v6.0.5`.
    fn read(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|l| l.strip_prefix("db version v"))?;
        let number = line.split(['-', ' ']).next()?;
        let mut parts = number.split('.').map(|part| part.parse().ok());
        Some(Self {
            major: parts.next()??,
            minor: parts.next()??,
            patch: parts.next()??,
        })
    }
}

impl Mongod {
    /// Tries a program: does it run here, and is its version one that Drumline works with?
    pub async fn examine(path: &Path) -> Result<Self, String> {
        let run = Command::new(path)
            .arg("--version")
            .kill_on_drop(true)
            .output();
        let output = match timeout(VERSION_MAX, run).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(format!("{} does not run: {error}", path.display())),
            Err(_) => return Err(format!("{} --version does not answer", path.display())),
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let Some(version) = Version::read(&said).filter(|_| output.status.success()) else {
            return Err(refusal(path, &String::from_utf8_lossy(&output.stderr)));
        };
        if !(MAJOR_OLDEST..=MAJOR_NEWEST).contains(&version.major) {
            return Err(format!(
                "{} is MongoDB {version}; Drumline works with {MAJOR_OLDEST}.0 to {MAJOR_NEWEST}.x",
                path.display()
            ));
        }
        let path = path.to_owned();
        Ok(Self { path, version })
    }
}

fn refusal(path: &Path, errors: &str) -> String {
    let line = errors.lines().next().unwrap_or("no message").trim();
    let why = missing_library(line).unwrap_or_else(|| line.to_owned());
    format!("{} does not run: {why}", path.display())
}

/// Says in plain words which shared library the loader missed, and which package has it.
pub(super) fn missing_library(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("error while loading shared libraries: ")?;
    let library = rest.split(':').next()?.trim();
    let package = match library {
        "libcurl.so.4" => "libcurl4",
        "libssl.so.3" | "libcrypto.so.3" => "libssl3",
        "liblzma.so.5" => "liblzma5",
        "libgssapi_krb5.so.2" => "libgssapi-krb5-2",
        "libsasl2.so.2" => "libsasl2-2",
        "libgcc_s.so.1" => "libgcc-s1",
        "libssl.so.1.1" | "libcrypto.so.1.1" => {
            return Some(format!(
                "it needs {library} of OpenSSL 1.1, so it was built for an older system; take a \
                 mongod built for this one"
            ));
        }
        other if other.starts_with("libldap") || other.starts_with("liblber") => "libldap-2.5-0",
        _ => return Some(format!("the shared library {library} is not installed")),
    };
    Some(format!(
        "the shared library {library} is not installed; on Debian: apt install {package}"
    ))
}

/// Finds a mongod, or fetches one.
pub async fn find(console: &Console) -> Result<Mongod, Error> {
    if let Some(path) = config::env_path("DRUMLINE_MONGOD") {
        // Whoever names one wants that one.
        let wrong = |why: String| Error::Failed(format!("DRUMLINE_MONGOD: {why}"));
        // Members start in folders of their own, where a relative path would mean another file.
        let path = std::path::absolute(path).map_err(|error| wrong(error.to_string()))?;
        return Mongod::examine(&path).await.map_err(wrong);
    }
    let mut tried = vec!["DRUMLINE_MONGOD is not set".to_owned()];
    match on_path() {
        None => tried.push("there is no mongod on PATH".to_owned()),
        Some(path) => match Mongod::examine(&path).await {
            Ok(mongod) => return Ok(mongod),
            Err(why) => tried.push(format!("mongod on PATH: {why}")),
        },
    }
    let cache = Cache::of_user()?;
    let cached = cache.find().await;
    let missing = match cached {
        Ok(mongod) => return Ok(mongod),
        Err(why) => why,
    };
    for why in tried.iter().skip(1).chain(&missing) {
        console.step(why);
    }
    tried.extend(missing);
    fetch::fetch(&cache, console)
        .await
        .map_err(|whys| nowhere(tried.into_iter().chain(whys)))
}

fn on_path() -> Option<PathBuf> {
    let path = config::env_path("PATH")?;
    let mut folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    folders.find_map(|folder| Some(folder.join("mongod")).filter(|file| file.is_file()))
}

fn nowhere(ways: impl Iterator<Item = String>) -> Error {
    let ways: String = ways.map(|why| format!("\n  - {why}")).collect();
    Error::Failed(format!(
        "no mongod was found, and none could be fetched:{ways}\n  Install MongoDB \
         {MAJOR_OLDEST}.0 to {MAJOR_NEWEST}.x, or set DRUMLINE_MONGOD to the path of a mongod."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let read = |text| Version::read(text).map(|version| version.to_string());
        let said = "db version v6.0.5\nBuild Info: {}";
        assert_eq!(read(said).as_deref(), Some("6.0.5"));
        assert_eq!(read("db version v8.0.0-rc1").as_deref(), Some("8.0.0"));
        assert_eq!(read("mongod 6"), None);
    }

    #[test]
    fn a_missing_library_is_named_with_its_package() {
        let line = "mongod: error while loading shared libraries: libcurl.so.4: cannot open \
                    shared object file: No such file or directory";
        let text = missing_library(line).unwrap();
        assert!(text.contains("libcurl.so.4") && text.contains("apt install libcurl4"));
        assert_eq!(missing_library("all is well"), None);
    }
}
