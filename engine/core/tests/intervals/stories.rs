//! What people rely on, one event at a time. Some tests carry the names of rows of the behaviour that Tidemill must reach.

use tidemill_core::interval::{
    CatchUp, Cause, Deadline, Ended, Event, Mode, Notice, Order, Overlap, Reprocess, Request, SuspendReason, Trigger,
    plan, waits_for,
};
use tidemill_core::{Error, ErrorKind};

use crate::shell::{Shell, at, dataset, hourly, job};

#[test]
fn dx7_a_join_waits_until_both_inputs_cover_the_interval() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("join", hourly("joined", &["ads", "clicks"]));
    shell.cover("ads", "2026-03-01", "2026-03-01 12:00");
    shell.cover("clicks", "2026-03-01", "2026-03-01 09:59");
    shell.tick("2026-03-01 10:05");
    assert_eq!(shell.began(), Vec::<String>::new());
    assert_eq!(shell.strip("join", "2026-03-01 09:00", 1), ["waiting"]);
    let known = &shell.state.jobs[&job("join")];
    assert_eq!(waits_for(&shell.state, known, 9), [dataset("clicks")]);
    // Any update is not enough; coverage of the interval is.
    shell.cover("clicks", "2026-03-01 10:00", "2026-03-01 11:00");
    assert_eq!(shell.began(), Vec::<String>::new());
    shell.cover("clicks", "2026-03-01 09:59", "2026-03-01 10:00");
    assert_eq!(shell.began(), ["join 2026-03-01 09:00"]);
}

#[test]
fn dx1_and_dx2_consumers_share_their_input_and_fail_alone() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &[]));
    shell.create("left", hourly("left", &["cleaned"]));
    shell.create("right", hourly("right", &["cleaned"]));
    shell.tick("2026-03-01 10:05");
    assert_eq!(shell.began(), ["clean 2026-03-01 09:00"]);
    shell.publish("clean");
    assert_eq!(shell.began(), ["left 2026-03-01 09:00", "right 2026-03-01 09:00"]);
    shell.fail("left", Error::invalid("a check"));
    shell.publish("right");
    shell.tell(Event::Requested { job: job("left"), start: at("2026-03-01 09:00") });
    assert_eq!(shell.began(), ["left 2026-03-01 09:00"]);
    assert_eq!(shell.running("left").generation, 2);
    assert_eq!(shell.state.jobs[&job("clean")].ledger.generation(9), 1, "its input was not made again");
}

#[test]
fn ob1_an_hour_is_complete_when_every_producer_has_published_it() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("east", hourly("regions", &[]));
    shell.create("west", hourly("regions", &[]));
    shell.create("report", hourly("report", &["regions"]));
    shell.tick("2026-03-01 10:05");
    shell.publish("east");
    assert_eq!(shell.began(), Vec::<String>::new());
    shell.publish("west");
    assert_eq!(shell.began(), ["report 2026-03-01 09:00"]);
}

#[test]
fn ob10_late_data_runs_exactly_the_hours_again_that_it_touches() {
    let mut shell = Shell::new("2026-03-01 09:30");
    let by_update = Trigger::Update { of: vec![dataset("clicks")] };
    shell.create("clean", hourly("cleaned", &[]).triggered(by_update));
    shell.create("roll_up", hourly("rolled", &["cleaned"]));
    for hour in 9..12 {
        shell.cover("clicks", &format!("2026-03-01 {hour:02}:00"), &format!("2026-03-01 {:02}:00", hour + 1));
        shell.publish("clean");
        shell.tick(&format!("2026-03-01 {:02}:05", hour + 1));
        shell.publish("roll_up");
    }
    shell.cover("clicks", "2026-03-01 10:10", "2026-03-01 10:20");
    assert_eq!(shell.began(), ["clean 2026-03-01 10:00"]);
    assert_eq!(shell.running("clean").generation, 2);
    // What it had published stays there until then; a job with a schedule does not look back.
    assert!(shell.state.jobs[&job("clean")].ledger.is_published(10));
    shell.publish("clean");
    assert_eq!(shell.began(), Vec::<String>::new());
    assert_eq!(shell.strip("roll_up", "2026-03-01 10:00", 1), ["published"]);
}

