//! What was wrong once, one event at a time.

use tidemill_core::interval::{
    Deadline, Ended, Event, Length, Local, Mode, Order, Reprocess, Request, Trigger, Unit, accepted,
};
use tidemill_core::{Error, ErrorKind};

use crate::shell::{Shell, at, dataset, hourly, job};
use crate::stories::With;

fn by_update() -> Trigger {
    Trigger::Update { of: vec![dataset("clicks")] }
}

fn request(from: &str, to: &str, reprocess: Reprocess) -> Request {
    Request { from: at(from), to: at(to), reprocess, max_runs: 1, order: Order::Forward }
}

fn backfill(name: &str, from: &str, to: &str, reprocess: Reprocess) -> Event {
    Event::BackfillRequested { job: job(name), request: request(from, to, reprocess) }
}

#[test]
fn a_backfill_has_the_number_that_cancels_it_or_says_why_it_takes_on_nothing() {
    let mut shell = Shell::new("2026-03-01 04:00");
    for name in ["clean", "other"] {
        shell.create(name, hourly(name, &[]));
    }
    let told = |shell: &Shell, name: &str, from: &str, to: &str, reprocess| {
        let told = accepted(&shell.state, &job(name), &request(from, to, reprocess), shell.now).unwrap();
        (told.id, told.intervals, told.why_none.unwrap_or_default())
    };
    for (id, name) in [(1, "other"), (2, "clean")] {
        let (from, to) = ("2026-03-01", "2026-03-01 02:00");
        assert_eq!(told(&shell, name, from, to, Reprocess::Missing), (Some(id), 2, String::new()));
        shell.tell(backfill(name, from, to, Reprocess::Missing));
        assert!(shell.state.jobs[&job(name)].backfills.contains_key(&id));
    }
    let none = |from, to, reprocess, why: &str| {
        let (id, intervals, told) = told(&shell, "clean", from, to, reprocess);
        assert!(told.contains(why), "{told}");
        assert_eq!((id, intervals), (None, 0), "{told}");
    };
    none("2026-02-01", "2026-03-01", Reprocess::All, "before the START of job clean, 2026-03-01 00:00 UTC");
    none("2026-03-01 00:10", "2026-03-01 00:50", Reprocess::All, "no interval of job clean lies between");
    none("2026-03-01 04:00", "2026-03-02", Reprocess::All, "the first ends at 2026-03-01 05:00 UTC");
    none("2026-03-01", "2026-03-01 01:00", Reprocess::Missing, "due or in progress");
    none("2026-03-01", "2026-03-01 01:00", Reprocess::Stale, "stale");
    shell.tell(Event::BackfillCancelled { job: job("clean"), id: 2 });
    // The other one waits as long as its job does.
    shell.tell(Event::JobSuspended { job: job("other") });
    assert!(shell.state.jobs[&job("other")].holds_back(1));
    shell.tell(Event::JobResumed { job: job("other") });
    assert!(!shell.state.jobs[&job("other")].holds_back(1));
}

#[test]
fn a_job_that_appends_from_now_on_retries_nothing_that_is_published() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &[]));
    shell.tick("2026-03-01 10:05");
    shell.publish("clean");
    shell.tell(Event::Requested { job: job("clean"), start: at("2026-03-01 09:00") });
    shell.fail("clean", Error::unavailable("busy"));
    assert_eq!(shell.strip("clean", "2026-03-01 09:00", 1), ["retrying"]);
    let spec = hourly("cleaned", &[]).with(|o| o.mode = Mode::Append);
    shell.tell(Event::JobAltered { job: job("clean"), spec });
    shell.tick("2026-03-01 10:59");
    assert_eq!((shell.began().len(), shell.strip("clean", "2026-03-01 09:00", 1)), (0, vec!["cancelled"]));
    assert!(shell.state.jobs[&job("clean")].ledger.is_published(9), "its rows stay");
}

