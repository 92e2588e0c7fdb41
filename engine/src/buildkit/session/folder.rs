//! Receives a folder as `fsutil` packets (`fsutil/receive.go`'s side of the protocol).
//!
//! 1. The daemon sends one STAT for each entry, in order, then an empty one.
//! 2. Content is asked for with REQ, at most [`OUTSTANDING`] files at a time, and comes as DATA.
//! 3. When all of it is there, FIN is sent and answered by FIN.
//!
//! Invariant: nothing lands outside the folder, whatever the daemon sends. Paths are clean,
//! relative and in order, and their folders were sent before; every step on the way is opened
//! without following links; content goes to a new file beside its place and is renamed. What is
//! there already is replaced file by file and nothing is deleted. Owners, extended attributes,
//! setuid, setgid and sticky bits are not taken over; devices, pipes and sockets are left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::archive::failed;
use super::beneath::{Dir, descend, finish_file, is_name, shown};
use super::{Failure, mode};
use crate::Error;

/// How many files are asked for at once, and so may be open.
const OUTSTANDING: usize = 64;

/// The most entries that a folder may have.
const LIMIT_ENTRIES: u32 = 5_000_000;

/// The longest path and link target, in bytes, as Linux has it.
const LIMIT_PATH_BYTES: usize = 4096;

/// A device that is read by the character.
const DEVICE_BY_CHARACTER: u32 = mode::DEVICE | mode::CHAR_DEVICE;

type Answers = mpsc::Sender<Result<Bytes, Status>>;

