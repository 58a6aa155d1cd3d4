//! Statements about jobs and runs, one event at a time.

use tidemill_core::interval::{
    self, CatchUp, Cron, DatasetName, JobName, Length, Local, Mode, Options, Spec, Standing, Trigger, Unit, Zone,
    standing,
};
use tidemill_core::record::{Checked, Record, RunSpec, RunState, Sheet, State, Verdict};
use tidemill_core::schedule::{Action, Basis, Command, Event, step};
use tidemill_core::{BlobHash, Error, Millis, RunId};

use crate::cluster::{Cluster, failed, launch, succeeded};
use crate::graphs::chain;

const HOUR_MS: u64 = 3_600_000;
const STATEMENT: &str = "statement";

fn name() -> JobName {
    JobName("hourly".to_owned())
}

fn spec() -> Spec {
    Spec {
        statement: "CREATE JOB hourly …".to_owned(),
        output: DatasetName("public.sums".to_owned()),
        trigger: Trigger::Schedule { cron: Cron::parse("@hourly").unwrap() },
        zone: Zone::UTC,
        interval: Length { count: 1, unit: Unit::Hour },
        start: Some(Local(0)),
        catch_up: CatchUp::Latest,
        depends_on: Vec::new(),
        options: Options::default(),
        identity: String::new(),
        by: None,
    }
}

/// A client's statement arrives at its meaning; the step that this took.
fn command(cluster: &mut Cluster, command: Command) -> tidemill_core::schedule::Step {
    let run = RunId(format!("{STATEMENT} {}", cluster.state.runs.len()));
    let spec =
        RunSpec { statement: String::new(), request: None, express: true, may_change: true, by: None, job: None };
    cluster.send(Event::Submitted { run: run.clone(), spec });
    let event = Event::Commanded { run, command, kept: None };
    step(&mut cluster.state, &cluster.settings, event, Millis(cluster.now))
}

fn of_job(event: interval::Event) -> Command {
    Command::Job { event: Box::new(event), basis: None }
}

fn error_of(step: &tidemill_core::schedule::Step) -> Option<&Error> {
    step.records.iter().find_map(|record| match record {
        Record::RunFinished { outcome: tidemill_core::record::Outcome::Failed { error }, .. } => Some(error),
        _ => None,
    })
}

/// A cluster at ten past one whose job has begun its first hour by itself, with one executor.
fn begun() -> (Cluster, RunId) {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    cluster.now = HOUR_MS / 2;
    let created = command(&mut cluster, of_job(interval::Event::JobCreated { job: name(), spec: spec() }));
    assert_eq!(error_of(&created), None);
    let actions = cluster.wait(HOUR_MS * 2 / 3);
    let run = RunId("job-hourly-1-0-1-1".to_owned());
    assert_eq!(actions, [Action::Plan { run: run.clone() }]);
    (cluster, run)
}

fn plan(cluster: &mut Cluster, run: &RunId) -> Vec<Action> {
    let blob = || BlobHash(String::new());
    let sheet = Sheet { blob: blob(), session: blob(), effects: true, inputs: Vec::new() };
    cluster.send(Event::Planned { run: run.clone(), graph: Ok(chain(&[1])), sheet: Some(sheet) })
}

fn stands(state: &State) -> Standing {
    standing(&state.jobs, &state.jobs.jobs[&name()], 0, Millis(2 * HOUR_MS))
}

#[test]
fn a_statement_and_what_it_asks_for_are_in_one_step() {
    let mut cluster = Cluster::new();
    let created = command(&mut cluster, of_job(interval::Event::JobCreated { job: name(), spec: spec() }));
    assert!(created.urgent);
    let kinds: Vec<_> = created.records.iter().map(|record| matches!(record, Record::Jobs(_))).collect();
    assert_eq!(kinds, [true, false], "{:?}", created.records);
    assert!(matches!(created.records.last(), Some(Record::RunFinished { .. })));
    // Submitted again by a client that lost the answer, it is over already.
    let run = RunId(format!("{STATEMENT} 0"));
    let again = Event::Commanded { run, command: of_job(interval::Event::JobDropped { job: name() }), kept: None };
    assert_eq!(cluster.send(again), []);
    assert!(cluster.state.jobs.jobs.contains_key(&name()));
}

