//! What jobs with `allowed_lateness` do about late data by themselves, one event at a time.

use tidemill_core::Error;
use tidemill_core::interval::{
    Cause, Ended, Event, Mode, Options, Order, Reprocess, Request, RunKey, Spec, State, SuspendReason, Trigger,
};

use crate::shell::{Shell, at, dataset, hourly, job};
use crate::stories::With;

const HOUR_MS: u64 = 3_600_000;

/// For how many hours an interval is computed again.
fn allowed(hours: u64) -> impl FnOnce(&mut Options) {
    move |o| o.allowed_lateness_ms = Some(hours * HOUR_MS)
}

/// A job that has published the hours from 1 to 11 of the first of March, of clicks that are complete.
fn published(name: &str, spec: Spec) -> Shell {
    let mut shell = Shell::new("2026-03-01 00:30");
    shell.create(name, spec);
    shell.cover("clicks", "2026-03-01", "2026-03-02");
    hours(&mut shell, &[name], 1..12);
    shell
}

/// Hours end, and each job publishes.
fn hours(shell: &mut Shell, names: &[&str], hours: std::ops::Range<u64>) {
    for hour in hours {
        shell.tick(&format!("2026-03-01 {hour:02}:05"));
        for name in names {
            shell.publish(name);
        }
    }
}

/// Clicks of some hours come late.
fn late(shell: &mut Shell, from: u64, to: u64) {
    shell.cover("clicks", &format!("2026-03-01 {from:02}:10"), &format!("2026-03-01 {to:02}:20"));
}

fn generations(shell: &Shell, name: &str, hours: std::ops::Range<u64>) -> Vec<u32> {
    hours.map(|hour| shell.state.jobs[&job(name)].ledger.generation(hour)).collect()
}

/// Whether an interval was published from other rows than its inputs have.
fn is_stale(shell: &Shell, name: &str, hour: u64) -> bool {
    shell.state.jobs[&job(name)].changed(hour).next().is_some()
}

/// The run of a job that late data caused.
fn late_run(shell: &Shell, name: &str) -> Option<RunKey> {
    let known = &shell.state.jobs[&job(name)];
    let (index, active) = known.active.iter().find(|(_, active)| active.cause == Cause::Late)?;
    let (incarnation, generation, attempt) = (known.incarnation, active.generation, active.attempt);
    Some(RunKey { job: job(name), incarnation, index: *index, generation, attempt })
}

fn publish_late(shell: &mut Shell, name: &str, version: u64) {
    let run = late_run(shell, name).unwrap();
    shell.end(run, Ended::Published { version, rows: None });
}

fn fail_late(shell: &mut Shell, name: &str) {
    let run = late_run(shell, name).unwrap();
    shell.end(run, Ended::Failed { error: Error::invalid("a check") });
}

fn stale_ones() -> Request {
    let (from, to) = (at("2026-03-01"), at("2026-03-02"));
    Request { from, to, reprocess: Reprocess::Stale, max_runs: 1, order: Order::Forward }
}

#[test]
fn ob10_late_hours_are_computed_again_one_after_the_other_and_live_ones_do_not_wait() {
    let mut shell = published("clean", hourly("cleaned", &["clicks"]).with(allowed(24)));
    late(&mut shell, 7, 9);
    assert_eq!(shell.began(), ["clean 2026-03-01 07:00"]);
    // The job's only place is free for what is live.
    shell.tick("2026-03-01 12:05");
    assert_eq!(shell.began(), ["clean 2026-03-01 11:00"]);
    publish_late(&mut shell, "clean", 100);
    assert_eq!(shell.began(), ["clean 2026-03-01 08:00"]);
    publish_late(&mut shell, "clean", 101);
    assert_eq!(shell.began(), ["clean 2026-03-01 09:00"]);
    publish_late(&mut shell, "clean", 102);
    shell.publish("clean");
    assert_eq!(shell.began(), Vec::<String>::new());
    assert_eq!(generations(&shell, "clean", 5..12), [1, 1, 2, 2, 2, 1, 1], "exactly those hours, once");
    assert!((0..24).all(|hour| !is_stale(&shell, "clean", hour)));
    shell.tick("2026-03-01 12:30");
    assert_eq!(shell.last.records.len(), 0, "there is nothing more to do");
}

