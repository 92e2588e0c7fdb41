//! Modes as `chmod` reads them: `755`, `u+x,go-w`, `a=rX`, `g=u` (BSD's `setmode`, as BuildKit uses it, with the umask 0).
//!
//! Invariant: applying changes needs only the mode before, so the same text gives the same mode everywhere.

/// Set-user-id, set-group-id and all permissions.
const STANDARD: u32 = 0o6777;
const STICKY: u32 = 0o1000;

/// The changes of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Modes(Vec<Change>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Set(u32),
    Clear(u32),
    /// Sets execution where anyone had it before, or on folders.
    SetExecution(u32),
    /// Gives the classes of `to` what the class at `from` (a shift) has now.
    Take {
        from: u32,
        to: u32,
        op: u8,
    },
}

impl Modes {
    /// Reads a text; nothing where it is no mode.
    pub(super) fn read(text: &str) -> Option<Self> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| mode & !(STANDARD | STICKY) == 0)?;
            return Some(Self(vec![Change::Clear(STANDARD | STICKY), Change::Set(mode)]));
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            clause_of(clause.as_bytes(), &mut changes)?;
        }
        Some(Self(changes))
    }

    /// Returns the mode after the changes.
    pub(super) fn apply(&self, before: u32, is_folder: bool) -> u32 {
        self.0.iter().fold(before, |mode, change| match change {
            Change::Set(bits) => mode | bits,
            Change::Clear(bits) => mode & !bits,
            Change::SetExecution(bits) if before & 0o111 != 0 || is_folder => mode | bits,
            Change::SetExecution(_) => mode,
            Change::Take { from, to, op } => {
                let value = mode >> from & 7;
                let spread = |value: u32| (value << 6 | value << 3 | value) & to;
                match op {
                    b'+' => mode | spread(value),
                    b'-' => mode & !spread(value),
                    _ => mode & !spread(7) | spread(value),
                }
            }
        })
    }
}

/// Reads one clause: who, then operators with permissions.
fn clause_of(mut clause: &[u8], changes: &mut Vec<Change>) -> Option<()> {
    let mut who = 0;
    while let Some((class, rest)) = clause.split_first() {
        who |= match class {
            b'a' => STANDARD,
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => 0o007,
            _ => break,
        };
        clause = rest;
    }
    let is_others = who == 0o007;
    if clause.is_empty() {
        return None;
    }
    while let Some((&op, mut rest)) = clause.split_first() {
        if !matches!(op, b'+' | b'-' | b'=') {
            return None;
        }
        let (mut bits, mut execution, mut take, mut sticky) = (0, 0, Vec::new(), 0);
        while let Some((permission, after)) = rest.split_first() {
            match permission {
                b'r' => bits |= 0o444,
                b'w' => bits |= 0o222,
                b'x' => bits |= 0o111,
                b'X' if op == b'-' => bits |= 0o111,
                b'X' => execution = 0o111,
                b's' if !is_others => bits |= 0o6000,
                b't' if !is_others => sticky = STICKY,
                b's' | b't' => {}
                b'u' => take.push(6),
                b'g' => take.push(3),
                b'o' => take.push(0),
                _ => break,
            }
            rest = after;
        }
        let classes = if who == 0 { STANDARD } else { who };
        let bits = bits & classes | sticky;
        // `g=u` takes the place of what `=` clears.
        if op == b'=' && (take.is_empty() || bits != 0) {
            changes.push(Change::Clear(classes | sticky));
        }
        if bits != 0 {
            changes.push(if op == b'-' { Change::Clear(bits) } else { Change::Set(bits) });
        }
        if execution != 0 {
            changes.push(Change::SetExecution(execution & classes));
        }
        let to = if who == 0 { 0o777 } else { who & 0o777 };
        changes.extend(take.into_iter().map(|from| Change::Take { from, to, op }));
        clause = rest;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_chmod_reads_them() {
        for (text, before, is_folder, after) in [
            ("755", 0o6600, false, 0o755),
            ("4711", 0o644, false, 0o4711),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("go-w", 0o666, false, 0o644),
            ("a=rX", 0o640, false, 0o444),
            ("a=rX", 0o750, false, 0o555),
            ("a=rX", 0o640, true, 0o555),
            ("u=rwX,go=rX", 0o4644, true, 0o755),
            ("g=u", 0o741, false, 0o771),
            ("go=u-w", 0o700, false, 0o755),
            ("u+s", 0o755, false, 0o4755),
            ("g+s,+t", 0o755, false, 0o3755),
            ("o+s", 0o755, false, 0o755),
            ("u=", 0o777, false, 0o077),
            ("-X", 0o755, false, 0o644),
            ("u+r-w+x", 0o200, false, 0o500),
            ("o-u", 0o607, false, 0o601),
        ] {
            assert_eq!(
                format!("{:o}", Modes::read(text).unwrap().apply(before, is_folder)),
                format!("{after:o}"),
                "{text} {before:o}"
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "8", "77777", "u", "x", "u+x,", "u*x", "u+y", "rw", "644x", "u+x;g+x"] {
            assert_eq!(Modes::read(text), None, "{text:?}");
        }
    }
}
