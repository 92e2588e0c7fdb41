//! Ops and definitions to bytes.

use bollard_buildkit_proto::pb;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::graph::{Definition, Vertex};
use crate::op::{
    Build, CacheSharing, ContentCache, Diff, Edge, Exec, File, FileActionKind, FileInput, Merge, Metadata, Mount, MountKind,
    Network, Op, OpKind, Owner, Platform, ProgressGroup, Security, Source, User,
};

const NO_INPUT: i64 = -1;
const NO_OUTPUT: i64 = -1;
const KEEP: i64 = -1;
/// `sha256:` and 64 hex digits.
const DIGEST_LEN: usize = 71;

/// Encodes an op as `pb.Op`, given its [`OpKind::inputs`].
///
/// Go's encoder writes the oneof after the fields 1, 10 and 11, prost by field number: the two
/// parts are encoded apart.
pub(crate) fn encode_op(op: &Op, inputs: &[Edge]) -> Vec<u8> {
    let head = pb::Op {
        inputs: Vec::new(),
        platform: op.platform.as_ref().map(platform),
        // Go's client always sends the message, empty or not.
        constraints: Some(pb::WorkerConstraints { filter: op.constraints.clone() }),
        op: None,
    };
    let kind = match &op.kind {
        OpKind::Exec(exec) => Kind::Message(pb::op::Op::Exec(exec_op(exec, inputs))),
        OpKind::File(file) => Kind::Message(pb::op::Op::File(file_op(file, inputs))),
        OpKind::Merge(merge) => Kind::Message(pb::op::Op::Merge(merge_op(merge))),
        OpKind::Diff(diff) => Kind::Message(pb::op::Op::Diff(diff_op(diff))),
        OpKind::Source(source) => Kind::Written(3, source_op(source)),
        OpKind::Build(build) => Kind::Written(5, build_op(build)),
    };
    let len = match &kind {
        Kind::Message(message) => message.encoded_len(),
        Kind::Written(tag, bytes) => field_len(*tag, bytes.len()),
    };
    // Graphs keep the bytes: one allocation of the right size.
    let mut bytes = Vec::with_capacity(inputs.iter().map(input_len).sum::<usize>() + head.encoded_len() + len);
    for edge in inputs {
        put_input(&mut bytes, edge);
    }
    head.encode_raw(&mut bytes);
    match kind {
        Kind::Message(message) => message.encode(&mut bytes),
        Kind::Written(tag, written) => put_bytes(&mut bytes, tag, &written),
    }
    bytes
}

/// The oneof of an op: prost's, or a field written by hand.
#[expect(clippy::large_enum_variant, reason = "it lives for a few lines, on the stack")]
enum Kind {
    Message(pb::op::Op),
    Written(u32, Vec<u8>),
}

/// Writes a `pb.Input` of an op.
fn put_input(into: &mut Vec<u8>, edge: &Edge) {
    encode_key(1, WireType::LengthDelimited, into);
    encode_varint(input_body_len(edge) as u64, into);
    put_bytes(into, 1, &edge.vertex.text());
    if edge.output != 0 {
        encode_key(2, WireType::Varint, into);
        encode_varint(edge.output.into(), into);
    }
}

fn input_len(edge: &Edge) -> usize {
    field_len(1, input_body_len(edge))
}

fn input_body_len(edge: &Edge) -> usize {
    let output = if edge.output == 0 { 0 } else { key_len(2) + encoded_len_varint(edge.output.into()) };
    field_len(1, DIGEST_LEN) + output
}

fn platform(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

fn index_of(edge: Edge, inputs: &[Edge]) -> i64 {
    inputs.iter().position(|&other| other == edge).map_or(NO_INPUT, |i| i as i64)
}

/// `pb.SourceOp`; by hand because of its map (see [`put_entry`]).
fn source_op(source: &Source) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_bytes(&mut bytes, 1, source.identifier.as_bytes());
    for (key, value) in &source.attrs {
        put_entry(&mut bytes, 2, key, value.as_bytes());
    }
    bytes
}

