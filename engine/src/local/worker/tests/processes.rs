use super::*;

#[tokio::test]
async fn a_step_runs_and_its_output_and_status_come_back() {
    let bench = Bench::new();
    let ran = bench.run(bench.script("echo out; echo err >&2; mkdir /made; exit 3")).await;
    assert_eq!((ran.ended.status, ran.out.as_str(), ran.err.as_str()), (3, "out\n", "err\n"));
    assert!(!bench.path("work/out/tree").exists(), "a step that fails has no result");
    let allowed = Exec { valid_exit_codes: vec![0, 3], ..bench.script("exit 3") };
    assert_eq!(bench.run(allowed).await.ended.status, 3);
    assert!(bench.path("work/out/tree").exists());
}

#[tokio::test]
async fn what_cannot_run_is_said_in_the_words_of_runc() {
    let bench = Bench::new();
    let layer = bench.layer(1);
    fs::write(layer.join("plain"), "x").unwrap();
    let script = |name: &str, text: &str| {
        fs::write(layer.join(name), text).unwrap();
        fs::set_permissions(layer.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    script("lost", "#!/no/such/interpreter\n");
    script("junk", "\u{1}\u{2}\u{3}");
    let cases = [
        ("none-such", 127, "exec: \"none-such\": executable file not found in $PATH"),
        ("/none", 127, "exec: \"/none\": stat /none: no such file or directory"),
        ("/plain", 126, "exec: \"/plain\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": permission denied"),
        ("/lost", 127, "exec /lost: no such file or directory"),
        ("/junk", 126, "exec /junk: exec format error"),
    ];
    for (program, status, reason) in cases {
        let ran = bench.run(bench.step(&[program])).await;
        assert_eq!((ran.ended.status, ran.ended.reason.as_deref()), (status, Some(reason)), "{ran:?}");
        assert_eq!(ran.err, format!("{reason}\n"));
    }
}

#[tokio::test]
async fn a_signal_is_128_and_its_number() {
    let bench = Bench::new();
    // The kernel keeps signals of its own namespace from PID 1, but for faults.
    let ran = bench.run(bench.script("ulimit -c 0; exec sh -c 'sh -c \"kill -9 \\$\\$\"'")).await;
    assert_eq!(ran.ended.status, 137);
    let limited = Exec { ulimits: vec![Ulimit { name: "cpu".into(), soft: 1, hard: 1 }], ..bench.script("while :; do :; done") };
    assert_eq!(bench.run(limited).await.ended.status, 137);
}

#[tokio::test]
async fn the_working_directory_is_made_and_the_environment_is_the_steps() {
    let bench = Bench::new();
    let exec = Exec { cwd: "/new/work".into(), env: vec!["A=b c".into()], ..bench.script("pwd; env | sort; umask") };
    let ran = bench.run(exec).await;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(ran.out, format!("/new/work\nA=b c\nHOME=/root\n{path}\nPWD=/new/work\n0022\n"));
    assert!(bench.path("work/out/fs/new/work").is_dir());
}

#[tokio::test]
async fn users_are_the_steps_own() {
    let bench = Bench::new();
    let ids = "id -u; id -g; id -G; echo $HOME";
    let ran = bench.run(Exec { user: "app".into(), cwd: "/mine".into(), ..bench.script(&format!("{ids}; touch /mine/x")) }).await;
    if bench.single() {
        assert_eq!(ran.ended.status, 1);
        assert!(ran.err.starts_with("uid 5 is not mapped: give ") && ran.err.contains("usermod --add-subuids"), "{ran:?}");
    } else {
        assert_eq!((ran.ended.status, ran.out.as_str()), (0, "5\n6\n6 7\n/home/app\n"), "{ran:?}");
    }
    let ran = bench.run(Exec { user: "ghost".into(), ..bench.script(ids) }).await;
    assert_eq!((ran.ended.status, ran.err.as_str()), (1, "unable to find user ghost: no matching entries in passwd file\n"));
}

#[tokio::test]
async fn owners_are_kept_where_there_are_ids() {
    let bench = Bench::new();
    let ran = bench.run(bench.script("touch /x && chown 5:6 /x && stat -c %u:%g /x")).await;
    if bench.single() {
        assert_eq!(ran.ended.status, 1, "{ran:?}");
    } else {
        assert_eq!(ran.out, "5:6\n", "{ran:?}");
    }
}

#[tokio::test]
async fn limits_hold() {
    let bench = Bench::new();
    let ulimits = vec![Ulimit { name: "nofile".into(), soft: 64, hard: 128 }];
    let ran = bench.run(Exec { ulimits, ..bench.script("ulimit -Sn; ulimit -Hn; ulimit -u 2>/dev/null || true") }).await;
    assert!(ran.out.starts_with("64\n128\n"), "{ran:?}");
    let ulimits = vec![Ulimit { name: "files".into(), soft: 1, hard: 1 }];
    let failure = bench.try_run(Exec { ulimits, ..bench.script(":") }).await.unwrap_err();
    assert_eq!(failure.to_string(), "setting the limit files to 1:1: there is no such limit");
}
