//! Execs: a process that runs over mounted trees.
//!
//! Invariant: what the process can see is what the mounts name; the mount at `/` is its root.

use super::{Edge, unique};

/// Runs a process; its writable bind mounts are the vertex's outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program and its arguments, at least one.
    pub args: Vec<String>,
    /// `NAME=value` pairs, in the order in which the process gets them.
    pub env: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// `user[:group]`, by name or number; empty is root.
    pub user: String,
    /// The host's name inside; the solver's own choice where empty.
    pub hostname: String,
    /// The cgroup that the process runs under; the solver's own choice where empty.
    pub cgroup_parent: String,
    /// Proxies that the process may use; they are not part of the result's cache key.
    pub proxy_env: Option<ProxyEnv>,
    /// Host names and the addresses that they resolve to.
    pub extra_hosts: Vec<(String, String)>,
    /// Limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Exit codes that count as success; only 0 where empty.
    pub valid_exit_codes: Vec<i32>,
    /// Whether empty folders that were made as mount points are removed with their parents.
    pub remove_mount_stubs_recursive: bool,
    /// The network that the process sees.
    pub network: Network,
    /// What the process may do.
    pub security: Security,
    /// Secrets given as environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// Devices by their CDI name, and whether the process can do without.
    pub devices: Vec<(String, bool)>,
    /// Where trees, caches and secrets are mounted.
    pub mounts: Vec<Mount>,
}

impl Exec {
    /// Runs `args` in `cwd` over the tree `root`, whose changed copy is output 0.
    pub fn new(root: impl Into<Edge>, cwd: &str, args: &[&str]) -> Self {
        Self {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            cwd: cwd.to_owned(),
            remove_mount_stubs_recursive: true,
            mounts: vec![Mount::bind("/", Some(root.into()))],
            ..Self::default()
        }
    }

    /// Makes the root read-only, which then is no output.
    pub fn readonly_root(mut self) -> Self {
        for mount in self.mounts.iter_mut().filter(|mount| mount.target == "/") {
            mount.readonly = true;
            if let MountKind::Bind { output, .. } = &mut mount.kind {
                *output = None;
            }
        }
        self
    }

    /// Adds a mount.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Puts the mounts in the order that BuildKit's client gives them (by target, then secrets,
    /// then agents) and numbers the outputs in that order; a graph built from equal parts then
    /// has equal digests whatever the order in which they were added.
    pub fn ordered(mut self) -> Self {
        self.mounts.sort_by(|a, b| {
            let rank = |mount: &Mount| match mount.kind {
                MountKind::Secret { .. } => 1,
                MountKind::Ssh { .. } => 2,
                _ => 0,
            };
            rank(a).cmp(&rank(b)).then_with(|| if rank(a) == 0 { a.target.cmp(&b.target) } else { std::cmp::Ordering::Equal })
        });
        let mut next = 0;
        for mount in &mut self.mounts {
            if let MountKind::Bind { output: Some(output), .. } = &mut mount.kind {
                *output = next;
                next += 1;
            }
        }
        self
    }

    /// Returns the index of the output that the mount at `target` writes.
    pub fn output(&self, target: &str) -> Option<u32> {
        self.mounts.iter().filter(|mount| mount.target == target).find_map(|mount| match mount.kind {
            MountKind::Bind { output, .. } => output,
            _ => None,
        })
    }

    pub(super) fn inputs(&self) -> Vec<Edge> {
        unique(self.mounts.iter().filter_map(Mount::source))
    }

    pub(super) fn caps(&self) -> Vec<&'static str> {
        let mut caps = Vec::with_capacity(8);
        caps.push("exec.meta.base");
        let mut need = |wanted: bool, cap| caps.extend(wanted.then_some(cap));
        need(self.proxy_env.is_some(), "exec.meta.proxyenv");
        need(!self.valid_exit_codes.is_empty(), "exec.validexitcode");
        need(!self.ulimits.is_empty(), "exec.meta.ulimit");
        need(self.network != Network::Sandbox, "exec.meta.network");
        need(self.security == Security::Insecure, "exec.meta.security");
        need(!self.devices.is_empty(), "exec.meta.cdi");
        need(!self.secret_env.is_empty(), "exec.mount.secret");
        need(!self.secret_env.is_empty(), "exec.secretenv");
        for mount in &self.mounts {
            need(!mount.selector.is_empty(), "exec.mount.selector");
            need(mount.content_cache != ContentCache::Default, "exec.mount.cache.content");
            match &mount.kind {
                MountKind::Bind { source, .. } => need(source.is_some(), "exec.mount.bind"),
                MountKind::Cache { .. } => {
                    need(true, "exec.mount.cache");
                    need(true, "exec.mount.cache.sharing");
                }
                MountKind::Tmpfs { size_bytes } => {
                    need(true, "exec.mount.tmpfs");
                    need(*size_bytes > 0, "exec.mount.tmpfs.size");
                }
                MountKind::Secret { .. } => need(true, "exec.mount.secret"),
                MountKind::Ssh { .. } => need(true, "exec.mount.ssh"),
            }
        }
        caps
    }

    pub(super) fn summary(&self) -> String {
        // A script's first line says what it is for; the rest is in the op.
        let args = self.args.join(" ");
        args.lines().next().unwrap_or_default().to_owned()
    }
}

