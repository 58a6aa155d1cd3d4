//! Who is let in: every call of every service passes here first, with nothing but its headers read.
//!
//! ```text
//! authorization: Bearer TOKEN          a user's token, or a session's
//! authorization: Basic NAME:PASSWORD   is hashed where no call waits, and remembered for a while
//! tidemill-cluster: …                  a process of the cluster; or its certificate, in mutual TLS
//! ```
//!
//! Invariant: what is remembered is bounded. An answer tells neither whether a user exists nor what was wrong.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tidemill_core::{Error, Principal, Result};
use tidemill_engine::peers::{ClusterToken, random};
use tokio::sync::Semaphore;
use tonic::Status;

use super::failures::{Attempt, Failures};
use super::guarded::{Guarded, Shown};
use super::passes::{PASS, Passes};
use super::users::{Known, Users};

/// Passwords that are hashed at once: each takes 19 MiB and a core.
const HASHING: usize = 2;
/// How long a password waits for those before it.
const TURN: Duration = Duration::from_secs(10);
/// Passwords that are remembered, by hash.
const REMEMBERED: usize = 1024;
/// How long one is.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// Bytes of a header with credentials.
const MOST_HEADER: usize = 4096;

/// Who may call a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Clients.
    Clients,
    /// Processes of the cluster.
    Cluster,
}

/// Lets callers in, or does not.
#[derive(Clone)]
pub struct Gate(Arc<Doors>);

struct Doors {
    /// Without users, whoever reaches the port may do everything.
    users: Option<Arc<Users>>,
    cluster: Cluster,
    failures: Failures,
    hashing: Semaphore,
    /// Passwords that were right, by a hash that only this process can make.
    remembered: Mutex<HashMap<[u8; 32], (Known, Instant)>>,
    key: [u8; 32],
    passes: Passes,
}

/// By what processes of the cluster are known.
enum Cluster {
    /// By nothing: everything here is one machine's.
    Open,
    Known {
        token: Option<ClusterToken>,
        by_certificate: bool,
    },
}

impl Gate {
    /// One that lets everybody in.
    #[must_use]
    pub fn open() -> Self {
        Self::of(None, Cluster::Open, [0; 32], [0; 32])
    }

