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
        let url = spelled(&parsed).ok_or_else(|| Error::invalid(format!("{location} is no folder")))?;
        let parsed = ListingTableUrl::try_new(url.clone(), None).map_err(|e| from_datafusion(&e))?;
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

/// The one spelling of a folder, by which it is known what is the same table: on a disk without links, elsewhere without signs
/// that are encoded and need not be.
fn spelled(parsed: &ListingTableUrl) -> Option<Url> {
    let mut url = parsed.get_url().clone();
    if url.scheme() == "file" {
        return Url::from_directory_path(without_links(&url.to_file_path().ok()?)).ok();
    }
    let prefix = parsed.prefix().as_ref().replace('%', "%25");
    let path = if prefix.is_empty() { "/".to_owned() } else { format!("/{prefix}/") };
    url.set_path(&path);
    Some(url)
}

/// The path with links followed, as far as it exists.
fn without_links(path: &std::path::Path) -> PathBuf {
    let real = path.ancestors().find_map(|ancestor| {
        let rest = path.strip_prefix(ancestor).ok()?;
        Some(ancestor.canonicalize().ok()?.join(rest))
    });
    real.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_spelling() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let root = tempfile::tempdir()?;
        let real = root.path().canonicalize()?.join("real one");
        std::fs::create_dir(&real)?;
        std::os::unix::fs::symlink(&real, root.path().join("link"))?;
        let runtime = RuntimeEnv::default();
        let expected = format!("file://{}/new/", real.display().to_string().replace(' ', "%20"));
        for below in ["real one/new", "real one/new/", "link/new", "link/./new/"] {
            let folder = Folder::open(&root.path().join(below).display().to_string(), &runtime)?;
            assert_eq!(folder.location(), expected, "{below}");
            assert_eq!(Folder::open(folder.location(), &runtime)?.prefix, folder.prefix, "{below}");
        }
        for (location, expected) in [
            ("s3://lake/a/b/", "s3://lake/a/b/"),
            ("s3://lake/%61/b/", "s3://lake/a/b/"),
            ("s3://lake/a%20b/", "s3://lake/a%20b/"),
            ("s3://lake/a%2520b/", "s3://lake/a%2520b/"),
            ("s3://lake/", "s3://lake/"),
        ] {
            let parsed = ListingTableUrl::parse(location)?;
            let url = spelled(&parsed).ok_or("no folder")?;
            assert_eq!(url.as_str(), expected, "{location}");
            assert_eq!(ListingTableUrl::try_new(url, None)?.prefix(), parsed.prefix(), "{location}");
        }
        Ok(())
    }
}
