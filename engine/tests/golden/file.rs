//! File ops: the actions, their options, and where they take trees from.

use roche_engine::Digest;
use roche_engine::op::{Copy, Edge, File, FileAction, FileActionKind, FileInput, Mkdir, Mkfile, Owner, Rm, Symlink, User};

use crate::{Sketch, cases, strings};

const SECOND: i64 = 1_000_000_000;

cases![
    file_mkdir,
    file_mkdir_options,
    file_mkfile,
    file_mkfile_empty,
    file_mkfile_options,
    file_rm,
    file_rm_options,
    file_symlink,
    file_chain,
    file_chain_on_scratch,
    file_copy_plain,
    file_copy_paths,
    file_copy_to_itself,
    file_copy_options,
    file_copy_exclude_option,
    file_copy_mode_owner_time,
    file_copy_mode_string,
    file_copy_mode_zero_epoch,
    file_copy_owner_name,
    file_copy_owner_name_scratch,
    file_copy_owner_mixed,
    file_two_copies_order,
    file_copies_definition_order,
    file_action_as_input,
    file_action_as_input_on_image,
];

/// One action on an empty tree.
fn on_scratch(graph: &mut Sketch, action: impl Into<FileActionKind>) -> Edge {
    graph.add(File::chain(None, [action.into()])).into()
}

/// Actions on an image.
fn on_image<const N: usize>(graph: &mut Sketch, base: Digest, actions: [FileActionKind; N]) -> Edge {
    graph.add(File::chain(Some(base.into()), actions)).into()
}

/// Copies `/a` of the image `src` to `/b`, onto an empty tree.
fn a_to_b(graph: &mut Sketch, change: impl FnOnce(Copy) -> Copy) -> Edge {
    let src = graph.image("src");
    on_scratch(graph, change(Copy::new(src, "/a", "/b")))
}

fn file_mkdir(graph: &mut Sketch) -> Edge {
    on_scratch(graph, Mkdir::new("/a", 0o755))
}

fn file_mkdir_options(graph: &mut Sketch) -> Edge {
    let mkdir = Mkdir {
        make_parents: true,
        owner: Some(Owner::ids(1000, 1000)),
        timestamp_ns: Some(1_700_000_000 * SECOND),
        ..Mkdir::new("/a/b", 0o700)
    };
    on_scratch(graph, mkdir)
}

fn file_mkfile(graph: &mut Sketch) -> Edge {
    on_scratch(graph, Mkfile::new("/a", 0o644, "hello\n"))
}

fn file_mkfile_empty(graph: &mut Sketch) -> Edge {
    on_scratch(graph, Mkfile::new("/a", 0, ""))
}

/// The Go client drops the set-uid bit of the 04755 that it is given; here it is as the op has it.
fn file_mkfile_options(graph: &mut Sketch) -> Edge {
    let mkfile =
        Mkfile { owner: Some(Owner::ids(0, 1000)), timestamp_ns: Some(SECOND), ..Mkfile::new("/a", 0o755, [0, 0xff, b'x']) };
    on_scratch(graph, mkfile)
}

fn file_rm(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    on_image(graph, busybox, [Rm::new("/a").into()])
}

fn file_rm_options(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    on_image(graph, busybox, [Rm { allow_not_found: true, wildcard: true, ..Rm::new("/a/*") }.into()])
}

fn file_symlink(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let link = Symlink { owner: Some(Owner::ids(1, 2)), timestamp_ns: Some(5 * SECOND), ..Symlink::new("target", "/link") };
    on_image(graph, busybox, [link.into()])
}

fn file_chain(graph: &mut Sketch) -> Edge {
    let [busybox, src] = ["busybox", "src"].map(|name| graph.image(name));
    let actions = [
        Mkdir::new("/app", 0o755).into(),
        Copy::new(src, "/bin/x", "/app/x").into(),
        Mkfile::new("/app/y", 0o600, "y").into(),
        Symlink::new("x", "/app/z").into(),
        Rm::new("/app/y").into(),
    ];
    on_image(graph, busybox, actions)
}

fn file_chain_on_scratch(graph: &mut Sketch) -> Edge {
    graph.add(File::chain(None, [Mkdir::new("/app", 0o755).into(), Mkfile::new("/app/y", 0o600, "y").into()])).into()
}

fn file_copy_plain(graph: &mut Sketch) -> Edge {
    let [busybox, src] = ["busybox", "src"].map(|name| graph.image(name));
    on_image(graph, busybox, [Copy::new(src, "/a", "/b").into()])
}

/// The Go client joins paths with the state's folder; here they are as the op has them.
fn file_copy_paths(graph: &mut Sketch) -> Edge {
    let [busybox, src] = ["busybox", "src"].map(|name| graph.image(name));
    let copies = [
        Copy::new(src, "/from/b", "/work/c/").into(),
        Copy::new(src, "/from", "/work").into(),
        Copy::new(src, "/x", "/y/.").into(),
    ];
    on_image(graph, busybox, copies)
}

