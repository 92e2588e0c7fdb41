//! The plan as a Dockerfile that gives the same files, for the frontend that is built into dockerd
//! 20.10 and everything later.
//!
//! Each vertex becomes a stage. A Dockerfile keeps a stage's root alone, so what a step gives as
//! another tree becomes a folder of its stage ([`Tree`]). The function's files are copied out of the
//! build context; other small files are written by the shell of the image that compiles.
//!
//! Invariant: what cannot be said in a Dockerfile is refused by name, never left out.

mod quoting;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use roche_engine::op::{
    Copy, Edge, Exec, File, FileActionKind, FileInput, Mkfile, Mount, MountKind, Network, OpKind, Owner, Source,
};
use roche_engine::{Vertex, op};
use serde_json::Value;

use crate::document::{self, Subject};
use crate::error::{Exit, Failure};
use crate::text::one_line;
use quoting::{name, pair, path, printed, word};

/// Where the small files of a stage are written.
const WRITTEN: &str = "/run/roche/written";

/// Writes the Dockerfile.
pub(super) fn render(subject: &Subject<'_>) -> Result<String, Failure> {
    let mut writer = Writer { subject, out: header(subject), trees: BTreeMap::new(), stages: BTreeMap::new(), shell: None };
    for vertex in subject.definition.vertices() {
        writer.vertex(vertex).map_err(|reason| refusal(vertex, &reason))?;
    }
    let end = writer.image().map_err(|reason| Failure::say(Exit::Usage, format!("the image {reason}")));
    end.map(|()| writer.out).map_err(hinted)
}

fn refusal(vertex: &Vertex, reason: &str) -> Failure {
    hinted(Failure::say(Exit::Usage, format!("{:?} {reason}", one_line(&vertex.name()))))
}

fn hinted(failure: Failure) -> Failure {
    let failure = failure.adding(", which a Dockerfile cannot say");
    failure
        .hint("name images: roche release --dry-run=dockerfile -b IMAGE -r IMAGE")
        .hint("roche release --dry-run=llb says everything")
}

fn header(subject: &Subject<'_>) -> String {
    let mut out = String::new();
    for unresolved in &subject.unresolved {
        let _ = writeln!(out, "# unresolved: {}: {}", unresolved.image, one_line(&unresolved.reason));
    }
    let execs = || subject.definition.vertices().filter_map(|vertex| exec(&vertex.op));
    let network = if execs().all(|exec| exec.network == Network::None) { " --network=none" } else { "" };
    let names: String = subject.release.tags.iter().map(|tag| format!(" -t {tag}")).collect();
    out.push_str("# The files that `roche release` makes, but for their times. In the folder of the function:\n");
    let _ = writeln!(out, "# DOCKER_BUILDKIT=1 docker build{network}{names} -f THIS_FILE .");
    out
}

fn exec(op: &op::Op) -> Option<&Exec> {
    match &op.kind {
        OpKind::Exec(exec) => Some(exec),
        _ => None,
    }
}

/// Where a result is: a folder of a stage.
#[derive(Clone)]
struct Tree {
    stage: String,
    path: String,
}

/// What a stage's processes would get.
#[derive(Clone, Default)]
struct Stage {
    env: BTreeMap<String, String>,
    /// Whether it stands on an image that is not known, which has a PATH of its own.
    unknown: bool,
    /// None where that is not known.
    user: Option<String>,
    cwd: String,
}

struct Writer<'a> {
    subject: &'a Subject<'a>,
    out: String,
    trees: BTreeMap<Edge, Tree>,
    stages: BTreeMap<String, Stage>,
    /// The first image, whose shell writes small files; it compiles, so it has one.
    shell: Option<String>,
}

type Done = Result<(), String>;

/// What a `COPY` says: stage, path, place, mode and owner.
type Copied<'a> = (String, String, String, Option<u32>, &'a Option<Owner>);

