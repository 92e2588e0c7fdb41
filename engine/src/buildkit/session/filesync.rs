//! `moby.filesync.v1.FileSync`: sends offered folders (`fsutil/send.go`'s side of the protocol).
//!
//! 1. The daemon calls `DiffCopy` with a folder's name and patterns in the metadata.
//! 2. A walk sends one STAT for each entry, then an empty one; entries are numbered in that order.
//! 3. For a REQ with such a number the content follows as DATA, then an empty DATA.
//! 4. FIN is answered by FIN. An error on this side is an ERR packet and the end of the stream.
//!
//! What differs from what Go's clients send: owners are 0, a file's time is a function of its
//! content ([`walk::content_time_ns`](super::walk::content_time_ns)), extended attributes are left
//! out and hard links are files of their own, so that a tree is the same from every machine.
//!
//! Invariant: the content that is sent is the content that the STAT was made of. A file that
//! changed in between is an error; the daemon would otherwise keep the new content under the old
//! one's time and serve it in later jobs.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::v1::file_sync_server;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::beneath::{Dir, descend, shown};
use super::walk::{self, Filter, FilterError};
use super::{Failure, mode};
use crate::Error;
use crate::solver::LocalDir;

/// The most that one DATA packet carries, as `fsutil` has it.
const CHUNK_BYTES: usize = 32 << 10;

/// How many packets wait for a slow daemon.
const QUEUE: usize = 64;

/// Answers with the job's folders.
pub(super) struct FileSync {
    locals: BTreeMap<String, LocalDir>,
    failure: Failure,
}

impl FileSync {
    pub(super) fn new(locals: BTreeMap<String, LocalDir>, failure: Failure) -> Self {
        Self { locals, failure }
    }
}

type Packets = ReceiverStream<Result<Packet, Status>>;

#[async_trait::async_trait]
impl file_sync_server::FileSync for FileSync {
    type DiffCopyStream = Packets;
    type TarStreamStream = Packets;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        let wanted = Wanted::read(request.metadata())?;
        let local = self.locals.get(&wanted.name).cloned();
        let local = local.ok_or_else(|| Status::permission_denied(format!("no access allowed to dir {:?}", wanted.name)))?;
        let (packets, receiver) = mpsc::channel(QUEUE);
        let transfer = Transfer { local: Arc::new(local), packets, failure: self.failure.clone() };
        tokio::spawn(transfer.run(wanted, request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented("folders are sent by DiffCopy alone"))
    }
}

/// What a call's metadata asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    include: Vec<String>,
    exclude: Vec<String>,
    follow: Vec<String>,
}

impl Wanted {
    fn read(metadata: &MetadataMap) -> Result<Self, Status> {
        Ok(Self {
            name: values(metadata, "dir-name")?.into_iter().next().unwrap_or_default(),
            include: values(metadata, "include-patterns")?,
            exclude: values(metadata, "exclude-patterns")?,
            follow: values(metadata, "followpaths")?,
        })
    }
}

/// Reads a key's values; with `<key>-encoded` they are query-escaped.
fn values(metadata: &MetadataMap, key: &str) -> Result<Vec<String>, Status> {
    let encoded = metadata.get(format!("{key}-encoded")).is_some_and(|flag| matches!(flag.as_bytes(), b"1" | b"t" | b"true"));
    metadata
        .get_all(key)
        .iter()
        .map(|value| {
            let bytes = if encoded { unescape(value.as_bytes()) } else { Some(value.as_bytes().to_vec()) };
            bytes
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| Status::invalid_argument(format!("{key} is not text")))
        })
        .collect()
}

/// Undoes Go's `url.QueryEscape`.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            _ => byte,
        });
    }
    Some(bytes)
}

/// One call of `DiffCopy`.
struct Transfer {
    local: Arc<LocalDir>,
    packets: mpsc::Sender<Result<Packet, Status>>,
    failure: Failure,
}

