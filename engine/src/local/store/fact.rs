//! Facts: what is quick to say and slow to find out, such as the diff id of a layer.
//!
//! Invariant: a fact about a layer or a blob goes with it. A fact can be lost at any time; who asks
//! finds it out again.

use rusqlite::OptionalExtension as _;

use super::{LayerNumber, Store};
use crate::{Digest, Error};

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Nothing that the store has; such facts go by age.
    Nothing,
    /// A layer.
    Layer(LayerNumber),
    /// A blob.
    Blob(Digest),
}

impl Store {
    /// Returns what is known; what it is about is there, and held.
    pub fn fact(&self, kind: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.index.write(|tx| {
            let update = "UPDATE facts SET used_ms = ?1 WHERE mode = ?2 AND kind = ?3 AND key = ?4 RETURNING value, layer, blob";
            let found: Option<(Vec<u8>, Option<i64>, Option<String>)> = tx
                .prepare_cached(update)?
                .query_row((self.now_ms(), &self.mode, kind, key), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let Some((value, layer, blob)) = found else { return Ok(None) };
            let there = match (layer, blob.map(|blob| blob.parse())) {
                (Some(layer), _) => self.find_layer(tx, LayerNumber::from_row(layer))?,
                (None, Some(Ok(blob))) => self.find_blob(tx, &blob)?,
                (None, Some(Err(_))) => false,
                (None, None) => true,
            };
            Ok(there.then_some(value))
        })
    }

    /// Keeps a fact, in place of what was known; one about what is not there is not kept.
    pub fn set_fact(&self, kind: &str, key: &[u8], value: &[u8], subject: Subject) -> Result<(), Error> {
        self.index.write(|tx| {
            let (there, layer, blob) = match subject {
                Subject::Nothing => (true, None, None),
                Subject::Layer(layer) => (self.find_layer(tx, layer)?, Some(layer.row()), None),
                Subject::Blob(digest) => (self.find_blob(tx, &digest)?, None, Some(digest.to_string())),
            };
            if there {
                let insert = "INSERT OR REPLACE INTO facts (mode, kind, key, value, layer, blob, used_ms)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
                tx.prepare_cached(insert)?.execute((&self.mode, kind, key, value, layer, blob, self.now_ms()))?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{layer, noon, opened};
    use super::*;

    #[test]
    fn a_fact_goes_with_what_it_is_about() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let (layer, blob) = (layer(&store, "a"), store.put(b"blob").unwrap());
        store.set_fact("diff_id", b"1", b"of layer", Subject::Layer(layer)).unwrap();
        store.set_fact("blob", b"1", b"of blob", Subject::Blob(blob)).unwrap();
        store.set_fact("other", b"1", b"old", Subject::Nothing).unwrap();
        store.set_fact("other", b"1", b"new", Subject::Nothing).unwrap();
        let known = |kind| store.fact(kind, b"1").unwrap();
        assert_eq!(
            [known("diff_id"), known("blob"), known("other")],
            [&b"of layer"[..], b"of blob", b"new"].map(|v| Some(v.to_vec()))
        );
        fs::remove_dir_all(store.layer_path(layer)).unwrap();
        fs::remove_file(store.blob_path(&blob)).unwrap();
        assert_eq!([known("diff_id"), known("blob"), known("other")], [None, None, Some(b"new".to_vec())]);
        store.set_fact("diff_id", b"1", b"of layer", Subject::Layer(layer)).unwrap();
        assert_eq!([known("diff_id"), known("missing")], [None, None]);
        assert_eq!(Store::open(folder.path(), "root", noon).unwrap().fact("other", b"1").unwrap(), None);
    }
}
