//! Arbitrary ops, as recipes: their inputs are picked when the graph that holds them is there.
//!
//! Strategies are boxed: nested ones are values of many kilobytes, too many for a test's stack.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use roche_engine::op::{
    Build, CacheSharing, ContentCache, Copy, Diff, Edge, Exec, File, FileAction, FileActionKind, FileInput, Merge, Metadata,
    Mkdir, Mkfile, Mount, MountKind, Network, Op, OpKind, Owner, Platform, ProgressGroup, ProxyEnv, Rm, SecretEnv, Security,
    Source, Symlink, Ulimit, User,
};

/// An op whose inputs are not picked yet.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    kind: OpKind,
    platform: Option<Platform>,
    constraints: Vec<String>,
    /// Says which vertices the op takes in, one index after another.
    picks: Vec<Index>,
    /// The output that others take from the vertex.
    pub(crate) output: u32,
}

impl Recipe {
    /// Makes the op, over some of `before`; a source where there is nothing to take in.
    pub(crate) fn op(&self, before: &[Edge]) -> Op {
        let mut kind = self.kind.clone();
        if before.is_empty() {
            kind = Source::image(&format!("{:?}", self.picks)).into();
        } else {
            let mut picks = self.picks.iter().cycle();
            let mut put = |edge: &mut Edge| *edge = *picks.next().expect("a cycle has no end").get(before);
            edges_of(&mut kind, &mut put);
        }
        Op { kind, platform: self.platform.clone(), constraints: self.constraints.clone() }
    }
}

/// Visits every edge of an op.
fn edges_of(kind: &mut OpKind, visit: &mut dyn FnMut(&mut Edge)) {
    match kind {
        OpKind::Source(_) => {}
        OpKind::Exec(exec) => {
            for mount in &mut exec.mounts {
                if let MountKind::Bind { source: Some(edge), .. } | MountKind::Cache { source: Some(edge), .. } = &mut mount.kind
                {
                    visit(edge);
                }
            }
        }
        OpKind::File(file) => {
            for tree in file.actions.iter_mut().flat_map(trees_of) {
                if let FileInput::Edge(edge) = tree {
                    visit(edge);
                }
            }
        }
        OpKind::Merge(merge) => merge.inputs.iter_mut().for_each(visit),
        OpKind::Diff(diff) => [&mut diff.lower, &mut diff.upper].into_iter().flatten().for_each(visit),
        OpKind::Build(build) => visit(&mut build.definition),
    }
}

/// The trees that an action takes.
fn trees_of(action: &mut FileAction) -> Vec<&mut FileInput> {
    let mut trees = vec![&mut action.input];
    let owner = match &mut action.kind {
        FileActionKind::Copy(copy) => {
            trees.push(&mut copy.from);
            copy.owner.as_mut()
        }
        FileActionKind::Mkdir(mkdir) => mkdir.owner.as_mut(),
        FileActionKind::Mkfile(mkfile) => mkfile.owner.as_mut(),
        FileActionKind::Symlink(link) => link.owner.as_mut(),
        FileActionKind::Rm(_) => None,
    };
    for user in owner.into_iter().flat_map(|owner| [&mut owner.user, &mut owner.group]).flatten() {
        if let User::Name { passwd, .. } = user {
            trees.push(passwd);
        }
    }
    trees
}

/// One to nine ops; the first ends up as a source, for it has nothing to take in.
pub(crate) fn recipes() -> BoxedStrategy<Vec<(Recipe, Metadata)>> {
    vec((recipe(), metadata()), 1..10).boxed()
}

fn recipe() -> BoxedStrategy<Recipe> {
    let kind = prop_oneof![
        source().prop_map(OpKind::from),
        exec().prop_map(OpKind::from),
        file().prop_map(OpKind::from),
        vec(Just(placeholder()), 2..6).prop_map(|inputs| OpKind::from(Merge { inputs })),
        (option::of(Just(placeholder())), option::of(Just(placeholder())))
            .prop_map(|(lower, upper)| OpKind::from(Diff { lower, upper })),
        attrs().prop_map(|attrs| OpKind::from(Build { definition: placeholder(), attrs })),
    ];
    (kind, option::of(platform()), texts(), vec(any::<Index>(), 1..8), 0..4_u32)
        .prop_map(|(kind, platform, constraints, picks, output)| Recipe { kind, platform, constraints, picks, output })
        .boxed()
}

