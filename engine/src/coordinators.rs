//! The way to a cluster's coordinators: one leads, others stand by at addresses of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidemill_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::transport::Endpoint;
use url::Url;

use crate::peers::{Credential, PeerChannel, Peers, certificate_error, root_cause};
use crate::wire::{LEADER_HEADER, statuses};

/// How long a coordinator may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an alert may take: who is only slow is no port with TLS.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);
/// How a plain connection begins.
const HTTP2_BEGINS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The first byte of an alert of TLS.
const TLS_ALERT: u8 = 21;
/// How often a connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Coordinators by address. One is spoken to; after it failed, the next is.
#[derive(Debug, Clone)]
pub struct Coordinators {
    first: Arc<Address>,
    others: Arc<Vec<Address>>,
    /// Counts turns; the remainder says who is spoken to.
    turns: Arc<AtomicUsize>,
    /// Whether one that leads ever answered.
    led: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Address {
    /// Without a user and a password.
    url: String,
    endpoint: Endpoint,
    channel: PeerChannel,
}

/// One of them, to be spoken to.
#[derive(Debug, Clone)]
pub struct Coordinator {
    /// Its address.
    pub url: String,
    /// A connection, made when it is used.
    pub channel: PeerChannel,
    turn: usize,
    /// All that it is one of.
    of: Coordinators,
}

impl Coordinators {
    /// Those at `urls`, which are divided by commas. Connections are driven by the current runtime.
    ///
    /// # Errors
    /// One is no URL.
    pub fn at(urls: &str) -> Result<Self> {
        Self::through(urls, &Peers::default())
    }

    /// The same, spoken to as `peers` says; a user and a password may stand in the URLs.
    ///
    /// # Errors
    /// One is no URL, or a secret would travel unencrypted.
    pub fn through(urls: &str, peers: &Peers) -> Result<Self> {
        let (first, others) = urls.split_once(',').unwrap_or((urls, ""));
        let others = others.split(',').map(str::trim).filter(|url| !url.is_empty());
        let others = others.map(|url| Address::new(url, peers)).collect::<Result<_>>()?;
        let first = Arc::new(Address::new(first.trim(), peers)?);
        Ok(Self { first, others: Arc::new(others), turns: Arc::default(), led: Arc::default() })
    }

    fn all(&self) -> impl Iterator<Item = &Address> {
        std::iter::once(self.first.as_ref()).chain(self.others.iter())
    }

    /// Who is spoken to now.
    #[must_use]
    pub fn current(&self) -> Coordinator {
        let turn = self.turns.load(Ordering::Relaxed);
        let address = self.all().nth(turn % (1 + self.others.len())).unwrap_or(&self.first);
        Coordinator { url: address.url.clone(), channel: address.channel.clone(), turn, of: self.clone() }
    }

    /// Notes that one that leads answered.
    pub fn note_leader(&self) {
        self.led.store(true, Ordering::Relaxed);
    }

    /// Whether one that leads ever answered: then another will lead after it went away.
    #[must_use]
    pub fn had_leader(&self) -> bool {
        self.led.load(Ordering::Relaxed)
    }

