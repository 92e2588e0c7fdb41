//! File ops: changes to a tree that need no process.
//!
//! Invariant: an action takes its trees from the op's inputs or from an action before it, so
//! actions run in the order in which they stand.

use super::{Edge, unique};

/// Applies actions in order; each takes a tree and gives a changed one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// The actions, at least one.
    pub actions: Vec<FileAction>,
}

impl File {
    /// Applies `kinds` one after another to `base`; the last result is output 0.
    pub fn chain(base: Option<Edge>, kinds: impl IntoIterator<Item = FileActionKind>) -> Self {
        let mut actions: Vec<FileAction> = kinds
            .into_iter()
            .enumerate()
            .map(|(i, kind)| FileAction {
                input: match (i, base) {
                    (0, None) => FileInput::Scratch,
                    (0, Some(edge)) => FileInput::Edge(edge),
                    _ => FileInput::Action(i - 1),
                },
                output: None,
                kind,
            })
            .collect();
        if let Some(last) = actions.last_mut() {
            last.output = Some(0);
        }
        Self { actions }
    }

    /// Numbers inputs as `marshalState.add` of `client/llb/fileop.go` does: from the last action,
    /// what it changes first, then its own trees, then the actions that it copies from.
    pub(super) fn inputs(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        let mut seen = vec![false; self.actions.len()];
        let roots = (0..self.actions.len()).rev();
        for root in roots {
            let mut pending = vec![(root, Visit::Changed)];
            while let Some((i, visit)) = pending.pop() {
                let action = &self.actions[i];
                match visit {
                    Visit::Changed if std::mem::replace(&mut seen[i], true) => {}
                    Visit::Changed => {
                        pending.push((i, Visit::Taken));
                        pending.extend(action.input.action().map(|before| (before, Visit::Changed)));
                    }
                    Visit::Taken => {
                        edges.extend(action.input.edge());
                        edges.extend(action.kind.owner().into_iter().flat_map(Owner::trees).filter_map(FileInput::edge));
                        if let FileActionKind::Copy(copy) = &action.kind {
                            edges.extend(copy.from.edge());
                            pending.extend(copy.from.action().map(|source| (source, Visit::Changed)));
                        }
                    }
                }
            }
        }
        unique(edges)
    }

    pub(super) fn caps(&self) -> Vec<&'static str> {
        let mut caps = vec!["file.base"];
        for action in &self.actions {
            match &action.kind {
                FileActionKind::Copy(copy) => {
                    if !(copy.include.is_empty() && copy.exclude.is_empty()) {
                        caps.push("file.copy.includeexcludepatterns");
                    }
                    if copy.always_replace {
                        caps.push("file.copy.alwaysreplaceexistingdestpaths");
                    }
                    if !copy.mode_text.is_empty() {
                        // BuildKit names `file.copy.modestring`, and no daemon says that it has it;
                        // links came with the release after the one that modes in words came with.
                        caps.push("file.symlink.create");
                    }
                    if !copy.required.is_empty() {
                        caps.push("file.copy.requiredpaths");
                    }
                }
                FileActionKind::Symlink(_) => caps.push("file.symlink.create"),
                _ => {}
            }
        }
        caps
    }

    pub(super) fn summary(&self) -> String {
        let lines: Vec<String> = self.actions.iter().map(|action| action.kind.summary()).collect();
        lines.join(", ")
    }
}

/// The two halves of visiting an action.
enum Visit {
    /// The action whose result it changes comes first.
    Changed,
    /// Then the trees that it takes.
    Taken,
}

/// One action: a tree in, a changed tree out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAction {
    /// The tree that is changed.
    pub input: FileInput,
    /// The index of the op's output that takes the result; nothing where only later actions do.
    pub output: Option<u32>,
    /// The change.
    pub kind: FileActionKind,
}

/// Where an action takes a tree from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileInput {
    /// An empty tree.
    Scratch,
    /// Another vertex's output.
    Edge(Edge),
    /// The result of the op's action with this index.
    Action(usize),
}

impl FileInput {
    fn edge(self) -> Option<Edge> {
        match self {
            Self::Edge(edge) => Some(edge),
            _ => None,
        }
    }

    fn action(self) -> Option<usize> {
        match self {
            Self::Action(i) => Some(i),
            _ => None,
        }
    }
}

impl<E: Into<Edge>> From<E> for FileInput {
    fn from(edge: E) -> Self {
        Self::Edge(edge.into())
    }
}

/// The changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileActionKind {
    /// Copies files in.
    Copy(Copy),
    /// Makes a folder.
    Mkdir(Mkdir),
    /// Makes a file with the given content.
    Mkfile(Mkfile),
    /// Removes files.
    Rm(Rm),
    /// Makes a symbolic link.
    Symlink(Symlink),
}

impl FileActionKind {
    pub(crate) fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Copy(action) => action.owner.as_ref(),
            Self::Mkdir(action) => action.owner.as_ref(),
            Self::Mkfile(action) => action.owner.as_ref(),
            Self::Symlink(action) => action.owner.as_ref(),
            Self::Rm(_) => None,
        }
    }

    fn summary(&self) -> String {
        match self {
            Self::Copy(action) => format!("copy {} {}", action.source, action.dest),
            Self::Mkdir(action) => format!("mkdir {}", action.path),
            Self::Mkfile(action) => format!("mkfile {}", action.path),
            Self::Rm(action) => format!("rm {}", action.path),
            Self::Symlink(action) => format!("symlink {} -> {}", action.new_path, action.old_path),
        }
    }
}

macro_rules! actions {
    ($($kind:ident),*) => {
        $(impl From<$kind> for FileActionKind {
            fn from(action: $kind) -> Self {
                Self::$kind(action)
            }
        })*
    };
}

