//! `-o`, `--push`, `--load`, `--cache-from` and `--cache-to` in buildx's words.
//!
//! 1. [`Request::parse`] judges the flags by themselves, before anything is read.
//! 2. [`Request::settle`] looks at the places that they name, once the back end is known.
//!
//! Invariant: whatever could make an output impossible (a folder in the way, a terminal, an input
//! of the release, two outputs in one place) is found before anything is built.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use roche_engine::oci::Reference;
use roche_engine::solver::{ArchiveDest, ArchiveFormat, CacheEntry, Export};

use crate::args::{OutputArgs, SolveArgs};
use crate::attributes::{Given, boolean, given, refused};
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::files;
use crate::progress::Display;

/// An output as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// The daemon's own store.
    Store,
    /// The registries that the names say.
    Registry,
    /// A file, or standard output.
    Archive { format: ArchiveFormat, dest: ArchiveDest },
    /// An OCI image layout as a folder.
    Layout { dest: PathBuf },
    /// A folder of files.
    Folder { dest: PathBuf },
}

impl Output {
    /// Parses what `-o` was given; an image that is also pushed is two outputs.
    fn parse(text: &OsStr) -> Result<Vec<Self>, Failure> {
        let Some(utf8) = text.to_str() else {
            if text.as_encoded_bytes().contains(&b'=') {
                return Err(refused("-o", None, "attributes that are not UTF-8"));
            }
            return Ok(vec![Self::Folder { dest: PathBuf::from(text) }]);
        };
        let (kind, mut attrs) = match given("-o", utf8)? {
            Given::Word(word) if word.is_empty() => return Err(refused("-o", None, "an output must be named")),
            Given::Word(word) if word == "-" => {
                return Ok(vec![Self::Archive { format: ArchiveFormat::Tar, dest: ArchiveDest::Stdout }]);
            }
            Given::Word(word) => return Ok(vec![Self::Folder { dest: PathBuf::from(word) }]),
            Given::Attributes { kind, attrs } => (kind, attrs),
        };
        let usage = |what: &str| refused("-o", Some(&kind), what);
        let dest = attrs.remove("dest");
        let push =
            attrs.remove("push").map(|text| boolean(&text).ok_or_else(|| usage("push is neither true nor false"))).transpose()?;
        let tar = if kind == "oci" { attrs.remove("tar") } else { None };
        let tar = tar.map(|text| boolean(&text).ok_or_else(|| usage("tar is neither true nor false"))).transpose()?;
        if let Some(key) = attrs.keys().next() {
            return Err(usage(&format!("{key:?} is not known here")));
        }
        let archive = |format| {
            let dest = match dest.as_deref() {
                Some("-") => ArchiveDest::Stdout,
                Some("") | None => return Err(usage("it needs dest=FILE, or dest=- for standard output")),
                Some(file) => ArchiveDest::File(PathBuf::from(file)),
            };
            Ok(vec![Self::Archive { format, dest }])
        };
        match kind.as_str() {
            "docker" | "oci" | "tar" | "local" if push.is_some() => {
                Err(usage("push goes with type=image and type=registry alone"))
            }
            "docker" if dest.is_none() => Ok(vec![Self::Store]),
            "docker" => archive(ArchiveFormat::Docker),
            "oci" if tar == Some(false) => match dest.filter(|dest| !dest.is_empty()) {
                Some(dest) => Ok(vec![Self::Layout { dest: PathBuf::from(dest) }]),
                None => Err(usage("it needs dest=FOLDER")),
            },
            "oci" => archive(ArchiveFormat::Oci),
            "tar" => archive(ArchiveFormat::Tar),
            "image" | "registry" if dest.is_some() => Err(usage("it takes no dest")),
            "image" if push == Some(true) => Ok(vec![Self::Store, Self::Registry]),
            "image" => Ok(vec![Self::Store]),
            "registry" if push == Some(false) => Err(usage("it is always pushed; leave push=false out")),
            "registry" => Ok(vec![Self::Registry]),
            "local" => match dest.filter(|dest| !dest.is_empty()) {
                Some(dest) => Ok(vec![Self::Folder { dest: PathBuf::from(dest) }]),
                None => Err(usage("it needs dest=FOLDER")),
            },
            _ => Err(usage("this is no type of output; there are docker, oci, image, registry, local and tar")),
        }
    }

