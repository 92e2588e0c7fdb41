//! What a step sees of a machine: names, networks, limits, /proc, /dev.

use roche_engine::op::{Copy, Mount, Network, Ulimit};

use super::draft::{bare_shell, shell};
use super::{Expect, Scenario, fails, scenario, tree};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "a step has the host name that it is given",
            |d| {
                let root = d.busybox();
                let mut exec = shell(root, "hostname >/out/name; cat /etc/hosts | grep -c given-name >/out/in-hosts || true");
                exec.hostname = "given-name".to_owned();
                d.step(exec, None)
            },
            tree("f 0644 0:0 in-hosts \"1\\n\"\n f 0644 0:0 name \"given-name\\n\""),
        ),
        scenario(
            "a step without a host name has the same one everywhere",
            |d| d.script("hostname >/out/name"),
            tree(r#"f 0644 0:0 name "buildkitsandbox\n""#),
        ),
        scenario(
            "a step without a network has loopback alone",
            |d| {
                let root = d.busybox();
                let mut exec =
                    shell(root, "ls /sys/class/net >/out/net; ! wget -q -T 2 -O /dev/null http://127.0.0.1:9/ 2>/dev/null");
                exec.network = Network::None;
                d.step(exec, None)
            },
            tree(r#"f 0644 0:0 net "lo\n""#),
        ),
        scenario(
            "loopback is up without a network",
            |d| {
                let root = d.busybox();
                let script = "echo over loopback >/tmp/f; httpd -p 127.0.0.1:4444 -h /tmp; sleep 1
                    wget -q -O /out/a http://127.0.0.1:4444/f";
                let mut exec = shell(root, script);
                exec.network = Network::None;
                d.step(exec, None)
            },
            tree(r#"f 0644 0:0 a "over loopback\n""#),
        ),
        scenario(
            "extra hosts are in /etc/hosts and not in the tree",
            |d| {
                let root = d.busybox();
                let mut exec = bare_shell(root, "grep -e own.example /etc/hosts | tr '\\t' ' ' >/found");
                exec.extra_hosts = vec![("own.example".to_owned(), "192.0.2.7".to_owned())];
                let root = d.run(exec);
                d.file(
                    None,
                    [
                        Copy::new(root, "/found", "/found").into(),
                        Copy { wildcard: true, allow_empty_wildcard: true, ..Copy::new(root, "/etc/host*", "/") }.into(),
                    ],
                )
            },
            tree(r#"f 0644 0:0 found "192.0.2.7 own.example\n""#),
        ),
        scenario(
            "localhost is known by name",
            |d| {
                d.script(
                    "grep -c -w localhost /etc/hosts >/dev/null; grep -w localhost /etc/hosts | head -n 1 | cut -c 1-9 >/out/a",
                )
            },
            tree(r#"f 0644 0:0 a "127.0.0.1\n""#),
        ),
        scenario(
            "a limit holds",
            |d| {
                let root = d.busybox();
                let mut exec = shell(root, "ulimit -Sn >/out/soft; ulimit -Hn >/out/hard");
                exec.ulimits = vec![Ulimit { name: "nofile".to_owned(), soft: 77, hard: 99 }];
                d.step(exec, None)
            },
            tree("f 0644 0:0 hard \"99\\n\"\n f 0644 0:0 soft \"77\\n\""),
        )
        .needs(&["exec.meta.ulimit"]),
        scenario(
            "/dev has what programs need",
            |d| {
                d.script(
                    "cd /dev; for n in null zero full random urandom tty; do test -c $n; echo $n; done >/out/devices
                    for n in fd stdin stdout stderr; do test -L $n; done; test -d pts; test -d shm
                    head -c 4 zero | wc -c >/out/zeroes; echo x >/dev/null; ! echo x 2>/dev/null >/dev/full",
                )
            },
            tree("f 0644 0:0 devices \"null\\nzero\\nfull\\nrandom\\nurandom\\ntty\\n\"\n f 0644 0:0 zeroes \"4\\n\""),
        ),
        scenario(
            "what is in /dev, /proc and /sys is not in the tree",
            |d| {
                let root = d.busybox();
                let changed =
                    d.run(bare_shell(root, "test -e /proc/1; test -e /sys/class; test -e /dev/null; echo x >/dev/shm/x"));
                let list = "for n in dev proc sys; do if test -e /in/$n; then ls -A /in/$n; fi; done >/out/list";
                d.step(shell(root, list).mount(Mount::readonly("/in", changed)), None)
            },
            tree(r#"f 0644 0:0 list """#),
        ),
        scenario(
            "mount points that a step's mounts made are removed",
            |d| {
                let root = d.busybox();
                let exec = bare_shell(root, "true").mount(Mount::tmpfs("/made/deep/mount", 0));
                let root = d.run(exec.ordered());
                d.step(shell(root, "! test -e /made; echo gone >/out/a"), None)
            },
            tree(r#"f 0644 0:0 a "gone\n""#),
        ),
        scenario(
            "/etc/resolv.conf of a step is not in the tree",
            |d| {
                let root = d.busybox();
                let root = d.run(bare_shell(root, "cat /etc/resolv.conf >/dev/null"));
                d.file(
                    None,
                    [
                        Copy::new(root, "/bin/arch", "/arch").into(),
                        Copy { wildcard: true, allow_empty_wildcard: true, ..Copy::new(root, "/etc/resolv*", "/") }.into(),
                    ],
                )
            },
            tree("l 0:0 arch -> /bin/busybox"),
        ),
        scenario(
            "a step cannot mount, load modules or set the clock",
            |d| {
                d.script("! mount -t tmpfs x /tmp 2>/dev/null; ! date -s 2001-01-01 2>/dev/null >&2; ! chroot /nowhere 2>/dev/null; echo no >/out/a")
            },
            tree(r#"f 0644 0:0 a "no\n""#),
        ),
        scenario(
            "a device that a step makes is kept or refused, and never opens one of the machine's",
            |d| d.script("mknod /out/disk b 8 0; ! head -c 1 /out/disk >/dev/null 2>&1"),
            // BuildKit gives the right to make it and its cgroup keeps it shut.
            Expect::OneOf(vec![tree("b 0644 0:0 disk 8:0"), fails(1, "1")]),
        ),
        scenario(
            "a step lacks the capabilities that reach the machine",
            // net_admin, sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot, sys_time.
            |d| d.script("caps=$(grep CapEff /proc/self/status | cut -f 2); test $((0x$caps & 0x26b1000)) = 0; echo ok >/out/a"),
            tree(r#"f 0644 0:0 a "ok\n""#),
        ),
    ]
}
