//! What is kept between releases: the digests of files, and what the tools answered.
//!
//! Invariant: it only saves work. What is kept is compared with the files before it is believed,
//! a file that cannot be understood is as good as none, and it is written whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use roche_engine::Digest;
use serde_json::{Value, json};

use super::ask::Closure;
use super::digests::{FileId, Known};
use super::layout::Sysroot;

/// What the file says first; another shape of it has another number.
const VERSION: u64 = 1;

/// The largest file that is read; one has some 20 KB for each toolchain.
const LIMIT_BYTES: u64 = 8 << 20;

/// How many toolchains are kept, more than anybody changes between.
const LIMIT: usize = 16;

/// What is kept.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Kept {
    pub(super) digests: BTreeMap<FileId, Known>,
    /// What the tools answered, and the digest of the tree that it made.
    pub(super) closures: BTreeMap<String, (Closure, Digest)>,
}

impl Kept {
    /// Reads what was kept; nothing where it is not there or not understood.
    pub(super) fn read(path: Option<&Path>) -> Self {
        let read = |path: &Path| {
            let mut text = String::new();
            File::open(path).ok()?.take(LIMIT_BYTES).read_to_string(&mut text).ok()?;
            Self::parse(&serde_json::from_str(&text).ok()?)
        };
        path.and_then(read).unwrap_or_default()
    }

    /// Keeps an answer of the tools.
    pub(super) fn answer(&mut self, key: String, closure: Closure, digest: Digest) {
        if self.closures.len() >= LIMIT {
            self.closures.clear();
        }
        self.closures.insert(key, (closure, digest));
    }

    /// Writes everything.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(self.show().to_string().as_bytes())?;
            file.sync_all()
        });
        let result = written.and_then(|()| fs::rename(&new, path));
        if result.is_err() {
            // It may not even be there.
            let _ = fs::remove_file(&new);
        }
        result
    }

    fn show(&self) -> Value {
        let digests = self.digests.iter().map(|((device, inode), known)| {
            json!([device, inode, known.size_bytes, known.mtime_ns, known.ctime_ns, known.digest.to_string()])
        });
        let closures = self.closures.iter().map(|(key, (closure, digest))| {
            // Paths that are not UTF-8 have no place in a tree.
            let paths: Vec<_> = closure.paths.iter().map(|path| path.to_string_lossy()).collect();
            let value = json!({
                "sysroot": closure.sysroot.host.to_string_lossy(), "place": closure.sysroot.place, "paths": paths,
                "target": closure.target, "version": closure.version, "env": closure.env, "digest": digest.to_string(),
            });
            (key.clone(), value)
        });
        let closures: serde_json::Map<String, Value> = closures.collect();
        json!({ "version": VERSION, "digests": digests.collect::<Vec<_>>(), "closures": closures })
    }

    fn parse(value: &Value) -> Option<Self> {
        if value["version"].as_u64() != Some(VERSION) {
            return None;
        }
        let digest = |value: &Value| value.as_str()?.parse::<Digest>().ok();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let known = |value: &Value| {
            let known = Known {
                size_bytes: value[2].as_u64()?,
                mtime_ns: value[3].as_i64()?,
                ctime_ns: value[4].as_i64()?,
                digest: digest(&value[5])?,
            };
            Some(((value[0].as_u64()?, value[1].as_u64()?), known))
        };
        let closure = |value: &Value| {
            let paths = value["paths"].as_array()?.iter().map(|path| path.as_str().map(PathBuf::from));
            let env = value["env"].as_array()?.iter().map(text);
            let closure = Closure {
                sysroot: Sysroot { host: text(&value["sysroot"])?.into(), place: text(&value["place"])? },
                paths: paths.collect::<Option<BTreeSet<_>>>()?,
                target: text(&value["target"])?,
                version: text(&value["version"])?,
                env: env.collect::<Option<Vec<_>>>()?,
            };
            Some((closure, digest(&value["digest"])?))
        };
        let digests = value["digests"].as_array()?.iter().map(known);
        let closures = value["closures"].as_object()?.iter().map(|(key, value)| Some((key.clone(), closure(value)?)));
        Some(Self { digests: digests.collect::<Option<_>>()?, closures: closures.collect::<Option<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let known = Known { size_bytes: u64::MAX, mtime_ns: -1, ctime_ns: i64::MAX, digest: Digest::of(b"a") };
        let closure = Closure {
            sysroot: Sysroot { host: "/home/x/t".into(), place: "/toolchain".to_owned() },
            paths: BTreeSet::from(["/usr/bin/cc".into()]),
            target: "t".to_owned(),
            version: "v".to_owned(),
            env: vec!["PATH=/bin".to_owned()],
        };
        Kept {
            digests: BTreeMap::from([((u64::MAX, 2), known)]),
            closures: BTreeMap::from([("key".to_owned(), (closure, Digest::of(b"tree")))]),
        }
    }

    #[test]
    fn what_is_kept_is_read_back_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.json");
        kept().write(&path).unwrap();
        assert_eq!(Kept::read(Some(&path)), kept());
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.json");
        assert_eq!(Kept::read(None), Kept::default());
        assert_eq!(Kept::read(Some(&path)), Kept::default());
        let good = kept().show().to_string();
        for bad in ["", "[]", "{\"version\":2}", &good[..good.len() - 1], &good.replace("sha256:", ""), &good.replace('9', "x")] {
            fs::write(&path, bad).unwrap();
            assert_eq!(Kept::read(Some(&path)), Kept::default(), "{bad}");
        }
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_that_leaves_nothing() {
        let gone = tempfile::tempdir().unwrap().path().join("host.json");
        assert!(kept().write(&gone).is_err());
    }

    #[test]
    fn answers_do_not_grow_without_end() {
        let (mut kept, closure) = (kept(), kept().closures["key"].0.clone());
        (0..100).for_each(|i| kept.answer(i.to_string(), closure.clone(), Digest::of(b"")));
        assert!(kept.closures.len() <= LIMIT && kept.closures.contains_key("99"));
    }
}
