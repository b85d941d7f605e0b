//! How a member is run, and what its log says when it ends too early.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Map, Value};

use super::crew::{Fallen, Program};
use super::error::Error;
use super::mongod::{Mongod, missing_library};
use super::place::Place;
use super::report::Console;
use super::spec::{Part, Spec};

/// A member that stops writes its cache out first.
const GRACE: Duration = Duration::from_secs(20);
/// MongoDB's smallest cache: several members share a developer's machine.
const CACHE_GB: &str = "0.25";
/// Without a bound the oplog may grow to a twentieth of the disk.
const OPLOG_MB: &str = "1024";
/// How long a member waits for its sync source beyond the time that the source may take to answer,
/// which is half of the election time-out. MongoDB's default is 5 s.
pub(super) const FETCH_BUFFER_SECONDS: u32 = 1;
/// How much of the end of a log is looked at, and how many of its lines are shown.
const LOG_TAIL_BYTES: u64 = 64 * 1024;
const LOG_LINES: usize = 5;
const LINE_CHARS: usize = 240;
/// With less than this a disk counts as full.
const SPACE_MIN_BYTES: u64 = 16 * 1024 * 1024;

/// The program of a member.
pub fn program(place: &Place, spec: &Spec, mongod: &Mongod, part: &Part) -> Program {
    let data = place.member_data(&part.name);
    let log = place.member_log(&part.name);
    let mut command: Vec<OsString> = vec![mongod.path.clone().into()];
    let mut flag = |name: &str, value: OsString| command.extend([name.into(), value]);
    flag("--replSet", spec.replica_set().into());
    flag("--keyFile", place.secret("keyfile").into());
    flag("--bind_ip", "127.0.0.1".into());
    flag("--port", part.port.to_string().into());
    flag("--dbpath", data.clone().into());
    flag("--logpath", log.clone().into());
    flag("--wiredTigerCacheSizeGB", CACHE_GB.into());
    flag("--oplogSize", OPLOG_MB.into());
    // A stopping primary otherwise lingers up to 15 s for clients that never come back.
    flag(
        "--setParameter",
        "shutdownTimeoutMillisForSignaledShutdown=100".into(),
    );
    flag(
        "--setParameter",
        format!("oplogNetworkTimeoutBufferSeconds={FETCH_BUFFER_SECONDS}").into(),
    );
    // A transaction that nobody ends keeps its locks for this long at most.
    flag(
        "--setParameter",
        "transactionLifetimeLimitSeconds=30".into(),
    );
    // Nodes refuse JavaScript; this is for what they might overlook.
    command.push("--noscripting".into());
    command.extend(["--logappend".into(), "--nounixsocket".into()]);
    Program {
        name: part.name.clone(),
        command,
        log,
        folder: data,
        group: None,
        stop_signal: Signal::TERM,
        grace: GRACE,
    }
}

/// Shows a fallen child's last log lines and says in plain words why it ended.
pub fn explain(fallen: &Fallen, spec: &Spec, console: &Console) -> Error {
    let Fallen { program, how } = fallen;
    let lines = last_lines(&program.log);
    for line in &lines {
        console.line(&format!("         {}: {line}", program.name));
    }
    let cause = cause(&lines, program, spec)
        .unwrap_or_else(|| format!("its log is {}", program.log.display()));
    Error::Failed(format!(
        "{} ended while the cluster started ({how}): {cause}",
        program.name
    ))
}

/// Known causes.
fn cause(lines: &[String], program: &Program, spec: &Spec) -> Option<String> {
    let says = |text: &str| lines.iter().any(|line| line.contains(text));
    let folder = program.folder.display();
    if says("Address already in use") {
        let mut parts = spec.nodes.iter().chain(&spec.members);
        let port = parts.find(|part| part.name == program.name)?.port;
        return Some(format!(
            "port {port} is taken by another program; free it, or start another cluster with \
             `drumline up --name NAME --base-port 0`"
        ));
    }
    if let Some(text) = lines.iter().find_map(|line| missing_library(line)) {
        return Some(text);
    }
    if says("DBPathInUse") {
        return Some(format!("another mongod uses {folder}; stop that first"));
    }
    if says("Invalid featureCompatibilityVersion") || says("Wrong mongod version") {
        return Some(format!(
            "its data in {folder} was written by another version of MongoDB; set DRUMLINE_MONGOD \
             to a mongod of that version"
        ));
    }
    // Last, because a full disk may be a coincidence; but it also keeps a log from saying so.
    let free = free_bytes(&program.folder);
    if says("No space left on device") || free.is_some_and(|free| free < SPACE_MIN_BYTES) {
        let megabytes = free.unwrap_or(0) / (1024 * 1024);
        return Some(format!(
            "no space left for {folder} ({megabytes} MB free); free some, or give --data-dir a \
             folder on another disk"
        ));
    }
    None
}

fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The last lines of a log that tell of trouble; of a log in another form, the last lines.
fn last_lines(log: &Path) -> Vec<String> {
    let text = tail(log).unwrap_or_default();
    let mut lines: Vec<_> = text
        .lines()
        .rev()
        .filter_map(trouble)
        .take(LOG_LINES)
        .collect();
    lines.reverse();
    lines
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = fs::metadata(log)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of mongod's JSON log in words if it is an error, a line in another form as it is.
fn trouble(line: &str) -> Option<String> {
    let text = match serde_json::from_str(line) {
        Ok(Value::Object(entry)) => error_entry(&entry)?,
        // A full disk cuts lines off.
        _ if line.starts_with('{') => return None,
        _ => line.to_owned(),
    };
    let words: Vec<_> = text.split_whitespace().collect();
    let text: String = words.join(" ").chars().take(LINE_CHARS).collect();
    (!text.is_empty()).then_some(text)
}

fn error_entry(entry: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    if !matches!(text("s")?, "E" | "F") {
        return None;
    }
    let detail = entry
        .get("attr")
        .map_or_else(String::new, |attributes| format!(" {attributes}"));
    Some(format!("{}{detail}", text("msg")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trouble_is_shown_of_a_json_log() {
        let error = r#"{"s":"E","msg":"Failed","attr":{"error":"Address already in use"}}"#;
        assert_eq!(
            trouble(error).as_deref(),
            Some(r#"Failed {"error":"Address already in use"}"#)
        );
        assert_eq!(trouble(r#"{"s":"I","msg":"Listening"}"#), None);
        assert_eq!(
            trouble("mongod: not JSON").as_deref(),
            Some("mongod: not JSON")
        );
        assert_eq!(trouble("  "), None);
        assert_eq!(trouble(r#"{"s":"E","msg":"cut o"#), None);
        let lines = r#"{"s":"F","msg":"\n\nabort\n"}"#;
        assert_eq!(trouble(lines).as_deref(), Some("abort"));
    }
}
