//! The base: every document, as it was at one cluster time.
//!
//! MongoDB keeps a snapshot for five minutes. A scan that takes longer, or that goes on after a
//! crash, reads the rest at a later time. Each frame of a base's files begins with a document that
//! says whose documents follow and when they were read; a restore applies the events in between.

use std::time::Instant;

use bson::doc;

use super::Report;
use super::catalog::{Catalog, Collection, Uuid, binary};
use super::error::Error;
use super::folder::{Folder, name_of};
use super::follow::{Follower, Goal, token_of};
use super::frame::{Reader, Writer};
use super::list::List;
use super::manifest::{Base, LeftOut, Manifest, Mark, Scan, Time};
use super::patience::Patience;
use super::raw;
use crate::model::hex;
use crate::store::{Rows, Setback, Source, StoreError, Wanted};

/// A file of the base ends when it holds so much; the events are read up to then, and the manifest
/// is saved.
pub const FILE_USUAL: u64 = 256 << 20;
/// A collection that changes its name again and again is given up.
const MOVES_MAX: usize = 20;

/// Begins a base: its time first, then what there is.
pub async fn begin(source: &Source, folder: &Folder, manifest: &mut Manifest) -> Result<(), Error> {
    let from: Time = source.now().await?.into();
    let catalog = Catalog::found(source.collections().await?);
    let mut bases = folder.bases(manifest)?;
    let number = bases.last().map_or(1, |base| base.number + 1);
    let mut writer = Writer::create(folder.path(), super::folder::catalog_name(number))?;
    for document in catalog.to_documents() {
        let document = document
            .to_vec()
            .map_err(|error| Error::damaged("the catalogue", error.to_string()));
        writer.push(&document?)?;
    }
    bases.push(Base {
        number,
        from,
        scan: Some(Scan::default()),
        window: None,
        catalog: writer.finish()?,
        files: List::default(),
        segments: List::default(),
        left_out: Vec::new(),
        token: None,
        end: Mark::default(),
    });
    folder.set_bases(manifest, bases)?;
    folder.save(manifest)
}

/// Reads a base's catalogue.
pub fn catalog_of(folder: &Folder, base: &Base) -> Result<Catalog, Error> {
    let mut catalog = Catalog::default();
    let mut reader = Reader::open(folder.path(), &base.catalog)?;
    while let Some(mut frame) = reader.frame()? {
        while let Some(document) = frame.document()? {
            let read = bson::Document::from_reader(document);
            catalog.take(&read.map_err(|_| raw::Malformed)?)?;
        }
    }
    Ok(catalog)
}

/// Whose documents follow in a frame, and when they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lead {
    pub uuid: Uuid,
    pub at: Time,
    /// What came of this collection before counts no more.
    pub again: bool,
}

impl Lead {
    fn to_bytes(self) -> Result<Vec<u8>, Error> {
        let document = doc! {
            "c": binary(self.uuid), "t": bson::Timestamp::from(self.at), "again": self.again,
        };
        let bytes = document.to_vec();
        bytes.map_err(|error| Error::damaged("a frame's head", error.to_string()))
    }

    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let read = || {
            Some(Self {
                uuid: raw::find(bytes, "c")?.uuid()?,
                at: raw::find(bytes, "t")?.timestamp()?.into(),
                again: raw::find(bytes, "again")?.boolean()?,
            })
        };
        read().ok_or_else(|| Error::damaged("a frame's head", "it is not what was written"))
    }
}

/// Reads what is left of a base.
#[derive(Debug)]
pub struct Scanner<'a, 'b> {
    source: &'a Source,
    folder: &'a Folder,
    follower: &'b mut Follower<'a>,
    catalog: Catalog,
    /// The snapshot that is read.
    at: Time,
    writer: Option<Writer>,
    /// A file of the base ends when it holds so much.
    file_bytes: u64,
    documents: u64,
    began: Instant,
}

impl<'a, 'b> Scanner<'a, 'b> {
    pub fn new(
        source: &'a Source,
        folder: &'a Folder,
        follower: &'b mut Follower<'a>,
        base: &Base,
        file_bytes: u64,
    ) -> Result<Self, Error> {
        Ok(Self {
            file_bytes,
            catalog: catalog_of(folder, base)?,
            source,
            folder,
            follower,
            at: base.from,
            writer: None,
            documents: 0,
            began: Instant::now(),
        })
    }

