//! Definitions recorded from BuildKit's own Go client (`tests/golden`) against our encoder.

use std::path::{Path, PathBuf};

use roche_engine::{Definition, Graph};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// Every recorded definition, by name.
fn recorded() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect();
    all.sort();
    assert!(all.len() > 100, "{} recorded definitions", all.len());
    all
}

#[test]
fn what_go_wrote_is_what_we_write_after_decoding_it() {
    let mut failed = Vec::new();
    for (name, bytes) in recorded().into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let read = Definition::decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut graph = Graph::new();
        for vertex in read.vertices() {
            let digest = graph.add(vertex.op.clone(), vertex.metadata.clone()).unwrap();
            assert_eq!(graph.vertex(digest).unwrap().encoded, vertex.encoded, "{name}: {:?}", vertex.op);
        }
        if graph.definition(read.target()).encode() != bytes {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
