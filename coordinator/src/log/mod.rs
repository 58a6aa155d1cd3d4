//! The log below `--state`: claimed, sealed, replayed, appended to. `docs/protocol.md`.
//!
//! Invariant: of all processes that ever claimed an epoch, only the newest can append. What it replays is everything that
//! any of them appended.

mod appender;
mod batch;
mod collect;
mod lease;
mod local;
mod objects;
mod remote;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemill_core::record::{Record, State};
use tidemill_core::{BlobHash, Epoch, Error, Result};
use tidemill_engine::blob::Blob;
use tidemill_engine::crash;
use tokio::sync::mpsc;

pub(crate) use appender::{Appender, Entry, News};
use batch::{Batch, Content};
use collect::{Position, collect};
pub(crate) use lease::Lease;
pub use lease::wait_for_turn;
pub use objects::{Created, Objects, create, list, open, read};

/// Who leads an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Unique to this process.
    pub boot: String,
    /// Where it listens: `host:port`.
    pub address: String,
    /// Whose network `address` belongs to: a refused connection means something only there.
    pub network: String,
}

impl Leader {
    /// This process, which listens at `address`.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self { boot: ulid::Ulid::new().to_string(), address: address.into(), network: lease::network() }
    }
}

/// What was replayed.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The state as the last leader's log left it.
    pub state: State,
    /// The blobs that came with it.
    pub blobs: BTreeMap<BlobHash, Blob>,
}

impl Recovered {
    /// Applies a batch of records.
    fn take(&mut self, batch: Batch) {
        self.blobs.extend(batch.blobs.into_iter().map(|b| (b.hash.clone(), b)));
        if let Content::Records(records) = batch.header.content {
            for record in &records {
                self.state.apply(record);
            }
        }
    }

    /// Without the blobs that nothing names any more.
    fn needed(mut self) -> Self {
        let of_runs = self.state.live.iter().flat_map(|run| self.state.blobs_of(run));
        let kept = self.state.tables().chain(self.state.results()).chain(self.state.temporary_rows()).cloned();
        let named: BTreeSet<BlobHash> = of_runs.chain(kept).collect();
        self.blobs.retain(|hash, _| named.contains(hash));
        self
    }
}

/// The log of the epoch that this process leads.
#[derive(Debug)]
pub struct Log {
    objects: Arc<dyn Objects>,
    leader: Leader,
    epoch: Epoch,
    next: u64,
    /// What a replay up to here would give.
    mirror: Recovered,
    /// Where the last snapshot stands that is known to be whole.
    snapshot: Option<Position>,
}

/// The epoch of the first leader of a cluster.
const FIRST: Epoch = Epoch(1);
/// Batches between two snapshots: what a new leader reads at the most.
const SNAPSHOT_EVERY: u64 = 1_024;
/// Batches after which blobs are forgotten that nothing names any more.
const FORGET_EVERY: u64 = 32;

/// Where a process can be made to die around these.
fn points_of(records: &[Record]) -> BTreeSet<&'static str> {
    records.iter().map(Record::point).chain(["log.append"]).collect()
}

fn fenced(epoch: Epoch, leader: &Leader, what: &str) -> Error {
    Error::conflict(format!(
        "another coordinator leads the cluster now and has sealed {what} of epoch {}: this one, {}, stops",
        epoch.0, leader.address
    ))
}

fn lacking(name: &str, why: &str) -> Error {
    Error::internal(format!(
        "{name} in --state cannot be replayed: {why}; restore it from a copy, or start with an empty --state"
    ))
}

fn epoch_name(epoch: Epoch) -> String {
    format!("ctl/epoch/{:016x}", epoch.0)
}

fn batch_name(epoch: Epoch, seq: u64) -> String {
    format!("ctl/log/{:016x}/{seq:016x}", epoch.0)
}

fn snapshot_name(epoch: Epoch, seq: u64) -> String {
    format!("ctl/snap/{:016x}/{seq:016x}", epoch.0)
}

fn numbers(names: &[String]) -> impl DoubleEndedIterator<Item = u64> + '_ {
    names.iter().filter_map(|name| u64::from_str_radix(name, 16).ok())
}

