//! Secrets of this process, by name: from its own settings file, environment and files.
//!
//! Invariant: a secret's value never travels. Statements, plans and the catalogue name secrets; each process looks the
//! name up in what it was started with. `Debug` and `Display` of a value are `***`.

mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{OnceLock, PoisonError, RwLock};

use tidemill_core::{Error, Result};
pub use value::{Secret, SecretValue, refuse_open};

/// What a secret opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretType {
    /// Buckets of S3 and what speaks like it.
    S3,
    /// Buckets of Google Cloud Storage.
    Gcs,
    /// Containers of Azure Blob Storage.
    Azure,
    /// A PostgreSQL server.
    Postgres,
    /// A `MySQL` or `MariaDB` server.
    Mysql,
    /// An address that is told of jobs: its `url`, and a `token` perhaps.
    Webhook,
}

impl SecretType {
    /// Every type, for messages and tests.
    pub const ALL: [Self; 6] = [Self::S3, Self::Gcs, Self::Azure, Self::Postgres, Self::Mysql, Self::Webhook];

    /// Its name in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Webhook => "webhook",
        }
    }

    /// The type of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn of(name: &str) -> Result<Self> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|of| of.name() == name);
        found.ok_or_else(|| Error::invalid(format!("`{name}` is no type of secret: use one of {}", names())))
    }

    /// The schemes of locations that a secret of this type opens.
    const fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &["s3", "s3a"],
            Self::Gcs => &["gs"],
            Self::Azure => &["az"],
            Self::Postgres | Self::Mysql | Self::Webhook => &[],
        }
    }
}

impl fmt::Display for SecretType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A secret as the process was told it.
#[derive(Debug, Clone)]
pub struct NamedSecret {
    /// By which statements name it.
    pub name: String,
    /// What it opens.
    pub of: SecretType,
    /// The locations that are opened with it without naming it: `s3://`, `s3://BUCKET` or `s3://BUCKET/PREFIX`.
    pub scope: Option<String>,
    /// Its parts.
    pub values: BTreeMap<String, SecretValue>,
}

impl NamedSecret {
    /// One of its parts, as it is now.
    ///
    /// # Errors
    /// The variable or file that it is kept in cannot be read.
    pub fn value(&self, key: &str) -> Result<Option<Secret>> {
        self.values.get(key).map(|value| self.resolved(key, value)).transpose()
    }

    /// All its parts, as they are now.
    ///
    /// # Errors
    /// A variable or file that one is kept in cannot be read.
    pub fn resolve(&self) -> Result<BTreeMap<String, Secret>> {
        self.values.iter().map(|(key, value)| Ok((key.clone(), self.resolved(key, value)?))).collect()
    }

    fn resolved(&self, key: &str, value: &SecretValue) -> Result<Secret> {
        let of = |e: Error| Error { message: format!("`{key}` of the secret `{}`: {}", self.name, e.message), ..e };
        value.resolve().map_err(of)
    }

    /// What locations begin with that it opens without being named, for object stores.
    #[must_use]
    pub fn opens(&self) -> Option<&str> {
        let whole_scheme = match self.of {
            SecretType::S3 => "s3://",
            SecretType::Gcs => "gs://",
            SecretType::Azure => "az://",
            SecretType::Postgres | SecretType::Mysql | SecretType::Webhook => return None,
        };
        Some(self.scope.as_deref().map_or(whole_scheme, |scope| scope.trim_end_matches('/'))).map(|scope| {
            // Of `s3://` nothing but the scheme is left.
            if scope.ends_with(':') { whole_scheme } else { scope }
        })
    }
}

/// The secrets of a process.
#[derive(Debug, Clone, Default)]
pub struct Secrets(BTreeMap<String, NamedSecret>);

static INSTALLED: OnceLock<RwLock<Secrets>> = OnceLock::new();

