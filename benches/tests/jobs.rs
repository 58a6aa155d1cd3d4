//! The benchmark of jobs on a small scale: each interval is published, by the job that was asked and by the one that follows, with
//! DataFusion's rows, and the report has every part. What the numbers are is not looked at, but that they are numbers.

mod bench;

#[test]
fn a_few_intervals_are_published_and_measured() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let text = bench::report(&["--jobs", "--intervals", "3", "--interval-rows", "100"], folder.path())?;
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let row = |name: &str| rows.iter().find(|cells| cells.get(1) == Some(&name)).map(|cells| &cells[2..]);
    let millis = |cell: &str| cell.strip_suffix(" ms").and_then(|number| number.parse::<f64>().ok());
    for name in ["a job with checks", "the job without checks", "`COPY` on the cluster", "`SELECT` on the cluster"] {
        let times = row(name).map(|cells| (millis(cells[0]), millis(cells[1])));
        assert!(times.is_some_and(|(half, most)| half > Some(0.0) && most >= half), "{name}: {times:?} in\n{text}");
    }
    // A run has no time that is in none of its parts.
    let parts = ["planned, until the first task begins", "tasks", "until the run has ended"];
    let counted = "rows counted, checked and committed, until the version is there";
    let sum = parts.iter().chain([&counted]).filter_map(|name| millis(row(name)?[0])).sum::<f64>();
    let run = row("**the run**").and_then(|cells| millis(cells[0]));
    assert!(run.is_some_and(|run| run > 0.0 && (run - sum).abs() < 0.5), "{run:?} and {sum} in\n{text}");
    for part in ["## `TRIGGER ON UPDATE OF`", "## The coordinator's memory", "Checks, commit and accounting are"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains("| 0 MiB |"), "the coordinator's memory is not known:\n{text}");
    Ok(())
}
