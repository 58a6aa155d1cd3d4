//! Messages that come late, twice, or not at all.

use tidemill_core::record::{Capacity, Requests, RunState, TaskState};
use tidemill_core::schedule::{Action, Event};
use tidemill_core::{Error, ExecutorId, RunId};

use crate::cluster::{Cluster, failed, launch, launches, reported, succeeded};
use crate::graphs::chain;

#[test]
fn late_and_doubled_completions_change_nothing() {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    let first = launch(&cluster.submit("run", chain(&[1, 1])));
    let retried = cluster.send(failed(&first, Error::unavailable("the store was busy")));
    assert_eq!(launches(&retried), [], "a retry waits");
    let second = launch(&cluster.wait(500));
    for late in [succeeded(&first), failed(&first, Error::invalid("too late to matter"))] {
        let before = cluster.state.clone();
        assert_eq!(cluster.send(late), []);
        assert_eq!(cluster.state, before);
    }
    let consumer = launch(&cluster.send(succeeded(&second)));
    assert_eq!(consumer.task.stage.0, 1);
    let before = cluster.state.clone();
    for doubled in [succeeded(&second), failed(&second, Error::internal("after success"))] {
        assert_eq!(cluster.send(doubled), []);
        assert_eq!(cluster.state, before);
    }
}

#[test]
fn messages_about_a_finished_run_change_nothing() {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    let started = launch(&cluster.submit("run", chain(&[1])));
    let run = RunId("run".to_owned());
    let ended = cluster.send(Event::Cancelled { run: run.clone() });
    assert!(ended.contains(&Action::Stop { executor: started.executor.clone(), attempt: started.attempt }));
    assert_eq!(ended.iter().filter(|a| matches!(a, Action::Finished { .. })).count(), 1);
    let before = cluster.state.clone();
    let late = [
        succeeded(&started),
        failed(&started, Error::invalid("late")),
        Event::ResultDelivered { run: run.clone(), rows: 1, kept: None, version: None },
        Event::ResultFailed { run: run.clone(), error: Error::denied("late") },
        Event::Cancelled { run },
    ];
    for event in late {
        assert_eq!(cluster.send(event), []);
        assert_eq!(cluster.state, before);
    }
    assert_eq!(cluster.run("run").state, RunState::Cancelled);
}

#[test]
fn requests_for_a_result_are_counted_also_after_its_run() {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    let started = launch(&cluster.submit("run", chain(&[1])));
    let (run, requests) = (RunId("run".to_owned()), Requests { gets: 3, lists: 1 });
    cluster.send(succeeded(&started));
    let read = Event::ResultRead { run: run.clone(), requests };
    assert_eq!(cluster.send(read.clone()), []);
    cluster.send(Event::ResultDelivered { run: run.clone(), rows: 1, kept: None, version: None });
    let ended = cluster.run("run").clone();
    assert_eq!(cluster.send(read), []);
    let metrics = cluster.run("run").totals.metrics;
    assert_eq!((metrics.get_requests, metrics.list_requests), (6, 2));
    let mut expected = ended;
    expected.totals.metrics = metrics;
    assert_eq!(*cluster.run("run"), expected, "nothing else changes");
    let before = cluster.state.clone();
    assert_eq!(cluster.send(Event::ResultRead { run: RunId("unknown".to_owned()), requests }), []);
    assert_eq!(cluster.state, before);
}

#[test]
fn an_attempt_that_a_returning_executor_does_not_know_is_given_out_again() {
    let mut cluster = Cluster::new();
    cluster.start("a", 2);
    let started = launches(&cluster.submit("run", chain(&[2])));
    let (arrived, lost) = (&started[0], &started[1]);
    cluster.disconnect("a");
    let again = launch(&cluster.connect("a", 2, &[reported(arrived)]));
    assert_eq!(again.task, lost.task);
    assert_ne!(again.attempt, lost.attempt);
    let tasks = &cluster.run("run").stages[0].tasks;
    assert!(tasks.iter().all(|t| t.state == TaskState::Running && t.executor_losses == 0 && t.failures == 0));
    assert_eq!(tasks[arrived.task.index as usize].attempt, Some(arrived.attempt));
}

#[test]
fn a_stream_that_is_replaced_before_its_end_is_noticed_loses_messages_too() {
    let mut cluster = Cluster::new();
    cluster.start("a", 1);
    let lost = launch(&cluster.submit("run", chain(&[1])));
    let again = launch(&cluster.connect("a", 1, &[]));
    assert_eq!(again.task, lost.task);
}

#[test]
fn a_returning_executor_ends_what_ended_without_it() {
    let mut cluster = Cluster::new();
    cluster.start("a", 2);
    let started = launches(&cluster.submit("run", chain(&[2])));
    let run = RunId("run".to_owned());
    cluster.disconnect("a");
    cluster.send(Event::Cancelled { run: run.clone() });
    let executor = ExecutorId("a".to_owned());
    let actions = cluster.send(Event::ExecutorConnected {
        executor: executor.clone(),
        endpoint: "http://a:50051".to_owned(),
        capacity: Capacity { slots: 2, memory: 1 << 30 },
        running: vec![reported(&started[0])],
        holding: vec![reported(&started[1])],
    });
    let stop = Action::Stop { executor: executor.clone(), attempt: started[0].attempt };
    assert_eq!(actions, [stop, Action::Release { executor, run }]);
}
