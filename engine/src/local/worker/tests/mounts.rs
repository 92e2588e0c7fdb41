use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::overlay::OPAQUE;
use super::*;
use crate::local::trees::tree::{Kind, Tree};

#[tokio::test]
async fn changes_go_to_the_upper_and_mount_points_vanish() {
    let bench = Bench::new();
    if !bench.overlays().await {
        return;
    }
    bench.said("echo two > /data/new; rm /data/deep/file").await;
    assert_eq!(bench.changed(), set(&["data", "dev", "etc", "proc", "sys"]), "as BuildKit leaves it");
    assert_eq!(fs::read_to_string(bench.path("work/out/fs/data/new")).unwrap(), "two\n");
    let gone = fs::symlink_metadata(bench.path("work/out/fs/data/deep/file")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(names(&bench.path("work/out")), set(&["fs", "tree"]));
    assert_eq!(fs::read_to_string(bench.path("layers/1/fs/data/deep/file")).unwrap(), "one");
}

#[tokio::test]
async fn a_result_has_a_tree_and_equal_results_have_equal_digests() {
    let bench = Bench::new();
    if !bench.overlays().await {
        return;
    }
    let tree = |work: &str| Tree::decode(&fs::read(bench.path(work).join("tree")).unwrap()).unwrap();
    bench.said("mkdir /data/new; echo x > /data/new/file; rm /data/deep/file").await;
    let first = tree("work/out");
    assert!(matches!(first.nodes[&b"data/deep/file"[..]].kind, Kind::Whiteout));
    assert!(matches!(first.nodes[&b"data/new/file"[..]].kind, Kind::File { size_bytes: 2, .. }));
    let mut exec = bench.script("rm /data/deep/file; mkdir /data/new; sleep 0.01; echo x > /data/new/file");
    exec.mounts[0] = bench.writable("/", &[1], "again");
    assert_eq!(bench.run(exec).await.ended.status, 0);
    assert_eq!(tree("work/again").content_digest(), first.content_digest());
}

#[tokio::test]
async fn a_folder_that_was_replaced_has_the_mark() {
    let bench = Bench::new();
    if !bench.overlays().await {
        return;
    }
    bench.said("rm -r /data; mkdir /data; touch /data/other").await;
    let mut value = [0; 8];
    let len = rustix::fs::lgetxattr(bench.path("work/out/fs/data"), OPAQUE, &mut value).unwrap();
    assert_eq!(&value[..len], b"y");
}

#[tokio::test]
async fn a_stack_shows_its_newest_layer_and_can_be_read_only() {
    let bench = Bench::new();
    fs::create_dir_all(bench.layer(2).join("data/deep")).unwrap();
    fs::write(bench.layer(2).join("data/deep/file"), "two").unwrap();
    for number in 3..100 {
        fs::write(bench.layer(number).join(format!("file{number}")), "").unwrap();
    }
    let layers: Vec<u64> = (1..100).collect();
    let mut exec = bench.script("cat /data/deep/file; ls -d /file* | wc -l; touch /data/x 2>&1 || cat /stack/data/deep/file; touch /stack/x 2>&1; touch /one/x 2>&1");
    exec.mounts[0] = Mount { readonly: true, ..mount("/", Source::Layers { layers: layers.clone(), upper: None }) };
    exec.mounts.push(Mount { readonly: true, ..mount("/stack", Source::Layers { layers: vec![1, 2], upper: None }) });
    exec.mounts.push(Mount { readonly: true, ..mount("/one", Source::Layers { layers: vec![1], upper: None }) });
    let ran = bench.run(exec).await;
    assert!(ran.out.starts_with("two97\n"), "{ran:?}");
    assert!(ran.out.contains("two"), "{ran:?}");
    assert_eq!(ran.out.matches("Read-only file system").count(), 3, "{ran:?}");
    assert_eq!(names(&bench.path("layers/1/fs")), set(&["data", "etc"]));
}

#[tokio::test]
async fn an_empty_writable_mount_is_a_plain_folder() {
    let bench = Bench::new();
    let mut exec = bench.script("touch /out/file");
    exec.mounts.push(bench.writable("/out", &[], "plain"));
    assert_eq!(bench.run(exec).await.ended.status, 0);
    assert_eq!(names(&bench.path("work/plain/fs")), set(&["file"]));
    assert_eq!(names(&bench.path("work/plain")), set(&["fs", "tree"]));
    assert!(!bench.changed().contains("out"));
}

#[tokio::test]
async fn a_selector_stays_inside_and_may_be_a_file() {
    let bench = Bench::new();
    std::os::unix::fs::symlink("/../../../../data/deep", bench.layer(1).join("link")).unwrap();
    let readonly = |target: &str, selector: &str| Mount {
        selector: selector.into(),
        readonly: true,
        ..mount(target, Source::Layers { layers: vec![1], upper: None })
    };
    let mut exec = bench.script("cat /a/file /b");
    exec.mounts.push(readonly("/a", "/link"));
    exec.mounts.push(readonly("/b", "data/deep/file"));
    assert_eq!(bench.run(exec).await.out, "oneone");
    let mut exec = bench.script(":");
    exec.mounts.push(readonly("/a", "/none"));
    let reason = bench.run(exec).await.ended.reason.unwrap();
    assert!(reason.contains("\"/none\" of the source at /a"), "{reason}");
}

#[tokio::test]
async fn caches_stay_and_memory_does_not() {
    let bench = Bench::new();
    for round in ["", "1\n"] {
        let mut exec = bench.script("cat /cache/x 2>/dev/null; echo 1 > /cache/x; echo 1 > /memory/x; stat -f -c %S:%b /memory");
        exec.mounts.push(mount("/cache", Source::Cache { folder: "caches/key/fs".into(), start: Vec::new() }));
        exec.mounts.push(mount("/memory", Source::Tmpfs { size_bytes: 1 << 20 }));
        assert_eq!(bench.run(exec).await.out, format!("{round}4096:256\n"));
    }
    assert!(bench.changed().is_subset(&set(&["data", "dev", "etc", "proc", "sys"])));
}

#[tokio::test]
async fn a_secret_is_a_file_of_its_owner_and_never_on_disk() {
    let bench = Bench::new();
    let mut exec = bench.script("cat /run/secrets/s; stat -c %a:%u:%g /run/secrets/s; echo x > /run/secrets/s");
    let gid = if bench.single() { 0 } else { 6 };
    exec.mounts.push(mount("/run/secrets/s", Source::Secret { bytes: b"hush\n".to_vec(), mode: 0o440, uid: 0, gid }));
    let ran = bench.run(Exec { valid_exit_codes: vec![0, 1, 2], ..exec }).await;
    assert_eq!(ran.out, format!("hush\n440:0:{gid}\n"), "{ran:?}");
    assert!(ran.err.contains("Read-only file system"), "{ran:?}");
    assert!(bench.changed().is_subset(&set(&["data", "dev", "etc", "proc", "sys"])));
}

#[tokio::test]
async fn a_secret_for_an_owner_that_is_not_mapped_comes_with_a_remedy() {
    let mut bench = Bench::new();
    let mut exec = bench.script("cat /run/s");
    exec.mounts.push(mount("/run/s", Source::Secret { bytes: b"hush\n".to_vec(), mode: 0o440, uid: 5, gid: 0 }));
    bench.workers.identity = Identity { ids: Ids::Single, mappers: None, user: "ann".to_owned(), lacking: None };
    let ran = bench.run(exec).await;
    let reason = ran.ended.reason.unwrap();
    assert!(reason.contains("the secret at /run/s: uid 5 is not mapped: give ann a range"), "{reason}");
    assert_eq!((ran.ended.status, ran.out.as_str()), (1, ""));
}

#[tokio::test]
async fn a_host_tree_is_read_only_and_holds_what_was_named() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("file"), "host").unwrap();
    let entry = |path: &str, node| HostEntry { path: path.into(), node };
    let mut entries = vec![
        entry("/opt/tool", HostNode::Bind(folder.path().to_owned())),
        entry("/opt/one", HostNode::Bind(folder.path().join("file"))),
        entry("/short", HostNode::Symlink("opt/tool".into())),
    ];
    for name in ["usr", "bin", "lib", "lib64"] {
        if Path::new("/").join(name).exists() {
            entries.push(entry(&format!("/{name}"), HostNode::Bind(Path::new("/").join(name))));
        }
    }
    let mut exec = bench.script("cat /short/file /opt/one; ls /opt /; for f in /opt/tool/file /opt/x /x; do echo x > $f; done");
    exec.mounts = vec![Mount { readonly: true, ..mount("/", Source::Host { entries: entries.clone() }) }];
    exec.mounts.push(bench.writable("/work", &[], "out"));
    let ran = bench.run(Exec { cwd: "/work".into(), valid_exit_codes: vec![0, 1, 2], ..exec }).await;
    assert!(ran.out.starts_with("hosthost"), "{ran:?}");
    assert!(!ran.out.contains("home") && ran.out.contains("work"), "{ran:?}");
    assert_eq!(ran.err.matches("Read-only file system").count(), 3, "{ran:?}");
    assert_eq!(names(folder.path()), set(&["file"]));

    // What is bound is never written to, not even to make a place for the next one.
    entries.push(entry("/opt/tool/more/file", HostNode::Bind("/etc/passwd".into())));
    let mut exec = bench.script(":");
    exec.mounts = vec![Mount { readonly: true, ..mount("/", Source::Host { entries }) }];
    assert!(bench.try_run(exec).await.unwrap_err().to_string().contains("/etc/passwd"));
    assert_eq!(names(folder.path()), set(&["file"]));
}