#[test]
fn a_statement_that_cannot_be_fails_and_changes_nothing() {
    let mut cluster = Cluster::new();
    let refused = command(&mut cluster, of_job(interval::Event::JobDropped { job: name() }));
    assert!(error_of(&refused).is_some_and(|error| error.message.contains("there is no job hourly")));
    assert_eq!(refused.records.len(), 1);
}

#[test]
fn a_job_that_somebody_else_changed_is_not_changed_unseen() {
    let (mut cluster, _) = begun();
    let altered = |revision| Command::Job {
        event: Box::new(interval::Event::JobAltered { job: name(), spec: spec() }),
        basis: Some(Basis { job: name(), incarnation: 1, revision }),
    };
    assert_eq!(error_of(&command(&mut cluster, altered(1))), None);
    let refused = command(&mut cluster, altered(1));
    assert!(error_of(&refused).is_some_and(|error| error.message.contains("by another client")));
    assert_eq!(error_of(&command(&mut cluster, altered(2))), None);
    // There was no job of the name when this was planned.
    let new = of_job(interval::Event::JobReplaced { job: name(), spec: spec() });
    assert!(error_of(&command(&mut cluster, new)).is_some_and(|error| error.message.contains("by another client")));
}

#[test]
fn two_jobs_that_were_planned_at_once_do_not_delete_each_others_rows() {
    let mut cluster = Cluster::new();
    let other = |mode| Spec { options: Options { mode, ..Options::default() }, ..spec() };
    let created = |job: &str, spec| of_job(interval::Event::JobCreated { job: JobName(job.to_owned()), spec });
    let first = command(&mut cluster, created("hourly", other(Mode::Append)));
    assert_eq!(error_of(&first), None);
    // Neither knew of the other when it was planned.
    let second = command(&mut cluster, created("other", other(Mode::ReplaceInterval)));
    assert!(
        error_of(&second).is_some_and(|error| error.message.contains("the job hourly publishes into")),
        "{second:?}"
    );
    assert_eq!(error_of(&command(&mut cluster, created("other", other(Mode::Append)))), None);
    let altered = interval::Event::JobAltered { job: name(), spec: spec() };
    let altered = command(&mut cluster, of_job(altered));
    assert!(
        error_of(&altered).is_some_and(|error| error.message.contains("the job other publishes into")),
        "{altered:?}"
    );
}

#[test]
fn a_run_that_starts_is_accepted_in_the_same_step() {
    let (cluster, run) = begun();
    let accepted = &cluster.state.runs[&run];
    assert!(accepted.spec.job.as_ref().is_some_and(|job| job.interval.end == Millis(HOUR_MS)));
    assert_eq!(accepted.spec.statement, spec().statement);
    assert!(matches!(stands(&cluster.state), Standing::Running { generation: 1, attempt: 1, .. }));
}

#[test]
fn a_published_version_is_the_intervals() {
    let (mut cluster, run) = begun();
    let task = launch(&plan(&mut cluster, &run));
    cluster.send(succeeded(&task));
    cluster.send(Event::CommitReady { run: run.clone(), winners: vec![task.attempt], rows: 7 });
    let done = Event::ResultDelivered { run: run.clone(), rows: 1, kept: None, version: Some(4) };
    let end = step(&mut cluster.state, &cluster.settings, done, Millis(cluster.now));
    let records: Vec<_> = end.records.iter().map(|record| matches!(record, Record::Jobs(_))).collect();
    assert_eq!((records, end.urgent), (vec![false, true], true), "{:?}", end.records);
    assert_eq!(stands(&cluster.state), Standing::Published { generation: 1, version: Some(4) });
    assert_eq!(cluster.run(&run.0).version, Some(4));
}

