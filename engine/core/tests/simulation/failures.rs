//! Tasks that fail, executors that die, executors that never come.

use tidemill_core::graph::{Determinism, ExchangeKind, Input, Stage, StageGraph, TaskShape};
use tidemill_core::record::{RunState, TaskState};
use tidemill_core::schedule::{Action, Event, Lost, LostOutput, waiting_for};
use tidemill_core::{Epoch, Error, ErrorKind, Millis, StageId, TaskId};

use crate::cluster::{Cluster, failed, launch, launches, succeeded};
use crate::graphs::{chain, stage};

#[test]
fn a_run_without_an_executor_says_so_and_fails_at_its_deadline() {
    let mut cluster = Cluster::new();
    cluster.submit("run", chain(&[1, 1]));
    let task = |stage| TaskId { stage: StageId(stage), index: 0 };
    let reason = |cluster: &Cluster, stage| {
        waiting_for(&cluster.state, cluster.run("run"), task(stage), Millis(cluster.now)).unwrap()
    };
    assert_eq!(reason(&cluster, 0), "an executor: none is connected");
    assert_eq!(reason(&cluster, 1), "stage 0 (0 of 1 tasks done)");
    cluster.wait(59_999);
    assert_eq!(cluster.run("run").state, RunState::Running);
    let ended = cluster.wait(1);
    assert_eq!(cluster.run("run").state, RunState::Failed);
    assert_eq!(cluster.run("run").error.as_ref().unwrap().kind, ErrorKind::Unavailable);
    assert!(ended.iter().any(|action| matches!(action, Action::Finished { .. })));
}

#[test]
fn tasks_that_waited_for_a_slot_do_not_fail_the_moment_the_only_executor_restarts() {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    cluster.submit("run", chain(&[2]));
    cluster.wait(300_000);
    cluster.kill("a");
    cluster.wait(59_000);
    assert_eq!(cluster.run("run").state, RunState::Running);
    assert_eq!(launches(&cluster.start("b", 1)).len(), 1);
}

#[test]
fn a_task_that_outlives_three_executors_fails_its_run() {
    let mut cluster = Cluster::new();
    cluster.submit("run", chain(&[1]));
    for executor in ["a", "b", "c"] {
        assert_eq!(cluster.run("run").state, RunState::Running);
        assert_eq!(launches(&cluster.start(executor, 1)).len(), 1);
        cluster.kill(executor);
    }
    let run = cluster.run("run");
    assert_eq!(run.state, RunState::Failed);
    let error = run.error.as_ref().unwrap();
    assert_eq!(error.kind, ErrorKind::ResourcesExhausted);
    assert!(error.message.contains("task 0.0 was running on 3 executors when they died, the last was c"), "{error}");
}

#[test]
fn a_task_survives_any_number_of_kills_of_everybody() {
    let mut cluster = Cluster::new();
    cluster.start("0", 1);
    cluster.submit("run", chain(&[1]));
    for life in 1..10_u64 {
        cluster.send(Event::Elected { epoch: Epoch(1 + life), build: "1".to_owned() });
        cluster.kill(&(life - 1).to_string());
        let begun = [cluster.start(&life.to_string(), 1), cluster.wait(2_000)].concat();
        assert_eq!(launches(&begun).len(), 1, "life {life}");
        assert_eq!(cluster.run("run").state, RunState::Running, "life {life}");
    }
    // What kills its executors, and nobody else, is still found out.
    for executor in ["9", "a", "b"] {
        assert_eq!(cluster.run("run").state, RunState::Running);
        cluster.kill(executor);
        cluster.start(if executor == "9" { "a" } else { "b" }, 1);
    }
    assert_eq!(cluster.run("run").error.as_ref().unwrap().kind, ErrorKind::ResourcesExhausted);
}

#[test]
fn an_unavailable_task_is_tried_four_times_and_waits_longer_each_time() {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    let mut tried = launch(&cluster.submit("run", chain(&[1])));
    for failures in 1..4 {
        cluster.send(failed(&tried, Error::unavailable("the store was busy")));
        assert_eq!(launches(&cluster.wait(500 * failures - 1)), []);
        tried = launch(&cluster.wait(1));
    }
    cluster.send(failed(&tried, Error::unavailable("the store was busy")));
    assert_eq!(cluster.run("run").state, RunState::Failed);
    assert_eq!(cluster.run("run").error, Some(Error::unavailable("the store was busy")));
}

