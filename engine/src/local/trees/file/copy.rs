//! Copies: which paths go where (`docopy` and `Copy` of BuildKit), before [`super::copier`] copies each.
//!
//! Invariant: everything that can be refused without touching the target is refused first.

use rustix::fs::FileType;

use super::copier::{Copier, ModeRule, Rules};
use super::modes::Modes;
use super::place::Place;
use super::{FileError, Source, archive, root, wildcard};
use crate::buildkit::Patterns;
use crate::local::trees::{beneath, path};
use crate::op::Copy;

/// The mode of folders that lead to a destination.
const FOLDER_MODE: u32 = 0o755;

/// Copies what the action names.
pub(super) fn copy(
    place: &mut Place<'_>,
    source: &Source<'_>,
    action: &Copy,
    owner: Option<(u32, u32)>,
) -> Result<(), FileError> {
    let rules = rules(action, owner)?;
    require(source, action)?;
    if !action.make_parents {
        let dest = place.resolve(action.dest.as_bytes(), true)?;
        let parent = path::parent(&dest).unwrap_or_default();
        if place.stat(parent)?.is_none() {
            return Err(FileError::missing("copy to", parent));
        }
    }
    let from = if action.wildcard {
        let found = wildcard::matches(source.root, &action.source, action.follow_symlink)?;
        if found.is_empty() && !action.allow_empty_wildcard {
            return Err(FileError::missing("copy", action.source.as_bytes()));
        }
        found
    } else {
        vec![action.source.clone().into_bytes()]
    };
    for from in from {
        if action.unpack && archive::unpack(place, source, &from, action.dest.as_bytes(), owner, action.timestamp_ns)? {
            continue;
        }
        one(place, source, &from, action, &rules)?;
    }
    Ok(())
}

fn rules(action: &Copy, owner: Option<(u32, u32)>) -> Result<Rules, FileError> {
    let patterns = |texts: &[String]| {
        let patterns = Patterns::new(texts).map_err(|error| FileError::refused(action.source.as_bytes(), error.to_string()))?;
        Ok::<_, FileError>((!texts.is_empty()).then_some(patterns))
    };
    let mode = if action.mode_text.is_empty() {
        action.mode.map_or(ModeRule::Keep, ModeRule::Set)
    } else {
        let refused = || {
            FileError::refused(action.dest.as_bytes(), format!("{:?} is no mode: chmod has 755, u+x, go=rX", action.mode_text))
        };
        ModeRule::Change(Modes::read(&action.mode_text).ok_or_else(refused)?)
    };
    Ok(Rules {
        owner,
        mode,
        time_ns: action.timestamp_ns,
        include: patterns(&action.include)?,
        exclude: patterns(&action.exclude)?,
        has_exceptions: action.exclude.iter().any(|pattern| pattern.trim_start().starts_with('!')),
        replace: action.always_replace,
    })
}

/// Looks for what must be there, in the folder that is copied.
fn require(source: &Source<'_>, action: &Copy) -> Result<(), FileError> {
    for required in &action.required {
        let written = path::join(action.source.trim_end_matches('/').as_bytes(), required.trim_start_matches('/').as_bytes());
        let written = &written[..];
        let found = root::resolve(source.root, written, action.follow_symlink).and_then(|path| beneath::stat(source.root, &path));
        if found.map_err(FileError::system("look at", written))?.is_none() {
            return Err(FileError::missing("copy", written));
        }
    }
    Ok(())
}

/// Copies one path of the source.
fn one(place: &mut Place<'_>, source: &Source<'_>, from: &[u8], action: &Copy, rules: &Rules) -> Result<(), FileError> {
    let mode = if action.mode_text.is_empty() { action.mode.unwrap_or(FOLDER_MODE) & 0o777 } else { FOLDER_MODE };
    let written = action.dest.as_bytes();
    // A destination that ends in a slash is a folder, which is made; otherwise what it is in.
    let last = path::name(written);
    let folder = if matches!(last, b"" | b".") { written } else { &written[..written.len() - last.len()] };
    let folder = place.resolve(folder, true)?;
    let mut made = place.make_folders(&folder, mode, rules.owner, rules.time_ns)?;

    let mut dest = place.resolve(written, true)?;
    let found = root::resolve(source.root, from, action.follow_symlink).map_err(FileError::system("look up", from))?;
    let is_folder = |kind| kind == FileType::Directory;
    let stat = beneath::stat(source.root, &found).map_err(FileError::system("copy", from))?;
    let from_folder = is_folder(beneath::kind(&stat.ok_or_else(|| FileError::missing("copy", from))?));
    let before = place.stat(&dest)?.map(|stat| is_folder(beneath::kind(&stat)));
    // `folder/.` is the folder's content under no name.
    let name = if from.ends_with(b"/.") { &[][..] } else { path::names_inside(from).pop().unwrap_or_default() };
    let keeps_name = if from_folder { !action.contents_only && before.is_some() } else { before == Some(true) };
    if keeps_name && !name.is_empty() {
        dest = path::join(&dest, name);
    }
    let parent =
        if action.contents_only && from_folder && before.is_none() { &dest } else { path::parent(&dest).unwrap_or_default() };
    made.extend(place.make_folders(parent, mode, rules.owner, rules.time_ns)?);

    Copier::new(place, source, rules).copy(&found, &dest)?;
    // Innermost first: what was made inside changed the times of what it is in.
    for folder in made.iter().rev() {
        place.finish(folder, None, rules.time_ns)?;
    }
    Ok(())
}
