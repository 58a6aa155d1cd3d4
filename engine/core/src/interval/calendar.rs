//! The intervals of a job: half-open, without gaps, counted from its START.
//!
//! An interval is named by its position, so that a ledger of years is a few ranges of numbers. Minutes and hours are
//! exact; days, weeks, months and years are steps on the clocks of the job's zone, so that a day has 23, 24 or 25 hours.
//!
//! Invariant: boundaries never go backwards. Where clocks skip a whole day, as in Samoa in 2011, an interval is empty.

use std::fmt;
use std::ops::Range;

use chrono::Datelike;
use serde::{Deserialize, Serialize};

use super::zone::{CALENDAR_END, DAY_MS, HOUR_MS, Local, MINUTE_MS, Zone};
use crate::{Error, Millis, Result};

/// A half-open stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Interval {
    /// The first instant of it.
    pub start: Millis,
    /// The first instant after it.
    pub end: Millis,
}

impl Interval {
    /// Whether no instant is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

/// What a job's intervals are measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
    /// From one midnight of the zone to the next, or from the START's time of day.
    Day,
    /// Seven days.
    Week,
    /// The same day of the next month, or its last one.
    Month,
    /// Twelve months.
    Year,
}

/// How long a job's intervals are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Length {
    /// How many units.
    pub count: u32,
    /// Of which.
    pub unit: Unit,
}

/// How boundaries follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rhythm {
    Exact { ms: u64 },
    Days(u64),
    Months(u64),
}

impl Length {
    /// What an interval's length may be.
    ///
    /// # Errors
    ///
    /// `Invalid` for nothing, and for more than ten years.
    pub fn validate(self) -> Result<()> {
        let (most, years) = match self.unit {
            Unit::Minute => (10 * 366 * 24 * 60, 10),
            Unit::Hour => (10 * 366 * 24, 10),
            Unit::Day => (10 * 366, 10),
            Unit::Week => (10 * 53, 10),
            Unit::Month => (10 * 12, 10),
            Unit::Year => (10, 10),
        };
        if (1..=most).contains(&self.count) {
            return Ok(());
        }
        Err(Error::invalid(format!("INTERVAL '{self}' is not between one minute and {years} years")))
    }

    const fn rhythm(self) -> Rhythm {
        let count = self.count as u64;
        match self.unit {
            Unit::Minute => Rhythm::Exact { ms: count * MINUTE_MS },
            Unit::Hour => Rhythm::Exact { ms: count * HOUR_MS },
            Unit::Day => Rhythm::Days(count),
            Unit::Week => Rhythm::Days(7 * count),
            Unit::Month => Rhythm::Months(count),
            Unit::Year => Rhythm::Months(12 * count),
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Minute => "minute",
            Unit::Hour => "hour",
            Unit::Day => "day",
            Unit::Week => "week",
            Unit::Month => "month",
            Unit::Year => "year",
        };
        let plural = if self.count == 1 { "" } else { "s" };
        write!(f, "{} {unit}{plural}", self.count)
    }
}

/// A job's intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// Whose clocks count days and longer.
    pub zone: Zone,
    /// How long each is.
    pub length: Length,
    /// Where the first begins.
    pub start: Local,
}

impl Calendar {
    /// Where the intervals of a job without START begin: with the day, the Monday, the month or the year of `now`.
    #[must_use]
    pub fn default_start(zone: Zone, length: Length, now: Millis) -> Local {
        let today = Local(zone.local(now).0.div_euclid(86_400_000) * 86_400_000);
        let Some(day) = today.naive() else { return today };
        let back = match length.unit {
            Unit::Minute | Unit::Hour | Unit::Day => 0,
            Unit::Week => day.weekday().num_days_from_monday(),
            Unit::Month => day.day0(),
            Unit::Year => day.ordinal0(),
        };
        Local(today.0 - i64::from(back) * 86_400_000)
    }

    /// Where interval `index` begins and the one before ends.
    #[must_use]
    pub fn boundary(&self, index: u64) -> Millis {
        let at = match self.length.rhythm() {
            Rhythm::Exact { ms } => {
                Some(Millis(self.zone.instant(self.start).0.saturating_add(index.saturating_mul(ms))))
            }
            Rhythm::Days(days) => {
                index.checked_mul(days).and_then(|days| self.start.plus_days(days)).map(|l| self.zone.instant(l))
            }
            Rhythm::Months(months) => index
                .checked_mul(months)
                .and_then(|months| self.start.plus_months(months))
                .map(|l| self.zone.instant(l)),
        };
        at.unwrap_or(CALENDAR_END).min(CALENDAR_END)
    }

