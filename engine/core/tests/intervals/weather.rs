//! What a seed's world is like.

use chrono::{Days, NaiveDate, NaiveDateTime};
use chrono_tz::Tz;
use tidemill_core::interval::{
    CatchUp, Cron, DatasetName, Deadline, Length, Local, Mode, Options, Overlap, Spec, Trigger, Unit, Zone,
};

use crate::clocks::{DAY, HOUR, MINUTE, Times, reached};
use crate::rng::Rng;

/// Year, month and day.
type Date = (i32, u32, u32);

/// Clocks that do odd things, and the dates around which they do.
const ZONES: &[(&str, &[Date])] = &[
    ("America/New_York", &[(2026, 3, 8), (2026, 11, 1)]),
    ("Europe/Berlin", &[(2026, 3, 29), (2026, 10, 25)]),
    ("Australia/Lord_Howe", &[(2026, 4, 5), (2026, 10, 4)]),
    ("Asia/Kathmandu", &[(1986, 1, 1), (2026, 1, 1)]),
    ("Africa/Casablanca", &[(2026, 2, 15), (2026, 3, 22)]),
    ("America/Sao_Paulo", &[(2018, 2, 18), (2018, 11, 4)]),
    ("Pacific/Apia", &[(2011, 12, 30), (2012, 4, 1)]),
    ("UTC", &[(2026, 6, 1)]),
];

/// How fast the world goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tempo {
    /// Days, in intervals of minutes and hours.
    Hours,
    /// A year, in intervals of hours to weeks.
    Days,
    /// Seven years, in intervals of weeks to years.
    Months,
}

/// A seed's world.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    pub(crate) tempo: Tempo,
    pub(crate) zone: Tz,
    /// When it begins.
    pub(crate) from: u64,
    /// When faults end.
    pub(crate) calm_at: u64,
    /// How far clocks may be ahead or behind.
    pub(crate) skew: u64,
    /// Per mille of steps.
    pub(crate) crashes: u64,
    pub(crate) clock_jumps: u64,
    pub(crate) requests: u64,
    /// Per mille of runs, and of reports.
    pub(crate) failing: u64,
    pub(crate) hanging: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
}