impl Transfer {
    async fn run(self, wanted: Wanted, requests: Streaming<Packet>) {
        if let Err(status) = self.exchange(wanted, requests).await {
            let error =
                Packet { r#type: PacketType::PacketErr.into(), data: status.message().as_bytes().to_vec(), ..Packet::default() };
            // A daemon that is gone needs no answer.
            let _ = self.packets.send(Ok(error)).await;
            let _ = self.packets.send(Err(status)).await;
        }
    }

    async fn exchange(&self, wanted: Wanted, mut requests: Streaming<Packet>) -> Result<(), Status> {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let walking = tokio::task::spawn_blocking({
            let (local, packets, sent) = (Arc::clone(&self.local), self.packets.clone(), Arc::clone(&sent));
            move || send_stats(&local, wanted, &packets, &sent)
        });
        let (ids, queue) = mpsc::unbounded_channel();
        let reading = tokio::task::spawn_blocking({
            let (local, packets, sent) = (Arc::clone(&self.local), self.packets.clone(), Arc::clone(&sent));
            move || send_contents(&local, queue, &packets, &sent)
        });
        let listening = listen(&mut requests, &sent, ids);

        let walking = async { self.outcome(walking.await) };
        let reading = async { self.outcome(reading.await) };
        tokio::try_join!(walking, reading, listening)?;
        let fin = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
        self.packets.send(Ok(fin)).await.map_err(|_| gone())
    }

    fn outcome(&self, result: Result<Result<(), FilterError>, tokio::task::JoinError>) -> Result<(), Status> {
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(FilterError::Pattern(error))) => Err(Status::invalid_argument(error.to_string())),
            Ok(Err(FilterError::Folder(error))) => Err(self.failure.record(error)),
            Err(_) => Err(Status::internal("sending a folder broke off")),
        }
    }
}

fn gone() -> Status {
    Status::cancelled("the daemon is gone")
}

/// What is kept of an entry that was sent: enough to open it and to know it again.
struct Sent {
    parent: Option<u32>,
    name: Box<str>,
    /// The time that the content was sent with, of a regular file that may still be asked for.
    content: Option<i64>,
}

type Listing = Mutex<Vec<Sent>>;

fn lock(listing: &Listing) -> std::sync::MutexGuard<'_, Vec<Sent>> {
    listing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the daemon's packets until its FIN; each file can be asked for once.
async fn listen(requests: &mut Streaming<Packet>, sent: &Listing, ids: mpsc::UnboundedSender<Asked>) -> Result<(), Status> {
    while let Some(packet) = requests.message().await? {
        match packet.r#type() {
            PacketType::PacketReq => {
                let content = lock(sent).get_mut(packet.id as usize).and_then(|entry| entry.content.take());
                let time_ns = content.ok_or_else(|| Status::invalid_argument(format!("invalid file id {}", packet.id)))?;
                // The reader ends early only with an error of its own.
                let _ = ids.send(Asked { id: packet.id, time_ns });
            }
            PacketType::PacketFin => return Ok(()),
            PacketType::PacketErr => {
                return Err(Status::aborted(format!("the daemon gave up: {}", String::from_utf8_lossy(&packet.data))));
            }
            PacketType::PacketStat | PacketType::PacketData => {
                return Err(Status::invalid_argument("a STAT or DATA packet makes no sense here"));
            }
        }
    }
    Err(gone())
}

/// A file that the daemon wants.
struct Asked {
    id: u32,
    time_ns: i64,
}

