//! A cluster with TLS, users and a token.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow_flight::sql::client::FlightSqlServiceClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tidemill::client::Client;
use tidemill::security::{Access, NewUser, Shown};
use tidemill_core::Role;
use tidemill_engine::secrets::Secret;
use tidemill_tests::harness::{Process, lasting_port, value};
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

/// The cluster's token.
pub(super) const TOKEN: &str = "the-token-of-this-cluster-0123456789";
/// Carl's password.
pub(super) const PASSWORD: &str = "correct horse battery";
/// A query whose stages exchange data.
pub(super) const EXCHANGES: &str =
    "SELECT sum(n) FROM (SELECT x % 100 AS k, count(*) AS n FROM generate_series(1, 100000) AS t(x) GROUP BY k)";
/// How long a cluster may take to come together.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who signs certificates.
pub(super) struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its own certificate.
    pub(super) pem: PathBuf,
}

/// A certificate and its key.
pub(super) struct Signed {
    pub(super) cert: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let pem = folder.join(format!("{name}.pem"));
        std::fs::write(&pem, issuer.pem()).expect("a file");
        Self { folder: folder.to_owned(), issuer, pem }
    }

    /// A certificate for these addresses and names.
    pub(super) fn sign(&self, file: &str, names: &[&str]) -> Signed {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("names");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed {
            cert: secret_file(&self.folder, &format!("{file}.cert"), &cert.pem()),
            key: secret_file(&self.folder, &format!("{file}.key"), &key.serialize_pem()),
        }
    }

    pub(super) fn path(&self) -> String {
        self.pem.display().to_string()
    }
}

/// A file that only its owner may read.
pub(super) fn secret_file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("rights");
    path.display().to_string()
}

/// A cluster whose processes speak TLS, know each other by a token, and know four users.
pub(super) struct Secured {
    pub(super) folder: TempDir,
    pub(super) authority: Authority,
    pub(super) signed: Signed,
    pub(super) coordinator: Process,
    pub(super) executors: Vec<Process>,
    address: String,
    tokens: BTreeMap<&'static str, String>,
    environment: Vec<(&'static str, String)>,
}

impl Secured {
    /// Starts a cluster and waits until it knows its executors.
    pub(super) async fn start(executors: usize) -> Self {
        Self::start_with(executors, &[]).await
    }

    /// The same, with variables in every process's environment.
    pub(super) async fn start_with(executors: usize, environment: &[(&'static str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let authority = Authority::new(at, "authority");
        let signed = authority.sign("cluster", &["127.0.0.1", "localhost"]);
        for data in ["data", "state", "work"] {
            std::fs::create_dir(at.join(data)).expect("a folder");
        }
        secret_file(at, "cluster.token", &format!("{TOKEN}\n"));
        let users = at.join("users.toml");
        let tokens = [("ann", "write"), ("bob", "read"), ("root", "admin")].map(|(name, role)| {
            let added = Process::run(&["user", "add", name, "--role", role, "--users", &users.display().to_string()]);
            assert_eq!(added.code, Some(0), "{}", added.stderr);
            (name, added.stdout.trim().to_owned())
        });
        let carl = NewUser { name: "carl".to_owned(), role: Role::Read, shown: Shown::Password(Secret::new(PASSWORD)) };
        carl.add_to(&users).expect("a user");
        let address = format!("127.0.0.1:{}", lasting_port());
        let environment = environment.to_vec();
        let coordinator = coordinator(at, &signed, &authority, &address, &environment);
        let tokens = tokens.into();
        let mut cluster =
            Self { folder, authority, signed, coordinator, executors: Vec::new(), address, tokens, environment };
        for _ in 0..executors {
            cluster.add_executor();
        }
        cluster.wait_for_executors(executors).await;
        cluster
    }

    /// Kills the coordinator and starts it again.
    pub(super) fn restart_coordinator(&mut self) {
        self.coordinator.kill();
        let (at, address) = (self.folder.path(), &self.address);
        self.coordinator = coordinator(at, &self.signed, &self.authority, address, &self.environment);
    }

    pub(super) fn add_executor(&mut self) {
        let (url, ca, work) = (self.url(), self.authority.path(), self.path("work"));
        let (token, data) = (self.path("cluster.token"), self.path("data"));
        let args = [
            "executor",
            "--connect",
            &url,
            "--slots",
            "2",
            "--memory",
            "256MiB",
            "--work-dir",
            &work,
            "--tls-cert",
            &self.signed.cert,
            "--tls-key",
            &self.signed.key,
            "--tls-ca",
            &ca,
            "--cluster-token-file",
            &token,
            "--allow-path",
            &data,
        ];
        self.executors.push(Process::start_saying(&args, &self.environment, "is ready at https://"));
    }

    pub(super) async fn wait_for_executors(&self, executors: usize) {
        let mut root = self.client("root").await;
        let start = Instant::now();
        let alive = "SELECT count(*) FROM system.executors WHERE state = 'alive'";
        while value(&mut root, alive).await != executors.to_string() {
            assert!(start.elapsed() < PATIENCE, "{executors} executors do not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A file or folder of the cluster's.
    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(super) fn token(&self, user: &str) -> &str {
        &self.tokens[user]
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = &String> {
        self.tokens.values()
    }

    /// What a client of these shows.
    pub(super) fn access(&self, token: Option<&str>) -> Access {
        let tls_ca = Some(self.authority.pem.clone());
        Access { tls_ca, token: token.map(Secret::new), ..Access::default() }
    }

    /// A client of a user's.
    pub(super) async fn client(&self, user: &str) -> Client {
        let access = self.access(Some(self.token(user)));
        Client::connect_with(&self.url(), &access).await.expect("a client connects")
    }

    /// A client of Flight SQL that shows nothing yet.
    pub(super) async fn flight_sql(&self) -> FlightSqlServiceClient<Channel> {
        FlightSqlServiceClient::new(channel(&self.url(), &self.authority.pem).await)
    }

    /// The same of a user's.
    pub(super) async fn flight_sql_of(&self, user: &str) -> FlightSqlServiceClient<Channel> {
        let mut client = self.flight_sql().await;
        client.set_token(self.token(user).to_owned());
        client
    }
}

/// A connection with TLS.
pub(super) async fn channel(url: &str, ca: &Path) -> Channel {
    tidemill_engine::tls::choose_cryptography();
    let ca = Certificate::from_pem(std::fs::read(ca).expect("a certificate"));
    let endpoint = Channel::from_shared(url.to_owned()).expect("a URL");
    let endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(ca)).expect("TLS");
    endpoint.connect().await.expect("a connection")
}

fn coordinator(
    folder: &Path,
    signed: &Signed,
    authority: &Authority,
    address: &str,
    environment: &[(&str, String)],
) -> Process {
    let at = |name: &str| folder.join(name).display().to_string();
    let (state, ca) = (format!("file://{}", at("state")), authority.path());
    let (users, token, data) = (at("users.toml"), at("cluster.token"), at("data"));
    let args = [
        "coordinator",
        "--bind",
        address,
        "--state",
        &state,
        "--tls-cert",
        &signed.cert,
        "--tls-key",
        &signed.key,
        "--tls-ca",
        &ca,
        "--users",
        &users,
        "--cluster-token-file",
        &token,
        "--allow-path",
        &data,
    ];
    Process::start_saying(&args, environment, "is ready at https://")
}