impl Writer<'_> {
    fn vertex(&mut self, vertex: &Vertex) -> Done {
        let _ = writeln!(self.out, "\n# {}", one_line(&vertex.name()));
        let stage = self.name(&vertex.name());
        match &vertex.op.kind {
            OpKind::Source(source) => self.source(&stage, source, vertex.op.platform.as_ref())?,
            OpKind::Exec(exec) => return self.exec(&stage, exec, vertex),
            OpKind::File(file) => self.file(&stage, file)?,
            OpKind::Merge(_) | OpKind::Diff(_) | OpKind::Build(_) => return Err("merges, compares or builds trees".to_owned()),
        }
        self.trees.insert(vertex.digest.into(), Tree { stage, path: "/".to_owned() });
        Ok(())
    }

    /// Returns a name for a stage that no other has.
    fn name(&self, text: &str) -> String {
        let name = name(text);
        let taken = |name: &str| self.stages.contains_key(name);
        if !taken(&name) {
            return name;
        }
        (2..).map(|n| format!("{name}-{n}")).find(|name| !taken(name)).expect("there are more numbers than stages")
    }

    fn begin(&mut self, from: &str, stage: &str) {
        let _ = writeln!(self.out, "FROM {from} AS {stage}");
        let state = self.stages.get(from).cloned().unwrap_or_else(|| Stage {
            env: BTreeMap::new(),
            unknown: false,
            user: Some(String::new()),
            cwd: "/".to_owned(),
        });
        self.stages.insert(stage.to_owned(), state);
    }

    fn source(&mut self, stage: &str, source: &Source, platform: Option<&op::Platform>) -> Done {
        if source.scheme() != "docker-image" {
            return Err(format!("is a part of this machine ({})", source.scheme()));
        }
        if !source.attrs.is_empty() {
            return Err("is an image with conditions of its own".to_owned());
        }
        let base = self.subject.plan.bases.iter().find(|base| base.pinned().to_string() == source.reference());
        let config: Value = base.and_then(|base| serde_json::from_slice(&base.config).ok()).unwrap_or_default();
        if config["config"]["OnBuild"].as_array().is_some_and(|list| !list.is_empty()) {
            return Err("has ONBUILD instructions, and a release runs none".to_owned());
        }
        let platform = platform.map_or_else(String::new, |platform| format!("--platform={platform} "));
        self.begin(&format!("{platform}{}", source.reference()), stage);
        let known = !config.is_null();
        let text = |key: &str| config["config"][key].as_str().unwrap_or_default().to_owned();
        let env = pairs(&config["config"]["Env"]);
        let cwd = text("WorkingDir");
        let cwd = if cwd.is_empty() && known { "/".to_owned() } else { cwd };
        self.stages.insert(stage.to_owned(), Stage { env, unknown: !known, user: known.then(|| text("User")), cwd });
        self.shell.get_or_insert_with(|| stage.to_owned());
        Ok(())
    }

    /// Writes what differs from what the stage has already. Variables that are new are a step's
    /// alone, as arguments are (an `ENV` could not be taken back for the stages that follow), or the
    /// image's where `lasting`.
    fn enter(&mut self, stage: &str, env: &BTreeMap<String, String>, user: &str, cwd: &str, lasting: bool) -> Done {
        let state = self.stages.get_mut(stage).expect("the stage has begun");
        if let Some(name) = state.env.keys().find(|name| !env.contains_key(*name)) {
            return Err(format!("takes the variable {} away", one_line(name)));
        }
        let root = |user: &str| matches!(user, "" | "0" | "root" | "0:0");
        if state.user.as_deref().is_none_or(|had| had != user && !(root(had) && root(user))) {
            let _ = writeln!(self.out, "USER {}", if user.is_empty() { "0" } else { word(user)? });
        }
        if state.cwd != cwd {
            let _ = writeln!(self.out, "WORKDIR {}", path(cwd)?);
        }
        for (name, value) in env {
            let (had, pair) = (state.env.get(name), pair(name, value)?);
            if name == "PATH" && state.unknown {
                continue;
            }
            if had.is_none() && !lasting {
                let _ = writeln!(self.out, "ARG {pair}");
            } else if had != Some(value) {
                let _ = writeln!(self.out, "ENV {pair}");
                state.env.insert(name.clone(), value.clone());
            }
        }
        (state.user, state.cwd) = (Some(user.to_owned()), cwd.to_owned());
        Ok(())
    }

    fn exec(&mut self, stage: &str, exec: &Exec, vertex: &Vertex) -> Done {
        plain(exec)?;
        let root = exec.mounts.iter().find(|mount| mount.target == "/").ok_or("has no root")?;
        let from = match &root.kind {
            MountKind::Bind { source: Some(source), .. } if root.selector.is_empty() => self.root(*source)?,
            _ => return Err("runs on nothing".to_owned()),
        };
        self.begin(&from, stage);
        let mut mounted = String::new();
        for mount in exec.mounts.iter().filter(|mount| mount.target != "/") {
            self.mount(stage, mount, &mut mounted)?;
        }
        let env =
            exec.env.iter().filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.enter(stage, &env.collect(), &exec.user, &exec.cwd, false)?;
        let args = exec.args.iter().map(|arg| printed(arg)).collect::<Result<Vec<_>, _>>()?;
        let _ = writeln!(self.out, "RUN {mounted}[{}]", args.join(", "));
        for mount in &exec.mounts {
            if let MountKind::Bind { output: Some(output), .. } = mount.kind {
                let tree = Tree { stage: stage.to_owned(), path: mount.target.clone() };
                self.trees.insert(Edge::new(vertex.digest, output), tree);
            }
        }
        Ok(())
    }

    fn mount(&mut self, stage: &str, mount: &Mount, mounted: &mut String) -> Done {
        let target = path(&mount.target)?;
        match &mount.kind {
            MountKind::Bind { source, output: Some(_) } => {
                // Kept: a folder of this stage.
                let state = self.stages.get_mut(stage).expect("the stage has begun");
                if state.user.as_deref() != Some("") {
                    self.out.push_str("USER 0\n");
                }
                let _ = writeln!(self.out, "WORKDIR {target}");
                (state.user, state.cwd) = (Some(String::new()), target.to_owned());
                if let Some(source) = source {
                    let tree = self.tree(*source)?;
                    let from = path(&tree.path)?;
                    let _ = writeln!(self.out, "COPY --from={} [\"{}/\", \"{target}/\"]", tree.stage, from.trim_end_matches('/'));
                }
            }
            MountKind::Bind { source: Some(source), output: None } => {
                let tree = self.tree(*source)?;
                let from = format!("{}/{}", tree.path.trim_end_matches('/'), mount.selector.trim_start_matches('/'));
                let from = if from.len() > 1 { from.trim_end_matches('/') } else { from.as_str() };
                let write = if mount.readonly { "" } else { ",rw" };
                let _ = write!(
                    mounted,
                    "--mount=type=bind,from={},source={},target={target}{write} \\\n    ",
                    tree.stage,
                    path(from)?
                );
            }
            MountKind::Tmpfs { .. } => {
                let _ = write!(mounted, "--mount=type=tmpfs,target={target} \\\n    ");
            }
            _ => return Err("mounts a cache, a secret or an agent".to_owned()),
        }
        Ok(())
    }

    fn file(&mut self, stage: &str, file: &File) -> Done {
        let from = match file.actions.first().map(|action| action.input) {
            Some(FileInput::Edge(edge)) => self.root(edge)?,
            _ => "scratch".to_owned(),
        };
        let chained = |(place, action): (usize, &op::FileAction)| match action.input {
            FileInput::Action(before) => before + 1 == place,
            _ => place == 0,
        };
        let last = file.actions.len().saturating_sub(1);
        let one = |(place, action): (usize, &op::FileAction)| action.output.is_none() == (place != last);
        if !(file.actions.iter().enumerate().all(chained) && file.actions.iter().enumerate().all(one)) {
            return Err("gives several trees".to_owned());
        }
        let written = self.written(stage, file)?;
        self.begin(&from, stage);
        for (place, action) in file.actions.iter().enumerate() {
            let (from, source, dest, mode, owner) = match &action.kind {
                FileActionKind::Copy(copy) => self.copied(copy)?,
                FileActionKind::Mkfile(made) => match self.context(made) {
                    Some(file) => (String::new(), file, made.path.clone(), Some(made.mode), &made.owner),
                    None => (written.clone(), format!("{WRITTEN}/{place}"), made.path.clone(), Some(made.mode), &made.owner),
                },
                FileActionKind::Mkdir(made) => {
                    let (source, dest) = (format!("{WRITTEN}/{place}/"), format!("{}/", made.path.trim_end_matches('/')));
                    (written.clone(), source, dest, Some(made.mode).filter(|&mode| mode != 0o755), &made.owner)
                }
                FileActionKind::Rm(_) | FileActionKind::Symlink(_) => return Err("removes or links files".to_owned()),
            };
            let mut flags = if from.is_empty() { from } else { format!(" --from={from}") };
            flags.extend(owner.as_ref().map(|owner: &Owner| format!(" --chown={}", document::shown(owner))));
            flags.extend(mode.map(|mode| format!(" --chmod={mode:04o}")));
            let _ = writeln!(self.out, "COPY{flags} [\"{}\", \"{}\"]", path(&source)?, path(&dest)?);
        }
        Ok(())
    }

    /// Says what a copy takes.
    fn copied<'b>(&self, copy: &'b Copy) -> Result<Copied<'b>, String> {
        let usual = Copy {
            contents_only: copy.contents_only,
            make_parents: copy.make_parents,
            ..Copy::new(copy.from, &copy.source, &copy.dest)
        };
        let given = Copy { owner: None, mode: None, timestamp_ns: None, ..copy.clone() };
        let FileInput::Edge(edge) = copy.from else { return Err("copies within itself".to_owned()) };
        if given != usual {
            return Err("copies with conditions".to_owned());
        }
        let tree = self.tree(edge)?;
        let source = format!("{}/{}", tree.path.trim_end_matches('/'), copy.source.trim_start_matches('/'));
        let folder = |text: &str| format!("{}/", text.trim_end_matches('/'));
        let (source, dest) = if copy.contents_only { (folder(&source), folder(&copy.dest)) } else { (source, copy.dest.clone()) };
        Ok((tree.stage.clone(), source, dest, copy.mode, &copy.owner))
    }

    /// Returns the place in the build context of a file that is the project's.
    fn context(&self, made: &Mkfile) -> Option<String> {
        let project = self.subject.project;
        let name = made.path.rsplit('/').next();
        let file = std::iter::once(&project.function).chain(&project.lib);
        let mut same = file.filter(|file| file.data == made.data && file.path.file_name().and_then(|name| name.to_str()) == name);
        let parts: Vec<_> = same.next()?.path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        Some(parts.join("/"))
    }

    /// Writes a stage that makes the small files of `file`; returns its name, or nothing where there
    /// is none to make.
    fn written(&mut self, stage: &str, file: &File) -> Result<String, String> {
        let mut commands = Vec::new();
        for (place, action) in file.actions.iter().enumerate() {
            match &action.kind {
                FileActionKind::Mkfile(made) if self.context(made).is_none() => commands.push(quoting::write(&made.data, place)?),
                FileActionKind::Mkdir(_) => commands.push(format!("mkdir {place}")),
                _ => {}
            }
        }
        if commands.is_empty() {
            return Ok(String::new());
        }
        let shell = self.shell.clone().ok_or("writes files, and no image with a shell comes before it")?;
        let name = self.name(&format!("{stage}-written"));
        self.begin(&shell, &name);
        let env = self.stages[&name].env.clone();
        self.enter(&name, &env, "", WRITTEN, false)?;
        self.out.push_str("SHELL [\"/bin/sh\", \"-c\"]\n");
        for command in commands {
            let _ = writeln!(self.out, "RUN {command}");
        }
        self.out.push('\n');
        Ok(name)
    }

    fn tree(&self, edge: Edge) -> Result<Tree, String> {
        self.trees.get(&edge).cloned().ok_or_else(|| "takes a result that no step keeps".to_owned())
    }

    /// Returns a stage that is a result as a whole.
    fn root(&mut self, edge: Edge) -> Result<String, String> {
        let tree = self.tree(edge)?;
        if tree.path == "/" {
            return Ok(tree.stage);
        }
        let stage = self.name(&format!("{}-result", tree.stage));
        self.begin("scratch", &stage);
        let _ = writeln!(self.out, "COPY --from={} [\"{}/\", \"/\"]\n", tree.stage, path(&tree.path)?);
        self.trees.insert(edge, Tree { stage: stage.clone(), path: "/".to_owned() });
        Ok(stage)
    }

    /// Writes the image's config.
    fn image(&mut self) -> Done {
        let target = self.root(self.subject.definition.target())?;
        let stage = self.name("image");
        self.out.push('\n');
        self.begin(&target, &stage);
        let config: Value = serde_json::from_slice(&self.subject.plan.config).map_err(|error| error.to_string())?;
        let config = &config["config"];
        let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        for (key, value) in config["Labels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let _ = writeln!(self.out, "LABEL {}={}", quoting::value(key)?, quoting::value(value)?);
        }
        for port in config["ExposedPorts"].as_object().into_iter().flatten() {
            let _ = writeln!(self.out, "EXPOSE {}", word(port.0)?);
        }
        self.enter(&stage, &pairs(&config["Env"]), &text("User"), &text("WorkingDir"), true)?;
        let command = config["Cmd"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let command = command.map(printed).collect::<Result<Vec<_>, _>>()?;
        let _ = writeln!(self.out, "CMD [{}]", command.join(", "));
        Ok(())
    }
}

/// Refuses what no instruction asks for.
fn plain(exec: &Exec) -> Done {
    let usual = Exec {
        args: exec.args.clone(),
        env: exec.env.clone(),
        cwd: exec.cwd.clone(),
        user: exec.user.clone(),
        mounts: exec.mounts.clone(),
        network: exec.network,
        remove_mount_stubs_recursive: exec.remove_mount_stubs_recursive,
        ..Exec::default()
    };
    if *exec != usual || exec.network == Network::Host {
        Err("runs with more rights or limits than others".to_owned())
    } else {
        Ok(())
    }
}

fn pairs(list: &Value) -> BTreeMap<String, String> {
    let pairs = list.as_array().into_iter().flatten().filter_map(Value::as_str).filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
