//! Objects below `--state`, and the one way to create them.
//!
//! Invariant: nothing but *create if absent* is relied upon, and no reply to it is believed but success: the object is
//! read back and compared. Bodies of different writers always differ.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_core::{Error, ErrorKind, Result};
use tidemill_engine::runtime::object_store;
use tokio::time::Instant;
use url::Url;

use super::local::LocalObjects;
use super::remote::RemoteObjects;

/// How long a store that does not answer is tried.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long one that refuses is: permissions may be late by seconds, not by minutes.
const REFUSED_PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries, doubled up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// Named objects, created once and never changed but where `overwrite` says so. Names are relative to `--state`.
#[async_trait]
pub trait Objects: fmt::Debug + Send + Sync {
    /// Creates an object unless there is one. Any error may mean that it was created all the same.
    ///
    /// # Errors
    /// There is one, or the store did not say that it was created.
    async fn try_create(&self, name: &str, body: Bytes) -> Result<()>;

    /// Writes an object, whether there is one or not.
    ///
    /// # Errors
    /// The store refused.
    async fn overwrite(&self, name: &str, body: Bytes) -> Result<()>;

    /// The object's body; `None` if there is none.
    ///
    /// # Errors
    /// The store did not answer.
    async fn read(&self, name: &str) -> Result<Option<Bytes>>;

    /// Deletes an object; one that is gone already is no error.
    ///
    /// # Errors
    /// The store refused.
    async fn delete(&self, name: &str) -> Result<()>;

    /// Deletes what writers left in a folder that died in the middle of a write.
    ///
    /// # Errors
    /// The store refused.
    async fn tidy(&self, _folder: &str) -> Result<()> {
        Ok(())
    }

    /// The names in a folder, in order.
    ///
    /// # Errors
    /// The store did not answer.
    async fn list(&self, folder: &str) -> Result<Vec<String>>;
}

/// Whose object it is that was to be created.
#[derive(Debug, PartialEq, Eq)]
pub enum Created {
    /// Ours.
    Ours,
    /// Another writer was first: this is its body.
    Theirs(Bytes),
}

/// Creates an object and finds out for certain whether it is ours.
///
/// # Errors
/// The store refused, or did not answer for too long.
pub async fn create(objects: &dyn Objects, name: &str, body: &Bytes) -> Result<Created> {
    let mut tries = Tries::new();
    loop {
        let Err(error) = objects.try_create(name, body.clone()).await else { return Ok(Created::Ours) };
        match objects.read(name).await {
            Ok(Some(found)) if found == *body => return Ok(Created::Ours),
            Ok(Some(found)) => return Ok(Created::Theirs(found)),
            // Nothing landed, whatever the reply said.
            Ok(None) => tries.again(&error).await?,
            Err(error) => tries.again(&error).await?,
        }
    }
}

/// Reads an object, again and again while the store does not answer.
///
/// # Errors
/// The store refused, or did not answer for too long.
pub async fn read(objects: &dyn Objects, name: &str) -> Result<Option<Bytes>> {
    patiently(|| objects.read(name)).await
}

/// Lists a folder, again and again while the store does not answer.
///
/// # Errors
/// The store refused, or did not answer for too long.
pub async fn list(objects: &dyn Objects, folder: &str) -> Result<Vec<String>> {
    patiently(|| objects.list(folder)).await
}

async fn patiently<T, F: Future<Output = Result<T>> + Send>(ask: impl Fn() -> F) -> Result<T> {
    let mut tries = Tries::new();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => tries.again(&error).await?,
        }
    }
}

/// Patience, used up.
struct Tries {
    since: Instant,
    pause: Duration,
}

impl Tries {
    fn new() -> Self {
        Self { since: Instant::now(), pause: BACKOFF.0 }
    }

    async fn again(&mut self, error: &Error) -> Result<()> {
        let refused = matches!(error.kind, ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::ResourcesExhausted);
        let patience = if refused { REFUSED_PATIENCE } else { PATIENCE };
        if self.since.elapsed() + self.pause > patience {
            return Err(error.clone());
        }
        tracing::warn!(%error, "the state's store is tried again");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(BACKOFF.1);
        Ok(())
    }
}

/// The objects below a URL; `None` for `memory://`, where nothing outlives the process.
///
/// # Errors
/// The URL is none, or its scheme is not served.
pub fn open(state: &str) -> Result<Option<Arc<dyn Objects>>> {
    let wrong = |why: &dyn fmt::Display| {
        Error::invalid(format!(
            "--state {state}: {why}; write file:///FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or memory://"
        ))
    };
    if state == "memory://" || state == "memory:" {
        return Ok(None);
    }
    let url = Url::parse(state).map_err(|e| wrong(&e))?;
    if url.scheme() == "file" {
        let folder = url.to_file_path().map_err(|()| wrong(&"it is no path"))?;
        return Ok(Some(Arc::new(LocalObjects::new(folder)?)));
    }
    match object_store(&url).map_err(|e| wrong(&e.message))? {
        Some(store) => Ok(Some(Arc::new(RemoteObjects::new(store, &url)))),
        None => Err(wrong(&"it is no store")),
    }
}
