//! What is known of the template's crates beyond what a program's list says: checksums, licences,
//! features.
//!
//! Invariant: a version on crates.io never changes, so its checksum and licence hold wherever it
//! comes from there; features are those of one build, and hold for the template's own list alone.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Crates, Package};
use crate::template;

/// What is known of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The sha256 of its archive, in hex digits.
    pub checksum: Option<String>,
    /// Its licence, as an SPDX expression.
    pub license: Option<String>,
    /// The features that it was compiled with; none where that is not known.
    pub features: Option<Vec<String>>,
}

/// The architectures with a list: OCI's word, the list with everything, the one in the program.
const LISTS: [(&str, &str, &str); 2] = [
    ("amd64", include_str!("../../crates/linux-x86_64.json"), "runtime/crates/linux-x86_64.z"),
    ("arm64", include_str!("../../crates/linux-aarch64.json"), "runtime/crates/linux-aarch64.z"),
];

#[derive(Deserialize)]
struct List {
    packages: Vec<Known>,
}

#[derive(Deserialize)]
struct Known {
    name: String,
    version: String,
    source: String,
    checksum: Option<String>,
    license: Option<String>,
    features: Vec<String>,
}

/// Returns what is known of each package of a program for an architecture (in OCI's words), in the
/// order of its list.
pub fn details(crates: &Crates, architecture: &str) -> Vec<Details> {
    let list = LISTS.iter().find(|(name, ..)| *name == architecture);
    let known = list.map(|(_, json, _)| known(json)).unwrap_or_default();
    let is_own = list.is_some_and(|(.., file)| own(file).is_some_and(|own| own == *crates));
    let of = |package: &Package| {
        let id = (package.name.as_str(), package.version.as_str(), package.source.as_str());
        let found = known.get(&(id.0.to_owned(), id.1.to_owned(), id.2.to_owned()));
        found.map_or_else(Details::default, |found| Details {
            features: found.features.clone().filter(|_| is_own),
            ..found.clone()
        })
    };
    crates.packages.iter().map(of).collect()
}

/// Reads the list of a release that this program would make.
fn own(file: &str) -> Option<Crates> {
    let file = template::FILES.iter().find(|listed| listed.path == file)?;
    Crates::unpack(file.data).ok()
}

fn known(json: &str) -> BTreeMap<(String, String, String), Details> {
    let list: List = serde_json::from_str(json).expect("the list was written by a test, which reads it");
    let entry = |known: Known| {
        let details = Details { checksum: known.checksum, license: known.license, features: Some(known.features) };
        ((known.name, known.version, known.source), details)
    };
    list.packages.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_of_the_template_has_its_details_and_no_other_has_features() {
        for (architecture, _, file) in LISTS {
            let crates = own(file).unwrap();
            assert!(crates.packages.len() > 100, "{architecture}");
            let known = details(&crates, architecture);
            for (package, details) in crates.packages.iter().zip(&known) {
                let is_local = package.source == "local";
                assert_eq!(details.checksum.is_none(), is_local, "{package:?}");
                assert!(details.features.is_some() && details.license.is_none() == is_local, "{package:?}");
            }
            let mut other = crates.clone();
            other.packages[0].version = "9.9.9".to_owned();
            let known = details(&other, architecture);
            assert_eq!(known[0], Details::default());
            assert!(known[1].checksum.is_some() && known.iter().all(|details| details.features.is_none()));
        }
        let crates = own(LISTS[0].2).unwrap();
        assert!(details(&crates, "riscv64").iter().all(|details| *details == Details::default()));
    }
}