#[test]
fn live_intervals_do_not_wait_for_a_backfill() {
    let mut shell = Shell::new("2026-03-02 00:00");
    shell.create("clean", hourly("cleaned", &[]));
    let request = Request {
        from: at("2026-03-01"),
        to: at("2026-03-02"),
        reprocess: Reprocess::Missing,
        max_runs: 2,
        order: Order::Reverse,
    };
    let planned = plan(&shell.state, &job("clean"), &request, shell.now).unwrap();
    assert_eq!(planned.intervals.count(), 24);
    assert_eq!(planned.iter().next().unwrap().start, at("2026-03-01 23:00"));
    assert!(shell.state.jobs[&job("clean")].backfills.is_empty(), "a dry run changes nothing");
    shell.tell(Event::BackfillRequested { job: job("clean"), request });
    assert_eq!(shell.began(), ["clean 2026-03-01 23:00", "clean 2026-03-01 22:00"]);
    shell.tick("2026-03-02 01:05");
    assert_eq!(shell.began(), ["clean 2026-03-02 00:00"]);
    // All backfills together are bounded, too.
    shell.limits.backfill_runs = 1;
    shell.publish("clean");
    assert_eq!(shell.began(), Vec::<String>::new());
}

#[test]
fn after_downtime_the_last_fire_counts_or_all_of_them() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("latest", hourly("latest", &[]));
    shell.create("all", hourly("all", &[]).catching_up());
    shell.tick("2026-03-01 14:50");
    assert_eq!(
        shell.strip("latest", "2026-03-01 09:00", 6),
        ["skipped", "skipped", "skipped", "skipped", "running", "future"]
    );
    assert_eq!(shell.strip("all", "2026-03-01 00:00", 2), ["running", "queued"]);
    assert_eq!(shell.strip("all", "2026-03-01 13:00", 3), ["queued", "future", "future"]);
}

#[test]
fn a_fire_that_finds_nothing_new_does_not_hide_the_one_before() {
    let mut shell = Shell::new("2026-03-01 22:00");
    let mut daily = hourly("daily", &[]);
    daily.interval = tidemill_core::interval::Length { count: 1, unit: tidemill_core::interval::Unit::Day };
    shell.create("daily", daily);
    // It was down at 00:05, and the fires at 01:05 and 02:05 had nothing to do.
    shell.tick("2026-03-02 02:30");
    assert_eq!(shell.began(), ["daily 2026-03-01 00:00"]);
}

#[test]
fn the_history_of_an_input_is_no_update_unless_a_job_catches_up() {
    let mut shell = Shell::new("2026-03-01 09:30");
    let by_update = || Trigger::Update { of: vec![dataset("clicks")] };
    shell.create("latest", hourly("latest", &[]).triggered(by_update()));
    shell.create("all", hourly("all", &[]).triggered(by_update()).catching_up());
    shell.cover("clicks", "2020-01-01", "2026-03-01 10:00");
    assert_eq!(shell.began(), ["all 2026-03-01 00:00", "latest 2026-03-01 09:00"]);
    // Late data of an hour that it never ran is not its business; of one that it ran, it is.
    shell.publish("latest");
    shell.cover("clicks", "2026-03-01 07:10", "2026-03-01 07:20");
    assert!(shell.began().is_empty());
    shell.cover("clicks", "2026-03-01 09:10", "2026-03-01 09:20");
    assert_eq!(shell.began(), ["latest 2026-03-01 09:00"]);
}

