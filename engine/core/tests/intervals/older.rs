//! What the first build with jobs wrote is read, and means what it meant.

use serde_json::Value;
use tidemill_core::interval::{Ended, Event, Fate, Record, State};

use crate::shell::{Shell, job};

/// A job has published an interval, and the next one is in progress.
const LOG: &[&str] = &[
    r#"{"JobCreated":{"job":"clean","incarnation":1,"spec":{"statement":"CREATE JOB clean","output":"cleaned","trigger":{"Schedule":{"cron":"5 * * * *"}},"zone":"UTC","interval":{"count":1,"unit":"Hour"},"start":1772323200000,"catch_up":"Latest","depends_on":["clicks"],"options":{"mode":"ReplaceInterval","overlap":"Queue","max_active_runs":1,"retries":3,"retry_backoff_ms":30000,"timeout_ms":3600000,"deadline":{"Clock":{"minute":180}},"suspend_after_failures":10,"lookback":0,"on_failure":null,"on_success":null,"on_late":null}},"start":1772323200000,"cursor":{"fired_to":1772357400000,"next_fire":1772359500000,"scheduled_to":0,"judged_to":0},"at":1772357400000}}"#,
    r#"{"DatasetCovered":{"dataset":"clicks","from":1772323200000,"to":1772366400000,"version":1,"at":1772358000000}}"#,
    r#"{"Fired":{"job":"clean","due":[[9,10]],"skipped":[[0,9]],"cursor":{"fired_to":1772359500000,"next_fire":1772363100000,"scheduled_to":10,"judged_to":0},"at":1772359500000}}"#,
    r#"{"RunStarted":{"job":"clean","index":9,"generation":1,"attempt":1,"cause":"Schedule","at":1772359500000}}"#,
    r#"{"IntervalPublished":{"job":"clean","index":9,"version":7,"at":1772359560000}}"#,
    r#"{"Fired":{"job":"clean","due":[[10,11]],"skipped":[],"cursor":{"fired_to":1772363100000,"next_fire":1772366700000,"scheduled_to":11,"judged_to":0},"at":1772363100000}}"#,
    r#"{"RunStarted":{"job":"clean","index":10,"generation":1,"attempt":1,"cause":"Schedule","at":1772363100000}}"#,
];

/// The other records there were.
const OTHERS: &[&str] = &[
    r#"{"ClockSetBack":{"at":1772355600000,"jobs":[["clean",{"fired_to":1772355600000,"next_fire":null,"scheduled_to":9,"judged_to":0}]]}}"#,
    r#"{"JobAltered":{"job":"clean","spec":{"statement":"CREATE JOB clean","output":"cleaned","trigger":{"Update":{"of":["ads"]}},"zone":"UTC","interval":{"count":1,"unit":"Hour"},"start":1772323200000,"catch_up":"All","depends_on":["clicks"],"options":{"mode":"ReplaceInterval","overlap":"Queue","max_active_runs":1,"retries":3,"retry_backoff_ms":30000,"timeout_ms":3600000,"deadline":{"Clock":{"minute":180}},"suspend_after_failures":10,"lookback":0,"on_failure":null,"on_success":null,"on_late":null}},"cursor":{"fired_to":1772355600000,"next_fire":null,"scheduled_to":9,"judged_to":0},"at":1772355600000}}"#,
    r#"{"JobSuspended":{"job":"clean","reason":{"Failures":3},"at":1772355600000}}"#,
    r#"{"JobResumed":{"job":"clean","due":[],"skipped":[[3,4]],"cursor":{"fired_to":1772355600000,"next_fire":1772359500000,"scheduled_to":9,"judged_to":2},"at":1772355600000}}"#,
    r#"{"InputUpdated":{"job":"clean","due":[[3,5]],"again":[],"missed":[[7,8]],"at":1772355600000}}"#,
    r#"{"Requested":{"job":"clean","index":4,"at":1772355600000}}"#,
    r#"{"EmptySkipped":{"job":"clean","skipped":[[4,5]]}}"#,
    r#"{"BackfillAccepted":{"job":"clean","id":2,"backfill":{"request":{"from":1772323200000,"to":1772355600000,"reprocess":"Missing","max_runs":2,"order":"Reverse"},"generation":1,"total":9,"remaining":[[0,9]],"failures":0,"at":1772355600000}}}"#,
    r#"{"RunStarted":{"job":"clean","index":8,"generation":1,"attempt":1,"cause":{"Backfill":{"backfill":2}},"at":1772355600000}}"#,
    r#"{"RunStopping":{"job":"clean","index":8,"reason":"TimedOut","at":1772355600000}}"#,
    r#"{"AttemptFailed":{"job":"clean","index":8,"error":{"kind":"Unavailable","message":"busy"},"wait_ms":30000,"at":1772355600000}}"#,
    r#"{"IntervalFailed":{"job":"clean","index":8,"error":{"kind":"Invalid","message":"a check"},"at":1772355600000}}"#,
    r#"{"IntervalCancelled":{"job":"clean","index":8,"at":1772355600000}}"#,
    r#"{"IntervalReplaced":{"job":"clean","index":8,"at":1772355600000}}"#,
    r#"{"BackfillNarrowed":{"job":"clean","id":2,"done":[[1,2]]}}"#,
    r#"{"BackfillEnded":{"job":"clean","id":2}}"#,
    r#"{"DeadlinesPassed":{"job":"clean","judged_to":9,"late":[[3,4]],"at":1772355600000}}"#,
    r#"{"DatasetDropped":{"dataset":"clicks","at":1772355600000}}"#,
    r#"{"JobDropped":{"job":"clean","covered":[[0,3600000]],"at":1772355600000}}"#,
];