    /// One that asks clients who they are if there are users, and processes if there is anything to know them by.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(users: Option<Users>, token: Option<&ClusterToken>, by_certificate: bool) -> Result<Self> {
        let cluster = match (token, by_certificate) {
            (None, false) => Cluster::Open,
            (token, by_certificate) => Cluster::Known { token: token.cloned(), by_certificate },
        };
        let sessions = token.map_or_else(random, |token| Ok(token.sessions()))?;
        Ok(Self::of(users.map(Arc::new), cluster, random()?, sessions))
    }

    fn of(users: Option<Arc<Users>>, cluster: Cluster, key: [u8; 32], sessions: [u8; 32]) -> Self {
        Self(Arc::new(Doors {
            users,
            cluster,
            failures: Failures::default(),
            hashing: Semaphore::new(HASHING),
            remembered: Mutex::default(),
            key,
            passes: Passes::new(sessions),
        }))
    }

    /// A service behind this gate.
    #[must_use]
    pub fn guard<S>(&self, service: S, side: Side) -> Guarded<S> {
        Guarded { service, gate: self.clone(), side }
    }

    /// What a client shows from now on instead of its password; `None` where it is asked nothing.
    ///
    /// # Errors
    /// The user is not known any more.
    pub(crate) fn pass_for(&self, user: &Principal) -> Result<Option<String>> {
        let Some(users) = &self.0.users else { return Ok(None) };
        let known = users.by_name(&user.name).ok_or_else(|| Error::denied("the user is not known any more"))?;
        self.0.passes.give(&known, SystemTime::now()).map(Some)
    }

    /// Who makes a call, if it may.
    pub(super) async fn admit(&self, side: Side, shown: Shown) -> Result<Principal, Status> {
        match side {
            Side::Cluster => self.admit_peer(&shown).map(|()| Principal::anybody()),
            Side::Clients => match &self.0.users {
                None => Ok(Principal::anybody()),
                Some(users) => self.admit_client(users, shown).await,
            },
        }
    }

    fn admit_peer(&self, shown: &Shown) -> Result<(), Status> {
        let Cluster::Known { token, by_certificate } = &self.0.cluster else { return Ok(()) };
        let has_token = token.as_ref().zip(shown.cluster.as_ref()).is_some_and(|(token, shown)| token.is_shown(shown));
        if has_token || (*by_certificate && shown.has_certificate) {
            return Ok(());
        }
        let attempt = Attempt { address: shown.address, name: None };
        self.fail(&attempt)?;
        Err(Status::unauthenticated(
            "only processes of the cluster call this: start them with the cluster's --cluster-token-file, or with \
             certificates that its --tls-client-ca signed",
        ))
    }

    /// Counts a failure; an error if there were too many.
    fn fail(&self, attempt: &Attempt<'_>) -> Result<(), Status> {
        let now = Instant::now();
        self.wait(attempt, now)?;
        self.0.failures.charge(attempt, now);
        Ok(())
    }

    fn wait(&self, attempt: &Attempt<'_>, now: Instant) -> Result<(), Status> {
        match self.0.failures.wait(attempt, now) {
            None => Ok(()),
            Some(wait) => {
                tracing::warn!(address = ?attempt.address, "too many attempts to sign in failed");
                let seconds = wait.as_secs() + 1;
                Err(Status::resource_exhausted(format!("too many attempts failed: try again in {seconds} s")))
            }
        }
    }

    async fn admit_client(&self, users: &Arc<Users>, shown: Shown) -> Result<Principal, Status> {
        let Some(header) = shown.authorization.filter(|header| header.len() <= MOST_HEADER) else {
            return Err(Status::unauthenticated(
                "the server asks who you are: give a token (--token-file, TIDEMILL_TOKEN), or a user and a password",
            ));
        };
        let header = String::from_utf8(header).unwrap_or_default();
        let (scheme, rest) = header.split_once(' ').unwrap_or((header.as_str(), ""));
        let known = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => self.by_token(users, shown.address, rest.trim())?,
            "basic" => self.by_password(users, shown.address, rest.trim()).await?,
            _ => return Err(wrong()),
        };
        Ok(known.principal)
    }

    /// Tokens are too long to be guessed: right ones are let in whatever others at the same address do.
    fn by_token(&self, users: &Arc<Users>, address: Option<IpAddr>, token: &str) -> Result<Known, Status> {
        let known = match token.starts_with(PASS) {
            true => self.0.passes.check(token, users, SystemTime::now()),
            false => users.by_token(token),
        };
        match known {
            Some(known) => Ok(known),
            None => {
                self.fail(&Attempt { address, name: None })?;
                Err(wrong())
            }
        }
    }

    async fn by_password(&self, users: &Arc<Users>, address: Option<IpAddr>, shown: &str) -> Result<Known, Status> {
        let decoded = BASE64_STANDARD.decode(shown).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.unwrap_or_default();
        let Some((name, password)) = decoded.split_once(':') else {
            self.fail(&Attempt { address, name: None })?;
            return Err(wrong());
        };
        let remembered_as = *blake3::keyed_hash(&self.0.key, decoded.as_bytes()).as_bytes();
        if let Some(known) = self.remembered(users, &remembered_as) {
            return Ok(known);
        }
        let attempt = Attempt { address, name: Some(name) };
        self.wait(&attempt, Instant::now())?;
        let turn = tokio::time::timeout(TURN, self.0.hashing.acquire()).await;
        let _turn = turn
            .ok()
            .and_then(std::result::Result::ok)
            .ok_or_else(|| Status::unavailable("others sign in already: try again"))?;
        // Another call of the same client may have been before.
        if let Some(known) = self.remembered(users, &remembered_as) {
            return Ok(known);
        }
        self.fail(&attempt)?;
        let known = {
            let (users, name, password) = (Arc::clone(users), name.to_owned(), password.to_owned());
            tokio::task::spawn_blocking(move || users.by_password(&name, &password)).await.ok().flatten()
        };
        let known = known.ok_or_else(wrong)?;
        self.0.failures.refund(&attempt, Instant::now());
        self.remember(remembered_as, known.clone());
        Ok(known)
    }

    fn remembered(&self, users: &Users, shown: &[u8; 32]) -> Option<Known> {
        let known = {
            let remembered = self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            let (known, since) = remembered.get(shown)?;
            (since.elapsed() < REMEMBERED_FOR).then(|| known.clone())?
        };
        // As long as the users' file says the same.
        users.by_name(&known.principal.name).filter(|now| *now == known)
    }

    fn remember(&self, shown: [u8; 32], known: Known) {
        let mut remembered = self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.retain(|_, (_, since)| since.elapsed() < REMEMBERED_FOR);
        }
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(shown, (known, Instant::now()));
    }
}

