//! Runs every example, so that none rots. Each must end well, say what it promises, and do so in time.

#![expect(clippy::expect_used, reason = "tests")]

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long an example may take, on a slow machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(180);

/// What an example printed.
fn printed(binary: &str) -> String {
    let mut child = Command::new(binary).stdout(Stdio::piped()).spawn().expect("the example starts");
    let mut out = child.stdout.take().expect("its output");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("its state") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = reading.join().expect("no panic").expect("text");
    assert!(status.success(), "{binary} ended with {status} after {:?}:\n{text}", start.elapsed());
    text
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
}

#[test]
fn dataframe() {
    let text = printed(env!("CARGO_BIN_EXE_dataframe"));
    says(&text, &["500000 sales", "turnover", "Plan with Metrics", "reads stage", "DataFrame: CopyTo"]);
}

#[test]
fn connect() {
    says(&printed(env!("CARGO_BIN_EXE_connect")), &["started a server at http://", "south", "alive"]);
}

#[test]
fn udf() {
    let text = printed(env!("CARGO_BIN_EXE_udf"));
    says(&text, &["two executors", "spread", "68.0", "does not know the function `kelvin`"]);
}

#[test]
fn steps() {
    let text = printed(env!("CARGO_BIN_EXE_steps"));
    says(&text, &["day,events,customers,amount", "2026-11-07,", "once more: ", "_SUCCESS"]);
}

#[test]
fn pipeline() {
    let text = printed(env!("CARGO_BIN_EXE_pipeline"));
    says(&text, &["48 hours with 500 clicks each", "| 2026-03-02 | ########################", "update of ad_hours"]);
    // The input is the same each time, and so are the days' clicks.
    says(&text, &["| 11516  |", "| 11599  |"]);
}