/// Reads records as they stand, and compares them with how they would be written now: there may be more, nothing else.
fn read(written: &[&str]) -> Vec<Record> {
    let read = written.iter().map(|line| {
        let (old, record): (Value, Record) = (serde_json::from_str(line).unwrap(), serde_json::from_str(line).unwrap());
        let new = serde_json::to_value(&record).unwrap();
        assert!(has_all(&new, &old), "{line} is written as {new}");
        record
    });
    read.collect()
}

fn has_all(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            old.iter().all(|(key, old)| new.get(key).is_some_and(|new| has_all(new, old)))
        }
        (new, old) => new == old,
    }
}

fn replayed(records: &[Record]) -> State {
    let mut state = State::default();
    records.iter().for_each(|record| state.apply(record));
    state
}

#[test]
fn a_log_of_the_first_build_is_replayed_and_its_run_goes_on() {
    let state = replayed(&read(LOG));
    let known = &state.jobs[&job("clean")];
    assert_eq!(known.ledger.entry(9).map(|entry| entry.fate), Some(Fate::Published));
    assert_eq!((known.ledger.version(9), known.ledger.rows(9)), (Some(7), None));
    assert!(!known.active[&10].begun, "whoever leads says so again");
    let mut shell = Shell::new("2026-03-01 11:06");
    shell.state = state;
    shell.tell(Event::Restarted);
    assert_eq!(shell.began(), ["clean 2026-03-01 10:00"]);
    shell.begin("clean");
    let run = shell.running("clean");
    shell.end(run, Ended::Published { version: 8, rows: Some(3) });
    assert_eq!(shell.strip("clean", "2026-03-01 08:00", 3), ["skipped", "published", "published"]);
}

#[test]
fn a_snapshot_of_the_first_build_is_the_state_that_its_log_is() {
    let state = replayed(&read(LOG));
    let mut written = serde_json::to_value(&state).unwrap();
    let known = &mut written["jobs"]["clean"];
    for (place, field) in [("", "stale"), ("/spec", "identity"), ("/ledger", "rows"), ("/active/10", "begun")] {
        let removed = known.pointer_mut(place).and_then(|of| of.as_object_mut()?.remove(field));
        assert!(removed.is_some(), "{place} {field}");
    }
    known["active"]["10"].as_object_mut().unwrap().remove("outdated").unwrap();
    assert_eq!(serde_json::from_value::<State>(written).unwrap(), state);
}

#[test]
fn every_record_of_the_first_build_is_read() {
    let records = read(OTHERS);
    let mut state = replayed(&read(LOG));
    records.iter().for_each(|record| state.apply(record));
    assert!(state.jobs.is_empty(), "the last one drops the job");
    assert_eq!(state.backfills, 2);
}
