//! Files that are given and are not what they should be.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use drumline::config::FLOW_WAIT_MAX;
use rustix::fs::{FileType, Mode, mknodat};

use super::program::{Call, Said, file};
use crate::support::{Outcome, Sandbox, bar};

/// The words, the variable that names the file, and the settings that do.
type Way = (&'static [&'static str], Option<&'static str>, &'static str);

/// Every way in which a file with a secret or with settings is named. `FILE` is its path.
const WAYS: [Way; 9] = [
    (&["status", "--api-key-file", "FILE"], None, ""),
    (&["get", "a.b", "1", "--mongodb-file", "FILE"], None, ""),
    (
        &[
            "serve",
            "--name",
            "n1",
            "--listen",
            "127.0.0.1:0",
            "--api-key-file",
            "FILE",
        ],
        None,
        "",
    ),
    (
        &[
            "serve",
            "--name",
            "n1",
            "--listen",
            "127.0.0.1:0",
            "--mongodb-file",
            "FILE",
        ],
        None,
        "",
    ),
    (
        &[
            "serve",
            "--name",
            "n1",
            "--listen",
            "127.0.0.1:0",
            "--cluster-secret-file",
            "FILE",
        ],
        None,
        "",
    ),
    (
        &[
            "serve",
            "--name",
            "n1",
            "--listen",
            "127.0.0.1:0",
            "--config",
            "FILE",
        ],
        None,
        "",
    ),
    (&["status"], Some("DRUMLINE_CONFIG"), ""),
    (&["status"], None, "api_key_file = \"FILE\"\n"),
    (&["status"], None, "mongodb_file = \"FILE\"\n"),
];

fn given(sandbox: &Sandbox, way: &Way, path: &Path) -> Said {
    let (words, variable, settings) = *way;
    let shown = path.to_str().unwrap();
    let words: Vec<_> = words
        .iter()
        .map(|word| word.replace("FILE", shown))
        .collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let config = file(sandbox, settings.replace("FILE", shown).as_bytes());
    let call = Call::new(&words);
    let call = match variable {
        Some(variable) => call.variable(variable, path.as_os_str()),
        None if settings.is_empty() => call,
        None => call.variable("DRUMLINE_CONFIG", config.as_os_str()),
    };
    call.run(sandbox).unwrap()
}

/// Each is refused, with its name, in one line.
fn refused(sandbox: &Sandbox, path: &Path, why: &str) {
    std::thread::scope(|scope| {
        for way in &WAYS {
            scope.spawn(move || {
                let said = given(sandbox, way, path);
                assert_eq!(said.status, 2, "{way:?}: {said:#?}");
                let told = said.stderr.trim_end();
                assert_eq!(told.lines().count(), 1, "{told}");
                assert!(told.contains(path.to_str().unwrap()), "{way:?}: {told}");
                assert!(told.contains(why), "{way:?}: {told}");
            });
        }
    });
}

#[test]
fn what_is_no_text_file_is_refused() {
    let sandbox = &Sandbox::new();
    let content = |bytes: &[u8]| file(sandbox, bytes);
    let rows: [(PathBuf, &str); 6] = [
        (sandbox.path("missing"), "No such file"),
        (sandbox.folder().to_owned(), "it is a folder"),
        (content(b"\xff\xfe"), "it is not text in UTF-8"),
        (content(b"k\0\0\xc3"), "it is not text in UTF-8"),
        (content(&b"#".repeat((1 << 20) + 1)), "it is too large"),
        (PathBuf::from("/dev/zero"), "it is too large"),
    ];
    for (path, why) in rows {
        refused(sandbox, &path, why);
    }
}

#[test]
fn a_pipe_that_nobody_writes_into_is_waited_for_in_vain_and_not_for_ever() {
    let sandbox = &Sandbox::new();
    let pipe = sandbox.path("pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, mode, 0).unwrap();
    let begun = Instant::now();
    refused(sandbox, &pipe, "did not come to an end");
    assert!(begun.elapsed() >= FLOW_WAIT_MAX);
    assert!(begun.elapsed() < FLOW_WAIT_MAX + bar(10));
}

#[test]
fn a_variable_that_is_no_text_is_refused_and_not_passed_over() {
    use std::os::unix::ffi::OsStrExt as _;
    let sandbox = &Sandbox::new();
    let wrong = OsStr::from_bytes(b"http://127.0.0.1:1/\xff");
    for variable in [
        "DRUMLINE_SERVERS",
        "DRUMLINE_API_KEY",
        "DRUMLINE_MONGODB",
        "DRUMLINE_TIMEOUT",
        "DRUMLINE_CLUSTER_SECRET",
        "DRUMLINE_ALLOW_HOSTS",
    ] {
        let said = Call::new(&["status"])
            .variable(variable, wrong)
            .run(sandbox)
            .unwrap();
        assert_eq!(said.status, 2, "{variable}: {said:#?}");
        let told = format!("drumline: {variable}: it is not text in UTF-8\n");
        assert_eq!(said.stderr, told);
    }
    let serve = Call::new(&["serve", "--name", "n1", "--listen", "127.0.0.1:0"]);
    let said = serve.variable("DRUMLINE_LOG", wrong).run(sandbox).unwrap();
    assert!(
        said.status == 2 && said.stderr.contains("DRUMLINE_LOG"),
        "{said:#?}"
    );
}

#[test]
fn any_bytes_are_a_path() {
    use std::os::unix::ffi::OsStrExt as _;
    let sandbox = &Sandbox::new();
    let path = sandbox.folder().join(OsStr::from_bytes(b"settings-\xff"));
    fs::write(&path, "timeout = \"soon\"\n").unwrap();
    for value in [path.as_os_str().to_owned(), {
        let mut with_line_break = path.as_os_str().to_owned();
        with_line_break.push("\n");
        with_line_break
    }] {
        let call = Call::new(&["status"]).variable("DRUMLINE_CONFIG", &value);
        let said = call.run(sandbox).unwrap();
        assert!(
            said.stderr.contains(":1: 'soon' is not a duration"),
            "{said:#?}"
        );
    }
}

#[test]
fn the_evidence_is_not_written_over() {
    let sandbox = &Sandbox::new();
    let (history, log) = (file(sandbox, b"{}\n"), file(sandbox, b"[]\n"));
    let link = sandbox.path("link");
    fs::hard_link(&log, &link).unwrap();
    for output in [&history, &log, &link] {
        let paths = [&history, &log, output].map(|path| path.to_str().unwrap());
        let words = [
            "check", paths[0], "--log", paths[1], "--export", "elle", paths[2],
        ];
        let Outcome { status, stderr, .. } = sandbox.run(&words);
        assert!(
            status == 1 && stderr.contains("name another file"),
            "{stderr}"
        );
        assert_eq!(fs::read(&history).unwrap(), b"{}\n");
        assert_eq!(fs::read(&log).unwrap(), b"[]\n");
    }
}