    /// Turns the output into what the solver is told.
    pub(crate) fn export(&self, names: &[Reference]) -> Export {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        match self.clone() {
            Self::Store => Export::Store { names },
            Self::Registry => Export::Registry { names },
            Self::Archive { format, dest } => Export::Archive { format, names, dest },
            Self::Layout { dest } => Export::Layout { names, dest },
            Self::Folder { dest } => Export::Folder { dest },
        }
    }

    /// Returns the file or folder that the output writes.
    pub(crate) fn place(&self) -> Option<&Path> {
        match self {
            Self::Archive { dest: ArchiveDest::File(file), .. } => Some(file),
            Self::Layout { dest } | Self::Folder { dest } => Some(dest),
            _ => None,
        }
    }

    /// Says whether standard output is where the result goes.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Self::Archive { dest: ArchiveDest::Stdout, .. })
    }

    fn is_folder(&self) -> bool {
        matches!(self, Self::Layout { .. } | Self::Folder { .. })
    }

    /// Says whether what is written is an image, which has a digest, and not its files alone.
    fn is_image(&self) -> bool {
        !matches!(self, Self::Folder { .. } | Self::Archive { format: ArchiveFormat::Tar, .. })
    }
}

/// What the flags of a build ask for.
#[derive(Debug)]
pub(crate) struct Request {
    /// None where the user named none, until they are settled.
    pub(crate) outputs: Vec<Output>,
    pub(crate) cache_imports: Vec<CacheEntry>,
    pub(crate) cache_exports: Vec<CacheEntry>,
    pub(crate) display: Display,
    /// Files that are written beside the outputs, and that no flag of [`OutputArgs`] names.
    pub(crate) told: Vec<PathBuf>,
    /// Files that no output may overwrite.
    inputs: Vec<PathBuf>,
}

impl Request {
    /// Parses the flags; no file is looked at.
    pub(crate) fn parse(args: &OutputArgs, solve: &SolveArgs, environment: &Environment) -> Result<Self, Failure> {
        let mut named = Vec::new();
        for text in &args.output {
            named.extend(Output::parse(text)?);
        }
        named.extend(args.push.then_some(Output::Registry));
        named.extend(args.load.then_some(Output::Store));
        let mut outputs: Vec<Output> = Vec::new();
        for output in named {
            if !outputs.contains(&output) {
                outputs.push(output);
            }
        }
        if outputs.iter().filter(|output| output.is_stdout()).count() > 1 {
            return Err(Failure::say(Exit::Usage, "two outputs go to standard output"));
        }
        if outputs.iter().any(Output::is_stdout) && environment.stdout_terminal {
            return Err(Failure::say(Exit::Usage, "standard output is a terminal, and the output is an archive")
                .hint("send it to a file: roche release -o - > image.tar"));
        }
        if args.iidfile.is_some() && !outputs.is_empty() && !outputs.iter().any(Output::is_image) {
            return Err(Failure::say(Exit::Usage, "--iidfile has no digest to write: files alone are no image")
                .hint("leave --iidfile out, or write an image, too: -o type=oci,dest=hello.tar"));
        }
        let caches = |flag: &str, texts: &[String]| texts.iter().map(|text| cache(flag, text)).collect::<Result<Vec<_>, _>>();
        // The last is the project's where the current folder is its `src`.
        let settings = [".rocherc", "src/.rocherc", "../.rocherc"].map(PathBuf::from);
        let tls = [&solve.tlscacert, &solve.tlscert, &solve.tlskey].into_iter().flatten().cloned();
        Ok(Self {
            outputs,
            cache_imports: caches("--cache-from", &solve.cache_from)?,
            cache_exports: caches("--cache-to", &solve.cache_to)?,
            display: Display::resolve(args.progress, args.quiet, environment)?,
            told: Vec::new(),
            inputs: settings.into_iter().chain(tls).collect(),
        })
    }

    /// Names an OCI archive in a folder of the command's own as the only output.
    pub(crate) fn write_archive(&mut self, file: &Path) {
        self.outputs = vec![Output::Archive { format: ArchiveFormat::Oci, dest: ArchiveDest::File(file.to_owned()) }];
    }

