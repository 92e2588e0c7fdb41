//! Exec ops: what the op says, as a worker's task.
//!
//! Invariant: a step sees what its op names and nothing else of the machine; its outputs are layers
//! over the trees that they started from.

use std::collections::BTreeMap;

use super::complaint;
use super::layers::Begun;
use super::operate::{Operator, unsupported};
use super::report::Report;
use super::result::Ref;
use super::schedule::Outputs;
use super::store::{FileLock, WorkDir};
use super::worker::{
    Answer, Ended, Exec as Step, HostEntry, HostNode, Mount as Place, Network as Net, Source as From, Ulimit, Upper, Work,
};
use crate::op::{CacheSharing, Edge, Exec, Mount, MountKind, Network, Security};
use crate::solver;
use crate::{Error, Vertex};

/// Where programs are looked for when a step's environment does not say (BuildKit's
/// `util/system/path.go`).
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a step's mounts came to.
#[derive(Default)]
struct Prepared {
    places: Vec<Place>,
    begun: BTreeMap<u32, Begun>,
    /// Trees that are changed and whose changes are nobody's.
    discarded: Vec<WorkDir>,
    /// Outputs that are inputs as they were: read-only mounts.
    unchanged: BTreeMap<u32, Ref>,
    /// Caches that one step at a time may use.
    locks: Vec<FileLock>,
}

impl Operator {
    /// Runs a step and returns its outputs.
    pub(super) async fn exec(&self, vertex: &Vertex, exec: &Exec, inputs: &[Ref], report: &Report) -> Result<Outputs, Error> {
        if exec.security == Security::Insecure {
            return Err(unsupported("steps without a sandbox (exec.meta.security)"));
        }
        let edges = vertex.op.kind.inputs();
        let input = |edge: &Edge| edges.iter().position(|known| known == edge).map(|i| &inputs[i]);
        let mut prepared = Prepared::default();
        for mount in &exec.mounts {
            self.prepare(mount, &input, report, &mut prepared).await?;
        }
        let step = Step {
            args: exec.args.clone(),
            env: self.environment(exec, report)?,
            cwd: exec.cwd.clone(),
            user: exec.user.clone(),
            network: match exec.network {
                Network::None => Net::None,
                Network::Sandbox | Network::Host if self.offline => Net::None,
                Network::Sandbox | Network::Host => Net::Host,
            },
            hostname: exec.hostname.clone(),
            extra_hosts: exec.extra_hosts.clone(),
            ulimits: exec
                .ulimits
                .iter()
                .map(|limit| Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
                .collect(),
            mounts: prepared.places,
            valid_exit_codes: exec.valid_exit_codes.clone(),
            remove_stubs_recursive: exec.remove_mount_stubs_recursive,
        };
        let (answer, complained) = self.run_logged(Work::Exec(step), report).await?;
        let Answer::Exec(ended) = answer else {
            return Err(super::run::nonsense("running a step"));
        };
        let hint = if complained { complaint::remedy(&self.workers.identity) } else { None };
        judge(vertex, exec, &ended, hint.map(String::into_boxed_str)).map_err(|error| self.for_want_of_room(error))?;
        let mut outputs: Outputs = prepared.unchanged;
        for (number, begun) in prepared.begun {
            outputs.insert(number, self.finish(begun, ended.copied).await?);
        }
        Ok(outputs)
    }

    async fn prepare<'a>(
        &self,
        mount: &Mount,
        input: &(impl Fn(&Edge) -> Option<&'a Ref> + Sync),
        report: &Report,
        prepared: &mut Prepared,
    ) -> Result<(), Error> {
        let source = match &mount.kind {
            MountKind::Bind { source, output } => {
                let tree = source.as_ref().map_or_else(|| Some(Ref::scratch()), |edge| input(edge).cloned());
                let tree = tree.ok_or_else(|| Error::Integrity(format!("mount {} has no source", mount.target)))?;
                match tree {
                    Ref::Host(tree) => From::Host { entries: tree.entries.iter().map(host_entry).collect() },
                    Ref::Layers { .. } => {
                        let layers = tree.layers()?.to_vec();
                        let numbers = layers.iter().map(|layer| layer.number()).collect();
                        let upper = if mount.readonly {
                            if let Some(number) = output {
                                prepared.unchanged.insert(*number, tree.clone());
                            }
                            None
                        } else {
                            let begun = self.begin(layers).await?;
                            let upper = Upper { work: begun.work.name(), output: output.is_some() };
                            match output {
                                Some(number) => drop(prepared.begun.insert(*number, begun)),
                                None => prepared.discarded.push(begun.work),
                            }
                            Some(upper)
                        };
                        From::Layers { layers: numbers, upper }
                    }
                }
            }
            MountKind::Cache { source, id, sharing } => {
                let start = match source.as_ref().and_then(input) {
                    Some(tree) => tree.layers()?.iter().map(|layer| layer.number()).collect(),
                    None => Vec::new(),
                };
                let id = if id.is_empty() { mount.target.clone() } else { id.clone() };
                match sharing {
                    CacheSharing::Shared => {}
                    // One user at a time is as private as it gets where a cache has one folder.
                    CacheSharing::Locked | CacheSharing::Private => prepared.locks.push(self.lock(format!("cache {id}")).await?),
                }
                let folder = self.store(move |store| store.cache_folder(&id)).await?;
                let folder = folder.strip_prefix(self.store.root()).unwrap_or(&folder).to_string_lossy().into_owned();
                From::Cache { folder, start }
            }
            MountKind::Tmpfs { size_bytes } => From::Tmpfs { size_bytes: u64::try_from(*size_bytes).unwrap_or(0) },
            MountKind::Secret { id, uid, gid, mode, optional } => match self.options.secrets.get(id) {
                Some(bytes) => From::Secret { bytes: bytes.clone(), mode: *mode, uid: *uid, gid: *gid },
                None if *optional => return Ok(()),
                None => return Err(lacking(report, &format!("the secret {id:?} was not given"))),
            },
            MountKind::Ssh { optional: true, .. } => return Ok(()),
            MountKind::Ssh { id, .. } => return Err(lacking(report, &format!("no ssh agent {id:?} was given"))),
        };
        prepared.places.push(Place {
            target: mount.target.clone(),
            source,
            readonly: mount.readonly,
            selector: mount.selector.clone(),
        });
        Ok(())
    }

    fn environment(&self, exec: &Exec, report: &Report) -> Result<Vec<String>, Error> {
        let mut env = exec.env.clone();
        if !env.iter().any(|pair| pair.starts_with("PATH=")) {
            env.insert(0, DEFAULT_PATH.to_owned());
        }
        if let Some(proxy) = &exec.proxy_env {
            let pairs = [
                ("HTTP_PROXY", &proxy.http),
                ("HTTPS_PROXY", &proxy.https),
                ("FTP_PROXY", &proxy.ftp),
                ("NO_PROXY", &proxy.no),
                ("ALL_PROXY", &proxy.all),
            ];
            for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
                env.push(format!("{name}={value}"));
                env.push(format!("{}={value}", name.to_lowercase()));
            }
        }
        for secret in &exec.secret_env {
            match self.options.secrets.get(&secret.id) {
                Some(bytes) => env.push(format!("{}={}", secret.name, String::from_utf8_lossy(bytes))),
                None if secret.optional => env.push(format!("{}=", secret.name)),
                None => return Err(lacking(report, &format!("the secret {:?} was not given", secret.id))),
            }
        }
        Ok(env)
    }
}

