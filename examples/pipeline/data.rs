//! Clicks and ad spend to try the pipeline on: hours of March 2026, the same rows whenever they are made, written line by line.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// How many ads there are. A campaign has a tenth of them.
const ADS: u64 = 200;
/// Collectors of clicks; each leaves one file an hour.
const COLLECTORS: u64 = 2;
const HOUR_MS: u64 = 3_600_000;
/// Hours of the month.
pub(crate) const MOST_HOURS: u64 = 31 * 24;

/// A place in the month, as SQL has it: `2026-03-01T05:00:00`.
pub(crate) fn time(hour: u64) -> String {
    match hour {
        // A backfill may end where the month does.
        MOST_HOURS => "2026-04-01T00:00:00".to_owned(),
        _ => format!("2026-03-{:02}T{:02}:00:00", 1 + hour / 24, hour % 24),
    }
}

/// The same numbers for the same seed, which look like chance (SplitMix64).
const fn scattered(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Writes the files of an hour with so many clicks below a folder.
pub(crate) fn write_hour(folder: &Path, hour: u64, clicks: u64) -> io::Result<()> {
    for collector in 0..COLLECTORS {
        let lines = |to: &mut dyn Write| {
            let of_collector = (0..clicks).filter(|click| click % COLLECTORS == collector);
            of_collector.into_iter().try_for_each(|click| write_click(to, hour, click, clicks))
        };
        whole(folder, &format!("raw/clicks/hour={}/collector-{collector}.json", time(hour)), lines)?;
    }
    whole(folder, &format!("raw/spend/hour={}/ads.csv", time(hour)), |to| write_spend(to, hour, clicks))
}

/// A line of JSON. Of a hundred clicks some have no ad, some are of our own tests, and some earned nothing that can be read.
fn write_click(to: &mut dyn Write, hour: u64, click: u64, clicks: u64) -> io::Result<()> {
    let chance = scattered((hour << 32) | click);
    let (at, visitor) = (click * HOUR_MS / clicks, if chance.is_multiple_of(61) { 0 } else { 1 + chance % 50_000 });
    // Some ads are liked better than others.
    let ad = (chance >> 16) % ADS * ((chance >> 32) % 1000) / 1000;
    let (day, minute, second, ms) = (1 + hour / 24, at / 60_000, at / 1000 % 60, at % 1000);
    write!(to, "{{\"ts\":\"2026-03-{day:02}T{:02}:{minute:02}:{second:02}.{ms:03}\",", hour % 24)?;
    match chance % 97 {
        0 => write!(to, "\"ad\":null,")?,
        _ => write!(to, "\"ad\":{ad},")?,
    }
    match chance % 89 {
        0 => writeln!(to, "\"visitor\":{visitor},\"revenue\":\"n/a\"}}"),
        _ => writeln!(to, "\"visitor\":{visitor},\"revenue\":\"0.{:04}\"}}", (chance >> 40) % 10_000),
    }
}

/// A table of all ads.
fn write_spend(to: &mut dyn Write, hour: u64, clicks: u64) -> io::Result<()> {
    writeln!(to, "ad,campaign,impressions,spend")?;
    (0..ADS).try_for_each(|ad| {
        let impressions = 100 + clicks + scattered(!((hour << 32) | ad)) % 1000;
        let spend = impressions * 25;
        writeln!(to, "{ad},campaign {},{impressions},{}.{:04}", ad % 10, spend / 10_000, spend % 10_000)
    })
}

/// Writes a file whole or not at all: nobody reads one that is half there.
fn whole(folder: &Path, name: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap_or(folder))?;
    let open = path.with_extension("open");
    let mut to = BufWriter::new(File::create(&open)?);
    write(&mut to)?;
    to.flush()?;
    fs::rename(open, path)
}

/// A file of statements, with the tables' locations below a folder (or a URL) each: for `raw/` and for `lake/`.
pub(crate) fn placed(sql: &str, raw: &str, lake: &str) -> String {
    sql.replace("LOCATION 'raw/", &format!("LOCATION '{raw}/raw/"))
        .replace("LOCATION 'lake/", &format!("LOCATION '{lake}/lake/"))
}
