//! Execs: what the process is, its network and what it may do.

use roche_engine::op::{Edge, Exec, Mount, Network, Op, Platform, ProxyEnv, Security, Source, Ulimit};

use crate::{Sketch, amd64, cases, exec, needs, strings};

cases![
    exec_minimal,
    exec_meta,
    exec_shlex,
    exec_proxy,
    exec_valid_exit_zero,
    exec_after_exec_dir,
    exec_network_host,
    exec_network_none,
    exec_security_insecure,
    exec_cdi_device,
    exec_scratch_root,
    exec_platform,
    exec_platform_normalized,
    exec_caps_all,
    exec_caps_none,
];

fn exec_minimal(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    graph.run(exec(busybox, "/bin/true")).into()
}

fn exec_meta(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let host = |name: &str, address: &str| (name.to_owned(), address.to_owned());
    let limit = |name: &str, soft, hard| Ulimit { name: name.to_owned(), soft, hard };
    let run = Exec {
        env: strings(&["PATH=/bin:/usr/bin", "A=1", "B=3", "EMPTY="]),
        user: "rocheuser:rocheuser".to_owned(),
        hostname: "builder".to_owned(),
        cgroup_parent: "/golden".to_owned(),
        extra_hosts: vec![host("one.test", "10.0.0.1"), host("two.test", "fe80::1")],
        ulimits: vec![limit("nofile", 1024, 2048), limit("nproc", -1, -1)],
        valid_exit_codes: vec![0, 1, 137],
        ..Exec::new(busybox, "/work/sub", &["sh", "-c", "env"])
    };
    graph.run(run).into()
}

fn exec_shlex(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    graph.run(Exec::new(busybox, "/", &["sh", "-c", "echo 'hello world'"])).into()
}

fn exec_proxy(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let proxies = ProxyEnv {
        http: "http://p".to_owned(),
        https: "https://p".to_owned(),
        ftp: "ftp://p".to_owned(),
        no: "localhost".to_owned(),
        all: "socks://p".to_owned(),
    };
    graph.run(Exec { proxy_env: Some(proxies), ..exec(busybox, "true") }).into()
}

fn exec_valid_exit_zero(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    graph.run(Exec { valid_exit_codes: vec![0], ..exec(busybox, "true") }).into()
}

fn exec_after_exec_dir(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let one = graph.run(Exec { env: strings(&["A=1", "B=2"]), ..Exec::new(busybox, "/other", &["one"]) });
    graph.run(Exec { env: strings(&["A=1"]), ..Exec::new(one, "/work", &["two"]) }).into()
}

fn exec_network_host(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    graph.run(Exec { network: Network::Host, ..exec(busybox, "true") }).into()
}

fn exec_network_none(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    graph.run(Exec { network: Network::None, ..exec(busybox, "true") }).into()
}

fn exec_security_insecure(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    graph.run(Exec { security: Security::Insecure, ..exec(busybox, "true") }).into()
}

fn exec_cdi_device(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    graph.run(Exec { devices: vec![("vendor.com/gpu=0".to_owned(), true)], ..exec(busybox, "true") }).into()
}

fn exec_scratch_root(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let mounts = vec![Mount::bind("/", None), Mount::readonly("/m", busybox)];
    graph.run(Exec { mounts, ..exec(busybox, "/m/bin/true") }).into()
}

fn exec_platform(graph: &mut Sketch) -> Edge {
    let armhf = Platform { variant: "v7".to_owned(), ..Platform::new("linux", "arm") };
    let busybox = graph.add(Op::on(armhf.clone(), Source::image("docker.io/library/busybox:latest")));
    graph.add(Op::on(armhf, exec(busybox, "true"))).into()
}

/// The Go client normalises an exec's platform, not an image's; here both are as given.
fn exec_platform_normalized(graph: &mut Sketch) -> Edge {
    let image = Source::image("docker.io/library/busybox:latest");
    let busybox = graph.add(Op::on(Platform::new("linux", "aarch64"), image));
    graph.add(Op::on(Platform::new("linux", "arm64"), exec(busybox, "true"))).into()
}

/// For daemons that are known to have every capability: the Go client leaves `PATH` to them.
fn exec_caps_all(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    graph.with(amd64(exec(busybox, "true")), needs("exec.meta.setsdefaultpath")).into()
}

/// For daemons that give a process no `PATH`: the Go client adds one.
fn exec_caps_none(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let env = strings(&["A=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    graph.run(Exec { env, ..exec(busybox, "true") }).into()
}
