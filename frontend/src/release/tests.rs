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
    resolve(flags, &environment, false, &project(rocherc), &|| panic!("nobody needs logins"))
}

#[test]
fn flag_beats_environment_beats_rocherc_beats_default() {
    let rocherc = || Rocherc { build_image: value("file/b"), runtime_image: value("file/r"), notices: Vec::new() };
    let environment = [("release_build_image", "env/b"), ("runtime_image", "env/r")];
    let mut flags = flags(&["t"]);
    let names = |release: Release| match (release.build_image, release.runtime) {
        (BuildImage::Image(build), Runtime::Image(runtime)) => {
            (build.reference.to_string(), runtime.reference.to_string(), runtime.origin.to_string())
        }
        other => panic!("images, not {other:?}"),
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
    let bad: [fn(&mut Flags); 11] = [
        |f| f.tags.push("A/B".to_owned()),
        |f| f.tags.push(String::new()),
        |f| f.tags.push(format!("a@sha256:{}", "0".repeat(64))),
        |f| f.build_image = Some("a b".to_owned()),
        |f| f.build_image = Some("scratch".to_owned()),
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
fn the_embedded_engine_compiles_with_this_machine_s_toolchain_unless_told_otherwise() {
    let on = |embedded, change: &dyn Fn(&mut Flags)| {
        let mut flags = flags(&["t"]);
        change(&mut flags);
        resolve(&flags, &BTreeMap::new(), embedded, &project(Rocherc::default()), &|| panic!("nobody needs logins"))
    };
    let host = |flags: &mut Flags| flags.build_image = Some("host".to_owned());
    let release = on(true, &|_| ()).unwrap();
    assert_eq!((release.build_image, release.runtime), (BuildImage::Host(Origin::Default), Runtime::Scratch(Origin::Default)));
    assert_eq!(release.entrypoint, Entrypoint::Direct);
    let image = on(true, &|flags| flags.build_image = Some("b".to_owned())).unwrap();
    assert!(matches!((image.build_image, image.runtime), (BuildImage::Image(_), Runtime::Image(_))));
    assert!(matches!(on(true, &|flags| flags.runtime = Some("r".to_owned())).unwrap().runtime, Runtime::Image(_)));
    let error = on(false, &host).unwrap_err();
    assert!(matches!(&error, ReleaseError::Embedded { parameter, .. } if parameter == "--buildimage"), "{error}");
    assert!(error.hints()[0].contains("--builder embedded"));
    let error = on(true, &|flags| flags.platform = Some("linux/s390x".to_owned())).unwrap_err();
    assert!(error.to_string().contains("not for linux/s390x"), "{error}");
    assert!(on(true, &|flags| flags.tzdata = true).unwrap().tzdata);
    assert!(on(false, &|flags| flags.tzdata = true).is_err());
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