#[test]
fn what_ended_too_long_ago_is_marked_and_left_to_people() {
    let mut shell = published("clean", hourly("cleaned", &["clicks"]).with(allowed(3)));
    // 11:05: the hour until eight ended more than three hours ago.
    late(&mut shell, 5, 8);
    assert_eq!(shell.began(), ["clean 2026-03-01 08:00"]);
    publish_late(&mut shell, "clean", 100);
    assert_eq!(shell.began(), Vec::<String>::new());
    assert_eq!([5, 6, 7, 8].map(|hour| is_stale(&shell, "clean", hour)), [true, true, true, false]);
    shell.tell(Event::BackfillRequested { job: job("clean"), request: stale_ones() });
    assert_eq!(shell.began(), ["clean 2026-03-01 05:00"]);
    assert_eq!(late_run(&shell, "clean"), None, "it is a backfill's");
    // What waits for its turn when its time is over is not begun.
    let mut shell = published("clean", hourly("cleaned", &["clicks"]).with(allowed(3)));
    late(&mut shell, 8, 9);
    assert_eq!(shell.began(), ["clean 2026-03-01 08:00"]);
    shell.tick("2026-03-01 12:05");
    shell.tick("2026-03-01 13:05");
    publish_late(&mut shell, "clean", 100);
    assert_eq!((shell.began(), is_stale(&shell, "clean", 9)), (Vec::new(), true));
}

#[test]
fn a_job_that_says_nothing_of_lateness_computes_nothing_again() {
    let mut shell = published("clean", hourly("cleaned", &["clicks"]));
    late(&mut shell, 9, 9);
    shell.tick("2026-03-01 11:30");
    assert_eq!((shell.began(), is_stale(&shell, "clean", 9)), (Vec::new(), true));
    // It may say so later.
    let spec = hourly("cleaned", &["clicks"]).with(allowed(24));
    shell.tell(Event::JobAltered { job: job("clean"), spec });
    assert_eq!(shell.began(), ["clean 2026-03-01 09:00"]);
}

#[test]
fn a_late_hour_that_fails_is_left_until_another_update_comes() {
    let mut shell = published("clean", hourly("cleaned", &["clicks"]).with(allowed(24)));
    late(&mut shell, 8, 9);
    fail_late(&mut shell, "clean");
    assert_eq!(shell.began(), ["clean 2026-03-01 09:00"], "the next one");
    publish_late(&mut shell, "clean", 100);
    for minute in 10..20 {
        shell.tick(&format!("2026-03-01 11:{minute}"));
        assert_eq!(shell.began(), Vec::<String>::new());
    }
    assert_eq!(shell.strip("clean", "2026-03-01 08:00", 2), ["failed", "published"]);
    assert!(is_stale(&shell, "clean", 8) && shell.state.jobs[&job("clean")].ledger.is_published(8));
    late(&mut shell, 8, 8);
    assert_eq!(shell.began(), ["clean 2026-03-01 08:00"]);
    // One that is cancelled is left, too; one that was updated while it ran is not.
    let run = late_run(&shell, "clean").unwrap();
    shell.tell(Event::RunCancelled { run: run.clone() });
    shell.end(run, Ended::Cancelled);
    assert_eq!(shell.began(), Vec::<String>::new());
    late(&mut shell, 8, 8);
    late(&mut shell, 8, 8);
    publish_late(&mut shell, "clean", 101);
    assert_eq!(shell.began(), ["clean 2026-03-01 08:00"]);
    publish_late(&mut shell, "clean", 102);
    assert_eq!((shell.began(), is_stale(&shell, "clean", 8)), (Vec::new(), false));
    let known = &shell.state.jobs[&job("clean")];
    assert!(known.left.is_empty() && known.suspended.is_none() && known.failures == 0);
}

