//! One version for one run: the lists of what the winning attempts wrote become an entry of the log.
//!
//! ```text
//! planned on version P ──► read entries P+1, P+2, … until there is none ──► create that one, if it is absent
//!                             │ ours: done                                     │ taken: read it
//!                             │ against what is replaced: Conflict             │ no answer: read it
//! ```
//!
//! Every leader that finds the intent in the log does this, from the same lists and from the same P. Nothing is decided by silence:
//! whether the entry is there is looked for, by the application's id.
//!
//! Invariant: an entry that names a run's files was created at most once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use tidemill_core::record::{CatalogueEntry, CatalogueKind, Record};
use tidemill_core::{Attempt, Error, ErrorKind, Result, RunId};
use tidemill_engine::crash;
use tidemill_engine::dataset::{Written, WrittenFile, manifest_name};
use tidemill_engine::error::object_store_error;
use tidemill_engine::planner::{Commit, Judgement, NewEntry, Pass};

use super::checkpoint::checkpoint;
use super::checks::{Bounds, judge};
use super::cleanup::Leftovers;
use super::conflicts::{Seen, look};
use super::entry::{Entry, now};
use super::folder::Folder;
use super::local;
use super::log::{Created, Log};
use super::pins::numbered;
use super::table::DatasetTable;
use super::target::{Made, Target};
use super::version::Version;

/// Between tries to create an entry that the store did not answer.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];
/// Lists that are read at once.
const AT_ONCE: usize = 16;

pub(super) struct DatasetCommit {
    pub(super) target: Target,
    pub(super) run: RunId,
    pub(super) folder: Folder,
    /// What its rows are looked at with.
    pub(super) bounds: Bounds,
    /// The version that it was planned on, where this process planned it. Reading it takes the whole log since a checkpoint.
    pub(super) planned: Option<Version>,
}

impl DatasetCommit {
    fn log(&self) -> Log {
        Log::new(self.folder.clone())
    }

    /// The version that it was planned on: as it was seen then, if it is still there.
    async fn base(&self, log: &Log, number: u64) -> Result<Version> {
        match &self.planned {
            Some(planned) if planned.is_there(log).await? => Ok(planned.clone()),
            _ => numbered(log, number).await,
        }
    }

    fn gone(&self) -> Error {
        Error::conflict(format!(
            "what run {} wrote into {} is gone: it was given up, or VACUUM took it; run the statement again",
            self.run,
            self.folder.location()
        ))
    }

    /// What the version consists of; `None` if the lists are gone.
    async fn made(&self, log: &Log, winners: &[Attempt]) -> Result<Option<Entry>> {
        let Some(added) = self.written(winners).await? else { return Ok(None) };
        let mut entry = Entry::new(&self.target, &self.run, now());
        if let Some(Made { protocol, metadata }) = &self.target.made {
            entry.make(protocol, metadata);
        }
        if let (Some(base), true) = (self.target.base, self.target.mode.replaces()) {
            let version = self.base(log, base).await?;
            for file in self.target.mode.replaced(&version)? {
                entry.remove(file);
            }
        }
        if let Some(folder) = self.folder.on_disk() {
            local::sync(folder, added.iter().map(|file| file.path.clone()).collect()).await?;
        }
        for file in &added {
            entry.add(file);
        }
        Ok(Some(entry))
    }

    /// What the winners wrote; `None` if a list is gone.
    async fn written(&self, winners: &[Attempt]) -> Result<Option<Vec<WrittenFile>>> {
        let read = |(task, attempt): (u32, Attempt)| async move {
            let name = manifest_name(&self.target.writer, task, attempt);
            let path = self.folder.path(&name)?;
            let found = async { self.folder.store.get(&path).await?.bytes().await };
            match found.await {
                Ok(bytes) => Written::decode(&bytes, &name).map(|written| Some(written.files)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(object_store_error(&error)),
            }
        };
        let lists = futures::stream::iter((0u32..).zip(winners.to_vec())).map(read).buffered(AT_ONCE);
        let lists: Vec<Option<Vec<WrittenFile>>> = lists.try_collect().await?;
        let lists: Option<Vec<Vec<WrittenFile>>> = lists.into_iter().collect();
        Ok(lists.map(|lists| lists.into_iter().flatten().collect()))
    }

    /// Reads the rows and judges them.
    async fn judged(&self, files: Vec<WrittenFile>, rows: u64) -> Result<Judgement> {
        let Some(base) = self.target.base else { return Err(Error::internal("a table is made with checks")) };
        let version = self.base(&self.log(), base).await?.of_written(files);
        let (name, folder) = (self.folder.location().to_owned(), self.folder.clone());
        let table = Arc::new(DatasetTable { name, folder, version });
        let checks = &self.target.checks;
        self.bounds.within(|context| async move { judge(checks, table, rows, &context).await }).await
    }

    fn leftovers(&self) -> Leftovers<'_> {
        Leftovers { folder: &self.folder, writer: &self.target.writer }
    }
}

#[async_trait]
impl Commit for DatasetCommit {
    async fn check(&self, winners: &[Attempt], rows: u64) -> Result<Judgement> {
        crash::before("dataset.check");
        let mut files = self.written(winners).await?.ok_or_else(|| self.gone())?;
        // Rows that were there before are none of the statement's.
        files.retain(|file| !file.kept);
        let listed: u64 = files.iter().map(|file| file.rows).sum();
        if listed != rows {
            return Err(Error::internal(format!(
                "tasks say that they wrote {rows} rows, and the lists of their files have {listed}, so nothing is published: please \
                 report this as a bug"
            )));
        }
        let checks = &self.target.checks;
        let judgement = match checks.read_rows() {
            true => self.judged(files, rows).await?,
            false => Judgement { checks: checks.guarded(), refused: None },
        };
        crash::after("dataset.check");
        Ok(judgement)
    }

