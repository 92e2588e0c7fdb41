//! `runtime.sh`: the user, the shared objects, and what is refused.

use std::os::unix::fs::MetadataExt as _;

use super::*;

/// The smallest program that names no loader: a header without segments.
fn static_program() -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..5].copy_from_slice(b"\x7fELF\x02");
    header
}

struct Case {
    _outer: tempfile::TempDir,
    root: PathBuf,
}

impl Case {
    /// A runtime with `files`, and a static service.
    fn new(files: &[(&str, &str)]) -> Self {
        let (outer, root) = tree(&[("out/", ""), ("gives/", ""), ("runtime/", "")]);
        add(&root.join("runtime"), files);
        fs::write(root.join("static"), static_program()).unwrap();
        Self { _outer: outer, root }
    }

    fn run(&self, shell: &[&str], service: &Path, entrypoint: &str) -> Output {
        let [runtime, out, gives] = ["runtime", "out", "gives"].map(|place| self.root.join(place));
        for place in [&out, &gives] {
            fs::remove_dir_all(place).unwrap();
            fs::create_dir(place).unwrap();
        }
        let project = self.root.join("project");
        executable(&project.join("run.sh"), "#!/bin/sh\n");
        add(&project, &[("Cargo.toml", "[package]\n"), ("target/release/", "")]);
        fs::copy(service, project.join("target/release/roche-service")).unwrap();
        run(shell, "runtime.sh", &[&project, &runtime, &out, &gives, Path::new(entrypoint)], &[])
    }

    /// Runs with the static service; it must succeed.
    fn users(&self, shell: &[&str]) -> (String, String) {
        let output = self.run(shell, &self.root.join("static"), "direct");
        assert!(output.status.success(), "{shell:?} {}", stderr(&output));
        (self.out("etc/passwd"), self.out("etc/group"))
    }

    /// Runs, which must fail; returns what was said.
    fn refused(&self, shell: &[&str], service: &Path, entrypoint: &str) -> String {
        let output = self.run(shell, service, entrypoint);
        assert_eq!(output.status.code(), Some(1), "{shell:?} {}", stderr(&output));
        stderr(&output)
    }

    /// Lists what the image gains beside the service.
    fn gained(&self) -> Vec<String> {
        list(&self.root.join("out"))
    }

