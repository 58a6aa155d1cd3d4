//! The servers that this process speaks with: one pool of connections for each secret, which all its tasks share.
//!
//! Invariant: no more than a secret's `connections` read at once; the others wait for one, by name and with an end.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tidemill_core::{Error, Result};
use tidemill_engine::connector::{RemoteRows, RemoteTable};
use tidemill_engine::secrets::{NamedSecret, Secret, SecretType, Secrets};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::deadline::{CONNECT, ROWS, within};

/// Connections of a process to one server, where the secret does not say.
const CONNECTIONS: usize = 4;

/// The connections of a driver to one server.
pub(super) trait Pool: Send + Sync + Sized + 'static {
    type Connection: Send + 'static;
    /// What opens it.
    const SECRET: SecretType;
    /// The parts of its secret but `connections`, and what the driver calls them.
    const PARTS: &'static [(&'static str, &'static str)];

    /// Opens it with what the driver calls its parameters. It may wait without leaving its thread.
    fn open(
        secret: &NamedSecret,
        parameters: HashMap<String, String>,
        connections: usize,
    ) -> impl Future<Output = Result<Self>> + Send;

    /// A connection more.
    fn connect(&self, secret: &NamedSecret) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// A part of the secret as the driver reads it.
    fn parameter(_part: &str, value: &str) -> String {
        value.to_owned()
    }
}

/// The servers of one kind, by secret.
pub(super) struct Servers<P>(Mutex<BTreeMap<String, Arc<Server<P>>>>);

/// A server, as its secret was when it was first asked.
struct Server<P> {
    /// Opened by whoever needs it first; the others wait for that. After a failure it is another.
    pool: Mutex<Opening<P>>,
    /// What it is opened with: another password opens another pool.
    given: BTreeMap<String, Secret>,
    /// The connections that nobody reads from.
    free: Arc<Semaphore>,
    connections: usize,
}

/// A pool that is opened once.
type Opening<P> = Arc<OnceCell<Arc<P>>>;

/// A connection, and the right to hold one.
pub(super) struct Session<P: Pool> {
    pub(super) connection: P::Connection,
    pub(super) pool: Arc<P>,
    _permit: OwnedSemaphorePermit,
}

impl<P> Default for Servers<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P> fmt::Debug for Servers<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Servers")
    }
}

impl<P: Pool> Servers<P> {
    /// A connection to the server of a table, for which others may have to end first.
    pub(super) async fn connect(&self, table: &RemoteTable, patience: Duration) -> Result<Session<P>> {
        let secrets = Secrets::installed();
        let secret = secrets.named(&table.database, P::SECRET)?;
        let server = self.server(secret)?;
        let permit = server.permit(&secret.name, patience).await?;
        let opening = Arc::clone(&server.opening());
        let connecting = async {
            let pool = opening.get_or_try_init(|| open(secret, &server)).await?;
            Ok((pool.connect(secret).await?, Arc::clone(pool)))
        };
        match within(CONNECT, "a connection", table, connecting).await {
            Ok((connection, pool)) => Ok(Session { connection, pool, _permit: permit }),
            Err(error) => {
                // Whoever comes next finds out at once whether it is there again.
                server.renew(&opening);
                Err(error)
            }
        }
    }

    /// The server of a secret as it is now.
    fn server(&self, secret: &NamedSecret) -> Result<Arc<Server<P>>> {
        let given = secret.resolve()?;
        let mut servers = self.servers();
        if let Some(known) = servers.get(&secret.name).filter(|server| server.given == given) {
            return Ok(Arc::clone(known));
        }
        let connections = connections(secret, given.get("connections"))?;
        // Those that read with the password of before are connections, too.
        let before = servers.get(&secret.name).filter(|before| before.connections == connections);
        let free = before.map_or_else(|| Arc::new(Semaphore::new(connections)), |before| Arc::clone(&before.free));
        let server = Arc::new(Server { pool: Mutex::default(), given, free, connections });
        servers.insert(secret.name.clone(), Arc::clone(&server));
        Ok(server)
    }

