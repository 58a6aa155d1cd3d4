//! Which versions a plan reads, for the record of its run and for the commit that it makes.

use std::collections::BTreeSet;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use tidemill_core::Result;
use tidemill_core::record::InputVersion;

use super::statement::planned;
use super::table::DatasetTable;

/// The versions of datasets that a plan reads, through views and subqueries too, by name. A table that it only writes into is
/// none of them.
pub(crate) fn input_versions(plan: &LogicalPlan) -> Result<Vec<InputVersion>> {
    let mut found = BTreeSet::new();
    planned(find(plan, &mut found))?;
    Ok(found.into_iter().collect())
}

fn find(plan: &LogicalPlan, found: &mut BTreeSet<InputVersion>) -> datafusion::error::Result<()> {
    let looked = plan.apply_with_subqueries(|node| {
        // A source that is no table of a catalogue is no dataset either.
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(table) = source_as_provider(&scan.source)
        {
            if let Some(dataset) = table.downcast_ref::<DatasetTable>() {
                found.insert(dataset.input());
            } else if let Some(view) = table.get_logical_plan() {
                // In a client's own plan a view stands as it is.
                find(&view, found)?;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    looked.map(|_| ())
}
