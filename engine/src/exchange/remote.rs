//! Blocks of other processes, over Arrow Flight: one `DoGet` per holder, many blocks on it.
//!
//! Back-pressure is HTTP/2's: a stream holds at most its window ([`STREAM_WINDOW`], [`RESULT_WINDOW`]) plus one frame.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use futures::StreamExt;
use prost::Message as _;
use tidemill_core::schedule::LostOutput;
use tidemill_core::{Error, ErrorKind, Result, RunId};
use tonic::Streaming;

use super::frame::{Frame, Message};
use super::merged::{check_footer, lost};
use super::resume::Unfinished;
use super::{BlockRequest, BlockStream, Holder, IoMetrics, OutputFooter, PondSlot};
use crate::error::TaskError;
use crate::peers::{PeerChannel, Peers};
use crate::wire::{self, MAX_MESSAGE_BYTES, frame_header::Kind, statuses};

/// Bytes in flight on one block stream.
const STREAM_WINDOW: u32 = 4 << 20;
/// Bytes in flight on one connection.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// The same where results wait for clients that may not read them for hours. What waits on one stream takes room on its
/// connection: there must be enough of it for all streams that a peer serves at once.
const RESULT_WINDOW: u32 = 1 << 20;
const RESULTS_WINDOW: u32 = 1 << 30;
/// How long a peer may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a connection in use is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(8);
/// How long a peer may take to send the next message of a stream.
const NEXT_MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads blocks from other executors' Flight services. Connections are kept and shared.
#[derive(Debug)]
pub struct FlightBlocks {
    /// Where connections are driven: never among the tasks.
    io: tokio::runtime::Handle,
    /// Bytes in flight, on a stream and on a connection.
    windows: (u32, u32),
    /// How others are spoken to; it signs tickets.
    peers: Peers,
    channels: Mutex<BTreeMap<String, PeerChannel>>,
    /// Footers that were checked, so that each travels once to this process and not once per block.
    footers: Mutex<HashMap<(RunId, LostOutput), Arc<OutputFooter>>>,
    /// Where blocks are read whose holder is gone.
    pond: PondSlot,
}

/// Footers kept; beyond this all are fetched again.
const FOOTERS_KEPT: usize = 100_000;

impl FlightBlocks {
    /// No connection yet; they will be driven by `io`.
    #[must_use]
    pub fn new(io: tokio::runtime::Handle, pond: PondSlot, peers: Peers) -> Self {
        let windows = (STREAM_WINDOW, CONNECTION_WINDOW);
        Self { io, windows, peers, channels: Mutex::default(), footers: Mutex::default(), pond }
    }

    /// The same for results: a client that does not read its own keeps no other from being read.
    #[must_use]
    pub fn of_results(io: tokio::runtime::Handle, pond: PondSlot, peers: Peers) -> Self {
        Self { windows: (RESULT_WINDOW, RESULTS_WINDOW), ..Self::new(io, pond, peers) }
    }

    /// Reads `blocks`, all of them held by `holder`.
    #[must_use]
    pub fn read(
        self: &Arc<Self>,
        run: &RunId,
        holder: &Holder,
        blocks: Vec<BlockRequest>,
        schema: SchemaRef,
        metrics: Arc<IoMetrics>,
    ) -> BlockStream {
        let pool = Arc::clone(self);
        let (run, holder) = (run.clone(), holder.clone());
        let opened = async move {
            let expected: Vec<Option<u64>> = blocks.iter().map(|b| pool.expected_rows(&run, b)).collect();
            let opened = pool.open(&run, &holder, &blocks, &expected).await;
            match opened {
                Ok(messages) => Reading::new(messages, pool, run, blocks, expected, schema, metrics).into_stream(),
                Err(error) => {
                    pool.forget(&holder.endpoint);
                    let left = blocks.iter().cloned().map(Unfinished::new).collect();
                    pool.pond.go_on(&run, left, unreadable(&blocks, &error), schema, metrics)
                }
            }
        };
        futures::stream::once(opened).flatten().boxed()
    }

