//! What clocks do to people's jobs, one event at a time: zones, summer time, lengths that differ, and what begins later.

use tidemill_core::interval::{
    Cron, Ended, Event, Length, Local, Order, Reprocess, Request, Spec, Trigger, Unit, Zone,
};

use crate::shell::{Shell, at, hourly, job};
use crate::stories::With;

const DAY: Length = Length { count: 1, unit: Unit::Day };
const HOUR: Length = Length { count: 1, unit: Unit::Hour };

/// A job by the clocks of a zone, from the time on that they show.
fn by_clocks(output: &str, depends_on: &[&str], zone: &str, start: &str, interval: Length, cron: &str) -> Spec {
    Spec {
        trigger: Trigger::Schedule { cron: Cron::parse(cron).unwrap() },
        zone: Zone::parse(zone).unwrap(),
        interval,
        start: Some(Local::parse(start).unwrap()),
        ..hourly(output, depends_on)
    }
}

/// Publishes all that is in progress and what begins then; the positions.
fn publish_all(shell: &mut Shell, name: &str) -> Vec<u64> {
    let mut published = Vec::new();
    while !shell.state.jobs[&job(name)].active.is_empty() {
        published.push(shell.running(name).index);
        shell.publish(name);
    }
    published
}

#[test]
fn through_both_changes_of_the_clocks_each_interval_runs_once() {
    let run = |start: &str, end: &str, interval: Length, cron: &str| {
        let zone = Zone::parse("America/New_York").unwrap();
        let instant = |text: &str| zone.instant(Local::parse(text).unwrap());
        let mut shell = Shell::new("2026-01-01");
        shell.now = instant(start);
        let spec = by_clocks("out", &[], "America/New_York", start, interval, cron);
        shell.create("job", spec.with(|o| o.max_active_runs = 100));
        let (end, mut ran) = (instant(end), Vec::new());
        while shell.now < end {
            shell.now.0 += 300_000;
            shell.tell(Event::Tick);
            ran.extend(publish_all(&mut shell, "job"));
        }
        assert!(ran.iter().copied().eq(0..ran.len() as u64), "{cron} ran {ran:?}");
        ran.len()
    };
    let quarter = Length { count: 15, unit: Unit::Minute };
    let (week, month) = (Length { count: 1, unit: Unit::Week }, Length { count: 1, unit: Unit::Month });
    for (start, end, hours) in [("2026-03-07", "2026-03-10", 71), ("2026-10-31", "2026-11-03", 73)] {
        assert_eq!(run(start, end, quarter, "*/15 * * * *"), 4 * hours);
        assert_eq!(run(start, end, HOUR, "5 * * * *"), hours - 1, "the last one is looked at five minutes later");
        // Fixed hours fire in the first pass only: the next one makes two hours due.
        assert_eq!(run(start, end, HOUR, "0 0-23 * * *"), hours);
        assert_eq!(run(start, end, DAY, "30 2 * * *"), 2);
        assert_eq!(run(start, end, DAY, "30 1 * * *"), 2);
    }
    assert_eq!(run("2026-03-02", "2026-03-17", week, "0 3 * * MON"), 2);
    assert_eq!(run("2026-01-31", "2026-04-02", month, "0 0 1 * *"), 2, "28 February, then 31 March");
}

#[test]
fn a_day_of_another_zone_waits_for_the_hours_that_are_in_it() {
    let mut shell = Shell::new("2026-03-29 22:30");
    shell.create("hours", by_clocks("hours", &[], "UTC", "2026-03-28", HOUR, "5 * * * *"));
    shell.create("days", by_clocks("days", &["hours"], "Europe/Berlin", "2026-03-28", DAY, "0 2 * * *"));
    // 29 March has 23 hours there, and begins at 23:00 of the day before. All but the last one:
    let (from, to) = (at("2026-03-28 23:00"), at("2026-03-29 21:00"));
    let request = Request { from, to, reprocess: Reprocess::Missing, max_runs: 1, order: Order::Reverse };
    shell.tell(Event::BackfillRequested { job: job("hours"), request });
    assert_eq!(publish_all(&mut shell, "hours").len(), 22);
    shell.tell(Event::JobSuspended { job: job("hours") });
    shell.tick("2026-03-30 00:01");
    assert_eq!(shell.strip("days", "2026-03-28 23:00", 1), ["waiting"]);
    shell.tell(Event::Requested { job: job("hours"), start: at("2026-03-29 21:00") });
    shell.publish("hours");
    assert_eq!(shell.began(), ["days 2026-03-28 23:00"]);
}

