//! A dataset's log: its versions, and the creation of the next one.
//!
//! `deltalake-core` reads what many commits made together: checkpoints of any kind, and the entries after them. Single entries are
//! JSON, which is read and written here.
//!
//! Invariant: an entry is created if it is absent, and never otherwise.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use delta_kernel::Error as KernelError;
use deltalake_core::kernel::{EagerSnapshot, Snapshot};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::{DeltaTable, DeltaTableError, checkpoints};
use futures::{StreamExt, TryStreamExt};
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutOptions};
use tidemill_core::{Error, Result};
use tidemill_engine::error::object_store_error;
use tokio::runtime::Handle;

use super::folder::Folder;
use super::local;

/// The folder of the log below the table's.
pub(super) const LOG: &str = "_delta_log";
/// How long the store may take for all that one statement reads of a log.
const READ_WITHIN: Duration = Duration::from_secs(120);
/// The same for one entry.
const ENTRY_WITHIN: Duration = Duration::from_secs(60);
/// Entries that are read at once.
const AT_ONCE: usize = 16;

/// The log of a dataset.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) folder: Folder,
    store: LogStoreRef,
}

/// What became of an entry that was to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Created {
    Yes,
    /// There is one already, perhaps ours.
    Taken,
}

impl Log {
    pub(super) fn new(folder: Folder) -> Self {
        let below = Arc::new(PrefixStore::new(Arc::clone(&folder.store), folder.prefix.clone()));
        let store = default_logstore(below, Arc::clone(&folder.store), &folder.url, &StorageConfig::default());
        Self { folder, store }
    }

    /// A version; the newest where none is named. `None` if there is no table.
    pub(super) async fn snapshot(&self, version: Option<u64>) -> Result<Option<Arc<Snapshot>>> {
        if !self.is_there().await? {
            return Ok(None);
        }
        match in_time(&self.folder, READ_WITHIN, Snapshot::try_new(self.store.as_ref(), version)).await? {
            Ok(snapshot) => Ok(Some(Arc::new(snapshot))),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(error) => Err(self.error(&error)),
        }
    }

