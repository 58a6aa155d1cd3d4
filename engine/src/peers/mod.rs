//! How this process speaks with others: whom it believes, and what it shows of itself.
//!
//! ```text
//! URL ──► Peers::endpoint (TLS where it says https) ──► Peers::open ──► a channel whose calls show the credential
//! ```
//!
//! Invariant: every connection to another process is made here, so none can be without TLS and credential where others
//! have them.

mod credential;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{Error, Result};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::secrets::{Secret, SecretValue};
use crate::tickets::TicketKeys;
use crate::tls::choose_cryptography;

pub use credential::{AUTHORIZATION, CLUSTER_HEADER, ClusterToken, Credential, random};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Bytes of a file with a token or certificates, at the most.
const MOST_FILE: u64 = 1 << 20;

/// A channel whose calls show who makes them.
pub type PeerChannel = InterceptedService<Channel, Credential>;

/// The secret in a file's first line, without the white space around it.
///
/// # Errors
/// It cannot be read, everybody may read it, or it is empty.
pub fn read_secret(path: &Path) -> Result<Secret> {
    let text = SecretValue::File(path.to_owned()).resolve()?;
    match text.expose().lines().next().map(str::trim).filter(|line| !line.is_empty()) {
        Some(line) => Ok(Secret::new(line)),
        None => Err(Error::invalid(format!("{} is empty: its first line is to be the secret", path.display()))),
    }
}

/// A file that the process is started with.
///
/// # Errors
/// It cannot be read, or is larger than any of its kind; the error names it and `what` it was to be.
pub fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let unreadable = |e: &dyn fmt::Display| Error::invalid(format!("{what} {} cannot be read: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| unreadable(&e))?;
    let mut bytes = Vec::new();
    file.take(MOST_FILE + 1).read_to_end(&mut bytes).map_err(|e| unreadable(&e))?;
    match bytes.len() as u64 > MOST_FILE {
        true => Err(unreadable(&"it has more than 1 MiB")),
        false => Ok(bytes),
    }
}

/// Whom a process believes, and the certificate that it shows.
#[derive(Clone, Default)]
pub struct Trust {
    /// Certificates, in PEM, that sign those of others; without them the system's are believed.
    pub authorities: Option<Vec<u8>>,
    /// The name that others' certificates have, where it is not that of their URL.
    pub name: Option<String>,
    /// The certificate and key of this process, in PEM, for those who ask for them: mutual TLS.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Whether a credential may travel where others can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InClear {
    /// Only inside this machine.
    #[default]
    Loopback,
    /// `--insecure` says so.
    Anywhere,
}

/// How this process speaks with others.
#[derive(Clone, Default)]
pub struct Peers {
    trust: Arc<Trust>,
    credential: Credential,
    in_clear: InClear,
    tickets: TicketKeys,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("credential", &self.credential).finish_non_exhaustive()
    }
}

impl Peers {
    /// With a client's credential, or none.
    #[must_use]
    pub fn new(trust: Trust, credential: Credential, in_clear: InClear) -> Self {
        Self { trust: Arc::new(trust), credential, in_clear, tickets: TicketKeys::default() }
    }

    /// As a process of a cluster that has a token.
    #[must_use]
    pub fn of_cluster(trust: Trust, token: &ClusterToken, in_clear: InClear) -> Self {
        let tickets = TicketKeys::of_token(token.tickets);
        Self { trust: Arc::new(trust), credential: Credential::cluster(token), in_clear, tickets }
    }

    /// The same, with another credential.
    #[must_use]
    pub fn showing(&self, credential: Credential) -> Self {
        Self { credential, ..self.clone() }
    }

    /// Whether calls show nothing of their maker.
    #[must_use]
    pub const fn shows_nothing(&self) -> bool {
        self.credential.is_nothing()
    }

    /// What signs exchange tickets, and checks them.
    #[must_use]
    pub const fn tickets(&self) -> &TicketKeys {
        &self.tickets
    }

    /// Another process, by its URL.
    ///
    /// # Errors
    /// It is no URL; or the credential would travel unencrypted; or the certificates are none.
    pub fn endpoint(&self, url: &str) -> Result<Endpoint> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| {
            Error::invalid(format!("`{url}` is not a URL: write http://HOST:PORT or https://HOST:PORT"))
        })?;
        if url.starts_with("https://") {
            let unusable = |e| {
                let why = root_cause(&e);
                Error::invalid(format!(
                    "TLS to {url} cannot be set up ({why}): name the CA's certificates with --tls-ca"
                ))
            };
            return endpoint.tls_config(self.tls()).map_err(unusable);
        }
        // Who has a certificate to show means to show it, and tells keys to those who answer.
        let shows_nothing = self.credential.is_nothing() && self.trust.identity.is_none();
        let is_safe = shows_nothing || self.in_clear == InClear::Anywhere || is_loopback(&endpoint);
        match is_safe {
            true => Ok(endpoint),
            false => Err(Error::denied(format!(
                "`{url}` would carry a secret that everybody on the way can read: write https://, or say --insecure"
            ))),
        }
    }

    /// A connection that is made when it is used, driven by the current runtime.
    #[must_use]
    pub fn open(&self, endpoint: &Endpoint) -> PeerChannel {
        InterceptedService::new(endpoint.connect_lazy(), self.credential.clone())
    }

    fn tls(&self) -> ClientTlsConfig {
        let Trust { authorities, name, identity } = self.trust.as_ref();
        choose_cryptography();
        let mut tls = ClientTlsConfig::new().timeout(HANDSHAKE);
        tls = match authorities {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_native_roots(),
        };
        if let Some(name) = name {
            tls = tls.domain_name(name.clone());
        }
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        tls
    }
}

fn is_loopback(endpoint: &Endpoint) -> bool {
    let host = endpoint.uri().host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// What a chain of errors began with.
#[must_use]
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Why a certificate, theirs or ours, was not accepted, if that is what a chain of errors is about.
#[must_use]
pub fn certificate_error(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut current = Some(error);
    while let Some(e) = current {
        // The system's errors hide what they are made of.
        let inner = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let of_tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match of_tls.or_else(|| e.downcast_ref::<rustls::Error>()) {
            Some(refused @ (rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))) => {
                return Some(refused.to_string());
            }
            _ => current = e.source(),
        }
    }
    None
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_in_the_machine_unless_they_are_encrypted() {
        let bearer = Credential::bearer(&Secret::new("xyzzy")).expect("a credential");
        let peers = |in_clear| Peers::new(Trust::default(), bearer.clone(), in_clear);
        let (careful, careless) = (peers(InClear::Loopback), peers(InClear::Anywhere));
        for (url, is_safe) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost:1", true),
            ("http://10.0.0.1:1", false),
            ("http://localhost.example.com:1", false),
        ] {
            assert_eq!(careful.endpoint(url).is_ok(), is_safe, "{url}");
            assert!(careless.endpoint(url).is_ok() && Peers::default().endpoint(url).is_ok(), "{url}");
            let identity = Some((Vec::new(), Vec::new()));
            let known = Peers::new(Trust { identity, ..Trust::default() }, Credential::default(), InClear::Loopback);
            assert_eq!(known.endpoint(url).is_ok(), is_safe, "{url}: by its certificate");
        }
    }
}
