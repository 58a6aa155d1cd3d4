//! Which files a process may touch on behalf of its users: those below the prefixes that it was started with.
//!
//! ```text
//! statement ──► check: a clear sentence, before anything is opened
//! any read, write or listing ──► GuardedStore ──► the store        where nothing passes that the first look overlooked
//! ```
//!
//! Paths are compared as they are when all links are followed; what does not exist yet, by the folder that it would be in.
//!
//! Invariant: where there are prefixes, every object store of the process's runtime is behind a [`GuardedStore`].

mod guarded;
mod probe;

use std::io::ErrorKind as Io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use tidemill_core::{Error, Result};
use url::Url;

pub use guarded::GuardedStore;
pub use probe::check_writable;

/// Characters that begin a pattern.
const PATTERN: [char; 3] = ['*', '?', '['];

/// Which files a process may touch.
#[derive(Debug, Clone, Default)]
pub struct FileAccess(Option<Arc<Allowed>>);

#[derive(Debug, Default)]
struct Allowed {
    /// Without links.
    paths: Vec<PathBuf>,
    urls: Vec<Prefix>,
}

/// A folder of an object store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prefix {
    scheme: String,
    bucket: String,
    folder: ObjectPath,
}

impl Prefix {
    fn of(url: &Url, path: ObjectPath) -> Self {
        let scheme = if url.scheme() == "s3a" { "s3" } else { url.scheme() };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let bucket = format!("{}{port}", url.host_str().unwrap_or_default());
        Self { scheme: scheme.to_owned(), bucket, folder: path }
    }

    fn contains(&self, other: &Self) -> bool {
        (&self.scheme, &self.bucket) == (&other.scheme, &other.bucket) && other.folder.prefix_matches(&self.folder)
    }
}

impl FileAccess {
    /// Everything that the process itself may.
    #[must_use]
    pub const fn everything() -> Self {
        Self(None)
    }

    /// What is below these folders and URLs, and nothing else.
    ///
    /// # Errors
    /// One is no folder, or no URL of a store.
    pub fn only(paths: &[PathBuf], urls: &[String]) -> Result<Self> {
        let mut allowed = Allowed::default();
        for path in paths {
            allowed.paths.push(allowed_path(path)?);
        }
        for url in urls {
            let wrong = |why: &dyn std::fmt::Display| Error::invalid(format!("--allow-url {url}: {why}"));
            let parsed = Url::parse(url).map_err(|e| wrong(&format!("{e}: write s3://BUCKET/FOLDER")))?;
            if climbs(url) {
                return Err(wrong(&"write it without `..`"));
            }
            match parsed.scheme() {
                "file" => {
                    allowed.paths.push(allowed_path(&file_path(&parsed).ok_or_else(|| wrong(&"it is no path"))?)?)
                }
                _ => {
                    let folder = ObjectPath::from_url_path(parsed.path()).map_err(|e| wrong(&e))?;
                    allowed.urls.push(Prefix::of(&parsed, folder));
                }
            }
        }
        Ok(Self(Some(Arc::new(allowed))))
    }

    /// Checks a location as a statement has it: a path or a URL, with a pattern perhaps.
    ///
    /// # Errors
    /// `Denied`, unless all that it can mean is allowed.
    pub fn check(&self, location: &str) -> Result<()> {
        let Some(allowed) = &self.0 else { return Ok(()) };
        if climbs(location) {
            return Err(Error::denied(format!("`{location}` has `..` in it: write the path that it means")));
        }
        // URLs are no patterns.
        let is_allowed = match Url::parse(location).ok().filter(|_| location.contains("://")) {
            Some(url) if url.scheme() == "file" => file_path(&url).is_some_and(|path| allowed.has_path(&path)),
            Some(url) => ObjectPath::from_url_path(url.path()).is_ok_and(|path| allowed.has(&Prefix::of(&url, path))),
            None => std::path::absolute(fixed_part(location)).is_ok_and(|path| allowed.has_path(&path)),
        };
        if is_allowed { Ok(()) } else { Err(allowed.refusal(location)) }
    }

