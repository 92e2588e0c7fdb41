//! Asking the tools which files a build reads: rustc for its sysroot, `cc` for the programs that
//! it starts, the loader for each program's shared objects, the linker for what it links
//! ([`linked`](super::linked)).
//!
//! Invariant: no file is named here because some distribution has it there; a tool named it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::elf::{self, Elf};
use super::layout::Sysroot;
use super::{HostError, Places, Run, Said, at, linked, musl};

/// Where a sysroot stands in the tree that can stand anywhere.
const SYSROOT: &str = "/toolchain";

/// Where the search starts: what is enough to know whether it was done before.
pub(super) struct Start {
    /// Names the toolchain among those that were found before.
    pub(super) key: String,
    sysroot: PathBuf,
    rustc: PathBuf,
    cc: PathBuf,
}

/// What a build reads: files by their paths on the machine, and what else the steps must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closure {
    pub(super) sysroot: Sysroot,
    pub(super) paths: BTreeSet<PathBuf>,
    pub(super) target: String,
    pub(super) version: String,
    pub(super) env: Vec<String>,
}

impl Start {
    /// Asks the user's rustc, in the project's folder, where its files are.
    pub(super) fn ask(places: &Places<'_>, run: Run<'_>) -> Result<Self, HostError> {
        let proxy = in_path(places.path, "rustc").ok_or(HostError::Missing { program: "rustc" })?;
        let cc = in_path(places.path, "cc").ok_or(HostError::Missing { program: "cc" })?;
        let said = say(run, &proxy, &["--print", "sysroot"], places.project)?;
        let sysroot = Path::new(OsStr::from_bytes(said.stdout.trim_ascii()));
        let sysroot = sysroot.canonicalize().map_err(at(sysroot))?;
        let rustc = sysroot.join("bin/rustc");
        if !rustc.is_file() {
            return Err(HostError::Unusable { path: sysroot, reason: "has no bin/rustc, which a toolchain has".to_owned() });
        }
        // Another target may have been added since, and another program be the one that is found.
        let installed = sysroot.join("lib/rustlib");
        let mut targets = Vec::new();
        for entry in installed.read_dir().map_err(at(&installed))? {
            targets.push(entry.map_err(at(&installed))?.file_name().to_string_lossy().into_owned());
        }
        targets.sort_unstable();
        let key = format!("{} {} {}", sysroot.display(), cc.display(), targets.join(" "));
        Ok(Self { key, sysroot, rustc, cc })
    }
}

/// Asks for everything that a build reads.
pub(super) fn closure(places: &Places<'_>, start: &Start, run: Run<'_>) -> Result<Closure, HostError> {
    let mut asked = Asked { places, run, paths: BTreeSet::new(), folders: Vec::new(), loader: None };
    let (host, version) = identity(&asked.say(&start.rustc, &["-vV"])?, &start.rustc)?;
    asked.program(&start.rustc)?;
    let place = if carries_its_driver(&start.sysroot, &asked.paths)? { SYSROOT.to_owned() } else { text(&start.sysroot)? };
    let sysroot = Sysroot { host: start.sysroot.clone(), place };
    let own = start.sysroot.join("bin/cargo");
    let cargo = if own.is_file() { Some(own) } else { in_path(places.path, "cargo") };
    let cargo = cargo.ok_or(HostError::Missing { program: "cargo" })?;
    asked.program(&cargo)?;
    let mut programs = vec![start.rustc.clone(), cargo, start.cc.clone()];
    programs.extend(asked.linker(&start.cc)?);

    let rustlib = start.sysroot.join("lib/rustlib");
    asked.linkers_of_rust(&rustlib.join(&host).join("bin"))?;
    let candidates = [musl(&host), host.clone()];
    let mut candidates = candidates.iter().filter(|target| rustlib.join(target).join("lib").is_dir());
    let target = loop {
        let target = candidates.next().ok_or_else(|| HostError::Unusable {
            path: rustlib.clone(),
            reason: format!("has no standard library for {host}"),
        })?;
        match linked::service(places.work, &start.rustc, target, asked.run) {
            Ok(files) => {
                asked.paths.extend(files);
                break target.clone();
            }
            Err(HostError::Static { .. }) if *target != host => {}
            Err(error) => return Err(error),
        }
    };
    for (output, files) in linked::helpers(places.work, &start.rustc, asked.run)? {
        asked.paths.extend(files);
        // Build scripts and procedural macros are run where they were linked.
        asked.objects(&output)?;
    }
    // The tools' own paths under the sysroot are covered by these folders.
    asked.paths.retain(|path| !path.starts_with(&rustlib));
    asked.paths.extend([host, target.clone()].map(|target| rustlib.join(target)));
    let env = environment(&sysroot, &programs, &asked.folders)?;
    Ok(Closure { sysroot, paths: asked.paths, target, version, env })
}