#[test]
fn an_hour_waits_for_both_that_it_lies_in_and_for_its_day() {
    let mut shell = Shell::new("2026-03-02 00:00");
    // Hours of Kathmandu begin at a quarter past.
    shell.create("hours", by_clocks("hours", &["raw", "days"], "Asia/Kathmandu", "2026-03-01", HOUR, "0 0 1 1 *"));
    shell.create("days", by_clocks("days", &[], "UTC", "2026-03-01", DAY, "0 0 1 1 *"));
    shell.tell(Event::Requested { job: job("hours"), start: at("2026-03-01 09:15") });
    shell.cover("raw", "2026-03-01 09:00", "2026-03-01 10:00");
    assert!(shell.began().is_empty());
    shell.cover("raw", "2026-03-01 10:00", "2026-03-01 11:00");
    assert!(shell.began().is_empty());
    shell.tell(Event::Requested { job: job("days"), start: at("2026-03-01") });
    shell.publish("days");
    assert_eq!(shell.began(), ["hours 2026-03-01 09:15"]);
}

#[test]
fn a_day_of_25_hours_waits_for_all_of_them() {
    let mut shell = Shell::new("2026-11-02 04:30");
    shell.create("days", by_clocks("days", &["raw"], "America/New_York", "2026-11-01", DAY, "0 0 1 1 *"));
    let ask = || Event::Requested { job: job("days"), start: at("2026-11-01 04:00") };
    let early = shell.ask(ask()).unwrap_err();
    assert!(early.message.contains("not over before 2026-11-02 00:00 America/New_York"), "{early}");
    shell.now = at("2026-11-02 05:00");
    shell.tell(ask());
    shell.cover("raw", "2026-11-01 04:00", "2026-11-02 04:00");
    assert!(shell.began().is_empty(), "24 hours are not the day");
    shell.cover("raw", "2026-11-02 04:00", "2026-11-02 05:00");
    assert_eq!(shell.began(), ["days 2026-11-01 04:00"]);
}

#[test]
fn nothing_is_due_before_a_start_that_is_to_come() {
    for catches_up in [false, true] {
        let mut shell = Shell::new("2026-03-01 09:30");
        let spec = by_clocks("out", &[], "UTC", "2026-03-01 12:00", HOUR, "5 * * * *");
        shell.create("later", if catches_up { spec.catching_up() } else { spec });
        for now in ["2026-03-01 10:05", "2026-03-01 12:05", "2026-03-01 12:59"] {
            shell.tick(now);
            assert!(shell.began().is_empty(), "{now}");
        }
        shell.tick("2026-03-01 13:05");
        assert_eq!(shell.began(), ["later 2026-03-01 12:00"]);
    }
}

#[test]
fn what_somebody_asks_for_goes_before_what_is_due() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &[]).catching_up());
    shell.tick("2026-03-01 10:05");
    assert_eq!(shell.began(), ["clean 2026-03-01 00:00"]);
    shell.tell(Event::Requested { job: job("clean"), start: at("2026-03-01 07:00") });
    shell.publish("clean");
    assert_eq!(shell.began(), ["clean 2026-03-01 07:00"]);
    shell.publish("clean");
    assert_eq!(shell.began(), ["clean 2026-03-01 01:00"]);
}

#[test]
fn what_was_down_for_years_is_behind_by_all_of_it_or_by_one() {
    let mut shell = Shell::new("2016-01-01");
    let minutes = |output: &str| {
        let minute = Length { count: 1, unit: Unit::Minute };
        by_clocks(output, &[], "UTC", "2016-01-01", minute, "* * * * *")
    };
    shell.create("latest", minutes("latest"));
    shell.create("all", minutes("all").catching_up());
    shell.tick("2026-01-01");
    let minutes = (at("2026-01-01").0 - at("2016-01-01").0) / 60_000;
    let stands = |name: &str| {
        let known = &shell.state.jobs[&job(name)];
        (shell.running(name).index, known.due.count(), known.ledger.pieces())
    };
    assert_eq!(stands("latest"), (minutes - 1, 0, 1), "what was skipped is one piece");
    assert_eq!(stands("all"), (0, minutes - 1, 0));
}

#[test]
fn a_run_that_ends_after_its_job_began_anew_changes_nothing() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &[]));
    shell.tick("2026-03-01 10:05");
    let old = shell.running("clean");
    let spec = Spec { interval: Length { count: 2, unit: Unit::Hour }, ..hourly("cleaned", &[]) };
    shell.tell(Event::JobReplaced { job: job("clean"), spec });
    assert_eq!(shell.cancelled(), std::slice::from_ref(&old));
    let before = shell.state.clone();
    shell.end(old, Ended::Published { version: 1, rows: None });
    assert_eq!((&shell.state, shell.last.records.len()), (&before, 0));
}
