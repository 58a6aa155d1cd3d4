//! What late data does, one event at a time.

use tidemill_core::Error;
use tidemill_core::interval::{
    Event, Inherited, Mode, Order, Reprocess, Request, Trigger, Zone, held_up_by, plan, standing,
};

use crate::shell::{Shell, at, dataset, hourly, job};
use crate::stories::With;

/// What is stale, and why.
fn stale(shell: &Shell) -> Vec<String> {
    let (inherited, mut stale) = (Inherited::of(&shell.state), Vec::new());
    for (name, known) in &shell.state.jobs {
        for index in 0..24 {
            let start = Zone::UTC.local(known.calendar.boundary(index));
            stale.extend(known.changed(index).map(|input| format!("{name} {start}: {} changed", input.0)));
            let read = inherited.inputs(name, index);
            stale.extend(read.iter().map(|input| format!("{name} {start}: {} is stale", input.0)));
        }
    }
    stale
}

fn what_is_stale() -> Request {
    let (from, to) = (at("2026-03-01"), at("2026-03-01 12:00"));
    Request { from, to, reprocess: Reprocess::Stale, max_runs: 1, order: Order::Forward }
}

fn reprocess(shell: &mut Shell, name: &str) {
    shell.tell(Event::BackfillRequested { job: job(name), request: what_is_stale() });
}

#[test]
fn ob10_what_was_made_without_late_data_is_stale_and_a_backfill_takes_exactly_that() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &["clicks"]));
    shell.create("report", hourly("reported", &["cleaned"]));
    shell.cover("clicks", "2026-03-01", "2026-03-01 12:00");
    for hour in 10..13 {
        shell.tick(&format!("2026-03-01 {hour}:05"));
        shell.publish("clean");
        shell.publish("report");
    }
    assert_eq!(stale(&shell), Vec::<String>::new());
    shell.cover("clicks", "2026-03-01 10:10", "2026-03-01 10:20");
    // A schedule does not look back; what is wrong now, and through what, is said.
    assert_eq!(shell.began(), Vec::<String>::new());
    assert_eq!(stale(&shell), ["clean 2026-03-01 10:00: clicks changed", "report 2026-03-01 10:00: cleaned is stale"]);
    let planned = plan(&shell.state, &job("report"), &what_is_stale(), shell.now).unwrap();
    assert_eq!(planned.intervals.numbers().collect::<Vec<_>>(), [10]);
    // Whoever asks first, each hour is computed once, after what it reads.
    reprocess(&mut shell, "report");
    assert_eq!(shell.began(), Vec::<String>::new());
    let (inherited, known) = (Inherited::of(&shell.state), &shell.state.jobs[&job("report")]);
    assert_eq!(inherited.holding(&job("report"), known, 10), [&dataset("cleaned")]);
    let read = inherited.first_read(&shell.state, known, 10, &dataset("cleaned"));
    assert_eq!(read.map(|(name, _, index)| (name.0.as_str(), index)), Some(("clean", 10)));
    assert!(inherited.first_read(&shell.state, known, 11, &dataset("cleaned")).is_none());
    reprocess(&mut shell, "clean");
    assert_eq!(shell.began(), ["clean 2026-03-01 10:00"]);
    shell.publish("clean");
    assert_eq!(shell.began(), ["report 2026-03-01 10:00"]);
    shell.publish("report");
    assert_eq!(stale(&shell), Vec::<String>::new());
    for name in ["clean", "report"] {
        let known = &shell.state.jobs[&job(name)];
        assert_eq!([9, 10, 11].map(|index| known.ledger.generation(index)), [1, 2, 1], "{name}");
        assert!(known.backfills.is_empty(), "the backfill of {name} is done");
    }
}

#[test]
fn a_window_is_stale_when_an_interval_before_its_own_is_published_anew() {
    let mut shell = Shell::new("2026-03-01 00:30");
    shell.create("clean", hourly("cleaned", &[]));
    shell.create("rolling", hourly("rolled", &["cleaned"]).with(|o| o.lookback = 2));
    for hour in 1..7 {
        shell.tick(&format!("2026-03-01 0{hour}:05"));
        shell.publish("clean");
        shell.publish("rolling");
    }
    shell.tell(Event::Requested { job: job("clean"), start: at("2026-03-01 02:00") });
    shell.publish("clean");
    let expected = ["02", "03", "04"].map(|hour| format!("rolling 2026-03-01 {hour}:00: cleaned changed"));
    assert_eq!(stale(&shell), expected);
}