    /// Reads everything that is left, and says where the window begins.
    pub async fn run(mut self, manifest: &mut Manifest, report: Report<'_>) -> Result<(), Error> {
        let all: Vec<_> = self.catalog.collections.clone().into_iter().collect();
        let mut scan = self.progress(manifest);
        while let Some((uuid, collection)) = all.get(scan.collections) {
            let first = self.documents;
            let left_out = self
                .collection(*uuid, collection, &mut scan, manifest, report)
                .await?;
            if let Some(why) = left_out
                && let Some(base) = &mut manifest.base
            {
                base.left_out.push(LeftOut {
                    namespace: collection.namespace(),
                    uuid: hex(uuid),
                    why,
                });
            }
            let documents = self.documents - first;
            report(&format!(
                "{}: {documents} documents",
                collection.namespace()
            ));
            scan = Scan {
                collections: scan.collections + 1,
                ..Scan::default()
            };
            self.save_if_full(&scan, manifest, report).await?;
        }
        // Everything was read by now; all events up to here make one state of it.
        let (now, (position, stamp), wall) = self.log_end().await?;
        self.end_file(None, manifest)?;
        if let Some(base) = &mut manifest.base {
            base.window = Some(Mark {
                time: now,
                position,
                stamp,
                wall,
            });
        }
        self.folder.save(manifest)?;
        let seconds = self.began.elapsed().as_secs_f64();
        report(&format!(
            "the base is read: {} documents in {seconds:.1} s",
            self.documents
        ));
        Ok(())
    }

    fn progress(&self, manifest: &Manifest) -> Scan {
        let scan = manifest.base.as_ref().and_then(|base| base.scan.clone());
        scan.unwrap_or_default()
    }

    /// A cluster time that is after all that was read, the end of the log there, and a time by which
    /// all of that was done.
    async fn log_end(&self) -> Result<(Time, (i64, i64), i64), Error> {
        let patience = Patience::from_now();
        loop {
            let ended = async {
                let now = self.source.now().await?;
                let end = self.source.log_end(now).await?;
                Ok((now.into(), end, self.source.clock().await?.1))
            };
            match ended.await {
                Ok(ended) => return Ok(ended),
                Err(error) => patience.rest(error).await?,
            }
        }
    }

    /// Reads a collection; says why if it cannot be read at all.
    async fn collection(
        &mut self,
        uuid: Uuid,
        collection: &Collection,
        scan: &mut Scan,
        manifest: &mut Manifest,
        report: Report<'_>,
    ) -> Result<Option<String>, Error> {
        let mut place = (collection.database.clone(), collection.name.clone());
        let capped = collection.is_capped();
        let last = scan.last.as_deref().filter(|_| !capped);
        let mut last = last.map(token_of).transpose()?;
        let mut again = scan.again;
        let base_time = manifest.base.as_ref().map_or(self.at, |base| base.from);
        let mut failing = None;
        let mut moves = 0;
        loop {
            let at = (!capped).then_some(self.at.into());
            let (database, name) = (place.0.as_str(), place.1.as_str());
            let from = last.as_deref();
            let wanted = Wanted {
                database,
                name,
                uuid,
                at,
                from,
            };
            // A capped one is read in one go, at no one time; an earlier try counts no more.
            let lead = Lead {
                uuid,
                at: if capped { base_time } else { self.at },
                again: again || capped,
            };
            let error = match self.source.scan(&wanted).await {
                Ok(rows) => match self
                    .rows(rows, lead, &mut last, scan, manifest, report)
                    .await?
                {
                    None => break,
                    Some(error) => {
                        failing = None;
                        error
                    }
                },
                Err(error) => error,
            };
            if capped {
                last = None;
            }
            again = false;
            let patience = *failing.get_or_insert_with(Patience::from_now);
            match Setback::of(&error) {
                Setback::Later => {
                    report(&format!(
                        "{}: goes on at a later time ({error})",
                        collection.namespace()
                    ));
                    patience.rest(error).await?;
                    self.at = self.source.now().await?.into();
                }
                Setback::Moved if moves < MOVES_MAX => {
                    moves += 1;
                    let Some(now) = self.place_of(uuid).await? else {
                        return Ok(None); // dropped meanwhile: an event says so
                    };
                    place = now;
                }
                Setback::Fatal => return Ok(Some(error.to_string())),
                _ => patience.rest(error).await?,
            }
        }
        if capped {
            // Whatever was read is no later than this.
            let at = self.source.now().await?.into();
            let again = false;
            let lead = Lead { uuid, at, again };
            self.writer(manifest)?.lead_alone(lead.to_bytes()?)?;
        }
        Ok(None)
    }

