//! Paths and texts from outside in messages, by [`roche_engine::text`].

use std::path::Path;

pub(crate) use roche_engine::text::shown as text;

/// Escapes a path; what is not UTF-8 becomes `�`.
pub(crate) fn path(path: &Path) -> String {
    text(&path.to_string_lossy())
}
