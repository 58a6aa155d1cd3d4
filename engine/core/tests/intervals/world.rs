//! Virtual time, the log, and the coordinator's shell around the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chrono_tz::Tz;
use tidemill_core::Millis;
use tidemill_core::interval::{
    Action, DatasetName, Ended, Event, JobName, Limits, Plan, Record, RunKey, Spec, State, Step, plan, step,
};

use crate::check::{Check, Context, ensure};
use crate::clocks::{DAY, Times};
use crate::model::{Model, fires};
use crate::rng::Rng;
use crate::runs::ModelRun;
use crate::weather::{Tempo, Weather};

/// What happened over a seed, so that nothing the simulation is for goes missing.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

/// One seed's world.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) weather: Weather,
    pub(crate) limits: Limits,
    /// The time that is.
    pub(crate) now: u64,
    /// What the machine's clock is ahead.
    pub(crate) skew: i64,
    pub(crate) state: State,
    /// The state by applying what was written, as it was read back.
    replayed: State,
    /// What the log has, and what it does not have yet.
    durable: State,
    pending: Vec<Record>,
    pub(crate) model: Model,
    durable_model: Model,
    pub(crate) runs: BTreeMap<RunKey, ModelRun>,
    /// Those that have not ended, and those that have.
    pub(crate) open: BTreeSet<RunKey>,
    pub(crate) over: Vec<RunKey>,
    /// By job, incarnation and interval: the generations that were published.
    pub(crate) published: BTreeMap<(JobName, u64, u64), Vec<u32>>,
    pub(crate) versions: BTreeMap<DatasetName, u64>,
    pub(crate) sources: BTreeMap<DatasetName, Source>,
    /// Schedules by their jobs' statements.
    pub(crate) times: BTreeMap<String, Times>,
    pub(crate) specs: u64,
    pub(crate) is_calm: bool,
    pub(crate) counts: Counts,
    trace: Trace,
}

/// A dataset that nobody here makes.
#[derive(Default)]
pub(crate) struct Source {
    /// How far it is complete.
    pub(crate) until: u64,
    /// What was said of it: from, to, version.
    pub(crate) reports: Vec<(u64, u64, u64)>,
    /// What was not said yet.
    pub(crate) held: Vec<(u64, u64, u64)>,
}

/// Whether a seed prints what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Silent,
    Printed,
}

/// Where the coordinator dies in a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    No,
    BeforeTheLog,
    BeforeTheActions,
}

