//! `-o`, `--push`, `--load`, `--cache-from` and `--cache-to` in buildx's words.
//!
//! Invariant: whatever could make an output impossible (a folder in the way, a terminal, an input
//! of the release) is found before anything is built.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use roche_engine::oci::Reference;
use roche_engine::solver::{ArchiveDest, ArchiveFormat, CacheEntry, Export};

use crate::args::OutputArgs;
use crate::environment::Environment;
use crate::error::{Exit, Failure};

/// An output as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// The daemon's own store.
    Store,
    /// The registries that the names say.
    Registry,
    /// A file, or standard output.
    Archive { format: ArchiveFormat, dest: ArchiveDest },
    /// A folder.
    Folder { dest: PathBuf },
}

impl Output {
    /// Parses what `-o` was given.
    fn parse(text: &OsString) -> Result<Self, Failure> {
        let usage = |what: String| {
            Failure::say(Exit::Usage, format!("-o {}: {what}", text.to_string_lossy()))
                .hint("for example -o type=oci,dest=hello.tar, -o type=registry, or -o FOLDER")
        };
        let Some(utf8) = text.to_str() else {
            return Ok(Self::Folder { dest: PathBuf::from(text) });
        };
        if utf8 == "-" {
            return Ok(Self::Archive { format: ArchiveFormat::Tar, dest: ArchiveDest::Stdout });
        }
        if utf8.is_empty() {
            return Err(usage("an output must be named".into()));
        }
        let fields = fields(utf8).map_err(usage)?;
        if let [(folder, None)] = &fields[..] {
            return Ok(Self::Folder { dest: PathBuf::from(folder) });
        }
        let mut attrs = BTreeMap::new();
        for (key, value) in fields {
            let value = value.ok_or_else(|| usage(format!("{key:?} has no value")))?;
            attrs.insert(key, value);
        }
        let kind = attrs.remove("type").ok_or_else(|| usage("the type is missing".into()))?;
        let dest = attrs.remove("dest");
        let push = attrs.remove("push").is_some_and(|push| push == "true");
        if let Some(key) = attrs.keys().next() {
            return Err(usage(format!("{key:?} is not known here")));
        }
        let archive = |format| -> Result<Self, Failure> {
            let dest = match dest.as_deref() {
                Some("-") => ArchiveDest::Stdout,
                Some("") | None => return Err(usage(format!("type={kind} needs dest=FILE, or dest=- for standard output"))),
                Some(file) => ArchiveDest::File(PathBuf::from(file)),
            };
            Ok(Self::Archive { format, dest })
        };
        match kind.as_str() {
            "docker" if dest.is_none() => Ok(Self::Store),
            "docker" => archive(ArchiveFormat::Docker),
            "oci" => archive(ArchiveFormat::Oci),
            "tar" => archive(ArchiveFormat::Tar),
            "image" | "registry" if dest.is_some() => Err(usage(format!("type={kind} takes no dest"))),
            "image" if !push => Ok(Self::Store),
            "image" | "registry" => Ok(Self::Registry),
            "local" => match dest.filter(|dest| !dest.is_empty()) {
                Some(dest) => Ok(Self::Folder { dest: PathBuf::from(dest) }),
                None => Err(usage("type=local needs dest=FOLDER".into())),
            },
            _ => Err(usage(format!("{kind:?} is no type of output; there are docker, oci, image, registry, local and tar"))),
        }
    }

    /// Turns the output into what the solver is told.
    pub(crate) fn export(&self, names: &[Reference]) -> Export {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        match self.clone() {
            Self::Store => Export::Store { names },
            Self::Registry => Export::Registry { names },
            Self::Archive { format, dest } => Export::Archive { format, names, dest },
            Self::Folder { dest } => Export::Folder { dest },
        }
    }

    /// Returns the file that the output writes.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Archive { dest: ArchiveDest::File(file), .. } => Some(file),
            _ => None,
        }
    }

    /// Says whether standard output is where the result goes.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Self::Archive { dest: ArchiveDest::Stdout, .. })
    }
}

/// Parses and checks all outputs; none where the user named none.
pub(crate) fn parse(args: &OutputArgs, environment: &Environment, inputs: &[PathBuf]) -> Result<Vec<Output>, Failure> {
    let mut outputs = args.output.iter().map(Output::parse).collect::<Result<Vec<_>, _>>()?;
    outputs.extend(args.push.then_some(Output::Registry));
    outputs.extend(args.load.then_some(Output::Store));
    let mut unique: Vec<Output> = Vec::new();
    for output in outputs {
        if !unique.contains(&output) {
            unique.push(output);
        }
    }
    if unique.iter().filter(|output| output.is_stdout()).count() > 1 {
        return Err(Failure::say(Exit::Usage, "two outputs go to standard output"));
    }
    if unique.iter().any(Output::is_stdout) && environment.stdout_terminal {
        return Err(Failure::say(Exit::Usage, "standard output is a terminal, and the output is an archive")
            .hint("send it to a file: roche release -o - > image.tar"));
    }
    let files = unique.iter().filter_map(Output::file).chain(args.metadata_file.as_deref()).chain(args.iidfile.as_deref());
    for file in files {
        check_file(&environment.folder.join(file), inputs)?;
    }
    for output in &unique {
        if let Output::Folder { dest } = output {
            let dest = environment.folder.join(dest);
            if dest.exists() && !dest.is_dir() {
                return Err(Failure::say(Exit::Usage, format!("{} is not a folder", dest.display())));
            }
        }
    }
    Ok(unique)
}

