//! What the file system could not hold while a tree was changed: owners, devices, attributes.
//!
//! Invariant: an entry belongs to what is at its path now; who removes or replaces something forgets its entries first.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::path;
use super::tree::Kind;

/// The notes, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    entries: BTreeMap<Vec<u8>, Entry>,
}

/// What is noted of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// User and group.
    pub(crate) owner: Option<(u32, u32)>,
    /// The device that an empty file stands for.
    pub(crate) device: Option<Kind>,
    /// Attributes that were refused.
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Ledger {
    /// Returns what is noted of `path`.
    pub(crate) fn of(&self, path: &[u8]) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Returns the entry of `path` to write in.
    pub(crate) fn entry(&mut self, path: &[u8]) -> &mut Entry {
        self.entries.entry(path.to_vec()).or_default()
    }

    /// Forgets `path` and everything beneath it.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        // In byte order what lies beneath a folder stands together, but for names such as `a-b` before it.
        let after = self.entries.range::<[u8], _>((Bound::Included(path), Bound::Unbounded)).map(|(noted, _)| noted);
        let near = after.take_while(|noted| noted.starts_with(path));
        let gone: Vec<Vec<u8>> = near.filter(|noted| *noted == path || path::is_beneath(noted, path)).cloned().collect();
        for noted in gone {
            self.entries.remove(&noted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgetting_a_folder_forgets_what_is_in_it() {
        let mut ledger = Ledger::default();
        for path in [&b"a"[..], b"a/b", b"a-b", b"ab", b"a/c/d"] {
            ledger.entry(path).owner = Some((5, 6));
        }
        ledger.forget(b"a");
        assert!(ledger.of(b"a").is_none() && ledger.of(b"a/b").is_none() && ledger.of(b"a/c/d").is_none());
        assert!(ledger.of(b"a-b").is_some() && ledger.of(b"ab").is_some());
    }
}
