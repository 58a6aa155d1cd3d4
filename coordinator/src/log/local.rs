//! `file://`: an object appears under its name complete, fsynced, and never over another.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_core::{Error, Result};
use tidemill_engine::durable_files::{self, UNFINISHED, blocking, folder_of, sync_folder, write_unfinished};
use tidemill_engine::error::io_error;

use super::objects::Objects;

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
}

#[async_trait]
impl Objects for LocalObjects {
    async fn try_create(&self, name: &str, body: Bytes) -> Result<()> {
        blocking(self.root.join(name), move |path| {
            make_folder(path)?;
            durable_files::create(path, &body)
        })
        .await
    }

    async fn overwrite(&self, name: &str, body: Bytes) -> Result<()> {
        blocking(self.root.join(name), move |path| {
            make_folder(path)?;
            std::fs::rename(write_unfinished(path, &body)?, path)
        })
        .await
    }

    async fn read(&self, name: &str) -> Result<Option<Bytes>> {
        blocking(self.root.join(name), |path| match std::fs::read(path) {
            Ok(body) => Ok(Some(Bytes::from(body))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        blocking(self.root.join(name), |path| std::fs::remove_file(path).or_else(absent)).await
    }

    async fn tidy(&self, folder: &str) -> Result<()> {
        blocking(self.root.join(folder), |path| {
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
        blocking(self.root.join(folder), |path| {
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

/// Makes the folder that a file is to be in, down to the disk.
fn make_folder(path: &Path) -> std::io::Result<()> {
    let folder = folder_of(path);
    if !folder.is_dir() {
        std::fs::create_dir_all(folder)?;
        sync_folder(folder_of(folder))?;
    }
    Ok(())
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
