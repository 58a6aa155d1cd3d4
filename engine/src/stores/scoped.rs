//! A bucket whose parts are opened with different secrets.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tidemill_core::Error;

type Store = Arc<dyn ObjectStore>;
/// A store, or what is wrong with what opens it: that is said when it is needed.
type Opened = std::result::Result<Store, Error>;

/// The parts of a bucket, each with a store that may read it.
#[derive(Debug)]
pub(super) struct ScopedStore {
    /// For what lies in no part.
    whole: Opened,
    /// Longest paths first.
    parts: Vec<(Path, Opened)>,
}

impl ScopedStore {
    pub(super) fn new(whole: Opened, parts: Vec<(String, Opened)>) -> Self {
        let mut parts: Vec<(Path, Opened)> = parts.into_iter().map(|(path, store)| (Path::from(path), store)).collect();
        parts.sort_by_key(|(path, _)| std::cmp::Reverse(path.as_ref().len()));
        Self { whole, parts }
    }

    /// The store of a location.
    fn of(&self, location: &Path) -> Result<&Store> {
        let part = self.parts.iter().find(|(path, _)| location.prefix_matches(path));
        part.map_or(&self.whole, |(_, store)| store).as_ref().map_err(refused)
    }

    /// The store of a listing: of all below `prefix`, as far as its own secret may see.
    fn below(&self, prefix: Option<&Path>) -> Result<&Store> {
        self.of(prefix.unwrap_or(&Path::default()))
    }
}

/// Our error in the store's clothes: it is found again by its type.
fn refused(error: &Error) -> object_store::Error {
    object_store::Error::Generic { store: "scoped", source: Box::new(error.clone()) }
}

impl fmt::Display for ScopedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.whole {
            Ok(store) => write!(f, "{store} in {} parts", self.parts.len() + 1),
            Err(_) => write!(f, "{} parts of a bucket", self.parts.len()),
        }
    }
}

/// Objects that are deleted beside each other.
const DELETED_AT_ONCE: usize = 10;

#[async_trait]
impl ObjectStore for ScopedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.of(location)?.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.of(location)?.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.of(location)?.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.of(location)?.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let of = Self { whole: self.whole.clone(), parts: self.parts.clone() };
        let deleted = locations.map(move |location| {
            let found = location.and_then(|location| Ok((Arc::clone(of.of(&location)?), location)));
            async move {
                let (store, location) = found?;
                let mut deleted = store.delete_stream(futures::stream::iter([Ok(location.clone())]).boxed());
                deleted.next().await.unwrap_or(Ok(location))
            }
        });
        // Each is of its own store: beside each other instead of in one request.
        deleted.buffered(DELETED_AT_ONCE).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.below(prefix) {
            Ok(store) => store.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.below(prefix)?.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (source, target) = (self.of(from)?, self.of(to)?);
        if Arc::ptr_eq(source, target) {
            return source.copy_opts(from, to, options).await;
        }
        Err(refused(&Error::invalid(format!(
            "{from} and {to} are opened with different secrets: write both below one scope"
        ))))
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn each_location_has_the_store_of_its_longest_scope() -> Result<()> {
        let stores: [Store; 3] = std::array::from_fn(|_| Arc::new(InMemory::new()) as Store);
        let [whole, outer, inner] = &stores;
        let parts = vec![("a".to_owned(), Ok(Arc::clone(outer))), ("a/b".to_owned(), Ok(Arc::clone(inner)))];
        let scoped = ScopedStore::new(Ok(Arc::clone(whole)), parts);
        for location in ["x", "ab/x", "a/x", "a/b/x"] {
            scoped.put(&location.into(), location.as_bytes().to_vec().into()).await?;
        }
        let found = |store: &Store| store.list(None).map_ok(|o| o.location.to_string()).try_collect::<Vec<_>>();
        assert_eq!(found(whole).await?, ["ab/x", "x"]);
        assert_eq!(found(outer).await?, ["a/x"]);
        assert_eq!(found(inner).await?, ["a/b/x"]);
        assert_eq!(scoped.list(Some(&"a/b".into())).try_collect::<Vec<_>>().await?.len(), 1);
        let closed = |why: &str| Err(Error::denied(why));
        let parts = vec![("a".to_owned(), Ok(Arc::clone(outer))), ("b".to_owned(), closed("no key of b"))];
        let denied = ScopedStore::new(closed("no key"), parts);
        assert!(denied.get(&"a/x".into()).await.is_ok());
        for (location, why) in [("x", "no key"), ("b/x", "no key of b")] {
            let error = denied.get(&location.into()).await.err().map(|e| crate::error::object_store_error(&e).message);
            assert_eq!(error.as_deref(), Some(why));
        }
        Ok(())
    }
}
