//! When a schedule fires: `croner` reads the five fields and finds times on a clock; what a clock that is changed means
//! is decided here.
//!
//! - The hours are `*` or `*/n`: it fires by elapsed time. Where clocks go back it fires in both passes, where they go
//!   forward what they skip is skipped.
//! - Anything else in the hours: it fires once for each time it names. Where clocks go back in the first pass only, where
//!   they go forward right after the gap, once for all times in it.

use std::fmt;

use chrono::NaiveDateTime;
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};

use super::zone::{CALENDAR_END, Local, Zone, unsigned};
use crate::{Error, Millis, Result};

/// A cron expression is shorter than this.
const MAX_CHARS: usize = 200;
const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// The years in which every date and weekday comes together that ever does.
const FROM: &str = "2000-01-01";
/// Clocks are never put back by more minutes than this.
const LONGEST_PASS_MINUTES: usize = 26 * 60;

/// A cron expression of five fields that fires at some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cron(String);

impl Cron {
    /// Reads minute, hour, day of month, month and day of week, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    ///
    /// # Errors
    ///
    /// `Invalid` if it is no such thing, naming the field, or if it never fires.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.len() > MAX_CHARS {
            return Err(Error::invalid(format!(
                "a cron expression has at most {MAX_CHARS} characters, this has {}",
                text.len()
            )));
        }
        let parsed = parse(&text).map_err(|why| refused(&text, &why))?;
        let fields = &parsed.pattern;
        let dates = [&fields.days, &fields.days_of_week];
        let empty = [&fields.minutes, &fields.hours, &fields.months].iter().any(|field| field.values().is_empty())
            || dates.iter().any(|field| field.values().is_empty() && !field.has_modifiers());
        let from = Local::parse(FROM)?.naive();
        let first = from.filter(|_| !empty).and_then(|from| parsed.find_next_occurrence(&from, true).ok());
        if first.is_none_or(|first| unsigned(first.and_utc().timestamp_millis()) >= CALENDAR_END) {
            return Err(Error::invalid(format!("cron '{text}' never fires: no date is like that")));
        }
        Ok(Self(text))
    }

    /// Whether names stand where they mean something: the library takes JAN for the number 1 in any field, and as Monday. Asked of
    /// what somebody types; jobs that are there go on.
    ///
    /// # Errors
    ///
    /// `Invalid` if one does not, naming the field.
    pub fn check_names(&self) -> Result<()> {
        let text = &self.0;
        for (field, given) in FIELDS.iter().zip(text.split_whitespace()).filter(|_| !text.starts_with('@')) {
            let is_misplaced =
                |part: &&str| part.contains(char::is_alphabetic) && !is_name(field, &part.to_uppercase());
            if let Some(part) = given.split([',', '-', '/', '#']).find(is_misplaced) {
                let place = format!("in its {field} field '{given}'");
                return Err(Error::invalid(format!("cron '{text}' cannot be read {place}: '{part}' is no {field}")));
            }
        }
        Ok(())
    }

    /// Its five fields, or its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first time after an instant at which it fires.
    #[must_use]
    pub fn next(&self, zone: Zone, after: Millis) -> Option<Millis> {
        self.read()?.next(zone, after)
    }

    /// The last time until an instant, and including it, at which it fired.
    #[must_use]
    pub fn last(&self, zone: Zone, until: Millis) -> Option<Millis> {
        self.read()?.last(zone, until)
    }

    /// For those who ask it more than once.
    pub(super) fn read(&self) -> Option<Fires> {
        parse(&self.0).ok().map(Fires)
    }
}

/// When an expression fires.
pub(super) struct Fires(croner::Cron);

impl Fires {
    pub(super) fn next(&self, zone: Zone, after: Millis) -> Option<Millis> {
        let fires = if self.is_by_elapsed_time() {
            let next = self.0.find_next_occurrence(&zone.moment(after)?, false).ok()?;
            Some(unsigned(next.timestamp_millis())).filter(|at| *at > after)
        } else {
            // What is left of a second pass, or of a gap, has been.
            let shown = zone.local(after).naive()?;
            self.times_after(shown).map(|time| zone.instant(time)).find(|at| *at > after)
        };
        fires.filter(|at| *at < CALENDAR_END)
    }

