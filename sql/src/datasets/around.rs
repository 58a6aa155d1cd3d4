//! The dataset that a place lies in: what others write there is no version's, and VACUUM deletes it.

use std::time::Duration;

use datafusion::execution::runtime_env::RuntimeEnv;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tidemill_core::{Error, Result};

use super::folder::Folder;
use super::log::LOG;

/// One of these is in every log: the first entry, or, where that was cleaned up, what says which checkpoint took its place.
const SIGNS: [&str; 2] = ["00000000000000000000.json", "_last_checkpoint"];
/// Looks at once.
const AT_ONCE: usize = 16;
/// How long all of them may take: a secret may open the place and not the folders around it, and what opens those may hang.
const LOOKED_WITHIN: Duration = Duration::from_secs(5);

/// Refuses a place of a statement's files that is a dataset's folder, or is in one. Nothing is listed.
pub(crate) async fn check_outside(location: &str, runtime: &RuntimeEnv) -> Result<()> {
    // What is no folder is none of a dataset, and whoever writes says what is wrong with it.
    let Ok(folder) = Folder::open(location, runtime) else { return Ok(()) };
    match dataset_around(&folder).await {
        None => Ok(()),
        Some(table) => Err(Error::invalid(format!(
            "{location} is in the folder of the Delta table {}{table}, no version of which would have what is written there: INSERT INTO \
             that table, or write to a folder outside of it",
            folder.root.as_str()
        ))),
    }
}

/// The folder of the dataset, from the innermost outwards.
async fn dataset_around(folder: &Folder) -> Option<Path> {
    let parts: Vec<_> = folder.prefix.parts().collect();
    let folders = (0..=parts.len()).rev().map(|count| parts.iter().take(count).cloned().collect::<Path>());
    let looks: Vec<(Path, &'static str)> =
        folders.flat_map(|around| SIGNS.map(|sign| (around.clone(), sign))).collect();
    let look = |(around, sign): (Path, &'static str)| async move {
        let sign = around.clone().join(LOG).join(sign);
        // Who may not look there is not kept from writing here, and a store that is away is told of by whoever writes.
        folder.store.head(&sign).await.ok().map(|_| around)
    };
    let mut found = futures::stream::iter(looks).map(look).buffered(AT_ONCE).filter_map(std::future::ready).boxed();
    tokio::time::timeout(LOOKED_WITHIN, found.next()).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_in_a_datasets_folder_is_told_from_what_lies_beside()
    -> std::result::Result<(), Box<dyn std::error::Error>> {
        let root = tempfile::tempdir()?;
        let lake = root.path().canonicalize()?;
        for (table, sign) in [("first", SIGNS[0]), ("cleaned", SIGNS[1])] {
            std::fs::create_dir_all(lake.join(table).join(LOG))?;
            std::fs::write(lake.join(table).join(LOG).join(sign), "{}")?;
        }
        std::os::unix::fs::symlink(lake.join("first"), lake.join("link"))?;
        let runtime = RuntimeEnv::default();
        let refused = |below: &str| {
            let location = lake.join(below).display().to_string();
            let runtime = &runtime;
            async move { check_outside(&location, runtime).await.err().map(|error| error.message) }
        };
        for (below, table) in [
            ("first", "first"),
            ("first/", "first"),
            ("first/x.csv", "first"),
            ("first/a/b/c/", "first"),
            ("link/a/", "first"),
            ("cleaned/day=1/x.parquet", "cleaned"),
        ] {
            let told = refused(below).await.unwrap_or_default();
            let named = format!("the Delta table file://{}/{table},", lake.display());
            assert!(told.contains(&named) && told.contains("INSERT INTO"), "{below}: {told}");
        }
        for below in ["x.csv", "second/", "firsts/x.csv", "second/first/"] {
            assert_eq!(refused(below).await, None, "{below}");
        }
        Ok(())
    }
}