/// Refuses a file that cannot be replaced by a new one.
fn check_file(file: &Path, inputs: &[PathBuf]) -> Result<(), Failure> {
    let refuse = |why: &str| Failure::say(Exit::Usage, format!("{} {why}", file.display())).hint("name another file");
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => return Err(refuse("is a folder, and the output is a file")),
        Ok(metadata) if !is_regular(&metadata) => return Err(refuse("is not a regular file, so it cannot be replaced")),
        _ => {}
    }
    if let Ok(same) = file.canonicalize() {
        if inputs.iter().any(|input| input.canonicalize().is_ok_and(|input| input == same)) {
            return Err(refuse("is an input of the release, and would be overwritten"));
        }
    }
    match file.parent() {
        Some(folder) if folder.is_dir() => Ok(()),
        _ => Err(refuse("is in a folder that does not exist")),
    }
}

fn is_regular(metadata: &Metadata) -> bool {
    metadata.is_file()
}

/// Parses what `--cache-from` or `--cache-to` was given.
pub(crate) fn cache(flag: &str, text: &str) -> Result<CacheEntry, Failure> {
    let usage = |what: String| {
        Failure::say(Exit::Usage, format!("{flag} {text}: {what}")).hint(format!("for example {flag} type=registry,ref=localhost:5000/cache"))
    };
    let fields = fields(text).map_err(usage)?;
    // buildx reads a word alone as a registry's reference.
    if let [(reference, None)] = &fields[..] {
        let attrs = BTreeMap::from([("ref".to_owned(), reference.clone())]);
        return Ok(CacheEntry { kind: "registry".into(), attrs });
    }
    let mut attrs = BTreeMap::new();
    for (key, value) in fields {
        attrs.insert(key.clone(), value.ok_or_else(|| usage(format!("{key:?} has no value")))?);
    }
    let kind = attrs.remove("type").ok_or_else(|| usage("the type is missing".into()))?;
    match kind.as_str() {
        "inline" => {}
        "registry" => {
            let reference = attrs.get("ref").ok_or_else(|| usage("type=registry needs ref=NAME".into()))?;
            reference.parse::<Reference>().map_err(|error| usage(error.to_string()))?;
        }
        "local" | "gha" | "s3" | "azblob" => return Err(usage(format!("caches of type {kind} are not supported yet; use type=registry or type=inline"))),
        _ => return Err(usage(format!("{kind:?} is no type of cache"))),
    }
    Ok(CacheEntry { kind, attrs })
}

/// Splits `key=value,key=value` as a line of CSV: a field in double quotes may hold commas.
fn fields(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    loop {
        match characters.next() {
            Some('"') if quoted && characters.peek() == Some(&'"') => {
                field.push('"');
                characters.next();
            }
            Some('"') if quoted || field.is_empty() => quoted = !quoted,
            Some(',') | None if !quoted => {
                let whole = std::mem::take(&mut field);
                fields.push(match whole.split_once('=') {
                    Some((key, value)) => (key.trim().to_lowercase(), Some(value.to_owned())),
                    None => (whole, None),
                });
                if characters.peek().is_none() && !text.ends_with(',') || field.is_empty() && characters.peek().is_none() {
                    return Ok(fields);
                }
            }
            Some(c) => field.push(c),
            None => return Err("a quote is not closed".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Output, String> {
        Output::parse(&OsString::from(text)).map_err(|failure| {
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
            ("type=image,push=true", Output::Registry),
            ("type=registry", Output::Registry),
            ("type=docker,dest=a.tar", file(ArchiveFormat::Docker, "a.tar")),
            ("type=oci,\"dest=a,b \"\"c\"\".tar\"", file(ArchiveFormat::Oci, "a,b \"c\".tar")),
            ("TYPE=tar,dest=x", file(ArchiveFormat::Tar, "x")),
            ("type=oci,dest=-", Output::Archive { format: ArchiveFormat::Oci, dest: ArchiveDest::Stdout }),
        ];
        for (text, output) in table {
            assert_eq!(parsed(text), Ok(output), "{text}");
        }
    }

    #[test]
    fn bad_outputs_say_what_is_wrong() {
        let table = [
            ("", "must be named"),
            ("type=oci", "needs dest"),
            ("type=zip,dest=x", "no type of output"),
            ("type=registry,dest=x", "takes no dest"),
            ("dest=x", "type is missing"),
            ("type=oci,dest=x,colour=red", "\"colour\" is not known"),
            ("type=oci,dest", "has no value"),
            ("type=oci,\"dest=x", "quote"),
            ("type=local", "needs dest"),
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
        assert!(cache("--cache-from", "type=registry,ref=UPPER").is_err());
    }
}
