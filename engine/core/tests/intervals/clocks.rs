//! The model's own calendars and schedules: lists of instants, made by trying times one after the other.

use chrono::{DateTime, Datelike, Days, MappedLocalTime, Months, NaiveDate, NaiveDateTime, TimeZone, Timelike};
use chrono_tz::Tz;
use tidemill_core::interval::{Deadline, Length, Unit};

pub(crate) const MINUTE: u64 = 60_000;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;

/// A schedule whose meaning needs no parser.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    pub(crate) minutes: Vec<u32>,
    /// `*` where there are none.
    pub(crate) hours: Option<Vec<u32>>,
    pub(crate) day: Option<u32>,
    /// From Sunday, 0.
    pub(crate) weekdays: Option<Vec<u32>>,
}

impl Times {
    pub(crate) fn cron(&self) -> String {
        let list = |values: &[u32]| values.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let or_star = |values: Option<String>| values.unwrap_or_else(|| "*".to_owned());
        let hours = or_star(self.hours.as_deref().map(list));
        let (day, weekdays) = (or_star(self.day.map(|d| d.to_string())), or_star(self.weekdays.as_deref().map(list)));
        format!("{} {hours} {day} * {weekdays}", list(&self.minutes))
    }

    fn has_date(&self, date: NaiveDate) -> bool {
        self.day.is_none_or(|day| date.day() == day)
            && self.weekdays.as_ref().is_none_or(|days| days.contains(&date.weekday().num_days_from_sunday()))
    }

    /// Every instant between two at which it fires.
    pub(crate) fn fires(&self, zone: Tz, from: u64, to: u64) -> Vec<u64> {
        let mut fires = Vec::new();
        if let Some(hours) = &self.hours {
            let mut date = local(zone, from).date();
            while date <= local(zone, to).date() {
                if self.has_date(date) {
                    let times =
                        hours.iter().flat_map(|h| self.minutes.iter().filter_map(move |m| date.and_hms_opt(*h, *m, 0)));
                    fires.extend(times.map(|time| reached(zone, time)));
                }
                date = date + Days::new(1);
            }
        } else {
            let mut at = from - from % (5 * MINUTE);
            while at <= to {
                let shown = local(zone, at);
                if self.minutes.contains(&shown.minute()) && self.has_date(shown.date()) {
                    fires.push(at);
                }
                at += 5 * MINUTE;
            }
        }
        fires.sort_unstable();
        fires.dedup();
        fires.retain(|at| (from..=to).contains(at));
        fires
    }
}

/// What clocks show.
pub(crate) fn local(zone: Tz, at: u64) -> NaiveDateTime {
    let utc = DateTime::from_timestamp_millis(i64::try_from(at).unwrap()).unwrap();
    utc.with_timezone(&zone).naive_local()
}

/// When clocks first show a time, or if they never do the next that they show.
pub(crate) fn reached(zone: Tz, mut time: NaiveDateTime) -> u64 {
    loop {
        match zone.from_local_datetime(&time) {
            MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => {
                return u64::try_from(at.timestamp_millis()).unwrap();
            }
            MappedLocalTime::None => time += chrono::Duration::minutes(1),
        }
    }
}

/// All boundaries of intervals until an instant, and some beyond it.
pub(crate) fn boundaries(zone: Tz, length: Length, start: NaiveDateTime, until: u64) -> Vec<u64> {
    let (count, first) = (u64::from(length.count), reached(zone, start));
    let mut all: Vec<u64> = Vec::new();
    for k in 0_u64.. {
        let steps = k * count;
        let months = |months: u64| start.checked_add_months(Months::new(u32::try_from(months).unwrap())).unwrap();
        let at = match length.unit {
            Unit::Minute => first + steps * MINUTE,
            Unit::Hour => first + steps * HOUR,
            Unit::Day => reached(zone, start + Days::new(steps)),
            Unit::Week => reached(zone, start + Days::new(7 * steps)),
            Unit::Month => reached(zone, months(steps)),
            Unit::Year => reached(zone, months(12 * steps)),
        };
        all.push(at);
        if all.len() > 6 && all[all.len() - 6] > until {
            break;
        }
    }
    all
}

/// When an interval that ends at an instant should be published.
pub(crate) fn deadline(zone: Tz, end: u64, deadline: Deadline) -> u64 {
    match deadline {
        Deadline::After { ms } => end + ms,
        Deadline::Clock { minute } => {
            let mut date = local(zone, end).date();
            loop {
                let at = reached(zone, date.and_hms_opt(minute / 60, minute % 60, 0).unwrap());
                if at >= end {
                    return at;
                }
                date = date + Days::new(1);
            }
        }
    }
}
