//! `WITH (…)`: which settings there are, and what they mean.

use tidemill_core::interval::{Deadline, Length, Mode, Options, Overlap, Spec, Unit};
use tidemill_core::{Error, Result};
use tidemill_engine::secrets::{SecretType, Secrets, check_location};

use super::statement::{At, Setting};
use crate::session::{HOOKS, nearest, opens_by_itself};

const MINUTE_MS: u64 = 60_000;
/// How the value of `on_failure` and the others begins that names a secret.
const SECRET: &str = "secret:";

/// All settings.
const KNOWN: [&str; 15] = [
    "mode",
    "interval_column",
    "partition",
    "overlap",
    "max_active_runs",
    "retries",
    "retry_backoff",
    "timeout",
    "deadline",
    "suspend_after_failures",
    "lookback",
    "allowed_lateness",
    "on_failure",
    "on_success",
    "on_late",
];

/// What a job's settings say: what the core decides by, and where the rows of an interval are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Settings {
    pub(super) options: Options,
    /// The column that tells which interval a row belongs to.
    pub(super) interval_column: Option<At<String>>,
    /// The same, where it is a partition's.
    pub(super) partition: Option<At<String>>,
}

impl Settings {
    /// Of `WITH (…)`.
    ///
    /// # Errors
    /// One is unknown, or its value does not fit.
    pub(super) fn of(settings: &[Setting]) -> Result<Self> {
        let mut read = Self::default();
        for Setting { key, value } in settings {
            let place = if KNOWN.contains(&key.value.as_str()) { value.place } else { key.place };
            read.set(&key.value, value).map_err(|e| e.at(place))?;
        }
        if let (Some(_), Some(partition)) = (&read.interval_column, &read.partition) {
            let message = "interval_column and partition are both set: one of them says where an interval's rows are";
            return Err(Error::invalid(message).at(partition.place));
        }
        Ok(read)
    }

    fn set(&mut self, key: &str, value: &At<String>) -> Result<()> {
        let (options, text) = (&mut self.options, value.value.as_str());
        match key {
            "mode" => options.mode = mode(text)?,
            "interval_column" => self.interval_column = Some(value.clone()),
            "partition" => self.partition = Some(value.clone()),
            "overlap" => options.overlap = overlap(text)?,
            "max_active_runs" => options.max_active_runs = number(key, text)?,
            "retries" => options.retries = number(key, text)?,
            "retry_backoff" => options.retry_backoff_ms = duration(key, text)?,
            "timeout" => options.timeout_ms = duration(key, text)?,
            "deadline" => options.deadline = Some(deadline(text)?),
            "suspend_after_failures" => options.suspend_after_failures = number(key, text)?,
            "lookback" => options.lookback = number(key, text)?,
            "allowed_lateness" => options.allowed_lateness_ms = Some(duration(key, text)?),
            "on_failure" => options.on_failure = Some(text.to_owned()),
            "on_success" => options.on_success = Some(text.to_owned()),
            "on_late" => options.on_late = Some(text.to_owned()),
            _ => return Err(unknown(key)),
        }
        Ok(())
    }
}

/// Whether there is a setting of a name.
///
/// # Errors
/// There is none; the error points at it.
pub(super) fn check_key(key: &At<String>) -> Result<()> {
    if KNOWN.contains(&key.value.as_str()) { Ok(()) } else { Err(unknown(&key.value).at(key.place)) }
}

fn unknown(key: &str) -> Error {
    let hint = match nearest(key, KNOWN.into_iter()) {
        Some(alike) => format!("did you mean `{alike}`?"),
        None => format!("there are {}", KNOWN.join(", ")),
    };
    Error::invalid(format!("a job has no setting `{key}`: {hint}"))
}

fn mode(text: &str) -> Result<Mode> {
    match text {
        "replace_interval" => Ok(Mode::ReplaceInterval),
        "append" => Ok(Mode::Append),
        _ => Err(Error::invalid(format!("mode is `{text}` and must be replace_interval or append"))),
    }
}

fn overlap(text: &str) -> Result<Overlap> {
    match text {
        "forbid" => Ok(Overlap::Forbid),
        "queue" => Ok(Overlap::Queue),
        "replace" => Ok(Overlap::Replace),
        _ => Err(Error::invalid(format!("overlap is `{text}` and must be queue, forbid or replace"))),
    }
}

fn number(key: &str, text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::invalid(format!("{key} is `{text}` and must be a whole number")))
}

/// `'03:00'`, or how long after the interval's end.
fn deadline(text: &str) -> Result<Deadline> {
    let clock = text.split_once(':').and_then(|(hour, minute)| {
        let (hour, minute) = (hour.parse::<u32>().ok()?, minute.parse::<u32>().ok()?);
        (hour < 24 && minute < 60).then_some(Deadline::Clock { minute: hour * 60 + minute })
    });
    match (clock, text.contains(':')) {
        (Some(clock), _) => Ok(clock),
        (None, true) => Err(Error::invalid(format!("deadline is `{text}`, which no clock shows: write it as '03:00'"))),
        (None, false) => Ok(Deadline::After { ms: duration("deadline", text)? }),
    }
}