    /// Adds the output that is meant where none is named, and looks at every place that is
    /// written to. `folder` is the project's name; `inputs` are its files.
    pub(crate) fn settle(
        &mut self,
        args: &OutputArgs,
        has_store: bool,
        folder: Option<&str>,
        inputs: &[PathBuf],
        environment: &Environment,
    ) -> Result<(), Failure> {
        if self.outputs.is_empty() {
            self.outputs.push(if has_store {
                Output::Store
            } else {
                let file = PathBuf::from(format!("{}.oci.tar", folder.unwrap_or("image")));
                Output::Archive { format: ArchiveFormat::Oci, dest: ArchiveDest::File(file) }
            });
        }
        if !has_store && self.outputs.contains(&Output::Store) {
            return Err(Failure::say(
                Exit::Usage,
                "the image cannot be loaded: a buildkitd has no image store that images are run from",
            )
            .hint("push it with --push, or write it to a file: -o type=oci,dest=hello.tar"));
        }
        let inputs: BTreeSet<PathBuf> =
            self.inputs.iter().chain(inputs).map(|file| files::place(&environment.folder.join(file))).collect();
        let mut places = BTreeSet::new();
        let written = self.outputs.iter().filter_map(|output| Some((output.place()?, output.is_folder())));
        let told = args.metadata_file.iter().chain(&args.iidfile).chain(&args.trace).chain(&self.told);
        let told = told.map(|file| (file.as_path(), false));
        for (path, is_folder) in written.chain(told) {
            files::named_in_a_line(path.as_os_str())?;
            let path = environment.folder.join(path);
            files::check(&path, is_folder)?;
            let place = files::place(&path);
            let refuse =
                |why: &str| Err(Failure::say(Exit::Usage, format!("{} {why}", path.display())).hint("name another file"));
            if inputs.contains(&place) {
                return refuse("is an input of the release, and would be overwritten");
            }
            if !places.insert(place) {
                return refuse("is named twice, and one would overwrite the other");
            }
        }
        Ok(())
    }
}

/// Refuses the flags that say where a result goes: a dry run has none.
pub(crate) fn refuse_in_dry_run(args: &OutputArgs, sbom: bool) -> Result<(), Failure> {
    let named = [
        ("-o", !args.output.is_empty()),
        ("--push", args.push),
        ("--load", args.load),
        ("--metadata-file", args.metadata_file.is_some()),
        ("--iidfile", args.iidfile.is_some()),
        ("--trace", args.trace.is_some()),
        ("--sbom", sbom),
    ];
    match named.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Failure::say(Exit::Usage, format!("{flag} does not go with --dry-run: a dry run writes nothing"))
            .hint("keep its plan with a redirection: roche release --dry-run=json > plan.json")),
        None => Ok(()),
    }
}