#[test]
fn a_new_job_does_not_append_what_the_one_before_it_has() {
    let append = |start: &str| {
        let start = Some(Local::parse(start).unwrap());
        let spec = hourly("log", &[]).with(|o| o.mode = Mode::Append).catching_up();
        tidemill_core::interval::Spec { start, ..spec }
    };
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("log", append("2026-03-01 08:00"));
    shell.tick("2026-03-01 10:05");
    shell.publish("log");
    let replaced = shell.ask(Event::JobReplaced { job: job("log"), spec: append("2026-03-01 07:00") }).unwrap_err();
    assert_eq!(replaced.kind, ErrorKind::Conflict);
    shell.tell(Event::JobDropped { job: job("log") });
    let created = shell.ask(Event::JobCreated { job: job("log"), spec: append("2026-03-01 08:00") }).unwrap_err();
    assert!(created.message.contains("until 2026-03-01 09:00 UTC"), "{created}");
    shell.create("log", append("2026-03-01 09:00"));
    shell.tick("2026-03-01 11:05");
    assert_eq!(shell.began(), ["log 2026-03-01 09:00"]);
}

#[test]
fn a_resumed_job_runs_the_newest_complete_interval_and_waits_for_the_next() {
    let mut shell = Shell::new("2026-03-01 07:30");
    shell.create("clean", hourly("cleaned", &[]).triggered(by_update()));
    shell.tell(Event::JobSuspended { job: job("clean") });
    shell.now = at("2026-03-01 10:20");
    shell.cover("clicks", "2026-03-01 08:00", "2026-03-01 10:20");
    shell.tell(Event::JobResumed { job: job("clean") });
    assert_eq!(shell.began(), ["clean 2026-03-01 09:00"]);
    assert_eq!(shell.strip("clean", "2026-03-01 08:00", 3), ["skipped", "running", "waiting"]);
}

#[test]
fn one_version_may_complete_two_stretches() {
    let mut shell = Shell::new("2026-03-01 08:30");
    shell.create("clean", hourly("cleaned", &[]).triggered(by_update()).with(|o| o.max_active_runs = 4));
    let mut cover = |from: &str, to: &str| {
        shell.tell(Event::DatasetCovered { dataset: dataset("clicks"), from: at(from), to: at(to), version: 7 });
        shell.began()
    };
    assert_eq!(cover("2026-03-01 09:00", "2026-03-01 10:00"), ["clean 2026-03-01 09:00"]);
    assert_eq!(cover("2026-03-01 11:00", "2026-03-01 12:00"), ["clean 2026-03-01 11:00"]);
    assert!(cover("2026-03-01 11:00", "2026-03-01 12:00").is_empty(), "said again it is no update");
}

#[test]
fn hours_that_failed_while_the_clock_was_ahead_run_when_they_are_over() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &[]).with(|o| o.max_active_runs = 10));
    shell.tick("2026-03-01 10:05");
    shell.publish("clean");
    for hour in 11..14 {
        shell.tick(&format!("2026-03-01 {hour}:05"));
        shell.fail("clean", Error::not_found("no file"));
    }
    shell.tick("2026-03-01 10:10");
    for hour in 11..14 {
        shell.tick(&format!("2026-03-01 {hour}:05"));
        assert_eq!(shell.running("clean").generation, 2, "{hour}");
        shell.publish("clean");
    }
    assert_eq!(shell.strip("clean", "2026-03-01 09:00", 4), ["published"; 4]);
}

#[test]
fn a_stall_of_minutes_leaves_no_hole() {
    let mut minutely = hourly("minutes", &[]);
    minutely.interval = Length { count: 1, unit: Unit::Minute };
    minutely.trigger = Trigger::Schedule { cron: tidemill_core::interval::Cron::parse("* * * * *").unwrap() };
    let after = |stall: &str| {
        let mut shell = Shell::new("2026-03-01 09:30:30");
        shell.create("minutes", minutely.clone().with(|o| o.max_active_runs = 100));
        shell.tick("2026-03-01 09:31:01");
        shell.publish("minutes");
        shell.tick(stall);
        shell.began().len()
    };
    assert_eq!(after("2026-03-01 09:36:01"), 5);
    assert_eq!(after("2026-03-01 10:36:01"), 1, "an hour is a hole that somebody should know of");
}

#[test]
fn a_suspended_job_holds_no_place_with_what_it_will_not_try() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.limits.backfill_runs = 1;
    for name in ["a", "b"] {
        shell.create(name, hourly(name, &[]));
    }
    shell.tell(backfill("a", "2026-03-01", "2026-03-01 01:00", Reprocess::Missing));
    shell.fail("a", Error::unavailable("busy"));
    shell.tell(Event::JobSuspended { job: job("a") });
    shell.tell(backfill("b", "2026-03-01", "2026-03-01 01:00", Reprocess::Missing));
    assert!(shell.began().is_empty());
    shell.tick("2026-03-01 09:31");
    assert_eq!(shell.began(), ["a 2026-03-01 00:00"], "what has begun goes on");
    shell.publish("a");
    assert_eq!(shell.began(), ["b 2026-03-01 00:00"]);
}