impl Weather {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let (name, dates) = *rng.pick(ZONES).unwrap();
        let zone: Tz = name.parse().unwrap();
        let tempo = *rng.pick(&[Tempo::Hours, Tempo::Days, Tempo::Days, Tempo::Months]).unwrap();
        let (year, month, day) = *rng.pick(dates).unwrap();
        let date = NaiveDate::from_ymd_opt(year, month, day).unwrap();
        let (days, before) = match tempo {
            Tempo::Hours => (4, 2),
            Tempo::Days => (370, 30),
            Tempo::Months => (2_600, 400),
        };
        let days = if rng.chance(50) { 3 * days } else { days };
        let from = reached(zone, (date - Days::new(before)).and_hms_opt(0, 0, 0).unwrap()) + rng.between(0, DAY);
        let often = |rng: &mut Rng, most| if rng.chance(300) { 0 } else { rng.between(0, most) };
        Self {
            tempo,
            zone,
            from,
            calm_at: from + days * DAY,
            skew: if rng.chance(500) { days * DAY / 10 } else { 2 * HOUR },
            crashes: often(rng, 60),
            clock_jumps: often(rng, 20),
            requests: often(rng, 200),
            failing: often(rng, 400),
            hanging: often(rng, 60),
            doubled: often(rng, 200),
            late: often(rng, 100),
        }
    }

    /// How far time goes from one step to the next.
    pub(crate) fn jump(&self, rng: &mut Rng) -> u64 {
        let usual = match self.tempo {
            Tempo::Hours => HOUR,
            Tempo::Days => 5 * DAY,
            Tempo::Months => 30 * DAY,
        };
        match rng.between(0, 19) {
            0..3 => rng.between(0, 2 * MINUTE),
            3 => rng.between(0, 12 * usual),
            _ => rng.between(0, 2 * usual),
        }
    }

    /// How long a run takes.
    pub(crate) fn run_ms(&self, rng: &mut Rng) -> u64 {
        let usual = match self.tempo {
            Tempo::Hours => HOUR,
            Tempo::Days => 12 * HOUR,
            Tempo::Months => 10 * DAY,
        };
        if rng.chance(700) { rng.between(1, usual / 10) } else { rng.between(1, 2 * usual) }
    }

    fn length(&self, rng: &mut Rng) -> Length {
        let choices: &[(u32, Unit)] = match self.tempo {
            Tempo::Hours => &[(30, Unit::Minute), (1, Unit::Hour), (2, Unit::Hour), (7, Unit::Hour), (1, Unit::Day)],
            Tempo::Days => &[(1, Unit::Day), (2, Unit::Day), (1, Unit::Week), (5, Unit::Day), (36, Unit::Hour)],
            Tempo::Months => &[(1, Unit::Month), (1, Unit::Month), (3, Unit::Month), (1, Unit::Year), (2, Unit::Week)],
        };
        let (count, unit) = *rng.pick(choices).unwrap();
        Length { count, unit }
    }

    fn times(&self, rng: &mut Rng) -> Times {
        let star = self.tempo == Tempo::Hours && rng.chance(600);
        let minutes = rng.pick(&[vec![0], vec![15], vec![0, 30], vec![45], vec![0, 15, 30, 45]]).unwrap().clone();
        let hours = rng.pick(&[vec![2], vec![1], vec![0], vec![2, 3], vec![1, 2, 13], vec![23]]).unwrap().clone();
        let (mut day, mut weekdays) = (None, None);
        match self.tempo {
            Tempo::Hours => {}
            Tempo::Days if rng.chance(400) => weekdays = rng.pick(&[vec![0], vec![1, 2, 3, 4, 5], vec![0, 6]]).cloned(),
            Tempo::Days => {}
            Tempo::Months if rng.chance(300) => weekdays = Some(vec![0]),
            Tempo::Months => day = rng.pick(&[1, 15, 31]).copied(),
        }
        let minutes = if self.tempo == Tempo::Hours { minutes } else { minutes[..1].to_vec() };
        Times { minutes, hours: (!star).then_some(hours), day, weekdays }
    }

    /// A job over inputs of the seed's, and how its schedule fires.
    pub(crate) fn spec(&self, rng: &mut Rng, output: &str, inputs: &[DatasetName]) -> (Spec, Option<Times>) {
        let interval = self.length(rng);
        // Some jobs wait for others that go by other clocks.
        let zone = if rng.chance(800) { self.zone } else { Tz::UTC };
        let mut inputs: Vec<DatasetName> = inputs.iter().filter(|_| rng.chance(500)).cloned().collect();
        let by_update = !inputs.is_empty() && rng.chance(400);
        let times = (!by_update).then(|| self.times(rng));
        let trigger = match &times {
            Some(times) => Trigger::Schedule { cron: Cron::parse(&times.cron()).unwrap() },
            None => Trigger::Update { of: inputs.split_off(inputs.len() - 1) },
        };
        let catch_up = if rng.chance(500) { CatchUp::All } else { CatchUp::Latest };
        let start = (catch_up == CatchUp::All || rng.chance(500)).then(|| self.start(rng));
        let spec = Spec {
            statement: format!("CREATE JOB … INTO {output}"),
            output: DatasetName(output.to_owned()),
            trigger,
            zone: Zone::parse(zone.name()).unwrap(),
            interval,
            start,
            catch_up,
            depends_on: inputs,
            options: self.options(rng),
            identity: String::new(),
            by: None,
        };
        (spec, times)
    }

    /// Somewhere around the beginning, and seldom at midnight.
    fn start(&self, rng: &mut Rng) -> Local {
        let span = (self.calm_at - self.from) / 5;
        let at = self.from - span / 2 + rng.between(0, span);
        let shown = crate::clocks::local(self.zone, at);
        let minutes = if rng.chance(700) { 0 } else { 30 * rng.between(0, 7) };
        let date = if self.tempo == Tempo::Months && rng.chance(500) { month_end(shown) } else { shown.date() };
        let time = date.and_hms_opt(0, 0, 0).unwrap() + chrono::Duration::minutes(i64::try_from(minutes).unwrap());
        Local(time.and_utc().timestamp_millis())
    }

    /// From nothing to half of what it lasts.
    fn lateness(&self, rng: &mut Rng) -> u64 {
        let most = if rng.chance(500) { self.calm_at - self.from } else { 40 * HOUR };
        rng.between(0, (most / 2).min(3_000 * DAY))
    }

    pub(crate) fn options(&self, rng: &mut Rng) -> Options {
        let told = |rng: &mut Rng| rng.chance(300).then(|| "https://example.org/hook".to_owned());
        let mode = if rng.chance(250) { Mode::Append } else { Mode::ReplaceInterval };
        Options {
            mode,
            overlap: *rng.pick(&[Overlap::Queue, Overlap::Queue, Overlap::Forbid, Overlap::Replace]).unwrap(),
            max_active_runs: rng.count(1, 4),
            retries: rng.count(0, 3),
            retry_backoff_ms: rng.between(1, 10) * MINUTE,
            timeout_ms: rng.between(1, 48) * HOUR,
            deadline: match rng.between(0, 2) {
                0 => None,
                1 => Some(Deadline::After { ms: rng.between(1, 40) * HOUR }),
                _ => Some(Deadline::Clock { minute: rng.count(0, 1_439) }),
            },
            suspend_after_failures: rng.count(0, 5),
            lookback: if rng.chance(300) { rng.count(1, 3) } else { 0 },
            allowed_lateness_ms: (mode == Mode::ReplaceInterval && rng.chance(500)).then(|| self.lateness(rng)),
            on_failure: told(rng),
            on_success: told(rng),
            on_late: told(rng),
        }
    }
}

fn month_end(shown: NaiveDateTime) -> NaiveDate {
    let mut date = shown.date();
    while chrono::Datelike::month(&(date + Days::new(1))) == chrono::Datelike::month(&date) {
        date = date + Days::new(1);
    }
    date
}
