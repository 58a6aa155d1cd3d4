//! S3: a secret, or else the variables and files that every AWS tool reads.

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};
use tidemill_core::{Error, Result};

use super::profile::{Files, Profile};
use super::unknown;
use crate::secrets::NamedSecret;

/// The part of a secret that names a profile.
const PROFILE: &str = "profile";
/// The variable that does.
const PROFILE_VARIABLE: &str = "AWS_PROFILE";

/// A builder that knows credentials, region and endpoint.
pub(super) fn builder(secret: Option<&NamedSecret>) -> Result<AmazonS3Builder> {
    match secret {
        Some(secret) => of_secret(secret),
        None => of_environment(),
    }
}

fn of_secret(secret: &NamedSecret) -> Result<AmazonS3Builder> {
    let mut builder = AmazonS3Builder::new();
    let mut profile = None;
    for (key, value) in secret.resolve()? {
        let known = match key.as_str() {
            PROFILE => {
                profile = Some(value.expose().to_owned());
                continue;
            }
            // As DuckDB names them.
            "key_id" => Key::AccessKeyId,
            "secret" => Key::SecretAccessKey,
            other => other.parse().map_err(|_| {
                unknown(secret, other, "key_id, secret, session_token, region, endpoint, allow_http or profile")
            })?,
        };
        builder = builder.with_config(known, value.expose());
    }
    match profile {
        Some(name) => with_profile(builder, &Files::of_environment(), &name, Named::Yes),
        None => Ok(builder),
    }
}

/// In the order that AWS documents: variables, a web identity, the profile's files, then what the container or machine
/// gives (which the store's client asks by itself).
fn of_environment() -> Result<AmazonS3Builder> {
    let builder = AmazonS3Builder::from_env();
    match std::env::var(PROFILE_VARIABLE).ok().filter(|name| !name.is_empty()) {
        Some(name) => with_profile(builder, &Files::of_environment(), &name, Named::Yes),
        None => with_profile(builder, &Files::of_environment(), "default", Named::No),
    }
}

/// Whether somebody named the profile, which must then be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Yes,
    No,
}

fn with_profile(mut builder: AmazonS3Builder, files: &Files, name: &str, named: Named) -> Result<AmazonS3Builder> {
    let Some(profile) = files.profile(name)? else {
        return match named {
            Named::No => Ok(builder),
            Named::Yes => Err(Error::not_found(format!(
                "there is no AWS profile `{name}` in {files}: name another with {PROFILE_VARIABLE}"
            ))),
        };
    };
    for (part, key) in [("region", Key::Region), ("endpoint_url", Key::Endpoint)] {
        builder = with_default(builder, &profile, part, key);
    }
    let has = |builder: &AmazonS3Builder, key| builder.get_config_value(&key).is_some_and(|v| !v.is_empty());
    if has(&builder, Key::AccessKeyId) || has(&builder, Key::WebIdentityTokenFile) {
        return Ok(builder);
    }
    if profile.get("aws_access_key_id").is_some() {
        for (part, key) in [
            ("aws_access_key_id", Key::AccessKeyId),
            ("aws_secret_access_key", Key::SecretAccessKey),
            ("aws_session_token", Key::Token),
        ] {
            builder = with_default(builder, &profile, part, key);
        }
        return Ok(builder);
    }
    if profile.get("web_identity_token_file").is_some() {
        for (part, key) in [
            ("web_identity_token_file", Key::WebIdentityTokenFile),
            ("role_arn", Key::RoleArn),
            ("role_session_name", Key::RoleSessionName),
        ] {
            builder = with_default(builder, &profile, part, key);
        }
        return Ok(builder);
    }
    let elsewhere = ["credential_process", "sso_session", "sso_start_url", "role_arn", "source_profile"];
    match elsewhere.iter().find(|part| profile.get(part).is_some()) {
        Some(part) => Err(Error::invalid(format!(
            "the AWS profile `{name}` has its keys from {part}, which is not read here: give the server what \
             `aws configure export-credentials --profile {name}` prints"
        ))),
        None => Ok(builder),
    }
}

/// What the profile says, where nothing else did.
fn with_default(builder: AmazonS3Builder, profile: &Profile, part: &str, key: Key) -> AmazonS3Builder {
    match profile.get(part).filter(|_| builder.get_config_value(&key).is_none()) {
        Some(value) => builder.with_config(key, value.expose()),
        None => builder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key=one\n\n[lake]\n\
        # of the lake\naws_access_key_id=AKLAKE\naws_secret_access_key = two==\naws_session_token = three\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile lake]\nregion=eu-north-1\ns3 =\n  region = no\n\
        endpoint_url = http://127.0.0.1:9\n[profile sso]\nsso_session = corp\n";

    fn opened(name: &str, named: Named) -> Result<AmazonS3Builder> {
        with_profile(AmazonS3Builder::new(), &Files::of_texts(CREDENTIALS, CONFIG), name, named)
    }

    #[test]
    fn profiles_give_keys_region_and_endpoint() -> Result<()> {
        let lake = opened("lake", Named::Yes)?;
        let value = |key: Key| lake.get_config_value(&key).unwrap_or_default();
        assert_eq!(value(Key::AccessKeyId), "AKLAKE");
        assert_eq!(value(Key::SecretAccessKey), "two==");
        assert_eq!(value(Key::Token), "three");
        assert_eq!(value(Key::Region), "eu-north-1");
        assert_eq!(value(Key::Endpoint), "http://127.0.0.1:9");
        let default = opened("default", Named::No)?;
        assert_eq!(default.get_config_value(&Key::AccessKeyId).as_deref(), Some("AKDEFAULT"));
        Ok(())
    }

    #[test]
    fn what_was_set_before_stays() -> Result<()> {
        let set = AmazonS3Builder::new().with_access_key_id("AKSET").with_region("us-east-2");
        let set = with_profile(set, &Files::of_texts(CREDENTIALS, CONFIG), "lake", Named::No)?;
        assert_eq!(set.get_config_value(&Key::AccessKeyId).as_deref(), Some("AKSET"));
        assert_eq!(set.get_config_value(&Key::Token), None, "a token of other keys");
        assert_eq!(set.get_config_value(&Key::Region).as_deref(), Some("us-east-2"));
        Ok(())
    }

    #[test]
    fn profiles_that_are_not_there_or_not_read_are_named() {
        let refused = |name, named| opened(name, named).err().map(|e| e.message).unwrap_or_default();
        assert!(refused("pond", Named::Yes).contains("no AWS profile `pond`"));
        assert!(refused("sso", Named::Yes).contains("from sso_session"));
        assert_eq!(refused("pond", Named::No), "");
    }
}
