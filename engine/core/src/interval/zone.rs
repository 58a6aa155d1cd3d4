//! Time zones, and what their clocks show.
//!
//! Invariant: the rules of the zones are compiled in. Nothing is looked up on the machine.

use std::fmt;

use chrono::{DateTime, MappedLocalTime, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::{Error, Millis, Result};

pub(super) const MINUTE_MS: u64 = 60_000;
pub(super) const HOUR_MS: u64 = 60 * MINUTE_MS;
pub(super) const DAY_MS: u64 = 24 * HOUR_MS;
/// More than any clock is ahead of or behind UTC, and any step of it in one night.
const REACH_S: i64 = 52 * 3_600;

/// The first instant that no calendar reaches: 2100-01-01 UTC. The compiled rules end there.
pub const CALENDAR_END: Millis = Millis(4_102_444_800_000);
/// The same on a clock, with room for the time zones behind UTC.
const LOCAL_END: Local = Local(4_102_444_800_000 + 2 * 86_400_000);

/// An IANA time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(Tz);

impl Zone {
    /// The zone without offsets.
    pub const UTC: Self = Self(Tz::UTC);

    /// The zone of an IANA name.
    ///
    /// # Errors
    ///
    /// `Invalid` if there is none of this name.
    pub fn parse(name: &str) -> Result<Self> {
        name.parse().map(Self).map_err(|_| {
            Error::invalid(format!(
                "there is no time zone '{name}': give an IANA name, such as 'Europe/Berlin' or 'UTC'"
            ))
        })
    }

    /// Its IANA name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// What the clocks show at an instant.
    #[must_use]
    pub fn local(self, at: Millis) -> Local {
        Local(signed(at).saturating_add(self.offset_ms(at)))
    }

    /// The first instant at which the clocks have reached `local`: the first of two if they show it twice, and the
    /// first after the gap if they never do.
    #[must_use]
    pub fn instant(self, local: Local) -> Millis {
        let Some(naive) = local.naive() else { return CALENDAR_END };
        match self.0.offset_from_local_datetime(&naive) {
            MappedLocalTime::Single(offset) | MappedLocalTime::Ambiguous(offset, _) => {
                unsigned(local.0 - i64::from(offset.fix().local_minus_utc()) * 1_000)
            }
            MappedLocalTime::None => self.after_gap(local),
        }
    }

    /// Whether the clocks show this time for the second time at `at`.
    pub(super) fn is_second_pass(self, at: Millis) -> bool {
        let local = self.local(at);
        let shown = local.naive().map(|naive| self.0.offset_from_local_datetime(&naive));
        match shown {
            Some(MappedLocalTime::Ambiguous(first, _)) => {
                signed(at) > local.0 - i64::from(first.fix().local_minus_utc()) * 1_000
            }
            Some(MappedLocalTime::Single(_) | MappedLocalTime::None) | None => false,
        }
    }

    /// An instant in this zone, to the second.
    pub(super) fn moment(self, at: Millis) -> Option<DateTime<Tz>> {
        DateTime::from_timestamp(i64::try_from(at.0 / 1_000).ok()?, 0).map(|utc| utc.with_timezone(&self.0))
    }

    /// An instant in words.
    pub(super) fn show(self, at: Millis) -> String {
        format!("{} {}", self.local(at), self.name())
    }

    fn offset_ms(self, at: Millis) -> i64 {
        let utc = DateTime::from_timestamp_millis(signed(at)).map(|utc| utc.naive_utc());
        utc.map_or(0, |utc| i64::from(self.0.offset_from_utc_datetime(&utc).fix().local_minus_utc()) * 1_000)
    }

    /// Clocks are put forward at whole seconds; in the hours around that they run on.
    fn after_gap(self, local: Local) -> Millis {
        let shown = local.0.div_euclid(1_000);
        let (mut before, mut after) = (shown - REACH_S, shown + REACH_S);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if self.local(unsigned(middle * 1_000)) < local {
                before = middle;
            } else {
                after = middle;
            }
        }
        unsigned(after * 1_000)
    }
}

impl TryFrom<String> for Zone {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::parse(&name)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name().to_owned()
    }
}

/// What a clock on the wall shows: milliseconds since it showed 1970-01-01 00:00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Local(pub i64);