#[test]
fn late_hours_that_fail_one_after_the_other_are_given_up_and_the_job_goes_on() {
    let few = |o: &mut Options| (o.suspend_after_failures, o.allowed_lateness_ms) = (3, Some(24 * HOUR_MS));
    let mut shell = published("clean", hourly("cleaned", &["clicks"]).with(few));
    late(&mut shell, 2, 8);
    for _ in 0..3 {
        fail_late(&mut shell, "clean");
    }
    assert_eq!((shell.began(), late_run(&shell, "clean")), (Vec::new(), None), "four were not tried");
    assert_eq!(generations(&shell, "clean", 2..9), [2, 2, 2, 1, 1, 1, 1]);
    shell.tick("2026-03-01 12:05");
    assert_eq!(shell.began(), ["clean 2026-03-01 11:00"], "what is live goes on");
    late(&mut shell, 5, 5);
    assert_eq!(shell.began(), ["clean 2026-03-01 05:00"]);
}

#[test]
fn through_jobs_that_read_each_other_each_late_hour_is_computed_once() {
    let mut shell = Shell::new("2026-03-01 00:30");
    shell.create("clean", hourly("cleaned", &["clicks"]).with(allowed(24)));
    // It reads the clicks, too: it is stale at once, and waits.
    shell.create("join", hourly("joined", &["cleaned", "clicks"]).with(allowed(24)));
    shell.create("report", hourly("reported", &["joined"]).with(allowed(24)));
    shell.cover("clicks", "2026-03-01", "2026-03-02");
    hours(&mut shell, &["clean", "join", "report"], 1..12);
    late(&mut shell, 8, 9);
    assert_eq!(shell.began(), ["clean 2026-03-01 08:00"]);
    publish_late(&mut shell, "clean", 100);
    // The older goes first.
    assert_eq!(shell.began(), ["join 2026-03-01 08:00", "clean 2026-03-01 09:00"]);
    publish_late(&mut shell, "join", 100);
    assert_eq!(shell.began(), ["report 2026-03-01 08:00"], "the next of `join` waits for that of `clean`");
    publish_late(&mut shell, "report", 100);
    publish_late(&mut shell, "clean", 101);
    assert_eq!(shell.began(), ["join 2026-03-01 09:00"]);
    publish_late(&mut shell, "join", 101);
    publish_late(&mut shell, "report", 101);
    for name in ["clean", "join", "report"] {
        assert_eq!(generations(&shell, name, 7..11), [1, 2, 2, 1], "{name}");
        assert!((0..24).all(|hour| !is_stale(&shell, name, hour)), "{name}");
    }
}

#[test]
fn late_data_does_not_wait_for_what_is_left_to_people() {
    let mut shell = Shell::new("2026-03-01 00:30");
    shell.create("clean", hourly("cleaned", &["clicks"]));
    shell.create("join", hourly("joined", &["cleaned", "clicks"]).with(allowed(24)));
    shell.cover("clicks", "2026-03-01", "2026-03-02");
    hours(&mut shell, &["clean", "join"], 1..12);
    late(&mut shell, 8, 8);
    assert_eq!(shell.began(), ["join 2026-03-01 08:00"], "nobody computes `clean` again");
    publish_late(&mut shell, "join", 100);
    // When somebody does, it follows.
    shell.tell(Event::BackfillRequested { job: job("clean"), request: stale_ones() });
    shell.publish("clean");
    assert_eq!(shell.began(), ["join 2026-03-01 08:00"]);
}

