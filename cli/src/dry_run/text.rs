//! The plan for people: as wide as the terminal, no colour needed.
//!
//! Invariant: no line is wider than the columns that there are, as long as there are [`NARROWEST`].

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::columns::escaped;
use crate::document::{Document, Entry, Unresolved, Vertex};
use crate::forecast;
use crate::listing::{Line, listed};
use crate::text::{one_line, size};

/// Fewer columns than these are not counted.
const NARROWEST: usize = 20;

/// From here on a vertex fits one line.
const WIDE: usize = 60;

/// What stands in a vertex's line beside its name and its forecast: number, digest, inputs.
const BESIDE: usize = 34;

/// Renders the plan.
pub(super) fn render(document: &Document, columns: usize) -> String {
    let mut page = Page { columns: columns.max(NARROWEST), states: 0, out: String::new() };
    for Unresolved { image, reason } in &document.unresolved {
        page.wrapped("", 2, &format!("unresolved: {image}: {}", one_line(reason)));
    }
    for name in &document.image.names {
        page.field("image", name);
    }
    page.field("platform", &document.image.platform);
    let files = document.function.iter().map(|file| format!("{} ({})", file.path, size(file.size_bytes)));
    page.field("function", &files.collect::<Vec<_>>().join(", "));

    // Where nothing at all is known, no column says so.
    let known =
        document.vertices.iter().filter_map(|vertex| vertex.forecast.as_ref()).any(|forecast| forecast.state != "unknown");
    page.states = if known { document.vertices.iter().map(|vertex| word(vertex).len()).max().unwrap_or(0) } else { 0 };
    let beside = BESIDE + if known { page.states + 2 } else { 0 };
    let names = document.vertices.iter().map(|vertex| one_line(&vertex.name).chars().count());
    let name = names.max().unwrap_or(0).min(page.columns.saturating_sub(beside));
    for stage in &document.stages {
        page.line(&format!("\n{}", stage.name));
        stage.vertices.iter().for_each(|&id| page.vertex(&document.vertices[id], name));
    }
    page.forecast(&document.vertices);

    page.line("\nthe image gains");
    let contents = document.contents.iter().collect();
    for line in listed(contents, |entry: &&Entry| &entry.path, |entry| entry.size_bytes.unwrap_or(0)) {
        match line {
            Line::One(entry) => {
                let size = entry.size_bytes.map_or_else(String::new, |bytes| format!("  {}", size(bytes)));
                page.gained(
                    entry.mode.as_deref().unwrap_or("-"),
                    &one_line(entry.owner.as_deref().unwrap_or("-")),
                    &entry.path,
                    &size,
                );
            }
            Line::Many(folder, entries, bytes) => {
                page.gained("", "", &format!("{folder}/"), &format!("  {}, {entries} paths", size(bytes)));
            }
        }
    }
    let learned: BTreeSet<&str> = document.contents.iter().filter_map(|entry| entry.learned_from.as_deref()).collect();
    for release in learned {
        page.wrapped("  ", 2, &format!("(what base images decide is as in release {})", one_line(release)));
    }
    if let Some(definition) = &document.definition {
        page.line("\ndefinition");
        page.wrapped("  ", 2, &definition.digest);
        page.wrapped("  ", 2, &format!("{} vertices, {}", document.vertices.len(), size(definition.size_bytes)));
    }
    if !document.notices.is_empty() {
        page.line("");
        document.notices.iter().for_each(|notice| page.wrapped("", 2, &format!("note: {}", one_line(notice))));
    }
    page.out
}

struct Page {
    columns: usize,
    /// How wide the forecast's column is; 0 where there is none.
    states: usize,
    out: String,
}

impl Page {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    /// Writes a word and what it stands for.
    fn field(&mut self, name: &str, value: &str) {
        if self.columns >= WIDE {
            self.wrapped(&format!("{name:12}"), 12, value);
        } else {
            self.line(name);
            self.wrapped("  ", 2, value);
        }
    }

    /// Writes what the image gains at a path, which an earlier release may have found in somebody's image.
    fn gained(&mut self, mode: &str, owner: &str, path: &str, size: &str) {
        let path = escaped(path.as_bytes());
        if self.columns >= WIDE {
            self.wrapped(&format!("      {mode:5} {owner:10} "), 23, &format!("{path}{size}"));
        } else {
            self.wrapped("  ", 2, &path);
            self.wrapped("    ", 4, &format!("{mode} {owner}{size}"));
        }
    }