#[test]
fn overlap_is_forbidden_queued_or_replaced() {
    let states = |overlap| {
        let mut shell = Shell::new("2026-03-01 09:30");
        shell.create("slow", hourly("slow", &[]).with(|o| o.overlap = overlap).with(|o| o.timeout_ms = 86_400_000));
        shell.tick("2026-03-01 10:05");
        shell.tick("2026-03-01 11:05");
        let cancelled = shell.cancelled();
        let run = shell.running("slow");
        shell.end(
            run,
            if cancelled.is_empty() { Ended::Published { version: 1, rows: None } } else { Ended::Cancelled },
        );
        shell.tick("2026-03-01 12:05");
        shell.strip("slow", "2026-03-01 09:00", 3)
    };
    assert_eq!(states(Overlap::Forbid), ["published", "skipped", "running"]);
    assert_eq!(states(Overlap::Queue), ["published", "running", "queued"]);
    assert_eq!(states(Overlap::Replace), ["skipped", "stopping", "queued"]);
}

#[test]
fn failures_are_tried_again_by_their_kind() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create(
        "clean",
        hourly("cleaned", &[]).with(|o| o.retries = 2).with(|o| o.on_failure = Some("hook".to_owned())),
    );
    shell.tick("2026-03-01 10:05");
    shell.fail("clean", Error::unavailable("busy"));
    assert_eq!((shell.strip("clean", "2026-03-01 09:00", 1), shell.notices().len()), (vec!["retrying"], 0));
    shell.tick("2026-03-01 10:05:29");
    assert!(shell.began().is_empty());
    shell.tick("2026-03-01 10:05:30");
    assert_eq!(shell.running("clean").attempt, 2);
    shell.fail("clean", Error::lost_input("gone"));
    shell.tick("2026-03-01 10:06:29");
    assert!(shell.began().is_empty(), "the second wait is twice as long");
    shell.tick("2026-03-01 10:06:30");
    shell.fail("clean", Error::resources_exhausted("full"));
    assert!(
        matches!(shell.notices().as_slice(), [Notice::Failed { error, .. }] if error.kind == ErrorKind::ResourcesExhausted)
    );
    shell.tick("2026-03-01 11:05");
    shell.fail("clean", Error::invalid("a check"));
    assert_eq!(shell.strip("clean", "2026-03-01 09:00", 2), ["failed", "failed"]);
}

#[test]
fn a_job_that_goes_on_failing_is_suspended_and_keeps_its_ledger() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &[]).with(|o| o.suspend_after_failures = 2));
    shell.tick("2026-03-01 10:05");
    shell.publish("clean");
    for hour in ["11:05", "12:05"] {
        shell.tick(&format!("2026-03-01 {hour}"));
        shell.fail("clean", Error::denied("no"));
    }
    let reason = |shell: &Shell| shell.state.jobs[&job("clean")].suspended.as_ref().map(|s| s.reason);
    assert_eq!(reason(&shell), Some(SuspendReason::Failures(2)));
    shell.tick("2026-03-01 15:05");
    assert!(shell.began().is_empty());
    // What somebody asks for runs, and what failed is found again.
    let (from, to) = (at("2026-03-01 09:00"), at("2026-03-01 12:00"));
    let request = Request { from, to, reprocess: Reprocess::Failed, max_runs: 4, order: Order::Forward };
    shell.tell(Event::BackfillRequested { job: job("clean"), request });
    assert_eq!(shell.began(), ["clean 2026-03-01 10:00", "clean 2026-03-01 11:00"]);
    shell.tell(Event::JobResumed { job: job("clean") });
    shell.tick("2026-03-01 15:06");
    assert_eq!(
        shell.strip("clean", "2026-03-01 09:00", 6),
        ["published", "running", "running", "skipped", "skipped", "running"]
    );
}