#[test]
fn a_backfill_that_has_begun_less_goes_first() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.limits.backfill_runs = 1;
    for name in ["a", "b"] {
        shell.create(name, hourly(name, &[]));
        shell.tell(backfill(name, "2026-03-01", "2026-03-01 05:00", Reprocess::Missing));
    }
    let mut begun = vec!["a 2026-03-01 00:00".to_owned()];
    for _ in 0..3 {
        let running = begun.last().unwrap().split(' ').next().unwrap().to_owned();
        shell.publish(&running);
        begun.extend(shell.began());
    }
    assert_eq!(begun, ["a 2026-03-01 00:00", "b 2026-03-01 00:00", "a 2026-03-01 01:00", "b 2026-03-01 01:00"]);
}

#[test]
fn a_producer_that_begins_today_does_not_uncover_history() {
    let mut shell = Shell::new("2026-03-02 00:30");
    let from = |start: &str| tidemill_core::interval::Spec {
        start: Some(Local::parse(start).unwrap()),
        ..hourly("regions", &[])
    };
    shell.create("east", from("2026-03-01 23:00"));
    shell.tell(Event::Requested { job: job("east"), start: at("2026-03-01 23:00") });
    shell.publish("east");
    shell.create("west", from("2026-03-02 00:00"));
    shell.create("report", hourly("report", &["regions"]));
    shell.tell(Event::Requested { job: job("report"), start: at("2026-03-01 23:00") });
    assert_eq!(shell.began(), ["report 2026-03-01 23:00"]);
    shell.publish("report");
    shell.tell(Event::Requested { job: job("report"), start: at("2026-03-01 22:00") });
    assert!(shell.began().is_empty(), "nobody published what was before both");
}

#[test]
fn a_new_hour_does_not_wait_for_late_ones() {
    let mut shell = Shell::new("2026-03-01 00:30");
    shell.create("clean", hourly("cleaned", &[]).triggered(by_update()));
    for hour in 1..4 {
        shell.cover("clicks", &format!("2026-03-01 {hour:02}:00"), &format!("2026-03-01 {:02}:00", hour + 1));
        shell.publish("clean");
    }
    shell.cover("clicks", "2026-03-01 01:10", "2026-03-01 04:00");
    shell.cover("clicks", "2026-03-01 04:00", "2026-03-01 05:00");
    assert_eq!(shell.running("clean").index, 1, "it had begun");
    shell.publish("clean");
    assert_eq!(shell.began(), ["clean 2026-03-01 04:00"]);
}

#[test]
fn a_check_that_fails_as_the_timeout_passes_is_no_timeout() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &[]).with(|o| o.timeout_ms = 60_000));
    shell.tick("2026-03-01 10:05");
    shell.begin("clean");
    shell.tick("2026-03-01 10:06");
    let run = shell.running("clean");
    shell.end(run, Ended::Failed { error: Error::invalid("the check `positive` does not hold") });
    assert_eq!(shell.strip("clean", "2026-03-01 09:00", 1), ["failed"]);
}

#[test]
fn a_deadline_of_a_job_that_waits_for_its_turn_is_told_all_the_same() {
    let mut shell = Shell::new("2026-03-01 09:30");
    let late = |o: &mut tidemill_core::interval::Options| {
        o.deadline = Some(Deadline::After { ms: 600_000 });
        o.on_late = Some("hook".to_owned());
    };
    shell.create("clean", hourly("cleaned", &[]).with(late));
    shell.tick("2026-03-01 10:05");
    shell.tick("2026-03-01 10:10");
    assert_eq!(shell.notices().len(), 1);
}

#[test]
fn a_new_job_that_catches_up_waits_for_what_is_late_and_leaves_nothing_out() {
    let mut shell = Shell::new("2026-03-01 05:30");
    shell.cover("clicks", "2026-03-01 02:00", "2026-03-01 04:30");
    shell.cover("ads", "2026-03-01", "2026-03-01 03:00");
    let spec = hourly("joined", &["ads"]).triggered(by_update()).catching_up().with(|o| o.max_active_runs = 9);
    shell.create("join", spec);
    assert_eq!(shell.began(), ["join 2026-03-01 02:00"]);
    assert_eq!(shell.strip("join", "2026-03-01", 6), ["missing", "missing", "running", "waiting", "waiting", "future"]);
    // What it only depends on makes nothing due, and need not: it is due.
    shell.cover("ads", "2026-03-01 03:00", "2026-03-01 06:00");
    assert_eq!(shell.began(), ["join 2026-03-01 03:00"]);
    shell.cover("clicks", "2026-03-01 04:30", "2026-03-01 05:00");
    assert_eq!(shell.began(), ["join 2026-03-01 04:00"]);
}

