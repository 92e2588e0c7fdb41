//! Sources that are not images: folders of the caller's, and files by HTTP.
//!
//! 1. A folder is walked through the caller's filter, as for a daemon; every file is hashed.
//! 2. The tree's digest is its content in the cache key. A tree that is known is not read again.
//! 3. Another one is packed into a tar, which a worker unpacks as a layer.
//!
//! Invariant: what the layer holds is what was hashed; a file that changes in between is an error.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sha2::{Digest as _, Sha256};

use super::key::cache_key;
use super::layers::measure;
use super::operate::{Operator, unsupported};
use super::report::Report;
use super::result::Ref;
use super::schedule::Operated;
use super::store::{LayerNumber, WorkDir};
use super::trees::pack::pack;
use super::trees::tree::{Kind, Node, Tree};
use super::worker::{Answer, Work};
use crate::buildkit::session::mode as go_mode;
use crate::buildkit::session::walk::{self, Filter};
use crate::op::Source;
use crate::solver::{JobOptions, LocalDir};
use crate::{Digest, Error, Vertex};

/// The largest file that an HTTP source may bring.
const MAX_HTTP_BYTES: u64 = 16 << 30;

impl Operator {
    /// Makes a layer of a folder that the caller offers.
    pub(super) async fn folder(&self, vertex: &Vertex, source: &Source, report: &Report) -> Result<Operated, Error> {
        let local = offered(&self.options, vertex, source)?.clone();
        let (looked, from) = (local.clone(), source.clone());
        let (content, tree) = self.store(move |_| folder_content(&from, &looked)).await?;
        let key = cache_key(vertex, &[], content.to_string().as_bytes());
        self.cached(
            vertex,
            key,
            report,
            Box::pin(async {
                let tree = match tree {
                    Some(tree) => tree,
                    None => {
                        let (looked, from) = (local.clone(), source.clone());
                        self.store(move |_| hashed_folder(&from, &looked)).await?
                    }
                };
                let folder = File::open(&local.path).map_err(|source| Error::File { path: local.path.clone(), source })?;
                let made = self.layer_of(tree, folder, &[]).await?;
                Ok([(0, made)].into())
            }),
        )
        .await
    }

    /// Makes a layer of the one file that an address gives.
    pub(super) async fn http(&self, vertex: &Vertex, source: &Source, report: &Report) -> Result<Operated, Error> {
        if self.offline {
            return Err(unsupported("the network, which is not to be used"));
        }
        let attr = |key: &str| source.attrs.get(key).map(String::as_str);
        let checksum = checksum(source)?;
        let number = |key: &str, radix, default| attr(key).map_or(Ok(default), |text| u32::from_str_radix(text, radix));
        let numbers = (number("http.perm", 8, 0o600), number("http.uid", 10, 0), number("http.gid", 10, 0));
        let (Ok(mode), Ok(uid), Ok(gid)) = numbers else {
            return Err(Error::Integrity(format!("{}: its mode or owner is no number", source.identifier)));
        };
        let name = attr("http.filename").map_or_else(|| last_part(&source.identifier), str::to_owned);
        // Without a checksum the address says nothing of what it gives: it is asked every time.
        let work = self.store(|store| store.allocate_work()).await?;
        let content = match checksum {
            Some(checksum) => checksum,
            None => self.download(source, &work, &name, report).await?.0,
        };
        let key = cache_key(vertex, &[], content.to_string().as_bytes());
        let operated = self.cached(
            vertex,
            key,
            report,
            Box::pin(async {
                let (digest, size_bytes) = match checksum {
                    None => (content, std::fs::metadata(work.path().join(&name)).map_or(0, |meta| meta.len())),
                    Some(expected) => {
                        let (actual, size_bytes) = self.download(source, &work, &name, report).await?;
                        if actual != expected {
                            return Err(Error::Integrity(format!("{} gives {actual}, not {expected}", source.identifier)));
                        }
                        (actual, size_bytes)
                    }
                };
                let mut tree = Tree::new();
                let kind = Kind::File { size_bytes, digest };
                let node = Node { mode, uid, gid, mtime_ns: 0, xattrs: BTreeMap::new(), kind };
                tree.nodes.insert(name.clone().into_bytes(), node);
                let folder = File::open(work.path()).map_err(|source| Error::Store { path: work.path().to_owned(), source })?;
                let made = self.layer_of(tree, folder, &[]).await?;
                Ok([(0, made)].into())
            }),
        );
        let Operated { outputs, cached } = operated.await?;
        // What was downloaded to be known was not cached.
        Ok(Operated { outputs, cached: cached && checksum.is_some() })
    }

