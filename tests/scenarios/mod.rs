//! One list of scenarios that every solver passes: for the same definition the same tree, or a
//! failure of the same kind.
//!
//! A [`Scenario`] is data: a graph and what comes of it, in the words of [`tree`]. The modules
//! hold them by theme; [`backends`] is the one place that knows which solvers there are. The test
//! prints a table, one row a scenario and one column a back end, and fails with the list of the
//! cells that are not as they should be:
//!
//! | cell | meaning |
//! |---|---|
//! | `ok` | what is expected of every back end |
//! | `own` | what this back end is known to do differently; the scenario says why |
//! | `lacks` | refused, by the name of the capability that the back end is known to lack |
//! | `uids` | a step needs another uid, and the failure says what to do about it |
//! | `FAILS` | anything else; the list below the table says what |
//!
//! `ROCHE_TEST_SCENARIO=text` runs those alone whose name holds the text, and prints their trees.
//!
//! It breaks where a solver reads an op differently, loses an attribute, or fails by another error.

mod attributes;
mod backends;
mod caching;
mod chains;
mod changes;
mod copy;
mod copy_names;
mod draft;
mod exec;
mod exec_host;
mod make;
mod mounts;
mod ordinary;
mod remove;
mod report;
mod secrets;
mod sources;
mod tree;
mod trees;
mod unpack;

use std::collections::BTreeSet;

use roche_engine::op::Edge;
use serde::{Deserialize, Serialize};

use draft::Draft;
use tree::Tree;

/// A graph, or several in a row, and what comes of it.
pub(super) struct Scenario {
    /// A sentence.
    name: &'static str,
    /// The capabilities that an old daemon may lack, as BuildKit names them.
    needs: &'static [&'static str],
    /// Whether a step needs a uid beside the user's own.
    needs_uids: bool,
    /// What is solved, one after another, each in a job of its own.
    rounds: Vec<Round>,
}

/// One definition and its outcome.
struct Round {
    graph: fn(&mut Draft) -> Edge,
    expect: Expect,
    /// What single back ends do otherwise, by their name, and why.
    own: Vec<(&'static str, &'static str, Expect)>,
}

/// What comes of a definition.
#[derive(Clone, Debug)]
enum Expect {
    /// A tree, a line each path; see [`tree`].
    Tree(String),
    /// Any tree: the next round compares with it.
    Any,
    /// A failure of this kind whose text holds this word.
    Fails(Kind, &'static str),
    /// The tree of the round before.
    Same,
    /// A tree, and not that of the round before.
    Differs,
    /// One of these.
    OneOf(Vec<Expect>),
}

/// What came of a definition.
#[derive(Clone, Debug)]
enum Outcome {
    Tree(Tree),
    Failure { kind: Kind, message: String },
}

/// What a failure is about: a variant of the engine's error.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A step, with its process's exit code where there was one.
    Step(Option<i32>),
    /// An image.
    Registry,
    /// Capabilities that are not there.
    Unsupported(Vec<String>),
    /// Anything else, by its name.
    Other(String),
}

/// Starts a scenario.
fn scenario(name: &'static str, graph: fn(&mut Draft) -> Edge, expect: Expect) -> Scenario {
    Scenario { name, needs: &[], needs_uids: false, rounds: vec![Round { graph, expect, own: Vec::new() }] }
}

fn tree(lines: impl Into<String>) -> Expect {
    Expect::Tree(lines.into())
}

/// A step, or an op without a process, fails.
fn fails(exit_code: impl Into<Option<i32>>, word: &'static str) -> Expect {
    Expect::Fails(Kind::Step(exit_code.into()), word)
}

impl Scenario {
    /// Says which capabilities an old daemon may lack.
    fn needs(mut self, caps: &'static [&'static str]) -> Self {
        self.needs = caps;
        self
    }

    /// Says that a step needs a uid beside the user's own.
    fn needs_uids(mut self) -> Self {
        self.needs_uids = true;
        self
    }

    /// Says what a back end does otherwise in the last round, and why.
    fn own(mut self, backend: &'static str, why: &'static str, expect: Expect) -> Self {
        self.rounds.last_mut().expect("a scenario has a round").own.push((backend, why, expect));
        self
    }

    /// Adds a round.
    fn then(mut self, graph: fn(&mut Draft) -> Edge, expect: Expect) -> Self {
        self.rounds.push(Round { graph, expect, own: Vec::new() });
        self
    }
}

