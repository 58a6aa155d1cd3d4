//! How this process speaks with others: whom it believes, and what it shows of itself.
//!
//! ```text
//! URL ──► Peers::endpoint (TLS where it says https) ──► Peers::open ──► a channel whose calls show the credential
//! ```
//!
//! Invariant: every connection to another process is made here, so none can be without TLS and credential where others
//! have them. No secret is in a `Debug` text.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tidemill_core::{Error, Result};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::secrets::{Secret, SecretValue};
use crate::tickets::TicketKeys;
use crate::tls::choose_cryptography;

/// The header in which processes of a cluster show that they belong to it.
pub const CLUSTER_HEADER: &str = "tidemill-cluster";
/// The header in which clients show who they are.
pub const AUTHORIZATION: &str = "authorization";
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Characters of a cluster token, at the least: it is guessed without a limit by who reads the network.
const LEAST_TOKEN: usize = 16;
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

/// What all processes of a cluster know and nobody else. Nothing of it travels but what is derived for each purpose.
#[derive(Clone)]
pub struct ClusterToken {
    shown: MetadataValue<Ascii>,
    tickets: [u8; 32],
    sessions: [u8; 32],
}

impl ClusterToken {
    /// The token that a cluster's processes are started with.
    ///
    /// # Errors
    /// It is too short.
    pub fn new(secret: &Secret) -> Result<Self> {
        let text = secret.expose();
        if text.len() < LEAST_TOKEN {
            return Err(Error::invalid(format!(
                "the cluster token has {} characters and is to have {LEAST_TOKEN} or more: make one with `openssl rand -hex 32`",
                text.len()
            )));
        }
        Self::of(text.as_bytes())
    }

    /// One that nobody else has.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> Result<Self> {
        Self::of(&random::<32>()?)
    }

    fn of(token: &[u8]) -> Result<Self> {
        let shown = blake3::Hash::from(blake3::derive_key("tidemill 2026-11 belongs to the cluster", token));
        let mut shown = MetadataValue::try_from(shown.to_hex().as_str())
            .map_err(|_| Error::internal("a derived token is no header"))?;
        shown.set_sensitive(true);
        Ok(Self {
            shown,
            tickets: blake3::derive_key("tidemill 2026-11 exchange tickets", token),
            sessions: blake3::derive_key("tidemill 2026-11 sessions of clients", token),
        })
    }

    /// Whether a call shows this token. Takes as long for every wrong one.
    #[must_use]
    pub fn is_shown(&self, shown: &[u8]) -> bool {
        blake3::hash(shown) == blake3::hash(self.shown.as_bytes())
    }

    /// The key of clients' sessions.
    #[must_use]
    pub const fn sessions(&self) -> [u8; 32] {
        self.sessions
    }
}

impl fmt::Debug for ClusterToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(cluster token)")
    }
}

/// Random bytes of the system.
///
/// # Errors
/// It gives none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::unavailable(format!("the system gives no random bytes: {e}")))?;
    Ok(bytes)
}

/// What calls show of their maker, in a header.
#[derive(Clone, Default)]
pub struct Credential(Option<(&'static str, MetadataValue<Ascii>)>);

impl Credential {
    /// A process of the cluster.
    #[must_use]
    pub fn cluster(token: &ClusterToken) -> Self {
        Self(Some((CLUSTER_HEADER, token.shown.clone())))
    }

    /// A client by its token.
    ///
    /// # Errors
    /// The token has characters that no header may have.
    pub fn bearer(token: &Secret) -> Result<Self> {
        Self::authorization(&format!("Bearer {}", token.expose().trim()))
    }

    /// A client by name and password.
    ///
    /// # Errors
    /// The name has a `:`.
    pub fn basic(name: &str, password: &str) -> Result<Self> {
        if name.contains(':') {
            return Err(Error::invalid("a user's name has no `:`"));
        }
        Self::authorization(&format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}"))))
    }

    fn authorization(value: &str) -> Result<Self> {
        let value = MetadataValue::try_from(value);
        let mut value = value.map_err(|_| Error::invalid("the token has characters that a token cannot have"))?;
        value.set_sensitive(true);
        Ok(Self(Some((AUTHORIZATION, value))))
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_nothing() { "no credential" } else { "(credential)" })
    }
}

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some((header, value)) = &self.0 {
            let metadata: &mut MetadataMap = request.metadata_mut();
            metadata.insert(*header, value.clone());
        }
        Ok(request)
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

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    #[test]
    fn no_secret_is_shown() {
        let token = ClusterToken::new(&secret("0123456789abcdef")).expect("a token");
        let bearer = Credential::bearer(&secret("xyzzy")).expect("a credential");
        let peers = Peers::of_cluster(Trust::default(), &token, InClear::Loopback).showing(bearer.clone());
        let hex = token.shown.to_str().expect("text").to_owned();
        for shown in [format!("{:?}", secret("xyzzy")), format!("{token:?} {bearer:?} {peers:?} {:?}", token.shown)] {
            assert!(
                !shown.contains("xyzzy") && !shown.contains("0123456789abcdef") && !shown.contains(&hex),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_token_is_known_again_and_no_other() {
        let token = ClusterToken::new(&secret("0123456789abcdef")).expect("a token");
        let same = ClusterToken::new(&secret("0123456789abcdef")).expect("a token");
        let other = ClusterToken::new(&secret("0123456789abcdeg")).expect("a token");
        assert!(token.is_shown(same.shown.as_bytes()));
        for wrong in [other.shown.as_bytes(), b"", b"0123456789abcdef"] {
            assert!(!token.is_shown(wrong));
        }
        assert!(ClusterToken::new(&secret("short")).is_err_and(|e| !e.message.contains("short")));
    }

    #[test]
    fn credentials_stay_in_the_machine_unless_they_are_encrypted() {
        let bearer = Credential::bearer(&secret("xyzzy")).expect("a credential");
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
