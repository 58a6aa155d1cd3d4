//! Which partitions of a scan each task of its stage needs.
//!
//! ```text
//! Union (5)          task 0 → a 0      task 2 → b 0
//!   scan a (2)       task 1 → a 1      task 3 → b 1
//!   scan b (3)                         task 4 → b 2
//! ```
//!
//! Rule 11. Where partitions come together inside a task (below a recursion, in a stage whose one task runs all) it
//! needs all of them.

use std::ops::Range;
use std::sync::Arc;

use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// The partitions of the stage that read a node.
#[derive(Debug, Clone)]
struct Readers {
    /// These partitions of the stage.
    stage: Range<usize>,
    /// Whether the first of them reads the node's first partition, and so on; otherwise each reads all.
    aligned: bool,
}

/// The partitions of `scan` that partition `partition` of the stage needs.
#[derive(Debug, Default)]
pub(super) struct Needs(Vec<(usize, Vec<Readers>)>);

impl Needs {
    /// Finds all scans below `plan`, the root of a stage; `whole` if one task runs all its partitions.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>, whole: bool) -> Self {
        let mut needs = Self::default();
        needs.visit(plan, &Readers { stage: 0..count(plan), aligned: !whole });
        needs
    }

    /// The partitions of the scan `node` that partition `partition` of the stage reads.
    pub(super) fn partitions(&self, node: &Arc<dyn ExecutionPlan>, partition: usize) -> Vec<Range<usize>> {
        let readers = self.0.iter().filter(|(address, _)| *address == self::address(node)).flat_map(|(_, r)| r);
        let readers = readers.filter(|r| r.stage.contains(&partition) || !r.aligned);
        readers
            .map(|r| match r.aligned {
                true => partition - r.stage.start..partition - r.stage.start + 1,
                false => 0..usize::MAX,
            })
            .collect()
    }

    fn visit(&mut self, node: &Arc<dyn ExecutionPlan>, readers: &Readers) {
        let children = node.children();
        if children.is_empty() {
            // The same node may be read in several places.
            let address = address(node);
            match self.0.iter_mut().find(|(a, _)| *a == address) {
                Some((_, known)) => known.push(readers.clone()),
                None => self.0.push((address, vec![readers.clone()])),
            }
            return;
        }
        if node.is::<UnionExec>() && readers.aligned {
            let mut start = readers.stage.start;
            for child in children {
                let end = start + count(child);
                self.visit(child, &Readers { stage: start..end, aligned: true });
                start = end;
            }
            return;
        }
        for child in children {
            let aligned = readers.aligned && count(child) == count(node) && !node.is::<RepartitionExec>();
            self.visit(child, &Readers { stage: readers.stage.clone(), aligned });
        }
    }
}

fn address(node: &Arc<dyn ExecutionPlan>) -> usize {
    Arc::as_ptr(node).cast::<()>() as usize
}

fn count(node: &Arc<dyn ExecutionPlan>) -> usize {
    node.output_partitioning().partition_count()
}
