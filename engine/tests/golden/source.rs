//! Sources: images, local folders, git remotes, files by address, OCI layouts.

use roche_engine::op::{Edge, Op, Platform, Source};

use crate::{Sketch, amd64, cases, needs, strings};

const CHECKSUM: &str = "sha256:c75ac27b49326926b803b9ed43bf088bc220d22556de1bc5f72d742c91398f69";
const ALPINE: &str = "docker.io/library/alpine:3.12";

cases![
    image_plain,
    image_digest,
    image_digest_untagged,
    image_registry_port,
    image_platform,
    image_platform_full,
    image_resolve_local,
    image_resolve_pull,
    image_worker_constraint,
    image_all_attributes,
    image_blob,
    oci_layout,
    oci_layout_store,
    local_plain,
    local_plain_stripped,
    local_unique,
    local_session,
    local_all_attributes,
    local_all_attributes_stripped,
    local_differ_optional,
    local_metadata_only,
    git_plain,
    git_ref_subdir,
    git_no_auth,
    git_ssh,
    git_all_attributes,
    http_plain,
    http_all_attributes,
];

fn image_plain(graph: &mut Sketch) -> Edge {
    graph.add(amd64(Source::image("docker.io/library/busybox:latest"))).into()
}

fn image_digest(graph: &mut Sketch) -> Edge {
    graph.add(amd64(Source::image(&format!("{ALPINE}@{CHECKSUM}")))).into()
}

fn image_digest_untagged(graph: &mut Sketch) -> Edge {
    graph.add(amd64(Source::image(&format!("docker.io/library/alpine@{CHECKSUM}")))).into()
}

fn image_registry_port(graph: &mut Sketch) -> Edge {
    graph.add(amd64(Source::image("127.0.0.1:5000/team/app:1"))).into()
}

fn image_platform(graph: &mut Sketch) -> Edge {
    graph.add(Op::on(Platform::new("linux", "arm64"), Source::image(ALPINE))).into()
}

fn image_platform_full(graph: &mut Sketch) -> Edge {
    let platform = Platform {
        variant: "v7".to_owned(),
        os_version: "10.0.17763".to_owned(),
        os_features: strings(&["win32k", "other"]),
        ..Platform::new("windows", "arm")
    };
    graph.add(Op::on(platform, Source::image(ALPINE))).into()
}

fn image_resolve_local(graph: &mut Sketch) -> Edge {
    graph.add(amd64(Source::image(ALPINE).attr("image.resolvemode", "local"))).into()
}

fn image_resolve_pull(graph: &mut Sketch) -> Edge {
    graph.add(amd64(Source::image(ALPINE).attr("image.resolvemode", "pull"))).into()
}

fn image_worker_constraint(graph: &mut Sketch) -> Edge {
    let constraints = strings(&["label.zone==a", "label.arch==x"]);
    graph.add(Op { constraints, ..amd64(Source::image(ALPINE)) }).into()
}

fn image_all_attributes(graph: &mut Sketch) -> Edge {
    let image = Source::image(ALPINE)
        .attr("image.resolvemode", "local")
        .attr("image.recordtype", "internal")
        .attr("image.layerlimit", "2")
        .attr("image.checksum", CHECKSUM);
    graph.add(amd64(image)).into()
}

fn image_blob(graph: &mut Sketch) -> Edge {
    let identifier = format!("docker-image+blob://docker.io/library/alpine@{CHECKSUM}");
    let blob = Source { identifier, attrs: Default::default() }
        .attr("http.filename", "layer.tar")
        .attr("http.perm", "0640")
        .attr("http.uid", "1000")
        .attr("http.gid", "1001");
    graph.add(blob).into()
}

fn oci_layout(graph: &mut Sketch) -> Edge {
    graph.add(amd64(Source::oci_layout(&format!("app@{CHECKSUM}")))).into()
}

fn oci_layout_store(graph: &mut Sketch) -> Edge {
    let layout = Source::oci_layout(&format!("app@{CHECKSUM}"))
        .attr("oci.session", "golden-session")
        .attr("oci.store", "store")
        .attr("oci.layerlimit", "1");
    graph.add(amd64(layout)).into()
}

fn local_plain(graph: &mut Sketch) -> Edge {
    graph.add(Source::local("context").attr("local.unique", "golden-unique")).into()
}