#[test]
fn checks_stay_with_their_run_and_rows_with_their_interval() {
    let (mut cluster, run) = begun();
    let task = launch(&plan(&mut cluster, &run));
    cluster.send(succeeded(&task));
    let told = |verdict| {
        let (check, condition) = ("x".repeat(1_000), "count(*) > 0".to_owned());
        let checked = Checked { check, condition, verdict, value: None, violations: None, sample: None };
        Event::Checked { run: run.clone(), checks: vec![checked; 50] }
    };
    // A leader that takes over looks again.
    cluster.send(told(Verdict::Failed));
    cluster.send(told(Verdict::Passed));
    cluster.send(Event::CommitReady { run: run.clone(), winners: vec![task.attempt], rows: 7 });
    // What is past that point is looked at no more.
    cluster.send(told(Verdict::Failed));
    cluster.send(Event::ResultDelivered { run: run.clone(), rows: 1, kept: None, version: Some(4) });
    let checks = &cluster.run(&run.0).checks;
    assert!(checks.len() == 32 && checks.iter().all(|c| c.verdict == Verdict::Passed && c.check.len() < 210));
    assert_eq!(cluster.state.jobs.jobs[&name()].ledger.rows(0), Some(7));
    // A run that found its interval published does not know its rows.
    let older = r#"{"IntervalPublished":{"job":"hourly","index":3,"version":1,"at":5}}"#;
    let older: interval::Record = serde_json::from_str(older).unwrap();
    assert!(matches!(older, interval::Record::IntervalPublished { rows: None, .. }));
}

#[test]
fn a_run_that_says_no_version_has_published_nothing() {
    let (mut cluster, run) = begun();
    plan(&mut cluster, &run);
    cluster.send(Event::ResultDelivered { run, rows: 1, kept: None, version: None });
    assert!(matches!(stands(&cluster.state), Standing::Retrying { attempt: 1, .. }));
}

#[test]
fn a_failed_run_is_tried_again_under_the_next_name() {
    let (mut cluster, run) = begun();
    for _ in 0..cluster.settings.task_attempts {
        let actions = if cluster.run(&run.0).graph.is_none() { plan(&mut cluster, &run) } else { cluster.wait(10_000) };
        let task = launch(&actions);
        cluster.send(failed(&task, Error::unavailable("the store was busy")));
    }
    assert_eq!(cluster.run(&run.0).state, RunState::Failed);
    assert!(matches!(stands(&cluster.state), Standing::Retrying { attempt: 1, .. }));
    let next = RunId("job-hourly-1-0-1-2".to_owned());
    assert_eq!(cluster.wait(30_000), [Action::Plan { run: next }]);
}

#[test]
fn a_cancelled_run_is_not_tried_again_running_or_waiting() {
    let (mut cluster, run) = begun();
    let cancel = || Command::CancelRun { run: run.clone() };
    assert_eq!(error_of(&command(&mut cluster, cancel())), None);
    assert_eq!(cluster.run(&run.0).state, RunState::Cancelled);
    assert_eq!(stands(&cluster.state), Standing::Cancelled { published: None });
    let late = command(&mut cluster, cancel());
    assert!(error_of(&late).is_some_and(|error| error.message.contains("is not in progress")));

    let (mut cluster, run) = begun();
    cluster.send(Event::Planned { run: run.clone(), graph: Err(Error::unavailable("busy")), sheet: None });
    assert!(matches!(stands(&cluster.state), Standing::Retrying { .. }));
    assert_eq!(error_of(&command(&mut cluster, Command::CancelRun { run })), None);
    assert_eq!(stands(&cluster.state), Standing::Cancelled { published: None });

    let (mut cluster, run) = begun();
    cluster.send(Event::Cancelled { run });
    assert_eq!(stands(&cluster.state), Standing::Cancelled { published: None });
}

#[test]
fn any_run_can_be_cancelled_by_a_statement_once() {
    let mut cluster = Cluster::new();
    cluster.submit("slow", chain(&[1]));
    let slow = RunId("slow".to_owned());
    assert_eq!(error_of(&command(&mut cluster, Command::CancelRun { run: slow.clone() })), None);
    assert_eq!(cluster.run("slow").state, RunState::Cancelled);
    let again = command(&mut cluster, Command::CancelRun { run: slow });
    assert!(error_of(&again).is_some_and(|error| error.message.contains("has ended already")));
    let unknown = command(&mut cluster, Command::CancelRun { run: RunId("other".to_owned()) });
    assert!(error_of(&unknown).is_some_and(|error| error.message.contains("there is no run other")));
}

