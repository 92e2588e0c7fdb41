//! The stages of a release that is compiled by this machine's own toolchain: no image is needed.
//!
//! Invariants: the toolchain's tree is the root of every step and read-only, and no step has a
//! shell, because the tree has none. Every path that a compiler sees (`/toolchain`, `/app-build`,
//! `/vendor`) is the same wherever the user keeps his files, so programs are equal to the last
//! byte without any path being remapped.
//!
//! The dependencies are compiled with the template's own function in its place, and then all that
//! cargo knows of the service's package is removed, so no time of a file can stand for a program
//! that was not made. Edits do not pay for that: the step comes before the function.

use roche_engine::op::{Copy, Edge, Exec, File, FileActionKind, Metadata, Mount, Network, Op, Owner, Platform, Source, Symlink};
use roche_engine::{Digest, Graph, GraphError};

use super::builder::PROJECT;
use super::runtime::FOLDER;
use super::{TIME_NS, config};
use crate::host::{self, Certificates, Toolchain, Zones};
use crate::project::Project;
use crate::template;
use crate::vendor::{self, Vendored};

/// Where steps see the crates.
const CRATES: &str = "/vendor";

/// Where steps may write what nobody keeps.
pub(crate) const SCRATCH: &str = "/tmp";

/// Where the machine's time zones are, and where programs look for them.
pub(crate) const ZONES: &str = "/usr/share/zoneinfo";

/// The name of the local source with them.
pub const ZONES_LOCAL: &str = "tzdata";

/// Where programs look for certificate authorities.
pub(crate) const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// rocheuser's ids: the lowest system ids, which an image that stands on nothing has free.
const ID: u32 = 100;

/// The files that make an empty image one that programs know their way in.
pub(crate) const SYSTEM: [(&str, &str); 4] = [
    ("/etc/group", "root:x:0:\nrocheuser:x:100:\n"),
    ("/etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    ("/etc/nsswitch.conf", "hosts: files dns\n"),
    ("/etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\nrocheuser:x:100:100::/app:/sbin/nologin\n"),
];

/// What this machine gives to a release.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Its toolchain.
    pub toolchain: &'a Toolchain,
    /// The service's crates, fetched by its cargo.
    pub crates: &'a Vendored,
    /// The certificate authorities that it trusts, where it has any.
    pub certificates: Option<&'a Certificates>,
    /// Its time zones, where they are asked for.
    pub zones: Option<&'a Zones>,
}

/// Adds the vertices up to the compiled service; returns them in order, and where the project
/// with the service is.
pub(crate) fn build(
    graph: &mut Graph,
    platform: &Platform,
    host: &Host<'_>,
    project: &Project,
) -> Result<(Vec<Digest>, Edge), GraphError> {
    let toolchain = toolchain(graph, host)?;
    let crates = local(graph, vendor::FOLDER, host.crates.root, &format!("crates {}", host.crates.root.short()))?;
    let files = service(&host.toolchain.target);
    let service = graph.add(File::chain(None::<Edge>, files), Metadata::named("service template"))?;
    let mut vertices = vec![toolchain, crates, service];
    let mut cargo = |graph: &mut Graph, on: Edge, name: &str, args: &[&str]| {
        let args = [&["cargo"], args, &["--release", "--locked", "--offline", "--target", &host.toolchain.target]].concat();
        let exec = Exec::new(toolchain, PROJECT, &args).readonly_root();
        let exec =
            exec.mount(Mount::bind(PROJECT, Some(on))).mount(Mount::readonly(CRATES, crates)).mount(Mount::tmpfs(SCRATCH, 0));
        let exec = Exec { env: env(host.toolchain), network: Network::None, ..exec }.ordered();
        let output = exec.output(PROJECT).expect("the mount was added above and is writable");
        let vertex = graph.add(Op::on(platform.clone(), exec), Metadata::named(name))?;
        vertices.push(vertex);
        Ok::<_, GraphError>(Edge::new(vertex, output))
    };
    let compiled = cargo(graph, service.into(), "compile dependencies", &["build"])?;
    let ready = cargo(graph, compiled, "forget the template's function", &["clean", "--package", "roche-service"])?;
    let (name, files) = function(project);
    let placed = graph.add(File::chain(Some(ready), files), Metadata::named(name))?;
    let mut built = cargo(graph, placed.into(), "compile roche-service", &["build"])?;
    if project.lib.is_some() {
        built = cargo(graph, built, "test lib.rs", &["test", "--lib"])?;
    }
    // In the order in which they follow from each other, not in which they were added.
    vertices.insert(5, placed);
    Ok((vertices, built))
}