/// An edge that [`Recipe::op`] replaces.
fn placeholder() -> Edge {
    roche_engine::Digest::of(b"placeholder").into()
}

/// Empty, plain, in many scripts, with line ends and NUL.
fn text() -> BoxedStrategy<String> {
    prop_oneof![
        2 => Just(String::new()),
        2 => "[a-z/.]{1,12}",
        1 => any::<String>(),
        1 => select(vec!["größe", "路径/ファイル", "a\0b", "a\r\nb", "\u{2028}<&>", "-1", "𝄞"]).prop_map(str::to_owned),
    ]
    .boxed()
}

fn full_text() -> impl Strategy<Value = String> {
    text().prop_map(|text| if text.is_empty() { "x".to_owned() } else { text })
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..3)
}

fn attrs() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..4)
}

fn platform() -> impl Strategy<Value = Platform> {
    (text(), text(), text(), text(), texts()).prop_map(|(os, architecture, variant, os_version, os_features)| Platform {
        os,
        architecture,
        variant,
        os_version,
        os_features,
    })
}

fn source() -> BoxedStrategy<Source> {
    let scheme = select(vec!["docker-image://", "local://", "git://", "https://", "oci-layout://", "", "other://"]);
    let known = select(vec!["image.resolvemode", "local.unique", "git.fullurl", "http.uid", "local.followpaths"]);
    (scheme, text(), attrs(), option::of((known, text())))
        .prop_map(|(scheme, rest, mut attrs, known)| {
            attrs.extend(known.map(|(key, value)| (key.to_owned(), value)));
            Source { identifier: format!("{scheme}{rest}"), attrs }
        })
        .boxed()
}

fn exec() -> BoxedStrategy<Exec> {
    let process = (vec(text(), 1..4), texts(), full_text(), text(), text(), text());
    let limits = vec((text(), any::<i64>(), any::<i64>()).prop_map(|(name, soft, hard)| Ulimit { name, soft, hard }), 0..3);
    let around = (option::of(proxies()), vec((text(), text()), 0..3), limits, vec(any::<i32>(), 0..3), any::<bool>());
    let secrets = vec((text(), text(), any::<bool>()).prop_map(|(id, name, optional)| SecretEnv { id, name, optional }), 0..3);
    let rights = (
        select(vec![Network::Sandbox, Network::Host, Network::None]),
        select(vec![Security::Sandbox, Security::Insecure]),
        secrets,
        vec((text(), any::<bool>()), 0..3),
        vec(mount(), 0..6),
    );
    (process, around, rights)
        .prop_map(|(process, around, rights)| {
            let (args, env, cwd, user, hostname, cgroup_parent) = process;
            let (proxy_env, extra_hosts, ulimits, valid_exit_codes, remove_mount_stubs_recursive) = around;
            let (network, security, secret_env, devices, mounts) = rights;
            Exec {
                args,
                env,
                cwd,
                user,
                hostname,
                cgroup_parent,
                proxy_env,
                extra_hosts,
                ulimits,
                valid_exit_codes,
                remove_mount_stubs_recursive,
                network,
                security,
                secret_env,
                devices,
                mounts,
            }
        })
        .boxed()
}

fn proxies() -> impl Strategy<Value = ProxyEnv> {
    (text(), text(), text(), text(), text()).prop_map(|(http, https, ftp, no, all)| ProxyEnv { http, https, ftp, no, all })
}

fn mount() -> BoxedStrategy<Mount> {
    let edge = || option::of(Just(placeholder()));
    let sharing = select(vec![CacheSharing::Shared, CacheSharing::Private, CacheSharing::Locked]);
    let served = || (text(), any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>());
    let kind = prop_oneof![
        (edge(), option::of(0..9_u32)).prop_map(|(source, output)| MountKind::Bind { source, output }),
        (edge(), text(), sharing).prop_map(|(source, id, sharing)| MountKind::Cache { source, id, sharing }),
        any::<i64>().prop_map(|size_bytes| MountKind::Tmpfs { size_bytes }),
        served().prop_map(|(id, uid, gid, mode, optional)| MountKind::Secret { id, uid, gid, mode, optional }),
        served().prop_map(|(id, uid, gid, mode, optional)| MountKind::Ssh { id, uid, gid, mode, optional }),
    ];
    let content_cache = select(vec![ContentCache::Default, ContentCache::On, ContentCache::Off]);
    (text(), kind, any::<bool>(), text(), content_cache)
        .prop_map(|(target, kind, readonly, selector, content_cache)| Mount { target, kind, readonly, selector, content_cache })
        .boxed()
}

