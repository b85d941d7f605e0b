//! Where mongod comes from: the archive, the cache, and the error that names all ways.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use crate::support::{Cluster, FileServer, Outcome, Sandbox};

const UP: [&str; 7] = ["up", "--nodes", "0", "--members", "1", "--base-port", "0"];

/// A user without a mongod: none named, none on PATH, none cached, and no Python to fetch one.
fn user_without_mongod(archive: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let tools = sandbox.path("bin");
    fs::create_dir(&tools).unwrap();
    for tool in ["sh", "tar", "gzip"] {
        let which = Command::new("sh")
            .args(["-c", "command -v \"$0\"", tool])
            .output()
            .unwrap();
        let real = String::from_utf8(which.stdout).unwrap();
        symlink(real.trim(), tools.join(tool)).unwrap();
    }
    let cache = sandbox.path("cache").display().to_string();
    sandbox
        .unset("DRUMLINE_MONGOD")
        .set("DRUMLINE_MONGOD_ARCHIVE", archive)
        .set("PATH", tools.display().to_string())
        .set("XDG_CACHE_HOME", cache)
}

/// The name of the archive that this machine asks for, learnt from the error.
fn archive_stem() -> String {
    let said = user_without_mongod("http://127.0.0.1:1").run(&UP).stderr;
    let (_, rest) = said.split_once("127.0.0.1:1/").expect(&said);
    rest.split(".tgz").next().unwrap().to_owned()
}

/// An archive as MongoDB publishes it, whose mongod hands over to the real one.
fn archive(stem: &str) -> Vec<u8> {
    let sandbox = Sandbox::new();
    let bin = sandbox.path(stem).join("bin");
    fs::create_dir_all(&bin).unwrap();
    let mongod = bin.join("mongod");
    let real = Cluster::mongod().display();
    fs::write(&mongod, format!("#!/bin/sh\nexec {real} \"$@\"\n")).unwrap();
    fs::set_permissions(&mongod, fs::Permissions::from_mode(0o755)).unwrap();
    let packed = sandbox.path("archive.tgz");
    let tar = Command::new("tar")
        .arg("-czf")
        .arg(&packed)
        .arg("-C")
        .arg(sandbox.folder())
        .arg(stem)
        .status();
    assert!(tar.unwrap().success());
    fs::read(packed).unwrap()
}

fn published(stem: &str, archive: Vec<u8>, checksum: &str) -> FileServer {
    let sum = format!("{checksum}  {stem}.tgz\n").into_bytes();
    FileServer::start(BTreeMap::from([
        (format!("{stem}.tgz"), archive),
        (format!("{stem}.tgz.sha256"), sum),
    ]))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn up_and_down(sandbox: &Sandbox) -> Outcome {
    let mut arguments = UP.to_vec();
    arguments.push("--detach");
    let up = sandbox.ok(&arguments);
    sandbox.ok(&["down", "--purge"]);
    up
}

fn cached(sandbox: &Sandbox) -> Option<PathBuf> {
    let cache = sandbox.path("cache").join("drumline").join("mongod");
    let entries = fs::read_dir(cache).ok()?.flatten();
    entries
        .map(|entry| entry.path().join("mongod"))
        .find(|file| file.exists())
}

#[test]
fn an_archive_with_the_published_checksum_is_used_and_cached() {
    let stem = archive_stem();
    let bytes = archive(&stem);
    let checksum = sha256(&bytes);
    let server = published(&stem, bytes, &checksum);
    let sandbox = user_without_mongod(&server.url);

    let first = up_and_down(&sandbox);
    assert!(first.stderr.contains("fetching MongoDB"), "{first:#?}");
    let program = cached(&sandbox).unwrap();

    let second = up_and_down(&sandbox);
    assert!(!second.stderr.contains("fetching"), "{second:#?}");

    damage(&program);
    let third = up_and_down(&sandbox);
    assert!(third.stderr.contains("is damaged"), "{third:#?}");
    assert!(third.stderr.contains("fetching MongoDB"), "{third:#?}");
}

fn damage(program: &Path) {
    let mut bytes = fs::read(program).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(program, bytes).unwrap();
}

#[test]
fn an_archive_with_another_checksum_is_not_used() {
    let stem = archive_stem();
    let server = published(&stem, archive(&stem), &sha256(b"something else"));
    let sandbox = user_without_mongod(&server.url);
    let outcome = sandbox.run(&UP);
    assert_eq!(outcome.status, 1);
    assert!(
        outcome.stderr.contains("another checksum than published"),
        "{outcome:#?}"
    );
    assert_eq!(cached(&sandbox), None);
    assert!(!sandbox.cluster("drumline").exists());
}

#[test]
fn without_any_mongod_the_error_names_all_ways() {
    let sandbox = user_without_mongod("http://127.0.0.1:1");
    let outcome = sandbox.run(&UP);
    assert_eq!(outcome.status, 1);
    let ways = [
        "DRUMLINE_MONGOD is not set",
        "no mongod on PATH",
        "the cache",
        "MongoDB's archive: http://127.0.0.1:1/",
        "the Python package",
        "Install MongoDB",
    ];
    for way in ways {
        assert!(outcome.stderr.contains(way), "no '{way}' in {outcome:#?}");
    }
}

#[test]
fn a_mongod_that_misses_a_library_is_refused_with_the_package_to_install() {
    let said = "mongod: error while loading shared libraries: libcurl.so.4: cannot open";
    let sandbox = user_of(&format!("echo '{said}' >&2; exit 127"));
    let outcome = sandbox.run(&UP);
    assert_eq!(outcome.status, 1);
    assert!(
        outcome.stderr.contains("apt install libcurl4"),
        "{outcome:#?}"
    );
}

#[test]
fn two_fetches_at_once_share_one_download() {
    let stem = archive_stem();
    let bytes = archive(&stem);
    let checksum = sha256(&bytes);
    let server = published(&stem, bytes, &checksum);
    let sandbox = user_without_mongod(&server.url);
    let start = |name| {
        let mut command = sandbox.drumline(&UP);
        command.args(["--detach", "--name", name]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let racers = ["one", "two"].map(start);
    let fetches = racers.map(|racer| {
        let output = racer.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said.matches("fetching MongoDB").count()
    });
    assert_eq!(fetches.iter().sum::<usize>(), 1);
    for name in ["one", "two"] {
        sandbox.ok(&["down", "--name", name]);
    }
}

/// A user whose mongod is this script.
fn user_of(script: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let mongod = sandbox.path("mongod");
    fs::write(&mongod, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&mongod, fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.set("DRUMLINE_MONGOD", mongod.display().to_string())
}

#[test]
fn a_named_mongod_that_is_too_old_or_no_mongod_is_refused() {
    let sandbox = user_of("echo 'db version v4.4.29'");
    let outcome = sandbox.run(&UP);
    assert_eq!(outcome.status, 1);
    assert!(
        outcome
            .stderr
            .contains("4.4.29; Drumline works with 6.0 to 8.x"),
        "{outcome:#?}"
    );

    let sandbox = sandbox.set("DRUMLINE_MONGOD", "/no/such/mongod");
    let outcome = sandbox.run(&UP);
    assert!(
        outcome.stderr.contains("/no/such/mongod does not run"),
        "{outcome:#?}"
    );
}
