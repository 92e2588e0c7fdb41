//! What is run again and what is not.

use roche_engine::op::{CacheSharing, Copy, Edge, Metadata, Mkfile, Mount};

use super::draft::{Draft, shell};
use super::{Expect, Scenario, fails, scenario, tree};

/// Prints a number that no other run prints.
const RANDOM: &str = "head -c 16 /dev/urandom | od -x";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "a step that two take in runs once",
            |d| {
                let random = random(d);
                let root = d.busybox();
                let left = d.step(shell(root, "cp /in/r /out/left").mount(Mount::readonly("/in", random)), None);
                let right = d.step(shell(root, "cp /in/r /out/right").mount(Mount::readonly("/in", random)), None);
                let exec = shell(root, "cmp /l/left /r/right; cmp /l/left /own/r; echo same >/out/a");
                let exec = exec.mount(Mount::readonly("/l", left)).mount(Mount::readonly("/r", right));
                d.step(exec.mount(Mount::readonly("/own", random)), None)
            },
            tree(r#"f 0644 0:0 a "same\n""#),
        ),
        scenario(
            "equal steps are one and run once",
            |d| {
                let (one, two) = (random(d), random(d));
                let root = d.busybox();
                let exec = shell(root, "cmp /one/r /two/r; echo same >/out/a").mount(Mount::readonly("/one", one));
                d.step(exec.mount(Mount::readonly("/two", two)), None)
            },
            tree(r#"f 0644 0:0 a "same\n""#),
        ),
        scenario("a step that was run is not run again", random, Expect::Any).then(random, Expect::Same),
        scenario("a step runs again where its command changes", random, Expect::Any)
            .then(|d| d.script(&format!("echo {} and more >/dev/null; {RANDOM} >/out/r", d.unique())), Expect::Differs),
        scenario("a step that ignores the cache runs again", ignoring, Expect::Any).then(ignoring, Expect::Differs),
        scenario("a step runs again where its input changes", |d| after(d, "one"), Expect::Any)
            .then(|d| after(d, "two"), Expect::Differs)
            .then(|d| after(d, "two"), Expect::Same),
        scenario("a step with equal inputs made otherwise is not run again", |d| read_only(d, false), Expect::Any)
            .then(|d| read_only(d, true), Expect::Same),
        scenario("a step that failed runs again", once_failing, fails(1, "1"))
            // A daemon merges what jobs do at the same time, and a job's end takes it a moment.
            .then(|d| d.script(&format!("echo {}; sleep 3", d.unique())), Expect::Any)
            .then(once_failing, tree(r#"f 0644 0:0 a "passed\n""#)),
        scenario("a cache mount's id is no part of what a step is", |d| beside_cache(d, "one"), Expect::Any)
            .then(|d| beside_cache(d, "two"), Expect::Same)
            .own("docker20", "it takes the id into the cache key", Expect::Differs),
        scenario("an extra host's address is no part of what a step is", |d| with_host(d, "192.0.2.1"), Expect::Any)
            .then(|d| with_host(d, "192.0.2.2"), Expect::Same),
        scenario(
            "a failure stops what takes it in and nothing that came before",
            |d| {
                let id = d.unique();
                let root = d.busybox();
                let cache = |d: &mut Draft| Mount::cache("/c", &d.unique(), CacheSharing::Locked);
                let mount = cache(d);
                let failing = d.step(shell(root, &format!("echo {id}; exit 5")).mount(mount), None);
                let mount = cache(d);
                d.step(shell(root, "touch /c/ran-after-all; ls /out").mount(mount), Some(failing))
            },
            fails(5, "5"),
        )
        .then(
            |d| {
                let root = d.busybox();
                let mount = Mount::cache("/c", &d.unique(), CacheSharing::Locked);
                d.step(shell(root, &format!("ls -A /c >/out/ran # {}", d.unique())).mount(mount), None)
            },
            tree(r#"f 0644 0:0 ran """#),
        ),
    ]
}

/// A step whose output no other run and no other scenario has.
fn random(d: &mut Draft) -> Edge {
    d.script(&format!("echo {} >/dev/null; {RANDOM} >/out/r", d.unique()))
}

fn ignoring(d: &mut Draft) -> Edge {
    let root = d.busybox();
    let exec =
        shell(root, &format!("echo {} >/dev/null; {RANDOM} >/out/r", d.unique())).mount(Mount::bind("/out", None)).ordered();
    let output = exec.output("/out").expect("it is a writable mount");
    let step = d.run_with(exec, Metadata { ignore_cache: true, ..Metadata::default() });
    d.file(None, [Copy::new(Edge::new(step.vertex, output), "/r", "/r").into()])
}

/// A random step over a file of this content.
fn after(d: &mut Draft, content: &str) -> Edge {
    let base = d.file(None, [Mkfile::new("/input", 0o644, content).into()]);
    let random = d.script_over(Some(base), &format!("echo {} >/dev/null; {RANDOM} >/out/r", d.unique()));
    d.file(None, [Copy::new(random, "/r", "/r").into()])
}

/// A random step that reads a tree which is made in one of two ways.
fn read_only(d: &mut Draft, otherwise: bool) -> Edge {
    let timestamp_ns = Some(1_000_000_000_000_000_000);
    let file = |content: &str| Mkfile { timestamp_ns, ..Mkfile::new("/f", 0o644, content) };
    let base =
        if otherwise { d.file(None, [file("another").into(), file("same").into()]) } else { d.file(None, [file("same").into()]) };
    let root = d.busybox();
    let exec = shell(root, &format!("echo {} >/dev/null; {RANDOM} >/out/r", d.unique()));
    d.step(exec.mount(Mount::readonly("/in", base)), None)
}

/// Fails when it runs for the first time.
fn once_failing(d: &mut Draft) -> Edge {
    let root = d.busybox();
    let mount = Mount::cache("/c", &d.unique(), CacheSharing::Locked);
    let unique = d.unique();
    let script = format!("if test -e /c/ran; then echo passed >/out/a; else touch /c/ran; exit 1; fi # {unique}");
    d.step(shell(root, &script).mount(mount), None)
}

/// A random step with a cache of its own.
fn beside_cache(d: &mut Draft, id: &str) -> Edge {
    let root = d.busybox();
    let unique = d.unique();
    let exec = shell(root, &format!("{RANDOM} >/out/r # {unique}"));
    d.step(exec.mount(Mount::cache("/c", &format!("{unique}-{id}"), CacheSharing::Shared)), None)
}

/// A random step that knows a host.
fn with_host(d: &mut Draft, address: &str) -> Edge {
    let root = d.busybox();
    let mut exec = shell(root, &format!("{RANDOM} >/out/r # {}", d.unique()));
    exec.extra_hosts = vec![("own.example".to_owned(), address.to_owned())];
    d.step(exec, None)
}
