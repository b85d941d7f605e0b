//! Reads all of a base, proves that it is what was written, and finds the point that a restore is
//! to reach.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use bson::{Document, doc};

use super::Report;
use super::catalog::{Catalog, Span, Uuid};
use super::cut::Cut;
use super::error::Error;
use super::event::{Event, LogEntry};
use super::folder::Folder;
use super::follow::text_of;
use super::frame::{FileEntry, Reader};
use super::manifest::{Base, Mark, Segment, Time};
use super::scan::{Lead, catalog_of};
use crate::model::hex;

/// What can be restored from one base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub base: u32,
    pub first: Mark,
    pub last: Mark,
}

impl Window {
    /// For programs.
    pub fn document(&self) -> Document {
        let mark = |mark: &Mark| {
            doc! {
                "position": mark.position, "stamp": mark.stamp, "time": text_of(mark.wall),
                "clusterTime": bson::Timestamp::from(mark.time),
            }
        };
        let base = i64::from(self.base);
        doc! { "base": base, "first": mark(&self.first), "last": mark(&self.last) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base, first, last } = self;
        write!(f, "from {first} to {last} (base {base})")
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = text_of(self.wall);
        write!(f, "position {} (stamp {}, {at})", self.position, self.stamp)
    }
}

/// What can be restored, one window a base.
pub fn windows(bases: &[Base]) -> Vec<Window> {
    let whole = bases.iter().filter(|base| base.is_whole());
    let windows = whole.filter_map(|base| {
        Some(Window {
            base: base.number,
            first: base.window?,
            last: base.last(),
        })
    });
    windows.collect()
}

/// The bases of a backup, one document each.
pub fn list(folder: &Path) -> Result<Vec<Document>, Error> {
    let (folder, manifest) = Folder::to_read(folder)?;
    let mut rows = Vec::new();
    let bases = folder.bases(&manifest)?;
    for base in &bases {
        let segments = folder.segments(base)?;
        let files = base.files.all(folder.path())?;
        let all = segments.iter().map(|segment| &segment.file).chain(&files);
        let bytes: u64 = all.map(|file| file.bytes).sum();
        let count = |documents: u64| i64::try_from(documents).unwrap_or(i64::MAX);
        let documents = files.iter().map(|file| file.documents).sum();
        let events = segments.iter().map(|segment| segment.file.documents).sum();
        let window = windows(&bases)
            .into_iter()
            .find(|window| window.base == base.number);
        let left_out = base.left_out.iter().map(ToString::to_string);
        let left_out: Vec<_> = left_out.collect();
        let mut row = doc! {
            "base": i64::from(base.number), "documents": count(documents), "events": count(events),
            "bytes": count(bytes), "leftOut": left_out,
        };
        match window {
            Some(window) => row.extend(window.document()),
            None => drop(row.insert("unfinished", true)),
        }
        rows.push(row);
    }
    Ok(rows)
}

/// What was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    pub bases: u64,
    pub files: u64,
    pub bytes: u64,
    pub documents: u64,
    pub events: u64,
}

/// Reads all files of a backup and proves that they are what was written: their sums, that no event
/// is missing between them, and that each batch is whole.
pub fn verify(folder: &Path, report: Report<'_>) -> Result<Verified, Error> {
    let (folder, manifest) = Folder::to_read(folder)?;
    let mut verified = Verified::default();
    for base in &folder.bases(&manifest)? {
        let proof = prove(&folder, base, &Point::End, false, report)?;
        verified.bases += 1;
        verified.files += proof.files;
        verified.bytes += proof.bytes;
        verified.documents += proof.documents;
        verified.events += proof.events;
    }
    Ok(verified)
}

/// Where a restore stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// At the last thing that the backup holds.
    End,
    /// After the batch at this position of the log.
    Position(i64),
    /// After the last change that was made by this time, in milliseconds since 1970.
    Wall(i64),
    /// After the request with this stamp, also within a batch.
    Stamp(i64),
    /// After the changes of this cluster time.
    Cluster(Time),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {}", self.name())
    }
}

impl Point {
    /// In words.
    pub fn name(&self) -> String {
        match self {
            Self::End => "the end".to_owned(),
            Self::Position(at) => format!("position {at}"),
            Self::Wall(at) => text_of(*at),
            Self::Stamp(at) => format!("stamp {at}"),
            Self::Cluster(at) => format!("cluster time {at}"),
        }
    }

