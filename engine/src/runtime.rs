//! Sessions: the settings that make DataFusion's plans safe to cut, on coordinator and executors alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::prelude::SessionConfig;
use object_store::ObjectStore;
use tidemill_core::Error;
use url::Url;

/// Build sides of joins up to this size go to every task. DataFusion's own limit of 1 MiB suits one process, where the
/// other side moves for nothing; here it would be written, sent and read.
const BROADCAST_BYTES: u64 = 10 << 20;
/// The same, where only rows are known.
const BROADCAST_ROWS: u64 = 1 << 20;
/// The part of a task's memory that such a side may take, before its hash table.
const BROADCAST_PART: u64 = 16;

/// Files smaller than this are not divided among tasks.
const SPLIT_FILE_BYTES: usize = 32 << 20;

/// Forces what the stage planner's rule 1 demands. Applied when planning and again when executing, because DataFusion
/// reads some of these only in `execute`.
pub fn force_safe_options(options: &mut ConfigOptions) {
    // All partitions of a scan would share one queue of files: every task would read all of them.
    options.execution.enable_file_stream_work_stealing = false;
    options.optimizer.enable_round_robin_repartition = false;
    options.optimizer.prefer_existing_sort = false;
    options.optimizer.preserve_file_partitions = 0;
    // A filter waits for all partitions of its join, which are other tasks.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.optimizer.enable_window_topn = false;
    options.optimizer.enable_piecewise_merge_join = false;
    // `false` silently gives wrong rows for subqueries of several rows.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = true;
}

/// Lets operators make filters while they run: safe in a task that executes every partition of its plan, and only there.
pub fn allow_filters_in_task(options: &mut ConfigOptions) {
    options.optimizer.enable_dynamic_filter_pushdown = true;
    options.optimizer.enable_join_dynamic_filter_pushdown = true;
    options.optimizer.enable_topk_dynamic_filter_pushdown = true;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = true;
}

/// The configuration that plans a run over `partitions` partitions, for tasks of `task_memory` bytes, with a client's
/// settings on top.
///
/// # Errors
/// A setting is unknown or its value is wrong.
pub fn planning_config(
    partitions: usize,
    task_memory: Option<u64>,
    settings: &BTreeMap<String, String>,
) -> Result<SessionConfig> {
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_target_partitions(partitions)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA);
    let options = config.options_mut();
    options.optimizer.repartition_file_min_size = SPLIT_FILE_BYTES;
    let bytes = task_memory.map_or(BROADCAST_BYTES, |bytes| BROADCAST_BYTES.min(bytes / BROADCAST_PART));
    options.optimizer.hash_join_single_partition_threshold = usize::try_from(bytes).unwrap_or(usize::MAX);
    let rows = BROADCAST_ROWS * bytes / BROADCAST_BYTES;
    options.optimizer.hash_join_single_partition_threshold_rows = usize::try_from(rows).unwrap_or(usize::MAX);
    for (key, value) in settings.iter().filter(|(key, _)| !key.starts_with("tidemill.")) {
        options.set(key, value)?;
    }
    force_safe_options(options);
    Ok(config)
}

/// The catalogue's name in SQL.
pub const CATALOG: &str = "tidemill";
/// The schema that unqualified names belong to.
pub const SCHEMA: &str = tidemill_core::record::DEFAULT_SCHEMA;

/// The schema of the tables about the cluster itself.
pub const SYSTEM_SCHEMA: &str = "system";

/// The settings of `config` that differ from DataFusion's defaults: what executors must be told.
#[must_use]
pub fn config_entries(config: &ConfigOptions) -> BTreeMap<String, String> {
    let defaults: BTreeMap<String, Option<String>> =
        ConfigOptions::default().entries().into_iter().map(|e| (e.key, e.value)).collect();
    let differs = |e: &datafusion::common::config::ConfigEntry| defaults.get(&e.key) != Some(&e.value);
    config.entries().into_iter().filter(differs).filter_map(|e| Some((e.key, e.value?))).collect()
}

/// The configuration of a task, from what [`config_entries`] told.
///
/// # Errors
/// An entry is unknown: the coordinator is of another build.
pub fn task_config(entries: &BTreeMap<String, String>) -> Result<SessionConfig> {
    let mut config = SessionConfig::new();
    for (key, value) in entries.iter().filter(|(key, _)| !key.starts_with("datafusion.runtime.")) {
        config.options_mut().set(key, value)?;
    }
    force_safe_options(config.options_mut());
    Ok(config)
}

/// The object store of a bucket, opened with what this process was given (`crate::stores`): credentials never travel.
///
/// # Errors
/// The scheme is not served, or the process was not given what the store needs.
pub fn object_store(url: &Url) -> tidemill_core::Result<Option<Arc<dyn ObjectStore>>> {
    crate::stores::open(url)
}

/// Makes the stores of `urls` known to `env`.
///
/// # Errors
/// See [`object_store()`].
pub fn register_stores<'a>(
    env: &datafusion::execution::runtime_env::RuntimeEnv,
    urls: impl IntoIterator<Item = &'a Url>,
) -> tidemill_core::Result<()> {
    for url in urls {
        if env
            .object_store(
                datafusion::execution::object_store::ObjectStoreUrl::parse(root(url))
                    .map_err(|e| Error::invalid(format!("{url} is not a location: {e}")))?,
            )
            .is_err()
            && let Some(store) = object_store(url)?
        {
            env.register_object_store(url, store);
        }
    }
    Ok(())
}

fn root(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_opened_by_their_scheme() -> std::result::Result<(), url::ParseError> {
        let opened = |url: &str| Ok::<_, url::ParseError>(object_store(&Url::parse(url)?));
        assert!(opened("file:///x")?.is_ok_and(|store| store.is_none()));
        assert!(opened("gs://bucket/x")?.is_ok_and(|store| store.is_some()));
        let refused = opened("hdfs://host/x")?.err().map(|e| e.message).unwrap_or_default();
        assert!(refused.contains("hdfs:// is not served"), "{refused}");
        // Needs to be told whose container it is.
        if let Err(error) = opened("az://container/x")? {
            assert!(error.message.contains("AZURE_*"), "{error}");
        }
        Ok(())
    }
}