fn exec_op(exec: &Exec, inputs: &[Edge]) -> pb::ExecOp {
    pb::ExecOp {
        meta: Some(pb::Meta {
            args: exec.args.clone(),
            env: exec.env.clone(),
            cwd: exec.cwd.clone(),
            user: exec.user.clone(),
            proxy_env: exec.proxy_env.as_ref().map(|proxy| pb::ProxyEnv {
                http_proxy: proxy.http.clone(),
                https_proxy: proxy.https.clone(),
                ftp_proxy: proxy.ftp.clone(),
                no_proxy: proxy.no.clone(),
                all_proxy: proxy.all.clone(),
            }),
            extra_hosts: exec.extra_hosts.iter().map(|(host, ip)| pb::HostIp { host: host.clone(), ip: ip.clone() }).collect(),
            hostname: exec.hostname.clone(),
            ulimit: exec
                .ulimits
                .iter()
                .map(|limit| pb::Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
                .collect(),
            cgroup_parent: exec.cgroup_parent.clone(),
            remove_mount_stubs_recursive: exec.remove_mount_stubs_recursive,
            valid_exit_codes: exec.valid_exit_codes.clone(),
        }),
        mounts: exec.mounts.iter().map(|m| mount(m, inputs)).collect(),
        network: match exec.network {
            Network::Sandbox => pb::NetMode::Unset,
            Network::Host => pb::NetMode::Host,
            Network::None => pb::NetMode::None,
        }
        .into(),
        security: match exec.security {
            Security::Sandbox => pb::SecurityMode::Sandbox,
            Security::Insecure => pb::SecurityMode::Insecure,
        }
        .into(),
        secretenv: exec
            .secret_env
            .iter()
            .map(|secret| pb::SecretEnv { id: secret.id.clone(), name: secret.name.clone(), optional: secret.optional })
            .collect(),
        cdi_devices: exec
            .devices
            .iter()
            .map(|(name, optional)| pb::CdiDevice { name: name.clone(), optional: *optional })
            .collect(),
    }
}

fn mount(mount: &Mount, inputs: &[Edge]) -> pb::Mount {
    let mut encoded = pb::Mount {
        input: NO_INPUT,
        selector: mount.selector.clone(),
        dest: mount.target.clone(),
        output: NO_OUTPUT,
        readonly: mount.readonly,
        content_cache: match mount.content_cache {
            ContentCache::Default => pb::MountContentCache::Default,
            ContentCache::On => pb::MountContentCache::On,
            ContentCache::Off => pb::MountContentCache::Off,
        }
        .into(),
        ..Default::default()
    };
    let source = |source: &Option<Edge>| source.map_or(NO_INPUT, |edge| index_of(edge, inputs));
    match &mount.kind {
        MountKind::Bind { source: from, output } => {
            encoded.input = source(from);
            encoded.output = output.map_or(NO_OUTPUT, i64::from);
        }
        MountKind::Cache { source: from, id, sharing } => {
            encoded.input = source(from);
            encoded.mount_type = pb::MountType::Cache.into();
            let sharing = match sharing {
                CacheSharing::Shared => pb::CacheSharingOpt::Shared,
                CacheSharing::Private => pb::CacheSharingOpt::Private,
                CacheSharing::Locked => pb::CacheSharingOpt::Locked,
            };
            encoded.cache_opt = Some(pb::CacheOpt { id: id.clone(), sharing: sharing.into() });
        }
        MountKind::Tmpfs { size_bytes } => {
            encoded.mount_type = pb::MountType::Tmpfs.into();
            encoded.tmpfs_opt = Some(pb::TmpfsOpt { size: *size_bytes });
        }
        // Go leaves the output of these two at 0.
        MountKind::Secret { id, uid, gid, mode, optional } => {
            encoded.output = 0;
            encoded.mount_type = pb::MountType::Secret.into();
            encoded.secret_opt = Some(pb::SecretOpt { id: id.clone(), uid: *uid, gid: *gid, mode: *mode, optional: *optional });
        }
        MountKind::Ssh { id, uid, gid, mode, optional } => {
            encoded.output = 0;
            encoded.mount_type = pb::MountType::Ssh.into();
            encoded.ssh_opt = Some(pb::SshOpt { id: id.clone(), uid: *uid, gid: *gid, mode: *mode, optional: *optional });
        }
    }
    encoded
}

fn file_op(file: &File, inputs: &[Edge]) -> pb::FileOp {
    use pb::file_action::Action;
    let index = |from: FileInput| match from {
        FileInput::Scratch => NO_INPUT,
        FileInput::Edge(edge) => index_of(edge, inputs),
        FileInput::Action(i) => (inputs.len() + i) as i64,
    };
    let user = |user: &User| pb::UserOpt {
        user: Some(match user {
            User::Id(id) => pb::user_opt::User::ById(*id),
            User::Name { name, passwd } => {
                pb::user_opt::User::ByName(pb::NamedUserOpt { name: name.clone(), input: index(*passwd) })
            }
        }),
    };
    let owner = |owner: &Option<Owner>| {
        owner.as_ref().map(|owner| pb::ChownOpt { user: owner.user.as_ref().map(user), group: owner.group.as_ref().map(user) })
    };
    let actions = file.actions.iter().map(|action| {
        let mut secondary_input = NO_INPUT;
        let encoded = match &action.kind {
            FileActionKind::Copy(copy) => {
                secondary_input = index(copy.from);
                Action::Copy(pb::FileActionCopy {
                    src: copy.source.clone(),
                    dest: copy.dest.clone(),
                    owner: owner(&copy.owner),
                    mode: match copy.mode {
                        Some(mode) => mode as i32,
                        None if copy.mode_text.is_empty() => -1,
                        None => 0,
                    },
                    follow_symlink: copy.follow_symlink,
                    dir_copy_contents: copy.contents_only,
                    attempt_unpack_docker_compatibility: copy.unpack,
                    create_dest_path: copy.make_parents,
                    allow_wildcard: copy.wildcard,
                    allow_empty_wildcard: copy.allow_empty_wildcard,
                    timestamp: copy.timestamp_ns.unwrap_or(KEEP),
                    include_patterns: copy.include.clone(),
                    exclude_patterns: copy.exclude.clone(),
                    always_replace_existing_dest_paths: copy.always_replace,
                    mode_str: copy.mode_text.clone(),
                    required_paths: copy.required.clone(),
                })
            }
            FileActionKind::Mkdir(mkdir) => Action::Mkdir(pb::FileActionMkDir {
                path: mkdir.path.clone(),
                mode: mkdir.mode as i32,
                make_parents: mkdir.make_parents,
                owner: owner(&mkdir.owner),
                timestamp: mkdir.timestamp_ns.unwrap_or(KEEP),
            }),
            FileActionKind::Mkfile(mkfile) => Action::Mkfile(pb::FileActionMkFile {
                path: mkfile.path.clone(),
                mode: mkfile.mode as i32,
                data: mkfile.data.clone(),
                owner: owner(&mkfile.owner),
                timestamp: mkfile.timestamp_ns.unwrap_or(KEEP),
            }),
            FileActionKind::Rm(rm) => Action::Rm(pb::FileActionRm {
                path: rm.path.clone(),
                allow_not_found: rm.allow_not_found,
                allow_wildcard: rm.wildcard,
            }),
            FileActionKind::Symlink(link) => Action::Symlink(pb::FileActionSymlink {
                oldpath: link.old_path.clone(),
                newpath: link.new_path.clone(),
                owner: owner(&link.owner),
                timestamp: link.timestamp_ns.unwrap_or(KEEP),
            }),
        };
        pb::FileAction {
            input: index(action.input),
            secondary_input,
            output: action.output.map_or(NO_OUTPUT, i64::from),
            action: Some(encoded),
        }
    });
    pb::FileOp { actions: actions.collect() }
}

fn merge_op(merge: &Merge) -> pb::MergeOp {
    // Repeats are inputs of their own: Go's client does not fold them here.
    pb::MergeOp { inputs: (0..merge.inputs.len()).map(|i| pb::MergeInput { input: i as i64 }).collect() }
}

fn diff_op(diff: &Diff) -> pb::DiffOp {
    let upper = i64::from(diff.lower.is_some());
    pb::DiffOp {
        lower: Some(pb::LowerDiffInput { input: if diff.lower.is_some() { 0 } else { NO_INPUT } }),
        upper: Some(pb::UpperDiffInput { input: if diff.upper.is_some() { upper } else { NO_INPUT } }),
    }
}

/// `pb.BuildOp`; by hand because of its maps (see [`put_entry`]).
fn build_op(build: &Build) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(1, WireType::Varint, &mut bytes);
    encode_varint(-1_i64 as u64, &mut bytes);
    put_entry(&mut bytes, 2, "buildkit.llb.definition", &[]);
    for (key, value) in &build.attrs {
        put_entry(&mut bytes, 4, key, value.as_bytes());
    }
    bytes
}

