//! Who a step runs as: users and groups by name or number, looked up in the step's own root.
//!
//! Invariant: the files are read as text of bounded size, and never through a link out of the root.
//! The rules are moby's `user.GetExecUser`, with BuildKit's short way for `uid:gid`.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags};

use super::super::mounting;
use crate::local::ids::{self, Ids};

/// The most that is read of `/etc/passwd` or `/etc/group`.
const LIMIT: u64 = 10 << 20;

/// Who a step runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Every group, its own first.
    pub(super) groups: Vec<u32>,
}

/// Finds a user in a root; what is wrong is said in words.
pub(super) fn find(root: BorrowedFd<'_>, asked: &str) -> Result<User, String> {
    if let Some(user) = by_numbers(asked) {
        return Ok(user);
    }
    match look_up(asked, &read(root, "etc/passwd")?, &read(root, "etc/group")?) {
        Err(_) if asked.is_empty() => Ok(User { groups: vec![0], ..User::default() }),
        result => result,
    }
}

/// Finds the home of a user; `/` where it has none.
pub(super) fn home(root: BorrowedFd<'_>, uid: u32) -> String {
    let passwd = read(root, "etc/passwd").unwrap_or_default();
    let mut entries = passwd.lines().map(fields);
    let home = entries.find(|entry| entry.len() >= 6 && entry[2].parse() == Ok(uid)).map(|entry| entry[5].to_owned());
    home.filter(|home| !home.is_empty()).unwrap_or_else(|| "/".to_owned())
}

/// Says why a step cannot run as a user: there is no such id in the user namespace.
pub(super) fn refuse(user: &User, ids: &Ids, owner: &str) -> Result<(), String> {
    let remedy = |id: u32, what: &str| Err(format!("{what} {id} is not mapped: {}", ids::remedy(owner)));
    if !ids.has_user(user.uid) {
        return remedy(user.uid, "uid");
    }
    // Groups cannot be set at all with one id, so there the others do no harm.
    let groups = if *ids == Ids::Single { std::slice::from_ref(&user.gid) } else { &user.groups };
    match groups.iter().find(|gid| !ids.has_group(**gid)) {
        Some(gid) => remedy(*gid, "gid"),
        None => Ok(()),
    }
}

fn by_numbers(asked: &str) -> Option<User> {
    let id = |text: &str| if text == "root" { Some(0) } else { text.parse().ok() };
    let (uid, gid) = asked.split_once(':')?;
    let (uid, gid) = (id(uid)?, id(gid)?);
    Some(User { uid, gid, groups: vec![gid] })
}

fn look_up(asked: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, group_name) = asked.split_once(':').unwrap_or((asked, ""));
    let name = if name.is_empty() { "0" } else { name };
    let number: Option<u32> = name.parse().ok();
    let entry = passwd
        .lines()
        .map(fields)
        .find(|entry| entry.len() >= 4 && (entry[0] == name || (number.is_some() && entry[2].parse().ok() == number)));
    let mut user = match (&entry, number) {
        (Some(entry), _) => {
            let bad = || format!("the entry of user {name:?} in /etc/passwd is damaged");
            let uid = entry[2].parse().map_err(|_| bad())?;
            User { uid, gid: entry[3].parse().map_err(|_| bad())?, groups: Vec::new() }
        }
        (None, Some(uid)) => User { uid, gid: 0, groups: Vec::new() },
        (None, None) => return Err(format!("unable to find user {name}: no matching entries in passwd file")),
    };
    let groups = group.lines().map(fields).filter(|group| group.len() >= 3);
    if group_name.is_empty() {
        let has = |members: &str| entry.as_ref().is_some_and(|entry| members.split(',').any(|member| member == entry[0]));
        let of = groups.filter(|group| group.get(3).is_some_and(|members| has(members)));
        user.groups = of.filter_map(|group| group[2].parse().ok()).collect();
    } else {
        let number: Option<u32> = group_name.parse().ok();
        let found =
            groups.into_iter().find(|group| group[0] == group_name || (number.is_some() && group[2].parse().ok() == number));
        user.gid = match (found.and_then(|group| group[2].parse().ok()), number) {
            (Some(gid), _) | (None, Some(gid)) => gid,
            (None, None) => return Err(format!("unable to find group {group_name}: no matching entries in group file")),
        };
    }
    if !user.groups.contains(&user.gid) {
        user.groups.insert(0, user.gid);
    }
    Ok(user)
}

fn fields(line: &str) -> Vec<&str> {
    line.trim().split(':').map(str::trim).collect()
}

/// Reads a file of the root; a missing one is empty.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String, String> {
    // Never waits for the other end of a fifo.
    let Ok(file) = mounting::within(root, path, OFlags::RDONLY | OFlags::NONBLOCK) else { return Ok(String::new()) };
    let regular = rustix::fs::fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    let mut bytes = Vec::new();
    if regular {
        let read = std::fs::File::from(file).take(LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|error| format!("/{path}: {error}"))?;
    }
    if bytes.len() as u64 > LIMIT {
        return Err(format!("/{path} is larger than {LIMIT} bytes"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# no entry\napp:x:5:50::/app:/bin/sh\nbad:x:y:1\n";
    const GROUP: &str = "root:x:0:\napp:x:50:\ndisk:x:6:root,app\nvideo:x:7:app\n";

    fn found(asked: &str) -> Result<User, String> {
        by_numbers(asked).map_or_else(|| look_up(asked, PASSWD, GROUP), Ok)
    }

    fn user(uid: u32, gid: u32, groups: &[u32]) -> Result<User, String> {
        Ok(User { uid, gid, groups: groups.to_vec() })
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        assert_eq!(found(""), user(0, 0, &[0, 6]));
        assert_eq!(found("app"), user(5, 50, &[50, 6, 7]));
        assert_eq!(found("5"), user(5, 50, &[50, 6, 7]));
        assert_eq!(found("77"), user(77, 0, &[0]));
        assert_eq!(found("app:disk"), user(5, 6, &[6]));
        assert_eq!(found("77:88"), user(77, 88, &[88]));
        assert_eq!(found("root:88"), user(0, 88, &[88]));
        assert_eq!(found("5:50"), user(5, 50, &[50]));
    }

    #[test]
    fn who_is_not_there_is_named() {
        assert_eq!(found("ghost").unwrap_err(), "unable to find user ghost: no matching entries in passwd file");
        assert_eq!(found("app:ghosts").unwrap_err(), "unable to find group ghosts: no matching entries in group file");
        assert!(found("bad").unwrap_err().contains("bad"));
    }

    #[test]
    fn an_id_that_is_not_mapped_comes_with_its_remedy() {
        let refused = refuse(&User { uid: 5, gid: 0, groups: vec![0] }, &Ids::Single, "ann").unwrap_err();
        assert_eq!(
            refused,
            "uid 5 is not mapped: give ann a range: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann (package uidmap)"
        );
        assert!(refuse(&User { uid: 0, gid: 0, groups: vec![0, 6] }, &Ids::Single, "ann").is_ok());
        assert!(refuse(&User { uid: 0, gid: 5, groups: vec![5] }, &Ids::Single, "ann").unwrap_err().contains("gid 5"));
        assert!(refuse(&User { uid: 5, gid: 5, groups: vec![5] }, &Ids::Root, "root").is_ok());
    }
}