    async fn commit(&self, winners: &[Attempt], _: bool) -> Result<Option<u64>> {
        let version = match publish(&self.log(), &self.target, &OfWinners { commit: self, winners }).await? {
            Published::As(version) => version,
            Published::Refused(error) => {
                // Every entry that a call of ours may still create exists already: the files are nobody's.
                if let Err(error) = self.leftovers().remove_all().await {
                    tracing::warn!(%error, run = %self.run, "files of a run that was refused could not be removed");
                }
                return Err(error);
            }
            Published::Gone => return Err(self.gone()),
        };
        tracing::info!(run = %self.run, version, table = self.folder.location(), "a version was committed");
        // It is published: what else lies there can wait.
        if let Err(error) = self.leftovers().clean(winners).await {
            tracing::warn!(%error, run = %self.run, "lists of written files could not be removed");
        }
        checkpoint(self.log(), version, self.target.checkpoint_interval);
        Ok(Some(version))
    }

    /// An entry whose creation was not answered may be there.
    fn rolls_forward(&self) -> bool {
        true
    }

    async fn abort(&self, pass: Pass) {
        self.leftovers().remove_of_failed(&self.run, pass).await;
    }

    fn entry(&self) -> Option<NewEntry> {
        let named = self.target.entry.as_ref()?;
        let entry = CatalogueEntry { kind: CatalogueKind::ExternalTable, definition: named.definition.clone() };
        Some(NewEntry {
            record: Record::CatalogueSet { name: named.name.clone(), entry },
            expected: named.expected.clone(),
        })
    }
}

/// What makes an entry, once it is known that it has to be made.
#[async_trait]
pub(super) trait MakeEntry: Sync {
    /// `None` if what it is made of is gone.
    async fn entry(&self, log: &Log) -> Result<Option<Entry>>;
}

struct OfWinners<'a> {
    commit: &'a DatasetCommit,
    winners: &'a [Attempt],
}

#[async_trait]
impl MakeEntry for OfWinners<'_> {
    async fn entry(&self, log: &Log) -> Result<Option<Entry>> {
        self.commit.made(log, self.winners).await
    }
}

/// What became of a commit.
#[derive(Debug)]
pub(super) enum Published {
    /// This version is it.
    As(u64),
    /// Another writer's version is in its way: it is not there, and never will be.
    Refused(Error),
    /// What it would be made of is gone, and it is not there.
    Gone,
}

impl Published {
    /// The version, where nothing was written that could be gone.
    pub(super) fn version(self) -> Result<u64> {
        match self {
            Self::As(version) => Ok(version),
            Self::Refused(error) => Err(error),
            Self::Gone => Err(Error::internal("the files of a commit without files are gone")),
        }
    }
}

/// Creates the target's entry, or finds that it was created.
pub(super) async fn publish(log: &Log, target: &Target, of: &dyn MakeEntry) -> Result<Published> {
    let first = target.base.map_or(0, |base| base + 1);
    let (mut next, mut entry, mut unanswered, mut is_gone) = (first, None, 0, false);
    loop {
        if let Some(other) = log.entry(next).await? {
            match look(&other, target)? {
                Seen::Ours => return Ok(Published::As(next)),
                Seen::Harmless => next += 1,
                Seen::Conflict(why) => {
                    return Ok(Published::Refused(Error::conflict(format!(
                        "version {next} of {}, which another writer made meanwhile, {why}: nothing was changed, run the \
                         statement again",
                        log.folder.location()
                    ))));
                }
            }
            continue;
        }
        let bytes: Bytes = match entry.take() {
            Some(bytes) => bytes,
            None => match of.entry(log).await? {
                Some(made) => {
                    check_newest(log, next).await?;
                    made.encode()?
                }
                None if is_gone => return Ok(Published::Gone),
                // Whoever committed it removed the lists then: its entry may have come behind our back.
                None => {
                    (next, is_gone) = (first, true);
                    continue;
                }
            },
        };
        entry = Some(Bytes::clone(&bytes));
        crash::before("dataset.commit");
        let created = log.create(next, bytes).await;
        crash::after("dataset.commit");
        match created {
            Ok(Created::Yes) => return Ok(Published::As(next)),
            Ok(Created::Taken) => {}
            Err(error) => {
                // It may be there all the same: the log is read again.
                let Some(pause) = PAUSES.get(unanswered).filter(|_| error.kind != ErrorKind::Invalid) else {
                    return Err(error);
                };
                tracing::warn!(%error, version = next, "whether a version was created is looked for");
                tokio::time::sleep(*pause).await;
                unanswered += 1;
            }
        }
    }
}

/// The first version that is not there is the next one, unless another engine cleaned the log up below it.
async fn check_newest(log: &Log, next: u64) -> Result<()> {
    if next == 0 || log.mark(next - 1).await?.is_some() {
        return Ok(());
    }
    match log.snapshot(None).await? {
        Some(newest) if newest.version() < next => Ok(()),
        _ => Err(Error::conflict(format!(
            "the log of {} was cleaned up while this statement ran: run it again",
            log.folder.location()
        ))),
    }
}