impl Local {
    /// `2026-03-01`, `2026-03-01 04:30` or `2026-03-01 04:30:15`; a `T` may stand for the blank.
    ///
    /// # Errors
    ///
    /// `Invalid` if it is nothing of the kind, or not between 1970 and 2100.
    pub fn parse(text: &str) -> Result<Self> {
        const FORMS: [&str; 4] = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
        let text = text.trim();
        let time = FORMS.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
        let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|day| day.and_time(NaiveTime::MIN));
        let parsed = time.or_else(day).map(|naive| Self(naive.and_utc().timestamp_millis()));
        parsed.filter(|local| local.0 >= 0 && unsigned(local.0) < CALENDAR_END).ok_or_else(|| {
            Error::invalid(format!(
                "'{text}' is not a time between 1970 and 2100: write it as '2026-03-01' or '2026-03-01 04:30'"
            ))
        })
    }

    pub(super) fn naive(self) -> Option<NaiveDateTime> {
        DateTime::from_timestamp_millis(self.0).map(|utc| utc.naive_utc()).filter(|_| self < LOCAL_END)
    }

    pub(super) fn plus_days(self, days: u64) -> Option<Self> {
        let ms = i64::try_from(days.checked_mul(DAY_MS)?).ok()?;
        self.0.checked_add(ms).map(Self).filter(|local| *local < LOCAL_END)
    }

    /// The same day of the month, or its last one.
    pub(super) fn plus_months(self, months: u64) -> Option<Self> {
        let naive = self.naive()?.checked_add_months(Months::new(u32::try_from(months).ok()?))?;
        Some(Self(naive.and_utc().timestamp_millis())).filter(|local| *local < LOCAL_END)
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp_millis(self.0) {
            Some(utc) => write!(f, "{}", utc.format("%Y-%m-%d %H:%M")),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// Millis as signed, so that offsets can be taken away.
pub(super) fn signed(at: Millis) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// Instants before 1970 are 1970.
pub(super) fn unsigned(at_ms: i64) -> Millis {
    Millis(u64::try_from(at_ms).unwrap_or(0))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::*;

    fn utc(text: &str) -> Millis {
        Zone::UTC.instant(Local::parse(text).unwrap())
    }

    fn check(zone: &str, local: &str, expected_utc: &str) {
        let zone = Zone::parse(zone).unwrap();
        assert_eq!(zone.instant(Local::parse(local).unwrap()), utc(expected_utc), "{local} in {}", zone.name());
    }

    #[test]
    fn a_time_that_does_not_exist_is_the_first_after_the_gap() {
        check("America/New_York", "2026-03-08 02:30", "2026-03-08 07:00");
        check("America/Sao_Paulo", "2018-11-04 00:00", "2018-11-04 03:00");
        check("Australia/Lord_Howe", "2026-10-04 02:15", "2026-10-03 15:30");
        check("Pacific/Apia", "2011-12-30 12:00", "2011-12-30 10:00");
    }

    #[test]
    fn a_time_that_comes_twice_is_the_first() {
        check("America/New_York", "2026-11-01 01:30", "2026-11-01 05:30");
        check("Europe/Berlin", "2026-10-25 02:00", "2026-10-25 00:00");
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        assert!(!berlin.is_second_pass(utc("2026-10-25 00:30")));
        assert!(berlin.is_second_pass(utc("2026-10-25 01:30")));
        assert!(!berlin.is_second_pass(utc("2026-10-25 02:30")));
    }

    #[test]
    fn a_clock_shows_whole_offsets_and_others() {
        let kathmandu = Zone::parse("Asia/Kathmandu").unwrap();
        assert_eq!(kathmandu.local(utc("2026-01-01 00:00")).to_string(), "2026-01-01 05:45");
        assert_eq!(kathmandu.show(utc("2026-01-01 00:00")), "2026-01-01 05:45 Asia/Kathmandu");
    }

    #[test]
    fn zones_and_times_that_are_none_are_named() {
        let error = Zone::parse("Europe/Berln").unwrap_err();
        assert!(error.message.contains("'Europe/Berln'"), "{error}");
        for text in ["", "yesterday", "2026-02-30", "1969-12-31", "2100-01-01", "26-01-01", "2026-01-01 25:00"] {
            assert!(Local::parse(text).unwrap_err().message.contains(text), "{text}");
        }
    }

    #[test]
    fn a_zone_is_written_by_name() {
        let json = serde_json::to_string(&Zone::parse("Africa/Casablanca").unwrap()).unwrap();
        assert_eq!(json, "\"Africa/Casablanca\"");
        assert!(serde_json::from_str::<Zone>("\"Nowhere\"").is_err());
    }
}