impl Expect {
    /// Compares; `before` is what came of the round before.
    fn check(&self, outcome: &Outcome, before: Option<&Outcome>) -> Result<(), String> {
        let unordered = |outcome: &Outcome| match outcome {
            Outcome::Tree(tree) => Ok(tree.lines(|_| false)),
            Outcome::Failure { message, .. } => Err(message.clone()),
        };
        match (self, outcome) {
            (Self::Tree(text), Outcome::Tree(found)) => {
                let mut expected: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                let timed: BTreeSet<&str> =
                    expected.iter().filter(|line| line.contains(" @")).filter_map(|line| path(line)).collect();
                let mut found = found.lines(|path| timed.contains(path));
                // A tree has one order of paths; its text may stand in any.
                expected.sort_unstable();
                found.sort_unstable();
                if expected == found { Ok(()) } else { Err(report::difference(&expected, &found)) }
            }
            (Self::Fails(kind, word), Outcome::Failure { kind: found, message }) if kind == found && message.contains(word) => {
                Ok(())
            }
            (Self::Any, Outcome::Tree(_)) => Ok(()),
            (Self::Same, Outcome::Tree(_)) => {
                let before = unordered(before.expect("a first round compares with nothing"))?;
                if unordered(outcome)? == before { Ok(()) } else { Err("the tree is not that of the round before".to_owned()) }
            }
            (Self::Differs, Outcome::Tree(_)) => {
                let before = unordered(before.expect("a first round compares with nothing"))?;
                if unordered(outcome)? != before { Ok(()) } else { Err("the tree is that of the round before".to_owned()) }
            }
            (Self::OneOf(several), _) => {
                let wrong: Vec<String> = several.iter().filter_map(|expect| expect.check(outcome, before).err()).collect();
                if wrong.len() < several.len() { Ok(()) } else { Err(wrong.join("; or ")) }
            }
            (_, Outcome::Tree(tree)) => Err(format!("it gave a tree: {}", tree.lines(|_| false).join("; "))),
            (_, Outcome::Failure { kind, message }) => Err(format!("{kind:?}: {message}")),
        }
    }
}

/// The path of a tree's line.
fn path(line: &str) -> Option<&str> {
    let mut words = line.split(' ');
    match words.next()? {
        "h" => words.next(),
        "l" => words.nth(1),
        _ => words.nth(2),
    }
}

/// All scenarios, by theme.
fn themes() -> Vec<(&'static str, Vec<Scenario>)> {
    vec![
        ("make", make::scenarios()),
        ("remove", remove::scenarios()),
        ("copy", copy::scenarios()),
        ("copy names", copy_names::scenarios()),
        ("unpack", unpack::scenarios()),
        ("chains", chains::scenarios()),
        ("exec", exec::scenarios()),
        ("exec and host", exec_host::scenarios()),
        ("mounts", mounts::scenarios()),
        ("secrets", secrets::scenarios()),
        ("changes", changes::scenarios()),
        ("attributes", attributes::scenarios()),
        ("sources", sources::scenarios()),
        ("trees", trees::scenarios()),
        ("caching", caching::scenarios()),
    ]
}

#[test]
fn every_solver_gives_the_same_outcome() {
    let store = tempfile::tempdir().expect("a temporary folder can be made");
    report::run(themes(), backends::all(store.path()));
}

#[test]
fn there_are_at_least_sixty_scenarios_and_no_name_comes_twice() {
    let themes = themes();
    let names: Vec<&str> = themes.iter().flat_map(|(_, scenarios)| scenarios.iter().map(|s| s.name)).collect();
    assert!(names.len() >= 60, "{}", names.len());
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}