impl Secrets {
    /// These secrets.
    ///
    /// # Errors
    /// Two have one name or one scope, or a scope is no location of its type.
    pub fn new(secrets: Vec<NamedSecret>) -> Result<Self> {
        let mut named: BTreeMap<String, NamedSecret> = BTreeMap::new();
        for secret in secrets {
            check_scope(&secret)?;
            if let Some(other) = named.values().find(|other| same_scope(other, &secret)) {
                return Err(Error::invalid(format!(
                    "the secrets `{}` and `{}` are both for {}: give each a scope of its own",
                    other.name,
                    secret.name,
                    secret.opens().unwrap_or_default()
                )));
            }
            if let Some(twice) = named.insert(secret.name.clone(), secret) {
                return Err(Error::invalid(format!("the secret `{}` is given twice: rename one", twice.name)));
            }
        }
        Ok(Self(named))
    }

    /// Makes them those of this process, before it opens anything.
    pub fn install(self) {
        let slot = INSTALLED.get_or_init(RwLock::default);
        *slot.write().unwrap_or_else(PoisonError::into_inner) = self;
    }

    /// Those of this process.
    #[must_use]
    pub fn installed() -> Self {
        INSTALLED.get_or_init(RwLock::default).read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &NamedSecret> {
        self.0.values()
    }

    /// The secret of this name, which must open what `of` says.
    ///
    /// # Errors
    /// There is none, or it opens something else.
    pub fn named(&self, name: &str, of: SecretType) -> Result<&NamedSecret> {
        let Some(secret) = self.0.get(name) else {
            return Err(Error::not_found(format!(
                "this process knows no secret `{name}`: write [secrets.{name}] with type = \"{of}\" into the settings \
                 file of the coordinator and of every executor"
            )));
        };
        if secret.of == of {
            return Ok(secret);
        }
        Err(Error::invalid(format!(
            "the secret `{name}` is of type {}, and {of} is needed here: name another",
            secret.of
        )))
    }

    /// The secret whose scope is the longest that a location begins with.
    #[must_use]
    pub fn covering(&self, location: &str) -> Option<&NamedSecret> {
        let location = canonical(location);
        let covers =
            |secret: &&NamedSecret| secret.opens().is_some_and(|scope| begins_with(&location, &canonical(scope)));
        self.0.values().filter(covers).max_by_key(|secret| secret.opens().map_or(0, str::len))
    }

    /// The secrets for parts of a bucket: their scopes have a path.
    pub fn within<'a>(&'a self, bucket: &'a str) -> impl Iterator<Item = (&'a NamedSecret, String)> {
        let root = format!("{}/", canonical(bucket).trim_end_matches('/'));
        self.0.values().filter_map(move |secret| {
            let path = canonical(secret.opens()?).strip_prefix(&root)?.to_owned();
            (!path.is_empty()).then_some((secret, path))
        })
    }
}

/// One spelling for locations of one bucket.
fn canonical(location: &str) -> String {
    match location.strip_prefix("s3a://") {
        Some(rest) => format!("s3://{rest}"),
        None => location.to_owned(),
    }
}

/// Whether a location is a scope, or lies below it: `s3://b/p` holds `s3://b/p/x` and not `s3://b/pear`.
fn begins_with(location: &str, scope: &str) -> bool {
    let Some(rest) = location.strip_prefix(scope) else { return false };
    rest.is_empty() || scope.ends_with('/') || rest.starts_with('/')
}

fn same_scope(one: &NamedSecret, other: &NamedSecret) -> bool {
    one.opens().is_some() && one.opens().map(canonical) == other.opens().map(canonical)
}

fn check_scope(secret: &NamedSecret) -> Result<()> {
    let Some(scope) = &secret.scope else { return Ok(()) };
    let schemes = secret.of.schemes();
    if schemes.is_empty() {
        return Err(Error::invalid(format!(
            "the secret `{}` has a scope, and those of type {} are named by what uses them: leave it out",
            secret.name, secret.of
        )));
    }
    if schemes.iter().any(|scheme| scope.starts_with(&format!("{scheme}://"))) {
        return Ok(());
    }
    let (name, of, scheme) = (&secret.name, secret.of, schemes.first().copied().unwrap_or_default());
    Err(Error::invalid(format!(
        "the scope `{scope}` of the secret `{name}` is none of {of}: write {scheme}://BUCKET/PREFIX"
    )))
}

