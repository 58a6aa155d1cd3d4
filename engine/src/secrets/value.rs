//! One part of a secret: what it is, or where it is kept.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tidemill_core::{Error, Result};

/// The permission bits of everybody else.
const OTHERS: u32 = 0o007;

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever it is meant for.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What one part of a secret is, or where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretValue {
    /// It stands in the settings.
    Given(Secret),
    /// In this variable of the environment.
    Env(String),
    /// In this file, without the end of its last line.
    File(PathBuf),
}

impl SecretValue {
    /// What it is now. Files are read each time: whoever changes them need not start the process again.
    ///
    /// # Errors
    /// The variable is not set, the file cannot be read, or everybody may read it.
    pub fn resolve(&self) -> Result<Secret> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::Env(name) => std::env::var(name).map(Secret::new).map_err(|_| {
                Error::invalid(format!("the variable {name} is not set: set it where this process starts"))
            }),
            Self::File(path) => {
                let shown = path.display();
                let unreadable = |e: std::io::Error| Error::invalid(format!("the file {shown} cannot be read: {e}"));
                refuse_open(path)?;
                let text = std::fs::read_to_string(path).map_err(unreadable)?;
                Ok(Secret::new(text.trim_end_matches(['\n', '\r'])))
            }
        }
    }
}

/// Refuses a file with secrets that everybody may read.
///
/// # Errors
/// They may, or there is no such file.
pub fn refuse_open(path: &std::path::Path) -> Result<()> {
    let shown = path.display();
    let found = std::fs::metadata(path).map_err(|e| Error::invalid(format!("the file {shown} cannot be read: {e}")))?;
    match found.mode() & OTHERS {
        0 => Ok(()),
        _ => Err(Error::denied(format!(
            "the file {shown} holds a secret and everybody may read it: chmod o-rwx {shown}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_shows_itself_to_nobody() {
        let value = SecretValue::Given(Secret::new("hunter2"));
        assert!(!format!("{value:?} {}", Secret::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn files_are_read_unless_everybody_may() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("password");
        std::fs::write(&path, "hunter2\n")?;
        let with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
            Ok::<_, std::io::Error>(SecretValue::File(path.clone()).resolve())
        };
        assert_eq!(with(0o600)?.ok().as_ref().map(Secret::expose), Some("hunter2"));
        assert!(with(0o640)?.is_ok());
        let refused = with(0o644)?.err().map(|e| e.message).unwrap_or_default();
        assert!(refused.contains("everybody may read it") && !refused.contains("hunter2"), "{refused}");
        let unset = SecretValue::Env("TIDEMILL_TEST_NO_SUCH".to_owned()).resolve();
        assert!(unset.is_err_and(|e| e.message.contains("TIDEMILL_TEST_NO_SUCH is not set")));
        Ok(())
    }
}
