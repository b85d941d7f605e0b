//! The way back: a plan, which touches nothing, and then the plan carried out.

use std::path::Path;

use bson::{Document, doc};

use super::Report;
use super::catalog::{Catalog, Collection, Uuid};
use super::check::{Point, Proof, Window, prove, windows};
use super::error::Error;
use super::event::Event;
use super::folder::Folder;
use super::frame::Reader;
use super::manifest::{Base, LeftOut, Mark};
use super::options::{first_options, last_options};
use super::patience::Patience;
use super::replay::{Replay, commands};
use super::scan::Lead;
use super::sums::Sum;
use crate::store::{Source, StoreError};

/// How often an index that takes long is asked for again; each time MongoDB goes on building it.
const INDEX_TRIES_MAX: u32 = 500;
/// Of what is in the way, so much is named.
const NAMED_MAX: usize = 3;

/// What a restore will do. The backup has been proven and the target looked at; nothing was
/// changed.
#[derive(Debug)]
pub struct Plan {
    folder: Folder,
    base: Base,
    proof: Proof,
    /// What can be restored.
    pub windows: Vec<Window>,
    /// The target's collections and views, which `--drop` drops.
    pub occupied: Vec<String>,
}

/// What a restore has done.
#[derive(Debug, Clone)]
pub struct Restored {
    pub mark: Mark,
    /// The collections by name: how many documents, and a sum over them, as read back.
    pub collections: Vec<(String, i64, String)>,
    pub indexes: usize,
    pub views: usize,
}

impl Restored {
    /// How many documents all collections have.
    pub fn documents(&self) -> i64 {
        self.collections
            .iter()
            .map(|(_, documents, _)| documents)
            .sum()
    }

    /// For programs.
    pub fn document(&self) -> Document {
        let collections = self.collections.iter().map(|(name, documents, sum)| {
            doc! { "ns": name, "documents": documents, "sum": sum }
        });
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        doc! {
            "position": self.mark.position, "stamp": self.mark.stamp,
            "time": super::follow::text_of(self.mark.wall), "documents": self.documents(),
            "indexes": count(self.indexes), "views": count(self.views),
            "collections": collections.collect::<Vec<_>>(),
        }
    }
}