/// Finds a program that can be run.
pub(super) fn in_path(path: &OsStr, name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders
        .map(|folder| folder.join(name))
        .find(|program| program.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0))
}

/// Runs a program; what it says of its failure is kept.
pub(super) fn say(run: Run<'_>, program: &Path, args: &[&str], folder: &Path) -> Result<Said, HostError> {
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    run(program, &args, folder).map_err(|reason| HostError::Program { program: program.to_owned(), reason })
}

struct Asked<'a, 'r> {
    places: &'a Places<'a>,
    run: Run<'r>,
    /// What was found, by the paths that the tools use.
    paths: BTreeSet<PathBuf>,
    /// Folders of shared objects that a loader finds by its cache alone, which the tree has not.
    folders: Vec<PathBuf>,
    /// The loader of programs, for shared objects that name none.
    loader: Option<PathBuf>,
}

impl Asked<'_, '_> {
    fn say(&mut self, program: &Path, args: &[&str]) -> Result<Said, HostError> {
        say(self.run, program, args, self.places.work)
    }

    /// Adds a program with what its loader loads.
    fn program(&mut self, path: &Path) -> Result<(), HostError> {
        if self.paths.insert(path.to_owned()) { self.objects(path) } else { Ok(()) }
    }

    /// Adds what a loader loads for a program or shared object, and the loader.
    fn objects(&mut self, path: &Path) -> Result<(), HostError> {
        let loader = match elf::read(path).map_err(at(path))? {
            Elf::Static => return Ok(()),
            Elf::Dynamic { loader } => loader.or_else(|| self.loader.clone()),
            Elf::Other => {
                let reason = "is no program of the machine but a script, whose own programs nobody can name".to_owned();
                return Err(HostError::Unusable { path: path.to_owned(), reason });
            }
        };
        let Some(loader) = loader else { return Ok(()) };
        let object = text(path)?;
        let said = self.say(&loader, &["--list", &object])?;
        let objects = loaded(&String::from_utf8_lossy(&said.stdout));
        if objects.iter().any(Option::is_none) {
            let reason = format!("lacks shared objects: {}", String::from_utf8_lossy(&said.stdout).trim());
            return Err(HostError::Unusable { path: path.to_owned(), reason });
        }
        let objects: Vec<PathBuf> = objects.into_iter().flatten().collect();
        if !loader.file_name().is_some_and(|name| name.as_bytes().starts_with(b"ld-musl")) {
            self.note_folders(&loader, &object, &objects);
        }
        self.paths.extend(objects);
        self.paths.insert(loader.clone());
        self.loader.get_or_insert(loader);
        Ok(())
    }

    /// Notes the folders of those objects that glibc's loader finds by its cache alone.
    fn note_folders(&mut self, loader: &Path, object: &str, objects: &[PathBuf]) {
        // A loader that fails without its cache says by that that it needs it.
        let said = self.say(loader, &["--inhibit-cache", "--list", object]).unwrap_or_default();
        let found: BTreeSet<PathBuf> = loaded(&String::from_utf8_lossy(&said.stdout)).into_iter().flatten().collect();
        for folder in objects.iter().filter(|object| !found.contains(*object)).filter_map(|object| object.parent()) {
            if !self.folders.iter().any(|known| known == folder) {
                self.folders.push(folder.to_owned());
            }
        }
    }

