//! One run of a one-shot command: settings, backend, clock and runtime.

use bson::Document;

use crate::client::{ClientError, Clock, ClockFile, Found, Seen, Written};
use crate::config::{self, ServerUrl};
use crate::model::{Consistency, Namespace, Read, RequestId, Write};

use super::Exit;
use super::args::{Format, Remote};
use super::backend::{Backend, Direct};
use super::exit::{ExitError, say};
use super::feed::Feed;
use super::route::{self, Route};

/// What a one-shot command works with.
#[derive(Debug)]
pub struct Session {
    pub format: Format,
    backend: Backend,
    clock: Clock,
    file: Option<ClockFile>,
}

/// Opens a session and runs a command in it.
pub fn run(
    remote: &Remote,
    work: impl AsyncFnOnce(&Session) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    let session = Session::open(remote)?;
    block_on(work(&session))
}

/// Runs a command on a runtime of its own.
pub fn block_on(work: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    // One thread starts faster than many, and one request needs no more.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

impl Session {
    fn open(remote: &Remote) -> Result<Self, ExitError> {
        let settings = remote.settings()?;
        let format = Format::choose(&settings)?;
        let (backend, file) = match Route::choose(remote, &settings)? {
            Route::Servers(servers) => {
                let file = clock_file(servers.urls.iter().map(ServerUrl::as_str));
                let client = Box::new(servers.client(&settings)?);
                (Backend::Servers(client), file)
            }
            Route::Mongodb(uri) => {
                let file = clock_file([route::hosts(uri.expose())]);
                (Backend::Direct(Direct::new(uri)), file)
            }
        };
        Ok(Self {
            format,
            backend,
            clock: Clock::at(saved_clock(file.as_ref())),
            file,
        })
    }

    pub async fn write(
        &self,
        namespace: &Namespace,
        write: Write,
        id: &RequestId,
    ) -> Result<Written, ExitError> {
        let result = self.backend.write(namespace, write, id, &self.clock).await;
        self.finish(result).await
    }

    pub async fn read(
        &self,
        namespace: &Namespace,
        read: Read,
        consistency: Consistency,
    ) -> Result<Found, ExitError> {
        let before = self.clock.now();
        let mut result = self.read_once(namespace, &read, consistency).await;
        if is_behind(&result, consistency, before) {
            // The first may have been shown before a new primary knew all that is acknowledged; it
            // knows by the second.
            result = self.read_once(namespace, &read, consistency).await;
        }
        if is_behind(&result, consistency, before) {
            self.restart(&result, before).await;
        }
        self.finish(result).await
    }

    async fn read_once(
        &self,
        namespace: &Namespace,
        read: &Read,
        consistency: Consistency,
    ) -> Result<Found, ClientError> {
        let backend = &self.backend;
        backend
            .read(namespace, read.clone(), consistency, &self.clock)
            .await
    }

    /// The log ends before what this user has seen: it was begun anew, or lost its end. Without
    /// this the user's causal reads would wait for the old stamp for ever.
    async fn restart(&self, result: &Result<Found, ClientError>, before: i64) {
        let Ok(Found { stamp: Some(t), .. }) = result else {
            return;
        };
        self.clock.restart(*t);
        say(&format!(
            "the log ends at stamp {t}, before stamp {before} which you have seen: it is not the log that it was. \
             Your clock is set back"
        ));
        if let Some(file) = &self.file
            && let Err(error) = file.restart(&self.clock.seen()).await
        {
            say(&format!("the clock could not be set back: {error}"));
        }
    }

    pub async fn log(&self, from: i64, limit: u32) -> Result<Vec<Document>, ExitError> {
        let result = self.backend.log(from, limit, &self.clock).await;
        self.finish(result).await
    }

    /// The log from a position on, or from its beginning, as it grows.
    pub async fn follow_log(&self, from: Option<i64>) -> Result<Feed<'_>, ExitError> {
        Ok(self.backend.follow_log(from).await?)
    }

    /// The changes of a collection, after the write with a stamp or from now on.
    pub async fn watch(
        &self,
        namespace: &Namespace,
        pipeline: Vec<Document>,
        from_stamp: Option<i64>,
    ) -> Result<Feed<'_>, ExitError> {
        let feed = self.backend.watch(namespace, pipeline, from_stamp);
        Ok(feed.await?)
    }

    /// Saves the clock before anything is printed: whoever reads the output may act on it at once.
    async fn finish<T>(&self, result: Result<T, ClientError>) -> Result<T, ExitError> {
        let seen = self.clock.seen();
        if seen.t > 0
            && let Some(file) = &self.file
            && let Err(error) = file.raise(&seen).await
        {
            say(&format!(
                "the clock could not be saved, the next command may read older data: {error}"
            ));
        }
        result.map_err(ExitError::from)
    }
}

/// Without a home there is no clock file, and each command begins at 0.
fn clock_file<'a>(cluster: impl IntoIterator<Item = &'a str>) -> Option<ClockFile> {
    config::state_dir().map(|folder| ClockFile::new(folder, cluster))
}

/// A clock that cannot be read is no reason to fail: the server's own clock orders the request.
fn saved_clock(file: Option<&ClockFile>) -> Seen {
    let Some(file) = file else {
        return Seen::default();
    };
    file.load().unwrap_or_else(|error| {
        say(&format!("the saved clock is not used: {error}"));
        Seen::default()
    })
}

/// Whether a linearizable read ends before a stamp that was seen before it began. In one log that
/// cannot be (I7).
fn is_behind(result: &Result<Found, ClientError>, consistency: Consistency, before: i64) -> bool {
    let stamp = result.as_ref().ok().and_then(|found| found.stamp);
    consistency == Consistency::Linearizable && stamp.is_some_and(|t| t < before)
}