impl World {
    pub(crate) fn new(seed: u64, trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let weather = Weather::draw(&mut rng);
        let limits = Limits { backfill_runs: rng.between(1, 6) as usize, backfills: 3, requests: 5 };
        let sources = ["clicks", "ads"].map(|name| {
            let until = weather.from - (weather.calm_at - weather.from) / 4;
            (DatasetName(name.to_owned()), Source { until, ..Source::default() })
        });
        Self {
            rng,
            limits,
            now: weather.from,
            weather,
            skew: 0,
            state: State::default(),
            replayed: State::default(),
            durable: State::default(),
            pending: Vec::new(),
            model: Model::default(),
            durable_model: Model::default(),
            runs: BTreeMap::new(),
            open: BTreeSet::new(),
            over: Vec::new(),
            published: BTreeMap::new(),
            versions: BTreeMap::new(),
            sources: sources.into_iter().collect(),
            times: BTreeMap::new(),
            specs: 0,
            is_calm: false,
            counts: Counts::new(),
            trace,
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.trace == Trace::Printed {
            println!("{:>14} {}", self.clock(), line());
        }
    }

    /// What the machine's clock shows.
    pub(crate) fn clock(&self) -> u64 {
        self.now.saturating_add_signed(self.skew)
    }

    /// Beyond what any clock will show.
    pub(crate) fn horizon(&self) -> u64 {
        self.weather.calm_at + self.weather.skew + (self.weather.calm_at - self.weather.from) / 5 + 30 * DAY
    }

    /// All fires of a job, from before anybody could care.
    fn fires_of(&self, spec: &Spec, zone: Tz) -> Rc<Vec<u64>> {
        let margin = if self.weather.tempo == Tempo::Months { 800 * DAY } else { 40 * DAY };
        let from = self.weather.from - (self.weather.calm_at - self.weather.from) / 5 - margin;
        fires(self.times.get(&spec.statement), zone, from, self.horizon())
    }

    /// Tells the machine, and checks what it makes of it. An error is the answer to a client.
    pub(crate) fn tell(&mut self, event: Event) -> Result<Option<tidemill_core::Error>, String> {
        if event != Event::Tick {
            self.trace(|| format!("{event:?}"));
        }
        let now = self.clock();
        let plan = self.dry_run(&event);
        let answer = step(&mut self.state, &self.limits, event.clone(), Millis(now));
        let step = match answer {
            Ok(step) => step,
            Err(error) => {
                ensure(self.state == self.replayed, || format!("an error changed something: {error}"))?;
                self.trace(|| format!("    error: {error}"));
                return Ok(Some(error));
            }
        };
        self.follow(&event, &step, plan)?;
        self.carry_on(step)?;
        Ok(None)
    }

    fn dry_run(&self, event: &Event) -> Option<Plan> {
        match event {
            Event::BackfillRequested { job, request } => plan(&self.state, job, request, Millis(self.clock())).ok(),
            _ => None,
        }
    }

    fn follow(&mut self, event: &Event, step: &Step, plan: Option<Plan>) -> Check {
        for record in &step.records {
            self.trace(|| format!("    {record:?}"));
            if matches!(record, Record::InputChanged { .. }) {
                self.count("late data of published intervals");
            }
            let written = serde_json::to_string(record).map_err(|e| e.to_string())?;
            let read: Record = serde_json::from_str(&written).map_err(|e| e.to_string())?;
            ensure(read == *record, || format!("{record:?} is read as {read:?}"))?;
            self.replayed.apply(&read);
        }
        ensure(self.state == self.replayed, || format!("{event:?} changed more than its records say"))?;
        let (fires, zone) = match event {
            Event::JobCreated { spec, .. } | Event::JobReplaced { spec, .. } | Event::JobAltered { spec, .. } => {
                let zone = spec.zone.name().parse::<Tz>().map_err(|e| e.to_string())?;
                (self.fires_of(spec, zone), zone)
            }
            _ => (Rc::default(), self.weather.zone),
        };
        let (now, limits, horizon) = (self.clock(), self.limits, self.horizon());
        let mut context =
            Context { event, now, limits, zone, horizon, fires, plan, owed: Vec::new(), changed: Vec::new() };
        self.model.follow(step, &mut context)
    }

    /// The log, then the actions; the coordinator may die between any two.
    fn carry_on(&mut self, step: Step) -> Check {
        let death = self.death();
        self.pending.extend(step.records);
        if death == Death::BeforeTheLog {
            return self.restart();
        }
        if step.urgent || self.rng.chance(300) {
            self.flush();
        }
        if death == Death::BeforeTheActions {
            return self.restart();
        }
        for action in step.actions {
            self.carry_out(action)?;
        }
        Ok(())
    }

    fn death(&mut self) -> Death {
        if self.is_calm || !self.rng.chance(self.weather.crashes / 6) {
            return Death::No;
        }
        if self.rng.chance(500) { Death::BeforeTheLog } else { Death::BeforeTheActions }
    }

    fn flush(&mut self) {
        self.pending.drain(..).for_each(|record| self.durable.apply(&record));
        self.durable_model = self.model.clone();
    }

    /// A new coordinator, with what the log had.
    pub(crate) fn restart(&mut self) -> Check {
        self.count("crashes");
        if !self.pending.is_empty() {
            self.count("crashes that lost records");
        }
        self.trace(|| "the coordinator dies".to_owned());
        self.pending.clear();
        let written = serde_json::to_string(&self.durable).map_err(|e| e.to_string())?;
        self.state = serde_json::from_str(&written).map_err(|e| e.to_string())?;
        ensure(self.state == self.durable, || "a snapshot is read as another state".to_owned())?;
        self.replayed = self.state.clone();
        self.model = self.durable_model.clone();
        if self.rng.chance(400) {
            self.now += self.weather.jump(&mut self.rng);
        }
        self.tell(Event::Restarted)?;
        self.report_again()
    }

    fn carry_out(&mut self, action: Action) -> Check {
        match action {
            Action::Submit { run, interval, cause, .. } => self.submit(run, interval, cause),
            Action::Cancel { run } => {
                self.cancel(&run);
                Ok(())
            }
            Action::Notify { .. } => {
                self.count("notices");
                Ok(())
            }
        }
    }

    /// A run's end, which may be told twice.
    pub(crate) fn tell_end(&mut self, run: &RunKey, ended: &Ended) -> Check {
        let copies = if self.rng.chance(self.weather.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            self.tell(Event::RunEnded { run: run.clone(), ended: ended.clone() })?;
        }
        Ok(())
    }
}
