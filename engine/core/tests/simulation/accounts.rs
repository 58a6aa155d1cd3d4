//! A run is published only where what its winners read is what they were given.

use tidemill_core::graph::ExchangeKind;
use tidemill_core::record::{Footer, RowCounts, RowsDiffer, RowsRead, RunState, TaskMetrics};
use tidemill_core::schedule::{Event, Launch, Lost, LostOutput};
use tidemill_core::{Error, RunId, StageId};

use crate::cluster::{Cluster, launch, launches};
use crate::graphs::chain;

fn done(launch: &Launch, rows: u64, counts: Option<RowCounts>) -> Event {
    let footer = Footer { rows, ..Footer::default() };
    ended(launch, footer, counts)
}

fn ended(launch: &Launch, footer: Footer, rows: Option<RowCounts>) -> Event {
    Event::TaskSucceeded {
        run: launch.run.clone(),
        task: launch.task,
        attempt: launch.attempt,
        footer,
        metrics: TaskMetrics { rows_scanned: 50, ..TaskMetrics::default() },
        operators: Vec::new(),
        rows,
    }
}

/// What a task tells that read so many rows of the first stage.
fn read(rows: u64, whole: bool) -> Option<RowCounts> {
    let reads = vec![RowsRead { from: StageId(0), rows, whole }];
    let [filtered, aggregated, groups, joined] = [Some(1), Some(rows), Some(2), None];
    Some(RowCounts { filtered, aggregated, groups, joined, reads, differs: None })
}

/// Lets two tasks give 10 and 20 rows, and each of `readers` tell what it made of them, and asks for the commit.
fn committed(kind: ExchangeKind, readers: &[Option<RowCounts>]) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.start("a", 4);
    let mut graph = chain(&[2, u32::try_from(readers.len()).unwrap()]);
    graph.stages[1].inputs[0].kind = kind;
    let producers = launches(&cluster.submit("run", graph));
    cluster.send(done(&producers[0], 10, None));
    let launched = launches(&cluster.send(done(&producers[1], 20, None)));
    assert_eq!(launched.len(), readers.len());
    for (launch, counts) in launched.iter().zip(readers) {
        cluster.send(done(launch, 1, counts.clone()));
    }
    commit(&mut cluster, &launched);
    cluster
}

fn commit(cluster: &mut Cluster, winners: &[Launch]) {
    let winners = winners.iter().map(|launch| launch.attempt).collect();
    cluster.send(Event::CommitReady { run: RunId("run".to_owned()), winners, rows: 2 });
}

/// Why it is not published, if it is not.
fn refused(kind: ExchangeKind, readers: &[Option<RowCounts>]) -> Option<String> {
    let cluster = committed(kind, readers);
    let run = cluster.run("run");
    let refused = run.error.as_ref().map(|error| error.message.clone());
    let expected = if refused.is_some() { (RunState::Failed, false) } else { (RunState::Running, true) };
    assert_eq!((run.state, run.intent.is_some()), expected);
    refused
}

#[test]
fn what_stages_read_is_what_was_given_to_them() {
    let hash = |first, second| refused(ExchangeKind::Hash, &[first, second]);
    assert_eq!(hash(read(12, true), read(18, true)), None);
    let bug = "so nothing is published: please report this as a bug";
    let all = "stage 1 read 29 rows of stage 0 in its tasks, which gave 30";
    assert_eq!(hash(read(12, true), read(17, true)), Some(format!("{all}, {bug}")));
    let one = "stage 1 read 31 rows of stage 0 in a task, which gave 30";
    let broadcast = |first, second| refused(ExchangeKind::Broadcast, &[first, second]);
    assert_eq!(broadcast(read(30, true), read(30, true)), None);
    assert_eq!(broadcast(read(30, true), read(31, true)), Some(format!("{one}, {bug}")));
    let all = "stage 1 read 20 rows of stage 0 in its tasks, which gave 30";
    for kind in [ExchangeKind::Gather, ExchangeKind::SortedGather] {
        assert_eq!(refused(kind, &[read(30, true)]), None);
        assert_eq!(refused(kind, &[read(20, true)]), Some(format!("{all}, {bug}")));
    }
}

#[test]
fn what_may_stop_early_or_does_not_tell_is_published() {
    let hash = |first, second| refused(ExchangeKind::Hash, &[first, second]);
    assert_eq!(hash(read(12, true), read(1, false)), None, "it may stop early");
    assert_eq!(hash(read(12, true), None), None, "one does not tell");
    assert_eq!(hash(None, None), None, "nobody tells");
    let twice = read(12, true).map(|mut counts| {
        counts.reads.extend_from_within(..);
        counts
    });
    assert_eq!(hash(twice, read(18, true)), None, "it reads the stage more than once");
    assert_eq!(hash(read(30, true), Some(RowCounts::default())), None, "a branch that one task has");
}

#[test]
fn what_does_not_agree_inside_of_a_stage_is_not_published() {
    let differs = RowsDiffer { operator: "FilterExec".to_owned(), given: 12, taken: 11 };
    let first = read(12, true).map(|counts| RowCounts { differs: Some(differs), ..counts });
    let told =
        "in stage 1, FilterExec took 11 rows and was given 12, so nothing is published: please report this as a bug";
    assert_eq!(refused(ExchangeKind::Hash, &[first, read(18, true)]).as_deref(), Some(told));
}

#[test]
fn what_was_repeated_is_asked_only_where_it_was_compared() {
    let refused = |checksum| {
        let mut cluster = Cluster::new();
        cluster.start("a", 2);
        let footer = Footer { rows: 10, checksum, ..Footer::default() };
        let producer = launch(&cluster.submit("run", chain(&[1, 2])));
        let readers = launches(&cluster.send(ended(&producer, footer, None)));
        cluster.send(done(&readers[0], 1, read(6, true)));
        let lost = LostOutput { task: producer.task, attempt: producer.attempt };
        let again = launch(&cluster.send(Event::TaskFailed {
            run: readers[1].run.clone(),
            task: readers[1].task,
            attempt: readers[1].attempt,
            error: Error::lost_input("a peer cannot be reached"),
            lost: Lost { outputs: vec![lost], looked_in_packs: false },
        }));
        let reader = launch(&cluster.send(ended(&again, footer, None)));
        cluster.send(done(&reader, 1, read(5, true)));
        commit(&mut cluster, &[readers[0].clone(), reader]);
        cluster.run("run").state == RunState::Failed
    };
    assert!(!refused(None), "the first reader may have read other rows");
    assert!(refused(Some(7)), "both readers read the same rows");
}

#[test]
fn a_run_counts_what_its_winners_tell() {
    let sums = |cluster: &Cluster| {
        let run = cluster.run("run");
        [run.rows_read(), run.rows_filtered(), run.rows_aggregated(), run.groups(), run.rows_joined()]
    };
    let mut cluster = Cluster::new();
    cluster.start("a", 4);
    let launched = launches(&cluster.submit("run", chain(&[2])));
    cluster.send(done(&launched[0], 1, read(12, true)));
    assert_eq!(sums(&cluster), [None; 5], "one is not there yet");
    cluster.send(done(&launched[1], 1, read(18, true)));
    assert_eq!(sums(&cluster), [Some(100), Some(2), Some(30), Some(4), None], "joins do not tell");
    let untold = committed(ExchangeKind::Hash, &[read(12, true), read(18, true)]);
    assert_eq!(sums(&untold), [Some(200), None, None, None, None], "the first stage does not tell");
}
