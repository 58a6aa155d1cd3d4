//! Webhooks: whoever wants to know what became of a job's intervals is sent a small JSON document, see `docs/jobs.md`.
//!
//! Invariant: nothing waits for them, and those of one address not for those of another. A notice is in the state until it was told or
//! given up. Where one goes stands in no log: its address may be a secret.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};
use tidemill_core::interval::{Interval, JobName, Notice, RunKey};
use tidemill_core::record::AskedNotice;
use tidemill_core::schedule::Event;
use tidemill_core::{Error, Millis, Result};
use tidemill_engine::secrets::{Secret, SecretType, Secrets};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::driver::{Input, WeakInbox};

/// The value of `on_failure` and the others that names a secret begins like this.
const BY_NAME: &str = "secret:";
/// Waits between tries. After the last one the notice is given up.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
];
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Notices that are sent at once, and how many of these to one address: those of others do not wait for one that does not answer.
const AT_ONCE: usize = 64;
const AT_ONCE_EACH: usize = 2;
/// Notices that are kept in hand; of more, the core has given up the oldest.
const MOST: usize = 1_000;

/// Sends notices.
#[derive(Debug)]
pub(crate) struct Webhooks {
    /// Made when the first notice is sent.
    client: std::sync::OnceLock<Option<reqwest::Client>>,
    all: Arc<Semaphore>,
    /// Places of each address, or name of one, that somebody is calling.
    each: BTreeMap<String, Arc<Semaphore>>,
    /// What is being told: whoever leads next tells it again, and this process ends it then.
    telling: BTreeMap<u64, AbortHandle>,
}

impl Default for Webhooks {
    fn default() -> Self {
        let (client, all) = (std::sync::OnceLock::new(), Arc::new(Semaphore::new(AT_ONCE)));
        Self { client, all, each: BTreeMap::new(), telling: BTreeMap::new() }
    }
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        self.telling.values().for_each(AbortHandle::abort);
    }
}

impl Webhooks {
    /// Sends a notice, in its own time, and tells the driver when that is over.
    pub(crate) fn notify(&mut self, id: u64, asked: AskedNotice, inbox: WeakInbox) {
        let (client, room) = (self.client(), self.room(&asked.to));
        let AskedNotice { job, to, notice } = asked;
        let telling = tokio::spawn(async move {
            let sent = match (client, Target::of(&to)) {
                (Some(client), Ok(target)) => {
                    deliver(&client, &target, &document(&job, &notice).to_string(), &room, &job).await
                }
                (None, _) => Err(Error::internal("this process cannot call anybody")),
                (_, Err(error)) => Err(error),
            };
            if let Err(error) = sent {
                tracing::error!(%job, %error, "nobody is told of a job: its webhook does not take the notice");
            }
            inbox.send(Input::Event(Event::NoticeEnded { id })).await;
        });
        self.telling.retain(|_, telling| !telling.is_finished());
        self.telling.insert(id, telling.abort_handle());
        while self.telling.len() > MOST
            && let Some((notice, oldest)) = self.telling.pop_first()
        {
            tracing::error!(notice, "nobody is told of a job: {MOST} later notices wait for their webhooks");
            oldest.abort();
        }
    }

    /// Where calls to an address wait for each other.
    fn room(&mut self, to: &str) -> Room {
        self.each.retain(|_, own| Arc::strong_count(own) > 1);
        let own = self.each.entry(to.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_EACH)));
        Room { own: Arc::clone(own), all: Arc::clone(&self.all) }
    }

    fn client(&self) -> Option<reqwest::Client> {
        let made = || {
            let builder = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
            let client = builder.user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION"))).build();
            client.inspect_err(|error| tracing::error!(%error, "no webhook can be called")).ok()
        };
        self.client.get_or_init(made).clone()
    }
}

/// Places for calls.
struct Room {
    /// Of one address.
    own: Arc<Semaphore>,
    /// Of all.
    all: Arc<Semaphore>,
}

/// Where a notice goes.
struct Target {
    url: Secret,
    /// What is shown there as `authorization: Bearer …`.
    token: Option<Secret>,
}

impl Target {
    /// An address, or the name of a secret of the coordinator that has it.
    fn of(to: &str) -> Result<Self> {
        let Some(name) = to.strip_prefix(BY_NAME) else { return Ok(Self { url: Secret::new(to), token: None }) };
        let secrets = Secrets::installed();
        let secret = secrets.named(name, SecretType::Webhook)?;
        let url = secret.value("url")?.ok_or_else(|| {
            Error::invalid(format!("the secret `{name}` has no `url`: write it into the coordinator's settings file"))
        })?;
        Ok(Self { url, token: secret.value("token")? })
    }
}

