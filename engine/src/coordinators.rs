//! The way to a cluster's coordinators: one leads, others stand by at addresses of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidemill_core::{Error, Result};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::wire::statuses;

/// How long a coordinator may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Coordinators by address. One is spoken to; after it failed, the next is.
#[derive(Debug, Clone)]
pub struct Coordinators {
    first: Arc<Address>,
    others: Arc<Vec<Address>>,
    /// Counts turns; the remainder says who is spoken to.
    turns: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Address {
    url: String,
    endpoint: Endpoint,
    channel: Channel,
}

/// One of them, to be spoken to.
#[derive(Debug, Clone)]
pub struct Coordinator {
    /// Its address.
    pub url: String,
    /// A connection, made when it is used.
    pub channel: Channel,
    turn: usize,
}

impl Coordinators {
    /// Those at `urls`, which are divided by commas. Connections are driven by the current runtime.
    ///
    /// # Errors
    /// One is no URL.
    pub fn at(urls: &str) -> Result<Self> {
        let (first, others) = urls.split_once(',').unwrap_or((urls, ""));
        let others = others.split(',').map(str::trim).filter(|url| !url.is_empty());
        let others = others.map(Address::new).collect::<Result<_>>()?;
        Ok(Self { first: Arc::new(Address::new(first.trim())?), others: Arc::new(others), turns: Arc::default() })
    }

    fn all(&self) -> impl Iterator<Item = &Address> {
        std::iter::once(self.first.as_ref()).chain(self.others.iter())
    }

    /// Who is spoken to now.
    #[must_use]
    pub fn current(&self) -> Coordinator {
        let turn = self.turns.load(Ordering::Relaxed);
        let address = self.all().nth(turn % (1 + self.others.len())).unwrap_or(&self.first);
        Coordinator { url: address.url.clone(), channel: address.channel.clone(), turn }
    }

    /// Speaks with the next, unless somebody else who spoke with this one does already.
    pub fn turn_from(&self, failed: &Coordinator) {
        let next = failed.turn.wrapping_add(1);
        // Somebody was quicker: that is as good.
        let _ = self.turns.compare_exchange(failed.turn, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Begins with the first that accepts a connection.
    ///
    /// # Errors
    /// None does.
    pub async fn find(&self) -> Result<()> {
        let mut refused = String::new();
        for address in self.all() {
            match address.endpoint.connect().await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    self.turn_from(&self.current());
                    refused = root_cause(&error);
                }
            }
        }
        Err(Error::unavailable(format!(
            "no coordinator answers at {self} ({refused}): is it running, and is the port right?"
        )))
    }
}

impl std::fmt::Display for Coordinators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let urls: Vec<&str> = self.all().map(|a| a.url.as_str()).collect();
        f.write_str(&urls.join(" or "))
    }
}

impl Coordinator {
    /// What a user is told of a status: a coordinator's own error has details.
    #[must_use]
    pub fn error(&self, status: &Status) -> Error {
        let error = statuses(status);
        match status.details().is_empty() {
            true => {
                let message = format!("the coordinator at {} does not answer: {}", self.url, error.message);
                Error { message, ..error }
            }
            false => error,
        }
    }
}

impl Address {
    fn new(url: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("`{url}` is not a URL: write http://HOST:PORT"));
        if url.starts_with("https://") {
            return Err(Error::invalid(format!("`{url}`: there is no TLS yet, write http://HOST:PORT")));
        }
        if !url.starts_with("http://") {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|_| wrong())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        Ok(Self { url: url.to_owned(), channel: endpoint.connect_lazy(), endpoint })
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