/// The newest epoch and who leads it.
///
/// # Errors
/// The store does not answer.
pub async fn newest_leader(objects: &dyn Objects) -> Result<Option<(Epoch, Leader)>> {
    let names = list(objects, "ctl/epoch").await?;
    let Some(epoch) = numbers(&names).next_back().map(Epoch) else { return Ok(None) };
    let name = epoch_name(epoch);
    let body = read(objects, &name).await?.ok_or_else(|| Error::unavailable(format!("{name} vanished")))?;
    let leader = serde_json::from_slice(&body).map_err(|e| Error::internal(format!("{name} is damaged: {e}")))?;
    Ok(Some((epoch, leader)))
}

impl Log {
    /// Claims the epoch after `newest`, seals all before it and replays them. `None` if another process claimed it
    /// first.
    ///
    /// # Errors
    /// The store does not answer, or what it holds cannot be read.
    pub async fn take_over(
        objects: Arc<dyn Objects>,
        leader: Leader,
        newest: Option<Epoch>,
    ) -> Result<Option<(Self, Recovered)>> {
        let epoch = newest.map_or(FIRST, |e| Epoch(e.0 + 1));
        let claim = serde_json::to_vec(&leader).map_err(|e| Error::internal(format!("a claim: {e}")))?;
        crash::before("epoch.claim");
        if create(objects.as_ref(), &epoch_name(epoch), &Bytes::from(claim)).await? != Created::Ours {
            return Ok(None);
        }
        crash::after("epoch.claim");
        let mut log = Self { objects, leader, epoch, next: 0, mirror: Recovered::default(), snapshot: None };
        // A long replay must not look like a leader that died.
        let _renewed = Lease::renew(Arc::clone(&log.objects), epoch, &log.leader, None);
        for folder in ["ctl/epoch".to_owned(), "ctl/lease".to_owned(), format!("ctl/log/{:016x}", epoch.0 - 1)] {
            log.objects.tidy(&folder).await?;
        }
        (log.mirror, log.snapshot) = log.replay().await?;
        log.snapshot().await?;
        let recovered = log.mirror.clone();
        Ok(Some((log, recovered)))
    }

    /// Writes the state before the next batch, with the blobs that it names.
    async fn snapshot(&mut self) -> Result<()> {
        self.mirror = std::mem::take(&mut self.mirror).needed();
        let blobs = self.mirror.blobs.values().cloned().collect();
        let content = Content::Snapshot(Box::new(self.mirror.state.clone()));
        let snapshot = Batch::new(&self.leader.boot, self.epoch, self.next, content, blobs).encode()?;
        crash::before("snapshot.write");
        match create(self.objects.as_ref(), &snapshot_name(self.epoch, self.next), &snapshot).await? {
            Created::Ours => crash::after("snapshot.write"),
            Created::Theirs(_) => return Err(self.fenced("its snapshot")),
        }
        // The one before it stays, should this one be damaged, and the log from there.
        if let Some(before) = self.snapshot.replace((self.epoch, self.next)) {
            tokio::spawn(collect(Arc::clone(&self.objects), self.epoch, before));
        }
        Ok(())
    }

    /// Says that this process lives, until the lease is dropped.
    pub(crate) fn lease(&self, news: mpsc::Sender<News>) -> Lease {
        Lease::renew(Arc::clone(&self.objects), self.epoch, &self.leader, Some(news))
    }

    /// The epoch that this log belongs to.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// `Conflict` if a later epoch began; this process must not do anything more. Otherwise the store refused.
    pub async fn append(&mut self, records: Vec<Record>, blobs: Vec<Blob>) -> Result<()> {
        let points = points_of(&records);
        let batch = Batch::new(&self.leader.boot, self.epoch, self.next, Content::Records(records), blobs);
        let name = batch_name(self.epoch, self.next);
        points.iter().for_each(|point| crash::before(point));
        match create(self.objects.as_ref(), &name, &batch.encode()?).await? {
            Created::Ours => self.next += 1,
            Created::Theirs(_) => return Err(self.fenced("its log")),
        }
        points.iter().for_each(|point| crash::after(point));
        self.mirror.take(batch);
        if self.next.is_multiple_of(FORGET_EVERY) {
            self.mirror = std::mem::take(&mut self.mirror).needed();
        }
        match self.next.is_multiple_of(SNAPSHOT_EVERY) {
            true => self.snapshot().await,
            false => Ok(()),
        }
    }

