//! What guards a process: certificates, users, the cluster's token, and the files that it may touch. See
//! [`security.md`](../../../docs/security.md).
//!
//! ```text
//! client ──TLS──► Gate: who is it? ──Principal──► Flight SQL, statements ──► planner: may they?
//! process ─TLS──► Gate: does it belong to the cluster? ──► control, exchange blocks (signed tickets)
//! ```
//!
//! Invariant: nothing is read of a call but its headers before the gate has let it in.

mod failures;
mod gate;
mod guarded;
pub(crate) mod passes;
mod roles;
mod users;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidemill_core::{Error, Result};
use tidemill_engine::files::FileAccess;
use tidemill_engine::peers::{ClusterToken, Credential, InClear, Peers, Trust, read, root_cause};
use tidemill_engine::secrets::Secret;
use tidemill_engine::tls::choose_cryptography;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

pub use gate::{Gate, Side};
pub use guarded::Guarded;
pub(crate) use roles::check_plan;
pub(crate) use users::role;
pub use users::{NewUser, Shown, Users};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a process is told of its guard; everything may be left out.
#[derive(Debug, Clone, Default)]
pub struct SecurityConfig {
    /// Its certificate, and those that lead to its CA, in PEM.
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key, in PEM.
    pub tls_key: Option<PathBuf>,
    /// Certificates that sign those of other processes, in PEM; the system's if there are none.
    pub tls_ca: Option<PathBuf>,
    /// Certificates that sign those of the cluster's processes: one that shows such a certificate belongs to the cluster.
    pub tls_client_ca: Option<PathBuf>,
    /// The name in the certificates of other processes, where it is not that of their addresses.
    pub tls_name: Option<String>,
    /// What all processes of the cluster know.
    pub cluster_token: Option<Secret>,
    /// The users' file.
    pub users: Option<PathBuf>,
    /// Folders that users may read and write.
    pub allow_paths: Vec<PathBuf>,
    /// The same in object stores.
    pub allow_urls: Vec<String>,
    /// Whether it may listen where others reach it without TLS and authentication.
    pub insecure: bool,
}

/// Which role a process has, as far as it matters who calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listens {
    /// A coordinator: to clients, and to executors.
    Coordinator,
    /// Coordinator and executor in one: to clients, and to more executors perhaps.
    Server,
    /// An executor: to its cluster.
    Executor,
}

/// The guard of a process.
#[derive(Clone)]
pub struct Security {
    tls: Option<ServerTlsConfig>,
    /// How it speaks with others.
    peers: Peers,
    gate: Gate,
    files: FileAccess,
    /// What it lacks to be reached by others; empty where it lacks nothing.
    lacks: Vec<&'static str>,
    insecure: bool,
}

impl Default for Security {
    /// For a process that only its own machine reaches: nobody is asked anything.
    fn default() -> Self {
        Self {
            tls: None,
            peers: Peers::default(),
            gate: Gate::open(),
            files: FileAccess::everything(),
            lacks: vec!["TLS", "authentication"],
            insecure: false,
        }
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security").field("lacks", &self.lacks).field("files", &self.files).finish_non_exhaustive()
    }
}

/// What a process has against whoever reaches it.
struct Has {
    tls: bool,
    /// Something to know clients by.
    users: bool,
    /// Something to know processes by.
    peers: bool,
}

impl Has {
    fn lacks(&self, listens: Listens) -> Vec<&'static str> {
        let mut lacks = Vec::new();
        if !self.tls {
            lacks.push("TLS (--tls-cert, --tls-key)");
        }
        if listens != Listens::Executor && !self.users {
            lacks.push("authentication of clients (--users)");
        }
        if listens != Listens::Server && !self.peers {
            lacks.push("authentication of the cluster's processes (--cluster-token-file or --tls-client-ca)");
        }
        lacks
    }
}

impl SecurityConfig {
    /// Reads all files, and checks that they fit together and that the process may listen at `bind`.
    ///
    /// # Errors
    /// They do not; the error says what is missing, and how to do without.
    pub fn load(&self, listens: Listens, bind: SocketAddr) -> Result<Security> {
        let is_exposed = !is_loopback(bind);
        let token = self.cluster_token.as_ref().map(ClusterToken::new).transpose()?;
        let users = self.users.as_ref().map(|path| Users::open(path)).transpose()?;
        let knows_peers = token.is_some() || self.tls_client_ca.is_some();
        if users.is_some() && !knows_peers && listens == Listens::Coordinator {
            return Err(Error::invalid(
                "clients have to show who they are, and executors could not: give all processes of the cluster \
                 --cluster-token-file, or certificates and --tls-client-ca",
            ));
        }
        let tls = self.server_tls()?;
        let lacks = Has { tls: tls.is_some(), users: users.is_some(), peers: knows_peers }.lacks(listens);
        // One whose clients show who they are has a door for peers that only its own parts open.
        let token = match token {
            None if users.is_some() && self.tls_client_ca.is_none() => Some(ClusterToken::random()?),
            token => token,
        };
        // Where callers show who they are, they are not the user whose process it is.
        let is_own = !is_exposed && users.is_none() && !knows_peers;
        let files = match (self.allow_paths.is_empty() && self.allow_urls.is_empty(), is_own) {
            (true, true) => FileAccess::everything(),
            _ => FileAccess::only(&self.allow_paths, &self.allow_urls)?,
        };
        let gate = Gate::new(users, token.as_ref(), self.tls_client_ca.is_some())?;
        let peers = self.peers(token.as_ref())?;
        let security = Security { tls, peers, gate, files, lacks, insecure: self.insecure };
        security.check_bind(bind)?;
        Ok(security)
    }

