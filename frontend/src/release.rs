//! The release: what is built, from which images, under which names.
//!
//! Invariant: after [`resolve`] every parameter is decided; precedence (flag, environment,
//! `.rocherc`, default) is looked at here and nowhere else.

mod platform;
mod tag;

use std::collections::BTreeMap;
use std::str::FromStr;

use roche_engine::oci::Reference;
use roche_engine::op::Platform;

use crate::project::Project;
use crate::project::rocherc::Value;
use crate::shown;

pub use platform::host_platform;
use platform::platform;

/// The build image where none is named.
pub const DEFAULT_BUILD_IMAGE: &str = "quay.io/roche/default:1.0.0";
/// The runtime image where none is named.
pub const DEFAULT_RUNTIME_IMAGE: &str = "quay.io/roche/alpine:3.12";
/// The environment variable, and the key of `.rocherc`, for the build image.
pub const BUILD_IMAGE_VARIABLE: &str = "release_build_image";
/// The environment variable, and the key of `.rocherc`, for the runtime image.
pub const RUNTIME_IMAGE_VARIABLE: &str = "runtime_image";

/// What the command line says; texts as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `-b/--buildimage`.
    pub build_image: Option<String>,
    /// `-r/--runtime`: an image, or `scratch`.
    pub runtime: Option<String>,
    /// `-t/--tag`, in the order given.
    pub tags: Vec<String>,
    /// `--platform`: `os/architecture[/variant]`.
    pub platform: Option<String>,
    /// `--label`: `key=value`; the last one of a key wins.
    pub labels: Vec<String>,
    /// `--entrypoint`: `direct` or `script`.
    pub entrypoint: Option<String>,
}

/// A release with every parameter decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The image that the function is compiled in.
    pub build_image: Image,
    /// What the image stands on.
    pub runtime: Runtime,
    /// The image's names, each with a tag, at least one, without repeats.
    pub tags: Vec<Reference>,
    /// What the image runs on.
    pub platform: Platform,
    /// The labels that come on top of the runtime image's.
    pub labels: BTreeMap<String, String>,
    /// How the service is started.
    pub entrypoint: Entrypoint,
}

/// An image and who named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The image; has a tag or a digest.
    pub reference: Reference,
    /// Who named it.
    pub origin: Origin,
}

/// Where a parameter comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line; the flag.
    Flag(&'static str),
    /// An environment variable; its name.
    Environment(&'static str),
    /// A `.rocherc`: file and line.
    Rocherc(String),
    /// Nobody named it.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(name) | Self::Environment(name) => f.write_str(name),
            Self::Rocherc(place) => f.write_str(place),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// What the image stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// An image.
    Image(Image),
    /// Nothing; what the service needs is copied from the build image.
    Scratch(Origin),
}

/// How the service is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrypoint {
    /// By `./run.sh`, which needs a shell.
    Script,
    /// As `/app/roche-service`.
    Direct,
}

impl Entrypoint {
    const ALL: [Self; 2] = [Self::Script, Self::Direct];

    /// Returns what `--entrypoint` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::Direct => "direct",
        }
    }

    /// Returns the command of the image.
    pub fn command(self) -> &'static str {
        match self {
            Self::Script => "./run.sh",
            Self::Direct => "/app/roche-service",
        }
    }
}

/// Why a release cannot be decided.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// A flag or an environment variable is wrong (usage).
    #[error("{parameter}: {reason}")]
    Usage {
        /// The flag or variable.
        parameter: String,
        /// What is wrong with which text, and what would be right.
        reason: String,
    },
    /// `.rocherc` names something that is no image (configuration).
    #[error("{place}: {reason}")]
    Rocherc {
        /// File and line.
        place: String,
        /// What is wrong with which text.
        reason: String,
    },
    /// No tag was given and none can be made (configuration).
    #[error("no tag was given and none can be made: {reason}")]
    NoTag {
        /// Why not.
        reason: String,
        /// What to do instead, one command each.
        hints: Vec<String>,
    },
    /// The logins could not be read (configuration).
    #[error(transparent)]
    Logins(roche_engine::Error),
}

