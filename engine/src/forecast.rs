//! What is foretold of a definition before it is solved.
//!
//! Invariant: [`Expected::Cached`] is a promise: as long as nobody removes anything, a job that solves
//! the definition finds the result and does nothing for it. [`Expected::Runs`] is none: a vertex
//! behind one that runs may find a result all the same, where what it takes in comes out as it was.

use std::collections::BTreeMap;

use crate::Digest;

/// What is foretold of each vertex of a definition.
pub type Forecast = BTreeMap<Digest, Expected>;

/// What is foretold of a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Its result is there.
    Cached(Found),
    /// Something has to be done for it.
    Runs(Cause),
}

/// Where a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The same was done before, on the same content.
    Recorded,
    /// All layers of an image are there.
    Layers,
    /// They are files of this machine, used where they are.
    Here,
    /// It only lays out what it takes in.
    Inputs,
}

/// Why a vertex runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No result of the same op on the same content is there.
    New,
    /// It takes in the result of a vertex that runs: this one is the first.
    Behind(Digest),
    /// It is told to run whatever is there.
    IgnoresCache,
    /// Nothing is known of an image yet.
    UnknownImage,
    /// So many of an image's layers are not there.
    Layers {
        /// The layers that are not there.
        missing: usize,
        /// All of them.
        of: usize,
    },
    /// What it names may change at any time, so it is asked: an image's tag, an address without a
    /// checksum.
    Asked,
    /// It cannot succeed.
    Fails(String),
}