/// Receives a whole folder into `dest`, which is made where it is missing. `id` is the job's.
pub(super) async fn receive(
    dest: &Path,
    id: &str,
    mut messages: Streaming<Bytes>,
    answers: &Answers,
    failure: &Failure,
) -> Result<(), Status> {
    let (packets, mut queue) = mpsc::channel::<Packet>(64);
    let mut writing = tokio::task::spawn_blocking({
        let (dest, id, answers) = (dest.to_owned(), id.to_owned(), answers.clone());
        move || {
            let mut folder = Folder::open(dest, &id)?;
            while let Some(packet) = queue.blocking_recv() {
                folder.packet(packet, &answers)?;
                if folder.done {
                    return Ok(());
                }
            }
            Err(refused("the stream broke off"))
        }
    });
    let receiving = async move {
        while let Some(message) = messages.message().await? {
            let packet = Packet::decode(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
            // A writer that ended has its result to tell.
            if packets.send(packet).await.is_err() {
                break;
            }
        }
        drop(packets);
        Ok::<(), Status>(())
    };
    // The daemon keeps its side open until this one has ended: the writer says when that is.
    let written = tokio::select! {
        biased;
        written = &mut writing => written,
        received = receiving => {
            received?;
            writing.await
        }
    };
    written.map_err(|_| Status::internal("writing the folder broke off"))?.map_err(|error| failure.record(error))
}

fn refused(reason: impl Into<String>) -> Error {
    Error::Daemon { doing: "sending the files of the result".to_owned(), reason: reason.into() }
}

/// A folder that is being received.
struct Folder {
    root: PathBuf,
    /// Where temporary files' names start.
    prefix: String,
    /// The folders on the way to the last STAT, with the last name that was sent in each.
    levels: Vec<(String, String)>,
    count: u32,
    complete: bool,
    fin_sent: bool,
    done: bool,
    free_bytes: u64,
    /// Files to ask for, and those that are asked for.
    waiting: VecDeque<Incoming>,
    asked: BTreeMap<u32, Incoming>,
    /// Every regular file so far: what hard links may name.
    files: BTreeSet<String>,
    links: Vec<(String, String)>,
    /// New folders, whose modes and times are set in the end.
    dirs: Vec<(String, u32, i64)>,
    last: Option<(String, Dir)>,
}

/// A regular file that is to come.
struct Incoming {
    id: u32,
    stat: Stat,
    /// The temporary file and how much is in it, once something came.
    open: Option<(File, u64)>,
}

impl Folder {
    fn open(root: PathBuf, id: &str) -> Result<Self, Error> {
        std::fs::create_dir_all(&root).map_err(|error| failed(&root, error))?;
        let free_bytes = Dir::root(&root).and_then(|dir| dir.free_bytes()).map_err(|error| failed(&root, error))?;
        let id: String = id.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        Ok(Self {
            root,
            prefix: format!(".{id}"),
            levels: vec![(String::new(), String::new())],
            count: 0,
            complete: false,
            fin_sent: false,
            done: false,
            free_bytes,
            waiting: VecDeque::new(),
            asked: BTreeMap::new(),
            files: BTreeSet::new(),
            links: Vec::new(),
            dirs: Vec::new(),
            last: None,
        })
    }

    fn packet(&mut self, packet: Packet, answers: &Answers) -> Result<(), Error> {
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::PacketStat) if self.complete => return Err(refused("an entry after the last one")),
            Ok(PacketType::PacketStat) => match packet.stat {
                Some(stat) => self.stat(stat)?,
                None => self.complete = true,
            },
            Ok(PacketType::PacketData) => self.data(packet.id, &packet.data)?,
            Ok(PacketType::PacketErr) => return Err(refused(String::from_utf8_lossy(&packet.data))),
            Ok(PacketType::PacketFin) if self.fin_sent => self.done = true,
            Ok(PacketType::PacketFin) => return Err(refused("the end before all content was sent")),
            Ok(PacketType::PacketReq) | Err(_) => return Err(refused(format!("a packet of type {}", packet.r#type))),
        }
        while self.asked.len() < OUTSTANDING
            && let Some(incoming) = self.waiting.pop_front()
        {
            send(answers, PacketType::PacketReq, incoming.id)?;
            self.asked.insert(incoming.id, incoming);
        }
        if self.complete && self.asked.is_empty() && !self.fin_sent {
            self.finish()?;
            send(answers, PacketType::PacketFin, 0)?;
            self.fin_sent = true;
        }
        Ok(())
    }

    fn stat(&mut self, stat: Stat) -> Result<(), Error> {
        let id = self.count;
        self.count += 1;
        if self.count > LIMIT_ENTRIES {
            return Err(Error::Resource(format!("the result has more than {LIMIT_ENTRIES} files; export an archive instead")));
        }
        self.check_order(&stat.path)?;
        let (parent, name) = split(&stat.path);
        match stat.mode & mode::TYPE {
            mode::DIR => {
                let dir = self.parent(parent)?;
                match dir.make_dir(name) {
                    Ok(()) => self.dirs.push((stat.path.clone(), stat.mode, stat.mod_time)),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        // Opening it shows that it is a folder and no link to one.
                        dir.dir(name).map_err(|error| self.failed(&stat.path, error))?;
                    }
                    Err(error) => return Err(self.failed(&stat.path, error)),
                }
                self.levels.push((stat.path, String::new()));
            }
            mode::SYMLINK => {
                if stat.linkname.is_empty() || stat.linkname.len() > LIMIT_PATH_BYTES || stat.linkname.contains('\0') {
                    return Err(refused(format!("{:?} links to no possible path", stat.path)));
                }
                let temporary = self.temporary(id);
                let dir = self.parent(parent)?;
                let made = dir.make_link(&temporary, &stat.linkname).and_then(|()| replace(dir, &temporary, name));
                made.map_err(|error| self.failed(&stat.path, error))?;
            }
            0 if !stat.linkname.is_empty() => {
                if !self.files.contains(&stat.linkname) {
                    return Err(refused(format!("{:?} is the same file as {:?}, which was not sent", stat.path, stat.linkname)));
                }
                self.links.push((stat.linkname, stat.path));
            }
            0 => {
                let size_bytes = u64::try_from(stat.size)
                    .map_err(|_| refused(format!("{:?} has a size of {} bytes", stat.path, stat.size)))?;
                self.free_bytes = self.free_bytes.checked_sub(size_bytes).ok_or_else(|| {
                    Error::Resource(format!(
                        "{}: the result does not fit; free some space or choose another place",
                        self.root.display()
                    ))
                })?;
                self.files.insert(stat.path.clone());
                self.waiting.push_back(Incoming { id, stat, open: None });
            }
            // Base images have some (`dev/console`), and only root may make a device.
            mode::DEVICE | DEVICE_BY_CHARACTER | mode::PIPE | mode::SOCKET => {}
            _ => return Err(refused(format!("{:?} has a type that no file has", stat.path))),
        }
        Ok(())
    }

    /// Accepts a path only after its folder's and after its siblings that sort before it.
    fn check_order(&mut self, path: &str) -> Result<(), Error> {
        if path.len() > LIMIT_PATH_BYTES || !path.split('/').all(is_name) {
            return Err(refused(format!("{:?} is no path beneath the folder", path.chars().take(200).collect::<String>())));
        }
        let (parent, name) = split(path);
        while self.levels.last().is_some_and(|(folder, _)| folder != parent) {
            self.levels.pop();
        }
        match self.levels.last_mut() {
            Some((_, last)) if last.as_str() < name => {
                name.clone_into(last);
                Ok(())
            }
            _ => Err(refused(format!("{path:?} is out of order or in a folder that was not sent"))),
        }
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), Error> {
        let mut incoming =
            self.asked.remove(&id).ok_or_else(|| refused(format!("content of file {id}, which was not asked for")))?;
        let (parent, name) = split(&incoming.stat.path);
        let temporary = self.temporary(id);
        let (mut file, mut written) = match incoming.open.take() {
            Some(open) => open,
            None => (self.parent(parent)?.create(&temporary).map_err(|error| self.failed(&incoming.stat.path, error))?, 0),
        };
        written += data.len() as u64;
        let result =
            if written > incoming.stat.size.unsigned_abs() || (data.is_empty() && written != incoming.stat.size.unsigned_abs()) {
                Err(refused(format!("{:?} has another size than was said", incoming.stat.path)))
            } else if data.is_empty() {
                finish_file(&file, incoming.stat.mode, incoming.stat.mod_time)
                    .map_err(|error| self.failed(&incoming.stat.path, error))
                    .and_then(|()| {
                        self.parent(parent)?.rename(&temporary, name).map_err(|error| self.failed(&incoming.stat.path, error))
                    })
            } else {
                file.write_all(data).map_err(|error| self.failed(&incoming.stat.path, error))
            };
        if result.is_err() || !data.is_empty() {
            // Files that are still asked for are removed with the folder's state.
            incoming.open = Some((file, written));
            self.asked.insert(id, incoming);
        }
        result
    }

    fn finish(&mut self) -> Result<(), Error> {
        for (target, path) in std::mem::take(&mut self.links) {
            let temporary = format!("{}.link.partial", self.prefix);
            let (target_parent, target_name) = split(&target);
            let (parent, name) = split(&path);
            let root = Dir::root(&self.root).map_err(|error| self.failed("", error))?;
            let from = descend(root, target_parent.split('/').filter(|part| !part.is_empty()));
            let from = from.map_err(|error| self.failed(&target, error))?;
            let dir = self.parent(parent)?;
            let made = from.hard_link(target_name, dir, &temporary).and_then(|()| replace(dir, &temporary, name));
            made.map_err(|error| self.failed(&path, error))?;
        }
        // Inner folders first: an outer one may become unwritable, and its time changes with its entries.
        for (path, permissions, mtime_ns) in std::mem::take(&mut self.dirs).into_iter().rev() {
            self.parent(&path)?.finish(permissions, mtime_ns).map_err(|error| self.failed(&path, error))?;
        }
        Ok(())
    }

    /// Opens a folder by its path; the one that was opened last is kept.
    fn parent(&mut self, path: &str) -> Result<&Dir, Error> {
        let dir = match self.last.take() {
            Some((known, dir)) if known == path => dir,
            _ => Dir::root(&self.root)
                .and_then(|root| descend(root, path.split('/').filter(|part| !part.is_empty())))
                .map_err(|error| self.failed(path, error))?,
        };
        Ok(&self.last.insert((path.to_owned(), dir)).1)
    }

    fn temporary(&self, id: u32) -> String {
        format!("{}.{id}.partial", self.prefix)
    }

    fn failed(&self, path: &str, error: io::Error) -> Error {
        failed(&shown(&self.root, path), error)
    }
}

/// Writes a folder whose entries come from this machine, under the same rules.
#[cfg(target_os = "linux")]
pub(crate) struct FolderWriter(Folder);

#[cfg(target_os = "linux")]
impl FolderWriter {
    /// Opens the folder, which is made where it is missing; `id` is in the names of temporary files.
    pub(crate) fn open(dest: &Path, id: &str) -> Result<Self, Error> {
        Folder::open(dest.to_owned(), id).map(Self)
    }

    /// Writes an entry, in the order in which a walk meets them. `content` hands a regular file's to
    /// the function that it is given, in pieces.
    pub(crate) fn entry(
        &mut self,
        stat: Stat,
        content: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.0.stat(stat)?;
        let Some(incoming) = self.0.waiting.pop_front() else { return Ok(()) };
        let id = incoming.id;
        self.0.asked.insert(id, incoming);
        // A piece of nothing is the end.
        content(&mut |piece| if piece.is_empty() { Ok(()) } else { self.0.data(id, piece) })?;
        self.0.data(id, &[])
    }

    /// Makes hard links, and gives new folders their modes and times.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.0.finish()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for incoming in std::mem::take(&mut self.asked).into_values().filter(|incoming| incoming.open.is_some()) {
            let temporary = self.temporary(incoming.id);
            // There is nobody to tell, and the name says what the file is.
            let _ = self.parent(split(&incoming.stat.path).0).map(|dir| dir.remove(&temporary));
        }
    }
}

/// Renames a new entry to its place, or removes it where that fails.
fn replace(dir: &Dir, temporary: &str, name: &str) -> io::Result<()> {
    if let Err(error) = dir.rename(temporary, name) {
        let _ = dir.remove(temporary);
        return Err(error);
    }
    // Between two names of one file a rename does nothing and leaves both.
    match dir.remove(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn send(answers: &Answers, kind: PacketType, id: u32) -> Result<(), Error> {
    let packet = Packet { r#type: kind.into(), id, ..Packet::default() };
    answers.blocking_send(Ok(packet.encode_to_vec().into())).map_err(|_| refused("the stream broke off"))
}
