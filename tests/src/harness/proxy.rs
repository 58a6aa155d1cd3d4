//! A wire between two processes that tests can cut, freeze and listen on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// They arrive.
    Whole,
    /// Nothing arrives, and nobody is told.
    Frozen,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Every HTTP request is answered with this status, and does not arrive.
    Refusing(u16),
    /// Once per connection, a bit of a large answer changes.
    Flipping,
}

/// HTTP requests by method and path, as they came.
type Requests = Arc<Mutex<Vec<(String, String)>>>;

/// A TCP proxy on a loopback port.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    wire: watch::Sender<Wire>,
    requests: Requests,
    refused: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Starts one in front of `target`.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (wire, state) = watch::channel(Wire::Whole);
        let requests = Requests::default();
        let heard = Arc::clone(&requests);
        let refused = Arc::new(AtomicUsize::new(0));
        let harmed = Arc::clone(&refused);
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let wired = Wired { wire: state.clone(), heard: Arc::clone(&heard), refused: Arc::clone(&harmed) };
                tokio::spawn(wired.connection(client, target));
            }
        });
        Self { address, wire, requests, refused, serving }
    }

    /// Changes what becomes of bytes, from now on.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }

    /// How many connections were cut or not taken, requests refused, and answers changed.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many HTTP requests went through whose path contains `path`, by method; listings are `LIST`.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn requests(&self, path: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (method, of) in self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let listing = method == "GET" && of.contains("list-type=");
            if of.contains(path) {
                *counts.entry(if listing { "LIST".to_owned() } else { method.clone() }).or_default() += 1;
            }
        }
        counts
    }

    /// The paths that end with `ending` and that requests went to.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn paths(&self, ending: &str) -> BTreeSet<String> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = requests.iter().filter_map(|(_, of)| of.split('?').next());
        paths.filter(|path| path.ends_with(ending)).map(str::to_owned).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
        self.wire.send_replace(Wire::Cut);
    }
}

/// Bytes of an answer that is large enough to be changed.
const LARGE: usize = 4 << 10;

struct Wired {
    wire: watch::Receiver<Wire>,
    heard: Requests,
    refused: Arc<AtomicUsize>,
}

impl Wired {
    async fn connection(mut self, mut client: TcpStream, target: SocketAddr) {
        let Ok(mut server) = TcpStream::connect(target).await else { return };
        let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        // A request begins where bytes come after an answer: clients of HTTP/1.1 wait for it.
        let (mut begins, mut flipped) = (true, false);
        loop {
            let now = *self.wire.borrow_and_update();
            match now {
                Wire::Cut => return self.count(),
                Wire::Frozen => {
                    if self.wire.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                Wire::Whole | Wire::Refusing(_) | Wire::Flipping => {}
            }
            let moved = tokio::select! {
                _ = self.wire.changed() => continue,
                read = client.read(&mut asked) => {
                    let Some(request) = read.ok().filter(|n| *n > 0).and_then(|n| asked.get(..n)) else { return };
                    if std::mem::take(&mut begins) {
                        note(request, &self.heard);
                    }
                    if let Wire::Refusing(status) = now {
                        self.count();
                        return refuse(&mut client, status).await;
                    }
                    server.write_all(request).await
                }
                read = server.read(&mut answered) => {
                    let Some(answer) = read.ok().filter(|n| *n > 0).and_then(|n| answered.get_mut(..n)) else { return };
                    begins = true;
                    if now == Wire::Flipping && answer.len() > LARGE && !std::mem::replace(&mut flipped, true) {
                        self.count();
                        answer[LARGE / 2] ^= 0x10;
                    }
                    client.write_all(answer).await
                }
            };
            if moved.is_err() {
                return;
            }
        }
    }

    fn count(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

async fn refuse(client: &mut TcpStream, status: u16) {
    let answer = format!("HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    // Whoever asked may be gone.
    let _ = client.write_all(answer.as_bytes()).await;
}

fn note(request: &[u8], heard: &Requests) {
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    if let (Some(method @ ("GET" | "PUT" | "POST" | "DELETE" | "HEAD")), Some(path)) = (words.next(), words.next()) {
        heard.lock().unwrap_or_else(PoisonError::into_inner).push((method.to_owned(), path.to_owned()));
    }
}