#[test]
fn a_run_that_takes_too_long_is_cancelled_and_tried_again() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("slow", hourly("slow", &[]).with(|o| o.timeout_ms = 600_000));
    shell.tick("2026-03-01 10:05");
    shell.tick("2026-03-01 10:30");
    assert!(shell.cancelled().is_empty(), "it waits for its turn");
    shell.begin("slow");
    shell.tick("2026-03-01 10:40");
    assert_eq!(shell.cancelled(), [shell.running("slow")]);
    let run = shell.running("slow");
    shell.end(run, Ended::Cancelled);
    assert_eq!(shell.strip("slow", "2026-03-01 09:00", 1), ["retrying"]);
    shell.tick("2026-03-01 10:41");
    shell.begin("slow");
    shell.tick("2026-03-01 10:51");
    // It was past the point where it could be stopped.
    shell.publish("slow");
    assert_eq!(shell.strip("slow", "2026-03-01 09:00", 1), ["published"]);
}

#[test]
fn a_deadline_that_passes_is_told_once() {
    let mut shell = Shell::new("2026-03-01 09:30");
    let late = |o: &mut tidemill_core::interval::Options| {
        o.deadline = Some(Deadline::After { ms: 1_800_000 });
        o.on_late = Some("hook".to_owned());
    };
    shell.create("clean", hourly("cleaned", &["clicks"]).with(late));
    shell.tick("2026-03-01 10:29");
    assert!(shell.notices().is_empty());
    shell.tick("2026-03-01 10:30");
    assert!(
        matches!(shell.notices().as_slice(), [Notice::Late { count: 1, first, .. }] if first.start == at("2026-03-01 09:00"))
    );
    shell.tick("2026-03-01 10:31");
    assert!(shell.notices().is_empty());
}

#[test]
fn rows_that_were_appended_are_never_appended_again() {
    let mut shell = Shell::new("2026-03-01 09:30");
    let by_update = Trigger::Update { of: vec![dataset("clicks")] };
    shell.create("log", hourly("log", &[]).triggered(by_update).with(|o| o.mode = Mode::Append));
    shell.cover("clicks", "2026-03-01 09:00", "2026-03-01 10:00");
    // An update while it runs: its rows may or may not be in.
    shell.cover("clicks", "2026-03-01 09:00", "2026-03-01 10:00");
    shell.publish("log");
    shell.tick("2026-03-01 10:05");
    assert!(shell.began().is_empty());
    shell.cover("clicks", "2026-03-01 09:00", "2026-03-01 10:00");
    assert!(shell.began().is_empty());
    let error = shell.ask(Event::Requested { job: job("log"), start: at("2026-03-01 09:00") }).unwrap_err();
    assert_eq!((error.kind, error.message.contains("add its rows twice")), (ErrorKind::Conflict, true));
    let (from, to) = (at("2026-03-01 09:00"), at("2026-03-01 10:00"));
    let request = Request { from, to, reprocess: Reprocess::All, max_runs: 1, order: Order::Forward };
    let error = shell.ask(Event::BackfillRequested { job: job("log"), request }).unwrap_err();
    assert_eq!((error.kind, error.message.contains("REPROCESS FAILED")), (ErrorKind::Invalid, true));
}

#[test]
fn a_request_says_why_it_cannot_be() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &[]));
    let mut refused = |start: &str, expected: &str| {
        let error = shell.ask(Event::Requested { job: job("clean"), start: at(start) }).unwrap_err();
        assert!(error.message.contains(expected), "{error}");
    };
    refused("2026-02-28 09:00", "before the START of job clean");
    refused("2026-03-01 08:30", "one goes from 2026-03-01 08:00 UTC to 2026-03-01 09:00 UTC");
    refused("2026-03-01 09:00", "not over before 2026-03-01 10:00 UTC");
    let error = shell.ask(Event::JobDropped { job: job("nobody") }).unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::NotFound, "there is no job nobody: SHOW JOBS lists them")
    );
    let error = shell.ask(Event::JobCreated { job: job("clean"), spec: hourly("cleaned", &[]) }).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    shell.create("next", hourly("next", &["cleaned"]));
    let error = shell.ask(Event::JobReplaced { job: job("clean"), spec: hourly("cleaned", &["next"]) }).unwrap_err();
    assert!(error.message.contains("wait for itself: next is made from cleaned"), "{error}");
    let mut other = hourly("cleaned", &[]);
    other.interval.count = 2;
    let error = shell.ask(Event::JobAltered { job: job("clean"), spec: other }).unwrap_err();
    assert!(error.message.contains("CREATE OR REPLACE JOB"), "{error}");
}