/// Adds the image's files on nothing ([`onto`](super::onto) puts them onto an image); returns the
/// tree that they are laid out in and the image.
pub(crate) fn image(graph: &mut Graph, host: &Host<'_>, built: Edge) -> Result<(Edge, Digest), GraphError> {
    let owner = Some(Owner::ids(ID, ID));
    let service = files(&host.toolchain.target).map(|(from, name, mode)| -> FileActionKind {
        let (owner, mode) = (owner.clone(), Some(mode));
        Copy { owner, mode, timestamp_ns: TIME_NS, ..Copy::new(built, &from, &format!("{FOLDER}/{name}")) }.into()
    });
    let mut files: Vec<FileActionKind> = std::iter::once(super::folder(FOLDER)).chain(service).collect();
    files.push(super::folder("/etc"));
    files.extend(SYSTEM.map(|(path, text)| super::file(path, 0o644, text.as_bytes())));
    if let Some(certificates) = host.certificates {
        files.extend(["/etc/ssl", "/etc/ssl/certs"].map(super::folder));
        files.push(super::file(AUTHORITIES, 0o644, &certificates.data));
    }
    if let Some(zones) = host.zones {
        let zones = local(graph, ZONES_LOCAL, zones.digest, "time zones")?;
        files.extend(["/usr", "/usr/share"].map(super::folder));
        let copy = Copy { owner: Some(Owner::ids(0, 0)), timestamp_ns: TIME_NS, ..Copy::new(zones, "/", ZONES) };
        files.push(Copy { contents_only: true, make_parents: true, ..copy }.into());
    }
    let overlay = graph.add(File::chain(None::<Edge>, files), Metadata::named("lay out what the image gains"))?;
    // Once more as a whole, so that the folders have the time as well.
    let copy = Copy { contents_only: true, timestamp_ns: TIME_NS, ..Copy::new(overlay, "/", "/") };
    let image = graph.add(File::chain(None::<Edge>, [copy.into()]), Metadata::named("image files"))?;
    Ok((overlay.into(), image))
}

/// Returns the files of the service: where each is in its project, its name in the image, its mode.
pub(crate) fn files(target: &str) -> [(String, &'static str, u32); 3] {
    [
        ("/Cargo.toml".to_owned(), "Cargo.toml", 0o644),
        (format!("/target/{target}/release/roche-service"), "roche-service", 0o755),
        ("/run.sh".to_owned(), "run.sh", 0o755),
    ]
}

/// Adds the toolchain, which is one vertex however often it is added.
pub(crate) fn toolchain(graph: &mut Graph, host: &Host<'_>) -> Result<Digest, GraphError> {
    local(graph, host::LOCAL, host.toolchain.tree.digest, &host.toolchain.version)
}

/// Adds a local source that is named by its content.
fn local(graph: &mut Graph, name: &str, content: Digest, shown: &str) -> Result<Digest, GraphError> {
    graph.add(Source::local(name).attr("local.sharedkeyhint", content.hex()), Metadata::named(shown))
}

/// Lays out the service's project with the template's function.
fn service(target: &str) -> Vec<FileActionKind> {
    let mut files = super::template("");
    let config = format!(
        "[source.crates-io]\nreplace-with = \"vendored-sources\"\n\n[source.vendored-sources]\ndirectory = \"{CRATES}\"\n\n\
         [target.{target}]\nrustflags = [\"-C\", \"{}\"]\n",
        host::STATIC
    );
    files.push(super::file("/.cargo/config.toml", 0o644, config.as_bytes()));
    let (link, target) = template::LINK;
    let link = format!("/{link}");
    files.push(Symlink { timestamp_ns: TIME_NS, ..Symlink::new(target, &link) }.into());
    files
}

/// Puts the function's files over the template's.
fn function(project: &Project) -> (&'static str, Vec<FileActionKind>) {
    let function = super::file("/src/app/functions.rs", 0o644, &project.function.data);
    match &project.lib {
        Some(lib) => ("function functions.rs, lib.rs", vec![function, super::file("/src/lib.rs", 0o644, &lib.data)]),
        None => ("function functions.rs", vec![function]),
    }
}

/// Returns the environment of a step.
pub(crate) fn env(toolchain: &Toolchain) -> Vec<String> {
    let mut env = toolchain.env.clone();
    let home = format!("{SCRATCH}/cargo");
    for (name, value) in [
        ("CARGO_HOME", home.as_str()),
        ("CARGO_NET_OFFLINE", "true"),
        ("CARGO_TERM_COLOR", "always"),
        ("CARGO_TERM_PROGRESS_WHEN", "never"),
        ("HOME", SCRATCH),
        ("LC_ALL", "C"),
        ("SOURCE_DATE_EPOCH", "0"),
        ("TMPDIR", SCRATCH),
    ] {
        config::set(&mut env, name, value);
    }
    env
}
