//! The document of a release that has not run.
//!
//! Invariant: no digest is written that a solve would not have.

use std::collections::{BTreeMap, BTreeSet};

use roche_engine::op::{FileActionKind, FileInput, MountKind, Network, OpKind, Owner, User};
use roche_engine::{Definition, Digest, op};
use roche_frontend::plan::{EntryKind, Plan};
use roche_frontend::project::{Project, SourceFile as ProjectFile};
use roche_frontend::release::Release;

use super::{Action, Base, Blob, Document, Edge, Entry, Image, Mount, Op, SourceFile, Stage, Unresolved, VERSION, Vertex};

/// A release that is planned.
pub(crate) struct Subject<'a> {
    /// What is released.
    pub(crate) project: &'a Project,
    /// How.
    pub(crate) release: &'a Release,
    /// The graph, and what is told of it.
    pub(crate) plan: &'a Plan,
    /// What a release would submit.
    pub(crate) definition: Definition,
    /// Base images without a digest or config.
    pub(crate) unresolved: Vec<Unresolved>,
    /// Vertices whose digests are not known, because a base image's is not.
    pub(crate) unknown: BTreeSet<Digest>,
}

/// The ids of vertices.
type Ids = BTreeMap<Digest, usize>;

impl Subject<'_> {
    /// Writes down what is known.
    pub(crate) fn document(&self) -> Document {
        let Self { project, release, plan, definition, .. } = self;
        let ids: Ids = definition.vertices().enumerate().map(|(id, vertex)| (vertex.digest, id)).collect();
        let known = |digests: &[Digest]| digests.iter().filter_map(|digest| ids.get(digest).copied()).collect();
        Document {
            schema_version: VERSION,
            resolved: self.unresolved.is_empty(),
            unresolved: self.unresolved.clone(),
            image: Image {
                names: release.tags.iter().map(ToString::to_string).collect(),
                platform: release.platform.to_string(),
                config: serde_json::from_slice(&plan.config).unwrap_or_default(),
            },
            function: std::iter::once(&project.function).chain(&project.lib).map(source_file).collect(),
            bases: plan.bases.iter().map(base).collect(),
            stages: plan
                .stages
                .iter()
                .map(|stage| Stage { name: stage.name.to_owned(), vertices: known(&stage.vertices) })
                .collect(),
            vertices: definition.vertices().map(|vertex| self.vertex(vertex, &ids)).collect(),
            target: edge(definition.target(), &ids),
            contents: plan.contents.iter().filter_map(|entry| Some(content(entry, *ids.get(&entry.vertex)?))).collect(),
            notices: plan.notices.clone(),
            definition: self.unresolved.is_empty().then(|| blob(&definition.encode())),
            release: None,
        }
    }

    fn vertex(&self, vertex: &roche_engine::Vertex, ids: &Ids) -> Vertex {
        Vertex {
            id: ids[&vertex.digest],
            digest: (!self.unknown.contains(&vertex.digest)).then(|| vertex.digest.to_string()),
            name: vertex.name(),
            inputs: vertex.op.kind.inputs().into_iter().map(|input| edge(input, ids)).collect(),
            platform: vertex.op.platform.as_ref().map(ToString::to_string),
            op: what(&vertex.op.kind, ids),
            forecast: None,
            outcome: None,
        }
    }
}

/// Writes down a file of the project, without what it says.
pub(crate) fn source_file(file: &ProjectFile) -> SourceFile {
    let Blob { digest, size_bytes } = blob(&file.data);
    let parts: Vec<_> = file.path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    SourceFile { path: parts.join("/"), size_bytes, digest, text: None }
}

fn base(base: &roche_frontend::plan::BaseImage) -> Base {
    let unnamed = base.digest.is_none() && !base.config.is_empty();
    let config_digest = unnamed.then(|| Digest::of(&base.config).to_string());
    Base { reference: base.reference.to_string(), digest: base.digest.map(|digest| digest.to_string()), config_digest }
}

