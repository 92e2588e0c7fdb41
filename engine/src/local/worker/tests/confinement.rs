use super::*;

#[tokio::test]
async fn a_step_has_thirteen_capabilities_and_its_system_calls_are_filtered() {
    let bench = Bench::new();
    let status = bench.said("cat /proc/self/status").await;
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":")).unwrap().trim().to_owned();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(set), "00000000a00425fb", "{set}");
    }
    assert_eq!((field("CapInh").as_str(), field("CapAmb").as_str()), ("0000000000000000", "0000000000000000"));
    assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str(), field("Seccomp_filters").as_str()), ("1", "2", "2"));
    // 32 and 33 are the C library's own, which it lets nobody change.
    let ignored = u64::from_str_radix(&field("SigIgn"), 16).unwrap() & !(0b11 << 31);
    assert_eq!(ignored, 0, "{ignored:x}");
    assert_eq!(field("SigBlk"), "0000000000000000");
}

#[tokio::test]
async fn a_user_that_is_not_root_has_no_capability() {
    let bench = Bench::new();
    if !bench.single() {
        let ran = bench.run(Exec { user: "5:6".into(), ..bench.script("grep -E 'Cap(Prm|Eff)' /proc/self/status") }).await;
        assert_eq!(ran.out, "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n");
    }
}

#[tokio::test]
async fn namespaces_mounts_and_devices_are_refused() {
    let bench = Bench::new();
    let script = "unshare -U true; mount -t tmpfs none /data; mknod /dev/sda b 8 0; mknod /x c 1 3; chroot / true && echo chroot; echo 1 > /proc/sys/kernel/panic; echo 1 > /sys/kernel/profiling";
    let ran = bench.run(Exec { valid_exit_codes: vec![0, 1, 2], ..bench.script(script) }).await;
    assert_eq!(ran.out, "chroot\n", "{ran:?}");
    assert_eq!(
        ran.err.matches("Operation not permitted").count()
            + ran.err.matches("permission denied").count()
            + ran.err.matches("must be superuser").count(),
        4,
        "{ran:?}"
    );
    assert_eq!(ran.err.matches("Read-only file system").count() + ran.err.matches("nonexistent").count(), 2, "{ran:?}");
}

#[tokio::test]
async fn a_step_sees_its_own_processes_and_nothing_of_the_machine() {
    let bench = Bench::new();
    let secret = bench.path("outside");
    fs::write(&secret, "x").unwrap();
    let script = format!(
        "echo $$; cd /proc; echo [0-9]*; ls /proc/self/fd | wc -l; ls {} 2>&1; ls /; ls /dev; cat /proc/kcore /proc/timer_list | wc -c; ls /sys/firmware | wc -l",
        secret.display()
    );
    let out = bench.said(&script).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(&lines[..3], &["1", "1", "4"], "0, 1, 2 and the listing itself: {out}");
    assert!(lines[3].contains("No such file"), "{out}");
    let folders = out.split("No such file or directory\n").nth(1).unwrap();
    let expected = "bin\ndata\ndev\netc\nlib\nlib64\nproc\nsys\nusr\ncore\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n0\n0\n";
    assert_eq!(folders, expected);
}

#[tokio::test]
async fn without_network_there_is_a_loopback_that_is_up() {
    let bench = Bench::new();
    let interfaces = |text: &str| -> BTreeSet<String> {
        text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
    };
    assert_eq!(interfaces(&bench.said("cat /proc/net/dev").await), set(&["lo"]));
    assert_eq!(bench.said("cat /sys/class/net/lo/operstate /sys/class/net/lo/flags").await, "unknown\n0x9\n");
    let ran =
        bench.run(Exec { network: Network::Host, ..bench.script("cat /proc/net/dev; touch /sys/x; test -d /sys/class") }).await;
    assert_eq!(interfaces(&ran.out), interfaces(&fs::read_to_string("/proc/net/dev").unwrap()));
    assert!(ran.err.contains("Read-only file system"), "{ran:?}");
}

#[tokio::test]
async fn processes_are_limited() {
    let bench = Bench::new();
    let out = bench.said("grep -E '^Max processes' /proc/self/limits; cat /proc/sys/kernel/pid_max").await;
    let limit: u64 = out.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(limit <= 16_384, "{out}");
}

#[tokio::test]
async fn this_machine_can_run_steps() {
    let bench = Bench::new();
    let fatal: Vec<_> = bench.workers.probe().await.into_iter().filter(|refusal| refusal.fatal).collect();
    assert!(fatal.is_empty(), "{fatal:?}");
    assert!(names(&bench.path("work")).is_empty());
}
