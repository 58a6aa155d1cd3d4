//! A wire between two processes that tests can cut, freeze and listen on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
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
}

/// HTTP requests by method and path, as they came.
type Requests = Arc<Mutex<Vec<(String, String)>>>;

/// A TCP proxy on a loopback port.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    wire: watch::Sender<Wire>,
    requests: Requests,
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
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, heard) = (state.clone(), Arc::clone(&heard));
                tokio::spawn(async move { connection(client, target, state, heard).await });
            }
        });
        Self { address, wire, requests, serving }
    }

    /// Changes what becomes of bytes, from now on.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
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
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
        self.wire.send_replace(Wire::Cut);
    }
}

async fn connection(mut client: TcpStream, target: SocketAddr, mut wire: watch::Receiver<Wire>, heard: Requests) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    // A request begins where bytes come after an answer: clients of HTTP/1.1 wait for it.
    let mut begins = true;
    loop {
        let now = *wire.borrow_and_update();
        let moved = match now {
            Wire::Cut => return,
            Wire::Frozen => {
                if wire.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Wire::Whole | Wire::Refusing(_) => tokio::select! {
                _ = wire.changed() => continue,
                read = client.read(&mut asked) => match read {
                    Ok(bytes) if bytes > 0 => {
                        let request = asked.get(..bytes).unwrap_or_default();
                        if std::mem::take(&mut begins) {
                            note(request, &heard);
                        }
                        match now {
                            Wire::Refusing(status) => return refuse(&mut client, status).await,
                            _ => server.write_all(request).await,
                        }
                    }
                    _ => return,
                },
                read = server.read(&mut answered) => match read {
                    Ok(bytes) if bytes > 0 => {
                        begins = true;
                        client.write_all(answered.get(..bytes).unwrap_or_default()).await
                    }
                    _ => return,
                },
            },
        };
        if moved.is_err() {
            return;
        }
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
