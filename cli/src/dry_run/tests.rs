//! Plans for the tests of the forms.

use std::collections::BTreeMap;

use roche_engine::Digest;
use roche_engine::op::{Edge, Exec, Merge, Metadata, Op, Platform};
use roche_frontend::Flags;
use roche_frontend::plan::{BaseImage, Plan};

use super::*;
use crate::document::{Document, Entry};

/// Names that are syntax in one form or another.
pub(super) const HOSTILE: [&str; 7] = [
    "</script><script>alert(1)</script>",
    "\"]; end; click v0 \"javascript:alert(1)\"",
    "\\\" ; } digraph {",
    "\u{1b}]0;title\u{7}\u{1b}[2J\u{202e}",
    "<!-- --> ]]> &amp; &#60;",
    "line one\nRUN id\r\n# comment",
    "`code` **bold** $(id) ${HOME} %s",
];

/// A document of a release with `more` vertices beside its own; they have hostile names.
pub(super) fn document(more: usize) -> Document {
    with_plan(more, |subject| subject.document())
}

/// Plans a release of a function on two images, with `more` vertices.
pub(super) fn with_plan<T>(more: usize, then: impl FnOnce(&Subject<'_>) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("functions.rs"), "fn").unwrap();
    let project = Project::read(folder.path()).unwrap();
    let flags = Flags { tags: vec!["t:1".to_owned()], runtime: Some("r:1".to_owned()), ..Flags::default() };
    let mut release =
        roche_frontend::release::resolve(&flags, &BTreeMap::new(), false, &project, &|| panic!("a tag was given")).unwrap();
    release.platform = Platform::new("linux", "amd64");
    let mut plan = roche_frontend::plan::plan(&project, &release, &base("b:1"), Some(&base("r:1"))).unwrap();
    if more > 0 {
        grow(&mut plan, more);
    }
    let definition = plan.definition();
    then(&Subject {
        project: &project,
        release: &release,
        plan: &plan,
        definition,
        unresolved: Vec::new(),
        unknown: BTreeSet::new(),
    })
}

fn base(reference: &str) -> BaseImage {
    let config = br#"{"os":"linux","architecture":"amd64","config":{"Env":["PATH=/bin"],"User":"builder"}}"#.to_vec();
    BaseImage { reference: reference.parse().unwrap(), digest: Some(Digest::of(reference.as_bytes())), config }
}

/// Puts a fan and a chain of steps behind the image.
fn grow(plan: &mut Plan, more: usize) {
    let mut last = plan.target;
    let mut arms = Vec::new();
    for number in 0..more {
        let name = format!("{} {number}", HOSTILE[number % HOSTILE.len()]);
        let root: Edge = if number % 2 == 0 { last } else { plan.target };
        let exec = Exec { env: vec!["PATH=/bin".to_owned()], ..Exec::new(root, "/", &["step", &number.to_string()]) };
        let vertex = plan.graph.add(Op::on(Platform::new("linux", "amd64"), exec), Metadata::named(name)).unwrap();
        plan.stages[number % 2].vertices.push(vertex);
        if number % 2 == 0 { last = vertex.into() } else { arms.push(Edge::from(vertex)) }
    }
    arms.push(last);
    let all = plan.graph.add(Merge { inputs: arms }, Metadata::named("all")).unwrap();
    plan.stages[1].vertices.push(all);
    plan.target = all.into();
}

#[test]
fn no_form_passes_on_what_a_terminal_obeys() {
    let mut document = document(20);
    // As it was found in the image of a release on somebody's base.
    document.contents.extend(HOSTILE.map(|name| Entry {
        path: format!("/{name}"),
        kind: "file".to_owned(),
        owner: Some(name.to_owned()),
        vertex: 0,
        mode: None,
        size_bytes: None,
        learned_from: Some(name.to_owned()),
    }));
    let forms = [
        text::render(&document, 80),
        document.json(),
        dot::render(&document),
        mermaid::render(&document),
        html::render(&document),
    ];
    for form in forms {
        let odd = form.chars().find(|&c| (c.is_control() && c != '\n') || roche_engine::text::turns(c));
        assert_eq!(odd, None, "{form}");
    }
    for page in [mermaid::render(&document), html::render(&document)] {
        assert!(!page.contains("<script>alert"), "{page}");
    }
}

#[test]
fn a_merge_is_no_instruction() {
    let refused = with_plan(2, dockerfile::render).unwrap_err();
    assert_eq!(refused.exit, Exit::Usage);
    assert!(refused.render().contains("\"all\" merges"), "{}", refused.render());
}
