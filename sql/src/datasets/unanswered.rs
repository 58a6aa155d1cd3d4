//! A store that does not say what became of an entry: the log is read again, and the version is there once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tidemill_core::RunId;
use url::Url;

use super::commit::{MakeEntry, Published, publish};
use super::entry::Entry;
use super::folder::Folder;
use super::log::{Log, entry_name};
use super::target::{Mode, Target};

/// What happens to an object that is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It is there, and the answer is lost.
    Unanswered,
    /// It did not arrive.
    Lost,
    /// Another writer's came a moment before, and no answer does.
    Overtaken,
}

/// A store that treats what is created as a list says, and answers when the list ends.
#[derive(Debug, Default)]
struct Unreliable {
    store: InMemory,
    fates: Mutex<Vec<Fate>>,
}

impl fmt::Display for Unreliable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unreliable")
    }
}

#[async_trait]
impl ObjectStore for Unreliable {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let fate = self.fates.lock().ok().and_then(|mut fates| fates.pop()).unwrap_or(Fate::Answered);
        let payload = match fate {
            Fate::Overtaken => PutPayload::from_static(b"{\"commitInfo\":{\"operation\":\"THEIRS\"}}\n"),
            Fate::Answered | Fate::Unanswered | Fate::Lost => payload,
        };
        let answer = match fate {
            Fate::Lost => None,
            Fate::Answered | Fate::Unanswered | Fate::Overtaken => {
                Some(self.store.put_opts(location, payload, options).await)
            }
        };
        match (fate, answer) {
            (Fate::Answered, Some(answer)) => answer,
            _ => Err(object_store::Error::Generic { store: "S3", source: "no answer".into() }),
        }
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
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

fn target() -> Target {
    Target {
        location: "memory:///t/".to_owned(),
        writer: "R-1".to_owned(),
        base: Some(0),
        made: None,
        mode: Mode::Append,
        application: "tidemill/R".to_owned(),
        version: 1,
        info: BTreeMap::new(),
        operation: "WRITE".to_owned(),
        checkpoint_interval: 100,
        entry: None,
        checks: Default::default(),
    }
}

struct Ours;

#[async_trait]
impl MakeEntry for Ours {
    async fn entry(&self, _: &Log) -> tidemill_core::Result<Option<Entry>> {
        Ok(Some(Entry::new(&target(), &RunId("R".to_owned()), 0)))
    }
}

type Tested = Result<(), Box<dyn std::error::Error>>;

/// A table's version 0, in a store that will treat entries so, the first of them first.
async fn table(fates: &[Fate]) -> Result<(Arc<Unreliable>, Log), Box<dyn std::error::Error>> {
    let store = Arc::new(Unreliable::default());
    let folder = Folder {
        url: Url::parse("memory:///t/")?,
        store: Arc::clone(&store) as Arc<dyn ObjectStore>,
        root: ObjectStoreUrl::parse("memory://")?,
        prefix: Path::from("t"),
    };
    let first = folder.path(&entry_name(0))?;
    store.store.put(&first, PutPayload::from_static(b"{\"commitInfo\":{\"operation\":\"CREATE TABLE\"}}\n")).await?;
    if let Ok(mut waiting) = store.fates.lock() {
        waiting.extend(fates.iter().rev());
    }
    Ok((store, Log::new(folder)))
}

/// Which versions there are, with whether they are ours.
async fn versions(store: &Unreliable) -> Result<Vec<bool>, Box<dyn std::error::Error>> {
    let mut found: Vec<ObjectMeta> = store.store.list(None).try_collect().await?;
    found.sort_by(|a, b| a.location.cmp(&b.location));
    let mut ours = Vec::new();
    for object in found {
        let bytes = store.store.get(&object.location).await?.bytes().await?;
        ours.push(String::from_utf8_lossy(&bytes).contains("\"appId\":\"tidemill/R\""));
    }
    Ok(ours)
}

#[tokio::test]
async fn a_version_whose_creation_was_not_answered_is_looked_for_and_there_once() -> Tested {
    for (fates, expected) in [
        (vec![Fate::Unanswered], vec![false, true]),
        (vec![Fate::Lost], vec![false, true]),
        (vec![Fate::Overtaken], vec![false, false, true]),
        (vec![Fate::Lost, Fate::Unanswered], vec![false, true]),
        (vec![Fate::Overtaken, Fate::Unanswered], vec![false, false, true]),
    ] {
        let (store, log) = table(&fates).await?;
        let published = publish(&log, &target(), &Ours).await?;
        let newest = u64::try_from(expected.len())? - 1;
        assert!(matches!(published, Published::As(version) if version == newest), "{fates:?}: {published:?}");
        assert_eq!(versions(&store).await?, expected, "{fates:?}");
        // Whoever leads next and finds the same intent comes to the same, and creates nothing.
        let again = publish(&log, &target(), &Ours).await?;
        assert!(matches!(again, Published::As(version) if version == newest), "{fates:?}: {again:?}");
        assert_eq!(versions(&store).await?, expected, "{fates:?}");
    }
    Ok(())
}