#[test]
fn people_find_places_and_what_they_ask_for_is_not_computed_twice() {
    let mut shell = published("clean", hourly("cleaned", &["clicks"]).with(allowed(24)));
    late(&mut shell, 3, 9);
    assert_eq!(shell.began(), ["clean 2026-03-01 03:00"]);
    // The backfill takes over what late data has not begun.
    shell.tell(Event::BackfillRequested { job: job("clean"), request: stale_ones() });
    assert_eq!(shell.began(), ["clean 2026-03-01 04:00"]);
    publish_late(&mut shell, "clean", 100);
    assert_eq!(shell.began(), Vec::<String>::new());
    for version in 101..107 {
        let run = shell.running("clean");
        shell.end(run, Ended::Published { version, rows: None });
    }
    assert_eq!(generations(&shell, "clean", 2..11), [1, 2, 2, 2, 2, 2, 2, 2, 1]);
    // Of all places half are left to people.
    let mut shell = Shell::new("2026-03-01 00:30");
    shell.limits.backfill_runs = 4;
    let names = ["a", "b", "c", "d"];
    for name in names {
        shell.create(name, hourly(name, &["clicks"]).with(allowed(24)));
    }
    shell.cover("clicks", "2026-03-01", "2026-03-02");
    hours(&mut shell, &names, 1..12);
    late(&mut shell, 8, 8);
    assert_eq!(shell.began(), ["a 2026-03-01 08:00", "b 2026-03-01 08:00"]);
    let request = Request { reprocess: Reprocess::All, max_runs: 4, ..stale_ones() };
    shell.tell(Event::BackfillRequested { job: job("d"), request });
    assert_eq!(shell.began(), ["d 2026-03-01 00:00", "d 2026-03-01 01:00"]);
    // With a run already, it lets late data go first.
    publish_late(&mut shell, "a", 100);
    assert_eq!(shell.began(), ["c 2026-03-01 08:00"]);
}

#[test]
fn a_suspended_job_computes_nothing_again_until_it_is_resumed() {
    let mut shell = published("clean", hourly("cleaned", &["clicks"]).with(allowed(24)));
    shell.tell(Event::JobSuspended { job: job("clean") });
    late(&mut shell, 8, 8);
    assert_eq!(shell.began(), Vec::<String>::new());
    shell.tell(Event::JobResumed { job: job("clean") });
    assert_eq!(shell.began(), ["clean 2026-03-01 08:00"]);
    let few = |o: &mut Options| (o.suspend_after_failures, o.allowed_lateness_ms) = (1, Some(24 * HOUR_MS));
    let mut shell = published("clean", hourly("cleaned", &["clicks"]).with(few));
    shell.tick("2026-03-01 12:05");
    shell.fail("clean", Error::invalid("a check"));
    let suspended = shell.state.jobs[&job("clean")].suspended.as_ref().map(|suspended| suspended.reason);
    assert_eq!(suspended, Some(SuspendReason::Failures(1)));
    late(&mut shell, 8, 8);
    assert_eq!(shell.began(), Vec::<String>::new());
}

#[test]
fn fires_replace_and_miss_nothing_because_of_late_data() {
    for overlap in [tidemill_core::interval::Overlap::Replace, tidemill_core::interval::Overlap::Forbid] {
        let options = |o: &mut Options| (o.overlap, o.allowed_lateness_ms) = (overlap, Some(24 * HOUR_MS));
        let mut shell = published("clean", hourly("cleaned", &["clicks"]).with(options));
        late(&mut shell, 8, 8);
        shell.tick("2026-03-01 12:05");
        assert_eq!(shell.began(), ["clean 2026-03-01 11:00"], "{overlap:?}");
        assert!(shell.cancelled().is_empty() && late_run(&shell, "clean").is_some(), "{overlap:?}");
    }
}