    /// Whether a base reaches it.
    pub const fn is_in(&self, window: &Window) -> bool {
        match self {
            Self::End => true,
            Self::Position(at) => window.first.position <= *at && *at <= window.last.position,
            Self::Wall(at) => window.first.wall <= *at && *at <= window.last.wall,
            Self::Stamp(at) => window.first.stamp <= *at && *at <= window.last.stamp,
            Self::Cluster(Time(seconds, _)) => {
                window.first.time.0 <= *seconds && *seconds <= window.last.time.0
            }
        }
    }
}

/// What was found in a base that is whole up to its end.
#[derive(Debug)]
pub struct Proof {
    /// The catalogue at the point.
    pub catalog: Catalog,
    pub spans: BTreeMap<Uuid, Span>,
    /// The point: everything up to its time belongs to it, but for what is cut off.
    pub mark: Mark,
    /// The batch at that time, if the point lies within it.
    pub cut: Option<Cut>,
    /// How many transactions up to the point changed these collections together, if that was asked.
    pub together: BTreeMap<BTreeSet<Uuid>, u64>,
    pub files: u64,
    pub bytes: u64,
    pub documents: u64,
    pub events: u64,
}

/// Reads all of a base. `together`: counts what transactions changed together.
pub fn prove(
    folder: &Folder,
    base: &Base,
    point: &Point,
    together: bool,
    report: Report<'_>,
) -> Result<Proof, Error> {
    let mut proof = Proof {
        catalog: catalog_of(folder, base)?,
        spans: BTreeMap::new(),
        mark: base.window.unwrap_or(base.end),
        cut: None,
        together: BTreeMap::new(),
        files: 1,
        bytes: base.catalog.bytes,
        documents: 0,
        events: 0,
    };
    for left_out in &base.left_out {
        let unread = |uuid: &Uuid, _: &mut _| hex(uuid) != left_out.uuid;
        proof.catalog.collections.retain(unread);
    }
    for file in &base.files.all(folder.path())? {
        prove_documents(folder, file, &mut proof)?;
        report(&format!("{} is whole", file.name));
    }
    let mut walk = Walk::new(base, *point, together);
    for segment in folder.segments(base)? {
        prove_events(folder, &segment, &mut walk, &mut proof)?;
        report(&format!("{} is whole", segment.file.name));
    }
    walk.end_group(&mut proof)?;
    walk.end(base, &mut proof)?;
    if let (true, Point::Stamp(at)) = (walk.is_within, point) {
        let cut = Cut::make(&transaction(folder, base, proof.mark.time)?, *at)?;
        (proof.mark.position, proof.mark.stamp) = (cut.position, cut.stamp);
        proof.cut = Some(cut);
    }
    Ok(proof)
}

/// The changes of one cluster time. They are all in one segment.
fn transaction(folder: &Folder, base: &Base, time: Time) -> Result<Vec<Vec<u8>>, Error> {
    let mut all = Vec::new();
    let segments = folder.segments(base)?.into_iter();
    for segment in segments.filter(|one| one.first <= time && time <= one.last) {
        let mut reader = Reader::open(folder.path(), &segment.file)?;
        while let Some(mut frame) = reader.frame()? {
            while let Some(document) = frame.document()? {
                if Event::read(document)?.time == time {
                    all.push(document.to_vec());
                }
            }
        }
    }
    Ok(all)
}

/// Reads a file of the base.
fn prove_documents(folder: &Folder, file: &FileEntry, proof: &mut Proof) -> Result<(), Error> {
    let mut documents = 0;
    let mut reader = Reader::open(folder.path(), file)?;
    while let Some(mut frame) = reader.frame()? {
        let lead = frame.document()?.map(Lead::read).transpose()?;
        if let Some(Lead { uuid, at, .. }) = lead {
            let span = proof.spans.entry(uuid).or_insert(Span {
                first: at,
                last: at,
            });
            span.first = span.first.min(at);
            span.last = span.last.max(at);
        }
        while frame.document()?.is_some() {
            documents += 1;
        }
    }
    if documents != file.documents {
        return Err(Error::damaged(
            &file.name,
            "it has another number of documents",
        ));
    }
    proof.documents += documents;
    (proof.files, proof.bytes) = (proof.files + 1, proof.bytes + file.bytes);
    Ok(())
}

/// Reads a segment, and goes through its events.
fn prove_events(
    folder: &Folder,
    segment: &Segment,
    walk: &mut Walk,
    proof: &mut Proof,
) -> Result<(), Error> {
    let mut reader = Reader::open(folder.path(), &segment.file)?;
    let mut events = 0;
    while let Some(mut frame) = reader.frame()? {
        while let Some(document) = frame.document()? {
            let event = Event::read(document)?;
            if event.time < segment.first || event.time > segment.last {
                return Err(Error::damaged(
                    &segment.file.name,
                    "an event is of another time",
                ));
            }
            walk.take(&event, document, proof)?;
            events += 1;
        }
    }
    if events != segment.file.documents {
        return Err(Error::damaged(
            &segment.file.name,
            "it has another number of events",
        ));
    }
    proof.events += events;
    (proof.files, proof.bytes) = (proof.files + 1, proof.bytes + segment.file.bytes);
    Ok(())
}

