//! Blocks of an executor that is made after the coordinator that reads them, in the same process.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use tidemill_core::record::LostOutput;
use tidemill_core::{Error, ExecutorId, RunId};
use tidemill_engine::error::TaskError;
use tidemill_engine::exchange::{BlockRequest, BlockStream, IoMetrics, LocalBlocks, OutputFooter};

/// Until they are there, they are nobody's.
#[derive(Debug)]
pub struct LateBlocks {
    blocks: OnceLock<Arc<dyn LocalBlocks>>,
    nobody: ExecutorId,
}

impl Default for LateBlocks {
    fn default() -> Self {
        Self { blocks: OnceLock::new(), nobody: ExecutorId(String::new()) }
    }
}

impl LateBlocks {
    /// The executor is there. Others after it are not heard.
    pub fn set(&self, blocks: Arc<dyn LocalBlocks>) {
        let _ = self.blocks.set(blocks);
    }

    fn missing() -> TaskError {
        Error::internal("an executor's blocks were read before it was made").into()
    }
}

impl LocalBlocks for LateBlocks {
    fn executor(&self) -> &ExecutorId {
        self.blocks.get().map_or(&self.nobody, |blocks| blocks.executor())
    }

    fn footer(&self, run: &RunId, output: LostOutput) -> Result<Arc<OutputFooter>, TaskError> {
        self.blocks.get().ok_or_else(Self::missing)?.footer(run, output)
    }

    fn frames(&self, run: &RunId, block: &BlockRequest, schema: SchemaRef, metrics: Arc<IoMetrics>) -> BlockStream {
        match self.blocks.get() {
            Some(blocks) => blocks.frames(run, block, schema, metrics),
            None => futures::stream::iter([Err(Self::missing())]).boxed(),
        }
    }
}
