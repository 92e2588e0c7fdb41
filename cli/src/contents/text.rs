//! An image's contents for people: what was added last first, then the rest; no colour needed.
//!
//! Invariant: no line is longer than the width, and every text of the image's author is escaped.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use roche_engine::oci::layer::{Kind, Node};
use roche_frontend::crates;

use super::config::without_secrets;
use super::examine::{FindingKind, Owners};
use super::{Examined, Finding, Program};
use crate::args::ContentsArgs;
use crate::columns::{WIDE, cut, escaped, fit, left, path, right, taken, wrapped};
use crate::text::{one_line, size};

/// Lines of a section that stands for more.
const SECTION: usize = 20;
/// The biggest files, and the files that take the most room in vain.
const TOP: usize = 10;

/// Renders everything.
pub(super) fn render(examined: &Examined, args: &ContentsArgs, width: usize) -> String {
    let mut page = Page { out: String::new(), width, all: args.all };
    if let Some(number) = args.layer {
        page.layer(examined, number - 1, usize::MAX);
        return page.out;
    }
    page.head(examined);
    page.layers(examined);
    // What the last layer adds is what its author wants to confirm; a whole base image is not.
    let trees = examined.contents.layers();
    let mut filled = (0..trees.len()).rev().filter(|number| trees[*number].nodes.len() > 1);
    if let Some(last) = filled.next().filter(|last| filled.next().is_some() || trees[*last].nodes.len() <= 2 * SECTION) {
        page.heading(&format!("layer {} adds", last + 1));
        page.layer(examined, last, if args.all { usize::MAX } else { 2 * SECTION });
    }
    page.tree(examined, if args.all { usize::MAX } else { args.depth });
    page.biggest(examined);
    page.wasted(examined);
    page.programs(&examined.programs);
    page.findings(&examined.findings);
    page.out
}

/// Renders paths alone, one a line, all of them.
pub(super) fn paths(examined: &Examined, layer: Option<usize>) -> String {
    let mut out = String::new();
    let mut line = |bytes: &[u8]| {
        let _ = writeln!(out, "{}", path(bytes));
    };
    match layer {
        Some(number) => examined.contents.layers()[number - 1].nodes.iter().for_each(|(path, node)| {
            if node.kind != Kind::Whiteout && !path.is_empty() {
                line(path);
            }
        }),
        None => examined.contents.files().filter(|shown| !shown.path.is_empty()).for_each(|shown| line(shown.path)),
    }
    out
}

/// Text that grows downwards.
struct Page {
    out: String,
    width: usize,
    all: bool,
}

