//! House rules that no compiler checks: sizes of files and functions, directions of imports, leftovers.
//!
//! A small scanner (`scan`, with tests of its own) blanks comments, strings and characters, so that what is left can be
//! searched as code. Where a rule is broken, split the code or turn the import round; do not loosen the rule.

#![expect(clippy::expect_used, reason = "a test that cannot read the sources should say so and end")]

#[path = "tidy/scan.rs"]
mod scan;

use std::fs;
use std::path::{Path, PathBuf};

use scan::{blanked, code_and_test_lines, crate_roots, functions, module_depth, modules_used, test_module};

/// Lines of a file, not counting an inline test module at its end, which may have as many again.
const FILE_LINES: usize = 400;
/// Lines of a function, from its `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;
/// Where sources are looked for.
const FOLDERS: &[&str] = &["engine", "coordinator", "executor", "sql", "benches", "tests", "examples"];
/// What unfinished or silenced code leaves behind.
const LEFTOVERS: &[&str] = &["#[ignore", "todo!(", "unimplemented!(", "dbg!("];
/// Crates that the pure core must not know, by the beginning of their names.
const IMPURE: &[&str] = &["datafusion", "arrow", "tokio", "tonic", "parquet", "object_store", "prost"];

/// A crate of the workspace and which of ours it may use.
struct Member {
    folder: &'static str,
    name: &'static str,
    may_use: &'static [&'static str],
}

/// Inner folders before outer ones: the first that holds a file owns it.
const MEMBERS: &[Member] = &[
    Member { folder: "engine/core", name: "tidemill_core", may_use: &[] },
    Member { folder: "engine", name: "tidemill_engine", may_use: &["tidemill_core"] },
    Member { folder: "coordinator", name: "tidemill_coordinator", may_use: &["tidemill_core", "tidemill_engine"] },
    Member { folder: "executor", name: "tidemill_executor", may_use: &["tidemill_core", "tidemill_engine"] },
    Member {
        folder: "sql",
        name: "tidemill",
        may_use: &["tidemill_core", "tidemill_engine", "tidemill_coordinator", "tidemill_executor"],
    },
    Member { folder: "benches", name: "tidemill_benches", may_use: ABOVE },
    Member { folder: "tests", name: "tidemill_tests", may_use: ABOVE },
    Member { folder: "examples", name: "tidemill_examples", may_use: ABOVE },
];

/// What the crates above everything may use.
const ABOVE: &[&str] = &["tidemill", "tidemill_core", "tidemill_engine", "tidemill_coordinator", "tidemill_executor"];

/// Modules at the top of a crate, and those of the same crate that are above them.
const LAYERS: &[(&str, &[&str], &[&str])] = &[
    ("engine/src", &["wire"], &["codec", "exchange", "plan"]),
    ("engine/src", &["codec"], &["exchange", "plan"]),
    ("engine/src", &["exchange"], &["plan"]),
    ("engine/core/src", &["id", "error", "settings"], &["graph", "interval", "record", "schedule"]),
    ("engine/core/src", &["interval"], &["graph", "record", "schedule"]),
    ("engine/core/src", &["graph"], &["record", "schedule"]),
    ("engine/core/src", &["record"], &["schedule"]),
];

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        let (code, tests) = code_and_test_lines(&source.code);
        if code > FILE_LINES {
            long.push(format!("{} has {code} lines", source.path));
        }
        if tests > FILE_LINES {
            long.push(format!("{} has {tests} lines in its test module", source.path));
        }
    }
    none(&long, &format!("files of more than {FILE_LINES} lines ask to be split"));
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        let functions = functions(&source.code);
        let functions = functions.iter().filter(|f| f.lines > FUNCTION_LINES);
        long.extend(functions.map(|f| format!("{}:{} `{}` has {} lines", source.path, f.line, f.name, f.lines)));
    }
    none(&long, &format!("functions of more than {FUNCTION_LINES} lines ask to be split"));
}

#[test]
fn crates_use_only_those_below() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(member) = owner(&source.path) else { continue };
        // Its tests and its binaries use a crate by its name.
        let is_binary = ["/src/main.rs", "/src/under_test.rs"].iter().any(|binary| source.path.ends_with(binary));
        let is_library = source.path.contains("/src/") && !is_binary;
        for (line, root) in crate_roots(&source.code) {
            let itself = root == member.name && !is_library;
            if is_ours(root) && !itself && !member.may_use.contains(&root) {
                wrong.push(format!("{}:{line} uses {root}", source.path));
            }
        }
    }
    none(&wrong, "imports against the direction core < engine < coordinator, executor < sql < tests, benches");
}

