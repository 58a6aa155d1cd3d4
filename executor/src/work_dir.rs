//! The folder of one executor below the work directory, and the folders that killed executors left there.
//!
//! Invariant: a folder is locked as long as its executor lives, because the system releases the lock of a killed
//! process; a folder whose lock can be taken is nobody's.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The locked file inside an executor's folder.
const LOCK: &str = "executor.lock";
/// How often a folder is made that others take for abandoned before it is locked.
const TRIES: usize = 10;

/// An executor's own folder, removed when dropped.
#[derive(Debug)]
pub(crate) struct WorkDir {
    path: PathBuf,
    /// Held for the lock.
    _lock: File,
}

impl WorkDir {
    /// Makes the folder `name` below `parent`, and removes what executors that are gone left beside it.
    pub(crate) fn new(parent: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        remove_abandoned(parent)?;
        let lock = locked(parent, name, |_| {})?;
        Ok(Self { path: parent.join(name), _lock: lock })
    }

    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the work directory could not be removed");
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Makes the folder and locks it. Another executor that starts now may take it for abandoned between the two, lock it and
/// remove it: then it is made again.
fn locked(parent: &Path, name: &str, mut between: impl FnMut(&Path)) -> io::Result<File> {
    let mut last = io::Error::other("it was never tried");
    for number in 0..TRIES {
        // It is locked before it has its name, which nobody takes from it.
        let hidden = parent.join(format!(".{name}-{number}"));
        fs::create_dir(&hidden)?;
        let lock = File::create(hidden.join(LOCK)).and_then(|lock| {
            between(&hidden);
            lock.try_lock()?;
            fs::rename(&hidden, parent.join(name))?;
            Ok(lock)
        });
        match lock {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock) => last = error,
            other => return other,
        }
    }
    Err(last)
}

/// Removes folders whose executor is gone. Only folders with a lock file are ours.
fn remove_abandoned(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let Ok(lock) = File::open(path.join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            // Another executor that starts now may remove it too.
            let removed = fs::remove_dir_all(&path);
            tracing::info!(path = %path.display(), ?removed, "an abandoned work directory was removed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::{LOCK, TRIES, WorkDir, locked, remove_abandoned};

    #[test]
    fn abandoned_folders_are_removed_and_others_are_not() -> std::io::Result<()> {
        let parent = tempfile::tempdir()?;
        let dead = parent.path().join("dead");
        let foreign = parent.path().join("foreign");
        for folder in [&dead, &foreign] {
            std::fs::create_dir(folder)?;
            std::fs::write(folder.join("spilled"), "rows")?;
        }
        std::fs::write(dead.join(LOCK), "")?;
        let first = WorkDir::new(parent.path(), "first")?;
        let second = WorkDir::new(parent.path(), "second")?;
        assert!(!dead.exists());
        assert!(foreign.join("spilled").exists() && first.path().exists() && second.path().exists());
        drop(first);
        assert!(!parent.path().join("first").exists() && second.path().exists());
        Ok(())
    }

    #[test]
    fn a_folder_that_was_taken_for_abandoned_before_it_was_locked_is_made_again() -> std::io::Result<()> {
        let parent = tempfile::tempdir()?;
        let mut others = Vec::new();
        let lock = locked(parent.path(), "slow", |hidden| match others.len() {
            // Removed by another starter; locked by one that is about to.
            0 => others.push(remove_abandoned(parent.path()).map(|()| None)),
            1 => others.push(File::open(hidden.join(LOCK)).and_then(|lock| lock.lock().map(|()| Some(lock)))),
            _ => {}
        })?;
        assert!(others.len() == 2 && others.iter().all(Result::is_ok), "{others:?}");
        remove_abandoned(parent.path())?;
        assert!(parent.path().join("slow").join(LOCK).exists(), "it is locked");
        drop(lock);
        let mut tries = 0;
        let error = locked(parent.path(), "never", |_| {
            tries += 1;
            assert!(remove_abandoned(parent.path()).is_ok());
        });
        assert!(error.is_err() && tries == TRIES, "{tries} times, {error:?}");
        Ok(())
    }
}
