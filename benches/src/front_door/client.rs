//! A client of Flight SQL as drivers are: arrow-flight's, on a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightInfo;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::{FlightSqlServiceClient, PreparedStatement};
use futures::{StreamExt, TryStreamExt};
use tidemill::{Error, Result};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

/// How long one call may take, answer included.
const PATIENCE: Duration = Duration::from_secs(120);
/// An endpoint at this place is reached as the question was.
const HERE: &str = "arrow-flight-reuse-connection:";

/// A connection.
pub(super) struct Door {
    channel: Channel,
    client: FlightSqlServiceClient<Channel>,
}

/// A statement that is prepared, with one number to be bound.
pub(super) struct Point(PreparedStatement<Channel>);

/// What came of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fetched {
    pub(super) rows: u64,
    /// Of all messages: headers and bodies.
    pub(super) bytes: u64,
    /// Of the first column, where it has whole numbers: what tells rows from others.
    pub(super) sum: i64,
}

impl Fetched {
    /// Counts a batch's rows.
    pub(super) fn add_rows(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows() as u64;
        let numbers = batch.columns().first().and_then(|column| column.as_primitive_opt::<Int64Type>());
        let sum = numbers.map_or(0, |numbers| numbers.iter().flatten().fold(0, i64::wrapping_add));
        self.sum = self.sum.wrapping_add(sum);
    }

    /// Whether the rows are the same, as far as this can be told.
    pub(super) fn has_rows_of(&self, other: &Self) -> bool {
        (self.rows, self.sum) == (other.rows, other.sum)
    }
}

impl Door {
    pub(super) async fn connect(url: &str) -> Result<Self> {
        let channel = channel(url).await?;
        Ok(Self { client: FlightSqlServiceClient::new(channel.clone()), channel })
    }

    /// Runs a statement and reads its rows to the end. How long that took, too.
    pub(super) async fn query(&mut self, sql: &str) -> Result<(Fetched, Duration)> {
        let start = Instant::now();
        let asked = async {
            let info = self.client.execute(sql.to_owned(), None).await.map_err(|e| failed(&e))?;
            fetch(&self.channel, info).await
        };
        Ok((in_time(asked).await?, start.elapsed()))
    }

    pub(super) async fn prepare(&mut self, sql: &str) -> Result<Point> {
        let prepared = self.client.prepare(sql.to_owned(), None);
        Ok(Point(in_time(async { prepared.await.map_err(|e| failed(&e)) }).await?))
    }

    /// Binds a value, runs the statement, reads its rows. How long that took, too.
    pub(super) async fn look_up(&self, point: &mut Point, value: i64) -> Result<(Fetched, Duration)> {
        let start = Instant::now();
        let values: [(&str, ArrayRef); 1] = [("value", Arc::new(Int64Array::from(vec![value])))];
        let values = RecordBatch::try_from_iter(values).map_err(|e| Error::internal(e.to_string()))?;
        let asked = async {
            point.0.set_parameters(values).map_err(|e| failed(&e))?;
            let info = point.0.execute().await.map_err(|e| failed(&e))?;
            fetch(&self.channel, info).await
        };
        Ok((in_time(asked).await?, start.elapsed()))
    }
}

/// All rows of an answer: its endpoints side by side, as drivers read them.
async fn fetch(channel: &Channel, info: FlightInfo) -> Result<Fetched> {
    let mut parts = JoinSet::new();
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or_else(|| Error::internal("an endpoint has no ticket"))?;
        let place = endpoint.location.into_iter().map(|location| location.uri).find(|uri| !uri.starts_with(HERE));
        let near = channel.clone();
        parts.spawn(async move {
            let channel = match place {
                Some(uri) => self::channel(&uri).await?,
                None => near,
            };
            let mut client = FlightServiceClient::new(channel);
            let messages = client.do_get(ticket).await.map_err(|status| failed(&status.into()))?.into_inner();
            let bytes = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&bytes);
            let messages = messages.inspect_ok(move |message| {
                let size = message.data_header.len() + message.data_body.len();
                counted.fetch_add(size as u64, Ordering::Relaxed);
            });
            let mut batches = FlightRecordBatchStream::new_from_flight_data(messages.map_err(FlightError::from));
            let mut fetched = Fetched::default();
            while let Some(batch) = batches.next().await {
                fetched.add_rows(&batch.map_err(|e| failed(&e))?);
            }
            fetched.bytes = bytes.load(Ordering::Relaxed);
            Ok::<_, Error>(fetched)
        });
    }
    let mut all = Fetched::default();
    while let Some(part) = parts.join_next().await {
        let part = part.map_err(|e| Error::internal(e.to_string()))??;
        all.rows += part.rows;
        all.bytes += part.bytes;
        all.sum = all.sum.wrapping_add(part.sum);
    }
    Ok(all)
}

async fn channel(url: &str) -> Result<Channel> {
    let address = url.replacen("grpc+tcp://", "http://", 1).replacen("grpc://", "http://", 1);
    let endpoint = Endpoint::from_shared(address).map_err(|e| Error::invalid(format!("`{url}` is no URL: {e}")))?;
    // As other drivers have it: small messages are not kept back.
    let endpoint = endpoint.tcp_nodelay(true).connect_timeout(PATIENCE);
    endpoint.connect().await.map_err(|e| Error::unavailable(format!("{url} does not answer: {e}")))
}

async fn in_time<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::unavailable(format!("there was no answer within {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, asked).await.map_err(late)?
}

fn failed(error: &FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => Error::unavailable(format!("{:?}: {}", status.code(), status.message())),
        other => Error::unavailable(other.to_string()),
    }
}