/// Encodes a definition as `pb.Definition`: the ops, the metadata sorted by digest, and an empty
/// source location for every vertex, as Go's client sends them.
pub(crate) fn encode_definition(definition: &Definition) -> Vec<u8> {
    let mut terminal = Vec::new();
    put_input(&mut terminal, &definition.target());
    let ops: usize = definition.vertices().map(|vertex| vertex.encoded.len() + 5).sum();
    let mut bytes = Vec::with_capacity(ops + terminal.len() + 320 * definition.vertices().len());
    for vertex in definition.vertices() {
        put_bytes(&mut bytes, 1, &vertex.encoded);
    }
    put_bytes(&mut bytes, 1, &terminal);

    let terminal_digest = crate::Digest::of(&terminal);
    let mut by_digest: Vec<(crate::Digest, Option<&Vertex>)> =
        definition.vertices().map(|vertex| (vertex.digest, Some(vertex))).collect();
    by_digest.push((terminal_digest, None));
    by_digest.sort_unstable_by_key(|(digest, _)| *digest);
    let mut metadata = Vec::new();
    let mut source = Vec::with_capacity(80 * by_digest.len());
    for (digest, vertex) in &by_digest {
        let key = digest.text();
        metadata.clear();
        match vertex {
            Some(vertex) => {
                put_metadata(&mut metadata, vertex);
                put_entry(&mut source, 1, key, &[]);
            }
            None => put_terminal_metadata(&mut metadata, definition),
        }
        put_entry(&mut bytes, 2, key, &metadata);
    }
    put_bytes(&mut bytes, 3, &source);
    bytes
}