    /// Adds `cc` and what it starts and reads to link; returns the linker, where it is found in PATH.
    fn linker(&mut self, cc: &Path) -> Result<Option<PathBuf>, HostError> {
        self.program(cc)?;
        let object = self.places.work.join("nothing.o");
        fs::write(&object, "").map_err(at(&object))?;
        let said = self.say(cc, &["-###", "-o", "nothing", "nothing.o"])?;
        for file in named(&String::from_utf8_lossy(&said.stderr)).into_iter().filter(|file| file.is_file() && *file != object) {
            match elf::read(&file).map_err(at(&file))? {
                Elf::Dynamic { .. } => self.program(&file)?,
                Elf::Static | Elf::Other => self.paths.extend([file]),
            }
        }
        let specs = self.answer(cc, "-print-file-name=specs")?;
        self.paths.extend(Some(specs).filter(|specs| specs.is_absolute() && specs.is_file()));
        let linker = self.answer(cc, "-print-prog-name=ld")?;
        let found = if linker.is_absolute() { None } else { in_path(self.places.path, "ld") };
        let linker = found.clone().unwrap_or(linker);
        if linker.is_absolute() && linker.is_file() {
            self.program(&linker)?;
        }
        Ok(found)
    }

    fn answer(&mut self, program: &Path, question: &str) -> Result<PathBuf, HostError> {
        let said = self.say(program, &[question])?;
        Ok(PathBuf::from(OsStr::from_bytes(said.stdout.trim_ascii())))
    }

