//! Ids: which users and groups a worker can have, by the rights of the user who runs the engine.
//!
//! Invariant: id 0 inside is always the user who runs the engine, so that what a worker makes can
//! be read by the engine's own process.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The most ids that a range gives: what images use, and what `useradd` hands out.
const IDS: u32 = 65_536;

/// How the user namespace of workers maps ids.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Every id is itself: the engine runs as root.
    Root,
    /// 0 is the user, the rest comes from the ranges that `/etc/subuid` and `/etc/subgid` give.
    Range {
        /// How users are mapped.
        uids: Vec<IdRange>,
        /// How groups are mapped.
        gids: Vec<IdRange>,
    },
    /// 0 is the user, and there is no other id.
    Single,
}

/// Ids that follow each other on both sides.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdRange {
    /// The first one in the namespace.
    pub(crate) inside: u32,
    /// The first one on the machine.
    pub(crate) outside: u32,
    /// How many there are.
    pub(crate) count: u32,
}

impl Ids {
    /// Returns the store's name for this way of mapping ("root", "range", "single").
    pub(crate) fn mode(&self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Range { .. } => "range",
            Self::Single => "single",
        }
    }

    /// Says whether a process in the namespace can be user `uid`.
    pub(crate) fn has_user(&self, uid: u32) -> bool {
        self.has(uid, |uids, _| uids)
    }

    /// Says whether a process in the namespace can be in group `gid`.
    pub(crate) fn has_group(&self, gid: u32) -> bool {
        self.has(gid, |_, gids| gids)
    }

    fn has(&self, id: u32, side: impl for<'a> Fn(&'a [IdRange], &'a [IdRange]) -> &'a [IdRange]) -> bool {
        match self {
            Self::Root => id != u32::MAX,
            Self::Single => id == 0,
            Self::Range { uids, gids } => {
                side(uids, gids).iter().any(|range| id.checked_sub(range.inside).is_some_and(|above| above < range.count))
            }
        }
    }
}

/// Who runs the engine and what ids workers get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The ids.
    pub(crate) ids: Ids,
    /// The programs that map ranges; there where `ids` is a range.
    pub(crate) mappers: Option<Mappers>,
    /// The user's name, or number where it has none.
    pub(crate) user: String,
    /// Why there is but one id, in words; absent where there are more.
    pub(crate) lacking: Option<String>,
}

/// The set-uid programs of the package `uidmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mappers {
    /// `newuidmap`.
    pub(crate) users: PathBuf,
    /// `newgidmap`.
    pub(crate) groups: PathBuf,
}

/// What [`find`] decides by; the caller has read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// The effective user id.
    pub(crate) uid: u32,
    /// The effective group id.
    pub(crate) gid: u32,
    /// The text of `/etc/passwd`, for the user's name.
    pub(crate) passwd: &'a str,
    /// The text of `/etc/subuid`.
    pub(crate) subuid: &'a str,
    /// The text of `/etc/subgid`.
    pub(crate) subgid: &'a str,
    /// The folders in which programs are looked for.
    pub(crate) path: &'a [PathBuf],
}

/// Finds the most ids that the user can have.
pub(crate) fn find(facts: &Facts<'_>) -> Identity {
    let number = facts.uid.to_string();
    let user = name_of(facts.passwd, &number).unwrap_or(&number).to_owned();
    if facts.uid == 0 {
        return Identity { ids: Ids::Root, mappers: None, user, lacking: None };
    }
    let single = |lacking: String| Identity { ids: Ids::Single, mappers: None, user: user.clone(), lacking: Some(lacking) };
    let uids = map(facts.uid, ranges(facts.subuid, &user, &number));
    let gids = map(facts.gid, ranges(facts.subgid, &user, &number));
    let (Some(uids), Some(gids)) = (uids, gids) else {
        return single(format!("{user} has no ranges in /etc/subuid and /etc/subgid"));
    };
    match (program(facts.path, "newuidmap"), program(facts.path, "newgidmap")) {
        (Some(users), Some(groups)) => {
            let mappers = Some(Mappers { users, groups });
            Identity { ids: Ids::Range { uids, gids }, mappers, user, lacking: None }
        }
        _ => single("newuidmap and newgidmap (package uidmap) are not installed".to_owned()),
    }
}

/// Returns the command that gives a user ids.
pub(crate) fn remedy(user: &str) -> String {
    format!("give {user} a range: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user} (package uidmap)")
}

fn name_of<'a>(passwd: &'a str, number: &str) -> Option<&'a str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number && !name.is_empty()).then_some(name)
    })
}

