//! A coordinator's shell for tests that tell the machine one event at a time.

use tidemill_core::interval::{
    Action, CatchUp, Cron, DatasetName, Ended, Event, JobName, Length, Limits, Local, Notice, Options, RunKey, Spec,
    State, Step, Trigger, Unit, Zone, standing, step,
};
use tidemill_core::{Error, Millis};

/// The machine at a time.
pub(crate) struct Shell {
    pub(crate) state: State,
    pub(crate) limits: Limits,
    pub(crate) now: Millis,
    /// What the last event led to.
    pub(crate) last: Step,
    versions: u64,
}

pub(crate) fn at(text: &str) -> Millis {
    Zone::UTC.instant(Local::parse(text).unwrap())
}

pub(crate) fn job(name: &str) -> JobName {
    JobName(name.to_owned())
}

pub(crate) fn dataset(name: &str) -> DatasetName {
    DatasetName(name.to_owned())
}

/// An hourly job that fires five minutes after each hour.
pub(crate) fn hourly(output: &str, depends_on: &[&str]) -> Spec {
    Spec {
        statement: format!("CREATE JOB … INTO {output}"),
        output: dataset(output),
        trigger: Trigger::Schedule { cron: Cron::parse("5 * * * *").unwrap() },
        zone: Zone::UTC,
        interval: Length { count: 1, unit: Unit::Hour },
        start: Some(Local::parse("2026-03-01").unwrap()),
        catch_up: CatchUp::Latest,
        depends_on: depends_on.iter().map(|name| dataset(name)).collect(),
        options: Options::default(),
        identity: String::new(),
        by: None,
    }
}

impl Shell {
    pub(crate) fn new(now: &str) -> Self {
        let (state, limits) = (State::default(), Limits::default());
        Self { state, limits, now: at(now), last: Step::default(), versions: 0 }
    }

    pub(crate) fn ask(&mut self, event: Event) -> Result<(), Error> {
        self.last = step(&mut self.state, &self.limits, event, self.now)?;
        Ok(())
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.ask(event).unwrap();
    }

    pub(crate) fn create(&mut self, name: &str, spec: Spec) {
        self.tell(Event::JobCreated { job: job(name), spec });
    }

    /// It is this time, and the coordinator lives.
    pub(crate) fn tick(&mut self, now: &str) {
        self.now = at(now);
        self.tell(Event::Tick);
    }

    /// A dataset becomes complete.
    pub(crate) fn cover(&mut self, name: &str, from: &str, to: &str) {
        self.versions += 1;
        let (dataset, from, to, version) = (dataset(name), at(from), at(to), self.versions);
        self.tell(Event::DatasetCovered { dataset, from, to, version });
    }

    pub(crate) fn submitted(&self) -> Vec<RunKey> {
        self.last
            .actions
            .iter()
            .filter_map(|a| if let Action::Submit { run, .. } = a { Some(run.clone()) } else { None })
            .collect()
    }

    /// What the last event submitted: the job, and where its interval begins.
    pub(crate) fn began(&self) -> Vec<String> {
        let submits = self.last.actions.iter().filter_map(|action| match action {
            Action::Submit { run, interval, .. } => Some(format!("{} {}", run.job, Zone::UTC.local(interval.start))),
            Action::Cancel { .. } | Action::Notify { .. } => None,
        });
        submits.collect()
    }

    pub(crate) fn cancelled(&self) -> Vec<RunKey> {
        self.last
            .actions
            .iter()
            .filter_map(|a| if let Action::Cancel { run } = a { Some(run.clone()) } else { None })
            .collect()
    }

    pub(crate) fn notices(&self) -> Vec<Notice> {
        let notices = self.last.actions.iter().filter_map(|action| match action {
            Action::Notify { notice, .. } => Some(notice.clone()),
            Action::Submit { .. } | Action::Cancel { .. } => None,
        });
        notices.collect()
    }

    /// The one run of a job that is in progress.
    pub(crate) fn running(&self, name: &str) -> RunKey {
        let known = &self.state.jobs[&job(name)];
        let (index, active) = known.active.first_key_value().unwrap();
        let (incarnation, index) = (known.incarnation, *index);
        RunKey { job: job(name), incarnation, index, generation: active.generation, attempt: active.attempt }
    }

    /// The one run of a job has its turn.
    pub(crate) fn begin(&mut self, name: &str) {
        let run = self.running(name);
        self.tell(Event::RunBegan { run });
    }

    pub(crate) fn end(&mut self, run: RunKey, ended: Ended) {
        self.tell(Event::RunEnded { run, ended });
    }

    pub(crate) fn publish(&mut self, name: &str) {
        self.versions += 1;
        let (run, version) = (self.running(name), self.versions);
        self.end(run, Ended::Published { version, rows: None });
    }

    pub(crate) fn fail(&mut self, name: &str, error: Error) {
        let run = self.running(name);
        self.end(run, Ended::Failed { error });
    }

    /// Where the intervals of a job stand, from one on.
    pub(crate) fn strip(&self, name: &str, from: &str, count: u64) -> Vec<&'static str> {
        let known = &self.state.jobs[&job(name)];
        let first = known.calendar.containing(at(from)).unwrap();
        (first..first + count).map(|index| standing(&self.state, known, index, self.now).name()).collect()
    }
}
