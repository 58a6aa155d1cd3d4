//! Years of minutes, and jobs that never work: what the state may weigh.

use tidemill_core::interval::{
    CatchUp, Cron, Ended, Event, Length, Local, Order, Reprocess, Request, Spec, SuspendReason, Trigger, Unit,
};
use tidemill_core::{Error, ErrorKind, Millis};

use crate::shell::{Shell, at, dataset, hourly, job};

fn minutely() -> Spec {
    Spec {
        trigger: Trigger::Schedule { cron: Cron::parse("* * * * *").unwrap() },
        interval: Length { count: 1, unit: Unit::Minute },
        start: Some(Local::parse("2016-01-01").unwrap()),
        catch_up: CatchUp::All,
        ..hourly("minutes", &[])
    }
}

fn bytes(shell: &Shell) -> usize {
    serde_json::to_string(&shell.state).unwrap().len()
}

#[test]
fn ten_years_of_minutes_are_a_few_numbers() {
    let mut shell = Shell::new("2026-01-01");
    shell.create("minutes", minutely());
    shell.tick("2026-01-01 00:00:30");
    let waiting = shell.state.jobs[&job("minutes")].due.count();
    assert!(waiting > 5_000_000, "{waiting}");
    assert_eq!((shell.began().len(), shell.last.records.len()), (1, 2));
    for _ in 0..20_000 {
        shell.publish("minutes");
    }
    assert!(bytes(&shell) < 2_000, "{} bytes", bytes(&shell));
}

#[test]
fn a_job_whose_ledger_falls_to_pieces_is_suspended() {
    let mut shell = Shell::new("2026-01-01");
    let mut spec = minutely();
    spec.options.suspend_after_failures = 0;
    shell.create("minutes", spec);
    shell.tick("2026-01-01 00:00:30");
    let suspended = |shell: &Shell| shell.state.jobs[&job("minutes")].suspended.clone();
    let mut ends = 0;
    while suspended(&shell).is_none() {
        let run = shell.running("minutes");
        let failed = Ended::Failed { error: Error::invalid("every second one") };
        shell.end(run, if ends % 2 == 0 { failed } else { Ended::Published { version: ends, rows: None } });
        ends += 1;
        assert!(ends < 20_000, "nobody noticed");
    }
    assert_eq!(suspended(&shell).unwrap().reason, SuspendReason::Ledger);
    assert!(bytes(&shell) < 2 << 20, "{} bytes", bytes(&shell));
    shell.tell(Event::JobResumed { job: job("minutes") });
    assert_eq!(shell.began().len(), 1, "it goes on until the next one fails");
}

#[test]
fn a_backfill_whose_ends_are_all_different_ends_before_its_ledger_is_too_large() {
    let mut shell = Shell::new("2026-01-01");
    let mut spec = minutely();
    (spec.catch_up, spec.options.suspend_after_failures) = (CatchUp::Latest, 0);
    shell.create("minutes", spec);
    let all = |reprocess| {
        let (from, to) = (at("2016-01-01"), at("2016-02-01"));
        let request = Request { from, to, reprocess, max_runs: 1, order: Order::Forward };
        Event::BackfillRequested { job: job("minutes"), request }
    };
    shell.tell(all(Reprocess::Missing));
    let is_going = |shell: &Shell| !shell.state.jobs[&job("minutes")].active.is_empty();
    let mut ends = 0;
    while is_going(&shell) {
        let run = shell.running("minutes");
        let failed = Ended::Failed { error: Error::invalid("every second one") };
        shell.end(run, if ends % 2 == 0 { failed } else { Ended::Published { version: ends, rows: None } });
        ends += 1;
        assert!(ends < 20_000, "nobody noticed");
    }
    let known = &shell.state.jobs[&job("minutes")];
    assert_eq!(known.suspended.as_ref().map(|s| s.reason), Some(SuspendReason::Ledger));
    assert!(known.backfills.is_empty() && known.ledger.pieces() < 10_010, "{} pieces", known.ledger.pieces());
    // One that mends it goes on.
    shell.tell(all(Reprocess::Failed));
    (0..20).for_each(|_| shell.publish("minutes"));
    assert!(is_going(&shell));
}

#[test]
fn coverage_in_too_many_pieces_is_refused_until_they_are_joined() {
    let mut shell = Shell::new("2026-01-01");
    let report = |hour: u64, version| Event::DatasetCovered {
        dataset: dataset("clicks"),
        from: Millis(hour * 3_600_000),
        to: Millis((hour + 1) * 3_600_000),
        version,
    };
    for piece in 0..10_000 {
        shell.tell(report(2 * piece, piece));
    }
    let error = shell.ask(report(30_000, 10_000)).unwrap_err();
    assert_eq!((error.kind, error.message.contains("10000 separate times")), (ErrorKind::ResourcesExhausted, true));
    shell.tell(report(1, 10_001));
    shell.tell(report(30_000, 10_002));
    assert_eq!(shell.state.datasets[&dataset("clicks")].versions.pieces(), 2);
}

#[test]
fn late_minutes_are_a_few_numbers_and_run_once_each() {
    let mut shell = Shell::new("2026-01-01");
    let start = Some(Local::parse("2025-12-31").unwrap());
    let mut spec = Spec { start, depends_on: vec![dataset("clicks")], ..minutely() };
    spec.options.allowed_lateness_ms = Some(7 * 24 * 3_600_000);
    shell.create("minutes", spec);
    shell.cover("clicks", "2025-12-31", "2026-01-01");
    shell.tick("2026-01-01 00:00:30");
    for _ in 0..1_440 {
        shell.publish("minutes");
    }
    let (first, late) = (at("2025-12-31").0, 200);
    for second in 0..late {
        let from = Millis(first + 2 * second * 60_000);
        let to = Millis(from.0 + 60_000);
        shell.tell(Event::DatasetCovered { dataset: dataset("clicks"), from, to, version: 1_000_000 + second });
    }
    assert_eq!(shell.state.jobs[&job("minutes")].active.len(), 1);
    assert!(bytes(&shell) < 10_000, "{} bytes", bytes(&shell));
    let mut runs = 0;
    while !shell.state.jobs[&job("minutes")].active.is_empty() {
        shell.publish("minutes");
        runs += 1;
        assert!(runs <= late, "it does not end");
    }
    let known = &shell.state.jobs[&job("minutes")];
    assert_eq!((runs, known.stale.len(), known.left.is_empty()), (late, 0, true));
}