fn wrong() -> Status {
    Status::unauthenticated("the token, or the user's name and password, are not right")
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use tidemill_core::Role;
    use tidemill_engine::peers::{CLUSTER_HEADER, Credential};
    use tidemill_engine::secrets::Secret;
    use tonic::Code;

    use super::super::users::{NewUser, Shown as ShownBy};
    use super::*;

    fn call(address: [u8; 4], authorization: &str) -> Shown {
        let authorization = Some(authorization.as_bytes().to_vec()).filter(|header| !header.is_empty());
        Shown { address: Some(address.into()), authorization, cluster: None, has_certificate: false }
    }

    fn basic(name: &str, password: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
    }

    fn code(admitted: Result<Principal, Status>) -> Code {
        admitted.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    #[tokio::test]
    async fn callers_are_who_they_show_to_be_and_guessing_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users.toml");
        let add = |name: &str, shown| NewUser { name: name.to_owned(), role: Role::Write, shown }.add_to(&path);
        let token = add("ann", ShownBy::Token).expect("a user").expect("a token");
        add("bob", ShownBy::Password(Secret::new("correct horse"))).expect("a user");
        let gate = Gate::new(Some(Users::open(&path).expect("users")), None, false).expect("a gate");
        let admit = async |address: [u8; 4], shown: &str| gate.admit(Side::Clients, call(address, shown)).await;
        let (near, far) = ([127, 0, 0, 1], [10, 0, 0, 1]);
        let bearer = format!("Bearer {}", token.expose());
        assert_eq!(admit(near, &bearer).await.map(|p| p.name).ok().as_deref(), Some("ann"));
        let bob = admit(near, &basic("bob", "correct horse")).await.expect("bob");
        let pass = gate.pass_for(&bob).expect("a pass").expect("a pass");
        assert_eq!(admit(near, &format!("bearer {pass}")).await.ok(), Some(bob));
        assert_eq!(code(admit(near, "").await), Code::Unauthenticated);
        for tried in 0..10 {
            assert_eq!(code(admit(far, "Bearer guess").await), Code::Unauthenticated, "{tried}");
        }
        assert_eq!(code(admit(far, "Bearer guess").await), Code::ResourceExhausted);
        // Who has a token is not kept out by who guesses at the same address; a password is not even tried.
        assert_eq!(code(admit(far, &bearer).await), Code::Ok);
        let other = "correct horse battery";
        assert_eq!(code(admit(far, &basic("eve", other)).await), Code::ResourceExhausted);
        for tried in 0..10u8 {
            let guessed = admit([10, 1, 1, tried], &basic("bob", &format!("guess {tried}"))).await;
            assert_eq!(code(guessed), Code::Unauthenticated, "{tried}");
        }
        assert_eq!(code(admit([10, 2, 2, 2], &basic("bob", "guess")).await), Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn processes_are_known_by_token_or_certificate() {
        let token = ClusterToken::new(&Secret::new("0123456789abcdef")).expect("a token");
        let shown = |cluster: Option<&[u8]>, has_certificate| Shown {
            address: None,
            authorization: None,
            cluster: cluster.map(<[u8]>::to_vec),
            has_certificate,
        };
        let by_token = Gate::new(None, Some(&token), false).expect("a gate");
        let by_certificate = Gate::new(None, None, true).expect("a gate");
        for (gate, shown, expected) in [
            (Gate::open(), shown(None, false), Code::Ok),
            (by_token.clone(), shown(None, true), Code::Unauthenticated),
            (by_token.clone(), shown(Some(b"0123456789abcdef"), false), Code::Unauthenticated),
            (by_certificate.clone(), shown(None, false), Code::Unauthenticated),
            (by_certificate, shown(None, true), Code::Ok),
        ] {
            assert_eq!(code(gate.admit(Side::Cluster, shown).await), expected);
        }
        // What it shows is what its calls carry.
        use tonic::service::Interceptor as _;
        let mut credential = Credential::cluster(&token);
        let request = credential.call(tonic::Request::new(())).expect("a call");
        let header = request.metadata().get(CLUSTER_HEADER).expect("a header").as_bytes().to_vec();
        assert_eq!(code(by_token.admit(Side::Cluster, shown(Some(&header), false)).await), Code::Ok);
    }
}
