//! Archives that copy unpacks, as Dockerfile's ADD does.

use roche_engine::op::{Copy, Edge, Mkfile, Rm};

use super::draft::{Draft, shell};
use super::{Scenario, fails, scenario, tree};

/// What [`archive`] holds.
const CONTENT: &str = "d 0750 5:6 d\n f 0640 5:6 d/f \"x\\n\" @1000000000\n h d/g = d/f\n l 5:6 d/l -> f";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "unpack of a tar gives owners, modes, times and links",
            |d| {
                let tar = archive(d, "tar -cf /out/a.tar d");
                d.file(None, [Copy { unpack: true, ..Copy::new(tar, "/a.tar", "/") }.into()])
            },
            tree(CONTENT),
        )
        .needs_uids(),
        scenario(
            "unpack reads a gzipped tar",
            |d| {
                let tar = archive(d, "tar -czf /out/a.tgz d");
                d.file(None, [Copy { unpack: true, ..Copy::new(tar, "/a.tgz", "/") }.into()])
            },
            tree(CONTENT),
        )
        .needs_uids(),
        scenario(
            "unpack copies what is no archive",
            |d| {
                let base = d.file(None, [Mkfile::new("/a.tar", 0o644, "no archive").into()]);
                d.file(None, [Copy { unpack: true, ..Copy::new(base, "/a.tar", "/x/") }.into()])
            },
            tree("d 0755 0:0 x\n f 0644 0:0 x/a.tar \"no archive\""),
        ),
        scenario(
            "without unpack an archive is a file",
            |d| {
                let base = d
                    .script("cd /tmp; echo x >f; touch -d @1000000000 f; tar -cf - f >/out/a.tar; tar -tf /out/a.tar >/out/list");
                d.file(
                    None,
                    [
                        Copy::new(base, "/list", "/list").into(),
                        Copy::new(base, "/a.tar", "/a/").into(),
                        Rm::new("/a/a.tar").into(),
                    ],
                )
            },
            tree("d 0755 0:0 a\n f 0644 0:0 list \"f\\n\""),
        ),
        scenario(
            "unpack stays in the target where names lead out",
            |d| {
                let base = d.debian();
                let script = "cd /tmp; mkdir x; echo y >x/escaped; ln -s /tmp a
                    tar -P --transform 's,^x/,../../x/,' -cf /out/a.tar x/escaped";
                let tar = d.step(shell(base, script), None);
                d.file(None, [Copy { unpack: true, ..Copy::new(tar, "/a.tar", "/in/") }.into()])
            },
            tree("d 0755 0:0 in\n d 0755 0:0 in/x\n f 0644 0:0 in/x/escaped \"y\\n\""),
        )
        .own("embedded", "such an archive is refused by name", fails(None, "leads out")),
    ]
}

/// Makes an archive of the folder `d` in `/out`, by Debian's tar.
fn archive(d: &mut Draft, tar: &str) -> Edge {
    let root = d.debian();
    let script = format!(
        "cd /tmp; mkdir -m 750 d; echo x >d/f; chmod 640 d/f; ln d/f d/g; ln -s f d/l
        touch -d @1000000000 d/f; chown -hR 5:6 d; {tar}"
    );
    d.step(shell(root, &script), None)
}
