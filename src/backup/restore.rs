//! The way back: a plan carried out, in stages that are noted in the target.

use bson::{Document, doc};

use super::Report;
use super::catalog::{Catalog, Collection, Uuid};
use super::check::Proof;
use super::error::Error;
use super::event::Event;
use super::folder::Folder;
use super::frame::{FileEntry, Reader};
use super::manifest::Mark;
use super::note::{Note, Stage};
use super::options::{first_options, last_options};
use super::patience::Patience;
use super::plan::Plan;
use super::replay::{Replay, commands};
use super::scan::Lead;
use super::sums::Sum;
use crate::store::{Source, StoreError};

/// How often an index that takes long is asked for again; each time MongoDB goes on building it.
const INDEX_TRIES_MAX: u32 = 500;
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

/// Carries a plan out. With `drop` everything that is there goes first. Where MongoDB is away for a
/// while, or changes its primary, it goes on from what was noted last.
pub async fn restore(
    plan: &Plan,
    drop: bool,
    target: &Source,
    report: Report<'_>,
) -> Result<Restored, Error> {
    if let Some(obstacle) = plan.obstacle(drop) {
        return Err(Error::Target(obstacle));
    }
    let mut work = Work {
        plan,
        target,
        report,
        note: plan.note.clone(),
        is_second_try: plan.goes_on,
        reign: 0,
    };
    if !plan.goes_on {
        work.note.drop = drop;
        target.note(work.note.document()).await?;
    }
    if work.note.is_everything {
        // A node that has begun to serve before the note was there does not know of it.
        work.keep_off().await?;
    }
    let mut failing: Option<(Stage, Patience)> = None;
    loop {
        let error = match work.run().await {
            Ok(restored) => return Ok(restored),
            Err(Error::Store(error)) => error,
            Err(error) => return Err(error),
        };
        let stage = work.note.stage;
        let patience = match failing {
            Some((at, patience)) if at == stage => patience,
            _ => Patience::from_now(),
        };
        failing = Some((stage, patience));
        let why = error.to_string();
        patience.rest(error).await?;
        report(&format!("goes on where it was noted last: {why}"));
        work.is_second_try = true;
    }
}

/// A plan that is being carried out.
struct Work<'a> {
    plan: &'a Plan,
    target: &'a Source,
    report: Report<'a>,
    note: Note,
    /// What comes next may have been done already, in part.
    is_second_try: bool,
    /// The term of the primary since the last note.
    reign: i64,
}