fn file_copy_to_itself(graph: &mut Sketch) -> Edge {
    let base = graph.image("busybox");
    on_image(graph, base, [Copy::new(base, "/a", "/b").into()])
}

fn file_copy_options(graph: &mut Sketch) -> Edge {
    let src = graph.image("src");
    let copy = Copy {
        follow_symlink: true,
        contents_only: true,
        unpack: true,
        make_parents: true,
        wildcard: true,
        allow_empty_wildcard: true,
        always_replace: true,
        include: strings(&["*.rs", "a/**"]),
        exclude: strings(&[".env", "target"]),
        required: strings(&["a/lib.rs"]),
        ..Copy::new(src, "/a/*", "/b/")
    };
    on_scratch(graph, copy)
}

fn file_copy_exclude_option(graph: &mut Sketch) -> Edge {
    let src = graph.image("src");
    on_scratch(graph, Copy { exclude: strings(&["x", "y"]), ..Copy::new(src, "/", "/") })
}

fn file_copy_mode_owner_time(graph: &mut Sketch) -> Edge {
    a_to_b(graph, |copy| Copy {
        mode: Some(0o755),
        owner: Some(Owner::ids(1000, 1001)),
        timestamp_ns: Some(1_700_000_000 * SECOND + 5),
        ..copy
    })
}

fn file_copy_mode_string(graph: &mut Sketch) -> Edge {
    a_to_b(graph, |copy| Copy { mode_text: "u+x,go-w".to_owned(), ..copy })
}

fn file_copy_mode_zero_epoch(graph: &mut Sketch) -> Edge {
    a_to_b(graph, |copy| Copy { mode: Some(0), owner: Some(Owner::ids(0, 0)), timestamp_ns: Some(0), ..copy })
}

fn file_copy_owner_name(graph: &mut Sketch) -> Edge {
    let [runtime, src] = ["runtime", "src"].map(|name| graph.image(name));
    let owner = Some(Owner::named("rocheuser", "rocheuser", runtime));
    on_image(graph, runtime, [Copy { owner, ..Copy::new(src, "/a", "/b") }.into()])
}

fn file_copy_owner_name_scratch(graph: &mut Sketch) -> Edge {
    let user = User::Name { name: "rocheuser".to_owned(), passwd: FileInput::Scratch };
    a_to_b(graph, |copy| Copy { owner: Some(Owner { user: Some(user), group: None }), ..copy })
}

fn file_copy_owner_mixed(graph: &mut Sketch) -> Edge {
    let [runtime, src] = ["runtime", "src"].map(|name| graph.image(name));
    let staff = User::Name { name: "staff".to_owned(), passwd: runtime.into() };
    let owner = Owner { user: Some(User::Id(1000)), group: Some(staff) };
    let actions = [
        Copy { owner: Some(Owner::ids(0, 1001)), ..Copy::new(src, "/a", "/b") }.into(),
        Mkdir { owner: Some(owner), ..Mkdir::new("/c", 0o755) }.into(),
    ];
    on_image(graph, runtime, actions)
}

fn file_two_copies_order(graph: &mut Sketch) -> Edge {
    let [base, one, two] = ["base", "one", "two"].map(|name| graph.image(name));
    let copies = [(one, "/1"), (two, "/2"), (one, "/3")].map(|(from, to)| Copy::new(from, "/", to).into());
    on_image(graph, base, copies)
}

fn file_copies_definition_order(graph: &mut Sketch) -> Edge {
    let [base, three, two, one] = ["base", "three", "two", "one"].map(|name| graph.image(name));
    let copies = [(one, "/1"), (two, "/2"), (three, "/3")].map(|(from, to)| Copy::new(from, "/", to).into());
    on_image(graph, base, copies)
}

fn action(input: impl Into<FileInput>, kind: impl Into<FileActionKind>) -> FileAction {
    FileAction { input: input.into(), output: None, kind: kind.into() }
}

fn file_action_as_input(graph: &mut Sketch) -> Edge {
    let busybox = graph.image("busybox");
    let actions = vec![
        action(busybox, Mkdir::new("/app", 0o755)),
        FileAction { input: FileInput::Scratch, output: None, kind: Mkdir::new("/d", 0o755).into() },
        FileAction { input: FileInput::Action(1), output: None, kind: Mkfile::new("/d/f", 0o644, "f").into() },
        FileAction {
            input: FileInput::Action(0),
            output: Some(0),
            kind: Copy { from: FileInput::Action(2), ..Copy::new(busybox, "/d", "/app/d") }.into(),
        },
    ];
    graph.add(File { actions }).into()
}

fn file_action_as_input_on_image(graph: &mut Sketch) -> Edge {
    let [busybox, other] = ["busybox", "other"].map(|name| graph.image(name));
    let made = Copy { from: FileInput::Action(0), ..Copy::new(other, "/ced/d", "/app/d") };
    let last = Copy::new(other, "/x", "/y").into();
    let actions = vec![
        action(other, Mkdir::new("/d", 0o755)),
        action(busybox, made),
        FileAction { input: FileInput::Action(1), output: Some(0), kind: last },
    ];
    graph.add(File { actions }).into()
}
