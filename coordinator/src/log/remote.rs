//! Stores with conditional writes: S3 and what speaks like it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tidemill_core::{Error, ErrorKind, Result};
use tidemill_engine::error::object_store_error;
use url::Url;

use super::objects::Objects;

/// Objects of a bucket, below a prefix.
#[derive(Debug)]
pub(super) struct RemoteObjects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl RemoteObjects {
    pub(super) fn new(store: Arc<dyn ObjectStore>, url: &Url) -> Self {
        Self { store, prefix: Path::from(url.path()) }
    }

    /// Why the store refuses to list: what it says of listings has no kind.
    async fn refusal(&self, folder: &str) -> Option<Error> {
        let asked = self.store.head(&self.path(folder)).await.err().map(|e| object_store_error(&e));
        asked.filter(|error| error.kind == ErrorKind::Denied)
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.parts().chain(Path::from(name).parts()).collect()
    }
}

#[async_trait]
impl Objects for RemoteObjects {
    async fn try_create(&self, name: &str, body: Bytes) -> Result<()> {
        let options = PutOptions::from(PutMode::Create);
        let put = self.store.put_opts(&self.path(name), body.into(), options).await;
        put.map(|_| ()).map_err(|e| object_store_error(&e))
    }

    async fn overwrite(&self, name: &str, body: Bytes) -> Result<()> {
        self.store.put(&self.path(name), body.into()).await.map(|_| ()).map_err(|e| object_store_error(&e))
    }

    async fn read(&self, name: &str) -> Result<Option<Bytes>> {
        match self.store.get(&self.path(name)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|e| object_store_error(&e)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(object_store_error(&error)),
        }
    }

    async fn delete(&self, name: &str) -> Result<()> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(object_store_error(&error)),
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let listed = match self.store.list_with_delimiter(Some(&self.path(folder))).await {
            Ok(listed) => listed,
            Err(error) => return Err(self.refusal(folder).await.unwrap_or_else(|| object_store_error(&error))),
        };
        let files = listed.objects.iter().filter_map(|o| o.location.filename());
        let folders = listed.common_prefixes.iter().filter_map(Path::filename);
        let mut names: Vec<String> = files.chain(folders).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }
}