impl ReleaseError {
    /// Returns commands that help, one line each.
    pub fn hints(&self) -> &[String] {
        match self {
            Self::NoTag { hints, .. } => hints,
            _ => &[],
        }
    }
}

/// The flags' values after they were checked.
pub(crate) struct Checked {
    build_image: Option<Image>,
    runtime: Option<Runtime>,
    pub(crate) tags: Vec<Reference>,
    pub(crate) platform: Platform,
    pub(crate) labels: BTreeMap<String, String>,
    entrypoint: Option<Entrypoint>,
}

impl Flags {
    /// Checks the flags by themselves. Reads no file and asks nobody, so it can come first.
    pub fn validate(&self) -> Result<(), ReleaseError> {
        self.check().map(|_| ())
    }

    pub(crate) fn check(&self) -> Result<Checked, ReleaseError> {
        let build = |text: &String| build_image(text, Origin::Flag("--buildimage"));
        let runtime = |text: &String| runtime(text, Origin::Flag("--runtime"));
        let mut tags: Vec<Reference> = Vec::new();
        for text in &self.tags {
            let tag = tag::parse(text)?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        Ok(Checked {
            build_image: self.build_image.as_ref().map(build).transpose()?,
            runtime: self.runtime.as_ref().map(runtime).transpose()?,
            tags,
            platform: self.platform.as_deref().map_or_else(|| Ok(host_platform()), platform)?,
            labels: self.labels.iter().map(|text| label(text)).collect::<Result<_, _>>()?,
            entrypoint: self.entrypoint.as_deref().map(entrypoint).transpose()?,
        })
    }
}

/// Decides a release.
///
/// `environment` is the process's; of it `release_build_image`, `runtime_image` and
/// `DOCKER_USERNAME` are read. `logins` returns host and user of every registry login and is
/// asked only where a tag has to be made.
pub fn resolve(
    flags: &Flags,
    environment: &BTreeMap<String, String>,
    project: &Project,
    logins: &dyn Fn() -> Result<Vec<(String, String)>, roche_engine::Error>,
) -> Result<Release, ReleaseError> {
    let flags = flags.check()?;
    let build_image = match flags.build_image {
        Some(image) => image,
        None => {
            choose(BUILD_IMAGE_VARIABLE, environment, project.rocherc.build_image.as_ref(), DEFAULT_BUILD_IMAGE, build_image)?
        }
    };
    let runtime = match flags.runtime {
        Some(runtime) => runtime,
        None => {
            choose(RUNTIME_IMAGE_VARIABLE, environment, project.rocherc.runtime_image.as_ref(), DEFAULT_RUNTIME_IMAGE, runtime)?
        }
    };
    let entrypoint = match (flags.entrypoint, &runtime) {
        (Some(Entrypoint::Script), Runtime::Scratch(_)) => {
            return Err(usage(
                "--entrypoint",
                "scratch has no shell to run ./run.sh with; leave the flag out or say `direct`".to_owned(),
            ));
        }
        (Some(entrypoint), _) => entrypoint,
        (None, Runtime::Scratch(_)) => Entrypoint::Direct,
        (None, Runtime::Image(_)) => Entrypoint::Script,
    };
    let tags = if flags.tags.is_empty() { vec![tag::default(environment, project.folder(), logins)?] } else { flags.tags };
    Ok(Release { build_image, runtime, tags, platform: flags.platform, labels: flags.labels, entrypoint })
}

/// Chooses among environment, `.rocherc` and default. An empty variable is none.
fn choose<T>(
    variable: &'static str,
    environment: &BTreeMap<String, String>,
    rocherc: Option<&Value>,
    default: &str,
    read: impl Fn(&str, Origin) -> Result<T, ReleaseError>,
) -> Result<T, ReleaseError> {
    if let Some(text) = environment.get(variable).filter(|text| !text.is_empty()) {
        return read(text, Origin::Environment(variable));
    }
    match rocherc {
        Some(value) => read(&value.text, Origin::Rocherc(format!("{}:{}", value.path.display(), value.line))),
        None => read(default, Origin::Default),
    }
}

/// Reads a build image's name.
pub(crate) fn build_image(text: &str, origin: Origin) -> Result<Image, ReleaseError> {
    match text {
        "host" => {
            let reason =
                "`host`, this machine's own Rust toolchain, needs the embedded engine, which this version lacks; name an image";
            Err(wrong(origin, reason.to_owned()))
        }
        "scratch" => Err(wrong(origin, "scratch has no Rust toolchain; name an image".to_owned())),
        _ => image(text, origin),
    }
}

fn runtime(text: &str, origin: Origin) -> Result<Runtime, ReleaseError> {
    if text == "scratch" { Ok(Runtime::Scratch(origin)) } else { image(text, origin).map(Runtime::Image) }
}

fn image(text: &str, origin: Origin) -> Result<Image, ReleaseError> {
    match Reference::from_str(text) {
        Ok(reference) => Ok(Image { reference: reference.tagged(), origin }),
        Err(error) => Err(wrong(origin, error.to_string())),
    }
}

/// Blames whoever named a value.
fn wrong(origin: Origin, reason: String) -> ReleaseError {
    match origin {
        Origin::Rocherc(place) => ReleaseError::Rocherc { place, reason },
        origin => usage(&origin.to_string(), reason),
    }
}

fn usage(parameter: &str, reason: String) -> ReleaseError {
    ReleaseError::Usage { parameter: parameter.to_owned(), reason }
}

fn entrypoint(text: &str) -> Result<Entrypoint, ReleaseError> {
    let found = Entrypoint::ALL.into_iter().find(|entrypoint| entrypoint.name() == text);
    found.ok_or_else(|| usage("--entrypoint", format!("{:?} is neither `script` nor `direct`", shown::text(text))))
}

fn label(text: &str) -> Result<(String, String), ReleaseError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !text.contains('\0') => Ok((key.to_owned(), value.to_owned())),
        _ => Err(usage("--label", format!("{:?} is not KEY=VALUE", shown::text(text)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::SourceFile;
    use crate::project::rocherc::Rocherc;

    fn project(rocherc: Rocherc) -> Project {
        let function = SourceFile { path: "functions.rs".into(), data: b"x".to_vec() };
        Project { root: "/w/Hello World".into(), function, lib: None, rocherc, notices: Vec::new() }
    }

    fn value(text: &str) -> Option<Value> {
        Some(Value { text: text.to_owned(), path: ".rocherc".into(), line: 3 })
    }

    fn flags(tags: &[&str]) -> Flags {
        Flags { tags: tags.iter().map(|&tag| tag.to_owned()).collect(), ..Flags::default() }
    }

    fn decide(flags: &Flags, environment: &[(&str, &str)], rocherc: Rocherc) -> Result<Release, ReleaseError> {
        let environment = environment.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        resolve(flags, &environment, &project(rocherc), &|| panic!("nobody needs logins"))
    }

    #[test]
    fn flag_beats_environment_beats_rocherc_beats_default() {
        let rocherc = || Rocherc { build_image: value("file/b"), runtime_image: value("file/r"), notices: Vec::new() };
        let environment = [("release_build_image", "env/b"), ("runtime_image", "env/r")];
        let mut flags = flags(&["t"]);
        let names = |release: Release| match release.runtime {
            Runtime::Image(runtime) => {
                (release.build_image.reference.to_string(), runtime.reference.to_string(), runtime.origin.to_string())
            }
            Runtime::Scratch(_) => panic!("an image"),
        };
        let default = names(decide(&flags, &[], Rocherc::default()).unwrap());
        assert_eq!((default.0.as_str(), default.1.as_str()), (DEFAULT_BUILD_IMAGE, DEFAULT_RUNTIME_IMAGE));
        let file = names(decide(&flags, &[("runtime_image", "")], rocherc()).unwrap());
        assert_eq!((file.0.as_str(), file.2.as_str()), ("docker.io/file/b:latest", ".rocherc:3"));
        let env = names(decide(&flags, &environment, rocherc()).unwrap());
        assert_eq!((env.0.as_str(), env.2.as_str()), ("docker.io/env/b:latest", "runtime_image"));
        flags.build_image = Some("flag/b:2".to_owned());
        flags.runtime = Some("flag/r".to_owned());
        let flag = names(decide(&flags, &environment, rocherc()).unwrap());
        assert_eq!((flag.0.as_str(), flag.2.as_str()), ("docker.io/flag/b:2", "--runtime"));
    }

    #[test]
    fn whoever_named_a_bad_image_is_blamed() {
        let rocherc = Rocherc { build_image: value("Bad Image"), ..Rocherc::default() };
        let error = decide(&flags(&["t"]), &[], rocherc).unwrap_err();
        assert!(matches!(&error, ReleaseError::Rocherc { place, .. } if place == ".rocherc:3"), "{error}");
        let error = decide(&flags(&["t"]), &[("runtime_image", "a//b")], Rocherc::default()).unwrap_err();
        assert!(matches!(&error, ReleaseError::Usage { parameter, .. } if parameter == "runtime_image"), "{error}");
    }

    #[test]
    fn scratch_is_started_directly() {
        let scratch = Flags { runtime: Some("scratch".to_owned()), ..flags(&["t"]) };
        let release = decide(&scratch, &[], Rocherc::default()).unwrap();
        assert!(matches!(release.runtime, Runtime::Scratch(Origin::Flag("--runtime"))));
        assert_eq!(release.entrypoint, Entrypoint::Direct);
        let script = Flags { entrypoint: Some("script".to_owned()), ..scratch };
        assert!(decide(&script, &[], Rocherc::default()).is_err());
    }

    #[test]
    fn flags_are_checked_without_a_project() {
        let bad: [fn(&mut Flags); 12] = [
            |f| f.tags.push("A/B".to_owned()),
            |f| f.tags.push(String::new()),
            |f| f.tags.push(format!("a@sha256:{}", "0".repeat(64))),
            |f| f.build_image = Some("a b".to_owned()),
            |f| f.build_image = Some("scratch".to_owned()),
            |f| f.build_image = Some("host".to_owned()),
            |f| f.runtime = Some("$(x)".to_owned()),
            |f| f.platform = Some("linux/amd64,linux/arm64".to_owned()),
            |f| f.platform = Some("windows/amd64".to_owned()),
            |f| f.platform = Some("amd64".to_owned()),
            |f| f.labels.push("nothing".to_owned()),
            |f| f.entrypoint = Some("x".to_owned()),
        ];
        for change in bad {
            let mut flags = flags(&["fine"]);
            change(&mut flags);
            assert!(matches!(flags.validate(), Err(ReleaseError::Usage { .. })), "{flags:?}");
        }
        flags(&["fine", "localhost:5000/a:b"]).validate().unwrap();
    }

    #[test]
    fn tags_keep_their_order_without_repeats_and_labels_their_last_value() {
        let mut flags = flags(&["b", "a:1", "b:latest"]);
        flags.labels = vec!["k=1".to_owned(), "k=2=3".to_owned(), "e=".to_owned()];
        let release = decide(&flags, &[], Rocherc::default()).unwrap();
        let tags: Vec<String> = release.tags.iter().map(ToString::to_string).collect();
        assert_eq!(tags, ["docker.io/library/b:latest", "docker.io/library/a:1"]);
        assert_eq!(release.labels["k"], "2=3");
        assert_eq!(release.labels["e"], "");
    }
}