    fn pem(path: &std::path::Path, what: &str) -> Result<Vec<u8>> {
        let pem = read(path, what)?;
        match pem.windows(10).any(|part| part == b"-----BEGIN") {
            true => Ok(pem),
            false => Err(Error::invalid(format!("{what} {} is not in PEM: it has no BEGIN line", path.display()))),
        }
    }

    fn identity(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                Ok(Some((Self::pem(cert, "the certificate")?, Self::pem(key, "the certificate's key")?)))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err(Error::invalid("--tls-cert needs its key: give --tls-key, too")),
            (None, Some(_)) => Err(Error::invalid("--tls-key needs its certificate: give --tls-cert, too")),
        }
    }

    fn server_tls(&self) -> Result<Option<ServerTlsConfig>> {
        let Some((cert, key)) = self.identity()? else {
            return match self.tls_client_ca {
                Some(_) => Err(Error::invalid("--tls-client-ca needs TLS: give --tls-cert and --tls-key, too")),
                None => Ok(None),
            };
        };
        choose_cryptography();
        let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, key)).timeout(HANDSHAKE);
        if let Some(path) = &self.tls_client_ca {
            let ca = Certificate::from_pem(Self::pem(path, "the CA's certificates")?);
            // Clients of the same port have none: the gate asks for one where it must be.
            tls = tls.client_ca_root(ca).client_auth_optional(true);
        }
        // What is wrong is said now, and not when it is this process's turn to lead.
        let unusable = |e| Error::invalid(format!("the TLS certificate and key cannot be used: {}", root_cause(&e)));
        Server::builder().tls_config(tls.clone()).map_err(unusable)?;
        Ok(Some(tls))
    }

    fn peers(&self, token: Option<&ClusterToken>) -> Result<Peers> {
        let authorities = self.tls_ca.as_deref().map(|path| Self::pem(path, "the CA's certificates")).transpose()?;
        let trust = Trust { authorities, name: self.tls_name.clone(), identity: self.identity()? };
        let in_clear = if self.insecure { InClear::Anywhere } else { InClear::Loopback };
        Ok(match token {
            Some(token) => Peers::of_cluster(trust, token, in_clear),
            None => Peers::new(trust, Credential::default(), in_clear),
        })
    }
}

impl Security {
    /// Refuses to listen where others reach it, unless it is guarded, or was told that it need not be.
    ///
    /// # Errors
    /// `Invalid`; the error says what is missing.
    pub fn check_bind(&self, address: SocketAddr) -> Result<()> {
        if is_loopback(address) || self.insecure || self.lacks.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{address} can be reached by other machines, and there is no {}: set that up (docs/security.md), listen on \
             127.0.0.1, or say --insecure",
            self.lacks.join(", and no ")
        )))
    }

    /// A server that speaks TLS where this process does.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn server(&self) -> Result<Server> {
        let server = Server::builder();
        let Some(tls) = &self.tls else { return Ok(server) };
        let unusable = |e| Error::invalid(format!("the TLS certificate and key cannot be used: {}", root_cause(&e)));
        server.tls_config(tls.clone()).map_err(unusable)
    }

    /// How it speaks with other processes.
    #[must_use]
    pub const fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Who lets callers in.
    #[must_use]
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Which files its users may touch through it.
    #[must_use]
    pub const fn files(&self) -> &FileAccess {
        &self.files
    }

    /// How URLs of this process begin.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// What a client shows of itself, and whom it believes.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Certificates that sign the coordinator's, in PEM; the system's if there are none.
    pub tls_ca: Option<PathBuf>,
    /// The name in the coordinator's certificate, where it is not that of its URL.
    pub tls_name: Option<String>,
    /// The user's token. A user with a password stands in the URL instead.
    pub token: Option<Secret>,
    /// Whether tokens and passwords may travel unencrypted.
    pub insecure: bool,
}

impl Access {
    /// How to speak with a coordinator.
    ///
    /// # Errors
    /// A file cannot be read, or the token is none.
    pub fn peers(&self) -> Result<Peers> {
        let authorities =
            self.tls_ca.as_deref().map(|path| SecurityConfig::pem(path, "the CA's certificates")).transpose()?;
        let trust = Trust { authorities, name: self.tls_name.clone(), identity: None };
        let credential = self.token.as_ref().map(Credential::bearer).transpose()?.unwrap_or_default();
        let in_clear = if self.insecure { InClear::Anywhere } else { InClear::Loopback };
        Ok(Peers::new(trust, credential, in_clear))
    }
}
