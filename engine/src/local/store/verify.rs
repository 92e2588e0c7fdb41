//! Verification: everything that is stored is what its name says.
//!
//! Invariant: only what is damaged is dropped, and only on request; it is made or fetched again when
//! it is next needed. Nothing is held meanwhile, nothing is marked as used.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rusqlite::Transaction;
use sha2::{Digest as _, Sha256};

use super::fault::Fault;
use super::hold::{self, Held};
use super::reconcile::{self, Difference};
use super::usage::{self, Row};
use super::{LayerNumber, Remove, Store};
use crate::{Digest, Error};

/// How much of a blob is read at once.
const BUFFER: usize = 128 * 1024;

/// Looks at the files of a layer: its number, its folder, its tree. Where other users' ids own
/// files in it, only a process in their user namespace can.
pub type CheckLayer<'a> = dyn Fn(LayerNumber, &Path, &[u8]) -> Result<(), String> + 'a;

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many blobs were read.
    pub blobs: u64,
    /// How many layers were looked at.
    pub layers: u64,
    /// How many cache records have all their layers.
    pub records: u64,
    /// What is not as it should be.
    pub damaged: Vec<Damage>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What it is: `blob sha256:…`, `layer 17`, `cache folder …`, `index`.
    pub what: String,
    /// What is wrong with it.
    pub why: String,
    /// Whether it was dropped; what a living process holds is not.
    pub dropped: bool,
}

impl Store {
    /// Reads every blob and looks at every layer with `check`; what is damaged is dropped where
    /// `repair` is said. Waits for a collection to end.
    pub fn verify(&self, check: &CheckLayer<'_>, repair: bool, remove: &Remove<'_>) -> Result<Verified, Error> {
        // Without collections beside it, nothing vanishes but what is met damaged.
        let _alone = self.lock("housekeeping")?;
        let mut verified = Verified::default();
        if let Some(why) = self.index.read(integrity)? {
            self.index.mark_damaged();
            verified.damaged.push(Damage {
                what: "index".to_owned(),
                why: format!("{why}; made anew at the next start"),
                dropped: repair,
            });
        }
        let (lost, rows, records) = self.index.read(|tx| {
            let records: i64 = tx.query_row("SELECT count(*) FROM records", [], |row| row.get(0))?;
            Ok((lost(tx, &self.root)?, usage::rows(tx)?, records))
        })?;
        verified.records = records.unsigned_abs();
        let mut damaged: Vec<(Held, String, String)> =
            lost.into_iter().map(|(kind, key)| (kind, key, "in the index and not on the disk".to_owned())).collect();
        for row in rows
            .iter()
            .filter(|row| !damaged.iter().any(|(kind, key, _)| (*kind, key) == (row.held_as, &row.key)))
            .collect::<Vec<_>>()
        {
            let fine = match row.held_as {
                Held::Blob => {
                    verified.blobs += 1;
                    self.check_blob(row)
                }
                Held::Layer => {
                    verified.layers += 1;
                    self.check_layer(row, check)
                }
                Held::Cache => Ok(()),
            };
            if let Err(why) = fine {
                damaged.push((row.held_as, row.key.clone(), why));
            }
        }
        let dropped = if repair { self.drop_damaged(&damaged, remove)? } else { vec![false; damaged.len()] };
        for ((kind, key, why), dropped) in damaged.into_iter().zip(dropped) {
            verified.damaged.push(Damage { what: shown(&rows, kind, &key), why, dropped });
        }
        Ok(verified)
    }

    fn check_blob(&self, row: &Row) -> Result<(), String> {
        let found = digest_of(&self.place(row.held_as, &row.key)).map_err(|error| error.to_string())?;
        if found.to_string() == row.key { Ok(()) } else { Err(format!("its content is {found}")) }
    }

    fn check_layer(&self, row: &Row, check: &CheckLayer<'_>) -> Result<(), String> {
        let folder = self.place(row.held_as, &row.key);
        let number = LayerNumber::from_row(row.number());
        let tree = std::fs::read(folder.join("tree")).map_err(|error| format!("its tree: {error}"))?;
        if Digest::of(&tree).to_string() != row.tree {
            return Err("its tree is not what was stored".to_owned());
        }
        if !folder.join("fs").is_dir() {
            return Err("its files are missing".to_owned());
        }
        // Files of another mode belong to ids that this one may not even read.
        if row.mode.as_deref() == Some(&self.mode) { check(number, &folder, &tree) } else { Ok(()) }
    }

