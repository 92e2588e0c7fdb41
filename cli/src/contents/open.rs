//! Where an image is: in a file or folder that is named, in the store of docker or podman, in its registry.
//!
//! Invariant: a path is a path and a name a name; an engine that is named is asked, or it is a failure.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use roche_engine::Error;
use roche_engine::buildkit::{Address, Protocol, engine_sockets, image_id, locate, locate::nothing_named, save};
use roche_engine::oci::contents::OpenImage;
use roche_engine::oci::{Reference, Registry};
use roche_engine::op::Platform;
use roche_frontend::release::{host_platform, platform};
use tempfile::NamedTempFile;

use crate::args::SolveArgs;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::{backend, logins, registries};

/// How long a registry has to answer.
const REGISTRY: Duration = Duration::from_secs(30);
/// In front of a path with a name behind it; the first as buildx has it. What is there says which of them it is.
const NAMED: [&str; 2] = ["oci-layout://", "docker-archive://"];

/// An image that was found.
pub(crate) struct Held {
    /// What it is called.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) found_in: String,
    pub(crate) image: OpenImage,
    /// The archive that an engine gave; gone with the value.
    pub(crate) kept: Option<NamedTempFile>,
}

/// Finds an image.
pub(crate) async fn open(image: &OsStr, wanted: Option<&str>, environment: &Environment) -> Result<Held, Failure> {
    let platform = wanted.map_or_else(|| Ok(host_platform()), platform)?;
    if let Some((path, name)) = file(image, &environment.folder) {
        let found_in = path.display().to_string();
        let place = environment.folder.join(&path);
        let image = OpenImage::in_file(&place, name.as_deref(), &platform).map_err(|error| chosen(error, &path))?;
        if wanted.is_some() && !image.is_for(&platform) {
            return Err(other_platform(&found_in, &image, &platform));
        }
        return Ok(Held { name: name.unwrap_or_else(|| found_in.clone()), found_in, image, kept: None });
    }
    let text = image.to_string_lossy();
    let reference: Reference = text.parse().map_err(|cause| {
        Failure::say(Exit::Usage, format!("{text} is neither a file nor the name of an image: {cause}"))
            .hint("name an archive, a layout's folder, or an image, such as debian:12")
    })?;
    let reference = reference.tagged();
    // Engines that have it for another platform than the wanted one.
    let mut passed = Vec::new();
    for address in engines(environment)? {
        if image_id(&address, &reference.to_string()).await?.is_some() {
            let held = stored(&address, &reference, &platform).await;
            match held {
                Ok(held) if wanted.is_some() && !held.image.is_for(&platform) => {
                    passed.push(format!("{} has it for {}: leave out --platform", held.found_in, held.image.config.platform));
                }
                // A store with manifests lists those that it has not fetched.
                Err(failure) if wanted.is_some() && failure.exit == Exit::Integrity => {
                    passed.push(format!("the engine at {address} has it for another platform: leave out --platform"));
                }
                held => return held,
            }
        }
    }
    let credentials = Arc::new(logins::credentials(environment));
    let registry = Registry::new(&registries::options(environment)?)?;
    let repository = registry.repository(&reference, Some(credentials))?;
    let found = repository.image(&platform, REGISTRY, None).await.map_err(|error| {
        let is_registry = matches!(error, Error::Registry { .. });
        let failure = passed.iter().fold(failure(error), |failure, hint| failure.hint(hint.as_str()));
        if is_registry { failure.hint("an archive or layout is named by its path, such as ./image.tar") } else { failure }
    })?;
    let found_in = format!("the registry {}", reference.host());
    let image = OpenImage::in_registry(found, repository, tokio::runtime::Handle::current());
    if wanted.is_some() && !image.is_for(&platform) {
        return Err(other_platform(&reference.familiar(), &image, &platform));
    }
    Ok(Held { name: reference.familiar(), found_in, image, kept: None })
}

/// Refuses an image that is there for one platform alone.
fn other_platform(name: &str, image: &OpenImage, wanted: &Platform) -> Failure {
    Failure::say(Exit::Usage, format!("{name} is an image for {}, and not for {wanted}", image.config.platform))
        .hint("leave out --platform to see the one that is there")
}

