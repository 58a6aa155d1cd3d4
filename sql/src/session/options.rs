//! Options of external tables that are about secrets: none may be written down, one may be named.

use std::borrow::Cow;

use datafusion::logical_expr::CreateExternalTable;
use tidemill_core::{Error, Result};
use tidemill_engine::secrets::{Secrets, check_location};

use super::redact::sounds_secret;

/// Options of this name name a secret of the server.
const SECRET: &str = "secret";
/// The same, as DataFusion calls options of no namespace.
const OF_FORMAT: &str = "format.secret";
/// Beginnings of options that only credentials have.
const CREDENTIALS: &[&str] = &["aws.", "gcp.", "google.", "azure.", "crypto."];

/// Refuses a statement with credentials in it, which would be kept wherever it is.
pub(super) fn refuse_secrets(command: &CreateExternalTable) -> Result<()> {
    for location in &command.locations {
        check_location(location)?;
    }
    let names_one = |key: &str| key == SECRET || key == OF_FORMAT;
    let holds_one = |key: &str| {
        let lower = key.to_lowercase();
        let short = lower.strip_prefix("format.").unwrap_or(&lower);
        let opens = matches!(short, "user" | "username" | "host" | "connection_string" | "url" | "key_id");
        CREDENTIALS.iter().any(|beginning| lower.contains(beginning)) || sounds_secret(&lower) || opens
    };
    if let Some(key) = command.options.keys().find(|key| !names_one(key) && holds_one(key)) {
        return Err(Error::invalid(format!(
            "the option `{}` would be kept with the table: write it into a secret of the servers, [secrets.NAME] in \
             their settings file, and name that: OPTIONS (secret 'NAME')",
            key.strip_prefix("format.").unwrap_or(key)
        )));
    }
    Ok(())
}

/// The command without the secret that it names, which must be the one that its locations are opened with.
pub(super) fn with_secret(command: &CreateExternalTable) -> Result<Cow<'_, CreateExternalTable>> {
    let Some(name) = command.options.get(OF_FORMAT).or_else(|| command.options.get(SECRET)) else {
        return Ok(Cow::Borrowed(command));
    };
    let secrets = Secrets::installed();
    for location in &command.locations {
        match secrets.covering(location) {
            Some(secret) if secret.name == *name => {}
            Some(other) => {
                return Err(Error::invalid(format!(
                    "{location} is opened with the secret `{}`, whose scope is the longest: name that, or give `{name}` the \
                     scope {location}",
                    other.name
                )));
            }
            None => {
                return Err(Error::not_found(format!(
                    "no secret `{name}` of this server opens {location}: write [secrets.{name}] into the settings file of \
                     the coordinator and of every executor, with the location's type and a scope that it begins with"
                )));
            }
        }
    }
    let mut plain = command.clone();
    plain.options.remove(OF_FORMAT);
    plain.options.remove(SECRET);
    Ok(Cow::Owned(plain))
}