impl Page {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{}", text.trim_end());
    }

    fn heading(&mut self, text: &str) {
        self.out.push('\n');
        let text = cut(text, self.width);
        self.line(&text);
    }

    /// A name and what there is of it, in as many lines as it takes.
    fn field(&mut self, name: &str, value: &str) {
        // A digest fits 80 columns.
        let label = if self.width >= WIDE { 9 } else { 2 };
        let room = self.width - label;
        let lines = wrapped(value, room);
        if self.width >= WIDE {
            self.line(&format!("{}{}", left(name, label), lines[0]));
        } else {
            self.line(name);
            self.line(&format!("  {}", lines[0]));
        }
        lines[1..].iter().for_each(|line| self.line(&format!("{}{line}", " ".repeat(label))));
    }

    fn fields<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a str>) {
        for (i, value) in values.into_iter().enumerate() {
            self.field(if i == 0 || self.width < WIDE { name } else { "" }, value);
        }
    }

    fn head(&mut self, examined: &Examined) {
        let Examined { image, settings, .. } = examined;
        self.field("image", &one_line(&examined.name));
        if examined.found_in != examined.name {
            self.field("found in", &one_line(&examined.found_in));
        }
        match image.digest {
            Some(digest) => self.field("digest", &digest.to_string()),
            None => self.field("image id", &image.id.to_string()),
        }
        self.field("platform", &one_line(&image.config.platform.to_string()));
        let user = if settings.user.is_empty() { "root (none is set)".to_owned() } else { one_line(&settings.user) };
        self.field("user", &user);
        let words = |words: &[String]| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let env: Vec<String> = settings.env.iter().map(|(name, value)| one_line(&format!("{name}={value}"))).collect();
        let labels: Vec<String> = settings.labels.iter().map(|(key, value)| one_line(&format!("{key}={value}"))).collect();
        for (name, value) in [
            ("workdir", one_line(&settings.workdir)),
            ("entry", words(&settings.entrypoint)),
            ("command", words(&settings.command)),
            ("ports", one_line(&settings.ports.join(", "))),
            ("volumes", one_line(&settings.volumes.join(", "))),
            ("stops by", one_line(&settings.stop_signal)),
        ] {
            if !value.is_empty() {
                self.field(name, &value);
            }
        }
        self.fields("env", env.iter().map(String::as_str));
        self.fields("labels", labels.iter().map(String::as_str));
    }

    fn layers(&mut self, examined: &Examined) {
        let trees = examined.contents.layers();
        let sums: Vec<u64> = trees.iter().map(|tree| tree.nodes.values().map(bytes).sum()).collect();
        let stored: u64 = examined.image.layers.iter().map(|layer| layer.size_bytes).sum();
        let total = size(sums.iter().sum());
        self.heading(&format!("{}: {total} in files, {} as stored", counted(trees.len(), "layer"), size(stored)));
        let mut steps = examined.image.config.history.iter().filter(|step| !step.empty_layer);
        for (i, (tree, sum)) in trees.iter().zip(&sums).enumerate() {
            let made = steps.next().map(|step| one_line(&without_secrets(&step.created_by).0)).unwrap_or_default();
            let number = right(&(i + 1).to_string(), 3);
            let start = if self.width >= WIDE {
                let (files, digest) = (tree.nodes.len() - 1, examined.image.layers[i].diff_id.short());
                format!("{number}  {}  {}  {digest}  ", right(&size(*sum), 7), right(&counted(files, "entry"), 12))
            } else {
                format!("{number} {} ", right(&size(*sum), 7))
            };
            let room = self.width.saturating_sub(taken(&start));
            self.line(&format!("{start}{}", cut(&made, room)));
        }
    }

    /// What a layer has by itself.
    fn layer(&mut self, examined: &Examined, number: usize, most: usize) {
        let tree = &examined.contents.layers()[number];
        let nodes: Vec<_> =
            tree.nodes.iter().filter(|(path, node)| !path.is_empty() && !is_way(examined, number, path, node)).collect();
        for (bytes, node) in nodes.iter().take(most) {
            match &node.kind {
                Kind::Whiteout => self.line_of(None, "-", &format!("{} (removed)", path(bytes))),
                Kind::Hardlink { to } => {
                    let file = tree.node(bytes);
                    self.entry(&examined.owners, file.unwrap_or(node), "-", &format!("{} = {}", path(bytes), path(to)));
                }
                _ => {
                    let name = if node.is_folder() { format!("{}/", path(bytes)) } else { path(bytes) };
                    self.entry(&examined.owners, node, &own_size(node), &pointed(&name, node));
                }
            }
        }
        self.more(nodes.len(), most, &format!("--layer {} or --all", number + 1));
    }

    /// What is shown, up to a depth; a folder has the sum of what is in it.
    fn tree(&mut self, examined: &Examined, depth: usize) {
        let mut sums: BTreeMap<&[u8], (u64, usize)> = BTreeMap::new();
        let (mut total, mut files) = (0, 0);
        for shown in examined.contents.files().filter(|shown| !shown.path.is_empty()) {
            let own = if shown.link.is_none() { bytes(shown.node) } else { 0 };
            total += own;
            files += usize::from(!shown.node.is_folder());
            let slashes = shown.path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            for at in slashes.take(depth) {
                let sum = sums.entry(&shown.path[..at]).or_default();
                sum.0 += own;
                sum.1 += usize::from(!shown.node.is_folder());
            }
        }
        self.heading(&format!("{}, {}", counted(files, "file"), size(total)));
        for shown in examined.contents.files().filter(|shown| !shown.path.is_empty()) {
            if shown.path.iter().filter(|byte| **byte == b'/').count() >= depth {
                continue;
            }
            let name = path(shown.path);
            if let Some(link) = shown.link {
                self.entry(&examined.owners, shown.node, "-", &format!("{name} = {}", path(link)));
            } else if shown.node.is_folder() {
                let (sum, count) = sums.get(shown.path).copied().unwrap_or_default();
                let beneath = if depth == usize::MAX { String::new() } else { format!("  {}", counted(count, "file")) };
                self.entry(&examined.owners, shown.node, &size(sum), &format!("{name}/{beneath}"));
            } else {
                self.entry(&examined.owners, shown.node, &own_size(shown.node), &pointed(&name, shown.node));
            }
        }
    }

    fn biggest(&mut self, examined: &Examined) {
        let mut files: Vec<_> = examined.contents.files().filter(|shown| shown.link.is_none() && bytes(shown.node) > 0).collect();
        files.sort_by_key(|shown| (std::cmp::Reverse(bytes(shown.node)), shown.path));
        if files.is_empty() {
            return;
        }
        self.heading("the biggest files");
        for shown in files.iter().take(TOP) {
            self.line_of(None, &size(bytes(shown.node)), &path(shown.path));
        }
    }

    fn wasted(&mut self, examined: &Examined) {
        let mut lost: Vec<_> = examined.contents.lost().iter().collect();
        if lost.is_empty() {
            return;
        }
        lost.sort_by_key(|lost| (std::cmp::Reverse(lost.size_bytes), &lost.path, lost.layer));
        let sum = size(lost.iter().map(|lost| lost.size_bytes).sum());
        self.heading(&format!("wasted: {sum} that later layers hide"));
        let most = if self.all { usize::MAX } else { TOP };
        for lost in lost.iter().take(most) {
            let done = if lost.is_removed { "removed" } else { "replaced" };
            let what = format!("  layer {}, {done} by {}", lost.layer + 1, lost.by + 1);
            self.line_with_note(&size(lost.size_bytes), &path(&lost.path), &what);
        }
        self.more(lost.len(), most, "--all");
    }

    fn programs(&mut self, programs: &[Program]) {
        let all = self.all;
        for program in programs.iter().filter(|program| all || !program.is_large) {
            let name = path(&program.path);
            let list = match &program.crates {
                Ok(list) => list,
                Err(reason) => {
                    self.heading(&format!("crates in {name}: unknown"));
                    wrapped(&one_line(reason), self.width - 2).iter().for_each(|line| self.line(&format!("  {line}")));
                    continue;
                }
            };
            let (inside, building) = (list.of_kind(crates::Kind::Runtime).count(), list.of_kind(crates::Kind::Build).count());
            let building = if building > 0 { format!(", and {building} to build it") } else { String::new() };
            self.heading(&format!("crates in {name}: {inside}{building}"));
            let most = if self.all { usize::MAX } else { SECTION };
            for package in list.of_kind(crates::Kind::Runtime).take(most) {
                let line = cut(&one_line(&format!("{} {}", package.name, package.version)), self.width - 2);
                self.line(&format!("  {line}"));
            }
            self.more(inside, most, "--all");
        }
    }

    fn findings(&mut self, findings: &[Finding]) {
        for (kind, _, heading) in FindingKind::ALL {
            let found: Vec<_> = findings.iter().filter(|finding| finding.kind == kind).collect();
            if found.is_empty() {
                continue;
            }
            self.heading(&format!("{heading}: {}", found.len()));
            let most = if self.all { usize::MAX } else { SECTION };
            for finding in found.iter().take(most) {
                let mut notes = Vec::new();
                notes.extend(finding.layer.map(|layer| format!("layer {}", layer + 1)));
                notes.extend(Some(&finding.detail).filter(|detail| !detail.is_empty()).cloned());
                notes.extend(finding.is_hidden.then(|| "hidden, and can still be read".to_owned()));
                let name = if finding.layer.is_some() { path(&finding.what) } else { escaped(&finding.what) };
                self.line_with_note("", &name, &format!("  {}", notes.join(", ")));
            }
            self.more(found.len(), most, "--all");
        }
    }

    fn more(&mut self, count: usize, most: usize, flag: &str) {
        if count > most {
            let text = format!("  and {} more: {flag}", count - most);
            let text = cut(&text, self.width);
            self.line(&text);
        }
    }

    fn entry(&mut self, owners: &Owners, node: &Node, size: &str, name: &str) {
        self.line_of(Some((letters(node), owner(owners, node))), size, name);
    }

    /// One line of a table: mode and owner where there is room, the size, the rest as far as it goes.
    fn line_of(&mut self, facts: Option<(String, String)>, size: &str, name: &str) {
        let start = match facts {
            Some((mode, owner)) if self.width >= WIDE => {
                format!("  {mode}  {}  {}  ", left(&cut(&owner, 19), 13), right(size, 7))
            }
            _ => format!("  {}  ", right(size, 7)),
        };
        let name = fit(name, self.width.saturating_sub(taken(&start)));
        self.line(&format!("{start}{name}"));
    }

    /// A size, a path, and what there is to say of it: behind it, or on a line of its own.
    fn line_with_note(&mut self, size: &str, name: &str, note: &str) {
        let start = if size.is_empty() { "  ".to_owned() } else { format!("  {}  ", right(size, 7)) };
        if taken(&start) + taken(name) + taken(note) <= self.width {
            self.line(&format!("{start}{name}{note}"));
            return;
        }
        let name = fit(name, self.width - taken(&start).min(self.width));
        self.line(&format!("{start}{name}"));
        for line in wrapped(note.trim_start(), self.width.saturating_sub(6)) {
            self.line(&format!("      {line}"));
        }
    }
}