#[tokio::test]
async fn hosts_and_names_are_as_in_buildkit() {
    let bench = Bench::new();
    let hosts = "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    assert_eq!(bench.said("cat /proc/sys/kernel/hostname /etc/hosts").await, format!("buildkitsandbox\n{hosts}"));
    let exec =
        Exec { hostname: "box".into(), extra_hosts: vec![("db".into(), "10.0.0.9".into())], ..bench.script("cat /etc/hosts") };
    let out = bench.run(exec).await.out;
    assert!(out.starts_with("127.0.0.1\tlocalhost box\n") && out.ends_with("10.0.0.9\tdb\n"), "{out}");
    assert!(bench.changed().is_subset(&set(&["data", "dev", "etc", "proc", "sys"])));
    let exec = Exec { network: Network::Host, ..bench.script("cat /etc/resolv.conf") };
    assert_eq!(bench.run(exec).await.out, fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
}

#[tokio::test]
async fn copied_layers_show_what_an_overlay_would() {
    let bench = Bench::new();
    if !bench.overlays().await {
        return;
    }
    bench.said("rm /data/deep/file; ln -s deep /data/link; echo new > /data/deep/new; ln /data/deep/new /data/deep/hard; chmod 700 /data/deep").await;
    fs::rename(bench.path("work/out"), bench.path("layers/2")).unwrap();
    let into = bench.path("flat");
    fs::create_dir(&into).unwrap();
    flatten::flatten(&[bench.path("layers/1/fs"), bench.path("layers/2/fs")], &into).unwrap();
    assert_eq!(names(&into.join("data/deep")), set(&["hard", "new"]));
    let meta = |path: &str| fs::symlink_metadata(into.join(path)).unwrap();
    assert_eq!(meta("data/deep/hard").ino(), meta("data/deep/new").ino());
    assert_eq!(meta("data/deep").mode() & 0o777, 0o700);
    assert!(meta("data/link").is_symlink() && meta("etc/passwd").is_file());
}