/// Refuses a location with a password in it, which would be kept wherever the location is.
///
/// # Errors
/// There is one.
pub fn check_location(location: &str) -> Result<()> {
    let rest = location.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    // A password may have a `/` in it, though it should not.
    let has_user = authority.contains('@') || (authority.contains(':') && rest.contains('@'));
    let signed = ["x-amz-signature=", "x-goog-signature=", "sig=", "password=", "x-amz-security-token="];
    let lower = location.to_lowercase();
    let is_signed = location.contains("://") && signed.iter().any(|word| lower.contains(word));
    if !is_signed && !has_user {
        return Ok(());
    }
    let shown: String = location.split("://").next().unwrap_or_default().chars().take(20).collect();
    Err(Error::invalid(format!(
        "the location {shown}://*** holds credentials, which would be kept with it: write the location without them, and \
         give them to the servers as a secret (docs/connectors.md)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, of: SecretType, scope: Option<&str>) -> NamedSecret {
        NamedSecret { name: name.to_owned(), of, scope: scope.map(str::to_owned), values: BTreeMap::new() }
    }

    #[test]
    fn the_longest_scope_opens_a_location() -> Result<()> {
        let secrets = Secrets::new(vec![
            secret("all", SecretType::S3, None),
            secret("lake", SecretType::S3, Some("s3://lake/")),
            secret("part", SecretType::S3, Some("s3://lake/part")),
            secret("other", SecretType::Gcs, Some("gs://lake/part/of/it")),
            secret("pg", SecretType::Postgres, None),
        ])?;
        let opened = |location: &str| secrets.covering(location).map(|secret| secret.name.clone());
        assert_eq!(opened("s3://pond/x").as_deref(), Some("all"));
        assert_eq!(opened("s3a://lake/x").as_deref(), Some("lake"));
        assert_eq!(opened("s3://lake/part/of/it").as_deref(), Some("part"));
        assert_eq!(opened("s3://lake/parting").as_deref(), Some("lake"));
        assert_eq!(opened("gs://lake/part"), None);
        let within: Vec<_> = secrets.within("s3://lake").map(|(secret, path)| (secret.name.clone(), path)).collect();
        assert_eq!(within, [("part".to_owned(), "part".to_owned())]);
        Ok(())
    }

    #[test]
    fn scopes_that_leave_a_doubt_are_refused() {
        let refused = |secrets| Secrets::new(secrets).err().map(|e| e.message).unwrap_or_default();
        let twice = vec![secret("a", SecretType::S3, None), secret("b", SecretType::S3, Some("s3://"))];
        assert!(refused(twice).contains("`a` and `b` are both for s3://"));
        assert!(refused(vec![secret("a", SecretType::Azure, Some("s3://b"))]).contains("write az://"));
        assert!(refused(vec![secret("a", SecretType::Postgres, Some("s3://b"))]).contains("leave it out"));
    }

    #[test]
    fn locations_with_credentials_are_refused_and_not_repeated() {
        for location in [
            "s3://key:hunter2@b/x",
            "postgres://u:hunter2@h/d",
            "az://c/x?sig=hunter2",
            "s3://hunter2@b/",
            "s3://k:hun/ter@b/",
        ] {
            let message = check_location(location).err().map(|e| e.message).unwrap_or_default();
            assert!(message.contains("a secret") && !message.contains("hunter2"), "{location}: {message}");
        }
        for location in ["s3://b/x@y/", "/home/a@b/c.csv", "public.orders", "s3://b/designs"] {
            assert!(check_location(location).is_ok(), "{location}");
        }
    }
}
