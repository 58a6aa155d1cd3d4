//! The store that packs are in, below `--state`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use tidemill_core::record::Pack;
use tidemill_core::schedule::Lost;
use tidemill_core::{Error, Result, RunId};
use url::Url;

use super::frame::Frame;
use super::merged::{check_footer, counted, lost};
use super::metered::Metered;
use super::pack::{TAIL_BYTES, decode_index, index_bytes};
use super::resume::Unfinished;
use super::{BlockRequest, BlockStream, IoMetrics, KeptRows, OutputFooter, PackUpload};
use crate::control::ControlLink;
use crate::error::{TaskError, object_store_error};
use crate::runtime::object_store;
use crate::wire;

/// Bytes at the end of a pack that are read first: mostly the whole index.
const TAIL: u64 = 64 << 10;
/// Bytes that are read at once.
const RANGE: u64 = 8 << 20;
/// Bytes of other blocks that are read rather than asked around.
const GAP: u64 = 256 << 10;
/// Ranges read ahead.
const AHEAD: usize = 2;
/// Indexes kept; beyond this all are read again.
const INDEXES_KEPT: usize = 1_000;

/// Packs of all runs.
pub struct Pond {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Where the store is a folder.
    folder: Option<PathBuf>,
    indexes: Mutex<BTreeMap<String, Arc<wire::PackIndex>>>,
}

impl fmt::Debug for Pond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pond({}, {})", self.store, self.prefix)
    }
}

/// An object of the pond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// The run that it belongs to.
    pub run: RunId,
    /// Whether it is a pack, and not a result.
    pub is_pack: bool,
}

/// Where a process finds the pond, once it knows where its state lives.
#[derive(Debug, Clone, Default)]
pub struct PondSlot(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    pond: OnceLock<Arc<Pond>>,
    link: OnceLock<Arc<dyn ControlLink>>,
}

impl PondSlot {
    /// The packs below `state`, from now on.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn open(&self, state: &str) -> Result<()> {
        if self.0.pond.get().is_none()
            && let Some(pond) = Pond::open(state)?
        {
            // Another may have been quicker, with the same.
            let _ = self.0.pond.set(Arc::new(pond));
        }
        Ok(())
    }

    /// The pond, if this process was told.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Pond>> {
        self.0.pond.get().cloned()
    }

    /// From now on `link` is asked for packs that a reader was not told of.
    pub fn ask(&self, link: Arc<dyn ControlLink>) {
        // A process has one coordinator.
        let _ = self.0.link.set(link);
    }

    pub(super) fn link(&self) -> Option<&Arc<dyn ControlLink>> {
        self.0.link.get()
    }
}

/// The name of a new pack: spread over prefixes, because stores limit requests by prefix.
#[must_use]
pub fn pack_name(run: &RunId, writer: &str) -> String {
    format!("pond/{:x}/{run}/{writer}.pack", crc32c::crc32c(run.0.as_bytes()) % 16)
}

