//! Connections, spilled data and packs are open files: a server takes as many as it may have.

/// Raises this process's limit of open files to what the system lets it have; how many that are. Most systems begin with 1,024,
/// for programs that cannot count further.
pub fn raise_open_files() -> u64 {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) => files,
        Err(error) => {
            let files = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(0, |(soft, _)| soft);
            tracing::warn!(%error, files, "the limit of open files cannot be raised");
            files
        }
    }
}
