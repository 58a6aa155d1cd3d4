//! Whether files can come to be in a place. The client of a disk's store makes a file's folder and tries again where the file cannot
//! be made, for ever in folders that are there and take no files, as in `/proc`.

use std::fs::File;
use std::io::{self, ErrorKind as Io};
use std::path::{Path, PathBuf};

use tidemill_core::{Error, Result};

use crate::error::io_error;

/// Makes the folder of a file that is to be written, and sees whether that can be made, too. Nothing else may write it meanwhile.
///
/// # Errors
/// It cannot; the error names the place.
pub async fn check_writable(file: PathBuf) -> Result<()> {
    let shown = file.parent().unwrap_or(&file).display().to_string();
    let tried = tokio::task::spawn_blocking(move || try_to_make(&file)).await;
    let tried = tried.map_err(|e| Error::internal(format!("{shown}: {e}")))?;
    tried.map_err(|e| match e.kind() {
        Io::NotFound => Error::invalid(format!("no file can be made in {shown}: write to another place")),
        _ => {
            let error = io_error(&e);
            Error { message: format!("{shown}: {}", error.message), ..error }
        }
    })
}

fn try_to_make(file: &Path) -> io::Result<()> {
    // As the store calls what it has not written to the end: no listing shows it.
    let mut tried = file.as_os_str().to_owned();
    tried.push("#0");
    match File::create(&tried) {
        Err(error) if error.kind() == Io::NotFound => {
            std::fs::create_dir_all(file.parent().unwrap_or(file))?;
            File::create(&tried)?;
        }
        made => {
            made?;
        }
    }
    std::fs::remove_file(&tried)
}

#[cfg(test)]
mod tests {
    use tidemill_core::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn places_that_take_no_files_are_told_from_new_folders() -> std::result::Result<(), Box<dyn std::error::Error>>
    {
        let root = tempfile::tempdir()?;
        let new = root.path().join("a/b");
        check_writable(new.join("x.parquet")).await?;
        assert!(new.is_dir() && std::fs::read_dir(&new)?.next().is_none());
        std::fs::write(root.path().join("file"), "")?;
        let below = check_writable(root.path().join("file/x")).await.err().ok_or("a file has no files")?;
        assert!(below.kind == ErrorKind::Invalid && below.message.contains("file: input or output failed"), "{below}");
        for place in ["/proc/x.parquet", "/proc/none/x.parquet"] {
            let refused = check_writable(place.into()).await.err().ok_or("nothing is made in /proc")?;
            assert_eq!(refused.kind, ErrorKind::Invalid, "{place}: {refused}");
            assert!(refused.message.starts_with("no file can be made in /proc"), "{place}: {refused}");
        }
        Ok(())
    }
}
