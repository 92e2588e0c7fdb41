//! An explanation for people.
//!
//! Invariant: no line is longer than the width, and nothing that a terminal would obey is in one.

use std::fmt::Write as _;

use super::{Explanation, Side, Step};
use crate::columns::{cut, wrapped};
use crate::document::Document;
use crate::history::{familiar, when};
use crate::text::{one_line, seconds};

/// Columns that a sentence may have in all.
const LONGEST: usize = 2000;

/// Renders an explanation.
pub(super) fn render(explanation: &Explanation<'_>, width: usize) -> String {
    let mut out = String::new();
    let mut say = |indent: usize, text: &str| {
        // What goes on in the next line is seen to do so.
        let more = if width > 40 { 2 } else { 0 };
        let columns = width.saturating_sub(indent + more);
        for (at, line) in wrapped(&cut(&one_line(text), LONGEST), columns).into_iter().enumerate() {
            let _ = writeln!(out, "{}{}", " ".repeat(indent + if at > 0 { more } else { 0 }), line.trim_end());
        }
    };
    say(0, &format!("release {}", side(&explanation.release)));
    let Some(against) = &explanation.against else {
        say(0, "it is the first release of this project that there is a record of");
        return out;
    };
    say(0, &format!("against {}", side(against)));
    for (which, side) in [("it", &explanation.release), ("the one before", against)] {
        if let Some(error) = side.error {
            say(0, &format!("{which} failed: {error}"));
        }
    }
    if explanation.causes.is_empty() {
        say(0, "");
        let same = explanation.release.digest.is_some() && explanation.release.digest == against.digest;
        let and = if same { ", and the image is the same" } else { "" };
        say(0, &format!("nothing that a release is made of changed{and}"));
        return out;
    }
    say(0, "");
    for cause in &explanation.causes {
        say(2, &cause.text);
    }
    if !explanation.followed.is_empty() {
        say(0, "");
        say(0, "what followed");
        explanation.followed.iter().for_each(|followed| say(2, &step(followed)));
    }
    out
}

fn side(side: &Side<'_>) -> String {
    let name = side.names.first().map(|name| format!("  {}", familiar(name))).unwrap_or_default();
    let digest = side.digest.map(|digest| format!("  {}", Document::short(digest))).unwrap_or_default();
    format!("{}  {}{digest}{name}", side.id, when(side.when))
}

fn step(step: &Step<'_>) -> String {
    let state = step.state.unwrap_or("-");
    match step.duration_ms.filter(|_| state == "ran" || state == "failed") {
        Some(millis) => format!("{state:9} {}, {}", step.name, seconds(std::time::Duration::from_millis(millis))),
        None => format!("{state:9} {}", step.name),
    }
}