/// The network that a process sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The solver's default.
    #[default]
    Sandbox,
    /// The host's.
    Host,
    /// Loopback alone.
    None,
}

/// What a process may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// What the solver allows every step.
    #[default]
    Sandbox,
    /// Everything; the solver must have been told to allow it.
    Insecure,
}

/// Proxies given to a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyEnv {
    /// `HTTP_PROXY`.
    pub http: String,
    /// `HTTPS_PROXY`.
    pub https: String,
    /// `FTP_PROXY`.
    pub ftp: String,
    /// `NO_PROXY`.
    pub no: String,
    /// `ALL_PROXY`.
    pub all: String,
}

/// A limit, as in `setrlimit(2)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// The limit that holds.
    pub soft: i64,
    /// The limit up to which the process may raise it.
    pub hard: i64,
}

/// A secret given as an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretEnv {
    /// The id that the session serves.
    pub id: String,
    /// The variable's name.
    pub name: String,
    /// Whether the process runs without it.
    pub optional: bool,
}

/// A place in the process's file tree and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The absolute path.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Whether the process can only read it.
    pub readonly: bool,
    /// The path inside the mounted tree that is mounted; empty is its root.
    pub selector: String,
    /// Whether the mounted content may stand for the vertex in the cache key.
    pub content_cache: ContentCache,
}

impl Mount {
    fn of(target: &str, kind: MountKind) -> Self {
        Self { target: target.to_owned(), kind, readonly: false, selector: String::new(), content_cache: ContentCache::Default }
    }

    /// A writable copy of `source` (nothing: an empty tree); the changed tree is an output.
    pub fn bind(target: &str, source: Option<Edge>) -> Self {
        Self::of(target, MountKind::Bind { source, output: Some(0) })
    }

    /// `source`, read-only.
    pub fn readonly(target: &str, source: impl Into<Edge>) -> Self {
        Self { readonly: true, ..Self::of(target, MountKind::Bind { source: Some(source.into()), output: None }) }
    }

    /// A writable copy of `source` whose changes are thrown away.
    pub fn discarded(target: &str, source: impl Into<Edge>) -> Self {
        Self::of(target, MountKind::Bind { source: Some(source.into()), output: None })
    }

    /// A folder that lives on between builds under `id`.
    pub fn cache(target: &str, id: &str, sharing: CacheSharing) -> Self {
        Self::of(target, MountKind::Cache { source: None, id: id.to_owned(), sharing })
    }

    /// Memory of at most `size_bytes`; the solver's default where 0.
    pub fn tmpfs(target: &str, size_bytes: i64) -> Self {
        Self::of(target, MountKind::Tmpfs { size_bytes })
    }

    /// A secret that the session serves under `id`, as a file that root alone can read.
    pub fn secret(target: &str, id: &str) -> Self {
        Self::of(target, MountKind::Secret { id: id.to_owned(), uid: 0, gid: 0, mode: 0o400, optional: false })
    }

    /// The session's SSH agent `id`, as a socket.
    pub fn ssh(target: &str, id: &str) -> Self {
        Self::of(target, MountKind::Ssh { id: id.to_owned(), uid: 0, gid: 0, mode: 0o600, optional: false })
    }

    /// Mounts only what is at `path` in the tree.
    pub fn selector(mut self, path: &str) -> Self {
        path.clone_into(&mut self.selector);
        self
    }

    fn source(&self) -> Option<Edge> {
        match self.kind {
            MountKind::Bind { source, .. } | MountKind::Cache { source, .. } => source,
            _ => None,
        }
    }
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A tree.
    Bind {
        /// Where it comes from; an empty tree where absent.
        source: Option<Edge>,
        /// The index of the output that takes the changed tree.
        output: Option<u32>,
    },
    /// A folder that lives on between builds.
    Cache {
        /// What it starts as.
        source: Option<Edge>,
        /// Its name on the solver.
        id: String,
        /// Who may use it at the same time.
        sharing: CacheSharing,
    },
    /// Memory.
    Tmpfs {
        /// At most this much; the solver's default where 0.
        size_bytes: i64,
    },
    /// A secret as a file.
    Secret {
        /// The id that the session serves.
        id: String,
        /// The file's owner.
        uid: u32,
        /// The file's group.
        gid: u32,
        /// The file's permission bits.
        mode: u32,
        /// Whether the process runs without it.
        optional: bool,
    },
    /// An SSH agent's socket.
    Ssh {
        /// The id that the session serves.
        id: String,
        /// The socket's owner.
        uid: u32,
        /// The socket's group.
        gid: u32,
        /// The socket's permission bits.
        mode: u32,
        /// Whether the process runs without it.
        optional: bool,
    },
}

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheSharing {
    /// Everybody.
    Shared,
    /// One process each; a second one gets a fresh folder.
    Private,
    /// One process; a second one waits.
    Locked,
}

/// Whether a mount's content may stand for its vertex in the cache key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentCache {
    /// For read-only mounts.
    #[default]
    Default,
    /// Always.
    On,
    /// Never.
    Off,
}