impl Plan {
    /// Proves the backup, finds the point, and looks at the target.
    pub async fn make(
        folder: &Path,
        point: Point,
        target: &Source,
        report: Report<'_>,
    ) -> Result<Self, Error> {
        let (folder, manifest) = Folder::to_read(folder)?;
        let bases = folder.bases(&manifest)?;
        let windows = windows(&bases);
        let Some(last) = windows.last() else {
            return Err(Error::Folder(format!(
                "the backup in {} is not finished: `drumline backup` goes on with it",
                folder.path().display()
            )));
        };
        // The newest base that reaches the point has the fewest events to go through.
        let window = windows.iter().rev().find(|window| point.is_in(window));
        let Some(window) = window else {
            let can: Vec<_> = windows.iter().map(ToString::to_string).collect();
            let what = match point {
                Point::Position(at) => format!("position {at}"),
                Point::Wall(at) => super::follow::text_of(at),
                Point::End => last.to_string(),
            };
            return Err(Error::Point(format!(
                "{what} cannot be restored: the backup reaches {}",
                can.join(", and ")
            )));
        };
        let base = bases.iter().find(|base| base.number == window.base);
        let base = base.ok_or_else(|| Error::damaged("the manifest", "a base is missing"))?;
        let base = base.clone();
        report(&format!(
            "the files of base {} are read and proven",
            base.number
        ));
        let proof = prove(&folder, &base, &point, report)?;
        let occupied = target.occupied().await?;
        Ok(Self {
            folder,
            base,
            proof,
            windows,
            occupied,
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

    /// Why the plan cannot be carried out without dropping what is there; `None` if it can.
    pub fn obstacle(&self) -> Option<String> {
        let mut named: Vec<_> = self.occupied.iter().take(NAMED_MAX).cloned().collect();
        if self.occupied.len() > NAMED_MAX {
            named.push(format!("{} more", self.occupied.len() - NAMED_MAX));
        }
        (!named.is_empty()).then(|| {
            format!(
                "the replica set is not empty: it has {}. Give an empty one, or --drop to drop \
                 all of that first",
                named.join(", ")
            )
        })
    }
}

/// Carries a plan out. With `drop` everything that is there goes first.
pub async fn restore(
    plan: Plan,
    drop: bool,
    target: &Source,
    report: Report<'_>,
) -> Result<Restored, Error> {
    if let Some(obstacle) = plan.obstacle().filter(|_| !drop) {
        return Err(Error::Target(obstacle));
    }
    match drop {
        true => target.drop_everything().await?,
        // A log without a document is nobody's.
        false => target.unmake("drumline", "log").await?,
    }
    let Plan {
        folder,
        base,
        proof,
        ..
    } = plan;
    let Proof {
        catalog,
        spans,
        mark,
        ..
    } = proof;
    for collection in catalog.collections.values() {
        make(target, collection).await?;
    }
    let all = catalog.collections.iter();
    let all = all.map(|(uuid, collection)| (*uuid, collection.clone(), spans.get(uuid).copied()));
    let mut replay = Replay::new(target, all);
    base_documents(&folder, &base, &mut replay, report).await?;
    let segments = folder.segments(&base)?;
    'segments: for segment in &segments {
        if segment.first > mark.time {
            break;
        }
        let mut reader = Reader::open(folder.path(), &segment.file)?;
        while let Some(mut frame) = reader.frame()? {
            while let Some(document) = frame.document()? {
                let event = Event::read(document)?;
                if event.time > mark.time {
                    break 'segments;
                }
                replay.event(&event).await?;
            }
        }
        report(&format!("{} is applied", segment.file.name));
    }
    replay.flush().await?;
    let collections = compare(target, &replay).await?;
    let indexes = finish(target, &catalog, report).await?;
    Ok(Restored {
        mark,
        collections,
        indexes,
        views: catalog.views.len(),
    })
}

async fn base_documents(
    folder: &Folder,
    base: &Base,
    replay: &mut Replay<'_>,
    report: Report<'_>,
) -> Result<(), Error> {
    for file in &base.files.all(folder.path())? {
        let mut reader = Reader::open(folder.path(), file)?;
        while let Some(mut frame) = reader.frame()? {
            let Some(lead) = frame.document()?.map(Lead::read).transpose()? else {
                continue;
            };
            if lead.again {
                replay.forget(lead.uuid).await?;
            }
            let mut documents = Vec::new();
            while let Some(document) = frame.document()? {
                documents.push(document.to_vec());
            }
            for part in commands(documents, Vec::len) {
                replay.base(lead.uuid, part).await?;
            }
        }
        report(&format!("{} is put in", file.name));
    }
    Ok(())
}

async fn make(target: &Source, collection: &Collection) -> Result<(), Error> {
    let mut options = first_options(&collection.options);
    let name = collection.time_series().unwrap_or(&collection.name);
    if collection.time_series().is_some() {
        options.remove("clusteredIndex"); // made with the rest
        if let Ok(series) = options.get_document_mut("timeseries")
            && series.contains_key("granularity")
        {
            // It follows from the granularity, also from one that was set later.
            series.remove("bucketMaxSpanSeconds");
            series.remove("bucketRoundingSeconds");
        }
    }
    target.make(&collection.database, name, options).await?;
    Ok(())
}

/// Reads everything back, and compares it with what it must be.
async fn compare(
    target: &Source,
    replay: &Replay<'_>,
) -> Result<Vec<(String, i64, String)>, Error> {
    let since = target.written().await?;
    let mut all = Vec::new();
    for filled in replay.filled.values() {
        let Collection { database, name, .. } = &filled.collection;
        let mut sum = Sum::default();
        let mut rows = target.read_all(database, name, since).await?;
        while let Some(batch) = rows.next().await? {
            for document in batch.documents()? {
                sum.add(document);
            }
        }
        if sum != filled.sum {
            return Err(Error::Target(format!(
                "{database}.{name} is not what it must be: {} documents with the sum {} were read \
                 back, not {} with {}. Did somebody else write to the replica set?",
                sum.documents,
                sum.text(),
                filled.sum.documents,
                filled.sum.text()
            )));
        }
        all.push((filled.collection.namespace(), sum.documents, sum.text()));
    }
    all.sort();
    Ok(all)
}

/// Indexes, validators and views: what must not be in the way of the documents.
async fn finish(target: &Source, catalog: &Catalog, report: Report<'_>) -> Result<usize, Error> {
    let mut built = 0;
    let collections: Vec<(&Uuid, &Collection)> = catalog.collections.iter().collect();
    for (_, collection) in collections {
        let Collection {
            database,
            name,
            indexes,
            ..
        } = collection;
        if !indexes.is_empty() {
            index(target, database, name, indexes).await?;
            built += indexes.len();
            report(&format!(
                "{database}.{name}: {} indexes are built",
                indexes.len()
            ));
        }
        let options = last_options(collection);
        if !options.is_empty() {
            let name = collection.time_series().unwrap_or(name);
            target.modify(database, name, options).await?;
        }
    }
    for ((database, name), options) in &catalog.views {
        target.make(database, name, options.clone()).await?;
    }
    target.settle().await?;
    Ok(built)
}

async fn index(
    target: &Source,
    database: &str,
    name: &str,
    indexes: &[Document],
) -> Result<(), Error> {
    let mut failing = None;
    let mut tries = 0;
    loop {
        match target.index(database, name, indexes).await {
            Ok(()) => return Ok(()),
            Err(StoreError::TimedOut(_)) if tries < INDEX_TRIES_MAX => {
                (tries, failing) = (tries + 1, None);
            }
            Err(error) => {
                let patience = *failing.get_or_insert_with(Patience::from_now);
                patience.rest(error).await?;
            }
        }
    }
}