impl Pond {
    /// The packs below `state`; `None` where nothing outlives a process.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn open(state: &str) -> Result<Option<Self>> {
        let wrong = |e: &dyn fmt::Display| Error::invalid(format!("the state's store {state} cannot be opened: {e}"));
        if state.is_empty() || state.starts_with("memory:") {
            return Ok(None);
        }
        let url = Url::parse(state).map_err(|e| wrong(&e))?;
        let (store, prefix, folder): (Arc<dyn ObjectStore>, Path, _) = match object_store(&url)? {
            Some(store) => (store, Path::from(url.path()), None),
            None => {
                let folder = url.to_file_path().map_err(|()| wrong(&"it is no path"))?;
                std::fs::create_dir_all(&folder).map_err(|e| wrong(&e))?;
                let store = LocalFileSystem::new_with_prefix(&folder).map_err(|e| wrong(&e))?;
                (Arc::new(store.with_automatic_cleanup(true)), Path::default(), Some(folder))
            }
        };
        Ok(Some(Self { store, prefix, folder, indexes: Mutex::default() }))
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.parts().chain(Path::from(name).parts()).collect()
    }

    /// Begins to write a pack.
    #[must_use]
    pub fn upload(&self, name: &str) -> PackUpload {
        match &self.folder {
            Some(folder) => PackUpload::to_folder(folder.join(name)),
            None => PackUpload::to_store(Arc::clone(&self.store), self.path(name)),
        }
    }

    /// Deletes a pack; one that is gone already is no error.
    ///
    /// # Errors
    /// The store refused.
    pub async fn delete(&self, name: &str) -> Result<()> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(object_store_error(&error)),
        }
    }

    /// Every pack and result that there is, also those that nobody completed.
    ///
    /// # Errors
    /// The store refused.
    pub async fn found(&self) -> Result<Vec<Found>> {
        let skipped = self.prefix.parts().count();
        let mut found = Vec::new();
        // pond/x/RUN/PACK, runs/RUN/result/PACK
        for (folder, run_at, is_pack) in [("pond", 2, true), ("runs", 1, false)] {
            let listed = self.store.list(Some(&self.path(folder))).try_collect::<Vec<_>>().await;
            for object in listed.map_err(|e| object_store_error(&e))? {
                let parts: Vec<String> = object.location.parts().skip(skipped).map(|p| p.as_ref().to_owned()).collect();
                if let Some(run) = parts.get(run_at) {
                    found.push(Found { name: parts.join("/"), run: RunId(run.clone()), is_pack });
                }
            }
        }
        Ok(found)
    }

    /// The store, as a run sees it whose requests are counted.
    fn metered(&self, metrics: &Arc<IoMetrics>) -> Metered {
        Metered::new(&self.store, metrics)
    }

    async fn index(&self, pack: &Pack, metrics: &Arc<IoMetrics>) -> Result<Arc<wire::PackIndex>> {
        let known = self.indexes.lock().unwrap_or_else(PoisonError::into_inner).get(&pack.name).cloned();
        if let Some(index) = known {
            return Ok(index);
        }
        let path = self.path(&pack.name);
        let tail = GetOptions { range: Some(GetRange::Suffix(TAIL.min(pack.bytes))), ..Default::default() };
        let store = self.metered(metrics);
        let tail = store.get_opts(&path, tail).await.map_err(|e| object_store_error(&e))?;
        let tail = tail.bytes().await.map_err(|e| object_store_error(&e))?;
        let length = index_bytes(&tail)?;
        let index = match tail.len().checked_sub(TAIL_BYTES + length) {
            Some(start) => tail.slice(start..start + length),
            None => {
                let end = pack.bytes.saturating_sub(TAIL_BYTES as u64);
                let range = end.saturating_sub(length as u64)..end;
                store.get_range(&path, range).await.map_err(|e| object_store_error(&e))?
            }
        };
        let index = Arc::new(decode_index(&index, pack.crc)?);
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        if indexes.len() >= INDEXES_KEPT {
            indexes.clear();
        }
        indexes.insert(pack.name.clone(), Arc::clone(&index));
        Ok(index)
    }

    /// Reads what is left of a block from its pack.
    pub(super) fn read(
        self: Arc<Self>,
        left: Unfinished,
        pack: Pack,
        schema: SchemaRef,
        metrics: Arc<IoMetrics>,
    ) -> BlockStream {
        let Unfinished { block, frames: passed, rows } = left;
        let opened = async move {
            let (frames, expected) =
                self.frames(&block, &pack, &metrics).await.map_err(|e| lost(&block, &e.message))?;
            let frames = frames.get(passed..).unwrap_or_default().to_vec();
            let path = self.path(&pack.name);
            let reader = block.clone();
            let ranges = futures::stream::iter(ranges(frames)).map(move |frames| {
                let (pond, path, block, schema) =
                    (Arc::clone(&self), path.clone(), reader.clone(), Arc::clone(&schema));
                let metrics = Arc::clone(&metrics);
                async move {
                    let batches = pond.range(&path, &frames, &schema, &metrics).await;
                    batches.map_err(|e| lost(&block, &e.message))
                }
            });
            let batches = ranges.buffered(AHEAD).map_ok(|batches| futures::stream::iter(batches.into_iter().map(Ok)));
            Ok::<_, TaskError>(counted(batches.try_flatten().boxed(), block, rows, expected))
        };
        let looked = |error: TaskError| TaskError { lost: Lost { looked_in_packs: true, ..error.lost }, ..error };
        futures::stream::once(opened).try_flatten().map_err(looked).boxed()
    }

    /// Reads a run's result, and counts its requests.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub async fn read_kept(self: Arc<Self>, pack: Pack, metrics: Arc<IoMetrics>) -> Result<KeptRows> {
        let index = self.index(&pack, &metrics).await?;
        let schema = super::kept::schema_of(&index)?;
        let frames: Vec<wire::PackFrame> = index.blocks.iter().flat_map(|b| &b.frames).cloned().collect();
        let (path, expected) = (self.path(&pack.name), Arc::clone(&schema));
        let batches = futures::stream::iter(ranges(frames)).then(move |frames| {
            let (pond, path) = (Arc::clone(&self), path.clone());
            let (schema, metrics) = (Arc::clone(&expected), Arc::clone(&metrics));
            async move { pond.range(&path, &frames, &schema, &metrics).await }
        });
        let batches = batches.map_ok(|batches| futures::stream::iter(batches.into_iter().map(Ok))).try_flatten();
        Ok((schema, batches.boxed()))
    }

    /// Where the block's frames are, and how many rows they have, after its output's footer was compared with the recorded
    /// one.
    async fn frames(
        &self,
        block: &BlockRequest,
        pack: &Pack,
        metrics: &Arc<IoMetrics>,
    ) -> Result<(Vec<wire::PackFrame>, u64)> {
        let index = self.index(pack, metrics).await?;
        let task: wire::TaskId = block.task.into();
        let attempt: wire::Attempt = block.attempt.into();
        let output = index.outputs.iter().position(|o| o.task == Some(task) && o.attempt == Some(attempt));
        let output = output.ok_or_else(|| Error::unavailable(format!("pack {} does not hold it", pack.name)))?;
        let footer = index.outputs.get(output).and_then(|o| o.footer.as_ref()).map(OutputFooter::from_wire);
        let footer = footer.unwrap_or_default();
        check_footer(block, &footer).map_err(|e| e.error)?;
        let rows = footer.blocks.get(block.partition as usize).map_or(0, |b| b.rows);
        let mut blocks = index.blocks.iter();
        let found = blocks.find(|b| b.output as usize == output && b.partition == block.partition);
        let found = found.ok_or_else(|| Error::unavailable(format!("pack {} lacks the block", pack.name)))?;
        Ok((found.frames.clone(), rows))
    }

    async fn range(
        &self,
        path: &Path,
        frames: &[wire::PackFrame],
        schema: &SchemaRef,
        metrics: &Arc<IoMetrics>,
    ) -> Result<Vec<RecordBatch>> {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return Ok(Vec::new()) };
        let range = first.offset..last.offset + last.length;
        let bytes = self.metered(metrics).get_range(path, range).await.map_err(|e| object_store_error(&e))?;
        let mut batches = Vec::with_capacity(frames.len());
        for frame in frames {
            let start =
                frame.offset.checked_sub(first.offset).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(frame.length).unwrap_or(usize::MAX));
            if end > bytes.len() {
                return Err(Error::unavailable("a pack is cut off"));
            }
            batches.push(Frame::from_bytes(bytes.slice(start..end), frame.crc)?.decode(schema)?);
        }
        Ok(batches)
    }
}