    /// The interval at a position.
    #[must_use]
    pub fn interval(&self, index: u64) -> Interval {
        Interval { start: self.boundary(index), end: self.boundary(index.saturating_add(1)) }
    }

    /// The position of the interval that an instant is in; none before START.
    #[must_use]
    pub fn containing(&self, at: Millis) -> Option<u64> {
        let first = self.boundary(0);
        let at = at.min(Millis(CALENDAR_END.0 - 1));
        if at < first {
            return None;
        }
        // Clocks and months are uneven: the guess may be one or two off.
        let mut index = self.guess(first, at);
        while index > 0 && self.boundary(index) > at {
            index -= 1;
        }
        while self.boundary(index + 1) <= at {
            index += 1;
        }
        Some(index)
    }

    fn guess(&self, first: Millis, at: Millis) -> u64 {
        let (from, to) = (self.start, self.zone.local(at));
        match self.length.rhythm() {
            Rhythm::Exact { ms } => at.since(first) / ms.max(1),
            Rhythm::Days(days) => u64::try_from(to.0 - from.0).unwrap_or(0) / (days.max(1) * DAY_MS),
            Rhythm::Months(months) => {
                let number =
                    |local: Local| local.naive().map_or(0, |n| i64::from(n.year()) * 12 + i64::from(n.month0()));
                u64::try_from(number(to) - number(from)).unwrap_or(0) / months.max(1)
            }
        }
    }

    /// How many intervals have ended at an instant: the position after the last complete one.
    #[must_use]
    pub fn complete_to(&self, at: Millis) -> u64 {
        self.containing(at).unwrap_or(0)
    }

    /// The position of the last interval that is complete at an instant.
    #[must_use]
    pub fn last_complete(&self, at: Millis) -> Option<u64> {
        self.complete_to(at).checked_sub(1)
    }

    /// The position of the first interval that begins at an instant or later.
    #[must_use]
    pub fn first_from(&self, at: Millis) -> u64 {
        match self.containing(at) {
            None => 0,
            Some(index) if self.boundary(index) == at => {
                // Those before it may be empty, and begin with it.
                let empty = (0..index).rev().take_while(|before| self.boundary(*before) == at).count();
                index - empty as u64
            }
            Some(index) => index + 1,
        }
    }

    /// The position of the interval that begins at an instant.
    #[must_use]
    pub fn starting_at(&self, at: Millis) -> Option<u64> {
        self.containing(at).filter(|index| self.boundary(*index) == at)
    }

    /// The intervals that lie between two instants.
    #[must_use]
    pub fn inside(&self, from: Millis, to: Millis) -> Range<u64> {
        let (first, end) = (self.first_from(from), self.complete_to(to));
        first..end.max(first)
    }

