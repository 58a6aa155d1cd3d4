//! The answer to a statement, over as many connections as it takes.
//!
//! Invariant: every message is passed on once and in order. After a connection broke, the coordinator, this one or its
//! successor, is asked for the same run again and told what came already; it goes on behind that, or says that the result
//! is another one.

use std::time::Duration;

use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use futures::Stream;
use prost::Message;
use tidemill_engine::coordinators::{Coordinator, Coordinators, leader_of};
use tidemill_engine::wire::{self, MAX_MESSAGE_BYTES, message_crc};
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

/// How long a coordinator that went away is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one that stands by is waited for, where none that leads was ever spoken to: as long as taking over takes.
const STANDBY_PATIENCE: Duration = Duration::from_secs(15);
/// How long one that stands by goes unmentioned, while others may lead.
const QUIET: Duration = Duration::from_secs(1);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct Answer {
    coordinators: Coordinators,
    /// The statement, and what came of its answer.
    ticket: wire::StatementTicket,
    messages: Option<Streaming<FlightData>>,
    /// When the connection broke.
    broken: Option<Instant>,
    /// Whether it was said that it did.
    told: bool,
}

impl Answer {
    pub(super) const fn new(coordinators: Coordinators, ticket: wire::StatementTicket) -> Self {
        Self { coordinators, ticket, messages: None, broken: None, told: false }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<FlightData, FlightError>> + Send + 'static {
        futures::stream::unfold(Some(self), |answer| async move {
            let mut answer = answer?;
            match answer.next().await {
                Ok(Some(message)) => Some((Ok(message), Some(answer))),
                Ok(None) => None,
                Err(status) => Some((Err(FlightError::Tonic(Box::new(status))), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<FlightData>, Status> {
        loop {
            let spoken_to = self.coordinators.current();
            let error = match self.try_next().await {
                Ok(message) => {
                    if let Some(message) = &message {
                        (self.broken, self.told) = (None, false);
                        self.coordinators.note_leader();
                        self.ticket.seen_messages += 1;
                        self.ticket.seen_crc = message_crc(self.ticket.seen_crc, message);
                    }
                    return Ok(message);
                }
                Err(status) if is_broken(&status) => status,
                Err(status) => return Err(status),
            };
            self.messages = None;
            let since = *self.broken.get_or_insert_with(Instant::now);
            let nobody_led = leader_of(&error).is_some() && !self.coordinators.had_leader();
            let patience = if nobody_led { STANDBY_PATIENCE } else { PATIENCE };
            if since.elapsed() > patience {
                return Err(error);
            }
            self.tell(&spoken_to, &error, since);
            // Another may lead by now.
            self.coordinators.turn_from(&spoken_to);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Says once why there is no answer yet.
    fn tell(&mut self, spoken_to: &Coordinator, error: &Status, since: Instant) {
        let run = &self.ticket.run;
        match leader_of(error) {
            _ if self.told => return,
            Some(_) if since.elapsed() < QUIET => return,
            Some(_) => tracing::warn!(run, error = %spoken_to.error(error), "waiting for a coordinator that leads"),
            None => tracing::warn!(run, "the coordinator went away: waiting for it"),
        }
        self.told = true;
    }

    async fn try_next(&mut self) -> Result<Option<FlightData>, Status> {
        if self.messages.is_none() {
            let request = Ticket { ticket: self.ticket.encode_to_vec().into() };
            let mut client = FlightServiceClient::new(self.coordinators.current().channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            self.messages = Some(client.do_get(request).await?.into_inner());
        }
        match &mut self.messages {
            Some(messages) => messages.message().await,
            None => Ok(None),
        }
    }
}

/// A status with details is a coordinator's own error; one without comes from the connection, or from a server that is no
/// coordinator and knows what it refuses.
fn is_broken(status: &Status) -> bool {
    let by_connection = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
    by_connection && status.details().is_empty()
}
