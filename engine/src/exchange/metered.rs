//! A store that counts what a run asks of it, whoever asks: no request is forgotten in a sum.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use super::IoMetrics;

/// Counts GETs and LISTs. What writes counts its requests itself, because they are told with what was written.
#[derive(Debug)]
pub(super) struct Metered {
    store: Arc<dyn ObjectStore>,
    metrics: Arc<IoMetrics>,
}

impl Metered {
    pub(super) fn new(store: &Arc<dyn ObjectStore>, metrics: &Arc<IoMetrics>) -> Self {
        Self { store: Arc::clone(store), metrics: Arc::clone(metrics) }
    }

    fn count(&self, counter: impl Fn(&IoMetrics) -> &AtomicU64) {
        IoMetrics::add(counter(&self.metrics), 1);
    }
}

impl fmt::Display for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Metered {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.count(|m| &m.get_requests);
        self.store.get_opts(location, options).await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count(|m| &m.list_requests);
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count(|m| &m.list_requests);
        self.store.list_with_delimiter(prefix).await
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

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