/// Says which images a file has, where it is not clear which of them is meant.
fn chosen(error: Error, path: &Path) -> Failure {
    let Some((kind, [first, ..])) = OpenImage::choices(&error) else { return failure(error) };
    let reference = format!("{kind}://{}:{first}", path.display());
    let is_plain = reference.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte));
    let reference = if is_plain { reference } else { format!("'{}'", reference.replace('\'', r"'\''")) };
    let what = match &error {
        Error::File { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    Failure::say(Exit::Usage, format!("{}: {what}", path.display())).hint(format!("roche contents {reference}"))
}

/// Returns the path, and the name of an image in it, where the argument is no image's name: one that begins with `/`, `./` or
/// `../`, ends with `.tar`, is a file, or is a layout's folder.
fn file(image: &OsStr, folder: &Path) -> Option<(PathBuf, Option<String>)> {
    let path = Path::new(image);
    let rest = image.to_str().and_then(|text| NAMED.iter().find_map(|prefix| text.strip_prefix(prefix)));
    if let Some(rest) = rest {
        return Some(named(rest, folder));
    }
    let is_path = path.is_absolute()
        || path.starts_with(".")
        || path.starts_with("..")
        || image.as_encoded_bytes().ends_with(b".tar")
        || image.to_str().is_none()
        || folder.join(path).is_file()
        || folder.join(path).join("oci-layout").is_file();
    is_path.then(|| (path.to_owned(), None))
}

/// Takes `PATH[:NAME][@DIGEST]` apart. The name begins behind the first path that is there, and may have colons; a path that is
/// there under the whole text has none. Where nothing is there, a tag begins at the last colon.
fn named(text: &str, folder: &Path) -> (PathBuf, Option<String>) {
    if folder.join(text).exists() {
        return (text.into(), None);
    }
    let mut ends = text.match_indices([':', '@']).map(|(at, _)| at);
    if let Some(end) = ends.find(|end| *end > 0 && folder.join(&text[..*end]).exists()) {
        let name = &text[end + 1..];
        return (text[..end].into(), Some(name.rsplit_once('@').map_or(name, |(_, digest)| digest).to_owned()));
    }
    if let Some((path, digest)) = text.rsplit_once('@') {
        let path = path.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(path, |(path, _)| path);
        return (path.into(), Some(digest.to_owned()));
    }
    match text.rsplit_once(':').filter(|(path, tag)| !tag.contains('/') && !path.is_empty()) {
        Some((path, tag)) => (path.into(), Some(tag.to_owned())),
        None => (text.into(), None),
    }
}

/// Returns the engines whose stores are looked into: the one that is named, else those that answer.
fn engines(environment: &Environment) -> Result<Vec<Address>, Failure> {
    let lookup = backend::lookup(&SolveArgs::default(), environment)?;
    if !nothing_named(&lookup)? {
        let named = locate(&lookup)?.address;
        if named.protocol == Protocol::Docker {
            return Ok(vec![named]);
        }
    }
    let sockets = engine_sockets(environment.variable("XDG_RUNTIME_DIR").map(Path::new));
    Ok(sockets.into_iter().filter(|address| backend::unusable(address).is_none()).collect())
}

/// Takes an image out of an engine's store. Its archive has its list at the end, and so it is kept while it is read.
async fn stored(address: &Address, reference: &Reference, platform: &Platform) -> Result<Held, Failure> {
    let unwritable = |error: io::Error| {
        let exit = if crate::error::exhausted(&error) { Exit::Resource } else { Exit::Configuration };
        Failure::say(exit, format!("the temporary folder cannot be used: {error}")).hint("name another: export TMPDIR=FOLDER")
    };
    let kept = NamedTempFile::new().map_err(unwritable)?;
    let sink = kept.reopen().map_err(unwritable)?;
    save(address, &reference.to_string(), sink).await?;
    let mut image = OpenImage::in_file(kept.path(), None, platform).map_err(failure)?;
    let found_in = format!("the engine at {address}");
    image.place = format!("{} in {found_in}", reference.familiar());
    Ok(Held { name: reference.familiar(), found_in, image, kept: Some(kept) })
}

/// A file that is no image has nothing to do with a project.
pub(super) fn failure(error: Error) -> Failure {
    let Error::File { path, source } = &error else { return error.into() };
    let (exit, hint) = match source.kind() {
        io::ErrorKind::InvalidData => {
            (Exit::Integrity, "an image is an OCI layout, or an archive by docker save, skopeo or roche release -o")
        }
        _ if crate::error::exhausted(source) => return error.into(),
        _ => (Exit::Usage, "name an archive or a layout's folder that you may read"),
    };
    Failure::say(exit, format!("{}: {source}", path.display())).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("saved"), "").unwrap();
        std::fs::create_dir_all(folder.path().join("debian")).unwrap();
        std::fs::create_dir_all(folder.path().join("layout")).unwrap();
        std::fs::write(folder.path().join("layout/oci-layout"), "").unwrap();
        let found = |text: &str| file(OsStr::new(text), folder.path()).map(|(path, name)| (path.display().to_string(), name));
        for path in ["/x", "./debian", "../x", "x.tar", "saved", "layout"] {
            assert_eq!(found(path), Some((path.to_owned(), None)));
        }
        for name in ["debian", "debian:12", "ghcr.io/a/b", "localhost:5000/x:tar"] {
            assert_eq!(found(name), None, "{name}");
        }
        let named = |path: &str, name: Option<&str>| Some((path.to_owned(), name.map(str::to_owned)));
        assert_eq!(found("oci-layout://layout"), named("layout", None));
        assert_eq!(found("oci-layout:///a/b:1"), named("/a/b", Some("1")));
        assert_eq!(found("oci-layout://b:1@sha256:00"), named("b", Some("sha256:00")));
        assert_eq!(found("oci-layout://a:1/b"), named("a:1/b", None));
        // Behind a path that is there, all is the name.
        assert_eq!(found("oci-layout://layout:a:1"), named("layout", Some("a:1")));
        assert_eq!(found("docker-archive://saved:localhost:5000/a:1"), named("saved", Some("localhost:5000/a:1")));
        assert_eq!(found("docker-archive://saved:sha256:00"), named("saved", Some("sha256:00")));
        assert_eq!(found("docker-archive://saved@sha256:00"), named("saved", Some("sha256:00")));
        assert_eq!(found("oci-layout://layout:a:1@sha256:00"), named("layout", Some("sha256:00")));
    }
}