    /// Adds what the linkers need that come with Rust; they are in a folder that is there as a whole.
    /// Some of what else is there cannot even be loaded where it was installed.
    fn linkers_of_rust(&mut self, folder: &Path) -> Result<(), HostError> {
        let mut pending = vec![folder.to_owned()];
        while let Some(folder) = pending.pop().filter(|folder| folder.is_dir()) {
            for entry in folder.read_dir().map_err(at(&folder))? {
                let path = entry.map_err(at(&folder))?.path();
                if path.is_dir() {
                    pending.push(path);
                } else if path.is_file() && matches!(elf::read(&path).map_err(at(&path))?, Elf::Dynamic { .. }) {
                    match self.objects(&path) {
                        Err(HostError::Program { .. } | HostError::Unusable { .. }) => {}
                        other => other?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reads the host's triple and the version out of `rustc -vV`.
fn identity(said: &Said, rustc: &Path) -> Result<(String, String), HostError> {
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    match (host, said.lines().next()) {
        (Some(host), Some(version)) => Ok((host.to_owned(), version.to_owned())),
        _ => Err(HostError::Program { program: rustc.to_owned(), reason: format!("-vV said {said:?}") }),
    }
}

/// Says whether a sysroot can stand anywhere: whether what rustc loads of it is beside it, and not
/// among the system's libraries.
fn carries_its_driver(sysroot: &Path, loaded: &BTreeSet<PathBuf>) -> Result<bool, HostError> {
    for path in loaded {
        if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"librustc_driver")) {
            let path = path.canonicalize().map_err(at(path))?;
            return Ok(sysroot != Path::new("/usr") && path.starts_with(sysroot));
        }
    }
    // Linked into rustc.
    Ok(sysroot != Path::new("/usr"))
}

/// Reads a loader's listing: the path of each object, none where it was not found.
fn loaded(listing: &str) -> Vec<Option<PathBuf>> {
    let object = |line: &str| {
        let line = line.trim();
        let line = line.rsplit_once(" (0x").map_or(line, |(line, _)| line);
        match line.split_once(" => ") {
            Some((_, path)) => Some(Some(PathBuf::from(path)).filter(|path| path.is_absolute())),
            // The kernel's own object has no file.
            None => line.starts_with('/').then(|| Some(PathBuf::from(line))),
        }
    };
    listing.lines().filter_map(object).collect()
}

/// Returns the absolute paths among the words of commands as `-###` shows them, those of options
/// (`-plugin-opt=/…`) too: a driver that misses a program says an empty path instead.
fn named(commands: &str) -> BTreeSet<PathBuf> {
    let words = commands.lines().filter(|line| line.starts_with([' ', '"'])).flat_map(str::split_whitespace);
    let words = words.map(|word| word.trim_matches('"')).map(|word| word.rsplit_once('=').map_or(word, |(_, value)| value));
    words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Returns the variables by which the tools find each other.
fn environment(sysroot: &Sysroot, programs: &[PathBuf], objects: &[PathBuf]) -> Result<Vec<String>, HostError> {
    let joined = |folders: &mut dyn Iterator<Item = &Path>| -> Result<String, HostError> {
        let mut places: Vec<String> = Vec::new();
        for folder in folders {
            let place = sysroot.place_of(folder)?;
            if !places.contains(&place) {
                places.push(place);
            }
        }
        Ok(places.join(":"))
    };
    let mut env = vec![format!("PATH={}", joined(&mut programs.iter().filter_map(|program| program.parent()))?)];
    if !objects.is_empty() {
        env.push(format!("LD_LIBRARY_PATH={}", joined(&mut objects.iter().map(PathBuf::as_path))?));
    }
    Ok(env)
}

fn text(path: &Path) -> Result<String, HostError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| HostError::Unusable { path: path.to_owned(), reason: "is not UTF-8".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_listings_are_read() {
        let glibc = "\tlinux-vdso.so.1 (0x00007f38d0914000)\n\
            \tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f38d08b3000)\n\
            \tlibgone.so => not found\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f38d0916000)\n";
        let paths = [Some("/lib/x86_64-linux-gnu/libz.so.1"), None, Some("/lib64/ld-linux-x86-64.so.2")];
        assert_eq!(loaded(glibc), paths.map(|path| path.map(PathBuf::from)));
        assert!(loaded("\tstatically linked\n").is_empty());
    }

    #[test]
    fn what_a_compiler_names_is_read_with_and_without_quotes() {
        let gcc = "Using built-in specs.\nCOLLECT_LTO_WRAPPER=/usr/lto-wrapper\n \
            /usr/collect2 -plugin /usr/plugin.so \"-plugin-opt=/usr/lto\" -o x /usr/a/../crt1.o\n";
        assert_eq!(named(gcc), ["/usr/a/../crt1.o", "/usr/collect2", "/usr/lto", "/usr/plugin.so"].map(PathBuf::from).into());
        let clang = "clang version 17\nInstalledDir: /usr/bin\n \"/usr/bin/ld\" \"-pie\" \"/usr/crt1.o\"\n";
        assert_eq!(named(clang), ["/usr/bin/ld", "/usr/crt1.o"].map(PathBuf::from).into());
    }

    #[test]
    fn folders_of_variables_are_those_of_the_tree_and_stand_once() {
        let sysroot = Sysroot { host: "/home/x/t".into(), place: "/toolchain".to_owned() };
        let programs = ["/home/x/t/bin/rustc", "/home/x/t/bin/cargo", "/usr/bin/cc"].map(PathBuf::from);
        assert_eq!(environment(&sysroot, &programs, &[]).unwrap(), ["PATH=/toolchain/bin:/usr/bin"]);
        let env = environment(&sysroot, &programs, &["/opt/l".into(), "/opt/l".into()]).unwrap();
        assert_eq!(env[1], "LD_LIBRARY_PATH=/opt/l");
    }

    #[test]
    fn a_sysroot_that_shares_the_system_s_libraries_stays_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let driver = root.join("t/librustc_driver-1.so");
        fs::create_dir_all(root.join("t")).unwrap();
        fs::write(&driver, "").unwrap();
        let loaded = BTreeSet::from([driver]);
        assert!(carries_its_driver(&root.join("t"), &loaded).unwrap());
        assert!(!carries_its_driver(&root.join("other"), &loaded).unwrap());
        assert!(!carries_its_driver(Path::new("/usr"), &BTreeSet::new()).unwrap());
    }
}
