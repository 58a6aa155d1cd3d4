//! An object store that looks at every path before it does what it is asked.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::object_store::ObjectStoreRegistry;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use url::Url;

use super::FileAccess;

/// Stores that are given out behind guards.
#[derive(Debug)]
pub(super) struct GuardedStores {
    pub(super) stores: Arc<dyn ObjectStoreRegistry>,
    pub(super) files: FileAccess,
}

impl ObjectStoreRegistry for GuardedStores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.stores.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> DataFusionResult<Arc<dyn ObjectStore>> {
        self.stores.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> DataFusionResult<Arc<dyn ObjectStore>> {
        let store = self.stores.get_store(url)?;
        Ok(Arc::new(GuardedStore::new(store, url, self.files.clone())))
    }
}

/// A store of which only some folders can be touched.
#[derive(Debug, Clone)]
pub struct GuardedStore {
    store: Arc<dyn ObjectStore>,
    url: Url,
    files: FileAccess,
}

impl fmt::Display for GuardedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as far as allowed", self.store)
    }
}

impl GuardedStore {
    /// The store of a URL, of which only `url`'s scheme and host matter.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, url: &Url, files: FileAccess) -> Self {
        let mut root = url.clone();
        root.set_path("");
        Self { store, url: root, files }
    }

    fn check(&self, location: &Path) -> Result<()> {
        let refused = |error| object_store::Error::Generic { store: "allowed", source: Box::new(error) };
        self.files.check_object(&self.url, location).map_err(refused)
    }

    fn checked(&self, found: Result<ObjectMeta>) -> Result<ObjectMeta> {
        let found = found?;
        self.check(&found.location)?;
        Ok(found)
    }
}

#[async_trait]
impl ObjectStore for GuardedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.check(location)?;
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check(location)?;
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check(location)?;
        self.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check(location)?;
        self.store.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let guard = self.clone();
        let checked = locations.map(move |location| {
            let location = location?;
            guard.check(&location)?;
            Ok(location)
        });
        self.store.delete_stream(checked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(refused) = self.check(prefix.unwrap_or(&Path::default())) {
            return futures::stream::iter([Err(refused)]).boxed();
        }
        let guard = self.clone();
        // A link may lead away from the folder that is listed.
        self.store.list(prefix).map(move |found| guard.checked(found)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check(prefix.unwrap_or(&Path::default()))?;
        let listed = self.store.list_with_delimiter(prefix).await?;
        listed.common_prefixes.iter().try_for_each(|folder| self.check(folder))?;
        listed.objects.iter().try_for_each(|object| self.check(&object.location))?;
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        self.store.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        self.store.rename_opts(from, to, options).await
    }
}
