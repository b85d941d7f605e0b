//! One run of `drumline backup`: the base if there is none yet, then what is new.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::Report;
use super::check::{Window, windows};
use super::error::Error;
use super::folder::Folder;
use super::follow::{Follower, Goal};
use super::manifest::{Base, FORMAT, Manifest, Set};
use super::patience::Patience;
use super::scan::{self, Scanner};
use crate::store::Source;

/// What a run is to do.
#[derive(Debug, Clone)]
pub struct Settings {
    pub folder: PathBuf,
    /// Go on, and save what is new so often.
    pub follow: Option<Duration>,
    /// Begin a base beside those that are there.
    pub new_base: bool,
    /// How much a file of the base holds, if not the usual.
    pub file_bytes: Option<u64>,
}

/// What a run has done.
#[derive(Debug, Clone)]
pub struct Ran {
    pub events: u64,
    /// What can be restored now.
    pub window: Option<Window>,
    /// What is not in the base, and why.
    pub left_out: Vec<String>,
}

fn left_out_of(base: &Base) -> Vec<String> {
    base.left_out.iter().map(ToString::to_string).collect()
}

/// Everything that was done by now.
async fn now(source: &Source) -> Result<Goal, Error> {
    let patience = Patience::from_now();
    loop {
        match source.clock().await {
            Ok((time, wall)) => {
                let time = time.into();
                return Ok(Goal { time, wall });
            }
            Err(error) => patience.rest(error).await?,
        }
    }
}

/// Opens the folder, for a backup of this replica set alone.
async fn open(settings: &Settings, source: &Source) -> Result<(Folder, Manifest), Error> {
    let (name, id) = source.identity().await?;
    let set = Set { name, id };
    let (folder, manifest) = Folder::to_write(&settings.folder)?;
    let manifest = manifest.unwrap_or_else(|| Manifest {
        format: FORMAT,
        set: set.clone(),
        olders: 0,
        older: None,
        base: None,
        gone: Vec::new(),
        sha256: String::new(),
    });
    if !manifest.set.is(&set) {
        return Err(Error::Folder(format!(
            "{} holds a backup of another replica set ('{}'): give this one a folder of its own",
            settings.folder.display(),
            manifest.set.name
        )));
    }
    Ok((folder, manifest))
}

/// Takes in what is new. With `follow` it goes on until `stop` says so.
pub async fn run(
    settings: &Settings,
    source: &Source,
    mut stop: watch::Receiver<bool>,
    report: Report<'_>,
) -> Result<Ran, Error> {
    let (folder, mut manifest) = open(settings, source).await?;
    match windows(&folder.bases(&manifest)?).last() {
        Some(window) => report(&format!("can be restored now: {window}")),
        None => report("nothing can be restored yet"),
    }
    if manifest.base.is_none() || settings.new_base {
        scan::begin(source, &folder, &mut manifest).await?;
    }
    let base = manifest.base.as_ref();
    let base = base.ok_or_else(|| Error::Folder("no base".into()))?;
    let mut follower = Follower::after(source, base)?;
    if base.scan.is_some() {
        let base = base.clone();
        let file_bytes = settings.file_bytes.unwrap_or(scan::FILE_USUAL);
        let scanner = Scanner::new(source, &folder, &mut follower, &base, file_bytes)?;
        scanner.run(&mut manifest, report).await?;
    }
    let mut events = 0;
    loop {
        let mut goal = now(source).await?;
        let window = manifest.base.as_ref().and_then(|base| base.window);
        goal.time = window.map_or(goal.time, |window| goal.time.max(window.time));
        events += follower
            .catch_up(goal, &folder, &mut manifest, report)
            .await?;
        let Some(every) = settings.follow.filter(|_| !*stop.borrow()) else {
            break;
        };
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            changed = stop.changed() => if changed.is_err() { break },
        }
    }
    follower.save_end(&folder, &mut manifest)?;
    let base = manifest.base.as_ref();
    let window = windows(&folder.bases(&manifest)?).pop();
    Ok(Ran {
        events,
        window,
        left_out: base.map(left_out_of).unwrap_or_default(),
    })
}