/// Sends a notice until somebody takes it, or nobody will.
async fn deliver(client: &reqwest::Client, target: &Target, body: &str, room: &Room, job: &JobName) -> Result<()> {
    let mut sent = try_once(client, target, body, room).await;
    for pause in PAUSES {
        let Err(Refused { error, is_final: false }) = &sent else { break };
        tracing::warn!(%job, %error, "a webhook does not answer: it is called again");
        tokio::time::sleep(pause).await;
        sent = try_once(client, target, body, room).await;
    }
    sent.map_err(|refused| refused.error)
}

/// Why a notice was not taken.
struct Refused {
    error: Error,
    /// Whether it will not be taken later either.
    is_final: bool,
}

async fn try_once(
    client: &reqwest::Client,
    target: &Target,
    body: &str,
    room: &Room,
) -> std::result::Result<(), Refused> {
    // They are never closed. Whoever waits for its own address takes no place of others.
    let _own = room.own.acquire().await;
    let _place = room.all.acquire().await;
    let request = client.post(target.url.expose()).header("content-type", "application/json").body(body.to_owned());
    let request = match &target.token {
        Some(token) => request.bearer_auth(token.expose()),
        None => request,
    };
    let answer = request.send().await.map_err(|error| {
        let is_final = error.is_builder();
        Refused { error: Error::unavailable(why(error)), is_final }
    })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let may_pass = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
    Err(Refused { error: Error::unavailable(format!("it answers {status}")), is_final: !may_pass })
}

/// Why a call failed: without the address, which may be a secret.
fn why(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return format!("it does not answer within {} s", PATIENCE.as_secs());
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    format!("it cannot be called: {cause}")
}

/// What is sent.
fn document(job: &JobName, notice: &Notice) -> Value {
    let mut fields = Map::new();
    let mut set = |key: &str, value: Value| _ = fields.insert(key.to_owned(), value);
    set("job", json!(job.0));
    match notice {
        Notice::Failed { run, interval, error } => {
            set("event", json!("failed"));
            of_run(run, *interval, &mut set);
            set("error", json!({ "kind": error.kind.to_string(), "message": error.message }));
        }
        Notice::Published { run, interval, version } => {
            set("event", json!("published"));
            of_run(run, *interval, &mut set);
            set("version", json!(version));
        }
        Notice::Late { first, last, count } => {
            set("event", json!("late"));
            set("interval_start", time(first.start));
            set("interval_end", time(last.end));
            set("intervals", json!(count));
        }
    }
    Value::Object(fields)
}

fn of_run(run: &RunKey, interval: Interval, set: &mut impl FnMut(&str, Value)) {
    set("run", json!(run.run().0));
    set("interval_start", time(interval.start));
    set("interval_end", time(interval.end));
    set("generation", json!(run.generation));
    set("attempt", json!(run.attempt));
}

