//! Rows of temporary tables end with their sessions.

use tidemill_core::record::{Outcome, Record, State, TableRows};
use tidemill_core::schedule::{Action, Event, step};
use tidemill_core::{BlobHash, Epoch, Millis, RunId, SessionId, Settings};

use crate::cluster::Cluster;
use crate::graphs::chain;

const MINUTE: u64 = 60_000;

fn session(name: &str) -> SessionId {
    SessionId(name.to_owned())
}

fn forgotten(blob: &str) -> Action {
    Action::Forget { blob: BlobHash(blob.to_owned()) }
}

fn kept(session_name: &str, run: &str, bytes: u64, replaces: Option<&str>) -> Record {
    Record::SessionRowsKept {
        session: session(session_name),
        run: RunId(run.to_owned()),
        rows: TableRows { blob: BlobHash(format!("rows of {run}")), bytes },
        replaces: replaces.map(|run| RunId(run.to_owned())),
        at: Millis(0),
    }
}

/// A run makes, or drops, a temporary table.
fn change(cluster: &mut Cluster, run: &str, record: Record) -> Vec<Action> {
    cluster.submit(run, chain(&[1]));
    cluster.send(Event::CatalogueChanged {
        run: RunId(run.to_owned()),
        record: Some(Box::new(record)),
        rows: 1,
        kept: None,
        version: None,
    })
}

fn blobs(cluster: &Cluster) -> Vec<&str> {
    cluster.state.temporary_rows().map(|blob| blob.0.as_str()).collect()
}

#[test]
fn rows_go_when_they_are_replaced_dropped_or_their_session_ends() {
    let mut cluster = Cluster::new();
    change(&mut cluster, "r1", kept("s", "r1", 8, None));
    change(&mut cluster, "r2", kept("s", "r2", 8, None));
    change(&mut cluster, "r3", kept("other", "r3", 8, None));
    let actions = change(&mut cluster, "r4", kept("s", "r4", 8, Some("r1")));
    assert!(actions.contains(&forgotten("rows of r1")), "{actions:?}");
    let dropped = Record::SessionRowsDropped { session: session("s"), run: RunId("r2".to_owned()) };
    assert!(change(&mut cluster, "r5", dropped).contains(&forgotten("rows of r2")));
    assert_eq!(blobs(&cluster), ["rows of r3", "rows of r4"]);
    assert_eq!(cluster.send(Event::SessionEnded { session: session("s") }), [forgotten("rows of r4")]);
    assert_eq!(cluster.send(Event::SessionEnded { session: session("s") }), []);
    assert_eq!(blobs(&cluster), ["rows of r3"]);
}

#[test]
fn a_session_that_is_heard_of_stays_and_a_silent_one_ends() {
    let mut cluster = Cluster::new();
    change(&mut cluster, "r1", kept("heard", "r1", 8, None));
    change(&mut cluster, "r2", kept("silent", "r2", 8, None));
    for _ in 0..4 {
        cluster.wait(4 * MINUTE);
        cluster.send(Event::SessionHeard { session: session("heard") });
    }
    assert_eq!(blobs(&cluster), ["rows of r1"]);
    // Nobody could be heard while nobody led.
    cluster.now += 60 * MINUTE;
    cluster.send(Event::Elected { epoch: Epoch(2), build: "1".to_owned() });
    cluster.wait(14 * MINUTE);
    assert_eq!(blobs(&cluster), ["rows of r1"]);
    assert!(cluster.wait(MINUTE).contains(&forgotten("rows of r1")));
    assert_eq!(blobs(&cluster), Vec::<&str>::new());
}

#[test]
fn a_session_and_all_of_them_have_so_much_room() {
    let mut cluster = Cluster::new();
    (cluster.settings.session_bytes, cluster.settings.sessions_bytes) = (10, 15);
    change(&mut cluster, "r1", kept("s", "r1", 8, None));
    let lacks = |record: Record| cluster.state.lacks_room(&record, &cluster.settings).map(|e| e.message);
    assert!(lacks(kept("s", "r2", 3, None)).is_some_and(|message| message.contains("of this session")));
    assert_eq!(lacks(kept("s", "r2", 10, Some("r1"))), None, "the others go");
    assert_eq!(lacks(kept("other", "r2", 7, None)), None);
    assert!(lacks(kept("other", "r2", 8, None)).is_some_and(|message| message.contains("of all sessions")));
    assert_eq!(lacks(Record::SessionEnded { session: session("s") }), None);
}

#[test]
fn a_replay_knows_the_same_sessions() {
    let (settings, mut state, mut replayed) = (Settings::default(), State::default(), State::default());
    let rows = |run: &str| Event::CatalogueChanged {
        run: RunId(run.to_owned()),
        record: Some(Box::new(kept("s", run, 8, None))),
        rows: 1,
        kept: None,
        version: None,
    };
    let submitted = |run: &str| Event::Submitted {
        run: RunId(run.to_owned()),
        spec: tidemill_core::record::RunSpec {
            statement: String::new(),
            request: None,
            express: false,
            may_change: true,
            by: None,
            job: None,
        },
    };
    let events = [
        Event::Elected { epoch: Epoch(1), build: "1".to_owned() },
        submitted("r1"),
        rows("r1"),
        Event::SessionHeard { session: session("s") },
        submitted("r2"),
        rows("r2"),
        Event::SessionHeard { session: session("unknown") },
        Event::Answered { run: RunId("r3".to_owned()), outcome: Outcome::Cancelled },
        Event::Elected { epoch: Epoch(2), build: "1".to_owned() },
        Event::SessionEnded { session: session("s") },
    ];
    for (minutes, event) in (0..).zip(events) {
        let step = step(&mut state, &settings, event, Millis(minutes * 3 * MINUTE));
        step.records.iter().for_each(|record| replayed.apply(record));
        assert_eq!(replayed, state);
        let written = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&written).unwrap(), state);
    }
    assert!(state.sessions.is_empty());
}
