//! Extended attributes as layers carry them.
//!
//! Invariant: what counts as content is the same on every machine: overlayfs' own marks and labels that a machine puts on files
//! (SELinux, IMA) do not.

use std::collections::BTreeMap;

/// Attributes by name.
pub(crate) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What an attribute takes beside its name and value; an empty one takes memory, too.
const ATTRIBUTE_BYTES: usize = 64;

/// Returns about how much memory attributes take.
pub(crate) fn cost_bytes(xattrs: &Xattrs) -> usize {
    xattrs.iter().map(|(name, value)| name.len() + value.len() + ATTRIBUTE_BYTES).sum()
}

/// Says whether an attribute is content.
pub(crate) fn is_content(name: &[u8]) -> bool {
    let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let kinds = [&b"user."[..], b"trusted."].iter().any(|prefix| name.starts_with(prefix));
    kinds && !overlay || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_labels_are_no_content() {
        for name in ["user.overlay.opaque", "trusted.overlay.redirect", "security.selinux", "security.ima", "system.nfs4_acl", ""]
        {
            assert!(!is_content(name.as_bytes()), "{name}");
        }
        for name in ["user.a", "trusted.b", "security.capability", "system.posix_acl_access", "user.overlay"] {
            assert!(is_content(name.as_bytes()), "{name}");
        }
    }
}