    fn drop_damaged(&self, damaged: &[(Held, String, String)], remove: &Remove<'_>) -> Result<Vec<bool>, Error> {
        let dropped = self.index.write(|tx| {
            self.bury_dead_leases(tx)?;
            damaged
                .iter()
                .map(|(kind, key, _)| {
                    let free = !hold::is_held(tx, *kind, key)?;
                    if free {
                        usage::delete_row(tx, *kind, key)?;
                    }
                    Ok(free)
                })
                .collect::<Result<Vec<_>, Fault>>()
        })?;
        let gone = damaged.iter().zip(&dropped).filter(|(_, dropped)| **dropped);
        self.clear_away(gone.map(|((kind, key, _), _)| (*kind, key.as_str())))?;
        self.sweep(remove)?;
        Ok(dropped)
    }
}

/// Returns what SQLite says of its file, where that is not "ok".
fn integrity(tx: &Transaction<'_>) -> Result<Option<String>, Fault> {
    let said: String = tx.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    Ok(Some(said).filter(|said| said != "ok"))
}

fn lost(tx: &Transaction<'_>, root: &Path) -> Result<Vec<(Held, String)>, Fault> {
    let differences = reconcile::differences(tx, root)?.into_iter();
    Ok(differences
        .filter_map(|difference| match difference {
            Difference::Lost(kind, key) => Some((kind, key)),
            Difference::Found(_) => None,
        })
        .collect())
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_sha256(hash.finalize().into())),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn shown(rows: &[Row], kind: Held, key: &str) -> String {
    match kind {
        Held::Layer => format!("layer {key}"),
        Held::Blob => format!("blob {key}"),
        Held::Cache => {
            let id = rows.iter().find(|row| row.held_as == kind && row.key == key).map(|row| row.id.as_str());
            format!("cache folder {:?}", id.unwrap_or(key))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{layer, noon, opened};
    use super::super::{CacheKey, Record, RecordAbout};
    use super::*;

    fn check(number: LayerNumber, folder: &Path, tree: &[u8]) -> Result<(), String> {
        let text = fs::read_to_string(folder.join("fs/file")).map_err(|error| error.to_string())?;
        if tree == format!("tree of {text}").as_bytes() { Ok(()) } else { Err(format!("file of {number} is {text:?}")) }
    }

    fn verified(store: &Store, repair: bool) -> Verified {
        store.verify(&check, repair, &|path| fs::remove_dir_all(path)).unwrap()
    }

    #[test]
    fn what_is_damaged_is_listed_and_dropped_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let [good, file, tree, lost] = ["good", "file", "tree", "lost"].map(|text| layer(&store, text));
        for number in [good, file] {
            let record = Record { outputs: vec![vec![good, number]], about: RecordAbout::default() };
            store.record(&CacheKey::of("exec", [number.to_string().as_bytes()]), &record).unwrap();
        }
        let [fine, flipped, gone] = ["fine", "flipped", "gone"].map(|text| store.put(text.as_bytes()).unwrap());
        let cache = store.cache_folder("cargo").unwrap();
        let root_layer = layer(&Store::open(folder.path(), "root", noon).unwrap(), "unreadable");
        assert_eq!(verified(&store, true), Verified { blobs: 3, layers: 5, records: 2, damaged: vec![] });

        fs::write(store.layer_path(file).join("fs/file"), "changed").unwrap();
        fs::write(store.layer_path(root_layer).join("fs/file"), "not looked at").unwrap();
        fs::write(store.layer_path(tree).join("tree"), "changed").unwrap();
        fs::remove_dir_all(store.layer_path(lost)).unwrap();
        fs::write(store.blob_path(&flipped), "flopped").unwrap();
        fs::remove_file(store.blob_path(&gone)).unwrap();
        fs::remove_dir_all(cache.parent().unwrap()).unwrap();
        let found = verified(&store, false);
        let mut whats: Vec<_> = found.damaged.iter().map(|damage| damage.what.clone()).collect();
        whats.sort();
        let mut expected = [
            format!("blob {flipped}"),
            format!("blob {gone}"),
            "cache folder \"cargo\"".to_owned(),
            format!("layer {file}"),
            format!("layer {tree}"),
            format!("layer {lost}"),
        ];
        expected.sort();
        assert_eq!(whats, expected, "{found:?}");
        assert!(verified(&store, true).damaged.iter().all(|damage| !damage.dropped), "this handle holds them");
        drop(store);

        let store = opened(folder.path());
        assert!(verified(&store, true).damaged.iter().all(|damage| damage.dropped));
        assert_eq!(verified(&store, false), Verified { blobs: 1, layers: 2, records: 1, damaged: vec![] });
        assert!(store.contains(&fine).unwrap() && !store.contains(&flipped).unwrap());
        assert!(!store.blob_path(&flipped).exists() && !store.layer_path(tree).exists());
    }
}
