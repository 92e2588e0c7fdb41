//! What comes in from outside: folders of the client's, and images.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use roche_engine::op::{Copy, Edge, Source};

use super::draft::Draft;
use super::{Expect, Kind, Scenario, scenario, tree};
use crate::harness::{image, registry};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "a local folder comes with modes and links, as root's",
            |d| local(d, "all", |source| source),
            tree(
                "f 0644 0:0 a.txt \"a\\n\"\n d 0750 0:0 dir\n f 0755 0:0 dir/run \"#!\"\n d 0755 0:0 dir/sub
                 f 0600 0:0 dir/sub/deep.txt \"deep\\n\"\n d 0755 0:0 empty\n l 0:0 link -> dir/sub\n l 0:0 out -> /etc/hostname
                 f 0644 0:0 z.log \"\"",
            ),
        ),
        scenario(
            "a local folder is filtered by what is included",
            |d| local(d, "included", |source| source.list("local.includepattern", &["*.txt", "dir/sub"])),
            tree("f 0644 0:0 a.txt \"a\\n\"\n d 0750 0:0 dir\n d 0755 0:0 dir/sub\n f 0600 0:0 dir/sub/deep.txt \"deep\\n\""),
        ),
        scenario(
            "a local folder is filtered by what is excluded",
            |d| local(d, "excluded", |source| source.list("local.excludepatterns", &["**/*.txt", "link", "out", "dir/run"])),
            tree("d 0750 0:0 dir\n d 0755 0:0 dir/sub\n d 0755 0:0 empty\n f 0644 0:0 z.log \"\""),
        ),
        scenario(
            "an exclamation mark takes back what is excluded",
            |d| local(d, "taken-back", |source| source.list("local.excludepatterns", &["*", "!dir/sub"])),
            tree("d 0750 0:0 dir\n d 0755 0:0 dir/sub\n f 0600 0:0 dir/sub/deep.txt \"deep\\n\""),
        ),
        scenario(
            "a local folder's followed paths come with what they link to",
            |d| local(d, "followed", |source| source.list("local.followpaths", &["link"])),
            tree("d 0750 0:0 dir\n d 0755 0:0 dir/sub\n f 0600 0:0 dir/sub/deep.txt \"deep\\n\"\n l 0:0 link -> dir/sub"),
        ),
        scenario(
            "a local folder that the job does not offer fails",
            |d| d.add(Source::local("not-offered")),
            Expect::Fails(Kind::Step(None), "not-offered"),
        ),
        scenario(
            "an edited local folder is read again",
            |d| {
                d.local("edited", |path| fs::write(path.join("f"), "one").expect("a file is written"));
                d.add(Source::local("edited"))
            },
            tree(r#"f 0644 0:0 f "one""#),
        )
        .then(
            |d| {
                d.local("edited", |_| {});
                fs::write(d.locals["edited"].path.join("f"), "two, longer").expect("a file is written");
                d.add(Source::local("edited"))
            },
            tree(r#"f 0644 0:0 f "two, longer""#),
        ),
        scenario(
            "an image is named by a tag",
            |d| passwd(d, &image("runtime-busybox")),
            tree(r#"f 0644 0:0 passwd "root:x:0:0:root:/root:/bin/sh\n""#),
        ),
        scenario(
            "an image is named by its digest",
            |d| {
                let pinned = format!("{}/runtime-busybox@{}", registry(), digest());
                passwd(d, &pinned)
            },
            tree(r#"f 0644 0:0 passwd "root:x:0:0:root:/root:/bin/sh\n""#),
        ),
        scenario(
            "an image that the registry does not have fails",
            |d| passwd(d, &format!("{}/no-such-image:1", registry())),
            Expect::Fails(Kind::Registry, "no-such-image"),
        ),
        scenario(
            "a registry that does not answer fails",
            |d| passwd(d, "127.0.0.1:1/image:1"),
            Expect::Fails(Kind::Registry, "127.0.0.1:1"),
        ),
    ]
}

fn passwd(d: &mut Draft, reference: &str) -> Edge {
    let image = d.image(reference);
    d.file(None, [Copy::new(image, "/etc/passwd", "/passwd").into()])
}

/// The digest of BusyBox's manifest, as the registry tells it.
fn digest() -> String {
    let headers = ["Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"];
    let response = crate::harness::request("GET", &registry(), "/v2/runtime-busybox/manifests/1", &headers);
    roche_engine::Digest::of(response.expect("the registry answers").body.as_bytes()).to_string()
}

/// A folder with all that a local source may hold.
fn local(d: &mut Draft, name: &str, attributes: fn(Source) -> Source) -> Edge {
    d.local(name, fill);
    d.add(attributes(Source::local(name)))
}

fn fill(path: &Path) {
    let file = |name: &str, content: &str, mode: u32| {
        fs::write(path.join(name), content).expect("a file is written");
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).expect("a mode is set");
    };
    let folder = |name: &str, mode: u32| {
        fs::create_dir(path.join(name)).expect("a folder is made");
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).expect("a mode is set");
    };
    folder("dir", 0o750);
    folder("dir/sub", 0o755);
    folder("empty", 0o755);
    file("a.txt", "a\n", 0o644);
    file("z.log", "", 0o644);
    file("dir/run", "#!", 0o755);
    file("dir/sub/deep.txt", "deep\n", 0o600);
    symlink("dir/sub", path.join("link")).expect("a link is made");
    symlink("/etc/hostname", path.join("out")).expect("a link is made");
}
