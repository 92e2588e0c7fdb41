//! What a release says it was made of is what is in the program.
//!
//! Red when: a scanner's own reader cannot read the list in a released program, or reads another one
//! than the bill of materials has; a bill is written for a program without a list; two releases of
//! the same files have different bills; a time or a place of this machine is in one.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::harness::{Daemon, Project, Roche, Site, files, list_of_crates, on_every_daemon, program, unique};

/// The build image's cargo: the service stands in the image.
const CARGO: &str = "[ \"$1\" = build ] || exit 0\nmkdir -p target/release\ncp /service target/release/roche-service";

const SPDX: &str = "hello.spdx.json";
const CYCLONEDX: &str = "hello.cdx.json";

/// `NAME VERSION` of every crate of a bill but for the image itself.
fn crates(bill: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let listed = |list: &Value, version: &str| -> BTreeSet<String> {
        let one = |package: &Value| format!("{} {}", text(&package["name"]), text(&package[version]));
        list.as_array().expect("a list").iter().map(one).collect()
    };
    if bill["bomFormat"] == "CycloneDX" {
        listed(&bill["components"], "version")
    } else {
        let mut packages = bill["packages"].clone();
        packages.as_array_mut().expect("a list").retain(|package| package["SPDXID"] != "SPDXRef-image");
        listed(&packages, "versionInfo")
    }
}

fn read(project: &Project, file: &str) -> Value {
    serde_json::from_slice(&fs::read(project.path(file)).expect("the bill is written")).expect("the bill is JSON")
}

on_every_daemon!(a_scanner_reads_what_the_bill_says_out_of_the_program);
fn a_scanner_reads_what_the_bill_says_out_of_the_program(daemon: &Daemon) {
    let (project, tag) = (Project::hello(&unique()), daemon.tag());
    let bills = ["--sbom".to_owned(), format!("spdx={SPDX}"), "--sbom".to_owned(), format!("cyclonedx={CYCLONEDX}")];
    let ended = Roche::release(daemon, project.root()).tag(&tag).args(&bills).run().succeeds();
    let service = files(daemon, &tag.name, "/app/roche-service")["/app/roche-service"].content.clone();
    let scanned = auditable_info::audit_info_from_slice(&service, 8 << 20).expect("the program has a list");
    let names: BTreeSet<String> =
        scanned.packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
    assert!(names.len() > 100 && names.iter().any(|name| name.starts_with("tide ")), "{names:?}");
    assert_eq!(scanned.packages.iter().filter(|package| package.root).count(), 1);
    for file in [SPDX, CYCLONEDX] {
        let bill = read(&project, file);
        assert_eq!(crates(&bill), names, "{file}");
        assert!(bill.to_string().contains(&ended.digest()), "{file} does not name the image");
    }
    let spdx = read(&project, SPDX);
    let packages = spdx["packages"].as_array().expect("a list");
    let tide = packages.iter().find(|package| package["name"] == "tide").expect("tide is a crate of the service");
    assert_eq!(tide["checksums"][0]["checksumValue"].as_str().map(str::len), Some(64));
    assert_eq!(tide["licenseDeclared"], "MIT OR Apache-2.0");
    assert!(tide["comment"].as_str().is_some_and(|comment| comment.contains("h1-server")), "{tide}");
}