/// Says whether a folder only leads to what its layer adds.
fn is_way(examined: &Examined, number: usize, path: &[u8], node: &Node) -> bool {
    node.kind == (Kind::Folder { opaque: false }) && examined.contents.at(path).is_some_and(|shown| shown.layer < number)
}

/// Returns how much content a node has.
pub(super) fn bytes(node: &Node) -> u64 {
    match node.kind {
        Kind::File { size_bytes, .. } => size_bytes,
        _ => 0,
    }
}

fn own_size(node: &Node) -> String {
    match node.kind {
        Kind::File { size_bytes, .. } => size(size_bytes),
        Kind::Char { major, minor } | Kind::Block { major, minor } => format!("{major},{minor}"),
        _ => "-".to_owned(),
    }
}

/// Adds where a link points.
fn pointed(name: &str, node: &Node) -> String {
    match &node.kind {
        Kind::Symlink { target } => format!("{name} -> {}", escaped(target)),
        _ => name.to_owned(),
    }
}

/// Writes type and mode as ls does.
pub(crate) fn letters(node: &Node) -> String {
    let kind = match node.kind {
        Kind::File { .. } | Kind::Hardlink { .. } => '-',
        Kind::Folder { .. } => 'd',
        Kind::Symlink { .. } => 'l',
        Kind::Char { .. } => 'c',
        Kind::Block { .. } => 'b',
        Kind::Fifo => 'p',
        Kind::Whiteout => 'w',
    };
    let mut letters = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = node.mode >> shift;
        letters.push(if bits & 4 != 0 { 'r' } else { '-' });
        letters.push(if bits & 2 != 0 { 'w' } else { '-' });
        letters.push(match (bits & 1 != 0, node.mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    letters
}

/// Writes owner and group by the image's own names.
pub(crate) fn owner(owners: &Owners, node: &Node) -> String {
    let name = |names: &BTreeMap<u32, String>, id: u32| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
    let (user, group) = (name(&owners.users, node.uid), name(&owners.groups, node.gid));
    if user == group { user } else { format!("{user}:{group}") }
}

/// Quotes a word that a shell would take for several.
fn quoted(word: &str) -> String {
    let word = one_line(word);
    if word.is_empty() || word.contains([' ', '"', '\'']) { format!("{word:?}") } else { word }
}

/// Counts things: `1 file`, `3,200 files`.
pub(super) fn counted(count: usize, what: &str) -> String {
    let digits = count.to_string();
    let mut number = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            number.push(',');
        }
        number.push(digit);
    }
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {what}s"),
    }
}