    fn fenced(&self, what: &str) -> Error {
        fenced(self.epoch, &self.leader, what)
    }

    /// The newest snapshot that can be read, and every batch after it up to each epoch's seal.
    async fn replay(&self) -> Result<(Recovered, Option<Position>)> {
        let mut recovered = Recovered::default();
        let mut found = None;
        let epochs = list(self.objects.as_ref(), "ctl/snap").await?;
        let mut damaged = None;
        'search: for epoch in numbers(&epochs).rev().map(Epoch) {
            let folder = format!("ctl/snap/{:016x}", epoch.0);
            let seqs = list(self.objects.as_ref(), &folder).await?;
            for seq in numbers(&seqs).rev() {
                let name = snapshot_name(epoch, seq);
                let Some(body) = read(self.objects.as_ref(), &name).await? else { continue };
                match Batch::decode(&name, &body) {
                    Ok(Batch { header, blobs }) => {
                        let Content::Snapshot(state) = header.content else { continue };
                        recovered.state = *state;
                        recovered.blobs.extend(blobs.into_iter().map(|b| (b.hash.clone(), b)));
                        found = Some((epoch, seq));
                        break 'search;
                    }
                    // An older one and the log behind it say the same.
                    Err(error) => {
                        tracing::error!(%error, "a snapshot cannot be read: the one before it is taken");
                        damaged = Some(name);
                    }
                }
            }
        }
        // What the snapshots stood for may be gone from the log.
        if let (None, Some(name)) = (found, damaged)
            && read(self.objects.as_ref(), &batch_name(FIRST, 0)).await?.is_none()
        {
            return Err(lacking(&name, "no snapshot can be read, this one neither, and the log begins behind it"));
        }
        let from = found.unwrap_or((FIRST, 0));
        let epochs = list(self.objects.as_ref(), "ctl/epoch").await?;
        for epoch in numbers(&epochs).map(Epoch).filter(|e| *e >= from.0 && *e < self.epoch) {
            let seq = if epoch == from.0 { from.1 } else { 0 };
            self.replay_epoch(epoch, seq, &mut recovered).await?;
        }
        Ok((recovered, found))
    }

    /// Whether a batch is missing that was there: one behind it is.
    async fn is_gap(&self, epoch: Epoch, seq: u64) -> Result<bool> {
        let names = list(self.objects.as_ref(), &format!("ctl/log/{:016x}", epoch.0)).await?;
        let goes_on = numbers(&names).any(|later| later > seq);
        // An old leader may have written both between the two looks.
        Ok(goes_on && read(self.objects.as_ref(), &batch_name(epoch, seq)).await?.is_none())
    }

    async fn seal(&self, name: &str, seal: &Bytes) -> Result<Created> {
        crash::before("epoch.seal");
        let created = create(self.objects.as_ref(), name, seal).await?;
        crash::after("epoch.seal");
        Ok(created)
    }

    async fn replay_epoch(&self, epoch: Epoch, mut seq: u64, recovered: &mut Recovered) -> Result<()> {
        let seal =
            |seq| Batch::new(&self.leader.boot, epoch, seq, Content::Seal { by: self.epoch }, Vec::new()).encode();
        loop {
            let name = batch_name(epoch, seq);
            let body = match read(self.objects.as_ref(), &name).await? {
                Some(body) => body,
                None if self.is_gap(epoch, seq).await? => {
                    return Err(lacking(&name, "later parts of the log are there, it is not"));
                }
                // The end, unless the old leader is still quicker.
                None => match self.seal(&name, &seal(seq)?).await? {
                    Created::Ours => return Ok(()),
                    Created::Theirs(body) => body,
                },
            };
            let batch = Batch::decode(&name, &body)?;
            match batch.header.content {
                Content::Records(_) => {
                    recovered.take(batch);
                    if seq.is_multiple_of(FORGET_EVERY) {
                        *recovered = std::mem::take(recovered).needed();
                    }
                }
                Content::Seal { .. } => return Ok(()),
                Content::Snapshot(_) => return Err(Error::internal(format!("{name} in --state is a snapshot"))),
            }
            seq += 1;
        }
    }
}
