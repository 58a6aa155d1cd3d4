//! `~/.aws/credentials` and `~/.aws/config`: named groups of settings, as every AWS tool reads them.
//!
//! A small reader of our own: the kept crates that read these files are parts of the AWS SDK, which is larger than the rest
//! of this workspace.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use tidemill_core::{Error, Result};

use crate::secrets::Secret;

/// The settings of one profile.
#[derive(Debug, Default)]
pub(super) struct Profile(BTreeMap<String, Secret>);

impl Profile {
    pub(super) fn get(&self, key: &str) -> Option<&Secret> {
        self.0.get(key)
    }
}

/// The two files, of which either may be missing.
#[derive(Debug)]
pub(super) struct Files {
    credentials: Source,
    config: Source,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Nowhere,
    #[cfg(test)]
    Text(String),
}

impl Files {
    /// Where AWS tools look for them.
    pub(super) fn of_environment() -> Self {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let file = |variable: &str, name: &str| {
            let set = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
            let path = set.or_else(|| Some(home.as_ref()?.join(".aws").join(name)));
            path.map_or(Source::Nowhere, Source::File)
        };
        let credentials = file("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        Self { credentials, config: file("AWS_CONFIG_FILE", "config") }
    }

    #[cfg(test)]
    pub(super) fn of_texts(credentials: &str, config: &str) -> Self {
        Self { credentials: Source::Text(credentials.to_owned()), config: Source::Text(config.to_owned()) }
    }

    /// A profile: what the credentials file says of it wins.
    ///
    /// # Errors
    /// A file is there and cannot be read.
    pub(super) fn profile(&self, name: &str) -> Result<Option<Profile>> {
        let in_config = if name == "default" { vec!["default".to_owned()] } else { vec![format!("profile {name}")] };
        let config = section(&self.config.text()?, &in_config);
        let credentials = section(&self.credentials.text()?, &[name.to_owned()]);
        if config.is_none() && credentials.is_none() {
            return Ok(None);
        }
        let mut settings = config.unwrap_or_default();
        settings.extend(credentials.unwrap_or_default());
        Ok(Some(Profile(settings)))
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |source: &Source| match source {
            Source::File(path) => path.display().to_string(),
            _ => "no file".to_owned(),
        };
        write!(f, "{} and {}", shown(&self.credentials), shown(&self.config))
    }
}

impl Source {
    fn text(&self) -> Result<String> {
        let Self::File(path) = self else {
            return Ok(match self {
                #[cfg(test)]
                Self::Text(text) => text.clone(),
                _ => String::new(),
            });
        };
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(Error::denied(format!("{} cannot be read: {e}; check its permissions", path.display()))),
        }
    }
}

/// The settings below `[name]`, for any of these names. Lines that begin with a space belong to a setting that has parts of
/// its own, of which none is ours.
fn section(text: &str, names: &[String]) -> Option<BTreeMap<String, Secret>> {
    let mut found: Option<BTreeMap<String, Secret>> = None;
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            inside = names.contains(&name);
            if inside {
                found.get_or_insert_default();
            }
            continue;
        }
        if !inside || trimmed.is_empty() || trimmed.starts_with(['#', ';']) || line.starts_with([' ', '\t']) {
            continue;
        }
        let Some((key, value)) = trimmed.split_once('=') else { continue };
        let (key, value) = (key.trim().to_lowercase(), value.trim());
        if let Some(settings) = found.as_mut().filter(|_| !value.is_empty()) {
            settings.insert(key, Secret::new(value));
        }
    }
    found
}
