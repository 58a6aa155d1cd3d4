//! Files on a disk of this machine that must not be lost: entries of the coordinator's log, and of datasets' logs.
//!
//! Invariant: a file appears under its name with all of its content, which the disk has by then.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use tidemill_core::{Error, Result};

use crate::error::io_error;

/// Names of files that are not complete yet begin with this.
pub const UNFINISHED: &str = ".new-";

/// Works on a file or folder on a thread that may wait for the disk.
///
/// # Errors
/// Those of `work`; they name the path.
pub async fn blocking<T: Send + 'static>(
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

/// Creates a file with all of its content, if it is absent; its folder is there.
///
/// # Errors
/// `AlreadyExists` if the name is taken, or those of the disk.
pub fn create(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let unfinished = write_unfinished(path, content)?;
    // Fails if the name is taken, where a rename would replace what is there.
    let linked = std::fs::hard_link(&unfinished, path);
    std::fs::remove_file(&unfinished)?;
    linked.and_then(|()| sync_folder(folder_of(path)))
}

/// Writes a file's content beside the name that it will have, and says where.
///
/// # Errors
/// Those of the disk; nothing is left then.
pub fn write_unfinished(path: &Path, content: &[u8]) -> std::io::Result<PathBuf> {
    let unfinished = folder_of(path).join(format!("{UNFINISHED}{}", ulid::Ulid::new()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    match written {
        Ok(()) => Ok(unfinished),
        Err(error) => {
            // A full disk: what was written is of no use. Its own failure to go away changes nothing.
            let _ = std::fs::remove_file(&unfinished);
            Err(error)
        }
    }
}

/// Makes the names in a folder durable.
///
/// # Errors
/// Those of the disk.
pub fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that a file is in.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_file_is_created_once_and_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.json");
        create(&path, b"one").expect("the name is free");
        assert_eq!(create(&path, b"two").map_err(|e| e.kind()), Err(ErrorKind::AlreadyExists));
        assert_eq!(std::fs::read(&path).expect("a file"), b"one");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing unfinished is left");
    }

    #[tokio::test]
    async fn an_error_names_the_file() {
        let path = PathBuf::from("/missing/0.json");
        let error = blocking(path, |path| create(path, b"one")).await.expect_err("there is no such folder");
        assert!(error.message.starts_with("/missing/0.json: "), "{}", error.message);
    }
}