    fn vertex(&mut self, vertex: &Vertex, room: usize) {
        let digest = vertex.digest.as_deref().map_or("unresolved", Document::short);
        let mut inputs: Vec<usize> = vertex.inputs.iter().map(|edge| edge.vertex + 1).collect();
        inputs.dedup();
        let (number, name) = (vertex.id + 1, one_line(&vertex.name));
        if self.columns >= WIDE {
            let state = if self.states > 0 { format!("{:1$}  ", word(vertex), self.states) } else { String::new() };
            let line = format!("{number:>4}  {state}{:room$}  {digest:12}", cut(&name, room));
            let from = from(&inputs, self.columns.saturating_sub(line.chars().count() + 2));
            self.line(format!("{line}  {from}").trim_end());
        } else {
            self.wrapped(&format!("{number:>3} "), 4, &name);
            if self.states > 0 && !word(vertex).is_empty() {
                self.line(&format!("    {}", word(vertex)));
            }
            self.wrapped("    ", 4, digest);
            let from = from(&inputs, 64);
            if !from.is_empty() {
                self.wrapped("    ", 4, &from);
            }
        }
    }

    /// Writes down why what runs runs, and what is not known; what merely follows is counted.
    fn forecast(&mut self, vertices: &[Vertex]) {
        let told = || vertices.iter().filter_map(|vertex| Some((vertex.id + 1, vertex.forecast.as_ref()?)));
        if told().next().is_none() {
            return;
        }
        let in_state = |state: &str| told().filter(|(_, forecast)| forecast.state == state).count();
        let states = [("cached", "cached"), ("likely", "likely cached"), ("run", "run"), ("unknown", "not known")];
        let counts = states.iter().filter_map(|(state, said)| Some((in_state(state), said)).filter(|(count, _)| *count > 0));
        let counts: Vec<String> = counts.map(|(count, said)| format!("{count} {said}")).collect();
        self.line("\nforecast");
        self.wrapped("  ", 2, &counts.join(", "));
        let mut reasons: Vec<(&str, &str, Vec<usize>)> = Vec::new();
        for (number, forecast) in told().filter(|(_, forecast)| forecast.state != "cached" && forecast.behind.is_none()) {
            match reasons.iter_mut().find(|(state, reason, _)| (*state, *reason) == (&forecast.state, &forecast.reason)) {
                Some((.., numbers)) => numbers.push(number),
                None => reasons.push((&forecast.state, &forecast.reason, vec![number])),
            }
        }
        for (_, reason, numbers) in reasons {
            self.wrapped("  ", 4, &format!("{}: {}", forecast::numbers(&numbers), one_line(reason)));
        }
        let following: Vec<usize> = told().filter(|(_, forecast)| forecast.behind.is_some()).map(|(number, _)| number).collect();
        if !following.is_empty() {
            self.wrapped("  ", 4, &format!("{}: behind what runs", forecast::numbers(&following)));
        }
    }

    /// Writes `text` behind `start`, broken at spaces where there are some; further lines are
    /// indented.
    fn wrapped(&mut self, start: &str, indent: usize, text: &str) {
        let mut line = start.to_owned();
        let mut room = self.columns.saturating_sub(start.chars().count());
        let mut empty = true;
        for word in text.split(' ') {
            let mut word: Vec<char> = word.chars().collect();
            if !empty && word.len() < room {
                line.push(' ');
                room -= 1;
            } else if !empty {
                self.line(line.trim_end());
                line = " ".repeat(indent);
                room = self.columns - indent;
            }
            while word.len() > room {
                line.extend(word.drain(..room));
                self.line(&line);
                line = " ".repeat(indent);
                room = self.columns - indent;
            }
            room -= word.len();
            line.extend(word);
            empty = false;
        }
        self.line(line.trim_end());
    }
}