    fn name(&self, authority: &str) -> bool {
        self.all().any(|a| a.url.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/') == authority))
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
    /// None does, or one is not who it should be.
    pub async fn find(&self) -> Result<()> {
        let mut refused = String::new();
        for address in self.all() {
            match address.endpoint.connect().await {
                Ok(_) if has_tls(&address.url).await => {
                    return Err(Error::unavailable(format!("{} has TLS: write https://", address.url)));
                }
                Ok(_) => return Ok(()),
                Err(error) => {
                    if let Some(why) = certificate_error(&error) {
                        return Err(untrusted(&address.url, &why));
                    }
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
        if let Some(why) = certificate_error(status) {
            return untrusted(&self.url, &why);
        }
        if let Some(leader) = leader_of(status) {
            let advice = match (self.of.name(leader), self.of.others.is_empty()) {
                (true, _) => ", which does not answer yet",
                (false, true) => ": give both to --connect, divided by commas",
                (false, false) => ": give that one to --connect, too, after a comma",
            };
            return Error::unavailable(format!("{} stands by, and {leader} leads{advice}", self.url));
        }
        let error = statuses(status);
        // One that has a kind of its own was said by who answers there; a call is cancelled, too, by a connection that ends.
        let by_connection = matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Cancelled);
        match status.details().is_empty() && by_connection {
            true => {
                let hint = if self.url.starts_with("http://") { ", and if it has TLS, write https://" } else { "" };
                let message = format!("the coordinator at {} does not answer: {}{hint}", self.url, error.message);
                Error { kind: ErrorKind::Unavailable, message, ..error }
            }
            false => error,
        }
    }
}

/// The address of the coordinator that leads, where one that stands by refused a call.
#[must_use]
pub fn leader_of(status: &Status) -> Option<&str> {
    // Only visible characters are text here, so whoever answers cannot write to a terminal.
    status.metadata().get(LEADER_HEADER)?.to_str().ok()
}

/// Whether what a URL takes for a plain port answers as TLS does: with an alert.
async fn has_tls(url: &str) -> bool {
    let Some(authority) = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()) else { return false };
    let asked = async {
        let mut port = TcpStream::connect(authority).await.ok()?;
        port.write_all(HTTP2_BEGINS).await.ok()?;
        port.read_u8().await.ok()
    };
    tokio::time::timeout(ALERT_TIMEOUT, asked).await.ok().flatten() == Some(TLS_ALERT)
}

fn untrusted(url: &str, why: &str) -> Error {
    Error::denied(format!(
        "the TLS certificates of {url} and of this process do not fit together ({why}): name the CA that signed the \
         other's with --tls-ca, and write the URL with a name that its certificate has"
    ))
}

impl Address {
    fn new(url: &str, peers: &Peers) -> Result<Self> {
        let (url, user) = without_user(url)?;
        let peers = match user {
            None => peers.clone(),
            Some(user) if peers.shows_nothing() => peers.showing(user),
            Some(_) => {
                return Err(Error::invalid(format!(
                    "{url} comes with a user, and there is a token: leave out one of them"
                )));
            }
        };
        let endpoint = peers
            .endpoint(&url)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        Ok(Self { url, channel: peers.open(&endpoint), endpoint })
    }
}

/// A URL without the user in it, and the user's credential.
fn without_user(url: &str) -> Result<(String, Option<Credential>)> {
    // A password must not get into messages.
    let shown = without_password(url);
    let wrong = || Error::invalid(format!("`{shown}` is not a URL: write http://HOST:PORT or https://HOST:PORT"));
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(wrong());
    }
    if !url.contains('@') {
        return Ok((url.to_owned(), None));
    }
    let mut parsed = Url::parse(url).map_err(|_| wrong())?;
    let decoded = |text: &str| {
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
        decoded.map(std::borrow::Cow::into_owned).map_err(|_| wrong())
    };
    let (name, password) = (decoded(parsed.username())?, decoded(parsed.password().unwrap_or_default())?);
    parsed.set_username("").and_then(|()| parsed.set_password(None)).map_err(|()| wrong())?;
    let credential = if name.is_empty() { None } else { Some(Credential::basic(&name, &password)?) };
    Ok((parsed.as_str().trim_end_matches('/').to_owned(), credential))
}

/// URLs as they may be shown: without passwords.
#[must_use]
pub fn without_password(urls: &str) -> String {
    let shown = urls.split(',').map(|url| match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            let (before, after) = (url.get(..scheme + 3).unwrap_or_default(), url.get(at + 1..).unwrap_or_default());
            format!("{before}{after}")
        }
        _ => url.to_owned(),
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_stands_by_is_told_from_who_does_not_answer() {
        let mut refused = Status::unavailable("it stands by");
        refused.metadata_mut().insert(LEADER_HEADER, "127.0.0.1:2".parse().expect("an address"));
        let one = Coordinators::at("http://ann:s3cret@127.0.0.1:1").expect("a URL").current();
        let error = one.error(&refused);
        let says = "http://127.0.0.1:1 stands by, and 127.0.0.1:2 leads: give both to --connect, divided by commas";
        assert!(error.kind == ErrorKind::Unavailable && error.message == says, "{error}");
        for (urls, says) in [
            ("http://127.0.0.1:1,http://127.0.0.1:2/", "127.0.0.1:2 leads, which does not answer yet"),
            ("http://127.0.0.1:1,http://127.0.0.1:3", "127.0.0.1:2 leads: give that one to --connect, too"),
        ] {
            let error = Coordinators::at(urls).expect("URLs").current().error(&refused);
            assert!(error.message.contains(says), "{error}");
        }
        let ended = one.error(&Status::cancelled("operation was canceled"));
        assert!(
            ended.kind == ErrorKind::Unavailable && ended.message.contains("127.0.0.1:1 does not answer"),
            "{ended}"
        );
    }

    #[tokio::test]
    async fn passwords_are_taken_out_of_urls() {
        let coordinators = Coordinators::at("http://ann:s3c%3Aret@127.0.0.1:1, http://127.0.0.1:2").expect("URLs");
        let shown = format!("{coordinators} {coordinators:?} {}", coordinators.current().url);
        assert!(!shown.contains("s3c") && shown.starts_with("http://127.0.0.1:1 or http://127.0.0.1:2"), "{shown}");
        let refused = Coordinators::at("http://ann:s3cret@10.0.0.1:1").expect_err("it is not encrypted");
        assert!(!refused.message.contains("s3cret") && refused.kind == ErrorKind::Denied, "{refused}");
        let wrong = Coordinators::at("ftp://ann:s3cret@h").expect_err("no URL");
        assert!(!wrong.message.contains("s3cret"), "{wrong}");
        assert_eq!(without_password("https://ann:x@h:1,http://i:2"), "https://h:1,http://i:2");
    }
}
