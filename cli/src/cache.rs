//! `roche cache`: what the embedded engine keeps between builds, and how to make it less.
//!
//! Invariant: nothing that a running build uses is removed.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use roche_engine::local::Local;
use roche_engine::local::store::{Entry, EntryKind, Limits, Store};

use crate::args::{CacheArgs, CacheCommand, PruneArgs};
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::{embedded, text};

/// The mode in which usage is looked at: no layer is used.
const MODE: &str = "housekeeping";

/// Lists, counts, removes or checks what is cached.
pub(crate) async fn run(args: &CacheArgs, environment: &Environment) -> Result<(), Failure> {
    let folder = environment.cache()?;
    if !folder.is_dir() {
        crate::note(&format!("{}: nothing is cached yet", folder.display()));
        return Ok(());
    }
    let engine = Local::new(embedded::options(environment)?);
    let usage = || Store::open(&folder, MODE, SystemTime::now)?.usage();
    let told = match &args.command {
        CacheCommand::Ls => usage().map(|entries| list(&entries, SystemTime::now())),
        CacheCommand::Du => usage().map(|entries| sums(&entries)),
        CacheCommand::Prune(args) => prune(&engine, args).await,
        CacheCommand::Verify { repair } => return verify(&engine, *repair, &folder).await,
    };
    crate::write_stdout(told?.as_bytes())
}

async fn prune(engine: &Local, args: &PruneArgs) -> Result<String, roche_engine::Error> {
    let limits = Limits { max_bytes: args.keep_storage, keep_newer: args.keep_duration };
    let collected = engine.prune(limits).await?;
    let what = [(collected.layers, "layer"), (collected.blobs, "blob"), (collected.caches, "cache folder")];
    let what: Vec<_> = what.iter().filter(|(count, _)| *count > 0).map(|(count, what)| counted(*count, what)).collect();
    let what = if what.is_empty() { "nothing to remove".to_owned() } else { format!("removed {}", what.join(", ")) };
    Ok(format!("{what}: {} freed, {} left\n", text::size(collected.freed_bytes), text::size(collected.left_bytes)))
}

async fn verify(engine: &Local, repair: bool, folder: &Path) -> Result<(), Failure> {
    let verified = engine.verify(repair).await?;
    let mut said = String::new();
    for damage in &verified.damaged {
        let dropped = if damage.dropped { "; dropped" } else { "" };
        let _ = writeln!(said, "{}: {}{dropped}", text::one_line(&damage.what), text::one_line(&damage.why));
    }
    let counts = [(verified.blobs, "blob"), (verified.layers, "layer"), (verified.records, "record")];
    let counts: Vec<_> = counts.iter().map(|(count, what)| counted(*count, what)).collect();
    let _ = writeln!(said, "{} checked, {} damaged", counts.join(", "), verified.damaged.len());
    crate::write_stdout(said.as_bytes())?;
    let left = verified.damaged.iter().filter(|damage| !damage.dropped).count() as u64;
    if left == 0 {
        return Ok(());
    }
    let failure = Failure::say(Exit::Integrity, format!("{}: {} in the cache", folder.display(), counted(left, "damaged entry")));
    Err(failure.hint(if repair {
        "wait until no build runs, and repair again: roche cache verify --repair"
    } else {
        "roche cache verify --repair drops what is damaged; it is made or fetched again"
    }))
}

fn list(entries: &[Entry], now: SystemTime) -> String {
    let mut entries: Vec<_> = entries.iter().collect();
    // What was used last stands last, where a terminal shows it.
    entries.sort_by_key(|entry| entry.last_used);
    let heading = ["KIND", "SIZE", "USED", "NAME", "DESCRIPTION"].map(str::to_owned);
    let lines = entries.iter().map(|entry| {
        let used = if entry.held { "now".to_owned() } else { entry.last_used.map_or("never".to_owned(), |used| ago(now, used)) };
        let description = text::one_line(&entry.description);
        [kind(entry.kind).to_owned(), text::size(entry.size_bytes), used, text::one_line(&entry.name), description]
    });
    table(&[heading].into_iter().chain(lines).collect::<Vec<_>>())
}

