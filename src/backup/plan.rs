//! What a restore is to do. Proves the backup, finds the point and looks at the target; changes
//! nothing.

use std::path::Path;

use super::Report;
use super::catalog::Catalog;
use super::check::{Point, Proof, Window, prove, windows};
use super::error::Error;
use super::folder::Folder;
use super::manifest::{Base, LeftOut, Mark};
use super::note::{Note, Stage, identity};
use super::selection::Selection;
use crate::store::Source;

/// Of what is in the way, so much is named.
const NAMED_MAX: usize = 3;

/// What a restore will do. The backup has been proven and the target looked at; nothing was
/// changed.
#[derive(Debug)]
pub struct Plan {
    pub(super) folder: Folder,
    pub(super) base: Base,
    pub(super) proof: Proof,
    /// How the target will tell what is done to it.
    pub(super) note: Note,
    /// What can be restored.
    pub windows: Vec<Window>,
    /// The target's collections and views, which `--drop` drops.
    pub occupied: Vec<String>,
    /// The nodes that serve the target.
    pub serving: Vec<String>,
    /// Which transactions have changed what is restored and what is not; `None` if there are none.
    pub torn: Option<String>,
    /// The same restore was interrupted: it goes on.
    pub goes_on: bool,
    /// Another restore was interrupted, or this one has spoiled what it was putting back.
    interrupted: Option<Note>,
}

impl Plan {
    /// Proves the backup, finds the point, and looks at the target.
    pub async fn make(
        folder: &Path,
        point: Point,
        selection: &Selection,
        target: &Source,
        report: Report<'_>,
    ) -> Result<Self, Error> {
        let (folder, manifest) = Folder::to_read(folder)?;
        let bases = folder.bases(&manifest)?;
        let windows = windows(&bases);
        let arguments = format!("{point}{selection}");
        let noted = Note::of(target).await?;
        let mut same = (noted.clone())
            .filter(|note| note.arguments == arguments && note.stage != Stage::Spoiled);
        let mut base = None;
        if let Some(note) = &same {
            base = bases
                .iter()
                .find(|base| identity(&manifest, base) == note.backup);
        }
        same = same.filter(|_| base.is_some());
        let base = match base {
            Some(base) => base,
            None => base_of(&bases, &windows, &point, folder.path())?,
        };
        let base = base.clone();
        let number = base.number;
        report(&format!("the files of base {number} are read and proven"));
        // Whatever was added to the backup since: the same restore reaches the same point.
        let point = match &same {
            Some(note) if point == Point::End => Point::Cluster(note.until),
            _ => point,
        };
        let is_everything = selection.is_everything();
        let mut proof = prove(&folder, &base, &point, !is_everything, report)?;
        let catalog = selection.of(&proof.catalog)?;
        let torn = selection.torn(&proof.catalog, &catalog, &proof.together);
        proof.catalog = catalog;
        let goes_on = same.is_some();
        let note = same.unwrap_or_else(|| Note {
            backup: identity(&manifest, &base),
            arguments,
            until: proof.mark.time,
            drop: false,
            is_everything,
            stage: Stage::Begun,
            after: String::new(),
            sums: std::collections::BTreeMap::new(),
        });
        let interrupted = noted.filter(|_| !goes_on);
        let (occupied, serving) = in_the_way(target, &proof.catalog, is_everything).await?;
        Ok(Self {
            folder,
            base,
            proof,
            note,
            windows,
            occupied,
            serving,
            torn,
            goes_on,
            interrupted,
        })
    }

    /// The point that will be reached.
    pub const fn mark(&self) -> Mark {
        self.proof.mark
    }

    /// How many collections will be made.
    pub fn collections(&self) -> usize {
        self.proof.catalog.collections.len()
    }

    /// What is not in the base, and why.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.base.left_out
    }

    /// Why the plan cannot be carried out, if everything that is there is dropped or not; `None` if
    /// it can.
    pub fn obstacle(&self, drop: bool) -> Option<String> {
        if !self.serving.is_empty() {
            return Some(in_the_way_of(&self.serving));
        }
        if self.goes_on {
            return None;
        }
        if let Some(noted) = &self.interrupted {
            // What a restore of everything has left half done, single collections do not mend.
            let mends = self.note.is_everything || !noted.is_everything;
            let asked = &noted.arguments;
            let what = match noted.stage {
                Stage::Spoiled => format!(
                    "somebody else has written to what a restore was putting back ({asked})"
                ),
                _ => format!(
                    "another restore into the replica set was interrupted ({asked}): start that one \
                     again and it goes on"
                ),
            };
            match (mends, drop) {
                (true, true) => {}
                (true, false) => {
                    return Some(format!(
                        "{what}; or give --drop to drop all of it and begin this one"
                    ));
                }
                (false, _) => {
                    return Some(format!(
                        "{what}; a restore of everything with --drop begins anew"
                    ));
                }
            }
        }
        if drop {
            return None;
        }
        (!self.occupied.is_empty()).then(|| {
            let there = few(&self.occupied);
            match self.note.is_everything {
                true => format!(
                    "the replica set is not empty: it has {there}. Give an empty one, or --drop to \
                     drop all of that first"
                ),
                false => format!(
                    "the replica set has {there} already. Give another name (--ns a.b=c.d), or \
                     --drop to drop that first"
                ),
            }
        })
    }
}

/// What a target has that a restore would meet, and the nodes that serve it.
async fn in_the_way(
    target: &Source,
    catalog: &Catalog,
    is_everything: bool,
) -> Result<(Vec<String>, Vec<String>), Error> {
    let mut occupied = target.occupied().await?;
    if is_everything {
        return Ok((occupied, target.serving().await?));
    }
    // Beside what it makes anything may be there, and nodes may serve it.
    // A time-series collection is listed by its buckets.
    let plain = |name: &str| name.replacen(".system.buckets.", ".", 1);
    occupied.retain(|name| catalog.has(name) || catalog.has(&plain(name)));
    Ok((occupied, Vec::new()))
}

/// What is told where nodes serve.
pub(super) fn in_the_way_of(serving: &[String]) -> String {
    format!(
        "nodes serve the replica set: {}. A restore takes the ground from under them: stop them first",
        few(serving)
    )
}

fn few(all: &[String]) -> String {
    let mut named: Vec<_> = all.iter().take(NAMED_MAX).cloned().collect();
    if all.len() > NAMED_MAX {
        named.push(format!("{} more", all.len() - NAMED_MAX));
    }
    named.join(", ")
}

/// The newest base that reaches the point: it has the fewest events to go through.
fn base_of<'a>(
    bases: &'a [Base],
    windows: &[Window],
    point: &Point,
    folder: &Path,
) -> Result<&'a Base, Error> {
    if windows.is_empty() {
        return Err(Error::Folder(format!(
            "the backup in {} is not finished: `drumline backup` goes on with it",
            folder.display()
        )));
    }
    let window = windows.iter().rev().find(|window| point.is_in(window));
    let Some(window) = window else {
        let can: Vec<_> = windows.iter().map(ToString::to_string).collect();
        return Err(Error::Point(format!(
            "{} cannot be restored: the backup reaches {}",
            point.name(),
            can.join(", and ")
        )));
    };
    let base = bases.iter().find(|base| base.number == window.base);
    base.ok_or_else(|| Error::damaged("the manifest", "a base is missing"))
}