#[test]
fn a_run_is_as_new_as_its_inputs_were_when_it_began() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &["clicks"]));
    shell.cover("clicks", "2026-03-01", "2026-03-01 12:00");
    shell.tick("2026-03-01 10:05");
    shell.cover("clicks", "2026-03-01 09:10", "2026-03-01 09:20");
    assert_eq!(stale(&shell), Vec::<String>::new(), "nothing is published");
    shell.publish("clean");
    let expected = ["clean 2026-03-01 09:00: clicks changed"];
    assert_eq!(stale(&shell), expected);
    // A generation that fails leaves what was published, and that is stale.
    let again = || Event::Requested { job: job("clean"), start: at("2026-03-01 09:00") };
    shell.tell(again());
    shell.fail("clean", Error::invalid("a check"));
    assert_eq!(
        (shell.strip("clean", "2026-03-01 09:00", 1), stale(&shell)),
        (vec!["failed"], Vec::from(expected.map(String::from)))
    );
    shell.tell(again());
    shell.publish("clean");
    assert_eq!(stale(&shell), Vec::<String>::new());
}

#[test]
fn what_runs_again_by_itself_is_stale_until_it_is_published() {
    let mut shell = Shell::new("2026-03-01 09:30");
    let by_update = Trigger::Update { of: vec![dataset("clicks")] };
    shell.create("clean", hourly("cleaned", &[]).triggered(by_update));
    shell.cover("clicks", "2026-03-01 09:00", "2026-03-01 10:00");
    shell.publish("clean");
    shell.cover("clicks", "2026-03-01 09:10", "2026-03-01 09:20");
    assert_eq!(shell.began(), ["clean 2026-03-01 09:00"]);
    assert_eq!(stale(&shell), ["clean 2026-03-01 09:00: clicks changed"]);
    shell.publish("clean");
    assert_eq!(stale(&shell), Vec::<String>::new());
}

#[test]
fn what_was_added_is_never_stale_and_makes_nothing_stale() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("log", hourly("logged", &["clicks"]).with(|o| o.mode = Mode::Append));
    shell.create("report", hourly("reported", &["logged"]));
    shell.cover("clicks", "2026-03-01", "2026-03-01 12:00");
    shell.tick("2026-03-01 10:05");
    shell.publish("log");
    shell.publish("report");
    shell.cover("clicks", "2026-03-01 09:10", "2026-03-01 09:20");
    assert_eq!(stale(&shell), Vec::<String>::new());
    reprocess(&mut shell, "log");
    assert_eq!(shell.began(), Vec::<String>::new());
}

#[test]
fn a_job_that_reads_something_else_forgets_what_made_it_stale() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &["clicks"]));
    shell.cover("clicks", "2026-03-01", "2026-03-01 12:00");
    shell.tick("2026-03-01 10:05");
    shell.publish("clean");
    shell.cover("clicks", "2026-03-01 09:10", "2026-03-01 09:20");
    assert_eq!(stale(&shell).len(), 1);
    shell.tell(Event::JobAltered { job: job("clean"), spec: hourly("cleaned", &["views"]) });
    assert_eq!(stale(&shell), Vec::<String>::new());
}

#[test]
fn an_interval_that_waits_names_the_one_that_failed() {
    let mut shell = Shell::new("2026-03-01 09:30");
    shell.create("clean", hourly("cleaned", &[]));
    shell.create("report", hourly("reported", &["cleaned", "clicks"]));
    shell.tick("2026-03-01 10:05");
    shell.fail("clean", Error::invalid("a check"));
    assert_eq!(shell.strip("report", "2026-03-01 09:00", 1), ["waiting"]);
    let known = &shell.state.jobs[&job("report")];
    let (name, producer, index) = held_up_by(&shell.state, known, 9, &dataset("cleaned")).unwrap();
    let stands = standing(&shell.state, producer, index, shell.now);
    assert_eq!((name, index, stands.name()), (&job("clean"), 9, "failed"));
    assert!(held_up_by(&shell.state, known, 9, &dataset("clicks")).is_none(), "no job makes clicks");
}