    /// Checks an object of a store, when it is touched.
    fn check_object(&self, store: &Url, path: &ObjectPath) -> Result<()> {
        let Some(allowed) = &self.0 else { return Ok(()) };
        let is_allowed = match store.scheme() {
            // As the store itself finds it.
            "file" if path.parts_count() == 0 => allowed.has_path(Path::new("/")),
            "file" => LocalFileSystem::new().path_to_filesystem(path).is_ok_and(|path| allowed.has_path(&path)),
            _ => allowed.has(&Prefix::of(store, path.clone())),
        };
        match is_allowed {
            true => Ok(()),
            false if store.scheme() == "file" => Err(allowed.refusal(&format!("/{path}"))),
            false => Err(allowed.refusal(&format!("{}/{path}", store.as_str().trim_end_matches('/')))),
        }
    }

    /// Object stores of a runtime in which nothing else can be touched.
    #[must_use]
    pub fn registry(&self) -> Arc<dyn ObjectStoreRegistry> {
        self.guard(Arc::new(DefaultObjectStoreRegistry::new()))
    }

    /// The same stores, behind guards where there is anything to guard.
    #[must_use]
    pub fn guard(&self, stores: Arc<dyn ObjectStoreRegistry>) -> Arc<dyn ObjectStoreRegistry> {
        match self.0 {
            Some(_) => Arc::new(guarded::GuardedStores { stores, files: self.clone() }),
            None => stores,
        }
    }
}

impl Allowed {
    fn has(&self, object: &Prefix) -> bool {
        self.urls.iter().any(|prefix| prefix.contains(object))
    }

    fn has_path(&self, path: &Path) -> bool {
        // Whoever may touch nothing learns nothing of links, either.
        let resolved = if self.paths.is_empty() { None } else { without_links(path) };
        resolved.is_some_and(|path| self.paths.iter().any(|prefix| path.starts_with(prefix)))
    }

    fn refusal(&self, location: &str) -> Error {
        let nothing = if self.paths.is_empty() && self.urls.is_empty() { " (as yet none)" } else { "" };
        Error::denied(format!(
            "`{location}` is not below a folder that this process may touch for its users: those are what it was started \
             with --allow-path and --allow-url{nothing}"
        ))
    }
}

fn allowed_path(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).ok().and_then(|path| without_links(&path));
    absolute
        .ok_or_else(|| Error::invalid(format!("--allow-path {}: it cannot be found out what it is", path.display())))
}

/// The path of a place, where it is on a disk of this machine.
#[must_use]
pub fn on_disk(url: &Url) -> Option<PathBuf> {
    (url.scheme() == "file").then(|| file_path(url))?
}

/// The path of a `file://` URL.
fn file_path(url: &Url) -> Option<PathBuf> {
    url.to_file_path().ok()
}

/// Whether a path climbs up somewhere, as it is or with `%2e` for dots.
fn climbs(location: &str) -> bool {
    let decoded = location.replace("%2e", ".").replace("%2E", ".");
    let decoded = decoded.replace("%2f", "/").replace("%2F", "/").replace("%5c", "/").replace("%5C", "/");
    decoded.split(['/', '\\']).any(|part| part == "..")
}

/// A location up to the folder in which its pattern begins.
fn fixed_part(location: &str) -> &str {
    let Some(pattern) = location.find(PATTERN) else { return location };
    let before = location.get(..pattern).unwrap_or_default();
    match before.rfind('/') {
        Some(slash) => location.get(..=slash).unwrap_or_default(),
        None => ".",
    }
}

