//! Flags of who may call a process, which files it may touch, and what a client shows of itself.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use tidemill_core::{Error, Result};
use tidemill_engine::peers::read_secret;
use tidemill_engine::secrets::Secret;

use crate::security::{Access, SecurityConfig};

/// A secret of the command line, or of a variable.
fn secret(text: &str) -> std::result::Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.trim()))
}

/// One of a secret and the file that it stands in.
fn one_of(given: Option<&Secret>, file: Option<&PathBuf>, flag: &str) -> Result<Option<Secret>> {
    match (given, file) {
        (Some(_), Some(_)) => Err(Error::invalid(format!("--{flag} and --{flag}-file are both given: leave out one"))),
        (Some(given), None) => Ok(Some(given.clone())),
        (None, file) => file.map(|path| read_secret(path)).transpose(),
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Security (docs/security.md)")]
pub(super) struct SecurityArgs {
    /// This process's certificate, in PEM, with those that lead to its CA
    #[arg(long, env = "TIDEMILL_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(long, env = "TIDEMILL_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// CA certificates, in PEM, that other processes' certificates must lead to [default: the system's]
    #[arg(long, env = "TIDEMILL_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// CA certificates, in PEM: a process that shows a certificate of theirs belongs to the cluster (mutual TLS)
    #[arg(long, env = "TIDEMILL_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// The name in other processes' certificates, where that is not the host of their addresses
    #[arg(long, env = "TIDEMILL_TLS_NAME", value_name = "NAME")]
    tls_name: Option<String>,
    /// File whose first line is the cluster's token: processes that know it belong to the cluster
    #[arg(long, env = "TIDEMILL_CLUSTER_TOKEN_FILE", value_name = "FILE")]
    cluster_token_file: Option<PathBuf>,
    /// The token itself; as a flag all users of the machine can see it, so use the variable or the file
    #[arg(
        long,
        env = "TIDEMILL_CLUSTER_TOKEN",
        value_name = "TOKEN",
        value_parser = secret,
        hide_env_values = true,
        hide_default_value = true
    )]
    cluster_token: Option<Secret>,
    /// Folder that statements may read and write; several with several flags, or divided by commas
    /// [default: all on loopback where nobody is asked who they are, none otherwise]
    #[arg(long, env = "TIDEMILL_ALLOW_PATH", value_name = "FOLDER", value_delimiter = ',')]
    allow_path: Vec<PathBuf>,
    /// The same in object stores, such as s3://BUCKET/FOLDER
    #[arg(long, env = "TIDEMILL_ALLOW_URL", value_name = "PREFIX", value_delimiter = ',')]
    allow_url: Vec<String>,
    /// Listen where other machines reach it without TLS and authentication, and send secrets unencrypted
    #[arg(long, env = "TIDEMILL_INSECURE", value_parser = BoolishValueParser::new())]
    insecure: bool,
}

impl SecurityArgs {
    /// What was said; a coordinator has users, too.
    pub(super) fn config(&self, users: Option<PathBuf>) -> Result<SecurityConfig> {
        Ok(SecurityConfig {
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            tls_ca: self.tls_ca.clone(),
            tls_client_ca: self.tls_client_ca.clone(),
            tls_name: self.tls_name.clone(),
            cluster_token: one_of(self.cluster_token.as_ref(), self.cluster_token_file.as_ref(), "cluster-token")?,
            users,
            allow_paths: self.allow_path.clone(),
            allow_urls: self.allow_url.clone(),
            insecure: self.insecure,
        })
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Security (docs/security.md)")]
pub(super) struct AccessArgs {
    /// CA certificates, in PEM, that the coordinator's certificate must lead to [default: the system's]
    #[arg(long, env = "TIDEMILL_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The name in the coordinator's certificate, where that is not the host of its URL
    #[arg(long, env = "TIDEMILL_TLS_NAME", value_name = "NAME")]
    tls_name: Option<String>,
    /// File whose first line is your token; a user with a password is written https://USER:PASSWORD@HOST:PORT
    #[arg(long, env = "TIDEMILL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token itself; as a flag all users of the machine can see it, so use the variable or the file
    #[arg(
        long,
        env = "TIDEMILL_TOKEN",
        value_name = "TOKEN",
        value_parser = secret,
        hide_env_values = true,
        hide_default_value = true
    )]
    token: Option<Secret>,
    /// Send tokens and passwords unencrypted to other machines
    #[arg(long, env = "TIDEMILL_INSECURE", value_parser = BoolishValueParser::new())]
    insecure: bool,
}

impl AccessArgs {
    pub(super) fn access(&self) -> Result<Access> {
        Ok(Access {
            tls_ca: self.tls_ca.clone(),
            tls_name: self.tls_name.clone(),
            token: one_of(self.token.as_ref(), self.token_file.as_ref(), "token")?,
            insecure: self.insecure,
        })
    }
}