    async fn open(
        &self,
        run: &RunId,
        holder: &Holder,
        blocks: &[BlockRequest],
        expected: &[Option<u64>],
    ) -> Result<Streaming<FlightData>> {
        if holder.endpoint.is_empty() {
            return Err(Error::unavailable(format!("executor {} is gone", holder.executor)));
        }
        let channel = self.channel(&holder.endpoint)?;
        let mut client = FlightServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let ticket = wire::BlockTicket {
            executor: holder.executor.0.clone(),
            run: run.0.clone(),
            epoch: blocks.first().map_or(0, |b| b.attempt.epoch.0),
            blocks: blocks
                .iter()
                .zip(expected)
                .map(|(b, expected)| wire::BlockRef {
                    task: Some(b.task.into()),
                    attempt: Some(b.attempt.into()),
                    partition: b.partition,
                    from_frame: 0,
                    want_footer: expected.is_none(),
                })
                .collect(),
            signature: Vec::new(),
        };
        let ticket = self.peers.tickets().sign(ticket);
        let request = client.do_get(Ticket { ticket: ticket.encode_to_vec().into() });
        match tokio::time::timeout(NEXT_MESSAGE_TIMEOUT, request).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refused(statuses(&status))),
            Err(_) => Err(Error::unavailable(format!("executor {} did not answer", holder.executor))),
        }
    }

    /// A holder that has not heard of a new key refuses for a moment what is right.
    fn refused(&self, error: Error) -> Error {
        match error.kind {
            ErrorKind::Denied if self.peers.tickets().may_change() => Error { kind: ErrorKind::Unavailable, ..error },
            _ => error,
        }
    }

    fn channel(&self, endpoint: &str) -> Result<PeerChannel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(endpoint) {
            return Ok(channel.clone());
        }
        let connection = self
            .peers
            .endpoint(endpoint)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            // A frozen holder answers nothing: its readers must not wait until their own deadline.
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .initial_stream_window_size(self.windows.0)
            .initial_connection_window_size(self.windows.1);
        let _driven_by = self.io.enter();
        let channel = self.peers.open(&connection);
        channels.insert(endpoint.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Where blocks are read whose holder is gone.
    pub(super) const fn pond(&self) -> &PondSlot {
        &self.pond
    }

    /// The rows of a block, if its output's footer came before.
    fn expected_rows(&self, run: &RunId, block: &BlockRequest) -> Option<u64> {
        let footers = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        let footer = footers.get(&(run.clone(), block.output()))?;
        footer.blocks.get(block.partition as usize).map(|f| f.rows)
    }

    fn keep_footer(&self, run: &RunId, block: &BlockRequest, footer: Arc<OutputFooter>) {
        let mut footers = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        if footers.len() >= FOOTERS_KEPT {
            footers.clear();
        }
        footers.insert((run.clone(), block.output()), footer);
    }

    fn forget(&self, endpoint: &str) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(endpoint);
    }
}

/// Any failure to read is a lost input: the coordinator decides whether the holder is dead or the producer runs again.
fn unreadable(blocks: &[BlockRequest], error: &Error) -> TaskError {
    let first = blocks.first().map(|b| lost(b, &error.message));
    let mut task_error = first.unwrap_or_else(|| TaskError::from(error.clone()));
    task_error.lost.outputs = blocks.iter().map(BlockRequest::output).collect();
    task_error.lost.outputs.dedup();
    if error.kind == ErrorKind::Denied {
        return TaskError::from(error.clone());
    }
    task_error
}

/// Where the rest of a stream comes from.
enum Source {
    Holder(Box<Reading>),
    /// Or an error, and then nothing.
    Packs(BlockStream),
}

/// One stream being read.
struct Reading {
    messages: Streaming<FlightData>,
    pool: Arc<FlightBlocks>,
    run: RunId,
    blocks: Vec<BlockRequest>,
    schema: SchemaRef,
    metrics: Arc<IoMetrics>,
    /// Messages of the unfinished frame.
    parts: Vec<Message>,
    /// By block.
    progress: Vec<Progress>,
}

/// How far a block was read.
#[derive(Debug, Default)]
struct Progress {
    /// Expected rows, once the footer came.
    expected: Option<u64>,
    /// What was passed on.
    rows: u64,
    frames: usize,
    ended: bool,
}

impl Reading {
    fn new(
        messages: Streaming<FlightData>,
        pool: Arc<FlightBlocks>,
        run: RunId,
        blocks: Vec<BlockRequest>,
        expected: Vec<Option<u64>>,
        schema: SchemaRef,
        metrics: Arc<IoMetrics>,
    ) -> Self {
        let progress = expected.into_iter().map(|expected| Progress { expected, ..Progress::default() }).collect();
        Self { messages, pool, run, blocks, schema, metrics, parts: Vec::new(), progress }
    }

