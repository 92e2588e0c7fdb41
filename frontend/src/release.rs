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

pub use platform::{host_platform, platform};

/// The build image where none is named.
pub const DEFAULT_BUILD_IMAGE: &str = "quay.io/roche/default:1.0.0";
/// The runtime image where none is named.
pub const DEFAULT_RUNTIME_IMAGE: &str = "quay.io/roche/alpine:3.12";
/// What names this machine's own toolchain as a build image.
pub const HOST: &str = "host";
/// What names nothing at all as a runtime image.
const SCRATCH: &str = "scratch";
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
    /// `--tzdata`: the time zones of this machine come into an image that stands on nothing.
    pub tzdata: bool,
}

/// A release with every parameter decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// What the function is compiled in.
    pub build_image: BuildImage,
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
    /// Whether the time zones of this machine come along.
    pub tzdata: bool,
}

/// What a function is compiled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildImage {
    /// An image.
    Image(Image),
    /// This machine's own Rust toolchain.
    Host(Origin),
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
    /// Something needs the embedded engine, and a daemon was named (usage).
    #[error("{parameter}: {reason}")]
    Embedded {
        /// Who asked for it.
        parameter: String,
        /// Why it cannot be had.
        reason: String,
        /// What to do instead, one command each.
        hints: Vec<String>,
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
            Self::NoTag { hints, .. } | Self::Embedded { hints, .. } => hints,
            _ => &[],
        }
    }
}

/// The flags' values after they were checked.
pub(crate) struct Checked {
    build_image: Option<BuildImage>,
    runtime: Option<Runtime>,
    pub(crate) tags: Vec<Reference>,
    pub(crate) platform: Platform,
    pub(crate) labels: BTreeMap<String, String>,
    entrypoint: Option<Entrypoint>,
    tzdata: bool,
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
            tzdata: self.tzdata,
        })
    }
}

/// Decides a release.
///
/// `environment` is the process's; of it `release_build_image`, `runtime_image` and
/// `DOCKER_USERNAME` are read. `embedded` says that the engine is this machine, which then is what
/// functions are compiled in where nothing is named. `logins` returns host and user of every
/// registry login and is asked only where a tag has to be made.
pub fn resolve(
    flags: &Flags,
    environment: &BTreeMap<String, String>,
    embedded: bool,
    project: &Project,
    logins: &dyn Fn() -> Result<Vec<(String, String)>, roche_engine::Error>,
) -> Result<Release, ReleaseError> {
    let flags = flags.check()?;
    let build_image = match flags.build_image {
        Some(image) => image,
        None => {
            let default = if embedded { HOST } else { DEFAULT_BUILD_IMAGE };
            choose(BUILD_IMAGE_VARIABLE, environment, project.rocherc.build_image.as_ref(), default, build_image)?
        }
    };
    let default = match &build_image {
        BuildImage::Image(_) => DEFAULT_RUNTIME_IMAGE,
        BuildImage::Host(origin) => {
            usable(origin, embedded, &flags.platform)?;
            SCRATCH
        }
    };
    let runtime = match flags.runtime {
        Some(runtime) => runtime,
        None => choose(RUNTIME_IMAGE_VARIABLE, environment, project.rocherc.runtime_image.as_ref(), default, runtime)?,
    };
    if flags.tzdata && !matches!((&build_image, &runtime), (BuildImage::Host(_), Runtime::Scratch(_))) {
        return Err(usage("--tzdata", "is for releases with `-b host -r scratch`; other images bring their own".to_owned()));
    }
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
    let (platform, labels, tzdata) = (flags.platform, flags.labels, flags.tzdata);
    Ok(Release { build_image, runtime, tags, platform, labels, entrypoint, tzdata })
}

/// Says whether this machine's toolchain can be used.
fn usable(origin: &Origin, embedded: bool, platform: &Platform) -> Result<(), ReleaseError> {
    if !embedded {
        let reason = "`host`, this machine's own Rust toolchain, is for the embedded engine, and a daemon was chosen".to_owned();
        let hints = ["roche release --builder embedded -b host", "roche release -b IMAGE"].map(str::to_owned).to_vec();
        return Err(ReleaseError::Embedded { parameter: origin.to_string(), reason, hints });
    }
    let own = host_platform();
    if *platform != own {
        let reason = format!("this machine's own Rust toolchain compiles for {own}, not for {platform}; name an image with -b");
        return Err(usage("--platform", reason));
    }
    Ok(())
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

/// Reads what `-b` names.
fn build_image(text: &str, origin: Origin) -> Result<BuildImage, ReleaseError> {
    if text == HOST { Ok(BuildImage::Host(origin)) } else { toolchain_image(text, origin).map(BuildImage::Image) }
}

/// Reads the name of an image with a Rust toolchain.
pub(crate) fn toolchain_image(text: &str, origin: Origin) -> Result<Image, ReleaseError> {
    match text {
        HOST => Err(wrong(origin, "`host`, this machine's own Rust toolchain, is no image; name one".to_owned())),
        SCRATCH => Err(wrong(origin, "scratch has no Rust toolchain; name an image".to_owned())),
        _ => image(text, origin),
    }
}

fn runtime(text: &str, origin: Origin) -> Result<Runtime, ReleaseError> {
    if text == SCRATCH { Ok(Runtime::Scratch(origin)) } else { image(text, origin).map(Runtime::Image) }
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
mod tests;
