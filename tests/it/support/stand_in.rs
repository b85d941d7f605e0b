//! Images in the place of `debian:bookworm-slim` and `mongo:8.0`, made of what this machine has: its
//! Debian packages, its mongod, and the program under test. No registry is asked.
//!
//! The file system is kept in the user's cache, and the images that follow from it in the engine as
//! `drumline-test/...`, each under a tag that says what it is made of. Both can be deleted any time.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use drumline::config::env_path;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use super::Cluster;
use super::docker::{docker, run};

/// What the file system is made of; another recipe is another cache entry.
const RECIPE: [&str; 2] = ["--variant=minbase", "--include=libcurl4"];
const DEBOOTSTRAP_SECONDS_MAX: u32 = 600;
/// Of no use in a container that installs nothing.
const LEFT_OUT: [&str; 5] = [
    "var/cache/apt",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
];
/// As the official image has it: user, folders, volumes, the place of the program.
const MONGO: &str = "
RUN useradd --system --uid 999 --user-group --home-dir /data/db mongodb \\
 && mkdir -p /data/db /data/configdb && chown mongodb:mongodb /data/db /data/configdb
VOLUME /data/db /data/configdb
COPY mongod /usr/bin/mongod
";

/// The names of the images for `MONGO_IMAGE` and for the base of a node.
#[derive(Debug)]
pub struct StandIns {
    pub mongo: String,
    pub runtime: String,
}

impl StandIns {
    /// Makes the images that are not there. `Err` says what the machine lacks.
    pub fn make() -> Result<Self, String> {
        let cache = cache()?;
        let lock = File::create(cache.join("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let system = System::kept_or_made(&cache)?;
        let base = system.image()?;
        Ok(Self {
            mongo: mongo_image(&base, &cache)?,
            runtime: runtime_image(&base)?,
        })
    }
}

fn cache() -> Result<PathBuf, String> {
    let home = || env_path("HOME").map(|home| Path::new(&home).join(".cache"));
    let user = env_path("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let folder = user.ok_or("HOME is not set")?.join("drumline/stand-in");
    fs::create_dir_all(&folder).unwrap();
    Ok(folder)
}

/// A minimal Debian as an archive.
struct System {
    archive: PathBuf,
    digest: String,
}

impl System {
    /// Takes the archive from the cache if it is whole.
    fn kept_or_made(cache: &Path) -> Result<Self, String> {
        let release = Release::of_machine()?;
        let recipe = digest(&[RECIPE.concat(), LEFT_OUT.concat(), release.name.clone()].concat());
        let archive = cache.join(format!("{}-{recipe}.tar", release.name));
        let noted = archive.with_extension("sha256");
        let whole = || Some(fs::read_to_string(&noted).ok()? == file_digest(&archive).ok()?);
        if whole() != Some(true) {
            make(&release, cache, &archive)?;
            fs::write(&noted, file_digest(&archive).unwrap()).unwrap();
        }
        let digest = fs::read_to_string(&noted).unwrap();
        Ok(Self { archive, digest })
    }

    fn image(&self) -> Result<String, String> {
        let archive = self.archive.to_str().unwrap();
        image("base", &self.digest, |tag| {
            docker(&["import", archive, tag])
        })
    }
}

/// The Debian that this machine runs, so that its programs run in the image, from the mirror that
/// it is set to use.
struct Release {
    name: String,
    mirror: String,
}

impl Release {
    fn of_machine() -> Result<Self, String> {
        let about = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let name = about
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let name = name.ok_or("this is no Debian")?.to_owned();
        let format = "$(RELEASE) $(COMPONENT) $(REPO_URI)";
        let sources = run(&["apt-get", "indextargets", "--format", format])?;
        let wanted = format!("{name} main ");
        let mirror = sources.lines().find_map(|line| line.strip_prefix(&wanted));
        let mirror = mirror
            .ok_or("apt names no source of this Debian")?
            .to_owned();
        Ok(Self { name, mirror })
    }
}

fn make(release: &Release, cache: &Path, archive: &Path) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("debootstrap needs root".into());
    }
    // What a killed process has left is in the way.
    let folder = cache.join("system");
    let (root, new) = (folder.to_str().unwrap(), cache.join("new.tar"));
    let clear = || run(&["rm", "-rf", "--one-file-system", root]);
    clear()?;
    let seconds = DEBOOTSTRAP_SECONDS_MAX.to_string();
    let mut command = vec!["timeout", "--kill-after=5", &seconds, "debootstrap"];
    command.extend(RECIPE);
    command.extend([&release.name, root, &release.mirror]);
    run(&command)?;
    let left_out = LEFT_OUT.map(|path| format!("--exclude=./{path}"));
    let mut command = vec!["tar", "--create", "--directory", root];
    command.extend(["--file", new.to_str().unwrap()]);
    command.extend(left_out.iter().map(String::as_str));
    command.push(".");
    run(&command)?;
    clear()?;
    fs::rename(new, archive).unwrap();
    Ok(())
}

fn mongo_image(base: &str, cache: &Path) -> Result<String, String> {
    let mongod = Cluster::mongod();
    let parts = [base, MONGO, &file_digest(mongod).unwrap()].concat();
    image("mongo", &digest(&parts), |tag| {
        let context = cache.join("context");
        let _ = fs::remove_dir_all(&context);
        fs::create_dir(&context).unwrap();
        fs::copy(mongod, context.join("mongod")).unwrap();
        fs::write(context.join("Dockerfile"), format!("FROM {base}\n{MONGO}")).unwrap();
        let made = docker(&["build", "--quiet", "--tag", tag, context.to_str().unwrap()]);
        fs::remove_dir_all(&context).unwrap();
        made
    })
}

/// The project's own Dockerfile, up to where it would compile.
fn runtime_image(base: &str) -> Result<String, String> {
    let project = env!("CARGO_MANIFEST_DIR");
    let recipe = fs::read_to_string(Path::new(project).join("Dockerfile")).unwrap();
    let base_image = format!("BASE_IMAGE={base}");
    image("runtime", &digest(&[base, &recipe].concat()), |tag| {
        docker(&[
            "build",
            "--quiet",
            "--target=runtime",
            "--build-arg",
            &base_image,
            "--tag",
            tag,
            project,
        ])
    })
}

/// The image of that name and content: as it is, or made, and then it replaces its forerunners.
fn image(
    name: &str,
    content: &str,
    make: impl FnOnce(&str) -> Result<String, String>,
) -> Result<String, String> {
    let repository = format!("drumline-test/{name}");
    let tag = format!("{repository}:{}", &content[..12]);
    if docker(&["image", "inspect", &tag]).is_ok() {
        return Ok(tag);
    }
    make(&tag)?;
    let format = "{{.Repository}}:{{.Tag}}";
    let all = docker(&["images", "--format", format, &repository])?;
    for old in all.lines().filter(|&old| old != tag) {
        // Another test process may use it.
        let _ = docker(&["rmi", old]);
    }
    Ok(tag)
}

fn digest(text: &str) -> String {
    hexadecimal(&Sha256::digest(text))
}

fn file_digest(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        hasher.update(bytes);
        let read = bytes.len();
        reader.consume(read);
    }
    Ok(hexadecimal(&hasher.finalize()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
