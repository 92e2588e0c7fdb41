//! The plan on stdout is what a daemon is given, and other programs read it.
//!
//! Red when: the definition that is shown is not the one that is submitted (a vertex more, less or
//! other), or makes other layers by itself; a path, a time or anything else of the machine enters it;
//! json or dot is malformed; an image that was not resolved is passed off as one that was.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use roche_engine::buildkit::{Address, Buildkit, Protocol};
use roche_engine::solver::{Export, JobOptions, Solver as _, progress_channel};
use roche_engine::{Definition, Digest};
use serde_json::Value;

use crate::harness::{Daemon, Ended, Fault, Project, Proxy, Roche, Trace, image, on_docker26, on_every_daemon, unique};

fn plan(daemon: &Daemon, project: &Project, form: &str) -> Ended {
    let tag = "x.invalid/plan:1";
    Roche::release(daemon, project.root()).args(["-t", tag, &format!("--dry-run={form}")]).run().succeeds()
}

on_every_daemon!(the_plan_is_what_the_daemon_is_given);
fn the_plan_is_what_the_daemon_is_given(daemon: &Daemon) {
    let (project, tag) = (Project::hello(&unique()), daemon.tag());
    let llb = ops(&plan(daemon, &project, "llb").stdout);
    let json = vertices(&plan(daemon, &project, "json").stdout);
    let ended = Roche::release(daemon, project.root()).tag(&tag).args(["--progress", "rawjson"]).run().succeeds();
    let trace = Trace::of(&ended.stderr);
    let solved: BTreeSet<String> = trace.of_the_definition().map(|(digest, _)| digest.clone()).collect();

    assert!(llb.len() > 5, "a release has more than {} vertices", llb.len());
    assert_eq!(json, llb, "--dry-run=json and --dry-run=llb name different vertices");
    assert_eq!(solved, llb, "the plan and the solve differ\n{}", ended.story());
}

on_every_daemon!(the_definition_is_sent_byte_for_byte);
fn the_definition_is_sent_byte_for_byte(daemon: &Daemon) {
    let (project, tag, proxy) = (Project::hello(&unique()), daemon.tag(), Proxy::start(daemon, Fault::Never));
    let definition = plan(daemon, &project, "llb").stdout;
    let ended = Roche::release(daemon, project.root()).env("DOCKER_HOST", proxy.host()).tag(&tag).run().succeeds();
    let requests = proxy.requests();
    let holds = |request: &Vec<u8>| request.windows(definition.len()).any(|window| window == definition);
    let sizes: Vec<usize> = requests.iter().map(Vec::len).collect();
    assert!(
        requests.iter().any(holds),
        "none of the requests, of {sizes:?} bytes, holds the {} bytes of --dry-run=llb\n{}",
        definition.len(),
        ended.story()
    );
}

on_every_daemon!(a_small_client_makes_the_same_layers_of_the_plan_s_bytes);
fn a_small_client_makes_the_same_layers_of_the_plan_s_bytes(daemon: &Daemon) {
    let (project, ours, theirs) = (Project::hello(&unique()), daemon.tag(), daemon.tag());
    let llb = plan(daemon, &project, "llb").stdout;
    let json: Value = serde_json::from_slice(&plan(daemon, &project, "json").stdout).unwrap();
    let definition = Definition::decode(&llb).unwrap();
    assert!(definition.encode() == llb, "the client does not send the plan's bytes");
    let client = Buildkit::new(Address::unix(&daemon.socket, Protocol::Docker));
    let exports = vec![Export::Store { names: vec![theirs.name.clone()] }];
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (progress, _) = progress_channel(1 << 20);
        let job = client.open(JobOptions { exports, ..JobOptions::default() }, progress).await.unwrap();
        let solved = job.solve(&definition).await.unwrap();
        job.export(solved, json["image"]["config"].to_string().into_bytes()).await.unwrap();
    });
    Roche::release(daemon, project.root()).tag(&ours).run().succeeds();
    let layers = |tag: &str| daemon.inspect(tag)["RootFS"]["Layers"].clone();
    assert!(layers(&ours.name).as_array().is_some_and(|layers| layers.len() > 1));
    assert_eq!(layers(&theirs.name), layers(&ours.name));
}