#[test]
fn a_dropped_job_takes_its_run_along() {
    let (mut cluster, run) = begun();
    plan(&mut cluster, &run);
    assert_eq!(error_of(&command(&mut cluster, of_job(interval::Event::JobDropped { job: name() }))), None);
    assert_eq!(cluster.run(&run.0).state, RunState::Cancelled);
    assert!(cluster.state.jobs.jobs.is_empty());
}

#[test]
fn a_run_that_takes_too_long_is_stopped_and_tried_again() {
    let (mut cluster, run) = begun();
    plan(&mut cluster, &run);
    cluster.wait(HOUR_MS);
    let ended = cluster.run(&run.0);
    let why = ended.error.as_ref().map(|error| error.message.as_str());
    assert_eq!((ended.state, why), (RunState::Cancelled, Some("timed out after 1 hour: its job's timeout")));
    let stands = stands(&cluster.state);
    let is_late = |error: &Error| error.message.contains("took longer than the timeout");
    assert!(matches!(&stands, Standing::Retrying { error, .. } if is_late(error)), "{stands:?}");
}

#[test]
fn schedules_go_by_clocks_on_the_wall_and_executors_by_one_that_nobody_sets() {
    let (mut cluster, run) = begun();
    let created = cluster.state.jobs.jobs[&name()].cursor;
    let hours = i64::try_from(48 * HOUR_MS).unwrap();
    assert_eq!(cluster.send(Event::ClockSet { ahead_ms: hours }), []);
    let actions = cluster.wait(0);
    assert!(cluster.state.jobs.jobs[&name()].cursor.fired_to.since(created.fired_to) >= 47 * HOUR_MS, "it has fired");
    assert_eq!(cluster.run(&run.0).state, RunState::Cancelled, "its timeout has passed");
    assert!(!actions.iter().any(|action| matches!(action, Action::Probe { .. })), "{actions:?}");
    let alive = cluster.state.executors.values().all(|e| e.state == tidemill_core::record::ExecutorState::Alive);
    assert!(alive, "nobody was silent");
    cluster.send(Event::Elected { epoch: tidemill_core::Epoch(2), build: "1".to_owned() });
    assert_eq!(cluster.state.clock_ahead_ms, 0);
}

#[test]
fn a_new_leader_goes_on_with_the_run_and_submits_none_beside_it() {
    let (mut cluster, run) = begun();
    let runs = cluster.state.runs.len();
    let actions = cluster.send(Event::Elected { epoch: tidemill_core::Epoch(2), build: "1".to_owned() });
    assert!(actions.contains(&Action::Plan { run }), "{actions:?}");
    assert_eq!(cluster.state.runs.len(), runs);
}

#[test]
fn a_dataset_that_is_dropped_covers_nothing() {
    let mut cluster = Cluster::new();
    let dataset = DatasetName("public.clicks".to_owned());
    let covered =
        interval::Event::DatasetCovered { dataset: dataset.clone(), from: Millis(0), to: Millis(HOUR_MS), version: 1 };
    assert_eq!(error_of(&command(&mut cluster, of_job(covered))), None);
    assert!(cluster.state.jobs.datasets.contains_key(&dataset));
    let run = RunId("drop".to_owned());
    let spec =
        RunSpec { statement: String::new(), request: None, express: true, may_change: true, by: None, job: None };
    cluster.send(Event::Submitted { run: run.clone(), spec });
    let record = Some(Box::new(Record::CatalogueDropped { name: dataset.0.clone() }));
    cluster.send(Event::CatalogueChanged { run, record, rows: 0, kept: None, version: None });
    assert!(!cluster.state.jobs.datasets.contains_key(&dataset));
}

#[test]
fn an_old_snapshot_without_jobs_is_read() {
    let (cluster, _) = begun();
    let mut written = serde_json::to_value(&cluster.state).unwrap();
    let read: State = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(read, cluster.state);
    written.as_object_mut().unwrap().remove("jobs");
    let read: State = serde_json::from_value(written).unwrap();
    assert!(read.jobs.jobs.is_empty());
}

