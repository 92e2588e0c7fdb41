//! Graphs of several ops: merges, diffs, nested builds, chains, diamonds, a whole release.

use std::collections::BTreeMap;

use roche_engine::op::{
    Build, CacheSharing, Copy, Diff, Edge, Exec, File, Merge, Metadata, Mkdir, Mkfile, Mount, Network, Owner, Source,
};

use crate::{Sketch, amd64, cases, exec, strings};

cases![
    merge_two,
    merge_three_with_scratch_and_twin,
    diff_both,
    diff_lower_scratch,
    diff_upper_scratch,
    diff_same_input,
    build,
    build_filename,
    chain_deep,
    diamond,
    release,
    release_stripped,
];

fn merge_two(graph: &mut Sketch) -> Edge {
    let [a, b] = ["a", "b"].map(|name| graph.image(name).into());
    graph.add(Merge { inputs: vec![a, b] }).into()
}

/// The Go client drops empty trees from a merge before it writes the op.
fn merge_three_with_scratch_and_twin(graph: &mut Sketch) -> Edge {
    let [a, b] = ["a", "b"].map(|name| graph.image(name).into());
    graph.with(Merge { inputs: vec![a, b, a] }, Metadata::named("merge")).into()
}

fn diff_both(graph: &mut Sketch) -> Edge {
    let a = graph.image("a");
    let touched = graph.run(Exec::new(a, "/", &["touch", "/x"]));
    graph.add(Diff { lower: Some(a.into()), upper: Some(touched.into()) }).into()
}

fn diff_lower_scratch(graph: &mut Sketch) -> Edge {
    let a = graph.image("a");
    graph.add(Diff { lower: None, upper: Some(a.into()) }).into()
}

fn diff_upper_scratch(graph: &mut Sketch) -> Edge {
    let a = graph.image("a");
    graph.add(Diff { lower: Some(a.into()), upper: None }).into()
}

fn diff_same_input(graph: &mut Sketch) -> Edge {
    let a = graph.image("a");
    graph.add(Diff { lower: Some(a.into()), upper: Some(a.into()) }).into()
}

fn build(graph: &mut Sketch) -> Edge {
    let definition = graph.image("frontend").into();
    graph.add(amd64(Build { definition, attrs: BTreeMap::new() })).into()
}

fn build_filename(graph: &mut Sketch) -> Edge {
    let frontend = graph.image("frontend");
    let run = exec(frontend, "gen").mount(Mount::bind("/out", None)).ordered();
    let output = run.output("/out").unwrap();
    let definition = Edge::new(graph.run(run), output);
    let attrs = BTreeMap::from([("llbbuild.filename".to_owned(), "graph.pb".to_owned())]);
    graph.with(amd64(Build { definition, attrs }), Metadata::named("nested")).into()
}

fn chain_deep(graph: &mut Sketch) -> Edge {
    let mut last = graph.image("busybox");
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        last = graph.add(File::chain(Some(last.into()), [Mkfile::new(&format!("/{name}"), 0o644, name).into()]));
    }
    last.into()
}

fn diamond(graph: &mut Sketch) -> Edge {
    let base = graph.image("busybox");
    let [right, left] = ["right", "left"].map(|arg| {
        let run = exec(base, arg).mount(Mount::bind("/out", None)).ordered();
        let output = run.output("/out").unwrap();
        Edge::new(graph.run(run), output)
    });
    let copies = [Copy::new(left, "/l", "/l").into(), Copy::new(right, "/r", "/r").into()];
    graph.add(File::chain(Some(base.into()), copies)).into()
}

fn release(graph: &mut Sketch) -> Edge {
    a_release(graph, Source::local("context").attr("local.unique", "golden-unique"))
}

fn release_stripped(graph: &mut Sketch) -> Edge {
    a_release(graph, Source::local("context"))
}

fn a_release(graph: &mut Sketch, context: Source) -> Edge {
    let alpine = graph.add(amd64(Source::image("quay.io/roche/alpine:3.12")));
    let add_user = "addgroup -S rocheuser && adduser -S rocheuser -G rocheuser";
    let with_user =
        graph.with(amd64(Exec::new(alpine, "/", &["/bin/sh", "-c", add_user])), Metadata::named("[runtime] add rocheuser"));
    let owner = |base| Some(Owner::named("rocheuser", "rocheuser", base));
    let app = Mkdir { make_parents: true, owner: owner(with_user), ..Mkdir::new("/app", 0o755) };
    let runtime = graph.add(File::chain(Some(with_user.into()), [app.into()]));

    let toolchain = graph.add(amd64(Source::image("quay.io/roche/default:1.0.0")));
    let context = context.list("local.includepattern", &["functions.rs"]).attr("local.sharedkeyhint", "context");
    let function = graph.with(context, Metadata::named("[function] load"));
    let copy = Copy { make_parents: true, ..Copy::new(function, "/functions.rs", "/app-build/src/app/functions.rs") };
    let sources = graph.with(File::chain(Some(toolchain.into()), [copy.into()]), Metadata::named("[builder] copy function"));
    let compile = Exec {
        env: strings(&["CARGO_TERM_COLOR=always"]),
        network: Network::None,
        ..Exec::new(sources, "/app-build", &["/bin/sh", "-c", "cargo build --release"])
    };
    let compile = compile
        .mount(Mount::cache("/usr/local/cargo/registry", "cargo-registry", CacheSharing::Locked))
        .mount(Mount::tmpfs("/tmp", 0));
    let built = graph.with(amd64(compile.ordered()), Metadata::named("[builder] cargo build --release"));

    let copies = [
        Copy { owner: owner(runtime), ..Copy::new(built, "/app-build/run.sh", "/app/run.sh") }.into(),
        Copy { owner: owner(runtime), ..Copy::new(built, "/app-build/Cargo.toml", "/app/Cargo.toml") }.into(),
        Copy {
            owner: owner(runtime),
            mode: Some(0o755),
            ..Copy::new(built, "/app-build/target/release/roche-service", "/app/roche-service")
        }
        .into(),
    ];
    graph.with(File::chain(Some(runtime.into()), copies), Metadata::named("[runtime] copy service")).into()
}