    fn out(&self, path: &str) -> String {
        fs::read_to_string(self.root.join("out").join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

/// This test's own program, its loader and its shared objects (name, path) on this machine.
struct Service {
    path: PathBuf,
    loader: String,
    objects: Vec<(String, String)>,
}

impl Service {
    fn this() -> Self {
        let path = std::env::current_exe().unwrap();
        let output = Command::new("ldd").arg(&path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (mut loader, mut objects) = (None, Vec::new());
        for line in text.lines() {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [name, "=>", path, ..] => objects.push((name.to_owned(), path.to_owned())),
                [path, ..] if path.starts_with('/') => loader = Some(path.to_owned()),
                _ => {}
            }
        }
        Self { path, loader: loader.expect("tests are dynamic programs"), objects }
    }

    fn folder(&self) -> &str {
        let (_, libc) = self.objects.iter().find(|(name, _)| name == "libc.so.6").expect("tests are made for glibc");
        libc.rsplit_once('/').unwrap().0
    }

    /// Puts the loader and every object but libgcc under `root`, at `folder`.
    fn install(&self, root: &Path, folder: &str) {
        let copy = |from: &str, to: &str| {
            let to = root.join(to.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        };
        copy(&self.loader, &self.loader);
        for (name, path) in self.objects.iter().filter(|(name, _)| !name.starts_with("libgcc_s")) {
            copy(path, &format!("{folder}/{name}"));
        }
    }
}

#[test]
fn nothing_at_all_gets_root_and_rocheuser() {
    for shell in SHELLS {
        let case = Case::new(&[]);
        let (passwd, group) = case.users(shell);
        assert_eq!(passwd, "root:x:0:0:root:/root:/sbin/nologin\nrocheuser:x:100:100::/app:/sbin/nologin\n");
        assert_eq!(group, "root:x:0:\nrocheuser:x:100:\n");
        assert_eq!(case.gained(), ["etc/group", "etc/passwd"]);
    }
}

#[test]
fn the_service_s_files_have_the_modes_that_they_were_built_with_and_their_owner_stands_beside_them() {
    for shell in SHELLS {
        let case = Case::new(&[("etc/passwd", "a:x:1:1::/:\nrocheuser:x:8:9::/home:/bin/sh"), ("etc/group", "nine:x:9:")]);
        case.users(shell);
        let given = case.root.join("gives");
        let mode = |name: &String| fs::metadata(given.join(name)).unwrap().mode() & 0o7777;
        let seen: Vec<_> = list(&given).into_iter().map(|name| (mode(&name), name)).collect();
        let expected = ["Cargo.toml", "etc/group", "etc/passwd", "roche-service", "run.sh"];
        let modes = [0o644, 0o644, 0o644, 0o644, 0o755];
        assert_eq!(seen, modes.into_iter().zip(expected.map(str::to_owned)).collect::<Vec<_>>());
        let read = |file: &str| fs::read_to_string(given.join(file)).unwrap();
        let ids = ("rocheuser:x:8:9::/home:/bin/sh\n".to_owned(), "rocheuser:x:9:\n".to_owned());
        assert_eq!((read("etc/passwd"), read("etc/group")), ids);
        assert!(case.root.join("out/app").is_dir());
    }
}

#[test]
fn no_owner_is_changed_where_all_have_the_same() {
    let case = Case::new(&[("app/", ""), ("etc/", "")]);
    // What a step with a single uid sees when it tries.
    executable(&case.root.join("bin/chown"), "#!/bin/sh\necho 'chown: Invalid argument' >&2\nexit 1\n");
    let path = format!("{}:{}", case.root.join("bin").display(), std::env::var("PATH").unwrap());
    let [project, runtime, out, gives] = ["project", "runtime", "out", "gives"].map(|place| case.root.join(place));
    add(&project, &[("Cargo.toml", ""), ("run.sh", ""), ("target/release/", "")]);
    fs::copy(case.root.join("static"), project.join("target/release/roche-service")).unwrap();
    let args = [&project, &runtime, &out, &gives, Path::new("direct")];
    let output = run(&["/bin/dash"], "runtime.sh", &args, &[("PATH", &path)]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn ids_are_the_lowest_that_are_free_and_a_last_line_without_end_is_kept() {
    for shell in SHELLS {
        let case = Case::new(&[("etc/passwd", "a:x:100:5:::\nb:x:102:5:::"), ("etc/group", "users:x:100:\nc:x:101:\nd:x:1000:")]);
        let (passwd, group) = case.users(shell);
        assert_eq!(passwd, "a:x:100:5:::\nb:x:102:5:::\nrocheuser:x:101:102::/app:/sbin/nologin\n");
        assert_eq!(group, "users:x:100:\nc:x:101:\nd:x:1000:\nrocheuser:x:102:\n");
    }
}

#[test]
fn a_user_or_a_group_that_is_there_is_kept() {
    for shell in SHELLS {
        let text = "rocheuser:x:4242:7::/home:/bin/sh\n";
        let case = Case::new(&[("etc/passwd", text), ("etc/group", "seven:x:7:\n")]);
        assert_eq!(case.users(shell), (text.to_owned(), "seven:x:7:\n".to_owned()));
        let case = Case::new(&[("etc/passwd", ""), ("etc/group", "rocheuser:x:555:\n")]);
        let group = "rocheuser:x:555:\n".to_owned();
        assert_eq!(case.users(shell), ("rocheuser:x:100:555::/app:/sbin/nologin\n".to_owned(), group));
    }
}

#[test]
fn no_free_id_is_said() {
    let passwd: String = (100..1000).map(|id| format!("u{id}:x:{id}:1:::\n")).collect();
    let case = Case::new(&[("etc/passwd", &passwd)]);
    let said = case.refused(&["/bin/dash"], &case.root.join("static"), "direct");
    assert!(said.contains("no free system id left in /etc/passwd"), "{said}");
}

#[test]
fn folders_keep_their_mode_and_linked_files_become_real_ones() {
    for shell in SHELLS {
        let case = Case::new(&[("etc/passwd", "->/store/passwd"), ("store/passwd", "x:x:1:1:::\n")]);
        fs::set_permissions(case.root.join("runtime/etc"), fs::Permissions::from_mode(0o711)).unwrap();
        assert!(case.users(shell).0.starts_with("x:x:1:1:::\nrocheuser:"));
        assert_eq!(case.gained(), ["etc/group", "etc/passwd"]);
        assert!(!case.root.join("out/etc/passwd").is_symlink());
        assert_eq!(fs::metadata(case.root.join("out/etc")).unwrap().permissions().mode() & 0o7777, 0o711);
    }
}

#[test]
fn links_where_folders_are_needed_and_circles_are_refused() {
    for shell in SHELLS {
        let case = Case::new(&[("etc", "->data"), ("data/", "")]);
        assert!(case.refused(shell, &case.root.join("static"), "direct").contains("a link at /etc, to /data"));
        let case = Case::new(&[("app", "->/srv")]);
        assert!(case.refused(shell, &case.root.join("static"), "direct").contains("a link at /app, to /srv"));
        let case = Case::new(&[("etc/passwd", "->group"), ("etc/group", "->passwd")]);
        assert!(case.refused(shell, &case.root.join("static"), "direct").contains("a circle of links"));
    }
}

#[test]
fn a_runtime_without_a_shell_cannot_run_a_script() {
    for shell in SHELLS {
        let case = Case::new(&[]);
        let said = case.refused(shell, &case.root.join("static"), "script");
        assert!(said.contains("`--entrypoint direct`"), "{said}");
        let case = Case::new(&[("bin", "->usr/bin")]);
        executable(&case.root.join("runtime/usr/bin/busybox"), "");
        add(&case.root, &[("runtime/usr/bin/sh", "->/bin/busybox")]);
        let output = case.run(shell, &case.root.join("static"), "script");
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

#[test]
fn a_runtime_without_a_c_library_gets_the_loader_and_every_object() {
    let service = Service::this();
    for shell in SHELLS {
        let case = Case::new(&[]);
        let output = case.run(shell, &service.path, "direct");
        assert!(output.status.success(), "{shell:?} {}", stderr(&output));
        let out = case.gained();
        assert!(out.contains(&service.loader[1..].to_owned()), "{out:?}");
        for (name, _) in &service.objects {
            assert!(out.contains(&format!("{}/{name}", &service.folder()[1..])), "{name} {out:?}");
        }
    }
}

#[test]
fn only_what_the_runtime_lacks_is_copied_to_where_its_links_lead() {
    let service = Service::this();
    let libgcc = service.objects.iter().find(|(name, _)| name.starts_with("libgcc_s")).expect("tests need libgcc");
    for shell in SHELLS {
        let case = Case::new(&[("lib", "->usr/lib"), ("lib64", "->/usr/lib64"), ("usr/lib/", ""), ("usr/lib64/", "")]);
        let runtime = case.root.join("runtime");
        // fs::copy follows the links as they lead here, so the files go where they end.
        let loader = service.loader.replacen("/lib", "/usr/lib", 1);
        fs::copy(&service.loader, runtime.join(&loader[1..])).unwrap();
        let folder = service.folder().replacen("/usr/lib", "/lib", 1).replacen("/lib", "/usr/lib", 1);
        fs::create_dir_all(runtime.join(&folder[1..])).unwrap();
        for (name, path) in service.objects.iter().filter(|(name, _)| *name != libgcc.0) {
            fs::copy(path, runtime.join(&folder[1..]).join(name)).unwrap();
        }
        let output = case.run(shell, &service.path, "direct");
        assert!(output.status.success(), "{shell:?} {}", stderr(&output));
        assert_eq!(case.gained(), ["etc/group".to_owned(), "etc/passwd".to_owned(), format!("{}/{}", &folder[1..], libgcc.0)]);
    }
}

#[test]
fn another_c_library_is_refused_and_both_are_named() {
    let service = Service::this();
    for shell in SHELLS {
        let case = Case::new(&[("lib/ld-musl-x86_64.so.1", "")]);
        let said = case.refused(shell, &service.path, "direct");
        assert!(said.contains("for glibc") && said.contains("has musl (/lib/ld-musl-x86_64.so.1)"), "{said}");
    }
}

/// Stands for a loader of the runtime that says what an older one says.
const OLDER: &str = "#!/bin/sh
case $* in
*--version*) echo 'ld.so (Old GLIBC 2.10) stable release version 2.10.' ;;
*) echo \"x: /lib/libc.so.6: version \\`GLIBC_2.34' not found (required by x)\" && exit 1 ;;
esac
";

#[test]
fn an_older_c_library_is_refused_and_both_versions_are_named() {
    let service = Service::this();
    for shell in SHELLS {
        let case = Case::new(&[]);
        executable(&case.root.join("runtime").join(&service.loader[1..]), OLDER);
        let said = case.refused(shell, &service.path, "direct");
        assert!(said.contains("GLIBC_2.34") && said.contains("has the older Old GLIBC 2.10"), "{said}");
    }
}

#[test]
fn parts_of_another_build_of_the_same_c_library_are_not_mixed() {
    let service = Service::this();
    for shell in SHELLS {
        let case = Case::new(&[]);
        let other = format!(
            "#!/bin/sh\ncase $* in\n*--version*) echo 'ld.so (Other GLIBC 9.9) stable release version 9.9.' ;;\n*) echo 'libc.so.6 => {}/libc.so.6 (0x0)' ;;\nesac\n",
            service.folder()
        );
        executable(&case.root.join("runtime").join(&service.loader[1..]), &other);
        let said = case.refused(shell, &service.path, "direct");
        assert!(said.contains("lacks libc.so.6 of its C library (Other GLIBC 9.9)"), "{said}");
    }
}

#[test]
fn a_service_that_is_no_program_is_refused() {
    let case = Case::new(&[("x", "text")]);
    assert!(case.refused(&["/bin/dash"], &case.root.join("runtime/x"), "direct").contains("not an ELF program"));
    // A runtime that has everything gets nothing but the users.
    let service = Service::this();
    service.install(&case.root.join("runtime"), service.folder());
    let libgcc = service.objects.iter().find(|(name, _)| name.starts_with("libgcc_s")).expect("tests need libgcc");
    fs::copy(&libgcc.1, case.root.join("runtime").join(&service.folder()[1..]).join(&libgcc.0)).unwrap();
    let output = case.run(&["/bin/dash"], &service.path, "direct");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(case.gained(), ["etc/group", "etc/passwd"]);
}