impl Work<'_> {
    /// Nothing is touched where nodes serve.
    async fn keep_off(&self) -> Result<(), Error> {
        let serving = self.target.serving().await?;
        if serving.is_empty() {
            return Ok(());
        }
        if self.note.stage == Stage::Begun && !self.plan.goes_on {
            self.target.forget_note().await?;
        }
        Err(Error::Target(super::plan::in_the_way_of(&serving)))
    }

    /// What was read back is not what it must be. To go on from there would find it so again; but if
    /// the primary has changed, it may have been the loss of what the earlier one had.
    async fn spoiled(&mut self, error: Error) -> Error {
        if !matches!(error, Error::Target(_)) {
            return error;
        }
        let noted = async {
            if self.target.reign().await? != self.reign {
                return Ok(Some(changed().into()));
            }
            self.note.stage = Stage::Spoiled;
            self.target.note(self.note.document()).await?;
            Ok::<_, StoreError>(None)
        };
        match noted.await {
            Ok(passing) => passing.unwrap_or(error),
            Err(passing) => passing.into(),
        }
    }

    /// From the stage that was noted last to the end.
    async fn run(&mut self) -> Result<Restored, Error> {
        let target = self.target;
        self.reign = target.reign().await?;
        let Proof { catalog, spans, .. } = &self.plan.proof;
        if self.note.stage == Stage::Begun {
            self.begin().await?;
        }
        let all = catalog.collections.iter();
        let all =
            all.map(|(uuid, collection)| (*uuid, collection.clone(), spans.get(uuid).copied()));
        let mut replay = Replay::new(target, all, self.is_second_try);
        replay.set_sums(&self.note.sums);
        if let Stage::Documents(done) = self.note.stage {
            self.documents(done, &mut replay).await?;
        }
        if let Stage::Events(done) = self.note.stage {
            self.events(done, &mut replay).await?;
            if let Err(error) = compare(target, &replay).await {
                return Err(self.spoiled(error).await);
            }
            self.seal(Stage::Indexes, &mut replay).await?;
        }
        let indexes = finish(target, catalog, self.report).await?;
        if target.reign().await? != self.reign {
            return Err(changed().into());
        }
        target.forget_note().await?;
        let filled = replay.filled.values();
        let collections = filled.map(|filled| {
            let sum = filled.sum;
            (filled.collection.namespace(), sum.documents, sum.text())
        });
        let mut collections: Vec<_> = collections.collect();
        collections.sort();
        Ok(Restored {
            mark: self.plan.proof.mark,
            collections,
            indexes,
            views: catalog.views.len(),
        })
    }

    /// Drops what is to go, and makes the collections.
    async fn begin(&mut self) -> Result<(), Error> {
        let Proof { catalog, .. } = &self.plan.proof;
        match (self.note.is_everything, self.note.drop) {
            (true, true) => self.target.drop_everything().await?,
            // A log without a document is nobody's, nor are the marks of one that was there before.
            (true, false) => {
                for name in ["log", "marks", "guests"] {
                    self.target.unmake("drumline", name).await?;
                }
            }
            (false, true) => {
                for (database, name) in catalog.views.keys() {
                    self.target.unmake(database, name).await?;
                }
                for one in catalog.collections.values() {
                    let name = one.time_series().unwrap_or(&one.name);
                    self.target.unmake(&one.database, name).await?;
                }
            }
            (false, false) => {}
        }
        for collection in catalog.collections.values() {
            let is_new = make(self.target, collection).await?;
            if !(is_new || self.note.drop || self.is_second_try) {
                return Err(Error::Target(format!(
                    "{} is there by now: somebody else has made it",
                    collection.namespace()
                )));
            }
        }
        self.is_second_try = false;
        let all = catalog.collections.iter();
        let all = all.map(|(uuid, collection)| (*uuid, collection.clone(), None));
        let mut none = Replay::new(self.target, all, false);
        self.seal(Stage::Documents(0), &mut none).await
    }

    /// Notes that a stage is reached, when a majority has everything up to it. A primary that came
    /// since the last note may lack some of what was done after that.
    async fn seal(&mut self, stage: Stage, replay: &mut Replay<'_>) -> Result<(), Error> {
        self.target.settle().await?;
        if self.target.reign().await? != self.reign {
            return Err(changed().into());
        }
        let sums = replay.filled.iter();
        let note = Note {
            stage,
            sums: sums.map(|(uuid, filled)| (*uuid, filled.sum)).collect(),
            ..self.note.clone()
        };
        self.target.note(note.document()).await?;
        self.note = note;
        (self.is_second_try, replay.is_second_try) = (false, false);
        Ok(())
    }

    async fn documents(&mut self, done: usize, replay: &mut Replay<'_>) -> Result<(), Error> {
        let Plan { folder, base, .. } = self.plan;
        let files = base.files.all(folder.path())?;
        self.is_behind(done.checked_sub(1).and_then(|at| files.get(at)))?;
        for (at, file) in files.iter().enumerate().skip(done) {
            base_documents(folder, file, replay).await?;
            self.note.after.clone_from(&file.sha256);
            self.seal(Stage::Documents(at + 1), replay).await?;
            (self.report)(&format!("{} is put in", file.name));
        }
        self.note.after.clear();
        self.seal(Stage::Events(0), replay).await
    }

    /// The files that are in already are those of this backup.
    fn is_behind(&self, last: Option<&FileEntry>) -> Result<(), Error> {
        let after = last.map_or("", |file| file.sha256.as_str());
        match after == self.note.after {
            true => Ok(()),
            false => Err(Error::Target(
                "the restore that was interrupted was from another copy of this backup: go on from \
                 that one, or begin anew from this one into an empty replica set"
                    .into(),
            )),
        }
    }

    async fn events(&mut self, done: usize, replay: &mut Replay<'_>) -> Result<(), Error> {
        let Plan {
            folder,
            base,
            proof,
            ..
        } = self.plan;
        let segments = folder.segments(base)?;
        let last = done.checked_sub(1).and_then(|at| segments.get(at));
        self.is_behind(last.map(|segment| &segment.file))?;
        for (at, segment) in segments.iter().enumerate().skip(done) {
            if segment.first > proof.mark.time {
                break;
            }
            let mut reader = Reader::open(folder.path(), &segment.file)?;
            // A transaction is in one segment as a whole.
            let mut number = 0;
            while let Some(mut frame) = reader.frame()? {
                while let Some(document) = frame.document()? {
                    let event = Event::read(document)?;
                    let cut = proof.cut.as_ref().filter(|cut| cut.time == event.time);
                    let event = match cut {
                        Some(cut) => {
                            number += 1;
                            cut.at(number - 1, document).map(Event::read).transpose()?
                        }
                        None => Some(event).filter(|event| event.time <= proof.mark.time),
                    };
                    if let Some(event) = event {
                        replay.event(&event).await?;
                    }
                }
            }
            replay.flush().await?;
            if replay.is_second_try {
                recount(self.target, replay).await?;
            }
            self.note.after.clone_from(&segment.file.sha256);
            self.seal(Stage::Events(at + 1), replay).await?;
            (self.report)(&format!("{} is applied", segment.file.name));
        }
        Ok(())
    }
}

