//! An object being written.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use tidemill_core::{Error, Result};

use super::direct::DirectFile;
use crate::error::{io_error, object_store_error};

/// An object being written: in one piece if it is small, otherwise in parts. It is visible when it is complete.
pub struct PackUpload {
    target: Target,
    puts: u64,
}

enum Target {
    Store { store: Arc<dyn ObjectStore>, path: Path, parts: Option<Box<dyn MultipartUpload>> },
    Folder { path: PathBuf, file: Option<Box<DirectFile>> },
}

impl PackUpload {
    pub(super) const fn to_store(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { target: Target::Store { store, path, parts: None }, puts: 0 }
    }

    pub(super) const fn to_folder(path: PathBuf) -> Self {
        Self { target: Target::Folder { path, file: None }, puts: 0 }
    }

    /// Writes a part; more follow.
    ///
    /// # Errors
    /// The store refused. Nothing of the object is kept.
    pub async fn part(&mut self, bytes: Vec<Bytes>) -> Result<()> {
        let written = self.try_part(bytes).await;
        if written.is_err() {
            self.abort().await;
        }
        written
    }

    async fn try_part(&mut self, bytes: Vec<Bytes>) -> Result<()> {
        self.puts += 1;
        match &mut self.target {
            Target::Store { store, path, parts } => {
                let parts = match parts {
                    Some(parts) => parts,
                    None => {
                        self.puts += 1;
                        parts.insert(store.put_multipart(path).await.map_err(|e| object_store_error(&e))?)
                    }
                };
                parts.put_part(bytes.into_iter().collect()).await.map_err(|e| object_store_error(&e))
            }
            Target::Folder { path, file } => {
                let (begun, path) = (file.take(), path.clone());
                let appended = blocking(move || {
                    let mut file = begun.map_or_else(|| DirectFile::create(path).map(Box::new), Ok)?;
                    file.append(&bytes)?;
                    Ok(file)
                });
                *file = Some(appended.await?);
                Ok(())
            }
        }
    }

    /// Writes the last part and makes the object visible. Gives back how many requests that took in all.
    ///
    /// # Errors
    /// The store refused. Nothing of the object is kept.
    pub async fn finish(mut self, rest: Vec<Bytes>) -> Result<u64> {
        if let Target::Store { store, path, parts: None } = &self.target {
            store.put(path, rest.into_iter().collect()).await.map_err(|e| object_store_error(&e))?;
            return Ok(1);
        }
        self.part(rest).await?;
        match &mut self.target {
            Target::Store { parts, .. } => {
                self.puts += 1;
                if let Some(parts) = parts
                    && let Err(error) = parts.complete().await
                {
                    self.abort().await;
                    return Err(object_store_error(&error));
                }
            }
            Target::Folder { file, .. } => {
                if let Some(file) = file.take() {
                    blocking(move || file.finish()).await?;
                }
            }
        }
        Ok(self.puts)
    }

    /// Forgets what was written.
    pub async fn abort(&mut self) {
        match &mut self.target {
            Target::Store { parts, .. } => {
                if let Some(mut parts) = parts.take() {
                    // Stores forget uploads that are never completed, by their own rules.
                    let _ = parts.abort().await;
                }
            }
            Target::Folder { file, .. } => *file = None,
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::internal(format!("writing a pack panicked: {e}")))?.map_err(|e| io_error(&e))
}