fn local_plain_stripped(graph: &mut Sketch) -> Edge {
    graph.add(Source::local("context")).into()
}

fn local_unique(graph: &mut Sketch) -> Edge {
    graph.add(Source::local("context").attr("local.unique", "own-unique")).into()
}

fn local_session(graph: &mut Sketch) -> Edge {
    graph.add(Source::local("context").attr("local.session", "golden-session")).into()
}

fn local_all_attributes(graph: &mut Sketch) -> Edge {
    graph.with(every_attribute().attr("local.unique", "golden-unique"), needs("source.local.differ")).into()
}

fn local_all_attributes_stripped(graph: &mut Sketch) -> Edge {
    graph.with(every_attribute(), needs("source.local.differ")).into()
}

fn every_attribute() -> Source {
    Source::local("context")
        .list("local.includepattern", &["src", "Cargo.*", "a<b>&\"quoted\"", "größe"])
        .list("local.excludepatterns", &[".env", "**/*.pem", "!keep.pem"])
        .list("local.followpaths", &["src/functions.rs"])
        .attr("local.sharedkeyhint", "context")
        .attr("local.differ", "none")
}

fn local_differ_optional(graph: &mut Sketch) -> Edge {
    let local = Source::local("context")
        .attr("local.sharedkeyhint", "context")
        .attr("local.differ", "metadata")
        .attr("local.unique", "golden-unique");
    graph.add(local).into()
}

fn local_metadata_only(graph: &mut Sketch) -> Edge {
    let local = Source::local("context")
        .attr("local.session", "golden-session")
        .attr("local.metadatatransfer", "true")
        .list("local.metadatatransferexclude", &["src/functions.rs", "go.mod"]);
    graph.add(local).into()
}

/// A git remote with the secrets that the Go client asks for unless told otherwise.
fn git(remote: &str, full_url: &str) -> Source {
    Source::git(remote, full_url).attr("git.authtokensecret", "GIT_AUTH_TOKEN").attr("git.authheadersecret", "GIT_AUTH_HEADER")
}

fn git_plain(graph: &mut Sketch) -> Edge {
    graph.add(git("github.com/moby/buildkit.git", "https://github.com/moby/buildkit.git")).into()
}

fn git_ref_subdir(graph: &mut Sketch) -> Edge {
    let remote = "github.com/moby/buildkit.git#v0.11.6:client/llb";
    graph.add(git(remote, "https://github.com/moby/buildkit.git").attr("git.keepgitdir", "true")).into()
}

fn git_no_auth(graph: &mut Sketch) -> Edge {
    graph.add(Source::git("example.com/a/b.git#main", "https://example.com/a/b.git")).into()
}

fn git_ssh(graph: &mut Sketch) -> Edge {
    let remote = git("github.com/moby/buildkit.git#master", "git@github.com:moby/buildkit.git")
        .attr("git.knownsshhosts", "github.com ssh-ed25519 AAAA\n")
        .attr("git.mountsshsock", "deploy");
    graph.add(remote).into()
}

fn git_all_attributes(graph: &mut Sketch) -> Edge {
    let remote = Source::git("github.com/moby/buildkit#refs/heads/master:docs", "https://github.com/moby/buildkit")
        .attr("git.keepgitdir", "true")
        .attr("git.checksum", "73ed6825c4b7569379ef89df0aedcdbe64473d31")
        .attr("git.skipsubmodules", "true")
        .attr("git.mtime", "commit")
        .attr("git.authtokensecret", "TOKEN")
        .attr("git.authheadersecret", "HEADER");
    graph.add(remote).into()
}

fn http_plain(graph: &mut Sketch) -> Edge {
    graph.add(Source::http("https://example.com/file.txt")).into()
}

fn http_all_attributes(graph: &mut Sketch) -> Edge {
    let file = Source::http("http://127.0.0.1:8000/a/file.tar?x=1")
        .attr("http.filename", "file.tar")
        .attr("http.perm", "0755")
        .attr("http.uid", "1000")
        .attr("http.gid", "1001")
        .attr("http.checksum", CHECKSUM)
        .attr("http.authheadersecret", "HEADER")
        .attr("http.header.accept", "text/plain")
        .attr("http.header.user-agent", "agent/1");
    graph.add(file).into()
}