fn changed() -> StoreError {
    StoreError::Unavailable("MongoDB has another primary".into())
}

/// Puts in the documents of one file.
async fn base_documents(
    folder: &Folder,
    file: &FileEntry,
    replay: &mut Replay<'_>,
) -> Result<(), Error> {
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
    Ok(())
}

/// Makes a collection; whether there was none.
async fn make(target: &Source, collection: &Collection) -> Result<bool, Error> {
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
    Ok(target.make(&collection.database, name, options).await?)
}

/// What a collection holds by now, as a majority has it.
async fn count(
    target: &Source,
    collection: &Collection,
    since: bson::Timestamp,
) -> Result<Sum, Error> {
    let mut sum = Sum::default();
    let (database, name) = (&collection.database, &collection.name);
    let mut rows = target.read_all(database, name, since).await?;
    while let Some(batch) = rows.next().await? {
        for document in batch.documents()? {
            sum.add(document);
        }
    }
    Ok(sum)
}

/// Takes what is there for what must be: a segment that was applied in part does not tell what it
/// had found.
async fn recount(target: &Source, replay: &mut Replay<'_>) -> Result<(), Error> {
    let since = target.written().await?;
    for filled in replay.filled.values_mut() {
        filled.sum = count(target, &filled.collection, since).await?;
    }
    Ok(())
}

/// Reads everything back, and compares it with what it must be.
async fn compare(target: &Source, replay: &Replay<'_>) -> Result<(), Error> {
    let since = target.written().await?;
    for filled in replay.filled.values() {
        let sum = count(target, &filled.collection, since).await?;
        if sum != filled.sum {
            return Err(Error::Target(format!(
                "{} is not what it must be: {} documents with the sum {} were read back, not {} \
                 with {}. Did somebody else write to the replica set? Begin anew with --drop",
                filled.collection.namespace(),
                sum.documents,
                sum.text(),
                filled.sum.documents,
                filled.sum.text()
            )));
        }
    }
    Ok(())
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
            // A run that was interrupted may have built some; not all can be asked for again.
            let there = target.indexes(database, name).await?;
            let is_there = |index: &Document| {
                let name = index.get("name");
                there.iter().any(|there| there.get("name") == name)
            };
            let missing = indexes.iter().filter(|index| !is_there(index)).cloned();
            let missing: Vec<_> = missing.collect();
            if !missing.is_empty() {
                index(target, database, name, &missing).await?;
            }
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
