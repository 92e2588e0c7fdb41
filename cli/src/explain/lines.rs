//! Which lines of a text changed.
//!
//! Invariant: the ranges of the new text are the lines that are not in a longest common subsequence with the old one, where the
//! texts are small enough for that; else they hold all such lines, and more.

use serde::Serialize;

/// Steps that a comparison may take; beyond, everything between the first and the last difference is one range.
const STEPS: usize = 4 << 20;

/// A place where two texts differ; lines count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Range {
    /// The first line of the old text that went, or the one that lines came before.
    pub(super) was_line: usize,
    /// How many went.
    pub(super) was_lines: usize,
    /// The first line of the new text that came, or the one that lines went before.
    pub(super) line: usize,
    /// How many came.
    pub(super) lines: usize,
}

/// Compares two texts line by line; an end of line belongs to its line.
pub(super) fn compare(was: &str, is: &str) -> Vec<Range> {
    let (was, is): (Vec<&str>, Vec<&str>) = (was.split_inclusive('\n').collect(), is.split_inclusive('\n').collect());
    let start = was.iter().zip(&is).take_while(|(a, b)| a == b).count();
    let end = was[start..].iter().rev().zip(is[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (was, is) = (&was[start..was.len() - end], &is[start..is.len() - end]);
    let mut ranges = Vec::new();
    if was.len().saturating_mul(is.len()) > STEPS {
        push(&mut ranges, (start, was.len()), (start, is.len()));
        return ranges;
    }
    // common[i][j]: how long a common subsequence the texts from line i and line j on have.
    let columns = is.len() + 1;
    let mut common = vec![0u32; (was.len() + 1) * columns];
    for i in (0..was.len()).rev() {
        for j in (0..is.len()).rev() {
            common[i * columns + j] = if was[i] == is[j] {
                common[(i + 1) * columns + j + 1] + 1
            } else {
                common[(i + 1) * columns + j].max(common[i * columns + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let (mut from_i, mut from_j) = (0, 0);
    while i < was.len() || j < is.len() {
        if i < was.len() && j < is.len() && was[i] == is[j] {
            push(&mut ranges, (start + from_i, i - from_i), (start + from_j, j - from_j));
            (i, j) = (i + 1, j + 1);
            (from_i, from_j) = (i, j);
        } else if j == is.len() || (i < was.len() && common[(i + 1) * columns + j] >= common[i * columns + j + 1]) {
            i += 1;
        } else {
            j += 1;
        }
    }
    push(&mut ranges, (start + from_i, i - from_i), (start + from_j, j - from_j));
    ranges
}

fn push(ranges: &mut Vec<Range>, was: (usize, usize), is: (usize, usize)) {
    if was.1 + is.1 > 0 {
        ranges.push(Range { was_line: was.0 + 1, was_lines: was.1, line: is.0 + 1, lines: is.1 });
    }
}

/// Says where a file changed: `changed at lines 3-5, 9; lost 2 lines before line 12`.
pub(super) fn told(ranges: &[Range]) -> String {
    /// Ranges that are told one by one.
    const TOLD: usize = 6;
    let count = |lines: usize| if lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") };
    let (came, went): (Vec<&Range>, Vec<&Range>) = ranges.iter().partition(|range| range.lines > 0);
    let mut said = Vec::new();
    if !came.is_empty() {
        let spans = came.iter().take(TOLD).map(|range| match range.lines {
            1 => range.line.to_string(),
            lines => format!("{}-{}", range.line, range.line + lines - 1),
        });
        let word = if came.len() == 1 && came[0].lines == 1 { "line" } else { "lines" };
        let more = if came.len() > TOLD { format!(" and {} more places", came.len() - TOLD) } else { String::new() };
        said.push(format!("changed at {word} {}{more}", spans.collect::<Vec<_>>().join(", ")));
    }
    for range in went.iter().take(TOLD) {
        said.push(format!("lost {} before line {}", count(range.was_lines), range.line));
    }
    if went.len() > TOLD {
        said.push(format!("lost lines at {} more places", went.len() - TOLD));
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_lines_are_named_by_the_new_text() {
        let table = [
            ("a\nb\nc\n", "a\nB\nc\n", "changed at line 2"),
            ("a\nb\nc\nd\n", "a\nB\nC\nd\n", "changed at lines 2-3"),
            ("a\nb\nc\nd\ne\n", "A\nb\nc\nd\nE\n", "changed at lines 1, 5"),
            ("a\nc\n", "a\nb\nc\n", "changed at line 2"),
            ("a\nb\nc\n", "a\nc\n", "lost 1 line before line 2"),
            ("a\nb\nc\nx\n", "a\nx\n", "lost 2 lines before line 2"),
            ("a\nb\n", "a\nb", "changed at line 2"),
            ("a\r\nb\r\n", "a\nb\n", "changed at lines 1-2"),
            ("", "a\n", "changed at line 1"),
            ("a\n", "", "lost 1 line before line 1"),
            ("a\nb\nc\nd\n", "b\nc\nD\n", "changed at line 3; lost 1 line before line 1"),
            ("a\n", "a\n", ""),
        ];
        for (was, is, said) in table {
            assert_eq!(told(&compare(was, is)), said, "{was:?} to {is:?}");
        }
    }

    #[test]
    fn texts_too_large_to_compare_differ_from_first_to_last() {
        let was: String = (0..5000).map(|line| format!("{line}\n")).collect();
        let is: String = (0..5000).map(|line| format!("{}\n", line * 2 + 1)).collect();
        assert_eq!(told(&compare(&was, &is)), "changed at lines 1-5000");
        let edited = was.replace("2500\n", "edited\n");
        assert_eq!(told(&compare(&was, &edited)), "changed at line 2501");
    }
}