/// In UTC, as in RFC 3339.
fn time(at: Millis) -> Value {
    let at = i64::try_from(at.0).ok().and_then(DateTime::from_timestamp_millis);
    at.map_or(Value::Null, |at| Value::String(at.to_rfc3339_opts(SecondsFormat::Secs, true)))
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::driver::Inbox;

    fn failed() -> (JobName, Notice) {
        let job = JobName("daily".to_owned());
        let run = RunKey { job: job.clone(), incarnation: 1, index: 0, generation: 2, attempt: 3 };
        let interval = Interval { start: Millis(1_767_225_600_000), end: Millis(1_767_312_000_000) };
        (job, Notice::Failed { run, interval, error: Error::invalid("the check `positive` does not hold") })
    }

    #[test]
    fn a_document_says_which_run_of_which_interval_and_why() {
        let (job, notice) = failed();
        let expected = json!({
            "job": "daily", "event": "failed", "run": "job-daily-1-0-2-3", "generation": 2, "attempt": 3,
            "interval_start": "2026-01-01T00:00:00Z", "interval_end": "2026-01-02T00:00:00Z",
            "error": { "kind": "invalid", "message": "the check `positive` does not hold" },
        });
        assert_eq!(document(&job, &notice), expected);
        let interval = Interval { start: Millis(0), end: Millis(3_600_000) };
        let late = document(&job, &Notice::Late { first: interval, last: interval, count: 1 });
        assert_eq!(late.get("intervals"), Some(&json!(1)));
    }

    /// Answers with these lines, one connection each; what it was sent.
    async fn server(answers: Vec<&'static str>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let served = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a caller");
                let mut request = String::new();
                while !request.ends_with('}') {
                    let mut part = [0; 4096];
                    let read = stream.read(&mut part).await.expect("a request");
                    request.push_str(&String::from_utf8_lossy(part.get(..read).unwrap_or_default()));
                }
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("an answer");
                requests.push(request);
            }
            requests
        });
        (url, served)
    }

    async fn send(url: &str, token: Option<Secret>) -> Result<()> {
        let (job, notice) = failed();
        let client = Webhooks::default().client().expect("a client");
        let target = Target { url: Secret::new(url), token };
        let room = Webhooks::default().room(url);
        deliver(&client, &target, &document(&job, &notice).to_string(), &room, &job).await
    }

    /// A notice for an address.
    fn asked(to: &str) -> AskedNotice {
        let (job, notice) = failed();
        AskedNotice { job, to: to.to_owned(), notice }
    }

    /// Accepts calls and answers none; the address.
    async fn silent() -> (String, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        (format!("http://{}/hook", listener.local_addr().expect("an address")), listener)
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_up_no_other() {
        let (sender, mut inputs) = tokio::sync::mpsc::channel(8);
        let inbox = Inbox::new(sender);
        let mut webhooks = Webhooks::default();
        let (dead, _listener) = silent().await;
        let (living, served) = server(vec!["200 OK"]).await;
        for id in 1..=200 {
            webhooks.notify(id, asked(&dead), inbox.downgrade());
        }
        webhooks.notify(201, asked(&living), inbox.downgrade());
        let told = tokio::time::timeout(PATIENCE / 2, inputs.recv()).await.expect("in time");
        assert!(matches!(told, Some(Input::Event(Event::NoticeEnded { id: 201 }))));
        assert_eq!(served.await.expect("requests").len(), 1);
        assert_eq!(webhooks.all.available_permits(), AT_ONCE - AT_ONCE_EACH);
    }

    #[tokio::test]
    async fn no_more_notices_are_in_hand_than_the_core_keeps_and_none_when_another_leads() {
        let (sender, _inputs) = tokio::sync::mpsc::channel(8);
        let inbox = Inbox::new(sender);
        let mut webhooks = Webhooks::default();
        let (dead, _listener) = silent().await;
        for id in 1..=MOST as u64 + 5 {
            webhooks.notify(id, asked(&dead), inbox.downgrade());
        }
        assert_eq!(webhooks.telling.len(), MOST);
        assert_eq!(webhooks.telling.first_key_value().map(|(id, _)| *id), Some(6), "the oldest are given up");
        let telling: Vec<AbortHandle> = webhooks.telling.values().cloned().collect();
        let own = Arc::downgrade(webhooks.each.get(&dead).expect("its places"));
        drop(webhooks);
        let ended = async {
            while !telling.iter().all(AbortHandle::is_finished) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("they end");
        assert_eq!(own.strong_count(), 0);
    }

    #[tokio::test]
    async fn a_server_that_is_busy_is_called_again() {
        let (url, served) = server(vec!["503 Service Unavailable", "204 No Content"]).await;
        send(&url, Some(Secret::new("hunter2"))).await.expect("an end");
        let requests = served.await.expect("requests");
        assert_eq!(requests.len(), 2);
        let second = requests.last().expect("a request");
        assert!(second.starts_with("POST /hook HTTP/1.1\r\n") && second.contains("\"event\":\"failed\""), "{second}");
        assert!(second.contains("authorization: Bearer hunter2"), "{second}");
    }

    #[tokio::test]
    async fn a_server_that_refuses_is_left_alone_and_its_address_is_not_told() {
        let (url, served) = server(vec!["410 Gone"]).await;
        let error = send(&url, None).await.expect_err("a refusal");
        assert_eq!(error.message, "it answers 410 Gone");
        assert_eq!(served.await.expect("requests").len(), 1);
        let error = send("no address hunter2", None).await.expect_err("no address");
        assert!(!error.message.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn why_nobody_can_be_reached_is_told_without_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hunter2", listener.local_addr().expect("an address"));
        drop(listener);
        let client = Webhooks::default().client().expect("a client");
        let target = Target { url: Secret::new(url.as_str()), token: None };
        let refused = try_once(&client, &target, "{}", &Webhooks::default().room(&url)).await.expect_err("a refusal");
        let message = refused.error.message;
        assert!(!refused.is_final && message.starts_with("it cannot be called: Connection refused"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_secret_that_is_not_there_is_named() {
        let error = Target::of("secret:pager").err().expect("an error");
        assert!(error.message.contains("no secret `pager`"), "{error}");
    }
}
