//! What calls show of their maker: that it is a process of the cluster, or which client it is.
//!
//! Invariant: no secret is in a `Debug` text.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tidemill_core::{Error, Result};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::secrets::Secret;

/// The header in which processes of a cluster show that they belong to it.
pub const CLUSTER_HEADER: &str = "tidemill-cluster";
/// The header in which clients show who they are.
pub const AUTHORIZATION: &str = "authorization";
/// Characters of a cluster token, at the least: it is guessed without a limit by who reads the network.
const LEAST_TOKEN: usize = 16;

/// What all processes of a cluster know and nobody else. Nothing of it travels but what is derived for each purpose.
#[derive(Clone)]
pub struct ClusterToken {
    shown: MetadataValue<Ascii>,
    pub(super) tickets: [u8; 32],
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

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::super::{InClear, Peers, Trust};
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
}