/// Names the inputs, as many as there is room for.
fn from(inputs: &[usize], room: usize) -> String {
    let Some((first, rest)) = inputs.split_first() else { return String::new() };
    let all: Vec<String> = inputs.iter().map(ToString::to_string).collect();
    let whole = format!("from {}", all.join(", "));
    if whole.len() <= room {
        return whole;
    }
    let mut text = format!("from {first}");
    for (place, input) in rest.iter().enumerate() {
        let (next, left) = (format!(", {input}"), rest.len() - place - 1);
        if text.len() + next.len() + format!(", +{left}").len() > room {
            let _ = write!(text, ", +{}", left + 1);
            break;
        }
        text.push_str(&next);
    }
    if text.len() > room { format!("{} inputs", inputs.len()) } else { text }
}

/// The forecast in a word.
fn word(vertex: &Vertex) -> &str {
    match vertex.forecast.as_ref().map(|forecast| forecast.state.as_str()) {
        Some("unknown") => "?",
        Some(state) => state,
        None => "",
    }
}

/// Cuts a name in its middle: what tells names apart is often at their end.
fn cut(name: &str, room: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= room {
        return name.to_owned();
    }
    let end = (room - 1) * 2 / 5;
    let (start, end) = (&letters[..room - 1 - end], &letters[letters.len() - end..]);
    start.iter().chain(&['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Forecast;
    use crate::dry_run::tests::document;

    #[test]
    fn no_line_is_wider_than_the_columns() {
        let document = document(40);
        for columns in [20, 21, 33, 59, 60, 61, 72, 80, 200] {
            let text = render(&document, columns);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= columns, "{widest} of {columns}\n{text}");
            let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            assert!(
                squeezed.contains("rocheuser/app/roche-service") || squeezed.contains("/app/roche-service-rocheuser"),
                "{text}"
            );
            assert!(squeezed.contains(&document.definition.as_ref().unwrap().digest), "{text}");
        }
    }

    #[test]
    fn a_forecast_has_a_word_a_step_and_the_reasons_that_are_not_of_others() {
        let mut document = document(6);
        let forecast =
            |state: &str, reason: &str, behind| Forecast { state: state.to_owned(), reason: reason.to_owned(), behind };
        let count = document.vertices.len();
        for vertex in &mut document.vertices {
            vertex.forecast = Some(match vertex.id {
                0 => forecast("cached", "a reason that is not said", None),
                1 | 2 => forecast("run", "the cache has no \u{1b}[2Jresult of it", None),
                3 => forecast("likely", "it was solved", None),
                4 => forecast("unknown", "nobody knows", None),
                _ => forecast("run", "behind 2 NAME, which runs", Some(1)),
            });
        }
        for columns in [20, 33, 60, 80] {
            let text = render(&document, columns);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= columns, "{widest} of {columns}\n{text}");
        }
        let text = render(&document, 80);
        for line in [
            "   1  cached  ",
            "   2  run     ",
            "   4  likely  ",
            "   5  ?       ",
            "  2, 3: the cache has no result of it\n",
            "  4: it was solved\n",
            "  5: nobody knows\n",
            &format!("  6-{count}: behind what runs\n"),
            &format!("  1 cached, 1 likely cached, {} run, 1 not known\n", count - 3),
        ] {
            assert!(text.contains(line), "{line:?}\n{text}");
        }
        assert!(!text.contains("not said") && !text.contains('\u{1b}'), "{text}");
        for vertex in &mut document.vertices {
            vertex.forecast = Some(forecast("unknown", "nobody knows", None));
        }
        let text = render(&document, 80);
        assert!(text.contains(&format!("  1-{count}: nobody knows\n")) && !text.contains('?'), "{text}");
    }

    #[test]
    fn a_name_keeps_its_end() {
        assert_eq!(cut("image registry/name:tag", 23), "image registry/name:tag");
        assert_eq!(cut("image registry/name:tag", 16), "image reg…me:tag");
        assert_eq!(cut("ab", 1), "…");
    }

    #[test]
    fn many_inputs_are_counted() {
        assert_eq!(from(&[], 13), "");
        assert_eq!(from(&[1, 3, 2], 12), "from 1, 3, 2");
        assert_eq!(from(&[1, 3, 2, 4], 13), "from 1, 3, +2");
        assert_eq!(from(&[1, 3, 2, 4], 15), "from 1, 3, 2, 4");
        assert_eq!(from(&[10_000, 1, 2, 3], 12), "4 inputs");
    }
}