fn send_stats(
    local: &LocalDir,
    wanted: Wanted,
    packets: &mpsc::Sender<Result<Packet, Status>>,
    sent: &Listing,
) -> Result<(), FilterError> {
    let filter = Filter::new(local, wanted.include, &wanted.exclude, &wanted.follow)?;
    let send = |stat: Option<Stat>| {
        let packet = Packet { r#type: PacketType::PacketStat.into(), stat, ..Packet::default() };
        if packets.blocking_send(Ok(packet)).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    walk::walk(local, &filter, &mut |found| {
        let content = (found.stat.mode & mode::TYPE == 0).then_some(found.stat.mod_time);
        lock(sent).push(Sent { parent: found.parent, name: found.name.into(), content });
        send(Some(found.stat))
    })?;
    let _ = send(None);
    Ok(())
}

fn send_contents(
    local: &LocalDir,
    mut queue: mpsc::UnboundedReceiver<Asked>,
    packets: &mpsc::Sender<Result<Packet, Status>>,
    sent: &Listing,
) -> Result<(), FilterError> {
    // Files are mostly asked for folder by folder.
    let mut open: Option<(Option<u32>, Dir)> = None;
    while let Some(asked) = queue.blocking_recv() {
        let (parent, names) = place(&lock(sent), asked.id);
        let failed = |source| Error::File { path: shown(&local.path, &names.join("/")), source };
        let (name, folders) = names.split_last().expect("an entry has a name");
        let dir = match open.take() {
            Some((index, dir)) if index == parent => dir,
            _ => Dir::root(&local.path).and_then(|root| descend(root, folders.iter().map(|name| &**name))).map_err(failed)?,
        };
        let going = send_content(&dir, name, &asked, packets).map_err(failed)?;
        if going.is_break() {
            return Ok(());
        }
        open = Some((parent, dir));
    }
    Ok(())
}

/// Returns an entry's folder and the names on the way to it.
fn place(sent: &[Sent], id: u32) -> (Option<u32>, Vec<Box<str>>) {
    let parent = sent[id as usize].parent;
    let mut names = Vec::new();
    let mut next = Some(id);
    while let Some(index) = next {
        let entry = &sent[index as usize];
        names.push(entry.name.clone());
        next = entry.parent;
    }
    names.reverse();
    (parent, names)
}

fn send_content(
    dir: &Dir,
    name: &str,
    asked: &Asked,
    packets: &mpsc::Sender<Result<Packet, Status>>,
) -> io::Result<ControlFlow<()>> {
    let (mut file, _) = dir.read(name)?;
    let mut hash = Sha256::new();
    loop {
        let mut data = vec![0; CHUNK_BYTES];
        let read = walk::read(&mut file, &mut data)?;
        data.truncate(read);
        hash.update(&data);
        if read == 0 && walk::content_time_ns(&hash.clone().finalize().into()) != asked.time_ns {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file changed while it was sent; run again"));
        }
        let packet = Packet { r#type: PacketType::PacketData.into(), id: asked.id, data, ..Packet::default() };
        if packets.blocking_send(Ok(packet)).is_err() {
            return Ok(ControlFlow::Break(()));
        }
        if read == 0 {
            return Ok(ControlFlow::Continue(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_as_buildkit_writes_it() {
        let mut metadata = MetadataMap::new();
        metadata.insert("dir-name", "context".parse().expect("a value"));
        metadata.append("exclude-patterns", "target".parse().expect("a value"));
        metadata.append("exclude-patterns", "a+b%41".parse().expect("a value"));
        metadata.append("include-patterns", "a+b%2F%C3%A9%25".parse().expect("a value"));
        metadata.insert("include-patterns-encoded", "1".parse().expect("a value"));
        let wanted = Wanted::read(&metadata).expect("metadata");
        assert_eq!(
            wanted,
            Wanted {
                name: "context".to_owned(),
                include: vec!["a b/é%".to_owned()],
                exclude: vec!["target".to_owned(), "a+b%41".to_owned()],
                follow: vec![],
            }
        );
        metadata.insert("include-patterns", "a%4".parse().expect("a value"));
        assert_eq!(Wanted::read(&metadata).map_err(|status| status.code()), Err(tonic::Code::InvalidArgument));
    }
}