    /// Whether there is anything of a log. The crate takes a folder that is not there for a mistake.
    async fn is_there(&self) -> Result<bool> {
        let folder = self.folder.path(LOG)?;
        let mut listed = self.folder.store.list(Some(&folder));
        match in_time(&self.folder, READ_WITHIN, listed.next()).await? {
            None => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) => Err(object_store_error(&error)),
        }
    }

    /// The active files of a version, as the log has them.
    pub(super) async fn files(&self, snapshot: &Snapshot) -> Result<Vec<arrow::record_batch::RecordBatch>> {
        let files = snapshot.files(self.store.as_ref(), None).try_collect();
        in_time(&self.folder, READ_WITHIN, files).await?.map_err(|e| self.error(&e))
    }

    /// The highest version of an application that a version of the table has.
    pub(super) async fn application(&self, version: u64, application: &str) -> Result<Option<i64>> {
        let found = async {
            let snapshot = EagerSnapshot::try_new(self.store.as_ref(), Some(version)).await?;
            snapshot.transaction_version(self.store.as_ref(), application).await
        };
        in_time(&self.folder, READ_WITHIN, found).await?.map_err(|e| self.error(&e))
    }

    /// An entry; `None` if there is none of that number.
    pub(super) async fn entry(&self, version: u64) -> Result<Option<Bytes>> {
        self.object(&entry_name(version)).await
    }

    /// The version of the newest checkpoint, as the last who wrote one says; `None` where nobody does.
    pub(super) async fn last_checkpoint(&self) -> Result<Option<u64>> {
        let said = self.object(&format!("{LOG}/_last_checkpoint")).await?;
        let said = said.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        Ok(said.and_then(|said| said.get("version")?.as_u64()))
    }

    /// A small file below the table's folder.
    async fn object(&self, name: &str) -> Result<Option<Bytes>> {
        let path = self.folder.path(name)?;
        let read = async {
            match self.folder.store.get(&path).await {
                Ok(found) => found.bytes().await.map(Some),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        in_time(&self.folder, ENTRY_WITHIN, read).await?.map_err(|e| read_error(&e))
    }

    /// The same of several versions, in their order.
    pub(super) async fn entries(&self, versions: Vec<u64>) -> Result<Vec<(u64, Option<Bytes>)>> {
        let read = |version| async move { self.entry(version).await.map(|entry| (version, entry)) };
        futures::stream::iter(versions).map(read).buffered(AT_ONCE).try_collect().await
    }

    /// Which entries there are, oldest first.
    pub(super) async fn listed(&self) -> Result<Vec<(u64, ObjectMeta)>> {
        let folder = self.folder.path(LOG)?;
        let list = self.folder.store.list_with_delimiter(Some(&folder));
        let found = in_time(&self.folder, READ_WITHIN, list).await?.map_err(|e| object_store_error(&e))?;
        let number = |object: ObjectMeta| {
            let name = object.location.filename()?.strip_suffix(".json")?;
            (name.len() == 20).then(|| name.parse().ok())?.map(|version| (version, object))
        };
        let mut entries: Vec<(u64, ObjectMeta)> = found.objects.into_iter().filter_map(number).collect();
        entries.sort_by_key(|(version, _)| *version);
        Ok(entries)
    }

    /// What tells an entry from another one of its number.
    pub(super) async fn mark(&self, version: u64) -> Result<Option<String>> {
        let path = self.folder.path(&entry_name(version))?;
        match in_time(&self.folder, ENTRY_WITHIN, self.folder.store.head(&path)).await? {
            Ok(meta) => Ok(Some(meta.e_tag.unwrap_or_else(|| format!("{}-{}", meta.size, meta.last_modified)))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(read_error(&error)),
        }
    }

    /// Creates an entry. No answer, or an error, does not say that it was not created.
    pub(super) async fn create(&self, version: u64, entry: Bytes) -> Result<Created> {
        let path = self.folder.path(&entry_name(version))?;
        if let Some(folder) = self.folder.on_disk() {
            if version == 0 {
                in_time(&self.folder, ENTRY_WITHIN, local::make_folder(folder.join(LOG))).await??;
            }
            // Behind the guard of files: whether it may be touched was asked when it was looked for.
            let created = local::create(folder.join(entry_name(version)), entry);
            return in_time(&self.folder, ENTRY_WITHIN, created).await?;
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.folder.store.put_opts(&path, entry.into(), options);
        match in_time(&self.folder, ENTRY_WITHIN, put).await? {
            Ok(_) => Ok(Created::Yes),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Created::Taken)
            }
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                Err(Error::invalid(format!(
                    "the store of {} cannot create an object only if it is absent, without which two writers could lose rows: \
                     use one that has conditional writes",
                    self.folder.location()
                )))
            }
            Err(error) => Err(object_store_error(&error)),
        }
    }

    /// Writes what all entries up to a version come to, so that readers need not read them.
    pub(super) async fn checkpoint(&self, version: u64) -> Result<()> {
        let mut table = DeltaTable::new(Arc::clone(&self.store));
        let handle = Handle::current();
        // The crate computes, and waits for the store, on the thread that asks it.
        let written = tokio::task::spawn_blocking(move || {
            handle.block_on(async move {
                table.load_version(version).await?;
                checkpoints::create_checkpoint(&table, None).await
            })
        });
        let written = in_time(&self.folder, READ_WITHIN, written).await?;
        let written =
            written.map_err(|e| Error::internal(format!("a checkpoint of {}: {e}", self.folder.location())))?;
        written.map_err(|e| self.error(&e))
    }

    /// Our error for the crate's.
    fn error(&self, error: &DeltaTableError) -> Error {
        cause(error).unwrap_or_else(|| {
            let what = error.to_string();
            Error::invalid(unread(self.folder.location(), &what))
        })
    }
}

