#![expect(clippy::disallowed_methods, reason = "the tests stand in for the command line")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use roche_engine::solver::HostNode;

use super::*;

/// Runs programs as the command line does, and notes which.
fn runner(ran: &mut Vec<String>) -> impl FnMut(&Path, &[&OsStr], &Path) -> Result<Said, String> {
    |program, args, folder| {
        ran.push(program.file_name().unwrap().to_string_lossy().into_owned());
        let mut command = Command::new(program);
        command.args(args).current_dir(folder).env_clear().env("LC_ALL", "C");
        for name in ["PATH", "HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "CARGO_HOME"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let output = command.output().map_err(|error| error.to_string())?;
        let said = Said { stdout: output.stdout, stderr: output.stderr };
        if output.status.success() { Ok(said) } else { Err(String::from_utf8_lossy(&said.stderr).into_owned()) }
    }
}

/// Finds the toolchain that these tests are compiled with; none where it cannot link static
/// programs, or this user has none.
fn found(cache: Option<&Path>) -> Option<(Toolchain, Vec<String>)> {
    let work = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let (mut ran, now) = (Vec::new(), SystemTime::now());
    let places = Places { path: &path, project: work.path(), work: work.path(), cache, now };
    let found = find(&places, &mut runner(&mut ran));
    match found {
        Err(HostError::Static { .. } | HostError::Missing { .. }) => None,
        found => Some((found.unwrap(), ran)),
    }
}

#[test]
fn this_machine_s_toolchain_is_found_once_and_known_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("host.json");
    let Some((toolchain, ran)) = found(Some(&cache)) else { return };
    assert!(ran.len() > 5, "{ran:?}");
    assert!(toolchain.version.starts_with("rustc ") && toolchain.target.contains("linux"), "{toolchain:?}");

    let (again, ran) = found(Some(&cache)).unwrap();
    assert_eq!((&again, ran.len()), (&toolchain, 1), "{ran:?}");

    // An answer that does not fit the files is not believed.
    let text = fs::read_to_string(&cache).unwrap();
    let other = roche_engine::Digest::of(b"other").to_string();
    fs::write(&cache, text.replace(&toolchain.tree.digest.to_string(), &other)).unwrap();
    let (again, ran) = found(Some(&cache)).unwrap();
    assert_eq!(again, toolchain);
    assert!(ran.len() > 5, "{ran:?}");
}

#[test]
fn the_tree_is_whole_and_sorted_and_nothing_lies_beneath_an_entry() {
    let Some((toolchain, _)) = found(None) else { return };
    let entries = &toolchain.tree.entries;
    assert!(entries.is_sorted_by_key(|entry| &entry.path));
    let paths: BTreeSet<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    for path in &paths {
        assert!(path.starts_with('/') && !path.contains("/../"), "{path}");
        let above = path.match_indices('/').skip(1).map(|(i, _)| &path[..i]);
        assert!(above.filter(|above| paths.contains(above)).count() == 0, "{path} lies beneath an entry");
    }
    for entry in entries {
        match &entry.node {
            HostNode::Bind(path) => assert!(path.canonicalize().unwrap() == *path, "{}", path.display()),
            HostNode::Symlink(target) => assert!(!target.is_empty()),
        }
    }
    let variable = |name: &str| toolchain.env.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap();
    for program in ["rustc", "cargo", "cc"] {
        let places: Vec<String> = variable("PATH").split(':').map(|folder| format!("{folder}/{program}")).collect();
        // A folder above may be a link, as /bin often is.
        let linked = |place: &String| paths.iter().any(|path| place.starts_with(&format!("{path}/")));
        assert!(places.iter().any(|place| paths.contains(place.as_str()) || linked(place)), "{program}: {places:?}");
    }
}

#[test]
fn time_zones_are_named_by_what_they_say() {
    let of = |files: &[(&str, &str)]| {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join("usr/share/zoneinfo").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        zones(root.path())
    };
    let digest = |files: &[(&str, &str)]| of(files).unwrap().digest;
    assert_eq!(digest(&[("UTC", "z"), ("Asia/Tokyo", "t")]), digest(&[("Asia/Tokyo", "t"), ("UTC", "z")]));
    assert_ne!(digest(&[("UTC", "z")]), digest(&[("UTC", "zz")]));
    let entries = of(&[("UTC", "z"), ("Asia/Tokyo", "to")]).unwrap().entries;
    let paths: Vec<(&str, Option<u64>)> = entries.iter().map(|zone| (&*zone.path, zone.size_bytes)).collect();
    assert_eq!(paths, [("", None), ("/Asia", None), ("/Asia/Tokyo", Some(2)), ("/UTC", Some(1))]);
    assert!(of(&[]).unwrap_err().to_string().contains("install tzdata"));
}

#[test]
fn what_is_not_installed_is_named_with_its_remedy() {
    let work = tempfile::tempdir().unwrap();
    let places =
        Places { path: OsStr::new("/nonexistent"), project: work.path(), work: work.path(), cache: None, now: SystemTime::now() };
    let error = find(&places, &mut |_: &Path, _: &[&OsStr], _: &Path| panic!("nothing is run")).unwrap_err();
    assert_eq!(error.to_string(), "rustc was not found in PATH");
    assert!(error.hints()[0].contains("rustup.rs"), "{:?}", error.hints());
    let error = HostError::Static { target: "x86_64-unknown-linux-gnu".to_owned(), reason: String::new() };
    assert!(error.hints()[0].ends_with("rustup target add x86_64-unknown-linux-musl"), "{:?}", error.hints());
}
