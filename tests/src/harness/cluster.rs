//! A cluster inside the test's process, but with real sockets between coordinator, executors and client: as quick to
//! start as a function, as real as gRPC and Flight.

use std::sync::Arc;

use tempfile::TempDir;
use tidemill::Functions;
use tidemill::client::Client;
use tidemill::compose::{CoordinatorProcess, CoordinatorServer, ExecutorProcess, ExecutorServer};
use tidemill::security::Security;
use tidemill_core::Settings;
use tidemill_executor::GrpcLink;

/// Memory of each executor.
const MEMORY: usize = 256 << 20;

/// How large a cluster is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Executors.
    pub executors: u32,
    /// Slots of each.
    pub slots: u32,
}

/// A cluster on loopback ports.
pub struct LocalCluster {
    /// The coordinator.
    pub coordinator: CoordinatorServer,
    /// The executors.
    pub executors: Vec<ExecutorServer>,
    work: TempDir,
}

impl LocalCluster {
    /// Starts a cluster with the default settings.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(shape: Shape) -> Self {
        Self::with_settings(shape, Settings::default()).await
    }

    /// Starts a cluster.
    ///
    /// # Panics
    /// It does not start.
    pub async fn with_settings(shape: Shape, settings: Settings) -> Self {
        let coordinator =
            CoordinatorProcess::start(settings, Functions::default(), None).expect("a coordinator starts");
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let coordinator = coordinator.listen(loopback).await.expect("a coordinator listens");
        let work = tempfile::tempdir().expect("a temporary folder");
        let mut cluster = Self { coordinator, executors: Vec::new(), work };
        for _ in 0..shape.executors {
            cluster.add_executor(shape.slots).await;
        }
        cluster
    }

    /// Adds an executor and waits until it is known.
    ///
    /// # Panics
    /// It does not start.
    pub async fn add_executor(&mut self, slots: u32) {
        let bind = "127.0.0.1:0".parse().expect("an address");
        let work_dir = self.work.path().to_owned();
        let link = Arc::new(GrpcLink::new(&self.url()).expect("a link"));
        let (memory, functions, security) = (MEMORY, Functions::default(), Security::default());
        let executor = ExecutorProcess { bind, advertise: None, slots, memory, work_dir, functions, security };
        let executor = executor.start(link).await;
        self.executors.push(executor.expect("an executor starts"));
        while self.coordinator.coordinator().state().await.expect("a state").executors.len() < self.executors.len() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// The coordinator's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.coordinator.address)
    }

    /// A client of the cluster.
    ///
    /// # Panics
    /// It cannot connect.
    pub async fn client(&self) -> Client {
        Client::connect(&self.url()).await.expect("a client connects")
    }
}