    async fn download(&self, source: &Source, work: &WorkDir, name: &str, report: &Report) -> Result<(Digest, u64), Error> {
        let url = &source.identifier;
        let failed = |reason: String, transient| Error::Registry { reference: url.clone(), reason, transient };
        let answer = self.http.get(url).send().await.map_err(|error| failed(error.to_string(), true))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(failed(format!("the server answers {status}"), status.is_server_error()));
        }
        let path = work.path().join(name);
        let wrong = |source| Error::Store { path: path.clone(), source };
        let mut file = tokio::fs::File::create(&path).await.map_err(wrong)?;
        let (mut hash, mut size_bytes) = (Sha256::new(), 0_u64);
        let mut answer = answer;
        while let Some(piece) = answer.chunk().await.map_err(|error| failed(error.to_string(), true))? {
            size_bytes += piece.len() as u64;
            if size_bytes > MAX_HTTP_BYTES {
                return Err(Error::Resource(format!("{url} gives more than {MAX_HTTP_BYTES} bytes")));
            }
            hash.update(&piece);
            tokio::io::AsyncWriteExt::write_all(&mut file, &piece).await.map_err(wrong)?;
            report.part("downloading", size_bytes, 0, false).await;
        }
        tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(wrong)?;
        Ok((Digest::from_sha256(hash.finalize().into()), size_bytes))
    }

    /// Makes a layer of the nodes of `tree`, whose files lie in `folder`.
    async fn layer_of(&self, tree: Tree, folder: File, below: &[LayerNumber]) -> Result<Ref, Error> {
        let begun = self.begin(below.to_vec()).await?;
        let expected = tree.content_digest();
        let feed = move |out: &mut dyn Write| pack(&tree, folder.as_fd(), out, None).map_err(io::Error::other);
        let work = Work::Unpack { into: begun.work.name(), below: Vec::new() };
        let (answer, ()) = self.run_fed(work, feed).await?;
        if answer != Answer::Done {
            return Err(super::run::nonsense("unpacking"));
        }
        if measure(&begun.work)?.0 != expected {
            return Err(Error::Integrity("a file changed while it was read: run the same command again".to_owned()));
        }
        self.finish(begun, false).await
    }
}

fn last_part(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    match path.rsplit('/').next() {
        Some(name) if !matches!(name, "" | "." | "..") => name.to_owned(),
        _ => "download".to_owned(),
    }
}

/// Finds the folder of the caller's that a source names.
pub(super) fn offered<'a>(options: &'a JobOptions, vertex: &Vertex, source: &Source) -> Result<&'a LocalDir, Error> {
    let name = source.reference();
    options.locals.get(name).ok_or_else(|| Error::Step {
        vertex: Some(vertex.digest),
        name: vertex.name(),
        exit_code: None,
        reason: format!("the folder {name:?} is not offered").into(),
        hint: None,
    })
}

/// Finds out what a folder holds, and its tree where that had to be read for it.
pub(super) fn folder_content(source: &Source, local: &LocalDir) -> Result<(Digest, Option<Tree>), Error> {
    // The op itself names a content that the caller knows.
    let known = local.content.filter(|content| source.attrs.get("local.sharedkeyhint") == Some(&content.hex()));
    match known {
        Some(content) => Ok((content, None)),
        None => hashed_folder(source, local).map(|tree| (tree.content_digest(), Some(tree))),
    }
}

/// Reads which content an address is to give, where the source says so.
pub(super) fn checksum(source: &Source) -> Result<Option<Digest>, Error> {
    let checksum = source.attrs.get("http.checksum").map(|text| text.parse::<Digest>()).transpose();
    checksum.map_err(|error| Error::Integrity(format!("http.checksum: {error}")))
}

/// Walks an offered folder through the source's patterns.
fn hashed_folder(source: &Source, local: &LocalDir) -> Result<Tree, Error> {
    let name = source.reference();
    let list = |key: &str| -> Result<Vec<String>, Error> {
        let text = source.attrs.get(key).map_or("[]", String::as_str);
        serde_json::from_str(text).map_err(|error| Error::Integrity(format!("{key} of the folder {name:?} is no list: {error}")))
    };
    let (include, exclude, follow) = (list("local.includepattern")?, list("local.excludepatterns")?, list("local.followpaths")?);
    hashed(local, include, &exclude, &follow)
}

/// Walks a folder and hashes what is in it.
fn hashed(local: &LocalDir, include: Vec<String>, exclude: &[String], follow: &[String]) -> Result<Tree, Error> {
    let filter = Filter::new(local, include, exclude, follow).map_err(|error| match error {
        walk::FilterError::Folder(error) => error,
        walk::FilterError::Pattern(error) => Error::Integrity(format!("patterns of {}: {error}", local.path.display())),
    })?;
    let folder = File::open(&local.path).map_err(|source| Error::File { path: local.path.clone(), source })?;
    let mut tree = Tree::new();
    let mut paths: Vec<String> = Vec::new();
    let mut failed = None;
    walk::walk(local, &filter, &mut |found| {
        let path = match found.parent {
            Some(parent) => format!("{}/{}", paths[parent as usize], found.name),
            None => found.name.clone(),
        };
        let kind = match found.stat.mode & go_mode::TYPE {
            go_mode::DIR => Kind::Folder { opaque: false },
            go_mode::SYMLINK => Kind::Symlink { target: found.stat.linkname.clone().into_bytes() },
            go_mode::PIPE => Kind::Fifo,
            0 => match digest_of(&folder, &path) {
                Ok((digest, size_bytes)) => Kind::File { size_bytes, digest },
                Err(source) => {
                    failed = Some(Error::File { path: local.path.join(&path), source });
                    return ControlFlow::Break(());
                }
            },
            _ => {
                failed = Some(unsupported(&format!("devices in a folder that is sent ({path})")));
                return ControlFlow::Break(());
            }
        };
        let node =
            Node { mode: found.stat.mode & 0o777, uid: 0, gid: 0, mtime_ns: found.stat.mod_time, xattrs: BTreeMap::new(), kind };
        tree.nodes.insert(path.clone().into_bytes(), node);
        paths.push(path);
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(tree), Err)
}

/// Hashes a file beneath `folder`; a link that was put in its way is an error.
fn digest_of(folder: &File, path: &str) -> io::Result<(Digest, u64)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut file = File::from(rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve)?);
    let mut hash = Sha256::new();
    let size_bytes = io::copy(&mut file, &mut hash)?;
    Ok((Digest::from_sha256(hash.finalize().into()), size_bytes))
}
