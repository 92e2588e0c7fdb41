//! The machine's processes, read from `/proc`.

use std::fs;

/// The ids of the processes whose command line holds a text. Containers' processes are among them.
pub(crate) fn processes(text: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is readable").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        // A process may end while it is looked at.
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        *id != std::process::id() && String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
    })
    .collect()
}

/// The most memory that a process has held, in bytes, while it lives.
pub(super) fn peak_memory_bytes(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Mebibytes in bytes.
pub(crate) const fn mebibytes(count: u64) -> u64 {
    count << 20
}