fn content(entry: &roche_frontend::plan::Entry, vertex: usize) -> Entry {
    let kind = match entry.kind {
        EntryKind::File => "file",
        EntryKind::Folder => "folder",
        EntryKind::Symlink => "symlink",
    };
    Entry {
        path: entry.path.clone(),
        kind: kind.to_owned(),
        owner: entry.owner.map(str::to_owned),
        vertex,
        mode: entry.mode.map(octal),
        size_bytes: entry.size_bytes,
        learned_from: None,
    }
}

fn edge(edge: op::Edge, ids: &Ids) -> Edge {
    Edge { vertex: ids[&edge.vertex], output: edge.output }
}

fn blob(bytes: &[u8]) -> Blob {
    Blob { digest: Digest::of(bytes).to_string(), size_bytes: bytes.len() as u64 }
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

fn what(kind: &OpKind, ids: &Ids) -> Op {
    match kind {
        OpKind::Source(source) => Op::Source { identifier: source.identifier.clone(), attrs: source.attrs.clone() },
        OpKind::Exec(exec) => Op::Exec {
            args: exec.args.clone(),
            env: exec.env.clone(),
            cwd: exec.cwd.clone(),
            user: exec.user.clone(),
            network: match exec.network {
                Network::Sandbox => "sandbox",
                Network::Host => "host",
                Network::None => "none",
            }
            .to_owned(),
            mounts: exec.mounts.iter().map(|one| mount(one, ids)).collect(),
        },
        OpKind::File(file) => Op::File { actions: file.actions.iter().map(|one| action(&one.kind, ids)).collect() },
        OpKind::Merge(_) => Op::Merge,
        OpKind::Diff(_) => Op::Diff,
        OpKind::Build(_) => Op::Build,
    }
}

fn mount(mount: &op::Mount, ids: &Ids) -> Mount {
    let (kind, source, output) = match &mount.kind {
        MountKind::Bind { source, output } => ("bind", *source, *output),
        MountKind::Cache { source, .. } => ("cache", *source, None),
        MountKind::Tmpfs { .. } => ("tmpfs", None, None),
        MountKind::Secret { .. } => ("secret", None, None),
        MountKind::Ssh { .. } => ("ssh", None, None),
    };
    Mount {
        target: mount.target.clone(),
        kind: kind.to_owned(),
        source: source.map(|source| edge(source, ids)),
        output,
        readonly: mount.readonly,
    }
}

fn action(kind: &FileActionKind, ids: &Ids) -> Action {
    let owner = |owner: &Option<Owner>| owner.as_ref().map(shown);
    match kind {
        FileActionKind::Copy(copy) => Action::Copy {
            from: match copy.from {
                FileInput::Edge(from) => Some(edge(from, ids)),
                FileInput::Scratch | FileInput::Action(_) => None,
            },
            source: copy.source.clone(),
            path: copy.dest.clone(),
            mode: copy.mode.map(octal),
            owner: owner(&copy.owner),
        },
        FileActionKind::Mkdir(made) => {
            Action::Mkdir { path: made.path.clone(), mode: octal(made.mode), owner: owner(&made.owner) }
        }
        FileActionKind::Mkfile(made) => Action::Mkfile {
            path: made.path.clone(),
            mode: octal(made.mode),
            owner: owner(&made.owner),
            content: blob(&made.data),
        },
        FileActionKind::Rm(removed) => Action::Rm { path: removed.path.clone() },
        FileActionKind::Symlink(link) => {
            Action::Symlink { path: link.new_path.clone(), target: link.old_path.clone(), owner: owner(&link.owner) }
        }
    }
}

/// Writes an owner as `user:group`.
pub(crate) fn shown(owner: &Owner) -> String {
    let one = |user: &Option<User>| match user {
        None => "0".to_owned(),
        Some(User::Id(id)) => id.to_string(),
        Some(User::Name { name, .. }) => name.clone(),
    };
    format!("{}:{}", one(&owner.user), one(&owner.group))
}
