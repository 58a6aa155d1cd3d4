//! Signatures of exchange tickets: an executor gives blocks only to who belongs to its cluster, and for that run alone.
//!
//! ```text
//! with a cluster token   every process derives the same key from it
//! without                the coordinator draws one and hands it out to executors that register; a coordinator that
//!                        follows takes it from the first of them, so that tickets stay good
//! ```
//!
//! Invariant: a signature covers everything that a ticket says (executor, run, tasks, attempts, partitions), so it is good
//! for nothing else. Keys are in memory only.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prost::Message as _;
use tidemill_core::{Error, Result};

use crate::peers::random;
use crate::wire::BlockTicket;

type Key = [u8; 32];

/// The keys of a process.
#[derive(Clone, Default)]
pub struct TicketKeys(Arc<RwLock<Keys>>);

#[derive(Default)]
struct Keys {
    /// Whether the key is the cluster token's: then it is neither handed out nor taken.
    is_derived: bool,
    current: Option<Key>,
    /// The one before, which readers may still use that have not registered again.
    before: Option<Key>,
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(ticket keys)")
    }
}

fn signature(key: &Key, ticket: &BlockTicket) -> blake3::Hash {
    let unsigned = BlockTicket { signature: Vec::new(), ..ticket.clone() };
    blake3::keyed_hash(key, &unsigned.encode_to_vec())
}

impl TicketKeys {
    pub(crate) fn of_token(key: Key) -> Self {
        Self(Arc::new(RwLock::new(Keys { is_derived: true, current: Some(key), before: None })))
    }

    fn read<T>(&self, look: impl FnOnce(&Keys) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Keys) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a coordinator hands out to an executor that has `theirs`. Empty where all derive it.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn hand_out(&self, theirs: &[u8]) -> Result<Vec<u8>> {
        let drawn = random()?;
        Ok(self.change(|keys| match keys.is_derived {
            true => Vec::new(),
            false => keys.current.get_or_insert_with(|| Key::try_from(theirs).unwrap_or(drawn)).to_vec(),
        }))
    }

    /// An executor takes what its coordinator hands out.
    pub fn take(&self, handed_out: &[u8]) {
        let Ok(key) = Key::try_from(handed_out) else { return };
        self.change(|keys| {
            if !keys.is_derived && keys.current != Some(key) {
                keys.before = keys.current.replace(key);
            }
        });
    }

    /// What an executor tells the coordinator that it has. Empty where there is nothing to tell.
    #[must_use]
    pub fn known(&self) -> Vec<u8> {
        self.read(|keys| keys.current.filter(|_| !keys.is_derived).map(Vec::from).unwrap_or_default())
    }

    /// Whether a refusal may be for a key that the other has not got yet.
    #[must_use]
    pub fn may_change(&self) -> bool {
        self.read(|keys| !keys.is_derived)
    }

    /// The same ticket with a signature.
    #[must_use]
    pub fn sign(&self, ticket: BlockTicket) -> BlockTicket {
        let signature = self.read(|keys| keys.current.map(|key| signature(&key, &ticket)));
        BlockTicket { signature: signature.map(|s| s.as_bytes().to_vec()).unwrap_or_default(), ..ticket }
    }

    /// Checks a ticket's signature, in a time that tells nothing of it.
    ///
    /// # Errors
    /// It is not of this cluster, or not for this.
    pub fn check(&self, ticket: &BlockTicket) -> Result<()> {
        let keys = self.read(|keys| [keys.current, keys.before]);
        let is_good = |key: &Key| signature(key, ticket) == *ticket.signature.as_slice();
        match keys.iter().flatten().any(is_good) {
            true => Ok(()),
            false => Err(Error::denied(
                "the exchange ticket was not signed by this cluster for this run: only its own processes read blocks",
            )),
        }
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::wire::{Attempt, BlockRef, TaskId};

    fn ticket() -> BlockTicket {
        let (task, attempt) = (Some(TaskId { stage: 1, index: 2 }), Some(Attempt { epoch: 3, counter: 4 }));
        let block = BlockRef { task, attempt, partition: 5, from_frame: 0, want_footer: true };
        BlockTicket {
            executor: "e".to_owned(),
            run: "r".to_owned(),
            epoch: 3,
            blocks: vec![block],
            ..Default::default()
        }
    }

    #[test]
    fn a_signature_is_good_for_its_ticket_only() {
        let keys = TicketKeys::of_token([7; 32]);
        let signed = keys.sign(ticket());
        assert_eq!(keys.check(&signed), Ok(()));
        assert!(keys.check(&ticket()).is_err(), "it is not signed");
        assert!(TicketKeys::of_token([8; 32]).check(&signed).is_err(), "of another cluster");
        assert!(TicketKeys::default().check(&signed).is_err(), "without a key nothing is good");
        let changes: [fn(&mut BlockTicket); 6] = [
            |t| t.run = "another".to_owned(),
            |t| t.executor = "another".to_owned(),
            |t| t.epoch += 1,
            |t| t.blocks.extend(t.blocks.clone()),
            |t| t.blocks.iter_mut().for_each(|b| b.partition += 1),
            |t| t.blocks.iter_mut().for_each(|b| b.attempt = Some(Attempt { epoch: 3, counter: 5 })),
        ];
        for change in changes {
            let mut replayed = signed.clone();
            change(&mut replayed);
            assert!(keys.check(&replayed).is_err(), "{replayed:?}");
        }
        let mut cut = signed;
        cut.signature.pop();
        assert!(keys.check(&cut).is_err());
    }

    #[test]
    fn a_key_is_handed_out_and_survives_the_coordinator() {
        let (first, one, other) = (TicketKeys::default(), TicketKeys::default(), TicketKeys::default());
        one.take(&first.hand_out(&one.known()).expect("a key"));
        other.take(&first.hand_out(&other.known()).expect("a key"));
        assert_eq!(other.check(&one.sign(ticket())), Ok(()));
        let next = TicketKeys::default();
        one.take(&next.hand_out(&one.known()).expect("a key"));
        // The other has not registered again.
        assert_eq!(other.check(&one.sign(ticket())), Ok(()));
        // Who came first was new: the key is another, and the last one is good for a while.
        let third = TicketKeys::default();
        let handed_out = third.hand_out(&[]).expect("a key");
        one.take(&handed_out);
        assert_eq!(one.check(&other.sign(ticket())), Ok(()));
        other.take(&handed_out);
        assert_eq!(other.check(&one.sign(ticket())), Ok(()));
        assert!(TicketKeys::of_token([1; 32]).hand_out(&[2; 32]).expect("nothing").is_empty());
    }
}
