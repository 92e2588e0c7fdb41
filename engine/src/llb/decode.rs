//! Bytes to ops and definitions.

use std::borrow::Cow;
use std::collections::HashMap;

use bollard_buildkit_proto::pb;
use prost::Message as _;

use super::DecodeError;
use crate::Digest;
use crate::graph::{Definition, Graph, Vertex};
use crate::op::{
    Build, CacheSharing, ContentCache, Copy, Diff, Edge, Exec, File, FileAction, FileActionKind, FileInput, Merge, Metadata,
    Mkdir, Mkfile, Mount, MountKind, Network, Op, OpKind, Owner, Platform, ProgressGroup, ProxyEnv, Rm, SecretEnv, Security,
    Source, Symlink, Ulimit, User,
};

/// Decodes `pb.Op` bytes.
pub(crate) fn decode_op(bytes: &[u8]) -> Result<Op, DecodeError> {
    let op = pb::Op::decode(bytes)?;
    let inputs = op
        .inputs
        .iter()
        .map(|input| {
            let output = u32::try_from(input.index).map_err(|_| DecodeError::Index { what: "output", index: input.index })?;
            Ok(Edge { vertex: input.digest.parse()?, output })
        })
        .collect::<Result<Vec<Edge>, DecodeError>>()?;
    let inputs = Inputs(&inputs);
    let kind = match op.op {
        None => return Err(DecodeError::UnknownOp(Digest::of(bytes))),
        Some(pb::op::Op::Source(source)) => Source { identifier: source.identifier, attrs: source.attrs }.into(),
        Some(pb::op::Op::Exec(exec)) => decode_exec(exec, inputs)?.into(),
        Some(pb::op::Op::File(file)) => decode_file(file, inputs)?.into(),
        Some(pb::op::Op::Merge(merge)) => {
            let inputs = merge.inputs.iter().map(|input| inputs.at(input.input)).collect::<Result<_, _>>()?;
            OpKind::from(Merge { inputs })
        }
        Some(pb::op::Op::Diff(diff)) => Diff {
            lower: inputs.optional(diff.lower.map_or(-1, |lower| lower.input))?,
            upper: inputs.optional(diff.upper.map_or(-1, |upper| upper.input))?,
        }
        .into(),
        Some(pb::op::Op::Build(build)) => {
            let input = build.inputs.get("buildkit.llb.definition").map_or(-1, |input| input.input);
            Build { definition: inputs.at(input)?, attrs: build.attrs }.into()
        }
    };
    let platform = op.platform.map(|platform| Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: platform.os_features,
    });
    Ok(Op { kind, platform, constraints: op.constraints.unwrap_or_default().filter })
}

/// An op's inputs, which its parts name by index.
#[derive(Clone, Copy)]
struct Inputs<'a>(&'a [Edge]);

impl Inputs<'_> {
    fn at(self, index: i64) -> Result<Edge, DecodeError> {
        let edge = usize::try_from(index).ok().and_then(|i| self.0.get(i));
        edge.copied().ok_or(DecodeError::Index { what: "input", index })
    }

    fn optional(self, index: i64) -> Result<Option<Edge>, DecodeError> {
        if index == -1 { Ok(None) } else { self.at(index).map(Some) }
    }

    /// An input of the file action `action`: past the op's inputs the results before it.
    fn file(self, index: i64, action: usize) -> Result<FileInput, DecodeError> {
        let past = index.checked_sub_unsigned(self.0.len() as u64).and_then(|i| usize::try_from(i).ok());
        match past {
            Some(result) if result < action => Ok(FileInput::Action(result)),
            Some(_) => Err(DecodeError::Index { what: "action input", index }),
            None => Ok(self.optional(index)?.map_or(FileInput::Scratch, FileInput::Edge)),
        }
    }
}

fn output(index: i64) -> Result<Option<u32>, DecodeError> {
    match index {
        -1 => Ok(None),
        _ => u32::try_from(index).map(Some).map_err(|_| DecodeError::Index { what: "output", index }),
    }
}

fn known<E: TryFrom<i32>>(what: &'static str, value: i32) -> Result<E, DecodeError> {
    E::try_from(value).map_err(|_| DecodeError::Value { what, value: i64::from(value) })
}