/// Returns the ranges of a user, who stands there by name or by number, in the file's order.
fn ranges<'a>(text: &'a str, user: &'a str, number: &'a str) -> impl Iterator<Item = (u32, u32)> + 'a {
    text.lines().filter_map(move |line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let first = fields.next()?.parse::<u32>().ok()?;
        let count = fields.next()?.parse::<u32>().ok()?.min(u32::MAX - first);
        ((owner == user || owner == number) && count > 0).then_some((first, count))
    })
}

/// Maps 0 to the own id and the ranges from 1 on, one after the other.
fn map(own: u32, ranges: impl Iterator<Item = (u32, u32)>) -> Option<Vec<IdRange>> {
    let mut map = vec![IdRange { inside: 0, outside: own, count: 1 }];
    let mut inside = 1;
    for (outside, count) in ranges {
        let count = count.min(IDS + 1 - inside);
        // The kernel refuses a map that names an id twice.
        if count > 0 && !map.iter().any(|range| overlap(range.outside, range.count, outside, count)) {
            map.push(IdRange { inside, outside, count });
            inside += count;
        }
    }
    (map.len() > 1).then_some(map)
}

fn overlap(first: u32, count: u32, other: u32, others: u32) -> bool {
    u64::from(first) < u64::from(other) + u64::from(others) && u64::from(other) < u64::from(first) + u64::from(count)
}

fn program(path: &[PathBuf], name: &str) -> Option<PathBuf> {
    path.iter().map(|folder| folder.join(name)).find(|program| runs(program))
}

fn runs(program: &Path) -> bool {
    program.is_file() && rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";

    fn mappers(folder: &Path) {
        for name in ["newuidmap", "newgidmap"] {
            fs::write(folder.join(name), "").unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn found(subuid: &str, subgid: &str, path: &[PathBuf]) -> Identity {
        find(&Facts { uid: 1000, gid: 100, passwd: PASSWD, subuid, subgid, path })
    }

    #[test]
    fn root_has_every_id() {
        let identity = find(&Facts { uid: 0, gid: 0, passwd: PASSWD, subuid: "", subgid: "", path: &[] });
        assert_eq!((identity.ids.clone(), identity.user.as_str()), (Ids::Root, "root"));
        assert!(identity.ids.has_user(4_000_000_000) && !identity.ids.has_user(u32::MAX));
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let folder = tempfile::tempdir().unwrap();
        mappers(folder.path());
        let path = [PathBuf::from("/nowhere"), folder.path().to_owned()];
        let identity = found("bob:5:5\nann:100000:65536\n", "1000:200000:10\nbroken\nann:300000:10\n", &path);
        let own = |outside| IdRange { inside: 0, outside, count: 1 };
        let uids = vec![own(1000), IdRange { inside: 1, outside: 100_000, count: 65_536 }];
        let gids = vec![
            own(100),
            IdRange { inside: 1, outside: 200_000, count: 10 },
            IdRange { inside: 11, outside: 300_000, count: 10 },
        ];
        assert_eq!(identity.ids, Ids::Range { uids, gids });
        assert_eq!(identity.mappers.unwrap().users, folder.path().join("newuidmap"));
        assert!(identity.ids.has_user(65_536) && !identity.ids.has_user(65_537));
        assert!(identity.ids.has_group(20) && !identity.ids.has_group(21));
    }

    #[test]
    fn a_range_over_the_own_id_or_of_no_ids_is_none() {
        let folder = tempfile::tempdir().unwrap();
        mappers(folder.path());
        let path = [folder.path().to_owned()];
        for ranges in ["ann:999:5", "ann:5:0", "ann:x:5", "ann", ""] {
            assert_eq!(found(ranges, "ann:5:5", &path).ids, Ids::Single, "{ranges}");
        }
        let Ids::Range { uids, .. } = found("ann:4294967290:4294967290\n", "ann:5:5", &path).ids else { panic!("a range") };
        assert_eq!(uids[1].count, 5);
    }

    #[test]
    fn without_ranges_or_mappers_there_is_one_id_and_a_reason() {
        let identity = found("ann:100000:65536", "ann:100000:65536", &[]);
        assert_eq!(identity.ids, Ids::Single);
        assert!(identity.lacking.unwrap().contains("newuidmap"));
        assert!(found("", "", &[]).lacking.unwrap().contains("/etc/subuid"));
        assert!(!Ids::Single.has_user(1) && Ids::Single.has_user(0));
    }
}