/// Parses what `--cache-from` or `--cache-to` was given.
fn cache(flag: &str, text: &str) -> Result<CacheEntry, Failure> {
    let (kind, attrs) = match given(flag, text)? {
        // buildx reads a word alone as a registry's reference.
        Given::Word(word) => ("registry".to_owned(), BTreeMap::from([("ref".to_owned(), word)])),
        Given::Attributes { kind, attrs } => (kind, attrs),
    };
    let usage = |what: &str| refused(flag, Some(&kind), what);
    match kind.as_str() {
        "inline" if flag == "--cache-from" => {
            return Err(usage("an inline cache is read from its image: type=registry,ref=IMAGE"));
        }
        "inline" => {}
        "registry" => {
            let reference = attrs.get("ref").ok_or_else(|| usage("it needs ref=NAME"))?;
            reference.parse::<Reference>().map_err(|_| usage("ref is not a legal name of an image"))?;
        }
        "local" | "gha" | "s3" | "azblob" => {
            return Err(usage("such caches are not supported yet; use type=registry or type=inline"));
        }
        _ => return Err(usage("this is no type of cache")),
    }
    if attrs.get("mode").is_some_and(|mode| !matches!(mode.as_str(), "min" | "max")) {
        return Err(usage("mode is neither min nor max"));
    }
    Ok(CacheEntry { kind, attrs })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn parsed(text: &str) -> Result<Vec<Output>, String> {
        Output::parse(OsStr::new(text)).map_err(|failure| {
            assert_eq!(failure.exit, Exit::Usage);
            failure.render()
        })
    }

    fn environment(folder: &Path) -> Environment {
        Environment { variables: BTreeMap::new(), folder: folder.to_owned(), stderr_terminal: false, stdout_terminal: false }
    }

    fn args(outputs: &[&str]) -> OutputArgs {
        OutputArgs { output: outputs.iter().map(OsString::from).collect(), ..OutputArgs::default() }
    }

    fn settled(args: &OutputArgs, has_store: bool, folder: &Path, inputs: &[PathBuf]) -> Result<Vec<Output>, String> {
        let solve = SolveArgs { tlscacert: Some("ca.pem".into()), ..SolveArgs::default() };
        let settle = || {
            let mut request = Request::parse(args, &solve, &environment(folder))?;
            request.settle(args, has_store, Some("hello"), inputs, &environment(folder))?;
            Ok(request.outputs)
        };
        settle().map_err(|failure: Failure| {
            assert_eq!(failure.exit, Exit::Usage);
            failure.render()
        })
    }

    #[test]
    fn outputs_are_read_as_buildx_reads_them() {
        let file = |format, file: &str| Output::Archive { format, dest: ArchiveDest::File(file.into()) };
        let table = [
            ("-", Output::Archive { format: ArchiveFormat::Tar, dest: ArchiveDest::Stdout }),
            ("out", Output::Folder { dest: "out".into() }),
            ("type=local,dest=out", Output::Folder { dest: "out".into() }),
            ("type=docker", Output::Store),
            ("type=image", Output::Store),
            ("type=image,push=F", Output::Store),
            ("type=registry", Output::Registry),
            ("type=registry,push=1", Output::Registry),
            ("type=oci,dest=out,tar=false", Output::Layout { dest: "out".into() }),
            ("type=oci,dest=a.tar,tar=true", file(ArchiveFormat::Oci, "a.tar")),
            ("type=docker,dest=a.tar", file(ArchiveFormat::Docker, "a.tar")),
            ("type=oci,\"dest=a,b \"\"c\"\".tar\"", file(ArchiveFormat::Oci, "a,b \"c\".tar")),
            ("TYPE=tar,dest=x ", file(ArchiveFormat::Tar, "x ")),
            ("type=oci,dest=-", Output::Archive { format: ArchiveFormat::Oci, dest: ArchiveDest::Stdout }),
        ];
        for (text, output) in table {
            assert_eq!(parsed(text), Ok(vec![output]), "{text}");
        }
        for text in ["type=image,push=true", "type=image,push=TRUE", "type=image,push=1", "type=image,push=t"] {
            assert_eq!(parsed(text), Ok(vec![Output::Store, Output::Registry]), "{text}");
        }
    }

    #[test]
    fn bad_outputs_say_what_is_wrong() {
        let table = [
            ("", "must be named"),
            (",", "has no value"),
            ("out,", "has no value"),
            ("type=oci", "needs dest"),
            ("type=zip,dest=x", "no type of output"),
            ("type=registry,dest=x", "takes no dest"),
            ("dest=x", "type is missing"),
            ("type=oci,dest=x,colour=red", "\"colour\" is not known"),
            ("type=oci,dest", "attribute 2 has no value"),
            ("type=oci,\"dest=x", "quote"),
            ("type=local", "needs dest"),
            ("type=oci,tar=false", "needs dest"),
            ("type=oci,dest=x,tar=maybe", "neither true nor false"),
            ("type=docker,dest=x,tar=false", "\"tar\" is not known"),
            ("type=image,push=yes", "neither true nor false"),
            ("type=oci,dest=x,push=true", "type=image and type=registry alone"),
            ("type=local,dest=x,push=true", "type=image and type=registry alone"),
            ("type=registry,push=false", "always pushed"),
        ];
        for (text, said) in table {
            let message = parsed(text).unwrap_err();
            assert!(message.contains(said), "{text}: {message}");
        }
    }

    #[test]
    fn caches_that_are_not_supported_are_refused_by_name() {
        assert!(cache("--cache-to", "type=gha").unwrap_err().render().contains("not supported yet"));
        assert_eq!(cache("--cache-from", "host/x").unwrap().attrs["ref"], "host/x");
        assert_eq!(cache("--cache-to", "type=inline").unwrap().kind, "inline");
        for text in ["type=registry,ref=UPPER", "UPPER", ",", "type=inline", "type=registry,ref=a,mode=loud"] {
            assert_eq!(cache("--cache-from", text).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }

    #[test]
    fn no_value_of_an_attribute_is_shown() {
        let table = [
            "type=s3,bucket=b,secret_access_key=SECRET",
            "type=azblob,secret_access_key=\"a,SECRET\"",
            "type=gha,token=SECRET,SECRET",
            "token=SECRET",
            "type=nope,token=SECRET",
            "type=registry,ref=SECRET",
            "type=registry,ref=a,mode=SECRET",
            "type=oci,dest=SECRET,push=maybe",
            "type=tar,push=SECRET,dest=x",
            "type=s3,\"key=SECRET",
        ];
        for text in table {
            for failure in [cache("--cache-to", text).unwrap_err(), Output::parse(OsStr::new(text)).unwrap_err()] {
                assert!(!failure.render().contains("SECRET"), "{text}: {}", failure.render());
            }
        }
        assert!(cache("--cache-to", table[0]).unwrap_err().render().starts_with("error: --cache-to type=s3: "));
    }

    #[test]
    fn a_digest_is_written_for_images_alone() {
        let folder = tempfile::tempdir().unwrap();
        for (outputs, right) in
            [(&["out"][..], false), (&["type=tar,dest=x"], false), (&[], true), (&["out", "type=oci,dest=y"], true)]
        {
            let args = OutputArgs { iidfile: Some("iid".into()), ..args(outputs) };
            assert_eq!(settled(&args, true, folder.path(), &[]).is_ok(), right, "{outputs:?}");
        }
    }

    #[test]
    fn no_two_outputs_go_to_one_place() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("below")).unwrap();
        let files = |metadata: &str, iid: &str| OutputArgs {
            metadata_file: Some(metadata.into()),
            iidfile: Some(iid.into()),
            ..OutputArgs::default()
        };
        let table = [
            files("same", "same"),
            files("below/../same", "./same"),
            OutputArgs { metadata_file: Some("x.tar".into()), ..args(&["type=tar,dest=x.tar"]) },
            args(&["type=tar,dest=x.tar", "type=oci,dest=./x.tar"]),
            args(&["new/out", "./new/out"]),
            args(&["out", "type=tar,dest=out"]),
        ];
        for args in table {
            let message = settled(&args, true, folder.path(), &[]).unwrap_err();
            assert!(message.contains("is named twice"), "{args:?}: {message}");
        }
        assert!(settled(&files("one", "two"), true, folder.path(), &[]).is_ok());
    }

    #[test]
    fn no_output_overwrites_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("functions.rs"), "").unwrap();
        for file in [".rocherc", "src/.rocherc", "ca.pem", "functions.rs", "src/../functions.rs"] {
            let args = OutputArgs { metadata_file: Some(file.into()), ..OutputArgs::default() };
            let message = settled(&args, true, folder.path(), &["functions.rs".into()]).unwrap_err();
            assert!(message.contains("is an input"), "{message}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_or_named_in_a_line_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("below")).unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        for output in ["file", "file/out", "type=tar,dest=below", "type=tar,dest=none/x", "new\nline", "type=oci,dest=\u{9b}31m"]
        {
            assert!(settled(&args(&[output]), true, folder.path(), &[]).is_err(), "{output:?}");
        }
        assert!(settled(&args(&["type=tar,dest= x ", "below/new/out"]), true, folder.path(), &[]).is_ok());
    }

    #[test]
    fn without_a_store_the_default_is_a_file_and_loading_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let default = settled(&args(&[]), false, folder.path(), &[]).unwrap();
        assert_eq!(default[0].place(), Some(Path::new("hello.oci.tar")));
        assert_eq!(settled(&args(&[]), true, folder.path(), &[]), Ok(vec![Output::Store]));
        for args in [args(&["type=docker"]), args(&["type=image,push=true"]), OutputArgs { load: true, ..args(&[]) }] {
            assert!(settled(&args, false, folder.path(), &[]).unwrap_err().contains("cannot be loaded"));
        }
        std::fs::create_dir(folder.path().join("hello.oci.tar")).unwrap();
        assert!(settled(&args(&[]), false, folder.path(), &[]).unwrap_err().contains("is a folder"));
    }

    #[test]
    fn a_dry_run_takes_no_outputs() {
        let file = || Some(PathBuf::from("x"));
        let table = [
            args(&["out"]),
            OutputArgs { push: true, ..args(&[]) },
            OutputArgs { load: true, ..args(&[]) },
            OutputArgs { metadata_file: file(), ..args(&[]) },
            OutputArgs { iidfile: file(), ..args(&[]) },
        ];
        for args in table {
            assert!(refuse_in_dry_run(&args, false).unwrap_err().render().contains("writes nothing"), "{args:?}");
        }
        assert!(refuse_in_dry_run(&OutputArgs { quiet: true, ..args(&[]) }, false).is_ok());
        assert!(refuse_in_dry_run(&args(&[]), true).is_err());
    }
}