    /// The database and the name that a collection has now.
    async fn place_of(&self, uuid: Uuid) -> Result<Option<(String, String)>, Error> {
        let all = self.source.collections().await?;
        let mut all = all.into_iter();
        let found = all.find(|listed| listed.uuid == Some(uuid));
        Ok(found.map(|now| (now.database, now.name)))
    }

    /// Takes in rows until they end, or fail with the error that is given.
    async fn rows(
        &mut self,
        mut rows: Rows,
        lead: Lead,
        last: &mut Option<Vec<u8>>,
        scan: &mut Scan,
        manifest: &mut Manifest,
        report: Report<'_>,
    ) -> Result<Option<StoreError>, Error> {
        let lead_bytes = lead.to_bytes()?;
        // Also of an empty collection it is known when it was read.
        self.writer(manifest)?.lead_alone(lead_bytes)?;
        let lead_bytes = Lead {
            again: false,
            ..lead
        }
        .to_bytes()?;
        let mut next = rows.next().await;
        loop {
            let batch = match next {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(error)),
            };
            let mut writer = match self.writer.take() {
                Some(writer) => writer,
                None => self.new_writer(manifest)?,
            };
            let lead_bytes = lead_bytes.clone();
            let before = last.take();
            // The next documents come while these are compressed.
            let packing = tokio::task::spawn_blocking(move || {
                writer.lead(lead_bytes)?;
                let mut last = before;
                let mut documents = 0;
                for document in batch.documents()? {
                    let key = raw::find(document, "_id").map(|id| raw::single("_id", id));
                    if key.is_some() && key == last {
                        continue; // where it goes on, its first document is there already
                    }
                    writer.push(document)?;
                    documents += 1;
                    last = key;
                }
                Ok::<_, Error>((writer, last, documents))
            });
            let (packed, following) = tokio::join!(packing, rows.next());
            let packed =
                packed.map_err(|error| Error::damaged("the base", error.to_string()))??;
            self.documents += packed.2;
            (self.writer, *last) = (Some(packed.0), packed.1);
            next = following;
            let so_far = Scan {
                collections: scan.collections,
                last: last.as_deref().map(hex),
                again: false,
            };
            self.save_if_full(&so_far, manifest, report).await?;
        }
    }

    fn writer(&mut self, manifest: &Manifest) -> Result<&mut Writer, Error> {
        match self.writer {
            Some(ref mut writer) => Ok(writer),
            None => {
                let writer = self.new_writer(manifest)?;
                Ok(self.writer.insert(writer))
            }
        }
    }

    fn new_writer(&self, manifest: &Manifest) -> Result<Writer, Error> {
        let base = manifest.base.as_ref();
        let (number, files) = base.map_or((1, 0), |base| (base.number, base.files.count));
        Writer::create(self.folder.path(), name_of(number, 'f', files + 1))
    }

    /// Ends a file that is full, reads the events up to now, and saves both.
    async fn save_if_full(
        &mut self,
        scan: &Scan,
        manifest: &mut Manifest,
        report: Report<'_>,
    ) -> Result<(), Error> {
        if self
            .writer
            .as_ref()
            .is_none_or(|writer| writer.raw_bytes() < self.file_bytes)
        {
            return Ok(());
        }
        self.end_file(Some(scan.clone()), manifest)?;
        self.folder.save(manifest)?;
        report(&format!("{} documents so far", self.documents));
        let time = self.source.now().await?.into();
        self.follower
            .catch_up(Goal { time, wall: 0 }, self.folder, manifest, report)
            .await?;
        Ok(())
    }

    fn end_file(&mut self, scan: Option<Scan>, manifest: &mut Manifest) -> Result<(), Error> {
        let file = self.writer.take().map(Writer::finish).transpose()?;
        if let Some(base) = &mut manifest.base {
            if let Some(file) = file {
                let number = base.number;
                let name = |chapter| name_of(number, 'd', chapter);
                base.files.push(file, self.folder.path(), name)?;
            }
            base.scan = scan;
        }
        Ok(())
    }
}
