//! The benchmark of the front door on a small scale: its clusters start, every side gives the same rows, nobody is told an
//! error, and the report says so. What the numbers are is not looked at.

mod bench;

#[test]
fn a_small_crowd_is_answered_without_an_error() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").display().to_string();
    let size = ["--front-door", "--scale", "0.01", "--seconds", "1", "--clients", "8", "--rows", "10000"];
    let args = [size.as_slice(), &["--questions", "10", "--data", &data]].concat();
    let text = bench::report(&args, folder.path())?;
    for part in ["## One client", "in-process DataFusion", "## 8 clients for 1 s", "## The coordinator's memory"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    // Question, answers, per second, errors.
    let crowd: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() == 12 && matches!(cells[2], "`SELECT 1`" | "point query"))
        .collect();
    assert_eq!(crowd.len(), 4, "{text}");
    for row in crowd {
        assert!(row[3].parse::<u64>().is_ok_and(|answers| answers >= 8), "{row:?}: not everybody was answered");
        assert_eq!(row[5], "0", "{row:?}");
    }
    assert!(!text.contains("| 0 MiB |"), "the coordinator's memory is not known:\n{text}");
    Ok(())
}
