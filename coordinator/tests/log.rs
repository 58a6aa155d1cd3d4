//! The log on a store that answers as real ones do at their worst: refusals with nothing landed, writes that land with
//! their reply lost, and writes that are told that they exist because they themselves came first.

#![expect(clippy::expect_used, reason = "a test that meets the unexpected should say so and end")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_coordinator::log::{Created, Leader, Log, Objects, Recovered, create};
use tidemill_core::record::{CatalogueEntry, CatalogueKind, RECORD_VERSION, Record};
use tidemill_core::{Epoch, Error, ErrorKind, Result};
use tidemill_engine::blob::Blob;

/// Seeds of each test: they mostly sleep.
const SEEDS: u64 = 200;

/// A store in memory with some per mille of faults.
#[derive(Debug)]
struct Store {
    objects: Mutex<BTreeMap<String, Bytes>>,
    rng: Mutex<fastrand::Rng>,
    faults: u32,
}

impl Store {
    fn new(seed: u64, faults: u32) -> Arc<Self> {
        let rng = Mutex::new(fastrand::Rng::with_seed(seed));
        Arc::new(Self { objects: Mutex::default(), rng, faults })
    }

    fn roll(&self) -> u32 {
        let mut rng = self.rng.lock().expect("no panic");
        if rng.u32(0..1000) < self.faults { rng.u32(1..5) } else { 0 }
    }

    fn put(&self, name: &str, body: &[u8]) {
        self.objects.lock().expect("no panic").insert(name.to_owned(), Bytes::copy_from_slice(body));
    }

    fn remove(&self, name: &str) {
        self.objects.lock().expect("no panic").remove(name);
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        self.objects.lock().expect("no panic").keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    fn get(&self, name: &str) -> Bytes {
        self.objects.lock().expect("no panic").get(name).cloned().expect("an object")
    }
}

#[async_trait]
impl Objects for Store {
    async fn try_create(&self, name: &str, body: Bytes) -> Result<()> {
        tokio::task::yield_now().await;
        let fault = self.roll();
        let land = || {
            let mut objects = self.objects.lock().expect("no panic");
            match objects.contains_key(name) {
                true => false,
                false => objects.insert(name.to_owned(), body.clone()).is_none(),
            }
        };
        match fault {
            // A conflict with whom? Nothing is there.
            1 => Err(Error::conflict("409")),
            // It may have landed; the reply did not come.
            2 => {
                land();
                Err(Error::unavailable("the connection was reset"))
            }
            // The client tried again by itself and met its own object.
            3 => {
                land();
                Err(Error::conflict("it exists already"))
            }
            4 => Err(Error::unavailable("no answer in time")),
            _ if land() => Ok(()),
            _ => Err(Error::conflict("it exists already")),
        }
    }

    async fn overwrite(&self, name: &str, body: Bytes) -> Result<()> {
        self.put(name, &body);
        Ok(())
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.objects.lock().expect("no panic").remove(name);
        Ok(())
    }

