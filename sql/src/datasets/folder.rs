//! A dataset's folder in its store, behind the process's secrets and the guard of its files.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::datasource::listing::ListingTableUrl;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tidemill_core::{Error, Result};
use tidemill_engine::error::{from_datafusion, object_store_error};
use tidemill_engine::runtime::register_stores;
use url::Url;

/// Where a dataset lies.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    /// Ends with `/`.
    pub(super) url: Url,
    /// The whole store.
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) root: ObjectStoreUrl,
    /// The folder in the store.
    pub(super) prefix: Path,
}

impl Folder {
    /// Opens a folder, which need not exist yet.
    pub(crate) fn open(location: &str, runtime: &RuntimeEnv) -> Result<Self> {
        let folder = format!("{}/", location.trim_end_matches('/'));
        let parsed = ListingTableUrl::parse(&folder).map_err(|e| from_datafusion(&e))?;
        if parsed.get_glob().is_some() {
            return Err(Error::invalid(format!("{location} is a pattern: a dataset is one folder")));
        }
        let url = Url::parse(parsed.as_str()).map_err(|e| Error::invalid(format!("{location} is no location: {e}")))?;
        register_stores(runtime, [&url])?;
        let store = runtime.object_store(&parsed).map_err(|e| from_datafusion(&e))?;
        Ok(Self { url, store, root: parsed.object_store(), prefix: parsed.prefix().clone() })
    }

    /// As it is shown and kept.
    pub(crate) fn location(&self) -> &str {
        self.url.as_str()
    }

    /// The place of a file below the folder.
    pub(super) fn path(&self, below: &str) -> Result<Path> {
        let whole = format!("{}/{below}", self.prefix);
        Path::parse(whole.trim_start_matches('/'))
            .map_err(|e| Error::invalid(format!("{below} is no name of a file below {}: {e}", self.url)))
    }

    /// Deletes a file; one that is gone already is no error.
    pub(super) async fn delete(&self, path: &Path) -> Result<()> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(object_store_error(&error)),
        }
    }

    /// Where it is on a disk of this machine.
    pub(super) fn on_disk(&self) -> Option<PathBuf> {
        (self.url.scheme() == "file").then(|| self.url.to_file_path().ok())?
    }

    /// Removes a folder below it that nothing is in. Other stores than disks have no such folders.
    pub(super) fn remove_empty(&self, below: &str) {
        if let Some(folder) = self.on_disk() {
            // One that is not empty stays.
            let _ = std::fs::remove_dir(folder.join(below));
        }
    }
}