/// Whether those can be told who are to be told: by an address that may be kept, or by a secret that this coordinator has. It is asked
/// when they are named, and never by a run: what is published does not depend on who hears of it.
///
/// # Errors
/// One is no address, or is a secret, or the name of one that is not there.
pub(super) fn check_hooks(settings: &[Setting]) -> Result<()> {
    let mut hooks = settings.iter().filter(|set| HOOKS.contains(&set.key.value.as_str()));
    hooks.try_for_each(|Setting { key, value }| webhook(&key.value, &value.value).map_err(|e| e.at(value.place)))
}

/// Whether what is set has something to act on. It is asked when settings are given, and never by a run.
///
/// # Errors
/// One would never do anything.
pub(super) fn check_use(settings: &[Setting], spec: &Spec) -> Result<()> {
    let place = |key: &str| settings.iter().find(|set| set.key.value == key).and_then(|set| set.value.place);
    let options = &spec.options;
    if options.on_late.is_some() && options.deadline.is_none() {
        let message = "on_late is told when intervals are late, and nothing says when they are: set deadline = '03:00', or how long after \
                       an interval's end, as in deadline = '90 minutes'";
        return Err(Error::invalid(message).at(place("on_late")));
    }
    if options.lookback > 0 && spec.inputs().next().is_none() {
        let message = "lookback is how many intervals before its own a run reads of what it waits for, and it waits for nothing: name its \
                       inputs with DEPENDS ON … COMPLETE. No interval is computed again for it";
        return Err(Error::invalid(message).at(place("lookback")));
    }
    Ok(())
}

/// An address, or `secret:NAME`.
fn webhook(key: &str, text: &str) -> Result<()> {
    if let Some(name) = text.strip_prefix(SECRET) {
        return Secrets::installed().named(name, SecretType::Webhook).map(|_| ());
    }
    check_location(text)?;
    let is_address = url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    match (is_address, opens_by_itself(text)) {
        (true, false) => Ok(()),
        (true, true) => Err(Error::invalid(format!(
            "{key} has a query, or a key in its path, which may be a secret and would be kept with the job: give it to the \
             coordinator as a secret of type webhook, and write {key} = '{SECRET}NAME'"
        ))),
        (false, _) => Err(Error::invalid(format!(
            "{key} is no address: write 'https://…', or '{SECRET}NAME' for a secret of the coordinator"
        ))),
    }
}

/// `30s`, `1h 30m`, `90 minutes`.
pub(super) fn duration(key: &str, text: &str) -> Result<u64> {
    let wrong =
        || Error::invalid(format!("{key} is `{text}`: write how long that is as '30s', '90 minutes' or '1h 30m'"));
    let (mut rest, mut sum) = (text.trim(), 0_u64);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start();
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let ms = unit_ms(unit).ok_or_else(wrong)?;
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(ms)).ok_or_else(wrong)?;
        sum = sum.checked_add(part).ok_or_else(wrong)?;
        rest = behind.trim_start();
    }
    Ok(sum)
}

fn unit_ms(unit: &str) -> Option<u64> {
    match unit.to_ascii_lowercase().as_str() {
        "ms" | "millisecond" | "milliseconds" => Some(1),
        "s" | "sec" | "second" | "seconds" => Some(1_000),
        "m" | "min" | "minute" | "minutes" => Some(MINUTE_MS),
        "h" | "hour" | "hours" => Some(60 * MINUTE_MS),
        "d" | "day" | "days" => Some(24 * 60 * MINUTE_MS),
        "w" | "week" | "weeks" => Some(7 * 24 * 60 * MINUTE_MS),
        _ => None,
    }
}