#[test]
fn a_job_whose_run_is_being_published_is_not_dropped_under_it() {
    let (mut cluster, run) = begun();
    let task = launch(&plan(&mut cluster, &run));
    cluster.send(succeeded(&task));
    cluster.send(Event::CommitReady { run: run.clone(), winners: vec![task.attempt], rows: 7 });
    let drop = || of_job(interval::Event::JobDropped { job: name() });
    let refused = command(&mut cluster, drop());
    assert!(error_of(&refused).is_some_and(|error| error.message.contains("is being published")));
    cluster.send(Event::ResultDelivered { run, rows: 1, kept: None, version: Some(1) });
    assert_eq!(error_of(&command(&mut cluster, drop())), None);
}

#[test]
fn a_run_that_waits_for_its_turn_does_not_time_out() {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    cluster.settings.active_runs = 1;
    cluster.now = HOUR_MS / 2;
    for job in ["first", "second"] {
        let event = interval::Event::JobCreated {
            job: JobName(job.to_owned()),
            spec: Spec { output: DatasetName(job.to_owned()), ..spec() },
        };
        assert_eq!(error_of(&command(&mut cluster, of_job(event))), None);
    }
    cluster.wait(HOUR_MS * 2 / 3);
    let (first, second) = (RunId("job-first-1-0-1-1".to_owned()), RunId("job-second-2-0-1-1".to_owned()));
    let states = |cluster: &Cluster| [&first, &second].map(|run| cluster.run(&run.0).state);
    assert_eq!(states(&cluster), [RunState::Planning, RunState::Queued]);
    cluster.wait(HOUR_MS - 1);
    assert_eq!(states(&cluster), [RunState::Planning, RunState::Queued]);
    cluster.wait(1);
    assert_eq!(states(&cluster), [RunState::Cancelled, RunState::Planning], "an hour of its own counts");
    cluster.wait(HOUR_MS / 2);
    assert_eq!(cluster.run(&second.0).state, RunState::Planning);
}

#[test]
fn an_interval_that_waits_for_its_next_try_is_cancelled_though_the_history_forgot_its_run() {
    let (mut cluster, run) = begun();
    cluster.settings.run_history = 0;
    cluster.send(Event::Planned { run: run.clone(), graph: Err(Error::unavailable("no store")), sheet: None });
    assert!(matches!(stands(&cluster.state), Standing::Retrying { .. }) && !cluster.state.runs.contains_key(&run));
    assert_eq!(error_of(&command(&mut cluster, Command::CancelRun { run })), None);
    assert!(matches!(stands(&cluster.state), Standing::Cancelled { .. }));
}

#[test]
fn clients_do_not_wait_behind_jobs() {
    let (mut cluster, run) = begun();
    cluster.settings.active_runs = 1;
    cluster.submit("query", chain(&[1]));
    assert_eq!([run.0.as_str(), "query"].map(|run| cluster.run(run).state), [RunState::Planning, RunState::Running]);
}

#[test]
fn a_notice_is_told_until_somebody_has_it() {
    let mut cluster = Cluster::new();
    cluster.now = HOUR_MS / 2;
    let mut job = spec();
    job.options.on_failure = Some("https://pager".to_owned());
    job.options.retries = 0;
    let _ = command(&mut cluster, of_job(interval::Event::JobCreated { job: name(), spec: job }));
    cluster.wait(HOUR_MS * 2 / 3);
    let run = RunId("job-hourly-1-0-1-1".to_owned());
    let told = |actions: &[Action]| {
        actions
            .iter()
            .filter_map(|action| if let Action::Notify { id, .. } = action { Some(*id) } else { None })
            .collect::<Vec<_>>()
    };
    let failed = Event::Planned { run, graph: Err(Error::invalid("no such column")), sheet: None };
    assert_eq!(told(&cluster.send(failed)), [1]);
    let elected = |epoch| Event::Elected { epoch: tidemill_core::Epoch(epoch), build: "1".to_owned() };
    assert_eq!(told(&cluster.send(elected(2))), [1], "whoever leads then tells it again");
    cluster.send(Event::NoticeEnded { id: 1 });
    assert!(told(&cluster.send(elected(3))).is_empty() && cluster.state.notices.is_empty());
}