actions!(Copy, Mkdir, Mkfile, Rm, Symlink);

/// Copies files from one tree into another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The tree that is copied from.
    pub from: FileInput,
    /// The path in it.
    pub source: String,
    /// The path in the changed tree; a folder where it ends in `/`.
    pub dest: String,
    /// The copies' owner; the source's where absent.
    pub owner: Option<Owner>,
    /// The copies' permission bits; the source's where absent.
    pub mode: Option<u32>,
    /// The copies' permission bits as `chmod` reads them (`u+x`); empty where [`Copy::mode`] holds.
    pub mode_text: String,
    /// Whether a link named by [`Copy::source`] is followed.
    pub follow_symlink: bool,
    /// Whether a folder's content is copied and not the folder itself.
    pub contents_only: bool,
    /// Whether an archive is unpacked, as Dockerfile's ADD does.
    pub unpack: bool,
    /// Whether missing parents of [`Copy::dest`] are made.
    pub make_parents: bool,
    /// Whether [`Copy::source`] is a pattern.
    pub wildcard: bool,
    /// Whether a pattern that matches nothing is a success.
    pub allow_empty_wildcard: bool,
    /// The copies' time, in nanoseconds since 1970; the source's where absent.
    pub timestamp_ns: Option<i64>,
    /// Copies only what these patterns match.
    pub include: Vec<String>,
    /// Leaves out what these patterns match.
    pub exclude: Vec<String>,
    /// Paths that must be there.
    pub required: Vec<String>,
    /// Whether an existing file of another kind is replaced.
    pub always_replace: bool,
}

impl Copy {
    /// Copies `source` of `from` to `dest`, keeping mode, owner and time.
    pub fn new(from: impl Into<FileInput>, source: &str, dest: &str) -> Self {
        Self {
            from: from.into(),
            source: source.to_owned(),
            dest: dest.to_owned(),
            owner: None,
            mode: None,
            mode_text: String::new(),
            follow_symlink: false,
            contents_only: false,
            unpack: false,
            make_parents: false,
            wildcard: false,
            allow_empty_wildcard: false,
            timestamp_ns: None,
            include: Vec::new(),
            exclude: Vec::new(),
            required: Vec::new(),
            always_replace: false,
        }
    }
}

/// Makes a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mkdir {
    /// The folder.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Whether missing parents are made, and an existing folder is a success.
    pub make_parents: bool,
    /// Its owner; root where absent.
    pub owner: Option<Owner>,
    /// Its time, in nanoseconds since 1970; the solver's clock where absent.
    pub timestamp_ns: Option<i64>,
}

impl Mkdir {
    /// Makes `path`, whose parent must be there, as root's.
    pub fn new(path: &str, mode: u32) -> Self {
        Self { path: path.to_owned(), mode, make_parents: false, owner: None, timestamp_ns: None }
    }
}

/// Makes a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mkfile {
    /// The file.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its content.
    pub data: Vec<u8>,
    /// Its owner; root where absent.
    pub owner: Option<Owner>,
    /// Its time, in nanoseconds since 1970; the solver's clock where absent.
    pub timestamp_ns: Option<i64>,
}

impl Mkfile {
    /// Makes `path` with the content `data`, as root's.
    pub fn new(path: &str, mode: u32, data: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), mode, data: data.into(), owner: None, timestamp_ns: None }
    }
}

/// Removes files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rm {
    /// The path or pattern.
    pub path: String,
    /// Whether nothing to remove is a success.
    pub allow_not_found: bool,
    /// Whether [`Rm::path`] is a pattern.
    pub wildcard: bool,
}

impl Rm {
    /// Removes `path`, which must be there.
    pub fn new(path: &str) -> Self {
        Self { path: path.to_owned(), allow_not_found: false, wildcard: false }
    }
}

/// Makes a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symlink {
    /// What the link says.
    pub old_path: String,
    /// Where the link is.
    pub new_path: String,
    /// Its owner; root where absent.
    pub owner: Option<Owner>,
    /// Its time, in nanoseconds since 1970; the solver's clock where absent.
    pub timestamp_ns: Option<i64>,
}

impl Symlink {
    /// Makes the link `new_path` that says `old_path`, as root's.
    pub fn new(old_path: &str, new_path: &str) -> Self {
        Self { old_path: old_path.to_owned(), new_path: new_path.to_owned(), owner: None, timestamp_ns: None }
    }
}

/// A file's owner and group, as BuildKit reads them: a user alone brings a group along, by number
/// that of the same number and by name that of its entry, and without a user the owner is root. A
/// name that is not found becomes root, without an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user; root where absent.
    pub user: Option<User>,
    /// The group; the user's where absent.
    pub group: Option<User>,
}

impl Owner {
    /// A user and a group by number.
    pub fn ids(user: u32, group: u32) -> Self {
        Self { user: Some(User::Id(user)), group: Some(User::Id(group)) }
    }

    /// A user and a group by name, looked up in `passwd`.
    pub fn named(user: &str, group: &str, passwd: impl Into<FileInput>) -> Self {
        let passwd = passwd.into();
        let named = |name: &str| Some(User::Name { name: name.to_owned(), passwd });
        Self { user: named(user), group: named(group) }
    }

    /// The trees that names are looked up in.
    fn trees(&self) -> impl Iterator<Item = FileInput> {
        [&self.user, &self.group].into_iter().filter_map(|user| match user {
            Some(User::Name { passwd, .. }) => Some(*passwd),
            _ => None,
        })
    }
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// By number.
    Id(u32),
    /// By name, looked up in a tree's `/etc/passwd` or `/etc/group`.
    Name {
        /// The name.
        name: String,
        /// The tree.
        passwd: FileInput,
    },
}
