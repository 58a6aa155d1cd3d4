//! What can happen, and what is said.

use tidemill_core::graph::StageGraph;
use tidemill_core::schedule::{Event, Launch, LostOutput};
use tidemill_core::{Attempt, Error, ExecutorId, RunId};

use crate::content::Named;
use crate::log::Batch;

/// Something that is going to happen.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "most that happens are these")]
pub(crate) enum Happening {
    Submit(RunId),
    Cancel(RunId),
    /// A message reaches the coordinator, perhaps over an executor's stream.
    ToCoordinator {
        stream: Option<(ExecutorId, u64)>,
        event: Event,
    },
    /// The coordinator notices that a stream is closed.
    StreamClosed {
        executor: ExecutorId,
        stream: u64,
    },
    ToExecutor {
        executor: ExecutorId,
        stream: u64,
        message: Message,
    },
    AttemptEnds {
        executor: ExecutorId,
        attempt: Attempt,
    },
    /// An executor process starts.
    Join {
        slots: u32,
    },
    /// An executor opens a stream.
    Connect(ExecutorId),
    ReadResult(RunId),
    Fault,
    /// An executor wrote a pack.
    PackWritten {
        executor: ExecutorId,
        run: RunId,
        output: LostOutput,
    },
    /// Records are sent to the store, unless their leader is gone.
    Flush {
        epoch: u64,
    },
    /// A batch reaches the store, which may not take it, and may not say what it did.
    Put {
        batch: Batch,
        lands: bool,
        lies: bool,
    },
    /// The leader looks what became of its batch.
    LookedBack {
        writer: u64,
    },
    /// The leader renews its lease.
    Renew {
        epoch: u64,
    },
    /// An executor says that it lives.
    Beat(ExecutorId),
    /// The coordinator hears that, and of which attempts.
    Heartbeat {
        executor: ExecutorId,
        stream: u64,
        attempts: Vec<Attempt>,
    },
    LeaderStarts,
    Publish(RunId),
    /// No faults from now on.
    Calm,
    Tick,
}

/// Where an output is, as a reader is told.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) named: Named,
    pub(crate) holder: ExecutorId,
    pub(crate) durable: bool,
}

/// What the coordinator tells an executor.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Launch { launch: Launch, inputs: Vec<Place> },
    Stop(Attempt),
    Release(RunId),
    Acknowledge(Attempt),
}

/// What the planner is going to answer.
#[derive(Debug, Clone)]
pub(crate) enum Plan {
    Stages(Result<StageGraph, Error>),
    /// Stages whose result is published once.
    Sink(StageGraph),
    /// A statement without stages.
    Answer,
    /// One that changes the catalogue.
    Change,
    /// One that asks something of jobs.
    Command,
}

impl Plan {
    pub(crate) const fn has_effects(&self) -> bool {
        matches!(self, Self::Sink(_))
    }

    pub(crate) const fn may_change(&self) -> bool {
        matches!(self, Self::Sink(_) | Self::Change | Self::Command)
    }

    /// The stages, if it has any.
    pub(crate) const fn graph(&self) -> Option<&StageGraph> {
        match self {
            Self::Stages(Ok(graph)) | Self::Sink(graph) => Some(graph),
            Self::Stages(Err(_)) | Self::Answer | Self::Change | Self::Command => None,
        }
    }
}
