//! Objects of a store that is a folder, written past the page cache.
//!
//! Packs are written once and mostly never read. In the page cache they would drive out what tasks read, and a page that the
//! kernel has to find first costs more than the write. Where the file system cannot do without the cache, it is used.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// What addresses and lengths must be a multiple of, on every file system that we know.
const BLOCK: usize = 4 << 10;
/// Bytes of one write.
const BUFFER: usize = 1 << 20;
/// How often a folder is made again that somebody removes because it is empty.
const TRIES: usize = 8;

/// A file that is nobody's object until it is complete. Dropped before that, it is removed.
#[derive(Debug)]
pub(super) struct DirectFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    is_direct: bool,
    /// What is written next lies from `start`, which is aligned.
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    written: u64,
    is_complete: bool,
}

impl DirectFile {
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        // Beside the object, so that the sweep finds what the dead leave.
        let partial = path.with_extension("partial");
        let (file, is_direct) = match create(&partial, true) {
            Ok(file) => (file, true),
            Err(error) if needs_the_cache(&error) => (create(&partial, false)?, false),
            Err(error) => return Err(error),
        };
        let buffer = vec![0; BUFFER + BLOCK];
        let start = buffer.as_ptr().align_offset(BLOCK);
        Ok(Self { path, partial, file, is_direct, buffer, start, filled: 0, written: 0, is_complete: false })
    }

    /// Appends bytes.
    pub(super) fn append(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        for mut chunk in chunks.iter().map(|c| &c[..]) {
            while !chunk.is_empty() {
                let free = self.start + self.filled..self.start + BUFFER;
                let (now, later) = chunk.split_at(chunk.len().min(free.len()));
                if let Some(free) = self.buffer.get_mut(free).and_then(|f| f.get_mut(..now.len())) {
                    free.copy_from_slice(now);
                }
                self.filled += now.len();
                chunk = later;
                if self.filled == BUFFER {
                    self.write(BUFFER)?;
                    self.written += BUFFER as u64;
                    self.filled = 0;
                }
            }
        }
        Ok(())
    }

    /// Writes the rest, and makes the file the object.
    pub(super) fn finish(mut self) -> io::Result<()> {
        // Whole blocks, and then as long as it is.
        self.write(self.filled.next_multiple_of(BLOCK))?;
        self.file.set_len(self.written + self.filled as u64)?;
        std::fs::rename(&self.partial, &self.path)?;
        self.is_complete = true;
        Ok(())
    }

    fn write(&mut self, length: usize) -> io::Result<()> {
        let bytes = self.buffer.get(self.start..self.start + length).unwrap_or_default();
        match self.file.write_all_at(bytes, self.written) {
            Err(error) if self.is_direct && needs_the_cache(&error) => {
                self.file = OpenOptions::new().write(true).open(&self.partial)?;
                self.is_direct = false;
                self.file.write_all_at(bytes, self.written)
            }
            other => other,
        }
    }
}

impl Drop for DirectFile {
    fn drop(&mut self) {
        if !self.is_complete {
            // The sweep removes what this cannot.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// What file systems say that cannot write past the page cache: `EINVAL`, and some `EOPNOTSUPP`.
fn needs_the_cache(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// Stores remove folders that are empty, also those that were just made.
fn create(partial: &Path, is_direct: bool) -> io::Result<File> {
    let mut tries = 0;
    loop {
        let folder = partial.parent().map_or(Ok(()), std::fs::create_dir_all);
        match folder.and_then(|()| options(is_direct).open(partial)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            other => return other,
        }
    }
}

#[cfg(target_os = "linux")]
fn options(is_direct: bool) -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(if is_direct { libc::O_DIRECT } else { 0 });
    options
}

/// Elsewhere the page cache is used.
#[cfg(not(target_os = "linux"))]
fn options(_: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_what_was_appended_and_nothing_before() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        for size in [0, 1, BLOCK - 1, BLOCK, BUFFER, BUFFER + 1, 3 * BUFFER - 5] {
            let path = folder.path().join("some/where").join(format!("{size}.pack"));
            let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
            let mut file = DirectFile::create(path.clone())?;
            for chunk in bytes.chunks(70_001) {
                file.append(&[Bytes::copy_from_slice(chunk)])?;
            }
            assert!(!path.exists(), "it is not complete");
            file.finish()?;
            assert_eq!(std::fs::read(&path)?, bytes);
            assert!(!path.with_extension("partial").exists());
        }
        Ok(())
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut file = DirectFile::create(folder.path().join("x.pack"))?;
        file.append(&[Bytes::from(vec![7; 2 * BUFFER])])?;
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 0);
        Ok(())
    }
}