fn file() -> BoxedStrategy<File> {
    let action = (file_input(), option::of(0..9_u32), action());
    vec(action.prop_map(|(input, output, kind)| FileAction { input, output, kind }), 1..5)
        .prop_map(|mut actions| {
            for (i, action) in actions.iter_mut().enumerate() {
                for tree in trees_of(action) {
                    // Results of actions before it are all that an action can take.
                    if let FileInput::Action(n) = tree {
                        *tree = if i == 0 { FileInput::Scratch } else { FileInput::Action(*n % i) };
                    }
                }
            }
            File { actions }
        })
        .boxed()
}

fn file_input() -> impl Strategy<Value = FileInput> {
    prop_oneof![Just(FileInput::Scratch), Just(FileInput::Edge(placeholder())), (0..100_usize).prop_map(FileInput::Action)]
}

fn action() -> BoxedStrategy<FileActionKind> {
    let time = || option::of(0..=i64::MAX);
    let mkdir = (text(), any::<u32>(), any::<bool>(), option::of(owner()), time());
    let mkfile = (text(), any::<u32>(), vec(any::<u8>(), 0..40), option::of(owner()), time());
    let symlink = (text(), text(), option::of(owner()), time());
    prop_oneof![
        copy().prop_map(FileActionKind::from),
        mkdir.prop_map(|(path, mode, make_parents, owner, timestamp_ns)| {
            FileActionKind::from(Mkdir { path, mode, make_parents, owner, timestamp_ns })
        }),
        mkfile.prop_map(|(path, mode, data, owner, timestamp_ns)| {
            FileActionKind::from(Mkfile { path, mode, data, owner, timestamp_ns })
        }),
        (text(), any::<bool>(), any::<bool>()).prop_map(|(path, allow_not_found, wildcard)| FileActionKind::from(Rm {
            path,
            allow_not_found,
            wildcard
        })),
        symlink.prop_map(|(old_path, new_path, owner, timestamp_ns)| {
            FileActionKind::from(Symlink { old_path, new_path, owner, timestamp_ns })
        }),
    ]
    .boxed()
}

fn copy() -> BoxedStrategy<Copy> {
    // Bits or a text, never both.
    let mode = prop_oneof![
        Just((None, String::new())),
        (0..=0o7777_u32).prop_map(|bits| (Some(bits), String::new())),
        Just((None, "u+x,go-w".to_owned())),
    ];
    let what = (file_input(), text(), text(), option::of(owner()), mode, option::of(0..=i64::MAX));
    (what, any::<[bool; 7]>(), [texts(), texts(), texts()])
        .prop_map(|(what, flags, [include, exclude, required])| {
            let (from, source, dest, owner, (mode, mode_text), timestamp_ns) = what;
            let [follow_symlink, contents_only, unpack, make_parents, wildcard, allow_empty_wildcard, always_replace] = flags;
            Copy {
                from,
                source,
                dest,
                owner,
                mode,
                mode_text,
                follow_symlink,
                contents_only,
                unpack,
                make_parents,
                wildcard,
                allow_empty_wildcard,
                timestamp_ns,
                include,
                exclude,
                required,
                always_replace,
            }
        })
        .boxed()
}

fn owner() -> BoxedStrategy<Owner> {
    let user = || {
        let named = (text(), file_input()).prop_map(|(name, passwd)| User::Name { name, passwd });
        option::of(prop_oneof![any::<u32>().prop_map(User::Id), named])
    };
    (user(), user()).prop_map(|(user, group)| Owner { user, group }).boxed()
}

/// Names, notes, and capabilities that no op needs by itself.
pub(crate) fn metadata() -> BoxedStrategy<Metadata> {
    let group = (text(), text(), any::<bool>()).prop_map(|(id, name, weak)| ProgressGroup { id, name, weak });
    let caps = btree_set("extra\\.[a-z]{1,8}", 0..3);
    (any::<bool>(), attrs(), option::of(any::<bool>()), caps, option::of(group))
        .prop_map(|(ignore_cache, description, export_cache, caps, progress_group)| Metadata {
            ignore_cache,
            description,
            export_cache,
            caps: caps.into_iter().map(Into::into).collect(),
            progress_group,
        })
        .boxed()
}
