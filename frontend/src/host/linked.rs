//! Three tiny programs, linked as a build links its own, to see what the linker reads.
//!
//! The linker writes the list itself (`--dependency-file`: GNU ld, gold and mold since 2020, lld):
//! start files, archives, shared objects, and the scripts that stand for them.

use std::fs;
use std::path::{Path, PathBuf};

use super::elf::{self, Elf};
use super::{HostError, Run, STATIC, ask, at};

/// A program that links what every program with the standard library does.
const PROGRAM: &str = "fn main() { println!(\"{}\", std::env::args().count()); }\n";

/// Links a static program for `target`; returns the files that were read.
pub(super) fn service(work: &Path, rustc: &Path, target: &str, run: Run<'_>) -> Result<Vec<PathBuf>, HostError> {
    let fail = |reason: String| HostError::Static { target: target.to_owned(), reason };
    let program = Probe { name: "service", source: PROGRAM, args: &["--target", target, "-C", STATIC] };
    let (output, files) = program.link(work, rustc, run).map_err(|error| match error {
        HostError::Program { reason, .. } => fail(reason),
        other => other,
    })?;
    match elf::read(&output).map_err(at(&output))? {
        Elf::Dynamic { loader: Some(loader) } => Err(fail(format!("it came out with the loader {}", loader.display()))),
        _ => Ok(files),
    }
}

/// Links what a build runs itself, a build script and a procedural macro; returns each with the
/// files that were read.
pub(super) fn helpers(work: &Path, rustc: &Path, run: Run<'_>) -> Result<[(PathBuf, Vec<PathBuf>); 2], HostError> {
    let script = Probe { name: "script", source: PROGRAM, args: &[] };
    let macros = Probe { name: "macros", source: "extern crate proc_macro;\n", args: &["--crate-type", "proc-macro"] };
    Ok([script.link(work, rustc, run)?, macros.link(work, rustc, run)?])
}

struct Probe<'a> {
    name: &'a str,
    source: &'a str,
    args: &'a [&'a str],
}

impl Probe<'_> {
    fn link(&self, work: &Path, rustc: &Path, run: Run<'_>) -> Result<(PathBuf, Vec<PathBuf>), HostError> {
        let (source, list) = (format!("{}.rs", self.name), format!("{}.d", self.name));
        fs::write(work.join(&source), self.source).map_err(at(&work.join(&source)))?;
        // Relative names: commas and spaces in the work folder's would be the linker driver's.
        let link = format!("link-arg=-Wl,--dependency-file={list}");
        let mut args = vec!["--edition", "2021", "--crate-name", self.name, "-o", self.name, "-C", &link];
        args.extend(self.args);
        args.push(&source);
        ask::say(run, rustc, &args, work)?;
        let list = work.join(list);
        let text = fs::read_to_string(&list).map_err(at(&list))?;
        // Relative ones and those that are gone are the compiler's own.
        let files = prerequisites(&text).into_iter().map(PathBuf::from);
        Ok((work.join(self.name), files.filter(|file| file.is_absolute() && !file.starts_with(work) && file.is_file()).collect()))
    }
}

/// Reads what the first rule of a makefile names.
fn prerequisites(makefile: &str) -> Vec<String> {
    let rule = makefile.split_once(": ").map_or("", |(_, rest)| rest);
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut characters = rule.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some('\n')) => {}
            ('\\', Some(&next @ (' ' | '#' | '\\'))) | ('$', Some(&next @ '$')) => {
                word.push(next);
                characters.next();
            }
            ('\n', Some('\n') | None) => break,
            (space, _) if space.is_whitespace() => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            (other, _) => word.push(other),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_each_linker_are_read() {
        let lld = "a.dyn: \\\n /usr/crt1.o \\\n /usr/my\\ lib/a$$b.a \\\n tmp.o\n\n/usr/crt1.o:\n\n/usr/else.o:\n";
        assert_eq!(prerequisites(lld), ["/usr/crt1.o", "/usr/my lib/a$b.a", "tmp.o"]);
        let bfd = "a: \\\n  /usr/12/../crt1.o \\\n  /lib64/ld.so\n\n/usr/12/../crt1.o:\n";
        assert_eq!(prerequisites(bfd), ["/usr/12/../crt1.o", "/lib64/ld.so"]);
        assert!(prerequisites("").is_empty() && prerequisites("a:\n").is_empty());
    }
}
