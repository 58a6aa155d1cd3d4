//! The names of the points around everything that must outlive a process: tests let processes die before and after each,
//! in the simulation and for real.

/// All points. A coordinator's, but for those that begin with the name of something only executors write.
pub const POINTS: [&str; 26] = [
    "answer.end",
    "epoch.claim",
    "epoch.seal",
    "lease.renew",
    "log.accept",
    "log.append",
    "log.catalogue",
    "log.collect",
    "log.finish",
    "log.intent",
    "log.lost",
    "log.pack",
    "log.plan",
    "log.start",
    "log.success",
    "output.insert",
    "output.release",
    "pack.delete",
    "pack.finish",
    "pack.report",
    "publish.files",
    "publish.marker",
    "result.keep",
    "sink.write",
    "snapshot.write",
    "task.report",
];

/// Those of statements that write into datasets: the list of a task's files, what is checked before it is decided that they are
/// published, the version, and the lists' end.
pub const DATASET_POINTS: [&str; 4] = ["dataset.check", "dataset.clean", "dataset.commit", "dataset.manifest"];