fn decode_exec(exec: pb::ExecOp, inputs: Inputs<'_>) -> Result<Exec, DecodeError> {
    let meta = exec.meta.unwrap_or_default();
    Ok(Exec {
        args: meta.args,
        env: meta.env,
        cwd: meta.cwd,
        user: meta.user,
        hostname: meta.hostname,
        cgroup_parent: meta.cgroup_parent,
        proxy_env: meta.proxy_env.map(|proxy| ProxyEnv {
            http: proxy.http_proxy,
            https: proxy.https_proxy,
            ftp: proxy.ftp_proxy,
            no: proxy.no_proxy,
            all: proxy.all_proxy,
        }),
        extra_hosts: meta.extra_hosts.into_iter().map(|host| (host.host, host.ip)).collect(),
        ulimits: meta.ulimit.into_iter().map(|limit| Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard }).collect(),
        valid_exit_codes: meta.valid_exit_codes,
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        network: match known("network mode", exec.network)? {
            pb::NetMode::Unset => Network::Sandbox,
            pb::NetMode::Host => Network::Host,
            pb::NetMode::None => Network::None,
        },
        security: match known("security mode", exec.security)? {
            pb::SecurityMode::Sandbox => Security::Sandbox,
            pb::SecurityMode::Insecure => Security::Insecure,
        },
        secret_env: exec
            .secretenv
            .into_iter()
            .map(|secret| SecretEnv { id: secret.id, name: secret.name, optional: secret.optional })
            .collect(),
        devices: exec.cdi_devices.into_iter().map(|device| (device.name, device.optional)).collect(),
        mounts: exec.mounts.into_iter().map(|mount| decode_mount(mount, inputs)).collect::<Result<_, _>>()?,
    })
}

fn decode_mount(mount: pb::Mount, inputs: Inputs<'_>) -> Result<Mount, DecodeError> {
    let source = inputs.optional(mount.input);
    let kind = match known("mount type", mount.mount_type)? {
        pb::MountType::Bind => MountKind::Bind { source: source?, output: output(mount.output)? },
        pb::MountType::Cache => {
            let cache = mount.cache_opt.unwrap_or_default();
            let sharing = match known("cache sharing mode", cache.sharing)? {
                pb::CacheSharingOpt::Shared => CacheSharing::Shared,
                pb::CacheSharingOpt::Private => CacheSharing::Private,
                pb::CacheSharingOpt::Locked => CacheSharing::Locked,
            };
            MountKind::Cache { source: source?, id: cache.id, sharing }
        }
        pb::MountType::Tmpfs => MountKind::Tmpfs { size_bytes: mount.tmpfs_opt.unwrap_or_default().size },
        pb::MountType::Secret => {
            let pb::SecretOpt { id, uid, gid, mode, optional } = mount.secret_opt.unwrap_or_default();
            MountKind::Secret { id, uid, gid, mode, optional }
        }
        pb::MountType::Ssh => {
            let pb::SshOpt { id, uid, gid, mode, optional } = mount.ssh_opt.unwrap_or_default();
            MountKind::Ssh { id, uid, gid, mode, optional }
        }
    };
    let content_cache = match known("content cache mode", mount.content_cache)? {
        pb::MountContentCache::Default => ContentCache::Default,
        pb::MountContentCache::On => ContentCache::On,
        pb::MountContentCache::Off => ContentCache::Off,
    };
    Ok(Mount { target: mount.dest, kind, readonly: mount.readonly, selector: mount.selector, content_cache })
}

fn decode_file(file: pb::FileOp, inputs: Inputs<'_>) -> Result<File, DecodeError> {
    let actions = file.actions.into_iter().enumerate();
    let actions = actions.map(|(i, action)| decode_action(i, action, inputs)).collect::<Result<_, _>>()?;
    Ok(File { actions })
}

