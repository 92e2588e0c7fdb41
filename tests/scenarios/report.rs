//! Runs the list on every back end and writes the table.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use roche_engine::solver::JobOptions;

use super::backends::Backend;
use super::draft::Draft;
use super::{Expect, Kind, Outcome, Scenario};
use crate::harness::{count, unique};

/// Holds a part of the names of the scenarios that are to run.
const WANTED: &str = "ROCHE_TEST_SCENARIO";

/// What a cell says, the trees behind it, and what is wrong with it.
#[derive(Clone, Debug)]
struct Cell {
    says: &'static str,
    trees: Vec<Vec<String>>,
    wrong: Option<String>,
}

/// Runs every scenario on every back end; panics with the failing cells.
pub(super) fn run(themes: Vec<(&'static str, Vec<Scenario>)>, backends: Vec<Backend>) {
    let wanted = env::var(WANTED).unwrap_or_default();
    let list = themes.iter().flat_map(|(theme, scenarios)| scenarios.iter().map(move |scenario| (*theme, scenario)));
    let list: Vec<(&str, &Scenario)> = list.filter(|(_, scenario)| scenario.name.contains(&wanted)).collect();
    let columns: Vec<Vec<Cell>> = thread::scope(|scope| {
        let columns: Vec<_> = backends.iter().map(|backend| scope.spawn(|| column(&list, backend))).collect();
        columns.into_iter().map(|column| column.join().expect("a back end's scenarios do not panic")).collect()
    });

    println!("{}\n{}", table(&list, &columns, &backends, !wanted.is_empty()), totals(&columns, &backends));
    let wrong: Vec<String> =
        list.iter().enumerate().flat_map(|(i, (_, scenario))| wrong(scenario, &row(&columns, i), &backends)).collect();
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What every back end gave for one scenario.
fn row(columns: &[Vec<Cell>], i: usize) -> Vec<&Cell> {
    columns.iter().map(|column| &column[i]).collect()
}

fn table(list: &[(&str, &Scenario)], columns: &[Vec<Cell>], backends: &[Backend], trees: bool) -> String {
    let mut table = String::new();
    let width = list.iter().map(|(_, scenario)| scenario.name.len()).max().unwrap_or_default();
    let mut line = |name: &str, cells: &[&str]| {
        let cells: String =
            cells.iter().zip(backends).map(|(cell, Backend { name, .. })| format!(" | {cell:0$}", name.len())).collect();
        let _ = write!(table, "\n{name:width$}{cells}");
    };
    line("scenario", &backends.iter().map(|backend| backend.name).collect::<Vec<_>>());
    let mut theme = "";
    for (i, (of, scenario)) in list.iter().enumerate() {
        if theme != *of {
            theme = of;
            line(&format!("-- {theme}"), &[]);
        }
        let row = row(columns, i);
        line(scenario.name, &row.iter().map(|cell| cell.says).collect::<Vec<_>>());
        for (cell, backend) in row.iter().zip(backends).filter(|_| trees) {
            line(&format!("  {}: {:#?}", backend.name, cell.trees), &[]);
        }
    }
    table
}

/// Says what is wrong with a row.
fn wrong(scenario: &Scenario, row: &[&Cell], backends: &[Backend]) -> Vec<String> {
    let reason = |(cell, backend): (&&Cell, &Backend)| {
        cell.wrong.as_ref().map(|reason| format!("{} on {}: {reason}", scenario.name, backend.name))
    };
    row.iter().zip(backends).filter_map(reason).chain(disagreement(scenario, row, backends)).collect()
}

/// Runs a back end's scenarios, as many side by side as it takes.
fn column(list: &[(&str, &Scenario)], backend: &Backend) -> Vec<Cell> {
    let next = AtomicUsize::new(0);
    let cells = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..backend.lanes {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some((theme, scenario)) = list.get(i) else { return };
                    let run = || {
                        let cell = cell(scenario, backend);
                        cells.lock().expect("no lane panics").insert(i, cell);
                    };
                    let name = format!("scenarios::{theme}: {}", scenario.name);
                    match &backend.daemon {
                        Some(daemon) => daemon.clone().test(&name, |_| run()),
                        None => {
                            count(backend.name, &name);
                            run();
                        }
                    }
                }
            });
        }
    });
    cells.into_inner().expect("no lane panics").into_values().collect()
}

