//! The master backup: one base and the events after it, in files that are never rewritten; and the
//! way back. docs/backup.md is its manual.
//!
//! `run` takes a backup (`scan` reads the base, `follow` the events), `check` reads all of one and
//! proves it, `plan` says what a restore will do, `restore` does it (`replay` makes documents of base
//! and events, `note` remembers how far it came). Never speaks to a node, and never to MongoDB but
//! through `store`.

mod catalog;
mod check;
mod cut;
mod diff;
mod error;
mod event;
mod folder;
mod follow;
mod frame;
mod list;
mod manifest;
mod note;
mod options;
mod patience;
mod plan;
mod prune;
mod raw;
mod replay;
mod restore;
mod run;
mod scan;
mod selection;
mod sums;

pub use check::{Point, Verified, Window, list, verify, windows};
pub use error::Error;
pub use manifest::{LeftOut, Mark, Time};
pub use plan::Plan;
pub use prune::{Keep, Pruned, prune};
pub use restore::{Restored, restore};
pub use run::{Ran, Settings, run};
pub use selection::{Chosen, Selection};

/// Says how the work goes on, in plain lines.
pub type Report<'a> = &'a (dyn Fn(&str) + Sync);