fn sums(entries: &[Entry]) -> String {
    let line = |name: &str, entries: &[&Entry]| {
        let sum = |entries: &mut dyn Iterator<Item = &&Entry>| text::size(entries.map(|entry| entry.size_bytes).sum());
        let held = sum(&mut entries.iter().filter(|entry| entry.held));
        [name.to_owned(), entries.len().to_string(), sum(&mut entries.iter()), held]
    };
    let of = |kind| entries.iter().filter(|entry| entry.kind == kind).collect::<Vec<_>>();
    let heading = ["KIND", "COUNT", "SIZE", "IN USE"].map(str::to_owned);
    let kinds = [EntryKind::Layer, EntryKind::Blob, EntryKind::Cache].map(|of_kind| line(kind(of_kind), &of(of_kind)));
    let total = line("total", &entries.iter().collect::<Vec<_>>());
    table(&[heading].into_iter().chain(kinds).chain([total]).collect::<Vec<_>>())
}

/// Writes lines in columns, two spaces between them.
fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for line in lines {
        let cells: Vec<_> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Layer => "layer",
        EntryKind::Blob => "blob",
        EntryKind::Cache => "cache",
    }
}

fn counted(count: u64, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {what}s"),
    }
}

fn ago(now: SystemTime, then: SystemTime) -> String {
    let seconds = now.duration_since(then).unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// Reads a size as people write it: `10GB`, `1.5 GiB`, `500000`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 9] = [
        ("", 1.0),
        ("B", 1.0),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KIB", 1024.0),
        ("MIB", 1_048_576.0),
        ("GIB", 1_073_741_824.0),
    ];
    let (number, unit) = number_and_unit(text);
    let unit = UNITS.iter().find(|(name, _)| *name == unit.to_uppercase()).map(|(_, bytes)| bytes);
    match (number.parse::<f64>(), unit) {
        // Rounding to whole bytes is all that the conversion does to a size of this world.
        (Ok(number), Some(unit)) => Ok((number * unit) as u64),
        _ => Err("a size is a number with B, kB, MB, GB, TB, KiB, MiB or GiB, such as 10GB".to_owned()),
    }
}

/// Reads a time as people write it: `48h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = number.parse::<u64>().ok().zip(seconds).and_then(|(number, unit)| number.checked_mul(unit));
    seconds.map(Duration::from_secs).ok_or_else(|| "a time is a number with s, m, h or d, such as 48h".to_owned())
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry(kind: EntryKind, name: &str, size_bytes: u64, last_used: Option<u64>) -> Entry {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Entry {
            kind,
            name: name.to_owned(),
            mode: None,
            size_bytes,
            created: at(0),
            last_used: last_used.map(at),
            held: name == "cargo",
            records: 0,
            description: if name == "7" { "compile\u{1b}[2J it".to_owned() } else { String::new() },
        }
    }

    #[test]
    fn the_lists_are_tables() {
        let entries = [
            entry(EntryKind::Layer, "7", 4_210_000, Some(900)),
            entry(EntryKind::Layer, "8", 10, None),
            entry(EntryKind::Blob, "sha256:ab", 999, Some(500)),
            entry(EntryKind::Cache, "cargo", 5000, Some(990)),
        ];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(
            list(&entries, now),
            "\
KIND   SIZE    USED       NAME       DESCRIPTION
layer  10 B    never      8
blob   999 B   8 min ago  sha256:ab
layer  4.2 MB  1 min ago  7          compile it
cache  5.0 kB  now        cargo
"
        );
        assert_eq!(
            sums(&entries),
            "\
KIND   COUNT  SIZE    IN USE
layer  2      4.2 MB  0 B
blob   1      999 B   0 B
cache  1      5.0 kB  5.0 kB
total  4      4.2 MB  5.0 kB
"
        );
    }

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        for (text, bytes) in [("0", 0), ("10GB", 10_000_000_000), ("1.5 GiB", 1_610_612_736), ("500kb", 500_000), ("7B", 7)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("48h", 172_800), ("7d", 604_800)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "GB", "-1GB", "1XB", "1.2.3GB", "10", "1.5h", "9999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
            assert!(bad == "10" || parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_cache_is_where_the_environment_says() {
        let folder = |variables: &[(&str, &str)]| {
            let variables =
                variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>();
            let environment = Environment { variables, folder: "/".into(), stderr_terminal: false, stdout_terminal: false };
            environment.cache().map_err(|failure| failure.exit)
        };
        assert_eq!(folder(&[("HOME", "/home/u")]), Ok("/home/u/.cache/roche".into()));
        assert_eq!(folder(&[("HOME", "/home/u"), ("XDG_CACHE_HOME", "/c")]), Ok("/c/roche".into()));
        assert_eq!(folder(&[("HOME", "/home/u"), ("XDG_CACHE_HOME", "c")]), Ok("/home/u/.cache/roche".into()));
        assert_eq!(folder(&[]), Err(Exit::Configuration));
    }
}
