//! Secrets of this process, from the settings file and the environment.
//!
//! ```toml
//! [secrets.lake]
//! type = "s3"
//! scope = "s3://lake/raw"                      # opens these locations without being named
//! key_id = "AKIA…"
//! secret = { file = "/run/secrets/lake" }      # or { env = "LAKE_SECRET" }
//!
//! [secrets.shop]
//! type = "postgres"
//! host = "10.0.0.7"
//! user = "reader"
//! password = { env = "SHOP_PASSWORD" }
//! ```
//!
//! `TIDEMILL_SECRET_SHOP='{ type = "postgres", … }'` is the same, and wins.

use std::collections::BTreeMap;

use tidemill_core::{Error, Result};
use tidemill_engine::secrets::{NamedSecret, Secret, SecretType, SecretValue, Secrets, refuse_open};
use toml::{Table, Value};

use super::file::SettingsFile;
use crate::session::sounds_secret;

/// What the variables begin with that hold one secret each.
const VARIABLE: &str = "TIDEMILL_SECRET_";

/// What the process was told.
///
/// # Errors
/// A secret is not what it should be; what it is is not repeated.
pub(super) fn of(file: &SettingsFile) -> Result<Secrets> {
    let mut found: BTreeMap<String, NamedSecret> = BTreeMap::new();
    if let Some(table) = file.secrets() {
        let of_file = |e: Error| Error { message: format!("{}: {}", file.path.display(), e.message), ..e };
        for (name, value) in table {
            let secret = secret(name, value).map_err(of_file)?;
            if holds_one(&secret) {
                refuse_open(&file.path)?;
            }
            found.insert(name.clone(), secret);
        }
    }
    // Those of others may be no text.
    let own = std::env::vars_os().filter_map(|(variable, text)| {
        let variable = variable.into_string().ok().filter(|name| name.starts_with(VARIABLE))?;
        Some((variable, text.into_string()))
    });
    for (variable, text) in own {
        let text = text.map_err(|_| Error::invalid(format!("{variable} is no text in UTF-8: write it anew")))?;
        let name = variable.strip_prefix(VARIABLE).unwrap_or_default().to_lowercase();
        let table = format!("{name} = {text}").parse::<Table>();
        let value = table.ok().and_then(|table| table.get(&name).cloned());
        let value = value
            .ok_or_else(|| Error::invalid(format!("{variable} is no table of TOML: write {{ type = \"s3\", … }}")))?;
        let secret = secret(&name, &value).map_err(|e| Error { message: format!("{variable}: {}", e.message), ..e })?;
        found.insert(name, secret);
    }
    Secrets::new(found.into_values().collect())
}

fn secret(name: &str, value: &Value) -> Result<NamedSecret> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_name) {
        return Err(Error::invalid(format!("`{name}` is no name of a secret: use a-z, 0-9, _ and -")));
    }
    let Some(table) = value.as_table() else {
        return Err(Error::invalid(format!("secrets.{name} is no table: write [secrets.{name}] and a type below it")));
    };
    let text = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Error::invalid(format!("`{key}` of secrets.{name} is no text"))),
    };
    let of = text("type")?.ok_or_else(|| {
        let types = SecretType::ALL.map(SecretType::name).join(", ");
        Error::invalid(format!("secrets.{name} has no type: write type = \"…\", which is one of {types}"))
    })?;
    let parts = table.iter().filter(|(key, _)| !matches!(key.as_str(), "type" | "scope"));
    let values = parts.map(|(key, value)| Ok((key.clone(), part(name, key, value)?))).collect::<Result<_>>()?;
    Ok(NamedSecret { name: name.to_owned(), of: SecretType::of(&of)?, scope: text("scope")?, values })
}

fn part(name: &str, key: &str, value: &Value) -> Result<SecretValue> {
    let wrong = || {
        Error::invalid(format!(
            "`{key}` of secrets.{name} is no value: write a text, {{ env = \"VARIABLE\" }} or {{ file = \"PATH\" }}"
        ))
    };
    match value {
        Value::String(text) => Ok(SecretValue::Given(Secret::new(text))),
        Value::Integer(number) => Ok(SecretValue::Given(Secret::new(number.to_string()))),
        Value::Boolean(value) => Ok(SecretValue::Given(Secret::new(value.to_string()))),
        Value::Table(table) if table.len() == 1 => match (table.get("env"), table.get("file")) {
            (Some(Value::String(variable)), None) => Ok(SecretValue::Env(variable.clone())),
            (None, Some(Value::String(path))) => Ok(SecretValue::File(path.into())),
            _ => Err(wrong()),
        },
        Value::Table(_) | Value::Array(_) | Value::Float(_) | Value::Datetime(_) => Err(wrong()),
    }
}

/// Whether it stands there for whoever reads the file.
fn holds_one(secret: &NamedSecret) -> bool {
    let is_one = |key: &str| key == "key" || sounds_secret(key);
    secret.values.iter().any(|(key, value)| is_one(key) && matches!(value, SecretValue::Given(_)))
}
