//! Bytes that change, and objects that are gone.

use std::path::{Path, PathBuf};

use tidemill_tests::harness::value;

use super::WIDE;
use crate::durable::{SLOW, files_below, state_in};
use crate::going::{Going, cluster, with_a_slow_end};

/// Changes a byte in the middle of a file.
fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(file, bytes).expect("the file, damaged");
}

/// Changes bytes all over a file: what is in its middle may be needed no more.
fn flip_everywhere(file: &Path) {
    let mut bytes = std::fs::read(file).expect("the file");
    let step = bytes.len() / 64;
    (0..64).for_each(|n| bytes[n * step] ^= 0x40);
    std::fs::write(file, bytes).expect("the file, damaged");
}

/// What happens to every pack before its holders are gone: then it cannot be read, and its tasks run again.
async fn packs_are_harmed(harm: impl Fn(&Path)) {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut cluster, mut client) = cluster(&state_in(folder.path()), &[]).await;
    let going = Going::start(&cluster, SLOW).await;
    going.until_durable(&mut client, 8).await;
    let all = files_below(&folder.path().join("pond")).into_iter();
    let packs: Vec<PathBuf> = all.filter(|file| file.extension().is_some_and(|e| e == "pack")).collect();
    packs.iter().for_each(|pack| harm(pack));
    assert!(!packs.is_empty());
    for executor in &mut cluster.executors {
        executor.kill();
    }
    cluster.add_executor(1);
    cluster.add_executor(1);
    let run = going.run.clone();
    going.answers(SLOW).await;
    let repeats = format!("SELECT sum(repeats) FROM system.tasks WHERE run_id = '{run}'");
    assert_ne!(value(&mut client, &repeats).await, "0", "the harm was not noticed in {packs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_pack_is_noticed_and_its_tasks_run_again() {
    packs_are_harmed(flip_everywhere).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_somebody_deleted_is_computed_again() {
    packs_are_harmed(|pack| std::fs::remove_file(pack).expect("no pack")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_spilled_block_is_read_from_its_pack() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [("TIDEMILL_MEMORY", "64MiB".to_owned())];
    let (cluster, mut client) = cluster(&state_in(folder.path()), &environment).await;
    // Its first stage writes more than stays in memory; the readers begin when all of it is there.
    let sql = with_a_slow_end(WIDE, "m");
    let going = Going::start(&cluster, &sql).await;
    let spilled = || {
        let all = files_below(cluster.work_dir()).into_iter();
        all.filter(|file| file.extension().is_some_and(|e| e == "frames")).collect::<Vec<PathBuf>>()
    };
    going.until_stored(&mut client).await;
    let files = spilled();
    assert!(!files.is_empty(), "nothing was spilled");
    let mut flipped = 0;
    for file in &files {
        // It may be gone meanwhile.
        if std::fs::metadata(file).is_ok_and(|m| m.len() > 1_000) {
            flip(file);
            flipped += 1;
        }
    }
    assert!(flipped > 0);
    let repeats = format!("SELECT sum(repeats) FROM system.tasks WHERE run_id = '{}'", going.run);
    going.answers(&sql).await;
    assert_eq!(value(&mut client, &repeats).await, "0", "all of it was in the store");
}
