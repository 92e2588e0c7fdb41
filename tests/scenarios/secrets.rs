//! Secrets and agents: what steps see of them, and that nothing else does.

use roche_engine::op::{Edge, Mount, MountKind, SecretEnv};

use super::draft::{Draft, bare_shell, shell};
use super::{Expect, Scenario, fails, scenario, tree};

const ENV: &[&str] = &["exec.secretenv"];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "a secret is a file that root alone can read",
            |d| {
                d.secret("word", "hidden\n");
                with(d, "cat /s/word >/out/a; stat -c '%a %u:%g' /s/word >>/out/a; ! echo x 2>/dev/null >>/s/word", |_| {})
            },
            tree(r#"f 0644 0:0 a "hidden\n400 0:0\n""#),
        ),
        scenario(
            "a secret has the mode and the owner that it is given",
            |d| {
                d.secret("word", "hidden\n");
                with(d, "stat -c '%a %u:%g' /s/word >/out/a", |kind| {
                    if let MountKind::Secret { uid, gid, mode, .. } = kind {
                        (*uid, *gid, *mode) = (1234, 2345, 0o440);
                    }
                })
            },
            tree(r#"f 0644 0:0 a "440 1234:2345\n""#),
        )
        .needs_uids(),
        scenario(
            "a secret is not in the tree of the root that it was mounted in",
            |d| {
                d.secret("word", "hidden\n");
                let root = d.busybox();
                let exec = bare_shell(root, "grep -q hidden /run/s/word").mount(Mount::secret("/run/s/word", "word"));
                let root = d.run(exec.ordered());
                d.step(shell(root, "grep -r hidden /run /etc /root /tmp >/out/a || echo none >/out/a"), None)
            },
            tree(r#"f 0644 0:0 a "none\n""#),
        ),
        scenario("a secret that the client lacks fails", |d| with(d, "true", |_| {}), fails(None, "word")),
        scenario(
            "an optional secret that the client lacks is not there",
            |d| {
                with(d, "! test -e /s/word; echo none >/out/a", |kind| {
                    if let MountKind::Secret { optional, .. } = kind {
                        *optional = true;
                    }
                })
            },
            tree(r#"f 0644 0:0 a "none\n""#),
        ),
        scenario(
            "a secret's bytes are kept as they are",
            |d| {
                d.secret("word", "\0\u{1}\r\n\u{ff}");
                with(d, "cp /s/word /out/a; chmod 644 /out/a", |_| {})
            },
            tree(r#"f 0644 0:0 a "\x00\x01\r\n\xc3\xbf""#),
        ),
        scenario(
            "a changed secret does not run a step again",
            |d| {
                let word = d.unique();
                d.secret("word", &word);
                random(d, &word)
            },
            Expect::Any,
        )
        .then(
            |d| {
                let word = d.unique();
                d.secret("word", "another");
                random(d, &word)
            },
            Expect::Same,
        ),
        scenario(
            "an agent that the client lacks fails",
            |d| {
                let root = d.busybox();
                d.step(shell(root, "true").mount(Mount::ssh("/s/agent", "no-agent")), None)
            },
            fails(None, "no-agent"),
        ),
        scenario(
            "an optional agent that the client lacks is not there",
            |d| {
                let root = d.busybox();
                let mut mount = Mount::ssh("/s/agent", "no-agent");
                if let MountKind::Ssh { optional, .. } = &mut mount.kind {
                    *optional = true;
                }
                d.step(shell(root, "! test -e /s/agent; echo none >/out/a").mount(mount), None)
            },
            tree(r#"f 0644 0:0 a "none\n""#),
        ),
        scenario(
            "a secret in the environment is there",
            |d| {
                d.secret("word", "hidden");
                environment(d, false)
            },
            tree(r#"f 0644 0:0 a "<hidden>\n""#),
        )
        .needs(ENV),
        scenario("a secret for the environment that the client lacks fails", |d| environment(d, false), fails(None, "word"))
            .needs(ENV),
        scenario(
            "an optional secret for the environment that the client lacks is empty",
            |d| environment(d, true),
            tree(r#"f 0644 0:0 a "<>\n""#),
        )
        .needs(ENV),
    ]
}

/// Runs a script with the secret `word` in `/s/word`, as `change` has it.
fn with(d: &mut Draft, script: &str, change: fn(&mut MountKind)) -> Edge {
    let root = d.busybox();
    let mut mount = Mount::secret("/s/word", "word");
    change(&mut mount.kind);
    d.step(shell(root, script).mount(mount), None)
}

/// Shows a secret in the environment; what is cached of one is not to answer for another.
fn environment(d: &mut Draft, optional: bool) -> Edge {
    let unique = d.unique();
    let root = d.busybox();
    let mut exec = shell(root, &format!("echo \"<${{WORD-unset}}>\" >/out/a # {unique}"));
    exec.secret_env = vec![SecretEnv { id: "word".to_owned(), name: "WORD".to_owned(), optional }];
    d.step(exec, None)
}

/// Writes a number that no other run writes, beside a secret.
fn random(d: &mut Draft, word: &str) -> Edge {
    with(d, &format!("test -s /s/word; echo {word} >/out/a; head -c 8 /dev/urandom | od -x >>/out/a"), |_| {})
}