/// Frames that are near each other, as many as are read at once.
fn ranges(frames: Vec<wire::PackFrame>) -> Vec<Vec<wire::PackFrame>> {
    let mut ranges: Vec<Vec<wire::PackFrame>> = Vec::new();
    for frame in frames {
        let fits = |range: &&mut Vec<wire::PackFrame>| {
            let (Some(first), Some(last)) = (range.first(), range.last()) else { return false };
            // Later frames of a block are behind earlier ones.
            frame.offset <= last.offset + last.length + GAP && frame.offset + frame.length <= first.offset + RANGE
        };
        match ranges.last_mut().filter(fits) {
            Some(range) => range.push(frame),
            None => ranges.push(vec![frame]),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(frames: &[(u64, u64)]) -> Vec<usize> {
        let frame = |(offset, length): &(u64, u64)| wire::PackFrame { offset: *offset, length: *length, crc: 0 };
        ranges(frames.iter().map(frame).collect()).iter().map(Vec::len).collect()
    }

    #[test]
    fn what_is_far_away_or_large_is_read_on_its_own() {
        assert_eq!(sizes(&[]), Vec::<usize>::new());
        assert_eq!(sizes(&[(0, 10), (10, 10), (20, 10)]), [3]);
        assert_eq!(sizes(&[(0, 10), (10 + GAP, 10), (21 + 2 * GAP, 10)]), [2, 1], "a gap is bridged if it is small");
        assert_eq!(sizes(&[(5, RANGE), (5 + RANGE, 1), (6 + RANGE, 1)]), [1, 2]);
    }
}
