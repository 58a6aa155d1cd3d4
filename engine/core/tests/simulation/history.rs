//! What the history of runs takes is bounded, however many tasks they had and however long their statements were.

use tidemill_core::graph::{Stage, StageGraph, TaskShape};
use tidemill_core::record::{RunSpec, RunState, TaskState};
use tidemill_core::schedule::Event;
use tidemill_core::{BlobHash, RunId};

use crate::cluster::Cluster;
use crate::graphs::{chain, stage};

/// A run that its client ends.
fn ended(cluster: &mut Cluster, run: &str, tasks: u32) {
    cluster.submit(run, chain(&[tasks]));
    cluster.send(Event::Cancelled { run: RunId(run.to_owned()) });
    assert_eq!(cluster.run(run).state, RunState::Cancelled);
}

#[test]
fn the_oldest_runs_leave_when_all_have_too_many_tasks_but_not_the_latest_hundred() {
    let mut cluster = Cluster::new();
    cluster.settings.task_history = 600;
    let known = |cluster: &Cluster| cluster.state.runs.len();
    (0..300).for_each(|run| ended(&mut cluster, &format!("small-{run:03}"), 2));
    assert_eq!(known(&cluster), 300);
    // It takes the place of four.
    ended(&mut cluster, "larger", 8);
    assert_eq!(known(&cluster), 297);
    assert!(!cluster.state.runs.contains_key(&RunId("small-003".to_owned())));
    assert_eq!(cluster.run("small-004").stages[0].tasks.len(), 2);
    // What runs is not the history's.
    cluster.submit("live", chain(&[10_000]));
    ended(&mut cluster, "last", 2);
    assert_eq!(known(&cluster), 298);
    ended(&mut cluster, "huge", 10_000);
    assert_eq!((known(&cluster), cluster.run("huge").stages[0].tasks.len()), (101, 10_000));
    assert_eq!((cluster.run("larger").state, cluster.run("live").state), (RunState::Cancelled, RunState::Running));
}

#[test]
fn a_run_that_ended_keeps_what_it_did_and_not_what_it_was_made_of() {
    let mut cluster = Cluster::new();
    let run = RunId("run".to_owned());
    let statement = format!("SELECT '{}'", "ä".repeat(20_000));
    let spec = RunSpec { statement, request: None, express: false, may_change: false, by: None, job: None };
    cluster.send(Event::Submitted { run: run.clone(), spec });
    let scan = |file: &str| Some(BlobHash(file.to_owned()));
    let scans = vec![scan("one"), scan("two")];
    let graph = StageGraph { stages: vec![Stage { scans, ..stage(0, TaskShape::PerPartition(2)) }] };
    cluster.send(Event::Planned { run: run.clone(), graph: Ok(graph), sheet: None });
    let scans = |cluster: &Cluster| cluster.run("run").graph.as_ref().map(|graph| graph.stages[0].scans.len());
    assert_eq!((scans(&cluster), cluster.state.blobs_of(&run).len()), (Some(2), 3));
    assert!(cluster.run("run").spec.statement.len() > 40_000);
    cluster.send(Event::Cancelled { run });
    let ended = cluster.run("run");
    assert_eq!((scans(&cluster), ended.graph.as_ref().map(StageGraph::tasks)), (Some(0), Some(2)));
    assert!(ended.stages[0].tasks.iter().all(|task| task.state == TaskState::Cancelled));
    let shown = &ended.spec.statement;
    assert!(shown.starts_with("SELECT 'ä") && shown.ends_with("ä…") && shown.len() < 17_000, "{} bytes", shown.len());
}