fn decode_action(position: usize, action: pb::FileAction, inputs: Inputs<'_>) -> Result<FileAction, DecodeError> {
    use pb::file_action::Action;
    let user = |user: pb::UserOpt| -> Result<Option<User>, DecodeError> {
        Ok(match user.user {
            None => None,
            Some(pb::user_opt::User::ById(id)) => Some(User::Id(id)),
            Some(pb::user_opt::User::ByName(named)) => {
                Some(User::Name { name: named.name, passwd: inputs.file(named.input, position)? })
            }
        })
    };
    let owner = |owner: Option<pb::ChownOpt>| -> Result<Option<Owner>, DecodeError> {
        let Some(owner) = owner else { return Ok(None) };
        Ok(Some(Owner { user: owner.user.map_or(Ok(None), user)?, group: owner.group.map_or(Ok(None), user)? }))
    };
    let timestamp = |ns: i64| (ns != -1).then_some(ns);
    let bits = |mode: i32| mode as u32;
    let kind = match action.action {
        None => return Err(DecodeError::Value { what: "file action", value: 0 }),
        Some(Action::Copy(copy)) => Copy {
            from: inputs.file(action.secondary_input, position)?,
            source: copy.src,
            dest: copy.dest,
            owner: owner(copy.owner)?,
            mode: (copy.mode != -1 && copy.mode_str.is_empty()).then_some(bits(copy.mode)),
            mode_text: copy.mode_str,
            follow_symlink: copy.follow_symlink,
            contents_only: copy.dir_copy_contents,
            unpack: copy.attempt_unpack_docker_compatibility,
            make_parents: copy.create_dest_path,
            wildcard: copy.allow_wildcard,
            allow_empty_wildcard: copy.allow_empty_wildcard,
            timestamp_ns: timestamp(copy.timestamp),
            include: copy.include_patterns,
            exclude: copy.exclude_patterns,
            required: copy.required_paths,
            always_replace: copy.always_replace_existing_dest_paths,
        }
        .into(),
        Some(Action::Mkdir(mkdir)) => Mkdir {
            path: mkdir.path,
            mode: bits(mkdir.mode),
            make_parents: mkdir.make_parents,
            owner: owner(mkdir.owner)?,
            timestamp_ns: timestamp(mkdir.timestamp),
        }
        .into(),
        Some(Action::Mkfile(mkfile)) => Mkfile {
            path: mkfile.path,
            mode: bits(mkfile.mode),
            data: mkfile.data,
            owner: owner(mkfile.owner)?,
            timestamp_ns: timestamp(mkfile.timestamp),
        }
        .into(),
        Some(Action::Rm(rm)) => {
            FileActionKind::from(Rm { path: rm.path, allow_not_found: rm.allow_not_found, wildcard: rm.allow_wildcard })
        }
        Some(Action::Symlink(link)) => Symlink {
            old_path: link.oldpath,
            new_path: link.newpath,
            owner: owner(link.owner)?,
            timestamp_ns: timestamp(link.timestamp),
        }
        .into(),
    };
    Ok(FileAction { input: inputs.file(action.input, position)?, output: output(action.output)?, kind })
}

/// `pb.Definition` with its map as a list, so that repeated keys are seen. The source map is left
/// out: it says nothing of the vertices.
#[derive(Clone, PartialEq, prost::Message)]
struct Entries {
    #[prost(bytes = "vec", repeated, tag = "1")]
    ops: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "2")]
    metadata: Vec<MetadataEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MetadataEntry {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(message, optional, tag = "2")]
    metadata: Option<pb::OpMetadata>,
}

/// Decodes `pb.Definition` bytes; every vertex keeps the bytes that were read.
pub(crate) fn decode_definition(bytes: &[u8]) -> Result<Definition, DecodeError> {
    let Entries { mut ops, metadata } = Entries::decode(bytes)?;
    let terminal = pb::Op::decode(ops.pop().ok_or(DecodeError::Target)?.as_slice())?;
    let ([target], None) = (terminal.inputs.as_slice(), &terminal.op) else { return Err(DecodeError::Target) };
    let target = Edge {
        vertex: target.digest.parse()?,
        output: u32::try_from(target.index).map_err(|_| DecodeError::Index { what: "output", index: target.index })?,
    };
    let mut by_digest = HashMap::with_capacity(metadata.len());
    for entry in metadata {
        let digest: Digest = entry.digest.parse()?;
        if by_digest.insert(digest, entry.metadata.unwrap_or_default()).is_some() {
            return Err(DecodeError::Metadata(digest));
        }
    }
    let mut graph = Graph::new();
    for encoded in ops {
        let digest = Digest::of(&encoded);
        let op = decode_op(&encoded)?;
        let metadata = by_digest.remove(&digest).map_or_else(Metadata::default, |read| decode_metadata(read, &op.kind.caps()));
        graph.add_decoded(Vertex { digest, op, encoded: encoded.into_boxed_slice(), metadata })?;
    }
    if graph.vertex(target.vertex).is_none() {
        return Err(DecodeError::Target);
    }
    Ok(graph.definition(target))
}

fn decode_metadata(metadata: pb::OpMetadata, own_caps: &[&str]) -> Metadata {
    let caps = metadata.caps.into_iter().filter(|(cap, wanted)| *wanted && !own_caps.contains(&cap.as_str()));
    Metadata {
        ignore_cache: metadata.ignore_cache,
        description: metadata.description,
        export_cache: metadata.export_cache.map(|cache| cache.value),
        caps: caps.map(|(cap, _)| Cow::Owned(cap)).collect(),
        progress_group: metadata.progress_group.map(|group| ProgressGroup { id: group.id, name: group.name, weak: group.weak }),
    }
}
