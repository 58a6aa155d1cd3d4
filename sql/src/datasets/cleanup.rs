//! What a run wrote and no version names.

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tidemill_core::{Attempt, Result, RunId};
use tidemill_engine::crash;
use tidemill_engine::dataset::{Written, manifest_folder, manifest_name, names_writer};
use tidemill_engine::error::object_store_error;
use tidemill_engine::planner::Pass;

use super::folder::Folder;

/// Files of a writer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leftovers<'a> {
    pub(super) folder: &'a Folder,
    pub(super) writer: &'a str,
}

impl Leftovers<'_> {
    /// Removes all that a failed run wrote, as far as the store answers.
    pub(super) async fn remove_of_failed(&self, run: &RunId, pass: Pass) {
        // What lists name is found without looking through the table. That is done once, when nobody writes any more.
        let removed = match pass {
            Pass::Early => self.clean(&[]).await,
            Pass::Last => self.remove_all().await,
        };
        if let Err(error) = removed {
            tracing::warn!(%error, %run, "files of a failed run could not be removed");
        }
    }

    /// Removes the run's lists, and the files of those attempts that did not win.
    pub(super) async fn clean(&self, winners: &[Attempt]) -> Result<()> {
        let kept: Vec<String> =
            (0u32..).zip(winners).map(|(task, attempt)| manifest_name(self.writer, task, *attempt)).collect();
        let folder = self.folder.path(&manifest_folder(self.writer))?;
        let listed = self.folder.store.list_with_delimiter(Some(&folder)).await.map_err(|e| object_store_error(&e))?;
        crash::before("dataset.clean");
        for list in listed.objects {
            let name = list.location.filename().unwrap_or_default().to_owned();
            if !kept.iter().any(|kept| kept.rsplit('/').next() == Some(name.as_str())) {
                self.remove_files_of(&list.location).await?;
            }
            self.folder.delete(&list.location).await?;
        }
        crash::after("dataset.clean");
        self.folder.remove_empty(&manifest_folder(self.writer));
        Ok(())
    }

    async fn remove_files_of(&self, list: &Path) -> Result<()> {
        let found = async { self.folder.store.get(list).await?.bytes().await };
        let bytes = match found.await {
            Ok(bytes) => bytes,
            Err(object_store::Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(object_store_error(&error)),
        };
        for file in Written::decode(&bytes, list.as_ref())?.files {
            // What is named by a list is of this run, unless somebody else wrote the list.
            if file.path.rsplit('/').next().is_some_and(|name| names_writer(name, self.writer)) {
                self.folder.delete(&self.folder.path(&file.path)?).await?;
            }
        }
        Ok(())
    }

    /// Removes all that the run wrote: lists first, without which nothing of it can be committed any more.
    pub(super) async fn remove_all(&self) -> Result<()> {
        self.clean(&[]).await?;
        self.sweep().await
    }

    /// Removes files of the run that no list names. The whole table is looked through.
    async fn sweep(&self) -> Result<()> {
        let files: Vec<_> = self
            .folder
            .store
            .list(Some(&self.folder.prefix))
            .try_filter(|file| {
                let name = file.location.filename().unwrap_or_default();
                std::future::ready(names_writer(name, self.writer))
            })
            .try_collect()
            .await
            .map_err(|e| object_store_error(&e))?;
        for file in files {
            self.folder.delete(&file.location).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use datafusion::execution::object_store::ObjectStoreUrl;
    use futures::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
        PutOptions, PutPayload, PutResult,
    };
    use tidemill_core::Epoch;
    use tidemill_engine::dataset::WrittenFile;
    use url::Url;

    use super::*;

    /// Counts how often all of it is listed.
    #[derive(Debug, Default)]
    struct Counting {
        store: InMemory,
        listings: AtomicUsize,
    }

    impl fmt::Display for Counting {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "counting")
        }
    }

    #[async_trait]
    impl ObjectStore for Counting {
        async fn put_opts(
            &self,
            location: &Path,
            payload: PutPayload,
            options: PutOptions,
        ) -> object_store::Result<PutResult> {
            self.store.put_opts(location, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            options: PutMultipartOptions,
        ) -> object_store::Result<Box<dyn MultipartUpload>> {
            self.store.put_multipart_opts(location, options).await
        }

        async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
            self.store.get_opts(location, options).await
        }

        fn delete_stream(
            &self,
            locations: BoxStream<'static, object_store::Result<Path>>,
        ) -> BoxStream<'static, object_store::Result<Path>> {
            self.store.delete_stream(locations)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
            self.listings.fetch_add(1, Ordering::Relaxed);
            self.store.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
            self.store.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
            self.store.copy_opts(from, to, options).await
        }
    }

    #[tokio::test]
    async fn a_failed_runs_files_go_and_the_table_is_looked_through_once()
    -> std::result::Result<(), Box<dyn std::error::Error>> {
        let store = Arc::new(Counting::default());
        let folder = Folder {
            url: Url::parse("memory:///t/")?,
            store: Arc::clone(&store) as Arc<dyn ObjectStore>,
            root: ObjectStoreUrl::parse("memory://")?,
            prefix: Path::from("t"),
        };
        let file = WrittenFile {
            path: "k=1/part-00000-R-A-1-1-0.parquet".to_owned(),
            size: 1,
            rows: 1,
            modified: 0,
            partition: Default::default(),
            statistics: String::new(),
            kept: false,
        };
        let list = manifest_name("R-A", 0, Attempt { epoch: Epoch(1), counter: 1 });
        let others = ["k=1/part-00000-R-B-1-1-0.parquet", "part-00000-X-1-1-0.parquet"];
        // Of the second, no list was written.
        let ours = [file.path.as_str(), "k=2/part-00001-R-A-1-2-0.parquet"];
        for name in ours.iter().chain(&others) {
            store.put(&folder.path(name)?, PutPayload::from_static(b"x")).await?;
        }
        store.put(&folder.path(&list)?, Written { files: vec![file.clone()] }.encode()?.into()).await?;
        for pass in [Pass::Early, Pass::Early, Pass::Last] {
            Leftovers { folder: &folder, writer: "R-A" }.remove_of_failed(&RunId("R".to_owned()), pass).await;
        }
        assert_eq!(store.listings.load(Ordering::Relaxed), 1);
        let left: Vec<ObjectMeta> = store.store.list(None).try_collect().await?;
        let mut left: Vec<String> = left.into_iter().map(|object| object.location.to_string()).collect();
        left.sort();
        assert_eq!(left, others.map(|name| format!("t/{name}")));
        Ok(())
    }
}