/// The path with all links followed, as far as it exists; `None` where that cannot be told.
fn without_links(path: &Path) -> Option<PathBuf> {
    if path.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    for ancestor in path.ancestors() {
        match ancestor.canonicalize() {
            Ok(real) => {
                let rest = path.strip_prefix(ancestor).ok()?;
                return Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
            }
            // A link to nothing exists all the same, and what it names may come to be anywhere.
            Err(error) if matches!(error.kind(), Io::NotFound | Io::NotADirectory) => {
                if ancestor.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
                    return None;
                }
            }
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn denied(files: &FileAccess, location: impl AsRef<str>) -> bool {
        files.check(location.as_ref()).is_err_and(|e| e.kind == tidemill_core::ErrorKind::Denied)
    }

    #[test]
    fn nothing_leads_out_of_an_allowed_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let (inside, outside) = (root.path().join("in"), root.path().join("in-fact-outside"));
        fs::create_dir_all(inside.join("deep")).expect("a folder");
        fs::create_dir_all(&outside).expect("a folder");
        fs::write(outside.join("f"), "x").expect("a file");
        symlink(&outside, inside.join("link")).expect("a link");
        symlink(outside.join("not-yet"), inside.join("dangling")).expect("a link");
        symlink(inside.join("deep"), inside.join("fine")).expect("a link");
        let files = FileAccess::only(std::slice::from_ref(&inside), &[]).expect("prefixes");
        let (within, without) = (inside.display(), outside.display());
        for allowed in ["", "/deep", "/new/and/deeper.csv", "/*.csv", "/deep/[ab]?.csv", "/fine/f", "/link*"] {
            assert!(files.check(&format!("{within}{allowed}")).is_ok(), "{allowed}");
            assert!(files.check(&format!("file://{within}{allowed}")).is_ok(), "{allowed}");
        }
        for escape in ["/link/f", "/link", "/link/*", "/dangling", "/../in-fact-outside/f", "/%2e%2e/f", "/.%2E/f"] {
            assert!(denied(&files, format!("{within}{escape}")), "{escape}");
            assert!(denied(&files, format!("file://{within}{escape}")), "{escape}");
        }
        for elsewhere in [format!("{without}/f"), format!("file://{without}/f"), "/*/f".to_owned(), "/".to_owned()] {
            assert!(denied(&files, &elsewhere), "{elsewhere}");
        }
        // Relative to the process, and other stores.
        assert!(denied(&files, "Cargo.toml") && denied(&files, "*.toml") && denied(&files, "s3://bucket/in"));
        let object =
            |path: String| files.check_object(&Url::parse("file:///").expect("a URL"), &ObjectPath::from(path));
        assert!(object(format!("{within}/deep/f")).is_ok());
        assert!(object(format!("{within}/link/f")).is_err() && object(format!("{without}/f")).is_err());
    }

    #[test]
    fn folders_of_buckets_end_where_they_end() {
        let files = FileAccess::only(&[], &["s3://bucket/a/b/".to_owned(), "gs://all".to_owned()]).expect("prefixes");
        for allowed in ["s3://bucket/a/b", "s3://bucket/a/b/c.csv", "s3a://bucket/a/b/*.csv", "gs://all/x"] {
            assert!(files.check(allowed).is_ok(), "{allowed}");
        }
        for other in [
            "s3://bucket/a",
            "s3://bucket/a/bc",
            "s3://bucket/a/*/c",
            "s3://other/a/b/c",
            "s3://bucket:9/a/b/c",
            "s3://bucket/a/b/../../c",
            "s3://bucket/a/b/%2e%2e/c",
            "gs://bucket/a/b",
            "/a/b",
            "file:///a/b",
        ] {
            assert!(denied(&files, other), "{other}");
        }
    }

    #[test]
    fn without_prefixes_everything_is_allowed_and_with_none_nothing() {
        assert!(FileAccess::everything().check("/etc/../etc/passwd").is_ok());
        let nothing = FileAccess::only(&[], &[]).expect("no prefixes");
        assert!(denied(&nothing, "/") && denied(&nothing, "s3://b/k") && denied(&nothing, "x.csv"));
        assert!(FileAccess::only(&[], &["no url".to_owned()]).is_err());
    }
}
