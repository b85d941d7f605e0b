//! Small files of text: a key, a connection string, settings.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::ConfigError;

/// How long a pipe, or another file that flows, may take until its end.
pub const FLOW_WAIT_MAX: Duration = Duration::from_secs(10);

/// Why a file gives no text.
#[derive(Debug)]
pub(super) enum Unread {
    /// It does not exist.
    Missing(ConfigError),
    Other(ConfigError),
}

impl From<Unread> for ConfigError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Missing(error) | Unread::Other(error) => error,
        }
    }
}

/// Reads all of a file, without a byte order mark, which editors of some systems put in front. `what`
/// is what it should hold.
pub(super) fn read(path: &Path, bytes_max: u64, what: &str) -> Result<String, Unread> {
    let wrong = |why: &str| Unread::Other(ConfigError(format!("{}: {why}", path.display())));
    let failed = |error: io::Error| {
        let text = ConfigError(format!("{}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::NotFound => Unread::Missing(text),
            _ => Unread::Other(text),
        }
    };
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    if kind.is_dir() {
        return Err(wrong(&format!(
            "it is a folder, and not a file with {what}"
        )));
    }
    let bytes = match kind.is_file() {
        true => read_bytes(path, bytes_max),
        false => read_flow(path, bytes_max),
    };
    let bytes = bytes.map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(wrong(&format!("it is too large to hold {what}")));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not text in UTF-8"))?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(text) => text.to_owned(),
        None => text,
    })
}

fn read_bytes(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A pipe that nobody writes into cannot even be opened. So this is done by a thread, which is left
/// behind when the time is up: the program ends then.
fn read_flow(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let (sender, read) = mpsc::sync_channel(1);
    let path = path.to_owned();
    std::thread::spawn(move || sender.send(read_bytes(&path, bytes_max)));
    read.recv_timeout(FLOW_WAIT_MAX).unwrap_or_else(|_| {
        let seconds = FLOW_WAIT_MAX.as_secs();
        let why = format!("it is no plain file, and did not come to an end in {seconds} s");
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}