/// As one does that cannot reach a peer. The first time is mostly an executor's death, and nothing waits.
#[test]
fn a_reader_that_loses_its_input_again_and_again_waits_longer_each_time() {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    let mut producer = launch(&cluster.submit("run", chain(&[1, 1])));
    let mut reader = launch(&cluster.send(succeeded(&producer)));
    for backoff in [0, 500, 1_000, 1_500] {
        let lost = LostOutput { task: producer.task, attempt: producer.attempt };
        let again = cluster.send(Event::TaskFailed {
            run: reader.run.clone(),
            task: reader.task,
            attempt: reader.attempt,
            error: Error::lost_input("a peer cannot be reached"),
            lost: Lost { outputs: vec![lost], looked_in_packs: false },
        });
        producer = launch(&again);
        let mut ready = launches(&cluster.send(succeeded(&producer)));
        if backoff > 0 {
            assert_eq!((ready, launches(&cluster.wait(backoff - 1))), (vec![], vec![]), "before {backoff} ms");
            ready = launches(&cluster.wait(1));
        }
        reader = ready.pop().unwrap();
    }
    assert_eq!(reader.task.stage.0, 1);
}

#[test]
fn an_invalid_task_fails_its_run_at_once() {
    let mut cluster = Cluster::new();
    cluster.start("a", 2);
    let started = launches(&cluster.submit("run", chain(&[2])));
    let actions = cluster.send(failed(&started[0], Error::invalid("division by zero")));
    assert_eq!(cluster.run("run").error, Some(Error::invalid("division by zero")));
    assert!(actions.contains(&Action::Stop { executor: started[1].executor.clone(), attempt: started[1].attempt }));
    assert!(cluster.state.executors.values().all(|e| e.running.is_empty()));
}

#[test]
fn a_lost_output_is_not_made_again_once_its_reader_finished_without_it() {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    let producer = launch(&cluster.submit("run", chain(&[1, 1])));
    cluster.start("b", 2);
    let reader = launch(&cluster.send(succeeded(&producer)));
    assert_eq!(reader.executor.0, "b");
    cluster.submit("other", chain(&[2]));
    assert_eq!(cluster.kill("a"), [], "no slot is free for the repetition");
    let actions = cluster.send(succeeded(&reader));
    assert!(actions.contains(&Action::Deliver { run: reader.run.clone() }));
    assert!(launches(&actions).iter().all(|launch| launch.run != reader.run), "{actions:?}");
}

/// Stage 1 has read the rows of stage 0 and is complete; stage 2 is about to read other ones and join them.
#[test]
fn a_complete_reader_of_lost_random_rows_starts_again_when_another_reader_needs_them_again() {
    let mut cluster = Cluster::new();
    let read = |stages: &[u32]| {
        stages.iter().map(|s| Input { stage: StageId(*s), kind: ExchangeKind::Gather }).collect::<Vec<_>>()
    };
    let one = |id, inputs: &[u32]| Stage { inputs: read(inputs), ..stage(id, TaskShape::PerPartition(1)) };
    let random = Stage { determinism: Determinism::RowIndeterminate, ..one(0, &[]) };
    cluster.start("a", 1);
    let rows = launch(&cluster.submit("run", StageGraph { stages: vec![random, one(1, &[0]), one(2, &[0, 1])] }));
    cluster.start("b", 1);
    let first = launch(&cluster.send(succeeded(&rows)));
    assert_eq!((first.task.stage.0, first.executor.0.as_str()), (1, "a"));
    cluster.start("c", 2);
    let joins = launch(&cluster.send(succeeded(&first)));
    assert_eq!((joins.task.stage.0, joins.executor.0.as_str()), (2, "c"));
    // Both outputs are on `a`; only the random one is gone.
    let lost = LostOutput { task: rows.task, attempt: rows.attempt };
    cluster.send(Event::TaskFailed {
        run: joins.run.clone(),
        task: joins.task,
        attempt: joins.attempt,
        error: Error::lost_input("stage 0 is gone"),
        lost: Lost { outputs: vec![lost], looked_in_packs: false },
    });
    let states: Vec<TaskState> = cluster.run("run").stages.iter().map(|s| s.tasks[0].state).collect();
    assert_eq!(states, [TaskState::Running, TaskState::Waiting, TaskState::Waiting]);
}
