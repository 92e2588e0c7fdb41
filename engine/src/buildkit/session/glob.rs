//! One wildcard pattern, and whether a path matches it.
//!
//! The language is Go's `path/filepath.Match` with Moby's `**` (`moby/patternmatcher`): `*` is any
//! run without `/`, `?` any character but `/`, `[a-z]` and `[^a-z]` a class, `\` quotes; `**/` is
//! any number of folders, `**` at the end is everything below. Invariant: matching takes time
//! proportional to pattern times path; no pattern that a daemon sends can make it explode.

/// A pattern, compiled.
#[derive(Clone, Debug)]
pub(crate) enum Glob {
    /// No wildcard.
    Exact(String),
    /// What `**` at the end leaves.
    Prefix(String),
    /// What `**` at the start leaves.
    Suffix(String),
    /// Everything else.
    States(Vec<State>),
}

/// A state of the automaton; the one after the last accepts.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// This character.
    Char(char),
    /// `?`
    AnyChar,
    /// `*`
    AnyName,
    /// `[…]`
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// `**/`: either goes on after [`State::Folders`], or into it.
    EnterFolders,
    /// The inside of `**/`: it is left by a `/`.
    Folders,
    /// `**` at the end.
    Rest,
}

/// Says that a pattern breaks the grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pattern: an unclosed or empty [class], or a \\ at the end")]
pub(crate) struct GlobError(pub(crate) String);

impl Glob {
    /// Compiles a path pattern that is clean (no `//`, no `.` parts) and not empty.
    pub(crate) fn path(pattern: &str) -> Result<Self, GlobError> {
        #[derive(PartialEq)]
        enum Kind {
            Exact,
            Prefix,
            Suffix,
            States,
        }
        let mut kind = Kind::Exact;
        let mut states = Vec::new();
        let mut chars = pattern.chars().peekable();
        let mut first = true;
        while let Some(c) = chars.next() {
            match c {
                '*' if chars.next_if_eq(&'*').is_some() => {
                    chars.next_if_eq(&'/');
                    if chars.peek().is_some() {
                        states.extend([State::EnterFolders, State::Folders]);
                        kind = Kind::States;
                    } else if kind == Kind::Exact {
                        kind = Kind::Prefix;
                    } else {
                        states.push(State::Rest);
                        kind = Kind::States;
                    }
                    if first {
                        kind = Kind::Suffix;
                    }
                }
                _ => {
                    let state = one(c, &mut chars).ok_or_else(|| GlobError(pattern.to_owned()))?;
                    if c == '\\' || !matches!(state, State::Char(_)) {
                        kind = Kind::States;
                    }
                    states.push(state);
                }
            }
            first = false;
        }
        Ok(match kind {
            Kind::Exact => Self::Exact(pattern.to_owned()),
            Kind::Prefix => Self::Prefix(pattern.strip_suffix("**").unwrap_or(pattern).to_owned()),
            Kind::Suffix => Self::Suffix(pattern.strip_prefix("**").unwrap_or(pattern).to_owned()),
            Kind::States => Self::States(states),
        })
    }

    /// Compiles a pattern for one name, in which `**` means no more than `*`.
    pub(crate) fn name(pattern: &str) -> Result<Self, GlobError> {
        let mut chars = pattern.chars().peekable();
        let mut states = Vec::new();
        while let Some(c) = chars.next() {
            states.push(one(c, &mut chars).ok_or_else(|| GlobError(pattern.to_owned()))?);
        }
        Ok(Self::States(states))
    }

    /// Says whether the whole of `path` matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(pattern) => path == pattern,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path),
            Self::States(states) => run(states, path),
        }
    }
}

/// Says whether a name holds an unquoted `*`, `?` or `[`.
pub(crate) fn has_wildcard(name: &str) -> bool {
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// Reads what starts with `c`; nothing where the grammar is broken.
fn one(c: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<State> {
    Some(match c {
        '*' => State::AnyName,
        '?' => State::AnyChar,
        '\\' => State::Char(chars.next()?),
        '[' => class(chars)?,
        _ => State::Char(c),
    })
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<State> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(State::Class { negated, ranges }),
            ']' | '-' => return None,
            '\\' => chars.next()?,
            c => c,
        };
        let high = match chars.next_if_eq(&'-') {
            None => low,
            Some(_) => match chars.next()? {
                ']' | '-' => return None,
                '\\' => chars.next()?,
                c => c,
            },
        };
        ranges.push((low, high));
    }
}

fn run(states: &[State], path: &str) -> bool {
    let mut now = vec![false; states.len() + 1];
    let mut next = now.clone();
    now[0] = true;
    settle(states, &mut now);
    for c in path.chars() {
        next.fill(false);
        let mut alive = false;
        for (i, state) in states.iter().enumerate().filter(|(i, _)| now[*i]) {
            let (stay, go) = match state {
                State::Char(wanted) => (false, c == *wanted),
                State::AnyChar => (false, c != '/'),
                State::AnyName => (c != '/', false),
                State::Class { negated, ranges } => {
                    (false, ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated)
                }
                State::EnterFolders => (false, false),
                State::Folders => (c != '\n', c == '/'),
                State::Rest => (c != '\n', false),
            };
            next[i] |= stay;
            next[i + 1] |= go;
            alive |= stay || go;
        }
        if !alive {
            return false;
        }
        std::mem::swap(&mut now, &mut next);
        settle(states, &mut now);
    }
    now[states.len()]
}

/// Adds the states that are reached without a character. They only point forward.
fn settle(states: &[State], set: &mut [bool]) {
    for (i, state) in states.iter().enumerate() {
        if set[i] {
            match state {
                State::AnyName | State::Rest => set[i + 1] = true,
                State::EnterFolders => {
                    set[i + 1] = true;
                    set[i + 2] = true;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_gos_filepath_match() {
        for (pattern, name, verdict) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*b*c*d*e*", "axbxcxdxexxx", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "z", false),
            ("[\\-x]", "-", true),
            ("*x", "xxx", true),
            ("**", "xxx", true),
        ] {
            assert_eq!(Glob::name(pattern).expect(pattern).matches(name), verdict, "{pattern} {name}");
        }
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "a/b[c", "[]", "x\\"] {
            assert_eq!(Glob::name(pattern).err(), Some(GlobError(pattern.to_owned())));
            assert!(Glob::path(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = "*a".repeat(500) + "**/" + &"**/*?".repeat(200) + "b";
        let glob = Glob::path(&pattern).expect("a pattern");
        assert!(!glob.matches(&"a".repeat(5_000)));
    }

    #[test]
    fn quoted_wildcards_are_none() {
        assert!(has_wildcard("a*") && has_wildcard("?") && has_wildcard("x[y]"));
        assert!(!has_wildcard("a\\*") && !has_wildcard("plain]"));
    }
}
