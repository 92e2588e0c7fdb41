//! The folder of records: one file a release.
//!
//! Invariants: a record is there whole or not at all, and the user's alone; whatever else lies in the folder, no read takes more
//! than [`LIMIT_BYTES`], follows a link or waits. A file's name says when, whose and by which back end it was, so that most
//! questions open few files:
//!
//! `WHEN-ID-PROJECT-BACKEND.json`, with the time in UTC to the millisecond, and keys of 12 hex digits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use roche_engine::Digest;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use time::OffsetDateTime;

use crate::document::VERSION;
use crate::environment::Environment;

/// The largest record.
const LIMIT_BYTES: u64 = 8 << 20;

/// How many records of a project are kept.
const OF_A_PROJECT: usize = 100;

/// How many are kept in all.
const IN_ALL: usize = 1000;

/// What a file is called until it is whole.
const UNFINISHED: &str = ".new-";

/// How old an unfinished file is that nobody writes any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Names a project or a back end in a file's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(String);

impl Key {
    /// Makes the key of what these bytes name.
    fn of(bytes: &[u8]) -> Self {
        Self(Digest::of(bytes).short().to_owned())
    }

    /// Makes the key of a project by its folder's absolute path.
    pub(crate) fn project(root: &Path) -> Self {
        Self::of(root.as_os_str().as_encoded_bytes())
    }

    /// Makes the key of a back end by its identity, or by its name where it has none.
    pub(crate) fn back_end(identity: &str) -> Self {
        Self::of(identity.as_bytes())
    }
}

/// What a record's file name says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    /// `YYYYMMDDhhmmssmmm`, in UTC.
    when: String,
    /// Eight hex digits.
    pub(crate) id: String,
    pub(crate) project: Key,
    pub(crate) back_end: Key,
}

impl Name {
    /// Names a release that started at a time; `salt` tells it from others of that time.
    pub(crate) fn new(when: OffsetDateTime, project: Key, back_end: Key, salt: &str) -> Self {
        let text = format!(
            "{:04}{:02}{:02}{:02}{:02}{:02}{:03}",
            when.year().clamp(0, 9999),
            u8::from(when.month()),
            when.day(),
            when.hour(),
            when.minute(),
            when.second(),
            when.millisecond()
        );
        let id = Digest::of(format!("{} {} {salt}", when.unix_timestamp_nanos(), project.0).as_bytes());
        Self { when: text, id: id.short()[..8].to_owned(), project, back_end }
    }

    fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.strip_suffix(".json")?.split('-').collect();
        let [when, id, project, back_end] = parts[..] else { return None };
        let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let legal = when.len() == 17
            && when.bytes().all(|byte| byte.is_ascii_digit())
            && hex(id, 8)
            && hex(project, 12)
            && hex(back_end, 12);
        legal.then(|| Self {
            when: when.to_owned(),
            id: id.to_owned(),
            project: Key(project.to_owned()),
            back_end: Key(back_end.to_owned()),
        })
    }

    /// The file's name.
    pub(crate) fn file(&self) -> String {
        format!("{}-{}-{}-{}.json", self.when, self.id, self.project.0, self.back_end.0)
    }
}

/// The folder of records.
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    /// Returns the user's records, where there is a place for them. Nothing is made.
    pub(crate) fn of(environment: &Environment) -> Option<Self> {
        environment.state().map(|state| Self { folder: state.join("releases") })
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lists the records that are looked at, the newest first. A folder that is not there has none.
    pub(crate) fn list(&self) -> io::Result<Vec<Name>> {
        let mut names = self.all()?;
        names.truncate(IN_ALL);
        Ok(names)
    }

    fn all(&self) -> io::Result<Vec<Name>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names: Vec<Name> = entries.flatten().filter_map(|entry| Name::parse(entry.file_name().to_str()?)).collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Reads a record, or what `T` takes of it; the reason why not names the file.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &Name) -> Result<T, String> {
        let path = self.folder.join(name.file());
        let bytes = read(&path).map_err(|why| format!("the record {} is passed over: {why}", path.display()))?;
        understood(&bytes).map_err(|why| format!("the record {} is passed over: {why}", path.display()))
    }

    /// Keeps a record, and forgets the oldest where there are too many.
    pub(crate) fn keep(&self, name: &Name, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > LIMIT_BYTES {
            let why = format!("it would have {} bytes, more than the {LIMIT_BYTES} that are kept of a release", bytes.len());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.folder)?;
        // For its owner alone, as temporary files are made.
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist_noclobber(self.folder.join(name.file()))?;
        self.forget();
        Ok(())
    }

    /// Removes what is too much. Others do the same: what is gone already is no failure, and what cannot be removed stays.
    fn forget(&self) {
        let mut counts: BTreeMap<Key, usize> = BTreeMap::new();
        for (at, name) in self.all().unwrap_or_default().into_iter().enumerate() {
            let count = counts.entry(name.project.clone()).or_default();
            *count += 1;
            if *count > OF_A_PROJECT || at >= IN_ALL {
                let _ = fs::remove_file(self.folder.join(name.file()));
            }
        }
        let now = SystemTime::now();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let unfinished = entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED));
            let age = || now.duration_since(entry.metadata().ok()?.modified().ok()?).ok();
            if unfinished && age().is_some_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Reads a regular file of bounded size.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let found = path.symlink_metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(format!("it has more than {LIMIT_BYTES} bytes"));
    }
    Ok(bytes)
}

