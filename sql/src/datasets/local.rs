//! Datasets on a disk of this machine: the store's client leaves it to the system when files reach the disk, and a version must
//! not be there before its files are.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidemill_core::Result;
use tidemill_engine::durable_files::{self, blocking, folder_of, sync_folder};

use super::log::Created;

/// Creates a file with all of its content, if it is absent; down to the disk.
pub(super) async fn create(path: PathBuf, content: Bytes) -> Result<Created> {
    blocking(path, move |path| {
        std::fs::create_dir_all(folder_of(path))?;
        // Readers of the log skip the name that it has until it is complete.
        match durable_files::create(path, &content) {
            Ok(()) => Ok(Created::Yes),
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