#[test]
fn a_bill_is_of_the_program_that_is_released_and_the_same_every_time() {
    let package = |name: &str, source: &str| json!({"name": name, "version": "1.0.0", "source": source});
    let mut root = package("own", "local");
    root["root"] = json!(true);
    root["dependencies"] = json!([1]);
    let list = list_of_crates(&json!({"packages": [root, package("unheard-of", "crates.io")]}));
    let site = Site::with_files(CARGO, |root| fs::write(root.join("service"), program(&list)).expect("the service is written"));
    let stand = site.stand("first");
    let places = |stand: &crate::harness::Stand| [stand.out().join("spdx.json"), stand.out().join("cdx.json")];
    let release = |stand: &crate::harness::Stand| {
        let [spdx, cyclonedx] = places(stand);
        let call = site.release(stand).args(["--sbom".to_owned(), format!("spdx={}", spdx.display())]);
        call.args(["--sbom".to_owned(), format!("cyclonedx={}", cyclonedx.display())])
    };
    let (digest, _) = stand.made(release(&stand).run());
    let bills = places(&stand).map(|file| fs::read(file).expect("the bill is written"));
    for bill in &bills {
        let bill: Value = serde_json::from_slice(bill).expect("the bill is JSON");
        assert_eq!(crates(&bill), BTreeSet::from(["own 1.0.0".to_owned(), "unheard-of 1.0.0".to_owned()]));
        let text = bill.to_string();
        assert!(text.contains(&digest) && text.contains("1970-01-01T00:00:00Z"), "{text}");
        assert!(!text.contains(&*stand.out().to_string_lossy()), "{text}");
    }
    let other = site.stand("second");
    other.made(release(&other).run());
    assert_eq!(places(&other).map(|file| fs::read(file).expect("the bill is written")), bills);
    other.made(release(&other).env("SOURCE_DATE_EPOCH", "86400").run());
    let dated = fs::read_to_string(&places(&other)[0]).expect("the bill is written");
    assert!(dated.contains("\"created\": \"1970-01-02T00:00:00Z\""), "{dated}");
    release(&other).env("SOURCE_DATE_EPOCH", "yesterday").run().fails(4, &["SOURCE_DATE_EPOCH is \"yesterday\""]);
}

#[test]
fn a_program_without_a_list_has_no_bill_and_is_not_released() {
    // busybox stands for a service that another toolchain made; the second has a list that is none.
    let broken = program(b"no zlib");
    for service in [None, Some(broken)] {
        let site = Site::with_files(CARGO, |root| {
            let bytes = service.clone().unwrap_or_else(|| fs::read(root.join("bin/busybox")).expect("busybox is there"));
            fs::write(root.join("service"), bytes).expect("the service is written");
        });
        let stand = site.stand("here");
        let bill = stand.out().join("bill.json");
        let call = site.release(&stand).args(["--sbom".to_owned(), format!("spdx={}", bill.display())]);
        call.env("BUILDKIT_PROGRESS", "plain").run().fails(4, &["/app/roche-service has no list of its crates", "roche prepare"]);
        assert!(!bill.exists() && !stand.archive().exists(), "something was written");
        site.nothing_is_left(&stand);
        // Who does not ask gets the image.
        stand.made(site.release(&stand).run());
    }
}

#[test]
fn a_bill_that_cannot_be_is_refused_before_anything_is_read() {
    let project = Project::empty();
    let release =
        |args: &[&str]| Roche::new(project.root()).args(["release", "--builder", "embedded", "-t", "x"]).args(args).run();
    for (flag, says) in [
        ("true", "it needs a file to write"),
        ("spdx", "it needs a file to write"),
        ("spdx=", "the file has no name"),
        ("cyclonedx=-", "standard output is the release's own"),
        ("xml=a", "there are the forms spdx and cyclonedx"),
    ] {
        release(&["--sbom", flag]).fails(2, &[says, "--sbom spdx="]);
    }
    release(&["--dry-run", "--sbom", "spdx=a"]).fails(2, &["--sbom does not go with --dry-run"]);
    let project = Project::hello("hello");
    let release =
        |args: &[&str]| Roche::new(project.root()).args(["release", "--builder", "embedded", "-t", "x"]).args(args).run();
    release(&["--sbom", "spdx=functions.rs"]).fails(2, &["functions.rs is an input of the release"]);
    release(&["--sbom", "spdx=a", "--sbom", "cyclonedx=a"]).fails(2, &["is named twice"]);
    release(&["--sbom", "spdx=missing/a"]).fails(2, &["is in a folder that does not exist"]);
}