/// Reads a record's JSON; one of a later schema is told apart from one that is broken.
fn understood<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Versioned {
        schema_version: u64,
        /// Plans have none.
        release: Option<IgnoredAny>,
    }
    let Versioned { schema_version, release } =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no record: {error}"))?;
    if schema_version != u64::from(VERSION) {
        return Err(format!("its schema is version {schema_version}, and this roche reads version {VERSION}"));
    }
    if release.is_none() {
        return Err("it is no record: it is of no release".to_owned());
    }
    serde_json::from_slice(bytes).map_err(|error| format!("it is no record: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    fn records() -> (tempfile::TempDir, Records) {
        let state = tempfile::tempdir().unwrap();
        let records = Records { folder: state.path().join("a/releases") };
        (state, records)
    }

    fn name(second: i64, project: &str) -> Name {
        let when = OffsetDateTime::from_unix_timestamp(1_700_000_000 + second).unwrap();
        Name::new(when, Key::project(Path::new(project)), Key::back_end("d"), "1")
    }

    #[test]
    fn a_name_says_what_it_was_made_of_and_sorts_by_time() {
        let name = name(0, "/a");
        assert_eq!(Name::parse(&name.file()), Some(name.clone()));
        assert!(name.file().starts_with("20231114221320000-"), "{}", name.file());
        assert!(self::name(1, "/a") > name);
        for other in ["", ".json", "x.json", "20231114221320000-1-2-3.json", ".new-abc", &name.file().to_uppercase()] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let (_state, records) = records();
        fs::create_dir_all(&records.folder).unwrap();
        // As if written long ago: what is forgotten is decided at the next record.
        (0..OF_A_PROJECT).for_each(|at| fs::write(records.folder.join(name(at as i64, "/a").file()), "{}").unwrap());
        let others = (0..IN_ALL).map(|at| name(1000 + at as i64, &format!("/{at}")));
        others.for_each(|name| fs::write(records.folder.join(name.file()), "{}").unwrap());
        records.keep(&name(5000, "/a"), b"{}").unwrap();
        let left = records.list().unwrap();
        assert_eq!((left.len(), &left[0]), (IN_ALL, &name(5000, "/a")));
        assert_eq!(left.iter().filter(|left| left.project == Key::project(Path::new("/a"))).count(), 1);

        let (_state, records) = self::records();
        (0..=OF_A_PROJECT).for_each(|at| records.keep(&name(at as i64, "/a"), b"{}").unwrap());
        let left = records.list().unwrap();
        assert_eq!((left.len(), left.last()), (OF_A_PROJECT, Some(&name(1, "/a"))));
    }

    #[cfg(unix)]
    #[test]
    fn a_record_is_its_owner_s_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_state, records) = records();
        records.keep(&name(0, "/a"), b"{}").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&records.folder), mode(&records.folder.join(name(0, "/a").file()))), (0o700, 0o600));
        assert!(records.keep(&name(1, "/a"), &vec![b' '; LIMIT_BYTES as usize + 1]).is_err());
        assert_eq!(fs::read_dir(&records.folder).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_name() {
        let (_state, records) = records();
        fs::create_dir_all(&records.folder).unwrap();
        let table = [
            ("", "no record"),
            ("{\"schemaVersion\": 2}", "version 2"),
            ("{\"schemaVersion\": 1}", "of no release"),
            ("{\"schemaVersion\": 1, \"release\": {}}", "no record"),
            ("[[[[", "no record"),
        ];
        for (at, (text, says)) in table.into_iter().enumerate() {
            let name = name(at as i64, "/a");
            fs::write(records.folder.join(name.file()), text).unwrap();
            let why = records.read::<Document>(&name).unwrap_err();
            assert!(why.contains(says) && why.contains(&name.file()), "{why}");
        }
        fs::create_dir(records.folder.join(name(9, "/a").file())).unwrap();
        assert!(records.read::<Document>(&name(9, "/a")).unwrap_err().contains("not a regular file"));
    }
}
