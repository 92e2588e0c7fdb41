//! rocheuser RUNTIME OUT IDS ENTRYPOINT: writes to OUT what a runtime image gains besides the
//! service: /etc/passwd and /etc/group with rocheuser, and /app. RUNTIME is the image's tree, IDS
//! gets a passwd and a group with rocheuser's own lines; ENTRYPOINT is `script` (./run.sh needs a
//! shell) or `direct`.
//!
//! The same as runtime.sh does for a static service, as a program of its own: where the machine's
//! own toolchain is the builder there is no shell. Nothing of RUNTIME is run. Folders in OUT are
//! real ones and have the mode and owner that they have in RUNTIME, so that copying OUT over
//! RUNTIME never replaces a link and changes no folder.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{chown, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

const USER: &[u8] = b"rocheuser";
/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;
/// No passwd that people wrote is larger.
const LIMIT_BYTES: u64 = 16 << 20;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let result = match arguments.as_slice() {
        [runtime, out, ids, entrypoint] => run(runtime, out, ids, entrypoint == Path::new("script")),
        _ => Err("usage: rocheuser RUNTIME OUT IDS script|direct".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("roche: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(runtime: &Path, out: &Path, ids: &Path, needs_shell: bool) -> Result<(), String> {
    for place in ["/etc", "/app"] {
        let found = inside(runtime, place)?;
        if found != runtime.join(&place[1..]) {
            let found = found.strip_prefix(runtime).unwrap_or(&found);
            return Err(format!(
                "the runtime image has a link at {place}, to /{}: use one that has a folder there, or nothing",
                found.display()
            ));
        }
        folder(runtime, out, place)?;
    }
    if needs_shell {
        let shell = inside(runtime, "/bin/sh")?;
        if !shell.metadata().is_ok_and(|shell| shell.is_file() && shell.mode() & 0o111 != 0) {
            return Err("the runtime image has no /bin/sh, which ./run.sh needs: release with `--entrypoint direct`".to_owned());
        }
    }
    let mut groups = Table::read(runtime, "/etc/group", "root:x:0:")?;
    let mut users = Table::read(runtime, "/etc/passwd", "root:x:0:0:root:/root:/sbin/nologin")?;
    if users.line(USER).is_none() {
        if groups.line(USER).is_none() {
            let id = groups.free()?;
            groups.lines.push(format!("rocheuser:x:{id}:").into_bytes());
        }
        let group = groups.line(USER).map_or(&[][..], |line| field(line, 2)).to_vec();
        let id = users.free()?;
        let line = [format!("rocheuser:x:{id}:").as_bytes(), &group, b"::/app:/sbin/nologin"].concat();
        users.lines.push(line);
    }
    groups.write(out)?;
    users.write(out)?;
    // What names are looked up in: the user's own group need not have its name.
    let user = users.line(USER).map(<[u8]>::to_vec).unwrap_or_default();
    let group = [b"rocheuser:x:", field(&user, 3), b":"].concat();
    fs::create_dir_all(ids.join("etc")).map_err(at(ids))?;
    Table { path: "/etc/passwd", lines: vec![user] }.write(ids)?;
    Table { path: "/etc/group", lines: vec![group] }.write(ids)
}

/// A file whose lines are fields between colons.
struct Table {
    path: &'static str,
    lines: Vec<Vec<u8>>,
}

impl Table {
    /// Reads the image's file, or `default` where it has none.
    fn read(runtime: &Path, path: &'static str, default: &str) -> Result<Self, String> {
        let file = inside(runtime, path)?;
        let mut data = Vec::new();
        match file.metadata() {
            Err(_) => data.extend(default.bytes()),
            Ok(metadata) if metadata.is_file() && metadata.len() <= LIMIT_BYTES => {
                let file = fs::File::open(&file).map_err(at(&file))?;
                file.take(LIMIT_BYTES).read_to_end(&mut data).map_err(at(Path::new(path)))?;
            }
            Ok(_) => return Err(format!("the runtime image's {path} is no file of at most {LIMIT_BYTES} bytes")),
        }
        // A last line without an end would swallow the one that is added.
        let data = data.strip_suffix(b"\n").unwrap_or(&data);
        let lines = if data.is_empty() { Vec::new() } else { data.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect() };
        Ok(Self { path, lines })
    }

    fn line(&self, name: &[u8]) -> Option<&[u8]> {
        self.lines.iter().map(Vec::as_slice).find(|line| field(line, 0) == name)
    }

    /// Returns the lowest system id that nobody has.
    fn free(&self) -> Result<u32, String> {
        let taken = |id: &u32| self.lines.iter().any(|line| field(line, 2) == id.to_string().as_bytes());
        (100..=999).find(|id| !taken(id)).ok_or_else(|| format!("the runtime image has no free system id left in {}", self.path))
    }

    fn write(&self, root: &Path) -> Result<(), String> {
        let path = root.join(&self.path[1..]);
        let mut data = self.lines.join(&b'\n');
        data.push(b'\n');
        fs::write(&path, data).map_err(at(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(at(&path))
    }
}

fn field(line: &[u8], index: usize) -> &[u8] {
    line.split(|&byte| byte == b':').nth(index).unwrap_or_default()
}

/// Returns what a path of the image is once every link is followed there, whether it exists or not.
fn inside(runtime: &Path, path: &str) -> Result<PathBuf, String> {
    let mut found = PathBuf::new();
    let mut pending = parts(Path::new(path));
    let mut links = 0;
    while let Some(part) = pending.pop() {
        if part == ".." {
            found.pop();
            continue;
        }
        let next = found.join(&part);
        match fs::read_link(runtime.join(&next)) {
            Err(_) => found = next,
            Ok(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(format!("the runtime image has a circle of links at {path}"));
                }
                if target.is_absolute() {
                    found = PathBuf::new();
                }
                pending.extend(parts(&target));
            }
        }
    }
    Ok(runtime.join(found))
}

/// Returns the parts of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let part = |part: Component| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(part).collect()
}

/// Makes a folder in OUT as the image has it.
fn folder(runtime: &Path, out: &Path, place: &str) -> Result<(), String> {
    let (theirs, ours) = (runtime.join(&place[1..]), out.join(&place[1..]));
    fs::create_dir_all(&ours).map_err(at(&ours))?;
    let (mut mode, mut owner) = (0o755, (0, 0));
    if let Ok(theirs) = theirs.symlink_metadata() {
        if !theirs.is_dir() {
            return Err(format!("the runtime image has something at {place} that is no folder"));
        }
        (mode, owner) = (theirs.mode() & 0o7777, (theirs.uid(), theirs.gid()));
    }
    let made = ours.metadata().map_err(at(&ours))?;
    if owner != (made.uid(), made.gid()) {
        chown(&ours, Some(owner.0), Some(owner.1)).map_err(at(&ours))?;
    }
    fs::set_permissions(&ours, fs::Permissions::from_mode(mode)).map_err(at(&ours))
}

/// Names the file in an error.
fn at(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.to_owned();
    move |error| format!("{}: {error}", path.display())
}