    async fn read(&self, name: &str) -> Result<Option<Bytes>> {
        tokio::task::yield_now().await;
        match self.roll() {
            1 | 2 => Err(Error::unavailable("503")),
            _ => Ok(self.objects.lock().expect("no panic").get(name).cloned()),
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let objects = self.objects.lock().expect("no panic");
        let below = objects.keys().filter_map(|name| name.strip_prefix(folder)?.strip_prefix('/'));
        let mut names: Vec<String> = below.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect();
        names.dedup();
        Ok(names)
    }
}

fn rows() -> Blob {
    Blob::new(vec![7; 1000])
}

fn record(number: usize) -> Record {
    let kind = CatalogueKind::Table { rows: rows().hash };
    let entry = CatalogueEntry { kind, definition: format!("SELECT {number}") };
    Record::CatalogueSet { name: format!("view_{number:03}"), entry }
}

async fn lead(store: &Arc<Store>, newest: Option<u64>) -> (Log, Recovered) {
    let taken = Log::take_over(Arc::clone(store) as _, Leader::new("127.0.0.1:1"), newest.map(Epoch)).await;
    taken.expect("a store that answers in the end").expect("nobody else")
}

fn views(recovered: &Recovered) -> Vec<String> {
    recovered.state.catalogue.entries.keys().cloned().collect()
}

async fn every_seed<F: Future<Output = ()> + Send + 'static>(test: impl Fn(u64) -> F) {
    let seeds: Vec<_> = (0..SEEDS).map(|seed| tokio::spawn(test(seed))).collect();
    for (seed, done) in seeds.into_iter().enumerate() {
        assert!(done.await.is_ok(), "seed {seed} failed, see above");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_appended_is_replayed_once_and_in_order() {
    every_seed(|seed| async move {
        let store = Store::new(seed, 300);
        let (mut log, recovered) = lead(&store, None).await;
        assert_eq!(views(&recovered), Vec::<String>::new());
        let blob = rows();
        for number in 0..10 {
            log.append(vec![record(number)], vec![blob.clone()]).await.expect("an append");
        }
        let (log, recovered) = lead(&store, Some(1)).await;
        assert_eq!(log.epoch(), Epoch(2));
        assert_eq!(views(&recovered), (0..10).map(|n| format!("view_{n:03}")).collect::<Vec<_>>());
        assert_eq!(recovered.state.catalogue.version, 10, "each once");
        assert_eq!(recovered.blobs.get(&blob.hash).map(|b| &b.bytes), Some(&blob.bytes));
        // From the snapshot alone.
        let (_, again) = lead(&store, Some(2)).await;
        assert_eq!(again.state, recovered.state);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_followed_appends_nothing_more() {
    every_seed(|seed| async move {
        let store = Store::new(seed, 200);
        let (mut old, _) = lead(&store, None).await;
        let writing = tokio::spawn(async move {
            let mut acknowledged = 0;
            loop {
                match old.append(vec![record(acknowledged)], Vec::new()).await {
                    Ok(()) => acknowledged += 1,
                    Err(error) => return (acknowledged, error, old),
                }
            }
        });
        for _ in 0..seed % 50 {
            tokio::task::yield_now().await;
        }
        let (mut new, recovered) = lead(&store, Some(1)).await;
        let (acknowledged, error, mut old) = writing.await.expect("no panic");
        assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
        assert!(error.message.contains("another coordinator leads"), "{error}");
        // Every acknowledged append is there; none came after the seal.
        assert_eq!(views(&recovered).len(), acknowledged);
        assert!(old.append(vec![record(1_000_000)], Vec::new()).await.is_err());
        new.append(vec![record(1_000_001)], Vec::new()).await.expect("an append");
        let (_, after) = lead(&store, Some(2)).await;
        assert_eq!(views(&after).len(), acknowledged + 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_claims_an_epoch() {
    every_seed(|seed| async move {
        let store = Store::new(seed, 200);
        let claim = || {
            let store = Arc::clone(&store) as _;
            tokio::spawn(async move { Log::take_over(store, Leader::new("127.0.0.1:1"), None).await })
        };
        let mut winners = 0;
        for claim in [claim(), claim(), claim()] {
            winners += usize::from(claim.await.expect("no panic").expect("a store").is_some());
        }
        assert_eq!(winners, 1);
    })
    .await;
}

#[tokio::test]
async fn replies_that_lie_are_found_out() {
    let body = Bytes::from_static(b"ours");
    for seed in 0..50 {
        let store = Store::new(seed, 900);
        assert_eq!(create(store.as_ref(), "a", &body).await.expect("an answer"), Created::Ours);
        let other = create(store.as_ref(), "a", &Bytes::from_static(b"other")).await.expect("an answer");
        assert_eq!(other, Created::Theirs(body.clone()));
    }
}

#[tokio::test]
async fn damaged_and_newer_objects_are_refused_by_name() {
    let name = "ctl/log/0000000000000001/0000000000000000";
    let store = Store::new(0, 0);
    let (mut log, _) = lead(&store, None).await;
    log.append(vec![record(1)], Vec::new()).await.expect("an append");
    let whole = store.get(name);
    let reason = async |body: Vec<u8>, epoch: u64| {
        store.put(name, &body);
        let taken = Log::take_over(Arc::clone(&store) as _, Leader::new("127.0.0.1:1"), Some(Epoch(epoch))).await;
        taken.expect_err("a refusal").message
    };
    let mut flipped = whole.to_vec();
    flipped[40] ^= 1;
    let said = reason(flipped, 1).await;
    assert!(said.contains(name) && said.contains("checksum"), "{said}");
    let said = reason(whole.slice(..whole.len() / 2).to_vec(), 2).await;
    assert!(said.contains(name), "{said}");
    let changed = |from: &str, to: &str| {
        let text = String::from_utf8_lossy(&whole[..whole.len() - 4]).replace(from, to).into_bytes();
        let crc = crc32c::crc32c(&text).to_le_bytes();
        [text, crc.to_vec()].concat()
    };
    let said = reason(changed("CatalogueSet", "CatalogueSat"), 3).await;
    assert!(said.contains("CatalogueSat") && said.contains("newer build"), "{said}");
    let version = format!("\"version\":{RECORD_VERSION}");
    let said = reason(changed(&version, "\"version\":9"), 4).await;
    assert!(said.contains("version 9"), "{said}");
}

#[tokio::test]
async fn a_damaged_snapshot_is_passed_over_for_an_older_one() {
    let store = Store::new(0, 0);
    let (mut log, _) = lead(&store, None).await;
    log.append(vec![record(1)], Vec::new()).await.expect("an append");
    let (mut log, _) = lead(&store, Some(1)).await;
    log.append(vec![record(2)], Vec::new()).await.expect("an append");
    store.put("ctl/snap/0000000000000002/0000000000000000", b"torn");
    let (_, recovered) = lead(&store, Some(2)).await;
    assert_eq!(views(&recovered), ["view_001", "view_002"]);
}

#[tokio::test]
async fn a_log_with_a_gap_is_refused_by_name() {
    let store = Store::new(0, 0);
    let (mut log, _) = lead(&store, None).await;
    for number in 1..4 {
        log.append(vec![record(number)], Vec::new()).await.expect("an append");
    }
    let refusal = async |epoch: u64| {
        let taken = Log::take_over(Arc::clone(&store) as _, Leader::new("127.0.0.1:1"), Some(Epoch(epoch))).await;
        taken.expect_err("a refusal").message
    };
    let missing = "ctl/log/0000000000000001/0000000000000001";
    let kept = store.get(missing);
    store.remove(missing);
    let said = refusal(1).await;
    assert!(said.contains(missing) && said.contains("later parts"), "{said}");
    store.put(missing, &kept);
    // Nor is it taken for an empty one when its snapshots and its beginning are lost.
    for snapshot in store.names("ctl/snap") {
        store.put(&snapshot, b"torn");
    }
    for batch in store.names("ctl/log") {
        store.remove(&batch);
    }
    let said = refusal(2).await;
    assert!(said.contains("ctl/snap") && said.contains("no snapshot"), "{said}");
}

#[tokio::test]
async fn a_long_log_is_replayed_from_its_last_snapshot() {
    let store = Store::new(0, 0);
    let (mut log, _) = lead(&store, None).await;
    for number in 0..2_100 {
        log.append(vec![record(number % 50)], vec![rows()]).await.expect("an append");
    }
    let snapshots = store.list("ctl/snap/0000000000000001").await.expect("a list");
    assert!(snapshots.contains(&format!("{:016x}", 2_048)), "{snapshots:?}");
    // The one before it stays, and the log from there; what is older goes.
    let oldest = async |folder: &str| store.list(folder).await.expect("a list").into_iter().next();
    let kept = Some(format!("{:016x}", 1_024));
    let start = Instant::now();
    for folder in ["ctl/snap/0000000000000001", "ctl/log/0000000000000001"] {
        while oldest(folder).await != kept {
            assert!(start.elapsed() < Duration::from_secs(60), "{folder} begins with {:?}", oldest(folder).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let (_, recovered) = lead(&store, Some(1)).await;
    assert_eq!(recovered.state.catalogue.version, 2_100);
    assert_eq!(recovered.blobs.len(), 1);
}

#[tokio::test]
async fn a_leader_that_was_stopped_finds_its_seal_after_the_log_around_it_is_gone() {
    let store = Store::new(0, 0);
    let (mut stopped, _) = lead(&store, None).await;
    for number in 0..10 {
        stopped.append(vec![record(number)], Vec::new()).await.expect("an append");
    }
    let (mut second, _) = lead(&store, Some(1)).await;
    second.append(vec![record(11)], Vec::new()).await.expect("an append");
    let (_third, recovered) = lead(&store, Some(2)).await;
    assert_eq!(views(&recovered).len(), 11);
    let start = Instant::now();
    let log = "ctl/log/0000000000000001";
    while store.list(log).await.expect("a list").len() > 1 {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", store.list(log).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = stopped.append(vec![record(12)], Vec::new()).await.expect_err("a refusal");
    assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
    assert_eq!(store.list(log).await.expect("a list").len(), 1, "it wrote nothing");
    // And the next leader knows all.
    let (_, recovered) = lead(&store, Some(3)).await;
    assert_eq!(views(&recovered).len(), 11);
}
