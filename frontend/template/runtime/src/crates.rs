//! The list of the crates in the program, in the section where scanners look for it.
//!
//! cargo-auditable's format: zlib-compressed JSON in `.dep-v0`. The list is a
//! file of this crate, one for each architecture, because no build script and
//! no tool is needed for a file.
//!
//! A list of other crates would be worse than none. Whoever changes the lock
//! or a manifest has other crates, and the section is then empty.

/// The list for the platform that is compiled for; nothing where none is known.
const LIST: &[u8] = list();

#[cfg(all(target_os = "linux", any(target_env = "gnu", target_env = "musl"), target_arch = "x86_64"))]
const fn list() -> &'static [u8] {
    include_bytes!("../crates/linux-x86_64.z")
}

#[cfg(all(target_os = "linux", any(target_env = "gnu", target_env = "musl"), target_arch = "aarch64"))]
const fn list() -> &'static [u8] {
    include_bytes!("../crates/linux-aarch64.z")
}

#[cfg(not(all(
    target_os = "linux",
    any(target_env = "gnu", target_env = "musl"),
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
const fn list() -> &'static [u8] {
    &[]
}

/// What decides which crates there are.
const DECIDING: [&[u8]; 3] =
    [include_bytes!("../../Cargo.lock"), include_bytes!("../../Cargo.toml"), include_bytes!("../Cargo.toml")];

/// The hash of what decided when the lists were made.
const MADE_OF: u64 = u64::from_le_bytes(*include_bytes!("../crates/made-of"));

const LENGTH: usize = if hash(DECIDING) == MADE_OF { LIST.len() } else { 0 };

#[used]
#[link_section = ".dep-v0"]
static SECTION: [u8; LENGTH] = section();

/// Makes the section one that is used, so that no linker leaves it out.
pub(crate) fn keep() {
    std::hint::black_box(&SECTION);
}

const fn section() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let mut at = 0;
    while at < LENGTH {
        bytes[at] = LIST[at];
        at += 1;
    }
    bytes
}

/// Hashes files one after the other (FNV-1a, 64 bits): they change by accident,
/// not by intent.
const fn hash(files: [&[u8]; 3]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut file = 0;
    while file < files.len() {
        let bytes = files[file];
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            at += 1;
        }
        file += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_of_these_manifests() {
        assert_eq!(hash(DECIDING), MADE_OF);
        assert_eq!(SECTION.len(), LIST.len());
    }
}