    fn into_stream(self) -> BlockStream {
        futures::stream::unfold(Source::Holder(Box::new(self)), |from| async move {
            match from {
                Source::Holder(mut reading) => match reading.next().await? {
                    Ok(batch) => Some((Ok(batch), Source::Holder(reading))),
                    Err(error) => {
                        let mut rest = reading.go_on(error);
                        let next = rest.next().await?;
                        Some((next, Source::Packs(rest)))
                    }
                },
                Source::Packs(mut rest) => {
                    let next = rest.next().await?;
                    Some((next, Source::Packs(rest)))
                }
            }
        })
        .boxed()
    }

    /// What the holder did not send any more.
    fn go_on(&self, error: TaskError) -> BlockStream {
        let open = self.blocks.iter().zip(&self.progress).filter(|(_, progress)| !progress.ended);
        let left = open.map(|(block, p)| Unfinished { block: block.clone(), frames: p.frames, rows: p.rows }).collect();
        self.pool.pond.go_on(&self.run, left, error, Arc::clone(&self.schema), Arc::clone(&self.metrics))
    }

    async fn next(&mut self) -> Option<Result<RecordBatch, TaskError>> {
        loop {
            let data = match tokio::time::timeout(NEXT_MESSAGE_TIMEOUT, self.messages.message()).await {
                Ok(Ok(Some(data))) => data,
                Ok(Ok(None)) if self.progress.iter().all(|p| p.ended) => return None,
                Ok(Ok(None)) => return Some(Err(self.broken("the stream ended early"))),
                Ok(Err(status)) => return Some(Err(unreadable(&self.blocks, &statuses(&status)))),
                Err(_) => return Some(Err(self.broken("the holder sent nothing for 60 s"))),
            };
            match self.take(data) {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn take(&mut self, data: FlightData) -> Result<Option<RecordBatch>, TaskError> {
        let size = data.data_header.len() + data.data_body.len() + data.app_metadata.len();
        IoMetrics::add(&self.metrics.remote_bytes, size as u64);
        if !data.data_header.is_empty() {
            self.parts.push(Message { header: data.data_header, body: data.data_body });
        }
        if data.app_metadata.is_empty() {
            return Ok(None);
        }
        let header = wire::FrameHeader::decode(data.app_metadata).map_err(|_| self.broken("a header is damaged"))?;
        let index = header.block as usize;
        let Some(block) = self.blocks.get(index) else { return Err(self.broken("a block was not asked for")) };
        match header.kind {
            Some(Kind::Footer(footer)) => {
                let footer = OutputFooter::from_wire(&footer);
                check_footer(block, &footer)?;
                let expected = footer.blocks.get(block.partition as usize).copied().unwrap_or_default();
                if let Some(progress) = self.progress.get_mut(index) {
                    progress.expected = Some(expected.rows);
                }
                self.pool.keep_footer(&self.run, block, Arc::new(footer));
                Ok(None)
            }
            Some(Kind::Frame(end)) => self.finish_frame(index, end.crc).map(Some),
            Some(Kind::End(_)) => self.finish_block(index).map(|()| None),
            None => Err(self.broken("a header is empty")),
        }
    }

    fn finish_frame(&mut self, index: usize, crc: u32) -> Result<RecordBatch, TaskError> {
        let start = Instant::now();
        let frame = Frame::of(std::mem::take(&mut self.parts));
        if frame.crc != crc {
            return Err(self.broken("a frame is damaged"));
        }
        let batch = frame.decode(&self.schema)?;
        if let Some(progress) = self.progress.get_mut(index) {
            progress.rows += batch.num_rows() as u64;
            progress.frames += 1;
        }
        IoMetrics::add_since(&self.metrics.encode_ns, start);
        Ok(batch)
    }

    fn finish_block(&mut self, index: usize) -> Result<(), TaskError> {
        match self.progress.get_mut(index) {
            Some(progress) if progress.expected == Some(progress.rows) => {
                progress.ended = true;
                Ok(())
            }
            _ => Err(self.broken("rows are missing")),
        }
    }

    fn broken(&self, why: &str) -> TaskError {
        unreadable(&self.blocks, &Error::unavailable(why))
    }
}