#[test]
fn manifests_name_only_crates_below() {
    let mut wrong = Vec::new();
    for (path, manifest) in files("Cargo.toml") {
        let Some(member) = owner(&path).filter(|m| path == format!("{}/Cargo.toml", m.folder)) else {
            wrong.push(format!("{path} is of a crate that tests/tests/tidy.rs does not know: add it to MEMBERS"));
            continue;
        };
        for name in dependencies(&manifest) {
            if is_ours(&name) && !member.may_use.contains(&name.as_str()) {
                wrong.push(format!("{path} depends on {name}"));
            }
        }
    }
    none(&wrong, "dependencies against the direction core < engine < coordinator, executor < sql < tests, benches");
}

#[test]
fn the_core_is_pure() {
    let impure = |name: &str| IMPURE.iter().any(|i| name.starts_with(i));
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| s.path.starts_with("engine/core/")) {
        let roots = crate_roots(&source.code).into_iter().filter(|(_, root)| impure(root));
        wrong.extend(roots.map(|(line, root)| format!("{}:{line} uses {root}", source.path)));
    }
    for (path, manifest) in files("Cargo.toml").iter().filter(|(path, _)| path.starts_with("engine/core/")) {
        let names = dependencies(manifest).into_iter().filter(|name| impure(name));
        wrong.extend(names.map(|name| format!("{path} depends on {name}")));
    }
    none(&wrong, "the core decides without doing: no data, no network, no runtime");
}

#[test]
fn modules_use_only_layers_below() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (root, modules, above) in LAYERS {
            let Some(inside) = source.path.strip_prefix(&format!("{root}/")) else { continue };
            let module = inside.trim_end_matches(".rs").split('/').next().unwrap_or_default();
            if !modules.contains(&module) {
                continue;
            }
            let code = source.code.split_at(test_module(&source.code).unwrap_or(source.code.len())).0;
            let used = modules_used(code, module_depth(inside)).into_iter().filter(|(_, used)| above.contains(used));
            wrong.extend(
                used.map(|(line, used)| format!("{}:{line} uses {used}, which is above {module}", source.path)),
            );
        }
    }
    none(&wrong, "imports against the layers of docs/architecture.md");
}

#[test]
fn nothing_is_left_unfinished() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.code.lines()) {
            let left = LEFTOVERS.iter().filter(|l| line.contains(**l));
            found.extend(left.map(|l| format!("{}:{number} has {l}", source.path)));
        }
    }
    none(&found, "unfinished or silenced code");
}

#[test]
fn crates_say_what_they_are_for() {
    let libraries = MEMBERS.iter().map(|m| format!("{}/src/lib.rs", m.folder));
    let silent = libraries.filter(|path| {
        let text = fs::read_to_string(workspace().join(path));
        text.is_ok_and(|text| !text.starts_with("//!"))
    });
    none(&silent.collect::<Vec<_>>(), "a library that does not begin with `//!`");
}

fn none(offenders: &[String], what: &str) {
    assert!(offenders.is_empty(), "{what}:\n  {}\n", offenders.join("\n  "));
}

// What is checked: files of the workspace.

/// A source file.
struct Source {
    /// Relative to the workspace, with `/`.
    path: String,
    /// The text without the content of comments, strings and characters; lines are where they were.
    code: String,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the workspace").to_owned()
}

fn sources() -> Vec<Source> {
    let found: Vec<Source> =
        files(".rs").into_iter().map(|(path, text)| Source { path, code: blanked(&text) }).collect();
    assert!(found.iter().any(|s| s.path == "engine/core/src/lib.rs"), "the sources are not where tidy looks for them");
    found
}

/// Paths and contents of the files whose names end with `ending`.
fn files(ending: &str) -> Vec<(String, String)> {
    let root = workspace();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|f| root.join(f)).filter(|f| f.is_dir()).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder can be read") {
            let entry = entry.expect("a folder can be read");
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.is_file() && name.ends_with(ending) {
                let relative =
                    path.strip_prefix(&root).expect("it is below the root").to_string_lossy().replace('\\', "/");
                found.push((relative, fs::read_to_string(&path).expect("a source is text")));
            }
        }
    }
    found.sort();
    found
}

fn owner(path: &str) -> Option<&'static Member> {
    MEMBERS.iter().find(|m| path.strip_prefix(m.folder).is_some_and(|rest| rest.starts_with('/')))
}

fn is_ours(name: &str) -> bool {
    name == "tidemill" || name.starts_with("tidemill_")
}

/// The crates that a manifest depends on, with `_` for `-`.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            inside = section.ends_with("dependencies");
            found.extend(section.split_once("dependencies.").map(|(_, name)| name.to_owned()));
        } else if let Some((key, _)) = line.split_once('=').filter(|_| inside) {
            found.extend(key.split('.').next().map(|name| name.trim().trim_matches('"').to_owned()));
        }
        let renamed = line.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next());
        found.extend(renamed.filter(|_| inside).map(str::to_owned));
    }
    found.into_iter().map(|name| name.replace('-', "_")).collect()
}