    pub(super) fn last(&self, zone: Zone, until: Millis) -> Option<Millis> {
        let until = until.min(Millis(CALENDAR_END.0 - 1));
        if self.is_by_elapsed_time() {
            let last = self.0.find_previous_occurrence(&zone.moment(until)?, true).ok()?;
            return u64::try_from(last.timestamp_millis()).ok().map(Millis);
        }
        let shown = zone.local(until).naive()?;
        if zone.is_second_pass(until) {
            // The clocks have shown later times already, in the first pass.
            let later = self.times_after(shown).map(|time| zone.instant(time)).take_while(|at| *at <= until).last();
            if later.is_some() {
                return later;
            }
        }
        let last = self.0.find_previous_occurrence(&shown, true).ok()?;
        let last = Local(last.and_utc().timestamp_millis());
        Some(zone.instant(last)).filter(|_| last.0 >= 0)
    }

    fn is_by_elapsed_time(&self) -> bool {
        // The pattern's own text: nicknames are written out in it.
        self.0.pattern.as_str().split_whitespace().nth(1).is_some_and(|hours| hours.starts_with('*'))
    }

    /// Times on the clock after one of them, as many as a changed clock can hide.
    fn times_after(&self, shown: NaiveDateTime) -> impl Iterator<Item = Local> {
        let mut time = Some(shown);
        std::iter::from_fn(move || {
            time = self.0.find_next_occurrence(&time?, false).ok();
            time.map(|time| Local(time.and_utc().timestamp_millis()))
        })
        .take(LONGEST_PASS_MINUTES + 1)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn parse(text: &str) -> Result<croner::Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(text).map_err(|error| error.to_string())
}

fn refused(text: &str, why: &str) -> Error {
    let given: Vec<&str> = text.split_whitespace().collect();
    if text.starts_with('@') {
        return Error::invalid(format!("cron '{text}' is none of @hourly, @daily, @weekly, @monthly and @yearly"));
    }
    if given.len() != FIELDS.len() {
        let hint = "minute, hour, day of month, month and day of week, such as '15 2 * * *'";
        let plural = if given.len() == 1 { "" } else { "s" };
        return Error::invalid(format!("cron '{text}' has {} field{plural} and must have five: {hint}", given.len()));
    }
    // The library does not say where: each field alone does.
    let wrong = (0..FIELDS.len()).find(|field| {
        let alone: Vec<&str> = (0..FIELDS.len()).map(|i| if i == *field { given[i] } else { "*" }).collect();
        parse(&alone.join(" ")).is_err()
    });
    let place = wrong.map_or_else(String::new, |i| format!(" in its {} field '{}'", FIELDS[i], given[i]));
    Error::invalid(format!("cron '{text}' cannot be read{place}: {}", why.trim_end_matches('.').to_lowercase()))
}

/// Whether a part of a field that is not only numbers means something there.
fn is_name(field: &str, part: &str) -> bool {
    let is_number = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    match field {
        "month" => MONTHS.contains(&part),
        "day of month" => matches!(part, "L" | "LW") || part.strip_suffix('W').is_some_and(is_number),
        "day of week" => {
            let part = part.strip_prefix('+').unwrap_or(part);
            DAYS.contains(&part) || part.strip_suffix('L').is_some_and(|day| is_number(day) || DAYS.contains(&day))
        }
        _ => false,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::*;

    fn fires(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let (cron, zone) = (Cron::parse(cron).unwrap(), Zone::parse(zone).unwrap());
        let mut at = zone.instant(Local::parse(from).unwrap());
        let mut all = Vec::new();
        for _ in 0..count {
            let next = cron.next(zone, at).unwrap();
            assert!(next > at);
            // Looking back finds the same: at it, just before the next one, and not before it.
            let after = cron.next(zone, next).unwrap();
            assert_eq!(cron.last(zone, next), Some(next), "{cron} back from {}", zone.show(next));
            assert_eq!(cron.last(zone, Millis(after.0 - 1)), Some(next), "{cron} back from {}", zone.show(after));
            all.push(Zone::UTC.local(next).to_string());
            at = next;
        }
        all
    }

    fn check(cron: &str, zone: &str, from: &str, expected_utc: &[&str]) {
        assert_eq!(fires(cron, zone, from, expected_utc.len()), expected_utc, "{cron} in {zone}");
    }

    #[test]
    fn an_hour_that_does_not_exist_fires_once_right_after_the_gap() {
        let zone = "America/New_York";
        check("15 2 * * *", zone, "2026-03-07 12:00", &["2026-03-08 07:00", "2026-03-09 06:15"]);
        check("0,30 2 * * *", zone, "2026-03-07 12:00", &["2026-03-08 07:00", "2026-03-09 06:00", "2026-03-09 06:30"]);
        check("0 2,3 * * *", zone, "2026-03-07 12:00", &["2026-03-08 07:00", "2026-03-09 06:00"]);
        check("15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00", &["2026-10-03 15:30", "2026-10-04 15:15"]);
        check("0 0 * * *", "America/Sao_Paulo", "2018-11-03 12:00", &["2018-11-04 03:00", "2018-11-05 02:00"]);
    }

    #[test]
    fn an_hour_that_comes_twice_fires_once_if_it_is_fixed() {
        let zone = "America/New_York";
        check("30 1 * * *", zone, "2026-10-31 12:00", &["2026-11-01 05:30", "2026-11-02 06:30"]);
        check(
            "*/20 1 * * *",
            zone,
            "2026-11-01 00:30",
            &["2026-11-01 05:00", "2026-11-01 05:20", "2026-11-01 05:40", "2026-11-02 06:00"],
        );
        check("45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00", &["2026-04-04 14:45", "2026-04-05 15:15"]);
    }

    #[test]
    fn every_hour_fires_by_elapsed_time() {
        let zone = "America/New_York";
        check("30 * * * *", zone, "2026-11-01 00:40", &["2026-11-01 05:30", "2026-11-01 06:30", "2026-11-01 07:30"]);
        check("30 * * * *", zone, "2026-03-08 00:40", &["2026-03-08 06:30", "2026-03-08 07:30"]);
        check(
            "*/30 * * * *",
            "Africa/Casablanca",
            "2026-02-15 01:31",
            &["2026-02-15 01:00", "2026-02-15 01:30", "2026-02-15 02:00", "2026-02-15 02:30"],
        );
        check("@hourly", "Australia/Lord_Howe", "2026-04-05 00:30", &["2026-04-04 14:00", "2026-04-04 15:30"]);
    }

    #[test]
    fn looking_back_from_the_second_pass_finds_the_first() {
        let (cron, zone) = (Cron::parse("45 1 * * *").unwrap(), Zone::parse("America/New_York").unwrap());
        let at = |text| Zone::UTC.instant(Local::parse(text).unwrap());
        assert_eq!(cron.last(zone, at("2026-11-01 06:10")), Some(at("2026-11-01 05:45")));
        assert_eq!(cron.last(zone, at("2026-11-01 05:10")), Some(at("2026-10-31 05:45")));
        assert_eq!(cron.last(zone, at("1970-01-01 00:10")), None);
    }

    #[test]
    fn a_missing_day_fires_after_it() {
        check("0 9 * * *", "Pacific/Apia", "2011-12-29 12:00", &["2011-12-30 10:00", "2011-12-30 19:00"]);
    }

    #[test]
    fn names_and_last_days_are_understood() {
        check("0 6 L * *", "UTC", "2026-02-01", &["2026-02-28 06:00", "2026-03-31 06:00"]);
        check("0 6 * * MON#1", "UTC", "2026-02-01", &["2026-02-02 06:00", "2026-03-02 06:00"]);
        check("0 0 29 2 *", "UTC", "2026-02-01", &["2028-02-29 00:00"]);
        check("0 0 13 * +5", "UTC", "2026-02-01", &["2026-02-13 00:00", "2026-03-13 00:00", "2026-11-13 00:00"]);
        check("0 0-12/6 * JAN *", "UTC", "2026-02-01", &["2027-01-01 00:00", "2027-01-01 06:00", "2027-01-01 12:00"]);
        check("0 0 13 * 5", "UTC", "2026-02-01", &["2026-02-06 00:00", "2026-02-13 00:00", "2026-02-20 00:00"]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_field() {
        let check = |text: &str, expected: &str| {
            let error = Cron::parse(text).unwrap_err();
            assert!(error.message.contains(expected), "{error}");
        };
        check("61 * * * *", "minute field '61'");
        check("0 25 * * *", "hour field '25'");
        check("0 0 * 13 *", "month field '13'");
        check("0 0 * * FRIDAYS", "day of week field 'FRIDAYS'");
        check("0/10 * * * *", "minute field '0/10'");
        check("* * * *", "4 fields");
        check("0 0 12 * * *", "6 fields");
        check("", "0 fields");
        check("5", "1 field and");
        check("@never", "'@never' is none of @hourly");
        check("@every 5m", "is none of @hourly");
        check("*/0 * * * *", "minute field '*/0'");
        check("/5 * * * *", "minute field '/5'");
        check("*/99999 * * * *", "minute field '*/99999'");
        check("0 0 L-3 * *", "day of month field 'L-3'");
        check("0 0 * * 8", "day of week field '8'");
        check("0 0 * * SAT-MON", "day of week field 'SAT-MON'");
        check("0 0 * * 1#6", "day of week field '1#6'");
        check("0 0 * JUÄ *", "month field 'JUÄ'");
        check("0 0 30 2 *", "never fires");
        check("0 0 31 2,4,6,9,11 *", "never fires");
        check(", 0 * * *", "never fires");
        check("0 0 , * ,", "never fires");
        check(&"0,".repeat(200), "characters");
    }

    #[test]
    fn a_name_stands_in_its_own_field_only() {
        let check = |text: &str, expected: &str| {
            let error = Cron::parse(text).unwrap().check_names().unwrap_err();
            assert!(error.message.contains(expected), "{error}");
        };
        check("0 0 * * JAN", "day of week field 'JAN': 'JAN' is no day of week");
        check("0 0 * MON *", "month field 'MON'");
        check("0 TUE * * *", "hour field 'TUE'");
        check("0 0 FEB * *", "day of month field 'FEB'");
        check("0 0 * * 0MON", "day of week field '0MON'");
        check("0 0 * * SUNMON", "day of week field 'SUNMON'");
        for text in ["0 0 * jan-mar,NOV mon-fri", "0 0 L,15W,LW * *", "0 0 * * FRIL,5L,sun#2", "0 0 1 */3 +TUE"] {
            assert_eq!(Cron::parse(text).unwrap().check_names(), Ok(()), "{text}");
        }
        assert_eq!(Cron::parse("@Weekly").unwrap().check_names(), Ok(()));
    }

    #[test]
    fn sunday_is_0_and_7_and_steps_begin_anew_with_each_hour() {
        check("0 0 * * 7", "UTC", "2026-02-01", &["2026-02-08 00:00", "2026-02-15 00:00"]);
        assert_eq!(fires("0 0 * * 0", "UTC", "2026-02-01", 3), fires("0 0 * * 7", "UTC", "2026-02-01", 3));
        assert_eq!(fires("0 0 * * FRI-SUN", "UTC", "2026-02-01", 9), fires("0 0 * * 0,5,6", "UTC", "2026-02-01", 9));
        let expected = ["2026-02-01 00:49", "2026-02-01 00:56", "2026-02-01 01:00", "2026-02-01 01:07"];
        check("*/7 * * * *", "UTC", "2026-02-01 00:42", &expected);
        check("0 0 31 * *", "UTC", "2026-02-01", &["2026-03-31 00:00", "2026-05-31 00:00"]);
    }

    #[test]
    fn a_schedule_ends_with_the_calendar() {
        let cron = Cron::parse("0 0 1 1 *").unwrap();
        assert_eq!(cron.next(Zone::UTC, Millis(CALENDAR_END.0 - 1)), None);
        assert!(cron.last(Zone::UTC, Millis(u64::MAX)).is_some());
    }
}