    /// The intervals that share an instant with a stretch of time.
    #[must_use]
    pub fn overlapping(&self, from: Millis, to: Millis) -> Range<u64> {
        if from >= to {
            return 0..0;
        }
        let end = self.containing(Millis(to.0 - 1)).map_or(0, |last| last + 1);
        self.containing(from).unwrap_or(0).min(end)..end
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::*;

    fn calendar(zone: &str, count: u32, unit: Unit, start: &str) -> Calendar {
        let zone = Zone::parse(zone).unwrap();
        Calendar { zone, length: Length { count, unit }, start: Local::parse(start).unwrap() }
    }

    fn hours(calendar: &Calendar, index: u64) -> u64 {
        let interval = calendar.interval(index);
        interval.end.since(interval.start) / HOUR_MS
    }

    #[test]
    fn a_day_has_23_or_25_hours_where_clocks_change() {
        let new_york = calendar("America/New_York", 1, Unit::Day, "2026-03-07");
        assert_eq!([0, 1, 2].map(|i| hours(&new_york, i)), [24, 23, 24]);
        let berlin = calendar("Europe/Berlin", 1, Unit::Day, "2026-10-24");
        assert_eq!([0, 1, 2].map(|i| hours(&berlin, i)), [24, 25, 24]);
        let sao_paulo = calendar("America/Sao_Paulo", 1, Unit::Day, "2018-11-03");
        assert_eq!([0, 1, 2].map(|i| hours(&sao_paulo, i)), [24, 23, 24]);
    }

    #[test]
    fn hours_and_minutes_are_exact_whatever_the_clocks_show() {
        let hourly = calendar("Europe/Berlin", 1, Unit::Hour, "2026-10-24");
        assert!((0..72).all(|i| hours(&hourly, i) == 1));
        let boundary = |index| hourly.zone.local(hourly.boundary(index)).to_string();
        assert_eq!([26, 27, 28].map(boundary), ["2026-10-25 02:00", "2026-10-25 02:00", "2026-10-25 03:00"]);
    }

    #[test]
    fn months_begin_on_the_same_day_or_the_last() {
        let monthly = calendar("UTC", 1, Unit::Month, "2024-01-31");
        let start = |index| monthly.zone.local(monthly.boundary(index)).to_string();
        assert_eq!(
            [0, 1, 2, 13].map(start),
            ["2024-01-31 00:00", "2024-02-29 00:00", "2024-03-31 00:00", "2025-02-28 00:00"]
        );
    }

    #[test]
    fn a_day_that_was_skipped_is_empty() {
        let apia = calendar("Pacific/Apia", 1, Unit::Day, "2011-12-28");
        assert!(apia.interval(2).is_empty());
        assert!((0..5).all(|i| apia.boundary(i) <= apia.boundary(i + 1)));
        assert_eq!(apia.containing(apia.boundary(2)), Some(3));
    }

    #[test]
    fn every_instant_is_in_one_interval() {
        let zones = ["America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia", "Asia/Kathmandu"];
        let units = [Unit::Minute, Unit::Hour, Unit::Day, Unit::Week, Unit::Month, Unit::Year];
        for (zone, unit, count) in zones.iter().flat_map(|z| units.iter().flat_map(move |u| [1, 3].map(|c| (z, *u, c))))
        {
            let calendar = calendar(zone, count, unit, "2011-03-05 02:30");
            let mut at = calendar.boundary(0).0;
            for step in 0..200_u64 {
                let index = calendar.containing(Millis(at)).unwrap();
                let interval = calendar.interval(index);
                assert!(interval.start.0 <= at && at < interval.end.0, "{zone} {:?} {at}", calendar.length);
                assert_eq!(calendar.complete_to(Millis(at)), index);
                at += 1 + step * step * 977_131;
            }
            assert_eq!(calendar.containing(Millis(calendar.boundary(0).0 - 1)), None);
        }
    }

    #[test]
    fn stretches_find_the_intervals_inside_and_around_them() {
        let daily = calendar("UTC", 1, Unit::Day, "2026-01-01");
        let at = |text| Zone::UTC.instant(Local::parse(text).unwrap());
        assert_eq!(daily.inside(at("2026-01-02"), at("2026-01-05")), 1..4);
        assert_eq!(daily.inside(at("2026-01-02 01:00"), at("2026-01-04 23:00")), 2..3);
        assert_eq!(daily.inside(at("2026-01-02 01:00"), at("2026-01-02 23:00")), 2..2);
        assert_eq!(daily.overlapping(at("2026-01-02 01:00"), at("2026-01-03")), 1..2);
        assert_eq!(daily.overlapping(at("2025-01-02"), at("2026-01-01 00:01")), 0..1);
        assert_eq!(daily.overlapping(at("2025-01-02"), at("2025-01-03")), 0..0);
        assert_eq!((daily.starting_at(at("2026-01-03")), daily.starting_at(at("2026-01-03 01:00"))), (Some(2), None));
    }

    #[test]
    fn a_calendar_ends_with_the_century() {
        let yearly = calendar("UTC", 10, Unit::Year, "2026-01-01");
        assert_eq!(yearly.boundary(u64::MAX), CALENDAR_END);
        assert_eq!(yearly.containing(Millis(u64::MAX)), Some(7));
        let minutes = calendar("UTC", 1, Unit::Minute, "1970-01-01");
        assert_eq!(minutes.containing(Millis(u64::MAX)), Some(CALENDAR_END.0 / MINUTE_MS - 1));
    }

    #[test]
    fn without_a_start_intervals_begin_with_the_period_of_now() {
        let zone = Zone::parse("Asia/Kathmandu").unwrap();
        let now = zone.instant(Local::parse("2026-05-14 13:07").unwrap());
        let start = |unit| Calendar::default_start(zone, Length { count: 1, unit }, now).to_string();
        assert_eq!(start(Unit::Hour), "2026-05-14 00:00");
        assert_eq!(start(Unit::Week), "2026-05-11 00:00");
        assert_eq!(start(Unit::Month), "2026-05-01 00:00");
        assert_eq!(start(Unit::Year), "2026-01-01 00:00");
    }

    #[test]
    fn lengths_have_bounds() {
        for (count, unit) in [(0, Unit::Minute), (11, Unit::Year), (u32::MAX, Unit::Minute)] {
            let length = Length { count, unit };
            assert!(length.validate().unwrap_err().message.contains(&length.to_string()));
        }
        assert!(Length { count: 10, unit: Unit::Year }.validate().is_ok());
    }
}
