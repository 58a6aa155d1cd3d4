//! `file://`: an object appears under its name complete, fsynced, and never over another.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_core::{Error, Result};
use tidemill_engine::error::io_error;

use super::objects::Objects;

/// Files that are not complete yet begin with this.
const UNFINISHED: &str = ".new-";

/// Objects as files of a folder.
#[derive(Debug)]
pub(super) struct LocalObjects {
    root: PathBuf,
}

impl LocalObjects {
    pub(super) fn new(root: PathBuf) -> Result<Self> {
        let unusable = |e: std::io::Error| {
            let error = io_error(&e);
            Error { message: format!("--state {} cannot be used: {}", root.display(), error.message), ..error }
        };
        std::fs::create_dir_all(&root).map_err(unusable)?;
        Ok(Self { root })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = self.root.join(name);
        let shown = path.display().to_string();
        let done = tokio::task::spawn_blocking(move || work(&path)).await;
        let done = done.map_err(|e| Error::internal(format!("{shown}: {e}")))?;
        done.map_err(|e| {
            let error = io_error(&e);
            Error { message: format!("{shown}: {}", error.message), ..error }
        })
    }
}

#[async_trait]
impl Objects for LocalObjects {
    async fn try_create(&self, name: &str, body: Bytes) -> Result<()> {
        self.blocking(name, move |path| {
            let unfinished = write_unfinished(path, &body)?;
            // Fails if the name is taken, where a rename would replace what is there.
            let linked = std::fs::hard_link(&unfinished, path);
            std::fs::remove_file(&unfinished)?;
            linked.and_then(|()| sync_folder(path))
        })
        .await
    }

    async fn overwrite(&self, name: &str, body: Bytes) -> Result<()> {
        self.blocking(name, move |path| {
            let unfinished = write_unfinished(path, &body)?;
            std::fs::rename(unfinished, path)
        })
        .await
    }

    async fn read(&self, name: &str) -> Result<Option<Bytes>> {
        self.blocking(name, |path| match std::fs::read(path) {
            Ok(body) => Ok(Some(Bytes::from(body))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.blocking(name, |path| std::fs::remove_file(path).or_else(absent)).await
    }

    async fn tidy(&self, folder: &str) -> Result<()> {
        self.blocking(folder, |path| {
            let entries = match std::fs::read_dir(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                    // A writer that lives after all writes it again.
                    std::fs::remove_file(entry.path()).or_else(absent)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.blocking(folder, |path| {
            let entries = match std::fs::read_dir(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let mut names = Vec::new();
            for entry in entries {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if !name.starts_with(UNFINISHED) {
                    names.push(name);
                }
            }
            names.sort();
            Ok(names)
        })
        .await
    }
}

/// Writes a body beside the name it will have, down to the disk.
fn write_unfinished(path: &Path, body: &[u8]) -> std::io::Result<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.is_dir() {
        std::fs::create_dir_all(folder)?;
        sync_folder(folder)?;
    }
    let unfinished = folder.join(format!("{UNFINISHED}{}", ulid::Ulid::new()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
    let written = file.write_all(body).and_then(|()| file.sync_all());
    match written {
        Ok(()) => Ok(unfinished),
        Err(error) => {
            // A full disk: what was written is of no use. Its own failure to go away changes nothing.
            let _ = std::fs::remove_file(&unfinished);
            Err(error)
        }
    }
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Makes the names in a file's folder durable.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
