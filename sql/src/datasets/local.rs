//! Datasets on a disk of this machine: the store's client leaves it to the system when files reach the disk, and a version must
//! not be there before its files are.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidemill_core::{Error, Result};
use tidemill_engine::error::io_error;

use super::log::Created;

/// Creates a file with all of its content, if it is absent; down to the disk.
pub(super) async fn create(path: PathBuf, content: Bytes) -> Result<Created> {
    blocking(path, move |path| {
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)?;
        // Readers of the log skip what is called like that.
        let unfinished = folder.join(format!(".new-{}", ulid::Ulid::new()));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        let written = file.write_all(&content).and_then(|()| file.sync_all());
        // Fails if the name is taken, where a rename would replace what is there.
        let linked = written.and_then(|()| std::fs::hard_link(&unfinished, path));
        std::fs::remove_file(&unfinished)?;
        match linked {
            Ok(()) => sync_folder(folder).map(|()| Created::Yes),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Created::Taken),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Makes a folder, down to the disk with those that it is in: they may be new, too.
pub(super) async fn make_folder(path: PathBuf) -> Result<()> {
    blocking(path, |path| {
        std::fs::create_dir_all(path)?;
        path.ancestors().skip(1).try_for_each(|folder| match sync_folder(folder) {
            // Nobody made it who may not open it; and not all disks sync all folders.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported
                ) =>
            {
                Ok(())
            }
            done => done,
        })
    })
    .await
}

/// Lets files and the names of their folders reach the disk.
pub(super) async fn sync(root: PathBuf, files: Vec<String>) -> Result<()> {
    blocking(root, move |root| {
        let mut folders = BTreeSet::new();
        for file in &files {
            let path = root.join(file);
            File::open(&path)?.sync_all()?;
            folders.extend(path.ancestors().skip(1).take_while(|folder| folder.starts_with(root)).map(Path::to_owned));
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))
    })
    .await
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let shown = path.display().to_string();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    let done = done.map_err(|e| Error::internal(format!("{shown}: {e}")))?;
    done.map_err(|e| {
        let error = io_error(&e);
        Error { message: format!("{shown}: {}", error.message), ..error }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_created_once_and_whole() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("_delta_log/0.json");
        make_folder(folder.path().join("_delta_log")).await?;
        assert_eq!(create(path.clone(), Bytes::from_static(b"one")).await?, Created::Yes);
        assert_eq!(create(path.clone(), Bytes::from_static(b"two")).await?, Created::Taken);
        assert_eq!(std::fs::read(&path)?, b"one");
        assert_eq!(std::fs::read_dir(folder.path().join("_delta_log"))?.count(), 1);
        sync(folder.path().to_owned(), vec!["_delta_log/0.json".to_owned()]).await?;
        assert!(sync(folder.path().to_owned(), vec!["missing".to_owned()]).await.is_err());
        Ok(())
    }
}