fn host_entry(entry: &solver::HostEntry) -> HostEntry {
    HostEntry {
        path: entry.path.clone(),
        node: match &entry.node {
            solver::HostNode::Bind(path) => HostNode::Bind(path.clone()),
            solver::HostNode::Symlink(target) => HostNode::Symlink(target.clone()),
        },
    }
}

fn lacking(report: &Report, reason: &str) -> Error {
    Error::Step { vertex: None, name: report.name().to_owned(), exit_code: None, reason: reason.into(), hint: None }
}

/// Turns an exit status that is no success into the step's failure.
fn judge(vertex: &Vertex, exec: &Exec, ended: &Ended, hint: Option<Box<str>>) -> Result<(), Error> {
    let valid = if exec.valid_exit_codes.is_empty() { ended.status == 0 } else { exec.valid_exit_codes.contains(&ended.status) };
    if valid && ended.reason.is_none() {
        return Ok(());
    }
    let reason = ended.reason.clone().unwrap_or_else(|| {
        format!("process {:?} did not complete successfully: exit code: {}", exec.args.join(" "), ended.status)
    });
    // What never started has no status of its own.
    let exit_code = if ended.reason.is_some() && ended.status == 1 { None } else { Some(ended.status) };
    Err(Error::Step { vertex: Some(vertex.digest), name: vertex.name(), exit_code, reason: reason.into(), hint })
}
