//! Image references, by distribution's grammar.

use crate::Digest;

/// An image's full name: host, path, and a tag, a digest, both or neither.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Says why a text is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReferenceError(String);

impl std::str::FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(_text: &str) -> Result<Self, ReferenceError> {
        Err(ReferenceError(String::new()))
    }
}