/// Why a table cannot be read, from the crate's words.
fn unread(location: &str, what: &str) -> String {
    if what.contains("Max catalog version") {
        return format!(
            "the Delta table {location} needs `catalogManaged`, which is not read here: its catalogue knows its versions, read it through \
             that with another engine"
        );
    }
    let what = what.lines().next().unwrap_or_default().trim_start_matches("Kernel error: ");
    // What it shows of its own structures tells nobody anything.
    let what = what.split(": ParsedLogPath").next().unwrap_or_default();
    format!("the Delta table {location} cannot be read: {what}")
}

/// What stands behind an error of the crate, if it is ours or the store's: then it may pass.
fn cause(error: &DeltaTableError) -> Option<Error> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(ours) = inner.downcast_ref::<Error>() {
            return Some(ours.clone());
        }
        if let Some(store) = inner.downcast_ref::<object_store::Error>() {
            return Some(read_error(store));
        }
        // It shows the store's error, and does not name it as its source.
        if let Some(KernelError::ObjectStore(store)) = inner.downcast_ref::<KernelError>() {
            return Some(read_error(store));
        }
        source = inner.source();
    }
    None
}

/// Our error for one of reading an object.
fn read_error(denied: &object_store::Error) -> Error {
    let error = object_store_error(denied);
    if !matches!(denied, object_store::Error::PermissionDenied { .. }) {
        return error;
    }
    let hint = "where a bucket may not be listed, S3 answers so for what is not there, too: s3:ListBucket is needed";
    Error { message: format!("{} ({hint})", error.message), ..error }
}

/// The name of an entry below the table's folder.
pub(super) fn entry_name(version: u64) -> String {
    format!("{LOG}/{version:020}.json")
}

/// The same answer, or that the store took too long.
async fn in_time<T>(folder: &Folder, limit: Duration, work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(limit, work).await.map_err(|_| {
        let seconds = limit.as_secs();
        Error::unavailable(format!("the log of {} was not answered within {seconds} s: try again", folder.location()))
    })
}

#[cfg(test)]
mod tests {
    use tidemill_core::ErrorKind;

    use super::*;

    #[test]
    fn who_may_not_read_learns_which_permission_may_be_missing() {
        let path = "lake/t/_delta_log/00000000000000000001.json".to_owned();
        let denied = object_store::Error::PermissionDenied { path: path.clone(), source: "403".into() };
        let error = read_error(&denied);
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(error.message.contains(&path) && error.message.contains("s3:ListBucket"), "{error}");
        let missing = object_store::Error::NotFound { path, source: "404".into() };
        assert!(!read_error(&missing).message.contains("ListBucket"));
    }

    #[test]
    fn a_store_that_does_not_answer_is_no_damaged_table() {
        let away = object_store::Error::Generic { store: "S3", source: "503 Service Unavailable".into() };
        let found = cause(&DeltaTableError::from(KernelError::from(away))).map(|error| error.kind);
        assert_eq!(found, Some(ErrorKind::Unavailable));
        let damaged = DeltaTableError::from(KernelError::Generic("an entry is damaged".to_owned()));
        assert_eq!(cause(&damaged), None);
    }

    #[test]
    fn why_a_table_cannot_be_read_is_said_without_the_crates_own_words() {
        let managed = "Kernel error: Max catalog version error: Max catalog version is required when loading a catalog-managed table.";
        assert!(unread("s3://t/", managed).contains("s3://t/ needs `catalogManaged`"));
        let gap = "Kernel error: Generic delta kernel error: Expected contiguous commit files, but found gap: ParsedLogPath { a }\nx";
        let expected = "the Delta table s3://t/ cannot be read: Generic delta kernel error: Expected contiguous commit files, but found gap";
        assert_eq!(unread("s3://t/", gap), expected);
    }
}