/// Runs a scenario's rounds.
fn cell(scenario: &Scenario, backend: &Backend) -> Cell {
    let folder = tempfile::tempdir().expect("a temporary folder is made");
    let mut cell = Cell { says: "ok", trees: Vec::new(), wrong: None };
    let unique = unique();
    let mut before = None;
    for round in &scenario.rounds {
        let mut draft = Draft::new(folder.path(), &unique);
        let target = (round.graph)(&mut draft);
        let definition = draft.definition(target);
        let options = JobOptions { locals: draft.locals, secrets: draft.secrets, ..JobOptions::default() };
        let solve = || backend.outcome(&definition, options, folder.path());
        let Ok(outcome) = panic::catch_unwind(AssertUnwindSafe(solve)) else {
            return Cell { says: "FAILS", wrong: Some("the back end panicked".to_owned()), ..cell };
        };
        let own = round.own.iter().find(|(name, ..)| *name == backend.solver);
        let expect = own.map_or(&round.expect, |(.., expect)| expect);
        if let Outcome::Tree(tree) = &outcome {
            cell.trees.push(tree.lines(|_| false));
        }
        match refusal(scenario, backend, &outcome) {
            Some(says) => return Cell { says, ..cell },
            None if own.is_some() => cell.says = "own",
            None => {}
        }
        if let Err(reason) = expect.check(&outcome, before.as_ref()) {
            return Cell { says: "FAILS", wrong: Some(reason), ..cell };
        }
        if own.is_some() && round.expect.check(&outcome, before.as_ref()).is_ok() {
            let wrong = Some("it gives what is expected of all, and the list says that it does not".to_owned());
            return Cell { says: "FAILS", wrong, ..cell };
        }
        before = Some(outcome);
    }
    // A back end that passes what it was said not to pass is a mistake in the list.
    if backend.single_uid && scenario.needs_uids {
        cell.wrong = Some("it passes with one uid, and the list says that it cannot".to_owned());
        cell.says = "FAILS";
    }
    cell
}

/// Names a failure that the list announces.
fn refusal(scenario: &Scenario, backend: &Backend, outcome: &Outcome) -> Option<&'static str> {
    let Outcome::Failure { kind, message } = outcome else { return None };
    if let Kind::Unsupported(missing) = kind {
        let known = |cap: &String| backend.lacks.contains(&cap.as_str()) && scenario.needs.contains(&cap.as_str());
        return missing.iter().all(known).then_some("lacks");
    }
    (backend.single_uid && scenario.needs_uids && message.contains("subuid")).then_some("uids")
}

/// Compares what back ends gave for a scenario of which all have to give the same.
fn disagreement(scenario: &Scenario, row: &[&Cell], backends: &[Backend]) -> Option<String> {
    let one = scenario.rounds.iter().all(|round| matches!(round.expect, Expect::Tree(_)) && round.own.is_empty());
    let mut passed = row.iter().zip(backends).filter(|(cell, _)| cell.says == "ok" && one);
    let (first, of) = passed.next()?;
    let (_, other) = passed.find(|(cell, _)| cell.trees != first.trees)?;
    Some(format!("{}: {} and {} give different trees", scenario.name, of.name, other.name))
}

fn totals(columns: &[Vec<Cell>], backends: &[Backend]) -> String {
    let total = |(column, backend): (&Vec<Cell>, &Backend)| {
        let mut counts = BTreeMap::new();
        for cell in column {
            *counts.entry(cell.says).or_insert(0) += 1;
        }
        format!("{}: {counts:?} of {}", backend.name, column.len())
    };
    columns.iter().zip(backends).map(total).collect::<Vec<_>>().join("\n")
}

/// Names the lines that only one side has.
pub(super) fn difference(expected: &[&str], found: &[String]) -> String {
    let missing = expected.iter().filter(|line| !found.iter().any(|other| other == *line)).map(|line| format!("\n    - {line}"));
    let extra = found.iter().filter(|line| !expected.contains(&line.as_str())).map(|line| format!("\n    + {line}"));
    missing.chain(extra).collect()
}
