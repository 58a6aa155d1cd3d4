//! What executors wrote of their attempts, recounted.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tasks of which an attempt began although another had ended well before `known`.
///
/// # Panics
/// A journal is damaged.
#[must_use]
pub fn repeated_after_success(journals: &[Vec<String>], known: SystemTime) -> BTreeSet<String> {
    let known = known.duration_since(UNIX_EPOCH).expect("a time").as_millis();
    let mut events: Vec<(u64, bool, String)> = Vec::new();
    for line in journals.iter().flatten() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [at, what, run, task, _attempt] = fields[..] else { panic!("a journal says {line:?}") };
        if what == "failed" {
            continue;
        }
        events.push((at.parse().expect("a time"), what == "succeeded", format!("{run} {task}")));
    }
    events.sort();
    let mut done = BTreeSet::new();
    let mut repeated = BTreeSet::new();
    for (at, succeeded, task) in events {
        if succeeded && u128::from(at) < known {
            done.insert(task);
        } else if !succeeded && done.contains(&task) {
            repeated.insert(task);
        }
    }
    repeated
}

/// Tasks of a run of which an attempt began after `when`.
///
/// # Panics
/// A journal is damaged.
#[must_use]
pub fn started_after(journals: &[Vec<String>], run: &str, when: SystemTime) -> BTreeSet<String> {
    let when = when.duration_since(UNIX_EPOCH).expect("a time").as_millis();
    let lines = journals.iter().flatten().map(|line| line.split(' ').collect::<Vec<_>>());
    let later = lines.filter(|f| f[1] == "started" && f[2] == run && f[0].parse::<u128>().expect("a time") > when);
    later.map(|fields| fields[3].to_owned()).collect()
}
