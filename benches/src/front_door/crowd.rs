//! Many clients at once, each on a connection of its own, each asking again as soon as it has its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemill::{Error, Result};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::client::Door;
use super::{Keys, POINT};

/// Messages of errors that are shown.
const SHOWN: usize = 5;

/// What all of them saw.
#[derive(Default)]
pub(super) struct Crowd {
    /// `SELECT 1`, by client.
    pub(super) ones: Vec<Vec<Duration>>,
    /// The prepared statement, by client.
    pub(super) points: Vec<Vec<Duration>>,
    pub(super) errors: usize,
    /// Of some of them.
    pub(super) messages: Vec<String>,
    /// From the first question to the last answer.
    pub(super) time: Duration,
}

#[derive(Default)]
struct Client {
    ones: Vec<Duration>,
    points: Vec<Duration>,
    errors: usize,
    messages: Vec<String>,
}

/// Lets so many clients ask for so long.
pub(super) async fn measure(url: &str, keys: Keys, clients: usize, time: Duration) -> Result<Crowd> {
    let together = Arc::new(Barrier::new(clients));
    let mut asking = JoinSet::new();
    for number in 0..clients {
        // Sequentially: how connections are accepted is not what is measured.
        let mut door = Door::connect(url).await?;
        let mut point = door.prepare(POINT).await?;
        let together = Arc::clone(&together);
        asking.spawn(async move {
            together.wait().await;
            let (start, mut client) = (Instant::now(), Client::default());
            for turn in 0u64.. {
                if start.elapsed() >= time {
                    break;
                }
                let key = keys.of(turn * clients as u64 + number as u64);
                let one = door.query("SELECT 1").await;
                client.note(one.map(|(fetched, time)| (fetched.rows, time)), |client| &mut client.ones);
                let row = door.look_up(&mut point, key).await;
                client.note(row.map(|(fetched, time)| (fetched.rows, time)), |client| &mut client.points);
            }
            (client, start.elapsed())
        });
    }
    let mut crowd = Crowd::default();
    while let Some(ended) = asking.join_next().await {
        let (client, time) = ended.map_err(|e| Error::internal(e.to_string()))?;
        crowd.time = crowd.time.max(time);
        crowd.errors += client.errors;
        let room = SHOWN - crowd.messages.len();
        crowd.messages.extend(client.messages.into_iter().take(room));
        crowd.ones.push(client.ones);
        crowd.points.push(client.points);
    }
    Ok(crowd)
}

impl Client {
    /// An answer has one row; whatever else comes is an error.
    fn note(&mut self, answer: Result<(u64, Duration)>, times: impl Fn(&mut Self) -> &mut Vec<Duration>) {
        let error = match answer {
            Ok((1, time)) => return times(self).push(time),
            Ok((rows, _)) => format!("an answer has {rows} rows instead of one"),
            Err(error) => error.to_string(),
        };
        self.errors += 1;
        if self.messages.len() < SHOWN {
            self.messages.push(error);
        }
    }
}
