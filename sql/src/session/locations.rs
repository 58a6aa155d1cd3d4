//! What the locations of statements mean.
//!
//! | location | read | written |
//! |---|---|---|
//! | a path | what is there; if nothing is and it has one of `*?[`, a pattern | as it is |
//! | a URL | as URLs are: encoded, and never a pattern | the same |

use std::path::Path;

use tidemill_core::{Error, Result};
use tidemill_engine::files::FileAccess;
use url::Url;

/// Characters that begin a pattern.
pub(super) const PATTERN: [char; 3] = ['*', '?', '['];

/// A location that means the same wherever it is read: relative paths start where the client is.
fn absolute(location: &str, directory: Option<&Path>) -> String {
    let has_scheme = location.contains("://");
    match directory {
        Some(directory) if !has_scheme && !Path::new(location).is_absolute() => {
            directory.join(location).display().to_string()
        }
        _ => location.to_owned(),
    }
}

/// The same of what is read: a file or folder that is there is no pattern, whatever it is called.
pub(super) fn to_read(location: &str, directory: Option<&Path>, files: &FileAccess) -> Result<String> {
    let location = absolute(location, directory);
    check_url(&location)?;
    if is_url(&location) && location.contains('*') {
        return Err(Error::invalid(format!(
            "{location} is a URL, and those are no patterns: name the folder, or write %2A for a `*` in a name"
        )));
    }
    // Who may not touch a place learns nothing of what is there.
    let Some(url) = literal(&location).filter(|url| files.check(url.as_str()).is_ok()) else { return Ok(location) };
    let found = url.to_file_path().ok().and_then(|path| std::fs::metadata(path).ok());
    Ok(match found {
        Some(found) if found.is_dir() && !url.path().ends_with('/') => format!("{}/", spelled(&url)),
        Some(_) => spelled(&url),
        None => location,
    })
}

/// The same of a file or folder that is written, which is never a pattern.
pub(crate) fn to_write(location: &str, directory: Option<&Path>) -> Result<String> {
    let location = absolute(location, directory);
    check_url(&location)?;
    Ok(literal(&location).map_or(location, |url| spelled(&url)))
}

/// The URL of a path that looks like a pattern.
fn literal(location: &str) -> Option<Url> {
    if location.contains("://") || !location.contains(PATTERN) {
        return None;
    }
    let path = std::path::absolute(location).ok()?;
    match location.ends_with('/') {
        true => Url::from_directory_path(path).ok(),
        false => Url::from_file_path(path).ok(),
    }
}

/// The URL as it is kept and may be typed again.
fn spelled(url: &Url) -> String {
    url.as_str().replace('*', "%2A")
}

/// Whether a location is a URL of a scheme that may be served: the web's has a refusal of its own.
fn is_url(location: &str) -> bool {
    location.contains("://") && Url::parse(location).is_ok_and(|url| !url.scheme().starts_with("http"))
}

/// Refuses a URL of which a part would be left out.
fn check_url(location: &str) -> Result<()> {
    let sign = location.chars().find(|sign| matches!(sign, '?' | '#'));
    let Some(sign) = sign.filter(|_| is_url(location)) else { return Ok(()) };
    // What follows may be a secret.
    let shown = location.split(sign).next().unwrap_or_default();
    let (meant, encoded) = (format!("{shown}{sign}…"), if sign == '?' { "%3F" } else { "%23" });
    Err(Error::invalid(format!(
        "the location {meant} is a URL, whose path would end at `{sign}`: write {encoded} for it; URLs are no patterns"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_no_pattern() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let root = tempfile::tempdir()?;
        let folder = root.path().join("a?b [1] 100%");
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("x*.csv"), "1")?;
        let everything = FileAccess::everything();
        let read = |location: &str| to_read(location, Some(root.path()), &everything);
        let url = format!("file://{}/a%3Fb%20[1]%20100%25/", root.path().display());
        assert_eq!(read("a?b [1] 100%")?, url);
        assert_eq!(read("a?b [1] 100%/")?, url);
        assert_eq!(read("a?b [1] 100%/x*.csv")?, format!("{url}x%2A.csv"));
        assert_eq!(to_write("a?b [1] 100%/new.csv", Some(root.path()))?, format!("{url}new.csv"));
        assert_eq!(to_write("new?/", Some(root.path()))?, format!("file://{}/new%3F/", root.path().display()));
        // What is not, is.
        for pattern in ["a?b*/x*.csv", "*", "a?b [1] 100%/x*.csv/"] {
            assert_eq!(read(pattern)?, root.path().join(pattern).display().to_string());
        }
        let nothing = FileAccess::only(&[], &[])?;
        let hidden = to_read("a?b [1] 100%", Some(root.path()), &nothing)?;
        assert_eq!(hidden, root.path().join("a?b [1] 100%").display().to_string());
        Ok(())
    }

    #[test]
    fn a_url_is_no_pattern() -> Result<()> {
        let read = |location: &str| to_read(location, None, &FileAccess::everything());
        for pattern in ["s3://lake/*.csv", "file:///lake/*/x.csv"] {
            let refused = read(pattern).err().map(|e| e.message).unwrap_or_default();
            assert!(refused.contains("no patterns: name the folder"), "{pattern}: {refused}");
        }
        for fine in ["s3://lake/%2A.csv", "s3://lake/a[1]/", "/lake/*.csv"] {
            assert_eq!(read(fine)?, fine);
        }
        Ok(())
    }

    #[test]
    fn nothing_of_a_url_is_left_out() {
        let told = |location: &str| to_write(location, None).err().map(|e| e.message).unwrap_or_default();
        assert!(told("s3://lake/a?b=hunter2").contains("the location s3://lake/a?… is a URL"));
        assert!(!told("s3://lake/a?b=hunter2").contains("hunter2"));
        assert!(told("file:///a#1/b.csv").contains("write %23 for it"));
        for fine in ["s3://lake/a%3Fb", "file:///a/*.csv", "/a#1/b", "https://host/x?y"] {
            assert_eq!(told(fine), "", "{fine}");
        }
    }
}