/// `1 day`, `15 minutes`.
pub(super) fn length(text: &str) -> Result<Length> {
    let wrong = || {
        Error::invalid(format!(
            "INTERVAL '{text}' is no length: write a number and minutes, hours, days, weeks, months or years, as in '1 day'"
        ))
    };
    let mut words = text.split_whitespace();
    let (Some(count), Some(unit), None) = (words.next(), words.next(), words.next()) else { return Err(wrong()) };
    let unit = match unit.to_ascii_lowercase().trim_end_matches('s') {
        "minute" | "min" => Unit::Minute,
        "hour" => Unit::Hour,
        "day" => Unit::Day,
        "week" => Unit::Week,
        "month" => Unit::Month,
        "year" => Unit::Year,
        _ => return Err(wrong()),
    };
    let length = Length { count: count.parse().map_err(|_| wrong())?, unit };
    length.validate()?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::parser::parse;
    use crate::jobs::spec::spec_of;
    use crate::jobs::statement::JobStatement;

    fn set(key: &str, value: &str) -> std::result::Result<Options, String> {
        let setting = Setting { key: At::nowhere(key.to_owned()), value: At::nowhere(value.to_owned()) };
        Settings::of(&[setting]).map(|settings| settings.options).map_err(|e| e.message)
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let ms = |text| duration("timeout", text).map_err(|e| e.message);
        assert_eq!((ms("30s"), ms("1h 30m"), ms("90 minutes")), (Ok(30_000), Ok(5_400_000), Ok(5_400_000)));
        assert_eq!((ms("1h30m"), ms("7d")), (Ok(5_400_000), Ok(604_800_000)));
        for wrong in ["", "30", "h", "1 fortnight", "-1s", "1.5h", "99999999999999999999s", "1h,30m"] {
            assert!(ms(wrong).is_err_and(|message| message.contains("timeout is")), "{wrong}");
        }
    }

    #[test]
    fn a_deadline_is_a_time_of_day_or_a_while() {
        assert_eq!(set("deadline", "03:00").map(|o| o.deadline), Ok(Some(Deadline::Clock { minute: 180 })));
        assert_eq!(set("deadline", "90 minutes").map(|o| o.deadline), Ok(Some(Deadline::After { ms: 5_400_000 })));
        assert!(set("deadline", "25:00").is_err_and(|message| message.contains("no clock shows")));
    }

    #[test]
    fn lateness_is_a_while_or_nothing_is_said_of_it() {
        let day = 24 * 60 * MINUTE_MS;
        assert_eq!(set("allowed_lateness", "7d").map(|o| o.allowed_lateness_ms), Ok(Some(7 * day)));
        assert_eq!(set("allowed_lateness", "0s").map(|o| o.allowed_lateness_ms), Ok(Some(0)));
        assert_eq!(set("lookback", "1").map(|o| o.allowed_lateness_ms), Ok(None));
        assert!(
            set("allowed_lateness", "a week").is_err_and(|message| message.contains("allowed_lateness is `a week`"))
        );
        assert!(set("lateness", "7d").is_err_and(|message| message.contains("allowed_lateness")));
    }

    #[test]
    fn an_unknown_setting_is_named_with_the_nearest() {
        assert!(set("retry_backof", "1s").is_err_and(|message| message.contains("did you mean `retry_backoff`?")));
        assert!(set("mode", "upsert").is_err_and(|message| message.contains("replace_interval or append")));
        assert!(set("retries", "many").is_err_and(|message| message.contains("whole number")));
    }

    #[test]
    fn a_webhook_holds_no_secret() {
        let hook = |value: &str| {
            let setting = |key: &str, value: &str| Setting {
                key: At::nowhere(key.to_owned()),
                value: At::nowhere(value.to_owned()),
            };
            check_hooks(&[setting("retries", "3"), setting("on_late", value)]).map_err(|e| e.message)
        };
        assert_eq!(hook("https://10.0.0.1/hook"), Ok(()));
        let wrong = [
            "ftp://host",
            "host",
            "https://u:hunter2@host/",
            "https://host/?key=hunter2",
            "https://hooks.slack.com/services/T0/B0/hunter2hunter2hunter2aaa",
            "secret:pager",
        ];
        for wrong in wrong {
            let message = hook(wrong).err().unwrap_or_default();
            assert!(!message.is_empty() && !message.contains("hunter2"), "{wrong}: {message}");
        }
        // A run does not ask: who leads by then may not have the secret.
        assert_eq!(set("on_late", "secret:pager").map(|o| o.on_late), Ok(Some("secret:pager".to_owned())));
    }

    #[test]
    fn what_would_never_do_anything_is_refused() {
        let check = |clauses: &str| {
            let text = format!("CREATE JOB j INTO s SCHEDULE CRON '@daily' INTERVAL '1 day' {clauses} AS SELECT 1");
            let Some(JobStatement::Create(create)) = parse(&text)? else {
                return Err(Error::internal("no CREATE JOB"));
            };
            check_use(&create.settings, &spec_of(&create, String::new(), None)?)
        };
        for (clauses, expected) in [
            ("WITH (on_late = 'secret:pager')", "set deadline = '03:00'"),
            ("WITH (lookback = 1)", "name its inputs with DEPENDS ON"),
        ] {
            let refused = check(clauses);
            assert!(refused.is_err_and(|e| e.message.contains(expected) && e.place.is_some()), "{clauses}");
        }
        for clauses in [
            "WITH (deadline = '03:00')",
            "WITH (on_late = 'secret:pager', deadline = '90 minutes')",
            "DEPENDS ON c COMPLETE WITH (lookback = 1)",
        ] {
            assert_eq!(check(clauses), Ok(()), "{clauses}");
        }
    }

    #[test]
    fn lengths_are_whole_numbers_of_units() {
        let read = |text| length(text).map(|length| length.to_string()).map_err(|e| e.message);
        assert_eq!((read("1 day"), read("15 Minutes")), (Ok("1 day".to_owned()), Ok("15 minutes".to_owned())));
        for wrong in ["day", "1", "1.5 hours", "-1 day", "1 day 2 hours", "0 days", "11 years", "3 moons"] {
            assert!(read(wrong).is_err_and(|message| message.contains("INTERVAL")), "{wrong}");
        }
    }
}
