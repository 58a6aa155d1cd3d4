//! The stage planner's rules, each switched off by one change of the sources: the test named after a rule must then fail.
//! `cargo run -p tidemill-tests -- mutants` applies each to a copy of the sources and looks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One rule switched off.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// The start of the test's name, and so the rule's number.
    pub test: &'static str,
    /// The file, from the root of the repository.
    pub file: &'static str,
    /// What stands there exactly once.
    pub from: &'static str,
    /// What is put in its place.
    pub to: &'static str,
}

const fn mutant(test: &'static str, file: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant { test, file, from, to }
}

/// Every rule has one; rule 12 one for each of its halves.
pub const MUTANTS: [Mutant; 21] = [
    mutant(
        "rule_01",
        "engine/src/runtime.rs",
        "pub fn force_safe_options(options: &mut ConfigOptions) {\n",
        "pub fn force_safe_options(options: &mut ConfigOptions) {\n    if true { return; }\n",
    ),
    mutant("rule_02", "sql/src/session/ddl.rs", "if command.unbounded {", "if false {"),
    mutant("rule_03", "engine/src/plan/inline.rs", "    bounded && (", "    bounded && false && ("),
    mutant(
        "rule_04",
        "executor/src/task/inputs.rs",
        "    if rows > 1 {\n        let message",
        "    if false {\n        let message",
    ),
    mutant("rule_05", "engine/src/plan/joins.rs", "JoinType::Full => false,", "JoinType::Full => true,"),
    mutant(
        "rule_06",
        "engine/src/plan/exchanges.rs",
        "if let Some(repartition) = node.downcast_ref::<RepartitionExec>() {",
        "if let Some(repartition) = node.downcast_ref::<RepartitionExec>().filter(|_| false) {",
    ),
    mutant(
        "rule_07",
        "engine/src/plan/exchanges.rs",
        "with_children(node, vec![exchange])",
        "{ let _ = node; Ok(Arc::new(CoalescePartitionsExec::new(exchange))) }",
    ),
    mutant("rule_08", "engine/src/plan/exchanges.rs", "Transfer::SortedGather", "Transfer::Gather"),
    mutant("rule_09", "engine/src/plan/verify.rs", "if partition_count(left) == partition_count(right) {", "if true {"),
    mutant(
        "rule_10",
        "engine/src/plan/joins.rs",
        "Arc::new(ExchangeExec::new(uncoalesced(build), Transfer::Broadcast))",
        "Arc::clone(build)",
    ),
    mutant(
        "rule_11",
        "engine/src/plan/needs.rs",
        "true => partition - r.stage.start..partition - r.stage.start + 1,",
        "true => partition..partition + 1,",
    ),
    mutant(
        "rule_12_no",
        "engine/src/runtime.rs",
        "    options.optimizer.enable_dynamic_filter_pushdown = false;\n    \
         options.optimizer.enable_join_dynamic_filter_pushdown = false;\n    \
         options.optimizer.enable_topk_dynamic_filter_pushdown = false;\n    \
         options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;\n",
        "",
    ),
    mutant("rule_12_filters", "engine/src/plan/narrow.rs", "    allow_filters_in_task(options);\n", ""),
    mutant(
        "rule_13",
        "engine/src/plan/mod.rs",
        "    if plan.is::<RecursiveQueryExec>() {",
        "    if plan.is::<RecursiveQueryExec>() && false {",
    ),
    mutant(
        "rule_14",
        "engine/src/plan/sink.rs",
        "part-{task:05}-{run}-{attempt}.{extension}",
        "part-{run}.{extension}",
    ),
    mutant(
        "rule_15",
        "engine/src/codec/converter.rs",
        "window::encode(plan, codec, self)? {",
        "window::encode(plan, codec, self)?.filter(|_| false) {",
    ),
    mutant("rule_16", "engine/src/plan/verify.rs", "if u32::try_from(largest).is_ok() {", "if largest < usize::MAX {"),
    mutant(
        "rule_17",
        "executor/src/task/mod.rs",
        "let decoded = stage_codec().decode(&stage.plan, values, &bare)?;",
        "static SHARED: std::sync::Mutex<Vec<(Vec<u8>, Arc<dyn ExecutionPlan>)>> = std::sync::Mutex::new(Vec::new());
    let decoded = stage_codec().decode(&stage.plan, values, &bare)?;
    let decoded = {
        let mut shared = SHARED.lock().unwrap();
        match shared.iter().find(|(bytes, _)| *bytes == stage.plan) {
            Some((_, plan)) => Arc::clone(plan),
            None => {
                shared.push((stage.plan.clone(), Arc::clone(&decoded)));
                decoded
            }
        }
    };",
    ),
    mutant("rule_18", "engine/src/exchange/marker.rs", "            equivalence.clear_orderings();\n", ""),
    mutant(
        "rule_19",
        "engine/src/exchange/writer.rs",
        "BatchCoalescer::new(input.schema(), rows)",
        "BatchCoalescer::new(input.schema(), rows).with_biggest_coalesce_batch_size(Some(0))",
    ),
    mutant("rule_20", "engine/src/plan/determinism.rs", "is_volatile(expr) {", "is_volatile(expr) && false {"),
];

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).unwrap_or(Path::new(".")).to_owned()
}

/// Applies every mutant, or those of the tests named, to a copy of the sources, one after the other, and runs its test. Whether
/// all were found out.
///
/// # Errors
/// The sources cannot be copied.
pub fn run(only: &[String], cargo: impl Fn() -> Command) -> std::io::Result<bool> {
    let copy = tempfile::tempdir()?;
    let copied = Command::new("cp").arg("-r").arg(root().join(".")).arg(copy.path()).status()?;
    if !copied.success() {
        return Err(std::io::Error::other("the sources cannot be copied"));
    }
    let mut all_found = true;
    for mutant in MUTANTS.into_iter().filter(|m| only.is_empty() || only.iter().any(|test| test == m.test)) {
        let file = copy.path().join(mutant.file);
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, text.replacen(mutant.from, mutant.to, 1))?;
        let mut built = cargo();
        built.current_dir(copy.path()).args(["test", "--workspace", "--lib", "--test", "it", "--no-run", "--quiet"]);
        let builds = built.stderr(Stdio::null()).status()?.success();
        let mut test = cargo();
        test.current_dir(copy.path()).args(["test", "--workspace", "--lib", "--test", "it", "--quiet", mutant.test]);
        let passes = test.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success();
        let verdict = match (builds, passes) {
            (false, _) => "does not build",
            (true, true) => "was not noticed",
            (true, false) => "fails its test, as it must",
        };
        all_found &= builds && !passes;
        println!("{}: {} without `{}` {verdict}", mutant.test, mutant.file, mutant.from.trim());
        std::fs::write(&file, text)?;
    }
    // Both trees share what cargo builds, and it goes by times: the next build here must not take a mutant for current.
    for mutant in MUTANTS {
        std::fs::File::open(root().join(mutant.file))?.set_modified(std::time::SystemTime::now())?;
    }
    Ok(all_found)
}
