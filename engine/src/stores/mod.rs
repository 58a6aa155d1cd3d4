//! Object stores, opened with what this process was given: its secrets, or else the usual variables and files of each
//! cloud.
//!
//! | cloud | without a secret |
//! |---|---|
//! | S3 | `AWS_*`; `~/.aws/credentials` and `~/.aws/config` with `AWS_PROFILE`; a container's or machine's role |
//! | Google | `GOOGLE_*`, with `GOOGLE_APPLICATION_CREDENTIALS`; what `gcloud auth application-default login` left; the machine's account |
//! | Azure | `AZURE_*`, with `AZURE_STORAGE_CONNECTION_STRING`; `az login` with `AZURE_USE_AZURE_CLI=true`; the machine's identity |

mod aws;
mod azure;
mod profile;
mod scoped;

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use tidemill_core::{Error, Result};
use url::Url;

use crate::secrets::{NamedSecret, Secrets};
use scoped::ScopedStore;

/// The object store of a bucket; `None` for local files.
///
/// # Errors
/// The scheme is not served, or what the process was given does not open it.
pub(crate) fn open(url: &Url) -> Result<Option<Arc<dyn ObjectStore>>> {
    open_with(url, &Secrets::installed())
}

fn open_with(url: &Url, secrets: &Secrets) -> Result<Option<Arc<dyn ObjectStore>>> {
    if url.scheme() == "file" {
        return Ok(None);
    }
    let bucket = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
    let whole = one(url, secrets.covering(&bucket));
    let mut parts = Vec::new();
    for (secret, path) in secrets.within(&bucket) {
        parts.push((path, one(url, Some(secret))));
    }
    if parts.is_empty() {
        return whole.map(Some);
    }
    Ok(Some(Arc::new(ScopedStore::new(whole, parts))))
}

/// A bucket as one secret opens it, or the environment.
fn one(url: &Url, secret: Option<&NamedSecret>) -> Result<Arc<dyn ObjectStore>> {
    let closed = |variables: &str| {
        let advice = match secret {
            Some(secret) => format!("correct the secret `{}`", secret.name),
            None => format!("set the {variables} variables, or give the process a secret (docs/connectors.md)"),
        };
        move |e: object_store::Error| Error::invalid(format!("{} cannot be opened: {e}; {advice}", root(url)))
    };
    let address = url.as_str();
    Ok(match url.scheme() {
        "s3" | "s3a" => Arc::new(aws::builder(secret)?.with_url(address).build().map_err(closed("AWS_*"))?),
        "gs" => Arc::new(google(secret)?.with_url(address).build().map_err(closed("GOOGLE_*"))?),
        "az" => Arc::new(azure::builder(secret)?.with_url(address).build().map_err(closed("AZURE_*"))?),
        web @ ("http" | "https") => {
            return Err(Error::invalid(format!(
                "{web}:// is not served: download the file, or copy it to an object store, and use a path, file://, s3://, \
                 gs:// or az://"
            )));
        }
        other => {
            let message = format!("{other}:// is not served: use a path, file://, s3://, gs:// or az://");
            return Err(Error::invalid(message));
        }
    })
}

fn google(secret: Option<&NamedSecret>) -> Result<GoogleCloudStorageBuilder> {
    let Some(secret) = secret else { return Ok(GoogleCloudStorageBuilder::from_env()) };
    let mut builder = GoogleCloudStorageBuilder::new();
    for (key, value) in secret.resolve()? {
        let known: GoogleConfigKey = key.parse().map_err(|_| {
            unknown(secret, &key, "service_account_key, service_account_path, application_credentials, base_url")
        })?;
        builder = builder.with_config(known, value.expose());
    }
    Ok(builder)
}

fn unknown(secret: &NamedSecret, key: &str, known: &str) -> Error {
    let (name, of) = (&secret.name, secret.of);
    Error::invalid(format!("the secret `{name}` has a part `{key}`, which {of} does not have: use {known}"))
}

fn root(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::secrets::{Secret, SecretType, SecretValue};

    #[test]
    fn a_secret_is_told_what_is_wrong_with_it_but_not_what_it_is() -> std::result::Result<(), Box<dyn std::error::Error>>
    {
        for (of, url) in [(SecretType::S3, "s3://b/"), (SecretType::Gcs, "gs://b/"), (SecretType::Azure, "az://b/")] {
            let values = BTreeMap::from([("colour".to_owned(), SecretValue::Given(Secret::new("hunter2")))]);
            let secret = NamedSecret { name: "mine".to_owned(), of, scope: None, values };
            let opened = open_with(&Url::parse(url)?, &Secrets::new(vec![secret])?);
            let message = opened.err().map(|e| e.message).unwrap_or_default();
            assert!(message.contains("`mine` has a part `colour`") && !message.contains("hunter2"), "{message}");
        }
        Ok(())
    }
}