#[test]
fn a_dropped_job_leaves_what_it_published_and_its_name() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &[]));
    shell.tick("2026-03-01 10:05");
    shell.publish("clean");
    shell.tick("2026-03-01 11:05");
    let late = shell.running("clean");
    shell.tell(Event::JobDropped { job: job("clean") });
    assert_eq!(shell.cancelled(), std::slice::from_ref(&late));
    shell.create("clean", hourly("cleaned", &[]));
    shell.create("report", hourly("report", &["cleaned"]));
    shell.end(late, Ended::Published { version: 2, rows: None });
    assert_eq!(shell.strip("clean", "2026-03-01 09:00", 2), ["missing", "missing"]);
    // The hour is complete still, and a run of the new job is another one.
    shell.tell(Event::Requested { job: job("report"), start: at("2026-03-01 09:00") });
    assert_eq!(shell.began(), ["report 2026-03-01 09:00"]);
    shell.tell(Event::Requested { job: job("clean"), start: at("2026-03-01 09:00") });
    assert_eq!((shell.submitted()[0].incarnation, shell.submitted()[0].generation), (2, 1));
}

#[test]
fn a_window_waits_for_all_that_it_reads_and_is_touched_by_all_of_it() {
    let mut shell = Shell::new("2026-03-01 09:30");
    let by_update = Trigger::Update { of: vec![dataset("clicks")] };
    shell.create("rolling", hourly("rolling", &[]).triggered(by_update).with(|o| o.lookback = 2));
    shell.cover("clicks", "2026-03-01 08:00", "2026-03-01 10:00");
    assert!(shell.began().is_empty());
    shell.cover("clicks", "2026-03-01 07:00", "2026-03-01 08:00");
    assert_eq!(shell.began(), ["rolling 2026-03-01 09:00"]);
    shell.publish("rolling");
    shell.cover("clicks", "2026-03-01 07:30", "2026-03-01 07:40");
    assert_eq!(shell.began(), ["rolling 2026-03-01 09:00"]);
}

#[test]
fn a_new_leader_submits_what_was_in_progress() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &[]));
    shell.tick("2026-03-01 10:05");
    let run = shell.running("clean");
    shell.tell(Event::Restarted);
    assert_eq!(shell.submitted(), std::slice::from_ref(&run));
    shell.tell(Event::RunCancelled { run: run.clone() });
    shell.tell(Event::Restarted);
    assert_eq!((shell.submitted(), shell.cancelled()), (vec![run.clone()], vec![run.clone()]));
    shell.end(run, Ended::Cancelled);
    assert_eq!(shell.strip("clean", "2026-03-01 09:00", 1), ["cancelled"]);
}

#[test]
fn every_cause_has_a_name() {
    let causes = [Cause::Schedule, Cause::Update, Cause::Manual, Cause::Backfill { backfill: 1 }, Cause::Late];
    assert_eq!(causes.map(Cause::name), ["schedule", "update", "manual", "backfill", "late"]);
}

pub(crate) trait With {
    fn with(self, change: impl FnOnce(&mut tidemill_core::interval::Options)) -> Self;
    fn triggered(self, trigger: Trigger) -> Self;
    fn catching_up(self) -> Self;
}

impl With for tidemill_core::interval::Spec {
    fn with(mut self, change: impl FnOnce(&mut tidemill_core::interval::Options)) -> Self {
        change(&mut self.options);
        self
    }

    fn triggered(self, trigger: Trigger) -> Self {
        Self { trigger, ..self }
    }

    fn catching_up(self) -> Self {
        Self { catch_up: CatchUp::All, ..self }
    }
}