#[test]
fn an_update_computes_again_what_is_young_enough() {
    let by_update = Trigger::Update { of: vec![dataset("clicks")] };
    let mut shell = Shell::new("2026-03-01 00:30");
    shell.create("clean", hourly("cleaned", &[]).triggered(by_update).with(allowed(3)));
    for hour in 1..12 {
        shell.tick(&format!("2026-03-01 {hour:02}:05"));
        shell.cover("clicks", &format!("2026-03-01 {:02}:00", hour - 1), &format!("2026-03-01 {hour:02}:00"));
        shell.publish("clean");
    }
    late(&mut shell, 7, 8);
    assert_eq!(shell.began(), ["clean 2026-03-01 08:00"]);
    assert_eq!(shell.running("clean").generation, 2);
    assert_eq!(late_run(&shell, "clean"), None, "an update is the cause");
    shell.publish("clean");
    assert_eq!((shell.began(), is_stale(&shell, "clean", 7), is_stale(&shell, "clean", 8)), (Vec::new(), true, false));
    // What was never published is new, however old it is.
    let of = vec![dataset("views")];
    shell.create("view", hourly("viewed", &[]).triggered(Trigger::Update { of }).with(allowed(0)).catching_up());
    shell.cover("views", "2026-03-01 02:00", "2026-03-01 03:00");
    assert_eq!(shell.began(), ["view 2026-03-01 02:00"]);
}

#[test]
fn a_new_coordinator_goes_on_with_late_data() {
    let mut shell = published("clean", hourly("cleaned", &["clicks"]).with(allowed(24)));
    late(&mut shell, 7, 8);
    let run = late_run(&shell, "clean").unwrap();
    let written = serde_json::to_string(&shell.state).unwrap();
    shell.state = serde_json::from_str::<State>(&written).unwrap();
    shell.tell(Event::Restarted);
    assert_eq!(shell.submitted(), std::slice::from_ref(&run), "the same run");
    shell.end(run, Ended::Published { version: 100, rows: None });
    assert_eq!(shell.began(), ["clean 2026-03-01 08:00"]);
    fail_late(&mut shell, "clean");
    let written = serde_json::to_string(&shell.state).unwrap();
    shell.state = serde_json::from_str::<State>(&written).unwrap();
    shell.tell(Event::Restarted);
    shell.tick("2026-03-01 11:30");
    assert_eq!(shell.began(), Vec::<String>::new(), "it is known that it failed");
    // A state from before there was any of this is read, and so are the clauses of its jobs.
    let mut state: serde_json::Value = serde_json::from_str(&written).unwrap();
    let known = state.pointer_mut("/jobs/clean").and_then(serde_json::Value::as_object_mut).unwrap();
    assert!(known.remove("left").is_some() && known.remove("late_failures").is_some());
    let options = state.pointer_mut("/jobs/clean/spec/options").and_then(serde_json::Value::as_object_mut).unwrap();
    assert!(options.remove("allowed_lateness_ms").is_some());
    let read: State = serde_json::from_value(state).unwrap();
    assert_eq!(read.jobs[&job("clean")].spec.options, Options::default());
    assert!(read.jobs[&job("clean")].left.is_empty());
}

#[test]
fn rows_that_are_added_have_no_lateness() {
    let mut shell = Shell::new("2026-03-01 00:30");
    let adds = |o: &mut Options| (o.mode, o.allowed_lateness_ms) = (Mode::Append, Some(HOUR_MS));
    let spec = || hourly("cleaned", &["clicks"]).with(adds);
    let error = shell.ask(Event::JobCreated { job: job("clean"), spec: spec() }).unwrap_err();
    assert!(error.message.contains("allowed_lateness") && error.message.contains("append"), "{error}");
    shell.create("clean", hourly("cleaned", &["clicks"]).with(|o| o.mode = Mode::Append));
    let error = shell.ask(Event::JobAltered { job: job("clean"), spec: spec() }).unwrap_err();
    assert!(error.message.contains("allowed_lateness"), "{error}");
}
