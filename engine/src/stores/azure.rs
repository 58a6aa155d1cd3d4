//! Azure: a secret, or else the variables of the SDKs and of the `az` command.

use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};
use tidemill_core::{Error, Result};

use super::unknown;
use crate::secrets::NamedSecret;

/// A variable that holds all of it.
const CONNECTION_STRING: &str = "AZURE_STORAGE_CONNECTION_STRING";
/// The part of a secret that does.
const CONNECTION_PART: &str = "connection_string";

/// A builder that knows account and credentials.
pub(super) fn builder(secret: Option<&NamedSecret>) -> Result<MicrosoftAzureBuilder> {
    match secret {
        Some(secret) => of_secret(secret),
        None => of_environment(|name| std::env::var(name).ok().filter(|value| !value.is_empty())),
    }
}

fn of_secret(secret: &NamedSecret) -> Result<MicrosoftAzureBuilder> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (key, value) in secret.resolve()? {
        let known: Key = match key.as_str() {
            CONNECTION_PART => {
                builder = with_connection_string(builder, value.expose(), CONNECTION_PART)?;
                continue;
            }
            "account" => Key::AccountName,
            "key" => Key::AccessKey,
            other => other.parse().map_err(|_| {
                unknown(
                    secret,
                    other,
                    "account, key, sas_token, connection_string, client_id, client_secret or tenant_id",
                )
            })?,
        };
        builder = builder.with_config(known, value.expose());
    }
    Ok(builder)
}

fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<MicrosoftAzureBuilder> {
    let mut builder = MicrosoftAzureBuilder::from_env();
    // Those of `az` have shorter names.
    for (name, key) in [("AZURE_STORAGE_ACCOUNT", Key::AccountName), ("AZURE_STORAGE_KEY", Key::AccessKey)] {
        if let Some(value) = variable(name).filter(|_| builder.get_config_value(&key).is_none()) {
            builder = builder.with_config(key, value);
        }
    }
    match variable(CONNECTION_STRING).filter(|_| builder.get_config_value(&Key::AccountName).is_none()) {
        Some(text) => with_connection_string(builder, &text, CONNECTION_STRING),
        None => Ok(builder),
    }
}

/// `AccountName=…;AccountKey=…;EndpointSuffix=core.windows.net`, as the portal shows it.
fn with_connection_string(mut builder: MicrosoftAzureBuilder, text: &str, of: &str) -> Result<MicrosoftAzureBuilder> {
    let parts = text.split(';').filter(|part| !part.trim().is_empty()).map(|part| part.split_once('='));
    let parts: Option<Vec<(&str, &str)>> = parts.collect();
    let part =
        |name: &str| parts.iter().flatten().find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, v)| *v);
    let (Some(_), Some(account)) = (&parts, part("AccountName")) else {
        return Err(Error::invalid(format!(
            "{of} has no AccountName=…;AccountKey=…: copy it from the storage account again"
        )));
    };
    builder = builder.with_account(account);
    if let Some(key) = part("AccountKey") {
        builder = builder.with_access_key(key);
    }
    if let Some(token) = part("SharedAccessSignature") {
        builder = builder.with_config(Key::SasKey, token);
    }
    if let Some(endpoint) = part("BlobEndpoint") {
        builder = builder.with_endpoint(endpoint.to_owned());
        if endpoint.starts_with("http://") {
            builder = builder.with_allow_http(true);
        }
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &[(&str, &str)]) -> Result<MicrosoftAzureBuilder> {
        of_environment(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn names_of_the_command_and_connection_strings_are_read() -> Result<()> {
        let account = |builder: &MicrosoftAzureBuilder| builder.get_config_value(&Key::AccountName);
        let az = environment(&[("AZURE_STORAGE_ACCOUNT", "pond"), ("AZURE_STORAGE_KEY", "a2V5")])?;
        assert_eq!((account(&az), az.get_config_value(&Key::AccessKey)), (Some("pond".into()), Some("a2V5".into())));
        let text = "DefaultEndpointsProtocol=https;AccountName=lake;AccountKey=a2V5==;EndpointSuffix=core.windows.net";
        let string = environment(&[(CONNECTION_STRING, text)])?;
        assert_eq!(
            (account(&string), string.get_config_value(&Key::AccessKey)),
            (Some("lake".into()), Some("a2V5==".into()))
        );
        let wrong = environment(&[(CONNECTION_STRING, "hunter2")]).err().map(|e| e.message).unwrap_or_default();
        assert!(wrong.contains("AccountName") && !wrong.contains("hunter2"), "{wrong}");
        Ok(())
    }
}