    fn servers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Server<P>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> Server<P> {
    /// The right to hold a connection.
    async fn permit(&self, secret: &str, patience: Duration) -> Result<OwnedSemaphorePermit> {
        match tokio::time::timeout(patience, Arc::clone(&self.free).acquire_owned()).await {
            Ok(permit) => permit.map_err(|_| Error::internal("a pool is closed")),
            Err(_) => Err(Error::unavailable(format!(
                "all {} connections of the secret `{secret}` were in use for {} s: give it more `connections`, or wait for the \
                 queries that read with it",
                self.connections,
                patience.as_secs()
            ))),
        }
    }

    fn opening(&self) -> MutexGuard<'_, Opening<P>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens another pool for whoever comes next, unless somebody has already.
    fn renew(&self, failed: &Opening<P>) {
        let mut opening = self.opening();
        if Arc::ptr_eq(&opening, failed) {
            *opening = Arc::default();
        }
    }
}

/// Opens a pool, on a thread of its own: the crate waits for the address without leaving its thread.
async fn open<P: Pool>(secret: &NamedSecret, server: &Server<P>) -> Result<Arc<P>> {
    let (runtime, connections) = (Handle::current(), server.connections);
    let (secret, parameters) = (secret.clone(), parameters::<P>(secret, &server.given)?);
    let opening = tokio::task::spawn_blocking(move || runtime.block_on(P::open(&secret, parameters, connections)));
    match opening.await {
        Ok(opened) => opened.map(Arc::new),
        Err(panic) => Err(Error::internal(format!("opening {} panicked: {panic}", P::SECRET))),
    }
}

/// What the driver is given.
fn parameters<P: Pool>(secret: &NamedSecret, given: &BTreeMap<String, Secret>) -> Result<HashMap<String, String>> {
    let (mut parameters, name) = (HashMap::new(), &secret.name);
    for (key, value) in given.iter().filter(|(key, _)| *key != "connections") {
        let Some((_, part)) = P::PARTS.iter().find(|(part, _)| part == key) else {
            let known: Vec<&str> = P::PARTS.iter().map(|(part, _)| *part).chain(["connections"]).collect();
            return Err(Error::invalid(format!(
                "the secret `{name}` has a part `{key}`, which {} does not have: use {}",
                P::SECRET,
                known.join(", ")
            )));
        };
        parameters.insert((*part).to_owned(), P::parameter(part, value.expose()));
    }
    if !parameters.contains_key("host") {
        return Err(Error::invalid(format!("the secret `{name}` has no `host`: say where the server is")));
    }
    Ok(parameters)
}

/// Connections of a process to one server: what its secret says, or a few.
fn connections(secret: &NamedSecret, part: Option<&Secret>) -> Result<usize> {
    let Some(part) = part else { return Ok(CONNECTIONS) };
    let number = part.expose().parse().ok().filter(|number| (1..=1_000).contains(number));
    let name = &secret.name;
    number.ok_or_else(|| Error::invalid(format!("`connections` of the secret `{name}` is no number from 1 to 1000")))
}

/// A query that runs.
pub(super) trait Running: Send + 'static {
    /// All rows have come.
    fn done(self);

    /// What an error between rows means.
    fn failed(&self, table: &RemoteTable, error: &DataFusionError) -> Error;
}

/// The rows of a query, each wait for them with an end. The query is dropped after the last, or the first error.
pub(super) fn guarded<R: Running>(rows: SendableRecordBatchStream, running: R, table: RemoteTable) -> RemoteRows {
    let next = move |state: Option<(SendableRecordBatchStream, R)>| {
        let table = table.clone();
        async move {
            let (mut rows, running) = state?;
            match within(ROWS, "rows", &table, async { Ok(rows.next().await) }).await {
                Ok(None) => {
                    running.done();
                    None
                }
                Ok(Some(Ok(batch))) => Some((Ok(batch), Some((rows, running)))),
                Ok(Some(Err(error))) => Some((Err(running.failed(&table, &error)), None)),
                Err(late) => Some((Err(late), None)),
            }
        }
    };
    futures::stream::unfold(Some((rows, running)), next).boxed()
}

/// The innermost of nested errors says most.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    first_line(&inner.to_string())
}

pub(super) fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}
