//! Mounts of execs, and the outputs that they make.

use roche_engine::Digest;
use roche_engine::op::{CacheSharing, ContentCache, Edge, Exec, Mount, MountKind, SecretEnv, Source};

use crate::{Sketch, cases, exec, strings};

cases![
    mount_bind_rw,
    mount_bind_ro_selector,
    mount_bind_root_of_several,
    mount_bind_last_output,
    mount_same_input_twice,
    mount_readonly_root,
    mount_force_no_output,
    mount_two_outputs_of_one_exec,
    mount_content_cache,
    mount_cache_shared,
    mount_cache_private,
    mount_cache_locked_with_base,
    mount_tmpfs,
    mount_tmpfs_size,
    mount_secret_file,
    mount_secret_env,
    mount_ssh,
    mount_all_kinds,
];

/// The output that `exec` writes at `target`.
fn output(graph: &mut Sketch, exec: Exec, target: &str) -> Edge {
    let exec = exec.ordered();
    let output = exec.output(target).unwrap();
    Edge::new(graph.run(exec), output)
}

fn mount_bind_rw(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let run = Exec::new(busybox, "/", &["touch", "/out/x"]).mount(Mount::bind("/out", None));
    output(graph, run, "/out")
}

fn mount_bind_ro_selector(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let context = graph.add(Source::local("context").attr("local.session", "golden-session"));
    graph.run(Exec::new(busybox, "/", &["ls", "/src"]).mount(Mount::readonly("/src", context).selector("/sub/dir"))).into()
}

fn mount_bind_root_of_several(graph: &mut Sketch) -> Edge {
    let [busybox, a, z] = ["busybox", "a", "z"].map(|name| graph.image(name));
    let run = exec(busybox, "true")
        .mount(Mount::bind("/z", Some(z.into())))
        .mount(Mount::bind("/a", Some(a.into())))
        .mount(Mount::bind("/m/deep", None));
    output(graph, run, "/")
}

fn mount_bind_last_output(graph: &mut Sketch) -> Edge {
    let [busybox, a, b, z] = ["busybox", "a", "b", "z"].map(|name| graph.image(name));
    let run = exec(busybox, "true")
        .mount(Mount::bind("/z", Some(z.into())))
        .mount(Mount::readonly("/b", b))
        .mount(Mount::bind("/a", Some(a.into())));
    output(graph, run, "/z")
}

fn mount_same_input_twice(graph: &mut Sketch) -> Edge {
    let base = graph.image("busybox");
    let run = exec(base, "true").mount(Mount::readonly("/copy1", base)).mount(Mount::readonly("/copy2", base).selector("/etc"));
    graph.run(run).into()
}

fn mount_readonly_root(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let run = exec(busybox, "true").readonly_root().mount(Mount::bind("/out", None));
    output(graph, run, "/out")
}

fn mount_force_no_output(graph: &mut Sketch) -> Edge {
    let [busybox, a] = ["busybox", "a"].map(|name| graph.image(name));
    let run = exec(busybox, "true").mount(Mount::discarded("/scratch", a)).mount(Mount::bind("/zz", None));
    output(graph, run, "/zz")
}

fn mount_two_outputs_of_one_exec(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let first = exec(busybox, "first").mount(Mount::bind("/out", None)).ordered();
    let out = first.output("/out").unwrap();
    let first = graph.run(first);
    graph.run(exec(first, "second").mount(Mount::readonly("/in", Edge::new(first, out)))).into()
}

fn mount_content_cache(graph: &mut Sketch) -> Edge {
    let [busybox, b, a] = ["busybox", "b", "a"].map(|name| graph.image(name));
    let run = exec(busybox, "true")
        .mount(Mount { content_cache: ContentCache::On, ..Mount::readonly("/on", a) })
        .mount(Mount { content_cache: ContentCache::Off, ..Mount::readonly("/off", b) });
    graph.run(run).into()
}

fn mount_cache_shared(graph: &mut Sketch) -> Edge {
    one_mount(graph, Mount::cache("/cache", "cargo", CacheSharing::Shared))
}

fn mount_cache_private(graph: &mut Sketch) -> Edge {
    one_mount(graph, Mount::cache("/cache", "cargo", CacheSharing::Private))
}

fn mount_cache_locked_with_base(graph: &mut Sketch) -> Edge {
    let [busybox, seed] = ["busybox", "seed"].map(|name| graph.image(name));
    let kind = MountKind::Cache { source: Some(seed.into()), id: "target".to_owned(), sharing: CacheSharing::Locked };
    let cache = Mount { kind, ..Mount::discarded("/cache", seed) };
    graph.run(exec(busybox, "true").mount(cache.selector("/target"))).into()
}

fn mount_tmpfs(graph: &mut Sketch) -> Edge {
    one_mount(graph, Mount::tmpfs("/tmp", 0))
}

fn mount_tmpfs_size(graph: &mut Sketch) -> Edge {
    one_mount(graph, Mount::tmpfs("/tmp", 64 << 20))
}

fn one_mount(graph: &mut Sketch, mount: Mount) -> Edge {
    let busybox = graph.image("busybox");
    graph.run(exec(busybox, "true").mount(mount)).into()
}

fn mount_secret_file(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let full = MountKind::Secret { id: "npm".to_owned(), uid: 1000, gid: 1001, mode: 0o440, optional: true };
    let run = exec(busybox, "true")
        .mount(Mount::secret("/run/secrets/plain", "/run/secrets/plain"))
        .mount(Mount { kind: full, ..Mount::secret("/run/secrets/full", "npm") });
    graph.run(run).into()
}

fn mount_secret_env(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let secret = |id: &str, name: &str, optional| SecretEnv { id: id.to_owned(), name: name.to_owned(), optional };
    let secret_env = vec![secret("npm", "TOKEN", false), secret("other", "OTHER", true), secret("both", "BOTH", false)];
    let run = Exec { secret_env, ..exec(busybox, "true") };
    graph.run(run.mount(Mount::secret("/run/secrets/both", "both"))).into()
}

fn mount_ssh(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let deploy = MountKind::Ssh { id: "deploy".to_owned(), uid: 1000, gid: 1001, mode: 0o660, optional: true };
    let run = with_agent(busybox, &["Z=1", "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"])
        .mount(Mount::ssh("/run/buildkit/ssh_agent.0", ""))
        .mount(Mount { kind: deploy, ..Mount::ssh("/run/agent", "deploy") });
    graph.run(run).into()
}

/// The Go client names the first agent in the environment.
fn with_agent(root: Digest, env: &[&str]) -> Exec {
    Exec { env: strings(env), ..exec(root, "true") }
}

fn mount_all_kinds(graph: &mut Sketch) -> Edge {
    let [busybox, a] = ["busybox", "a"].map(|name| graph.image(name));
    let run = with_agent(busybox, &["SSH_AUTH_SOCK=/a-ssh"])
        .mount(Mount::ssh("/a-ssh", ""))
        .mount(Mount::secret("/b-secret", "/b-secret"))
        .mount(Mount::tmpfs("/tmp", 0))
        .mount(Mount::readonly("/ro", a))
        .mount(Mount::bind("/rw", Some(a.into())))
        .mount(Mount::cache("/cache", "c", CacheSharing::Locked))
        .mount(Mount::bind("/Upper", None));
    graph.run(run).into()
}
