//! Copies, as a table.

use super::*;

/// A copy's name, its source, target, action, and the target afterwards or the words of the error.
type Case = (&'static str, &'static str, &'static str, Copy, Result<&'static str, &'static str>);

fn copies() -> Vec<Case> {
    let contents = |from, to| Copy { contents_only: true, ..copy(from, to) };
    let parents = |action| Copy { make_parents: true, ..action };
    let wild = |action| Copy { wildcard: true, ..action };
    let follow = |action| Copy { follow_symlink: true, ..action };
    let replace = |action| Copy { always_replace: true, ..action };
    let include =
        |action, patterns: &[&str]| Copy { include: patterns.iter().map(|text| (*text).to_owned()).collect(), ..action };
    let exclude =
        |action, patterns: &[&str]| Copy { exclude: patterns.iter().map(|text| (*text).to_owned()).collect(), ..action };
    vec![
        ("a file to a name", "f", "", copy("/f", "/g"), Ok("g:f")),
        ("a file to a folder", "f", "d/", copy("f", "d"), Ok("d/ d/f:f")),
        ("a file to a slash", "f", "", parents(copy("f", "new/")), Ok("new/ new/f:f")),
        ("a file to the root", "f", "", copy("f", "/"), Ok("f")),
        ("a file to a dot", "f", "d/", copy("f", "d/."), Ok("d/ d/f:f")),
        ("a file over a file", "a/f", "f", copy("a/f", "f"), Ok("f:a/f")),
        ("a file over a link", "f", "g l>g", copy("f", "l"), Ok("g:f l>g")),
        ("a file over a dangling link", "f", "l>../../g", copy("f", "l"), Ok("g:f l>../../g")),
        ("a file over a folder", "a/f", "f/x", contents("a", "/"), Err("a folder cannot be replaced by a file")),
        ("a file over a folder by force", "a/f", "f/x", replace(contents("a", "/")), Ok("f:a/f")),
        ("a file deep in the new", "f", "", parents(copy("f", "a/b/c")), Ok("a/ a/b/ a/b/c:f")),
        ("a file where no parent is", "f", "", copy("f", "a/b/c"), Err("copy to /a/b")),
        ("a file that is missing", "f", "", copy("g", "/"), Err("copy /g")),
        ("a file under a file", "f", "g", parents(copy("f", "g/h")), Err("mkdir /g")),
        ("a file by dots", "a/f", "", copy("../../a/../a/f", "../../g"), Ok("g:a/f")),
        ("a file through a link that leads out", "l>../.. f", "l>../..", copy("l/f", "l/g"), Ok("g:f l>../..")),
        ("a folder to a name", "a/f", "", copy("a", "b"), Ok("b/ b/f:a/f")),
        ("a folder to a folder", "a/f", "b/", copy("a", "b"), Ok("b/ b/a/ b/a/f:a/f")),
        ("a folder to a file", "a/f", "b", copy("a", "b"), Err("mkdir /b")),
        ("a folder's content", "a/f a/e/", "b/", contents("a", "b"), Ok("b/ b/e/ b/f:a/f")),
        ("a folder's content to a name", "a/f", "", contents("a", "b"), Ok("b/ b/f:a/f")),
        ("a folder's content by a dot", "a/f", "b/", copy("a/.", "b"), Ok("b/ b/f:a/f")),
        ("the root's content", "a/f g", "", contents("/", "/"), Ok("a/ a/f g")),
        ("a folder into what is there", "a/d/f", "d/g", contents("a", "/"), Ok("d/ d/f:a/d/f d/g")),
        ("a folder over a file", "a/d/f", "d", contents("a", "/"), Err("copy a folder to /d")),
        ("a folder over a file by force", "a/d/f", "d", replace(contents("a", "/")), Ok("d/ d/f:a/d/f")),
        ("a folder over a link by force", "a/d/f", "e/ d>e", replace(contents("a", "/")), Ok("d/ d/f:a/d/f e/")),
        ("links stay links", "a/l>../../x a/m>/y", "", contents("a", "/"), Ok("l>../../x m>/y")),
        ("a link itself", "f l>f", "", copy("l", "/"), Ok("l>f")),
        ("a link followed", "f l>f", "", follow(copy("l", "/")), Ok("l:f")),
        ("a link followed from the root", "d/f l>/../d", "", follow(copy("l", "/k")), Ok("k/ k/f:d/f")),
        ("a link to a folder, its content", "d/f l>d", "", follow(contents("l", "/")), Ok("f:d/f")),
        ("names of one file", "a/f a/g=a/f a/h=a/f", "", contents("a", "/"), Ok("f:a/f g=f h=f")),
        ("a pattern", "a1 a2 b1", "", wild(copy("a*", "/d/")), Ok("d/ d/a1:a1 d/a2:a2")),
        ("a pattern within names", "a/x1 b/x2 b/y c/d/x3", "", wild(copy("/*/x?", "/")), Ok("x1:a/x1 x2:b/x2")),
        ("a pattern of folders", "a/d/f b/d/g", "", wild(contents("*/d", "/")), Ok("f:a/d/f g:b/d/g")),
        ("a pattern that is a name", "a", "", wild(copy("a", "/")), Ok("a")),
        ("a pattern of nothing", "a", "", wild(copy("b*", "/")), Err("copy /b*")),
        ("a pattern that may be of nothing", "a", "", wild(Copy { allow_empty_wildcard: true, ..copy("b*", "/") }), Ok("")),
        ("a pattern that is none", "a", "", wild(copy("[", "/")), Err("copy /[")),
        (
            "included",
            "a/x.rs a/y.c a/b/z.rs a/e/w",
            "",
            include(contents("a", "/"), &["**/*.rs"]),
            Ok("b/ b/z.rs:a/b/z.rs x.rs:a/x.rs"),
        ),
        ("included folder", "a/b/c a/d/e", "", include(contents("a", "/"), &["b"]), Ok("b/ b/c:a/b/c")),
        ("included by two names", "a/b/c/f a/b/d/g", "", include(contents("a", "/"), &["b/*/f"]), Ok("b/ b/c/ b/c/f:a/b/c/f")),
        ("excluded", "a/x a/t/y a/z", "", exclude(contents("a", "/"), &["t", "z"]), Ok("x:a/x")),
        ("excluded but for", "a/t/y a/t/k a/z", "", exclude(contents("a", "/"), &["t", "!t/k"]), Ok("t/ t/k:a/t/k z:a/z")),
        ("both", "a/x.rs a/t/y.rs", "", exclude(include(contents("a", "/"), &["**/*.rs"]), &["t"]), Ok("x.rs:a/x.rs")),
        ("a broken pattern", "a/f", "", exclude(contents("a", "/"), &["["]), Err("is not a pattern")),
        ("what is required", "a/f", "", Copy { required: vec!["f".to_owned()], ..contents("a", "/") }, Ok("f:a/f")),
        ("what is required and missing", "a/f", "", Copy { required: vec!["g".to_owned()], ..copy("a", "/") }, Err("copy /a/g")),
        ("a mode that is none", "f", "", Copy { mode_text: "u+z".to_owned(), ..copy("f", "/") }, Err("is no mode")),
    ]
}

#[test]
fn copies_are_buildkits() {
    for (name, source, target, action, after) in copies() {
        let mut trees = Trees::new(source, target);
        match (trees.run(action), after) {
            (Ok(()), Ok(words)) => assert_eq!(trees.words(), words, "{name}"),
            (Err(error), Err(words)) => assert!(error.contains(words), "{name}: {error}"),
            (result, _) => panic!("{name}: {result:?}, {}", trees.words()),
        }
    }
}
