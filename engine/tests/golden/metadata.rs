//! What is known of vertices beside their ops.

use roche_engine::op::{Edge, File, Merge, Metadata, Mkdir, ProgressGroup};

use crate::{Sketch, amd64, cases, exec, image};

cases![
    meta_custom_name,
    meta_description,
    meta_description_empty_value,
    meta_equal_ops_two_names,
    meta_export_cache,
    meta_ignore_cache,
    meta_progress_group,
    meta_all,
];

fn described(pairs: &[(&str, &str)]) -> Metadata {
    let description = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    Metadata { description, ..Metadata::default() }
}

fn group(id: &str, name: &str, weak: bool) -> Option<ProgressGroup> {
    Some(ProgressGroup { id: id.to_owned(), name: name.to_owned(), weak })
}

fn meta_custom_name(graph: &mut Sketch) -> Edge {
    let busybox = graph.with(image("busybox"), Metadata::named("[base] busybox"));
    graph.with(amd64(exec(busybox, "true")), Metadata::named("run 1")).into()
}

fn meta_description(graph: &mut Sketch) -> Edge {
    graph.with(image("busybox"), described(&[("z", "1"), ("a", "2"), ("llb.customname", "n")])).into()
}

fn meta_description_empty_value(graph: &mut Sketch) -> Edge {
    graph.with(image("busybox"), described(&[("a", "")])).into()
}

fn meta_equal_ops_two_names(graph: &mut Sketch) -> Edge {
    let first = graph.with(image("a"), Metadata::named("first"));
    let b = graph.image("b");
    let second = graph.with(image("a"), Metadata::named("second"));
    graph.add(Merge { inputs: vec![first.into(), b.into(), second.into()] }).into()
}

fn meta_export_cache(graph: &mut Sketch) -> Edge {
    let export_cache = |kept| Metadata { export_cache: Some(kept), ..Metadata::default() };
    let busybox = graph.with(image("busybox"), export_cache(true));
    graph.with(amd64(exec(busybox, "true")), export_cache(false)).into()
}

fn meta_ignore_cache(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    graph.with(amd64(exec(busybox, "true")), Metadata { ignore_cache: true, ..Metadata::default() }).into()
}

fn meta_progress_group(graph: &mut Sketch) -> Edge {
    let mkdir = |base: Edge, path| File::chain(Some(base), [Mkdir::new(path, 0o755).into()]);
    let grouped = |progress_group| Metadata { progress_group, ..Metadata::default() };
    let busybox = graph.image("busybox");
    let one = graph.with(mkdir(busybox.into(), "/a"), grouped(group("id-1", "group one", true)));
    graph.with(mkdir(one.into(), "/b"), grouped(group("id-2", "group two", false))).into()
}

fn meta_all(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let all = Metadata {
        ignore_cache: true,
        export_cache: Some(true),
        progress_group: group("id", "group", false),
        ..Metadata::named("all")
    };
    graph.with(amd64(exec(busybox, "true")), all).into()
}