#[test]
fn the_last_of_two_producers_keeps_what_the_other_had_published_alone() {
    let mut shell = Shell::new("2026-03-01 01:30");
    shell.create("east", hourly("regions", &[]));
    shell.tell(Event::Requested { job: job("east"), start: at("2026-03-01") });
    shell.publish("east");
    let start = Some(Local::parse("2026-03-01 01:00").unwrap());
    shell.create("west", tidemill_core::interval::Spec { start, ..hourly("regions", &[]) });
    shell.create("report", hourly("report", &["regions"]));
    shell.now = at("2026-03-01 02:30");
    shell.tell(Event::Requested { job: job("east"), start: at("2026-03-01 01:00") });
    shell.publish("east");
    shell.tell(Event::JobDropped { job: job("east") });
    // Its rows are there; of the hour in which both were to publish, the other one's are not.
    for (hour, expected) in [("00:00", "running"), ("01:00", "waiting")] {
        let start = format!("2026-03-01 {hour}");
        shell.tell(Event::Requested { job: job("report"), start: at(&start) });
        assert_eq!(shell.strip("report", &start, 1), [expected]);
    }
}

#[test]
fn a_job_that_the_machine_suspended_is_late_all_the_same() {
    let mut shell = Shell::new("2026-03-01 09:30");
    let late = |o: &mut tidemill_core::interval::Options| {
        (o.deadline, o.suspend_after_failures) = (Some(Deadline::After { ms: 600_000 }), 1);
        o.on_late = Some("hook".to_owned());
    };
    for name in ["failed", "off"] {
        shell.create(name, hourly(name, &[]).with(late));
    }
    shell.tick("2026-03-01 10:05");
    shell.fail("failed", Error::invalid("a check"));
    shell.tell(Event::JobSuspended { job: job("off") });
    shell.publish("off");
    let mut told = |now: &str| {
        shell.tick(now);
        shell.notices().len()
    };
    assert_eq!([told("2026-03-01 10:10"), told("2026-03-01 11:10"), told("2026-03-01 11:11")], [1, 1, 0]);
}

#[test]
fn a_job_that_waits_for_updates_instead_of_fires_looks_at_what_no_fire_will() {
    let replaced = |is_suspended| {
        let mut shell = Shell::new("2026-03-01 09:30");
        shell.create("clean", hourly("cleaned", &[]));
        shell.cover("clicks", "2026-03-01", "2026-03-01 11:00");
        shell.tick("2026-03-01 10:05");
        shell.publish("clean");
        shell.now = at("2026-03-01 11:02");
        if is_suspended {
            shell.tell(Event::JobSuspended { job: job("clean") });
        }
        shell.tell(Event::JobReplaced { job: job("clean"), spec: hourly("cleaned", &[]).triggered(by_update()) });
        shell
    };
    assert_eq!(replaced(false).began(), ["clean 2026-03-01 10:00"]);
    let mut shell = replaced(true);
    assert!(shell.began().is_empty());
    shell.tell(Event::JobResumed { job: job("clean") });
    assert_eq!(shell.began(), ["clean 2026-03-01 10:00"]);
}

#[test]
fn what_a_new_job_leaves_out_is_not_late() {
    let mut shell = Shell::new("2026-03-01 09:30");
    let late = |o: &mut tidemill_core::interval::Options| {
        o.deadline = Some(Deadline::After { ms: 6 * 3_600_000 });
        o.on_late = Some("hook".to_owned());
    };
    shell.create("clean", hourly("cleaned", &[]).with(late));
    shell.create("next", hourly("next", &[]).triggered(by_update()).with(late));
    for now in ["10:00", "10:05", "12:00", "15:59"] {
        shell.tick(&format!("2026-03-01 {now}"));
        assert!(shell.notices().is_empty(), "{now}");
    }
    shell.tick("2026-03-01 16:00");
    assert_eq!(shell.notices().len(), 2, "the hour from 9 on, of both");
}
