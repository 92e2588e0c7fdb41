//! Images and caches in a registry.
//!
//! Red when: what is pushed is not what stdout names; a cache is exported without the steps'
//! results, or is not asked for where results are looked up, so that a second machine compiles.

use crate::harness::{Daemon, Project, Roche, Tag, Trace, on_docker26, on_every_daemon, registry, request, unique};

const MANIFESTS: &str = "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json";

on_every_daemon!(what_is_pushed_is_what_stdout_names);
fn what_is_pushed_is_what_stdout_names(daemon: &Daemon) {
    let (text, tag) = (unique(), daemon.tag());
    let project = Project::hello(&text);
    let ended = Roche::release(daemon, project.root()).tag(&tag).arg("--push").run().succeeds();
    assert_eq!(ended.reference_and_digest(), (tag.name.clone(), pushed_digest(&tag).expect("nothing was pushed")));

    daemon.run(["pull", "-q", &format!("{}@{}", tag.name.trim_end_matches(":1"), ended.digest())]);
    daemon.run(["pull", "-q", &tag.name]);
    assert_eq!(daemon.serve(&tag.name, &[]).get("/").body, text);
}

on_every_daemon!(nothing_is_pushed_unasked);
fn nothing_is_pushed_unasked(daemon: &Daemon) {
    let (project, tag) = (Project::hello("hello"), daemon.tag());
    Roche::release(daemon, project.root()).tag(&tag).run().succeeds();
    assert_eq!(pushed_digest(&tag), None);
}

on_docker26!(a_second_daemon_takes_every_vertex_from_the_registrys_cache);
fn a_second_daemon_takes_every_vertex_from_the_registrys_cache(first: &Daemon) {
    let (text, cache) = (unique(), format!("{}/t/{}-cache:1", registry(), unique()));
    let project = Project::hello(&text);
    let tag = first.tag();
    let line = ["--push", "--cache-to", &format!("type=registry,ref={cache},mode=max")].map(String::from);
    let compiled = Roche::release(first, project.root()).tag(&tag).args(line).run().succeeds();

    let second = Daemon::empty("second", &[]);
    let tag = second.daemon.tag();
    let line = ["--cache-from", &format!("type=registry,ref={cache}"), "--progress", "rawjson"].map(String::from);
    let imported = Roche::release(&second.daemon, project.root()).tag(&tag).args(line).run().succeeds();

    assert_eq!(Trace::of(&imported.stderr).done(), [""; 0], "not cached\n{}", imported.story());
    assert_eq!(imported.digest(), compiled.digest());
    assert_eq!(second.daemon.serve(&tag.name, &[]).get("/").body, text);
}

/// The digest of the manifest that the registry has under a tag.
fn pushed_digest(tag: &Tag) -> Option<String> {
    let (repository, version) = tag.name.strip_prefix(&registry())?.rsplit_once(':')?;
    let path = format!("/v2{repository}/manifests/{version}");
    let response = request("HEAD", &registry(), &path, &[MANIFESTS]).expect("the registry answers");
    (response.status == 200).then(|| response.header("Docker-Content-Digest").expect("a digest header").to_string())
}
