//! Many files in few lines.
//!
//! Invariant: every file is in exactly one line, and lines keep the order of the paths.

use std::collections::BTreeMap;

/// From here on the files of a folder are counted, not listed.
const MANY: usize = 40;

/// A file, or a folder that stands for the many files in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<T> {
    /// A file by itself.
    One(T),
    /// A folder: its path, how many files it has and how large they are together.
    Many(String, usize, u64),
}

/// Folders are looked at down to here: /usr/share/zoneinfo is the third.
const DEEPEST: usize = 3;

/// Puts the files of large folders together; the deepest folder that is large stands for its files.
pub(crate) fn listed<T>(files: Vec<T>, path: impl Fn(&T) -> &str, size: impl Fn(&T) -> u64) -> Vec<Line<T>> {
    let mut folders: Vec<Option<String>> = vec![None; files.len()];
    for depth in (1..=DEEPEST).rev() {
        let mut inside: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, file) in files.iter().enumerate().filter(|(i, _)| folders[*i].is_none()) {
            if let Some(folder) = above(path(file), depth) {
                inside.entry(folder).or_default().push(i);
            }
        }
        for (folder, inside) in inside.into_iter().filter(|(_, inside)| inside.len() > MANY) {
            inside.into_iter().for_each(|i| folders[i] = Some(folder.to_owned()));
        }
    }
    let (mut lines, mut places) = (Vec::new(), BTreeMap::new());
    for (file, folder) in files.into_iter().zip(folders) {
        let Some(folder) = folder else {
            lines.push(Line::One(file));
            continue;
        };
        let bytes = size(&file);
        let place = *places.entry(folder.clone()).or_insert(lines.len());
        match lines.get_mut(place) {
            Some(Line::Many(_, files, together)) => {
                *files += 1;
                *together += bytes;
            }
            _ => lines.push(Line::Many(folder, 1, bytes)),
        }
    }
    lines
}

/// The folder of a depth that a path lies in.
fn above(path: &str, depth: usize) -> Option<&str> {
    // A path begins with a slash.
    path.match_indices('/').nth(depth).map(|(end, _)| &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_of_a_folder_are_one_line_and_few_are_their_own() {
        let zones = (0..MANY + 1).map(|i| format!("/usr/share/zoneinfo/Area/{i:03}"));
        let few = ["/app/a", "/app/b", "/etc/hosts", "/usr", "/usr/share"].map(str::to_owned);
        let files: Vec<String> = few.into_iter().chain(zones).chain(["/usr/x".to_owned()]).collect();
        let lines = listed(files, String::as_str, |_| 2);
        let one = |path: &str| Line::One(path.to_owned());
        let many = Line::Many("/usr/share/zoneinfo".to_owned(), MANY + 1, 2 * (MANY as u64 + 1));
        let before = ["/app/a", "/app/b", "/etc/hosts", "/usr", "/usr/share"].map(one);
        assert_eq!(lines, before.into_iter().chain([many, one("/usr/x")]).collect::<Vec<_>>());
        assert_eq!(listed(vec!["/x"], |path| path, |_| 1), [Line::One("/x")]);
    }
}