on_every_daemon!(two_checkouts_have_one_plan);
fn two_checkouts_have_one_plan(daemon: &Daemon) {
    let text = unique();
    let (first, second) = (Project::hello(&text), Project::hello(&text));
    second.date("functions.rs", 1);
    for form in ["llb", "json", "dot", "mermaid", "html", "dockerfile", "text"] {
        let (ours, theirs) = (plan(daemon, &first, form), plan(daemon, &second, form));
        assert!(ours.stdout == theirs.stdout, "--dry-run={form} differs:\n{}\n{}", ours.story(), theirs.story());
    }
    assert!(plan(daemon, &first, "llb").stdout != plan(daemon, &Project::hello("other"), "llb").stdout, "all plans are equal");
}

on_every_daemon!(other_programs_read_the_plan);
fn other_programs_read_the_plan(daemon: &Daemon) {
    let project = Project::hello("hello");
    let json = plan(daemon, &project, "json").stdout;
    let vertices = vertices(&json);
    let read = pipe(&["python3", "-c", "import json,sys; print(len(json.load(sys.stdin)['vertices']))"], &json);
    assert_eq!(read.trim(), vertices.len().to_string(), "python reads other vertices");
    let read = pipe(&["jq", "-r", ".vertices[].digest"], &json);
    assert_eq!(read.lines().map(str::to_string).collect::<BTreeSet<_>>(), vertices, "jq reads other vertices");
    let versioned: Value = serde_json::from_slice(&json).unwrap();
    assert!(versioned["schemaVersion"].is_u64(), "the schema has no version");

    let dot = plan(daemon, &project, "dot").stdout;
    let drawn = pipe(&["dot", "-Tsvg"], &dot);
    let nodes = drawn.matches("class=\"node\"").count();
    assert!(nodes >= vertices.len(), "graphviz draws {nodes} nodes of {}", vertices.len());
}

on_docker26!(without_a_daemon_the_registry_gives_the_same_plan);
fn without_a_daemon_the_registry_gives_the_same_plan(daemon: &Daemon) {
    let project = Project::hello("hello");
    for form in ["llb", "json"] {
        let with = plan(daemon, &project, form);
        let line = ["release", "-t", "x.invalid/plan:1", &format!("--dry-run={form}")].map(String::from);
        let call = Roche::new(project.root()).env("DOCKER_HOST", "unix:///nonexistent/docker.sock").args(line);
        let without = call.build_image(&image("build")).runtime(&image("runtime-busybox")).run().succeeds();
        assert!(with.stdout == without.stdout, "--dry-run={form} differs:\n{}\n{}", with.story(), without.story());
    }
}

#[test]
fn with_nothing_to_ask_the_plan_says_that_it_is_unresolved() {
    let project = Project::hello("hello");
    let line = ["release", "-b", "127.0.0.1:1/build:1", "-r", "127.0.0.1:1/runtime:1", "-t", "x:1", "--dry-run"];
    let ended = Roche::new(project.root()).env("DOCKER_HOST", "unix:///nonexistent/docker.sock").args(line).run().succeeds();
    let text = ended.stdout_text();
    let (first, below) = text.split_once('\n').expect("a plan has lines");
    assert!(first.contains("unresolved"), "{}", ended.story());
    assert!(!below.contains("sha256:"), "digests that nothing stands behind\n{}", ended.story());
}

/// The digests of a definition's ops, read off its bytes without our decoder: field 1 of
/// `pb.Definition`, repeated bytes; the last one is the terminal, which is no vertex.
fn ops(definition: &[u8]) -> BTreeSet<String> {
    let (mut digests, mut rest) = (Vec::new(), definition);
    while let Some((&tag, after)) = rest.split_first() {
        assert_eq!(tag & 7, 2, "a definition has length-delimited fields alone");
        let (mut length, mut shift, mut data) = (0usize, 0, after);
        while let Some((&byte, after)) = data.split_first() {
            (length, shift, data) = (length | usize::from(byte & 127) << shift, shift + 7, after);
            if byte < 128 {
                break;
            }
        }
        let (field, after) = data.split_at(length);
        if tag >> 3 == 1 {
            digests.push(Digest::of(field).to_string());
        }
        rest = after;
    }
    digests.pop().expect("a definition has a terminal op");
    digests.into_iter().collect()
}

/// The digests of a plan in json.
fn vertices(json: &[u8]) -> BTreeSet<String> {
    let plan: Value = serde_json::from_slice(json).expect("the plan is JSON");
    let vertices = plan["vertices"].as_array().expect("the plan has vertices");
    vertices.iter().map(|vertex| vertex["digest"].as_str().expect("a vertex has a digest").to_string()).collect()
}

/// What a program makes of its standard input.
fn pipe(command: &[&str], input: &[u8]) -> String {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", command[0]));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{} refuses: {}", command[0], String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
