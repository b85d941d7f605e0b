//! The program `docker`: run to its end, within a deadline, with bounded output.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::RwLock;
use tokio::time::timeout;

use super::error::Error;
use super::inspect::{self, Container};

const PROGRAM: &str = "docker";
/// The longest that one call may take: a container that ends on a busy machine is the slowest.
const CALL_MAX: Duration = Duration::from_secs(30);
/// What is told of six containers is a tenth of this.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;
/// Of what the program complains about, as much as fits a message.
const SAID_CHARS_MAX: usize = 300;
const INSPECT: &str = "inspect";

/// A way to the docker engine. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    /// Held for reading by each call that is under way.
    calls: Arc<RwLock<()>>,
}

impl Engine {
    /// Says why there is none.
    pub async fn check(&self) -> Result<(), Error> {
        let version = ["version", "--format", "{{.Server.Version}}"];
        match self.run(&version).await {
            Ok(_) => Ok(()),
            Err(Error::Refused { said, .. }) => Err(Error::NoEngine(said)),
            Err(error @ Error::Late { .. }) => Err(Error::NoEngine(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// The ids of all containers with this label.
    pub async fn labelled(&self, label: &str, value: &str) -> Result<Vec<String>, Error> {
        let filter = format!("label={label}={value}");
        let list = ["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter];
        let ids = self.run(&list).await?;
        Ok(ids.split_whitespace().map(str::to_owned).collect())
    }

    pub async fn inspect(&self, ids: &[&str]) -> Result<Vec<Container>, Error> {
        let told = self
            .run(&[&[INSPECT, "--type=container"], ids].concat())
            .await?;
        inspect::parse(&told).map_err(|why| Error::Unreadable {
            what: INSPECT.to_owned(),
            why,
        })
    }

    /// Runs `docker` with these arguments, and gives what it wrote to stdout. It runs to its end even if nobody
    /// waits for it any more: see [`Engine::quiet`].
    pub async fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        let what = what(arguments);
        let arguments: Vec<_> = arguments.iter().map(|word| (*word).to_owned()).collect();
        // Before the task is there: who is quiet after it must not overtake it.
        let under_way = Arc::clone(&self.calls).read_owned().await;
        let task = tokio::spawn(async move {
            let _under_way = under_way;
            call(&arguments).await
        });
        match task.await {
            Ok(done) => done,
            Err(failed) => Err(Error::Refused {
                what,
                said: failed.to_string(),
            }),
        }
    }

    /// Waits until no call is under way: an interrupted drill looks at what it has done only then.
    pub async fn quiet(&self) {
        drop(self.calls.write().await);
    }
}

/// The words of a call up to the first option or id.
fn what(arguments: &[&str]) -> String {
    let verbs = arguments.iter().take(2);
    let plain = verbs.take_while(|word| word.len() < 12 && !word.starts_with('-'));
    plain.copied().collect::<Vec<_>>().join(" ")
}

async fn call(arguments: &[String]) -> Result<String, Error> {
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let refused = |said: String| Error::Refused {
        what: what(&words),
        said,
    };
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // Ctrl-C is for the drill, which then needs the engine most.
        .process_group(0)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoProgram,
            _ => refused(error.to_string()),
        })?;
    let (out, errors) = (child.stdout.take(), child.stderr.take());
    let run = async { tokio::join!(read(out), read(errors), child.wait()) };
    let Ok((out, errors, status)) = timeout(CALL_MAX, run).await else {
        return Err(Error::Late {
            what: what(&words),
            seconds: CALL_MAX.as_secs(),
        });
    };
    let status = status.map_err(|error| refused(error.to_string()))?;
    if !status.success() {
        return Err(refused(brief(&errors.unwrap_or_default())));
    }
    out.ok_or_else(|| Error::Unreadable {
        what: what(&words),
        why: format!("it is no text of at most {OUTPUT_BYTES_MAX} bytes"),
    })
}

/// `None` if it is too long or no text.
async fn read(from: Option<impl AsyncRead + Unpin>) -> Option<String> {
    let mut bytes = Vec::new();
    let mut from = from?.take(OUTPUT_BYTES_MAX + 1);
    from.read_to_end(&mut bytes).await.ok()?;
    let fits = bytes.len() as u64 <= OUTPUT_BYTES_MAX;
    String::from_utf8(bytes).ok().filter(|_| fits)
}

/// One line of a complaint.
fn brief(said: &str) -> String {
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SAID_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => "it did not say why".to_owned(),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_without_ids() {
        let id = "4f5a7c1de0b24f5a7c1de0b24f5a7c1d";
        assert_eq!(
            what(&["network", "disconnect", id, id]),
            "network disconnect"
        );
        assert_eq!(what(&["kill", "--signal=KILL", id]), "kill");
        assert_eq!(what(&["pause", id]), "pause");
    }

    #[test]
    fn a_complaint_is_one_short_line() {
        assert_eq!(brief("Error:\n no such\tthing \n"), "Error: no such thing");
        assert_eq!(brief(" \n"), "it did not say why");
        assert_eq!(
            brief(&"ä".repeat(1_000)).chars().count(),
            SAID_CHARS_MAX + 1
        );
    }
}