/// Writes the `pb.OpMetadata` of a vertex; by hand because of its maps (see [`put_entry`]).
fn put_metadata(bytes: &mut Vec<u8>, vertex: &Vertex) {
    let Metadata { ignore_cache, description, export_cache, caps: extra, progress_group } = &vertex.metadata;
    if *ignore_cache {
        bytes.extend([0x08, 1]);
    }
    for (key, value) in description {
        put_entry(bytes, 2, key, value.as_bytes());
    }
    if let Some(value) = *export_cache {
        put_bytes(bytes, 4, &pb::ExportCache { value }.encode_to_vec());
    }
    let mut caps = vertex.op.kind.caps();
    // Go's client leaves the others out of the metadata; they are asked of the solver beforehand.
    caps.retain(|cap| !cap.starts_with("file.") || *cap == "file.base");
    caps.extend(extra.iter().map(|cap| &**cap));
    put_caps(bytes, caps);
    if let Some(ProgressGroup { id, name, weak }) = progress_group {
        let group = pb::ProgressGroup { id: id.clone(), name: name.clone(), weak: *weak };
        put_bytes(bytes, 6, &group.encode_to_vec());
    }
}

fn put_terminal_metadata(bytes: &mut Vec<u8>, definition: &Definition) {
    let any = |wanted: fn(&Metadata) -> bool| definition.vertices().any(|vertex| wanted(&vertex.metadata));
    let mut caps = vec!["constraints", "platform"];
    caps.extend(any(|metadata| metadata.ignore_cache).then_some("meta.ignorecache"));
    caps.extend(any(|metadata| !metadata.description.is_empty()).then_some("meta.description"));
    caps.extend(any(|metadata| metadata.export_cache.is_some()).then_some("meta.exportcache"));
    put_caps(bytes, caps);
}

/// Writes the map of `pb.OpMetadata.caps`, whose values are all true.
fn put_caps(into: &mut Vec<u8>, mut caps: Vec<&str>) {
    caps.sort_unstable();
    caps.dedup();
    for cap in caps {
        encode_key(5, WireType::LengthDelimited, into);
        encode_varint((field_len(1, cap.len()) + 2) as u64, into);
        put_bytes(into, 1, cap.as_bytes());
        into.extend([0x10, 1]);
    }
}

/// The length of a field of `len` bytes with its key.
fn field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

fn put_bytes(into: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, into);
    encode_varint(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

/// Writes a map entry with its value, whatever the value.
///
/// Prost leaves out values that are empty strings or default messages. That is legal protobuf,
/// but other bytes than Go's, and where the value is a message BuildKit's decoder then stores
/// nil: a failing vertex crashes the daemon.
fn put_entry(into: &mut Vec<u8>, tag: u32, key: impl AsRef<[u8]>, value: &[u8]) {
    let key = key.as_ref();
    encode_key(tag, WireType::LengthDelimited, into);
    encode_varint((field_len(1, key.len()) + field_len(2, value.len())) as u64, into);
    put_bytes(into, 1, key);
    put_bytes(into, 2, value);
}
