//! File modes as they travel: Go's `os.FileMode`, whose type bits are not Unix's.
//!
//! The permission bits are the same; type, setuid, setgid and sticky stand elsewhere
//! (`io/fs/fs.go`: dir 1<<31, symlink 1<<27, device 1<<26, pipe 1<<25, socket 1<<24, setuid 1<<23,
//! setgid 1<<22, char device 1<<21, sticky 1<<20).

pub(crate) const DIR: u32 = 1 << 31;
pub(crate) const SYMLINK: u32 = 1 << 27;
pub(crate) const DEVICE: u32 = 1 << 26;
pub(crate) const PIPE: u32 = 1 << 25;
pub(crate) const SOCKET: u32 = 1 << 24;
#[cfg(unix)]
const SETUID: u32 = 1 << 23;
#[cfg(unix)]
const SETGID: u32 = 1 << 22;
pub(crate) const CHAR_DEVICE: u32 = 1 << 21;
#[cfg(unix)]
const STICKY: u32 = 1 << 20;
/// Set where a file is neither regular nor one of the types above.
pub(crate) const IRREGULAR: u32 = 1 << 19;

/// The bits that say what a file is; none of them is set for a regular file.
pub(crate) const TYPE: u32 = DIR | SYMLINK | DEVICE | PIPE | SOCKET | CHAR_DEVICE | IRREGULAR;

/// Translates `st_mode`.
#[cfg(unix)]
pub(super) fn from_unix(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => DIR,
        0o100_000 => 0,
        0o120_000 => SYMLINK,
        0o060_000 => DEVICE,
        0o020_000 => DEVICE | CHAR_DEVICE,
        0o010_000 => PIPE,
        0o140_000 => SOCKET,
        _ => IRREGULAR,
    };
    let flag = |unix: u32, go: u32| if mode & unix == 0 { 0 } else { go };
    (mode & 0o777) | kind | flag(0o4000, SETUID) | flag(0o2000, SETGID) | flag(0o1000, STICKY)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        for (unix, go) in [
            (0o100_644, 0o644),
            (0o104_755, 0o755 | 1 << 23),
            (0o102_755, 0o755 | 1 << 22),
            (0o040_755, 0o755 | 1 << 31),
            (0o041_777, 0o777 | 1 << 31 | 1 << 20),
            (0o120_777, 0o777 | 1 << 27),
            (0o010_600, 0o600 | 1 << 25),
            (0o020_666, 0o666 | 1 << 26 | 1 << 21),
            (0o060_660, 0o660 | 1 << 26),
            (0o140_755, 0o755 | 1 << 24),
        ] {
            assert_eq!(from_unix(unix), go, "{unix:o}");
        }
    }
}
