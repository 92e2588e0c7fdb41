//! What a plan says that the image gains is what the image gains.
//!
//! Red when: a path that a release adds is not in its plan, or one of the plan is not added; a kind,
//! an owner, a mode or a size that the plan names is another one in the image; the next plan on the same
//! images has not learned what only they decide.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Daemon, Project, Roche, image, on_every_daemon};

/// A path that an image gains.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gained {
    kind: String,
    owner: String,
    mode: Option<String>,
    size_bytes: Option<u64>,
}

type Paths = BTreeMap<String, Gained>;

/// What a plan in the json form says.
fn planned(plan: &[u8]) -> Paths {
    let plan: Value = serde_json::from_slice(plan).expect("the json form");
    let entries = plan["contents"].as_array().expect("a list").iter().map(|entry| {
        let text = |key: &str| entry[key].as_str().map(str::to_owned);
        let gained = Gained {
            kind: text("kind").expect("a kind"),
            owner: text("owner").unwrap_or_default(),
            mode: text("mode"),
            size_bytes: entry["sizeBytes"].as_u64(),
        };
        (text("path").expect("a path"), gained)
    });
    entries.collect()
}

/// What is in a folder, which root has written; its own passwd names the owners.
fn in_folder(root: &Path) -> Paths {
    let passwd = fs::read_to_string(root.join("etc/passwd")).expect("the image has a passwd");
    let names: BTreeMap<u32, &str> = passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.nth(2)?.parse().ok()?, line.split(':').next()?))
        })
        .collect();
    let (mut paths, mut folders) = (Paths::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for found in fs::read_dir(&folder).expect("the folder is readable").flatten() {
            let (path, metadata) = (found.path(), found.path().symlink_metadata().expect("it is there"));
            let kind = if metadata.is_dir() {
                folders.push(path.clone());
                "folder"
            } else if metadata.is_symlink() {
                "symlink"
            } else {
                "file"
            };
            let gained = Gained {
                kind: kind.to_owned(),
                owner: names.get(&metadata.uid()).map_or_else(|| metadata.uid().to_string(), |name| (*name).to_owned()),
                mode: Some(format!("{:04o}", metadata.mode() & 0o7777)),
                size_bytes: metadata.is_file().then_some(metadata.len()),
            };
            paths.insert(format!("/{}", path.strip_prefix(root).expect("it lies in it").display()), gained);
        }
    }
    paths
}

/// Holds a plan against the image's files in a folder; sizes of what is compiled nobody knows before.
#[track_caller]
pub(crate) fn assert_as_planned(plan: &[u8], folder: &Path) {
    let (planned, mut there) = (planned(plan), in_folder(folder));
    assert!(planned.len() > 5 && planned.values().all(|gained| gained.mode.is_some()), "{planned:#?}");
    for (path, gained) in &mut there {
        if planned.get(path).is_some_and(|planned| planned.size_bytes.is_none()) {
            assert!(gained.kind != "file" || ["/app/roche-service"].contains(&path.as_str()), "the plan has no size of {path}");
            gained.size_bytes = None;
        }
    }
    let odd: Vec<_> = planned
        .keys()
        .chain(there.keys())
        .filter(|path| planned.get(*path) != there.get(*path))
        .map(|path| format!("{path}: planned {:?}, there is {:?}", planned.get(path), there.get(path)))
        .collect();
    assert!(odd.is_empty(), "{}", odd.join("\n"));
}

on_every_daemon!(a_release_onto_an_image_adds_what_was_planned);
fn a_release_onto_an_image_adds_what_was_planned(daemon: &Daemon) {
    for (runtime, more) in [("runtime-debian", &[][..]), ("runtime-busybox", &["libgcc_s.so.1"])] {
        let (project, tag, runtime) = (Project::example("json"), daemon.tag(), image(runtime));
        let state = tempfile::tempdir().unwrap();
        let roche = || Roche::new(project.root()).on(daemon).env("XDG_STATE_HOME", state.path());
        let images = ["-b".to_owned(), image("build"), "-r".to_owned(), runtime.clone()];
        let plan = roche().arg("release").args(&images).tag(&tag).arg("--dry-run=json").run().succeeds();
        let released = roche().arg("release").args(&images).tag(&tag).run().succeeds();
        let said = if more.is_empty() { "as planned" } else { "was not planned" };
        assert!(released.stderr.contains(said), "{}", released.story());
        let difference = roche().args(["diff", "--all", "--json", &runtime, &tag.name]).run().succeeds();
        let difference: Value = serde_json::from_slice(&difference.stdout).unwrap();
        let changed = difference["changed"].as_array().unwrap().iter().map(|change| &change["new"]);
        let there: BTreeMap<&str, &Value> = (difference["added"].as_array().unwrap().iter().chain(changed))
            .map(|file| (file["path"].as_str().unwrap(), file))
            .collect();
        let planned = planned(&plan.stdout);
        for (path, gained) in &planned {
            let file = there.get(path.as_str()).unwrap_or_else(|| panic!("{path} was planned, and {:?} is there", there.keys()));
            assert_eq!(file["kind"], *gained.kind, "{path}");
            assert_eq!(file["uid"] != 0, gained.owner == "rocheuser", "{path}: {file}");
            assert!(gained.mode.as_ref().is_none_or(|mode| file["mode"] == **mode), "{path}: {file}");
            assert!(gained.size_bytes.is_none_or(|size| file["sizeBytes"] == size), "{path}: {file}");
        }
        // What the runtime lacks of the service's libraries comes on top, and nothing else.
        let top: Vec<&str> = there.keys().filter(|path| !planned.contains_key(**path)).copied().collect();
        assert!(top.iter().all(|path| more.iter().any(|name| path.ends_with(name))), "{top:?}");

        // The next plan on the same images knows all of that, of an edit as well.
        project.write("functions.rs", Project::function("edited"));
        let next = roche().arg("release").args(&images).tag(&tag).arg("--dry-run=json").run().succeeds();
        let next = self::planned(&next.stdout);
        let paths = |paths: &mut dyn Iterator<Item = &String>| paths.cloned().collect::<Vec<_>>();
        let top = top.iter().map(|path| (*path).to_owned());
        let mut expected: Vec<String> = planned.keys().cloned().chain(top).collect();
        expected.sort();
        assert_eq!(paths(&mut next.keys()), expected);
        for (path, gained) in &next {
            let file = there[path.as_str()];
            assert_eq!(file["mode"], *gained.mode.as_ref().unwrap_or_else(|| panic!("{path} has no mode")), "{path}");
            let known = gained.kind == "file" && path != "/app/roche-service";
            assert_eq!(gained.size_bytes, known.then(|| file["sizeBytes"].as_u64().unwrap()), "{path}");
        }
        let again = roche().arg("release").args(&images).tag(&tag).run().succeeds();
        assert!(again.stderr.contains("as planned"), "{}", again.story());
    }
}
