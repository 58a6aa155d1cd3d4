//! Input files as they were when their run was planned: one that changed since is an error that names it, never a mix of
//! before and after.
//!
//! Stores with conditional reads refuse by themselves. A local file is compared after each read: it may be overwritten in
//! place while it is read.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tidemill_core::Error;
use url::Url;

use crate::codec::TaskScans;

/// Files by their path in a store.
type Files = BTreeMap<Path, ObjectMeta>;

/// The input files of a task, by store.
#[derive(Debug, Clone, Default)]
pub struct PinnedFiles {
    stores: BTreeMap<String, Arc<Files>>,
    /// What was found changed first.
    changed: Arc<OnceLock<Error>>,
}

impl PinnedFiles {
    /// The files that a task scans.
    #[must_use]
    pub fn of(scans: &TaskScans) -> Self {
        let mut stores: BTreeMap<String, Files> = BTreeMap::new();
        for (store, file) in scans.files() {
            let files = stores.entry(store.to_owned()).or_default();
            files.insert(file.object_meta.location.clone(), file.object_meta.clone());
        }
        let stores = stores.into_iter().map(|(store, files)| (store, Arc::new(files))).collect();
        Self { stores, changed: Arc::default() }
    }

    /// The error about a file that was not as it had been, once one was read. Readers of some formats pass on its words and
    /// lose its kind.
    #[must_use]
    pub fn changed(&self) -> Option<Error> {
        self.changed.get().cloned()
    }

    /// A runtime in which these files are read as they were, or not at all.
    #[must_use]
    pub fn runtime(&self, shared: &RuntimeEnv) -> Arc<RuntimeEnv> {
        let mut runtime = shared.clone();
        let stores = Arc::clone(&shared.object_store_registry);
        runtime.object_store_registry = Arc::new(PinnedStores { stores, files: self.clone() });
        Arc::new(runtime)
    }
}

#[derive(Debug)]
struct PinnedStores {
    stores: Arc<dyn ObjectStoreRegistry>,
    files: PinnedFiles,
}

impl ObjectStoreRegistry for PinnedStores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.stores.register_store(url, store)
    }

    fn get_store(&self, url: &Url) -> DataFusionResult<Arc<dyn ObjectStore>> {
        let store = self.stores.get_store(url)?;
        let key = format!("{}://{}/", url.scheme(), url.host_str().unwrap_or_default());
        Ok(match self.files.stores.get(&key) {
            Some(files) => {
                let (files, changed) = (Arc::clone(files), Arc::clone(&self.files.changed));
                Arc::new(PinnedStore { store, files, changed, is_local: url.scheme() == "file" })
            }
            None => store,
        })
    }
}

/// Whether nothing is known of when a file was written: so it is of files that are named by a dataset's log. They are
/// written once, under names of their own.
fn is_untimed(planned: &ObjectMeta) -> bool {
    planned.last_modified.timestamp() == 0
}

#[derive(Debug, Clone)]
struct PinnedStore {
    store: Arc<dyn ObjectStore>,
    files: Arc<Files>,
    changed: Arc<OnceLock<Error>>,
    is_local: bool,
}

impl fmt::Display for PinnedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as planned", self.store)
    }
}

impl PinnedStore {
    /// Compares a file with what it was.
    fn check(&self, now: &ObjectMeta) -> Result<()> {
        let Some(planned) = self.files.get(&now.location) else { return Ok(()) };
        let same = match (&planned.e_tag, &now.e_tag) {
            (Some(planned), Some(now)) => planned == now,
            // What stores say of time has whole seconds in one answer and parts of them in another.
            _ if is_untimed(planned) => planned.size == now.size,
            _ => planned.size == now.size && planned.last_modified.timestamp() == now.last_modified.timestamp(),
        };
        if same { Ok(()) } else { Err(self.changed(&now.location, "changed")) }
    }

    fn changed(&self, location: &Path, what: &str) -> object_store::Error {
        let root = if self.is_local { "/" } else { "" };
        let message = match self.files.get(location).is_some_and(is_untimed) {
            true => format!(
                "the file {root}{location} of a dataset was {what}: the version that the run reads is complete no more, read a newer one"
            ),
            false => {
                format!("the input file {root}{location} was {what} after the run was planned: run the statement again")
            }
        };
        let error = Error::conflict(message);
        // The first one stays.
        let _ = self.changed.set(error.clone());
        object_store::Error::Generic { store: "input", source: Box::new(error) }
    }

    fn named(&self, location: &Path, error: object_store::Error) -> object_store::Error {
        match error {
            _ if !self.files.contains_key(location) => error,
            object_store::Error::NotFound { .. } => self.changed(location, "deleted"),
            object_store::Error::Precondition { .. } => self.changed(location, "changed"),
            other => other,
        }
    }

    /// A local file's bytes, which are right if it is the same after they were read.
    fn checked_at_end(&self, location: Path, bytes: BoxStream<'static, Result<Bytes>>) -> GetResultPayload {
        let store = self.clone();
        let check = futures::stream::once(async move {
            let now = store.store.head(&location).await.map_err(|e| store.named(&location, e))?;
            store.check(&now).map(|()| Bytes::new())
        });
        let checked = bytes.chain(check).filter(|b| std::future::ready(!matches!(b, Ok(bytes) if bytes.is_empty())));
        GetResultPayload::Stream(checked.boxed())
    }
}

#[async_trait]
impl ObjectStore for PinnedStore {
    async fn get_opts(&self, location: &Path, mut options: GetOptions) -> Result<GetResult> {
        let planned = self.files.get(location);
        if options.if_match.is_none() {
            options.if_match = planned.and_then(|file| file.e_tag.clone());
        }
        let only_head = options.head;
        let mut found = self.store.get_opts(location, options).await.map_err(|e| self.named(location, e))?;
        self.check(&found.meta)?;
        if self.is_local && planned.is_some() && !only_head {
            let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
            let payload = self.checked_at_end(location.clone(), found.into_stream());
            found = GetResult { payload, meta, range, attributes };
        }
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if self.is_local {
            // One open file for all ranges.
            let bytes = self.store.get_ranges(location, ranges).await.map_err(|e| self.named(location, e))?;
            if self.files.contains_key(location) {
                self.check(&self.store.head(location).await.map_err(|e| self.named(location, e))?)?;
            }
            return Ok(bytes);
        }
        let read = |range| self.get_range(location, range);
        object_store::coalesce_ranges(ranges, read, object_store::OBJECT_STORE_COALESCE_DEFAULT).await
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
