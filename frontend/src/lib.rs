//! Turns a Rust function project into a build graph.
