//! What was decided for a release, and by whom.
//!
//! Invariant: of a variable that decided there is the name, and of what it says only what the release shows anyway.

use roche_frontend::release::{BuildImage, Origin, Release, Runtime};

use crate::args::ReleaseArgs;
use crate::document::Setting;
use crate::environment::Environment;

/// Writes down what was decided, and by whom.
pub(super) fn settings(release: &Release, args: &ReleaseArgs, environment: &Environment) -> Vec<Setting> {
    let setting = |name: &str, value: String, from: &str, by: Option<&str>| Setting {
        name: name.to_owned(),
        value,
        from: from.to_owned(),
        by: by.map(str::to_owned),
    };
    let image = |name: &str, value: String, origin: &Origin| match origin {
        Origin::Flag(flag) => setting(name, value, "flag", Some(flag)),
        Origin::Environment(variable) => setting(name, value, "environment", Some(variable)),
        Origin::Rocherc(place) => setting(name, value, "file", Some(place)),
        Origin::Default => setting(name, value, "default", None),
    };
    let flag = |name: &str, value: String, flag: &str, given: bool| {
        let (from, by) = if given { ("flag", Some(flag)) } else { ("default", None) };
        setting(name, value, from, by)
    };
    let mut settings = vec![
        match &release.build_image {
            BuildImage::Image(named) => image("build image", named.reference.to_string(), &named.origin),
            BuildImage::Host(origin) => image("build image", roche_frontend::release::HOST.to_owned(), origin),
        },
        match &release.runtime {
            Runtime::Image(named) => image("runtime image", named.reference.to_string(), &named.origin),
            Runtime::Scratch(origin) => image("runtime image", "scratch".to_owned(), origin),
        },
    ];
    let (from, by) = match (args.tag.is_empty(), environment.variable("DOCKER_USERNAME")) {
        (false, _) => ("flag", Some("--tag")),
        (true, Some(_)) => ("environment", Some("DOCKER_USERNAME")),
        (true, None) => ("login", None),
    };
    settings.extend(release.tags.iter().map(|tag| setting("tag", tag.to_string(), from, by)));
    settings.push(flag("platform", release.platform.to_string(), "--platform", args.solve.platform.is_some()));
    settings.push(flag("entrypoint", release.entrypoint.name().to_owned(), "--entrypoint", args.entrypoint.is_some()));
    settings.extend(release.labels.iter().map(|(key, value)| flag("label", format!("{key}={value}"), "--label", true)));
    for (name, word, given) in [
        ("time zones", "--tzdata", release.tzdata),
        ("cache", "--no-cache", args.solve.no_cache),
        ("pull", "--pull", args.solve.pull),
    ] {
        let value = if name == "cache" { !given } else { given };
        settings.push(flag(name, if value { "yes" } else { "no" }.to_owned(), word, given));
    }
    settings
}
