//! The folder of one executor below the work directory, and the folders that killed executors left there.
//!
//! Invariant: a folder is locked as long as its executor lives, because the system releases the lock of a killed
//! process; a folder whose lock can be taken is nobody's.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The locked file inside an executor's folder.
const LOCK: &str = "executor.lock";

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
        // Locked before it has its name, so that another executor that starts now does not take it for abandoned.
        let hidden = parent.join(format!(".{name}"));
        fs::create_dir(&hidden)?;
        let lock = File::create(hidden.join(LOCK))?;
        lock.try_lock().map_err(io::Error::other)?;
        let path = parent.join(name);
        fs::rename(hidden, &path)?;
        Ok(Self { path, _lock: lock })
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
    use super::{LOCK, WorkDir};

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
}
