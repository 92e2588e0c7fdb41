//! The crates in a program, out of the list that cargo-auditable's format puts into it.
//!
//! 1. [`elf`] finds the section `.dep-v0` in a program.
//! 2. [`Crates::unpack`] decompresses and reads it.
//! 3. [`details`] adds what the format has no place for, where the list is the template's own.
//!
//! Invariant: whatever a section holds, no more than [`JSON_BYTES`] come out of it, and no more
//! than [`PACKAGES`] packages; what is returned names no package that is not there.

mod elf;
mod known;

use std::io::Read as _;

use flate2::read::ZlibDecoder;
use serde::Deserialize;

pub use known::{Details, details};

/// Where the service is in a released image.
pub const SERVICE: &str = "/app/roche-service";

/// The most bytes of a decompressed list.
pub const JSON_BYTES: u64 = 4 << 20;

/// The most packages of a list.
pub const PACKAGES: usize = 20_000;

/// What a program was made of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Crates {
    /// The packages; those of the build, too.
    pub packages: Vec<Package>,
}

/// A package of a program.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `crates.io`, `git`, `local`, `registry`, or anything else.
    pub source: String,
    /// Whether it is in the program.
    #[serde(default)]
    pub kind: Kind,
    /// What it depends on, as places in the list.
    #[serde(default)]
    pub dependencies: Vec<usize>,
    /// Whether it is the program itself.
    #[serde(default)]
    pub root: bool,
}

/// What a package is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is in the program.
    #[default]
    Runtime,
    /// It only took part in the build: build scripts, procedural macros, and what these need.
    Build,
}

/// Why a program's list cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CratesError {
    /// It is more than is read.
    #[error("its list of crates has more than {0}")]
    TooLarge(String),
    /// It is no list.
    #[error("its list of crates is malformed: {0}")]
    Malformed(String),
}

impl Crates {
    /// Reads the list that is in a program; nothing where there is none, or no program.
    pub fn of_program(program: &[u8]) -> Result<Option<Self>, CratesError> {
        match elf::section(program, ".dep-v0") {
            // An empty section says that the list was left out.
            None | Some([]) => Ok(None),
            Some(section) => Self::unpack(section).map(Some),
        }
    }

    /// Reads a list: JSON, compressed by zlib.
    pub fn unpack(section: &[u8]) -> Result<Self, CratesError> {
        let mut json = Vec::new();
        let unpacked = ZlibDecoder::new(section).take(JSON_BYTES + 1).read_to_end(&mut json);
        unpacked.map_err(|error| CratesError::Malformed(error.to_string()))?;
        if json.len() as u64 > JSON_BYTES {
            return Err(CratesError::TooLarge(format!("{JSON_BYTES} bytes")));
        }
        let crates: Self = serde_json::from_slice(&json).map_err(|error| CratesError::Malformed(error.to_string()))?;
        let count = crates.packages.len();
        if count > PACKAGES {
            return Err(CratesError::TooLarge(format!("{PACKAGES} packages")));
        }
        match crates.packages.iter().flat_map(|package| &package.dependencies).find(|place| **place >= count) {
            Some(place) => Err(CratesError::Malformed(format!("a package needs number {place} of {count}"))),
            None => Ok(crates),
        }
    }

    /// Returns the packages of a kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(move |package| package.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn packed(json: &str) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(json.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_list_is_read_with_its_defaults() {
        let json = r#"{"packages":[{"name":"a","version":"1.0.0","source":"crates.io","kind":"build"},
            {"name":"b","version":"0.1.0","source":"local","dependencies":[0],"root":true,"more":1}],"format":99}"#;
        let crates = Crates::unpack(&packed(json)).unwrap();
        let names = |kind| crates.of_kind(kind).map(|package| package.name.as_str()).collect::<Vec<_>>();
        assert_eq!((names(Kind::Build), names(Kind::Runtime)), (vec!["a"], vec!["b"]));
        assert_eq!((crates.packages[1].root, &crates.packages[1].dependencies[..]), (true, &[0][..]));
        assert!(!crates.packages[0].root && crates.packages[0].dependencies.is_empty());
    }

    #[test]
    fn what_is_no_list_is_said_and_what_is_too_large_is_not_read() {
        let package = r#"{"name":"a","version":"1","source":"x"},"#;
        let many = format!(r#"{{"packages":[{}{}]}}"#, package.repeat(PACKAGES), package.trim_end_matches(','));
        let bomb = format!(r#"{{"packages":[],"x":"{}"}}"#, " ".repeat(1 << 24));
        let million = format!(r#"{{"packages":[{}]}}"#, package.repeat(1_000_000).trim_end_matches(','));
        for (json, said) in [(&many, "20000 packages"), (&bomb, "4194304 bytes"), (&million, "4194304 bytes")] {
            let error = Crates::unpack(&packed(json)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let whole = packed(r#"{"packages":[]}"#);
        let odd = [
            packed("[]"),
            packed("{}"),
            packed(""),
            packed(r#"{"packages":[{"name":"a","version":"1","source":"x","dependencies":[1]}]}"#),
            packed(r#"{"packages":[{"name":"a","version":"1","source":"x","dependencies":[-1]}]}"#),
            packed(r#"{"packages":[{"name":1,"version":"1","source":"x"}]}"#),
            packed(&format!("{}1", "[".repeat(100_000))),
            b"no zlib at all".to_vec(),
            whole[..whole.len() - 6].to_vec(),
            [&whole[..whole.len() - 1], b"\xff"].concat(),
        ];
        for section in odd {
            let error = Crates::unpack(&section).unwrap_err();
            assert!(matches!(error, CratesError::Malformed(_)), "{section:?}: {error}");
        }
        assert!(Crates::unpack(&whole).unwrap().packages.is_empty());
    }
}