/// Goes through the events, one transaction after the other.
struct Walk {
    point: Point,
    /// Everything up to there belongs to every point.
    least: Mark,
    reached: bool,
    /// The point lies within the last batch that belongs to it.
    is_within: bool,
    /// Whether it is noticed what transactions changed together.
    together: bool,
    /// The log's last position.
    position: Option<i64>,
    group: Group,
}

/// The events of one cluster time.
#[derive(Default)]
struct Group {
    mark: Mark,
    /// The position and the first and last stamp of the batch that they are.
    has: Option<LogEntry>,
    /// The collections whose documents they change, if that is noticed. Not the log.
    uuids: BTreeSet<Uuid>,
    /// Those that change the catalogue.
    changes: Vec<Vec<u8>>,
}

impl Walk {
    fn new(base: &Base, point: Point, together: bool) -> Self {
        let least = base.window.unwrap_or_default();
        Self {
            reached: false,
            is_within: false,
            together,
            point,
            least,
            position: None,
            group: Group::default(),
        }
    }

    fn take(&mut self, event: &Event<'_>, bytes: &[u8], proof: &mut Proof) -> Result<(), Error> {
        if event.time != self.group.mark.time {
            if event.time < self.group.mark.time {
                return Err(Error::damaged("the events", "they go back in time"));
            }
            self.end_group(proof)?;
            self.group.mark.time = event.time;
        }
        self.group.mark.wall = self.group.mark.wall.max(event.wall);
        if let Some(entry) = event.log_entry() {
            let position = entry.position;
            if self.position.is_some_and(|last| position != last + 1) {
                let why =
                    format!("position {position} of the log does not follow on the one before");
                return Err(Error::damaged("the events", why));
            }
            self.position = Some(position);
            self.group.has = Some(entry);
        }
        if !event.is_of_document() {
            self.group.changes.push(bytes.to_vec());
        } else if self.together && event.database != crate::model::policy::LOG_DATABASE {
            self.group.uuids.extend(event.uuid);
        }
        Ok(())
    }

    /// Decides whether the transaction belongs to the point.
    fn end_group(&mut self, proof: &mut Proof) -> Result<(), Error> {
        let group = std::mem::take(&mut self.group);
        let next = Group {
            mark: Mark {
                wall: 0,
                ..group.mark
            },
            ..Group::default()
        };
        self.group = next;
        if group.mark.time == Time::default() {
            return Ok(());
        }
        let early = group.mark.time <= self.least.time;
        if !early {
            match self.point {
                Point::Position(at) if at <= self.least.position => self.reached = true,
                Point::Stamp(at) if at <= self.least.stamp => self.reached = true,
                Point::Stamp(at) if group.has.is_some_and(|has| has.first > at) => {
                    self.reached = true;
                }
                Point::Wall(at) if group.mark.wall > at => self.reached = true,
                Point::Cluster(at) if group.mark.time > at => self.reached = true,
                _ => {}
            }
            if self.reached {
                return Ok(());
            }
        }
        if group.uuids.len() > 1 {
            *proof.together.entry(group.uuids).or_default() += 1;
        }
        for change in &group.changes {
            proof.catalog.follow(&Event::read(change)?)?;
        }
        if !early {
            proof.mark.time = group.mark.time;
            proof.mark.wall = proof.mark.wall.max(group.mark.wall);
            if let Some(LogEntry { position, last, .. }) = group.has {
                (proof.mark.position, proof.mark.stamp) = (position, last);
                self.reached |= self.point == Point::Position(position);
                if let Point::Stamp(at) = self.point {
                    self.is_within = at < last;
                    self.reached |= at <= last;
                }
            }
        }
        Ok(())
    }

    /// Nothing happened between the last event and the end of the backup.
    fn end(&self, base: &Base, proof: &mut Proof) -> Result<(), Error> {
        if !self.reached && self.point == Point::End && base.is_whole() {
            if self
                .position
                .is_some_and(|position| position != base.end.position)
            {
                return Err(Error::damaged("the events", "they end at another position"));
            }
            proof.mark = base.last();
        }
        match self.point {
            Point::Position(at) if proof.mark.position != at => Err(Error::damaged(
                "the events",
                format!("position {at} of the log is not among them"),
            )),
            _ => Ok(()),
        }
    }
}
