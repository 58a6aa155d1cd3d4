//! A scheduler told what happens, one event at a time.

use tidemill_core::graph::StageGraph;
use tidemill_core::record::{Capacity, Footer, Run, RunSpec, State, TaskMetrics};
use tidemill_core::schedule::{Action, Event, Launch, Lost, Reported, step};
use tidemill_core::{Epoch, Error, ExecutorId, Millis, RunId, Settings};

/// A scheduler at some virtual time.
pub(crate) struct Cluster {
    pub(crate) state: State,
    pub(crate) settings: Settings,
    pub(crate) now: u64,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let mut cluster = Self { state: State::default(), settings: Settings::default(), now: 0 };
        cluster.send(Event::Elected { epoch: Epoch(1), build: "1".to_owned() });
        cluster
    }

    pub(crate) fn send(&mut self, event: Event) -> Vec<Action> {
        step(&mut self.state, &self.settings, event, Millis(self.now)).actions
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, millis: u64) -> Vec<Action> {
        self.now += millis;
        let mut actions = self.send(Event::Tick);
        actions.extend(self.send(Event::JobsTick));
        actions
    }

    /// An executor starts.
    pub(crate) fn start(&mut self, executor: &str, slots: u32) -> Vec<Action> {
        self.connect(executor, slots, &[])
    }

    /// An executor opens a stream and says what it runs.
    pub(crate) fn connect(&mut self, executor: &str, slots: u32, running: &[Reported]) -> Vec<Action> {
        self.send(Event::ExecutorConnected {
            executor: ExecutorId(executor.to_owned()),
            endpoint: format!("http://{executor}:50051"),
            capacity: Capacity { slots, memory: 1 << 30 },
            running: running.to_vec(),
            holding: Vec::new(),
        })
    }

    pub(crate) fn disconnect(&mut self, executor: &str) -> Vec<Action> {
        self.send(Event::ExecutorDisconnected { executor: ExecutorId(executor.to_owned()) })
    }

    pub(crate) fn kill(&mut self, executor: &str) -> Vec<Action> {
        self.send(Event::ExecutorDead { executor: ExecutorId(executor.to_owned()) })
    }

    /// A client asks for a run and the planner answers.
    pub(crate) fn submit(&mut self, run: &str, graph: StageGraph) -> Vec<Action> {
        let run = RunId(run.to_owned());
        self.send(Event::Submitted {
            run: run.clone(),
            spec: RunSpec { statement: "select 1".to_owned(), ..RunSpec::default() },
        });
        self.send(Event::Planned { run, graph: Ok(graph), sheet: None })
    }

    pub(crate) fn run(&self, run: &str) -> &Run {
        &self.state.runs[&RunId(run.to_owned())]
    }
}

/// What an executor says of an attempt.
pub(crate) fn reported(launch: &Launch) -> Reported {
    let Launch { run, task, attempt, slots, .. } = launch.clone();
    Reported { run, task, attempt, slots }
}

/// What a finished attempt reports.
pub(crate) fn succeeded(launch: &Launch) -> Event {
    Event::TaskSucceeded {
        run: launch.run.clone(),
        task: launch.task,
        attempt: launch.attempt,
        footer: Footer::default(),
        metrics: TaskMetrics::default(),
        operators: Vec::new(),
        rows: None,
    }
}

/// What a failed attempt reports.
pub(crate) fn failed(launch: &Launch, error: Error) -> Event {
    let Launch { run, task, attempt, .. } = launch.clone();
    Event::TaskFailed { run, task, attempt, error, lost: Lost::default() }
}

/// The launches among the actions.
pub(crate) fn launches(actions: &[Action]) -> Vec<Launch> {
    let launch = |action: &Action| match action {
        Action::Launch(launch) => Some(launch.clone()),
        _ => None,
    };
    actions.iter().filter_map(launch).collect()
}

/// The one launch among the actions.
pub(crate) fn launch(actions: &[Action]) -> Launch {
    let found = launches(actions);
    assert_eq!(found.len(), 1, "{actions:?}");
    found[0].clone()
}
