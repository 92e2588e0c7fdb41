//! The file `roche.lock`: TOML of a shape that reads and merges well, like cargo's.
//!
//! Invariant: what is read is understood to the last key, or refused with its line; equal locks are
//! equal bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use roche_engine::Digest;
use roche_engine::op::Platform;

use crate::error::{Exit, Failure};

/// The shape's version.
const VERSION: u32 = 1;

/// The largest lock that is read.
const LIMIT_BYTES: u64 = 16 << 20;

const HEADER: &str = "# Written by `roche lock`: the images that releases stand on. It belongs to the project.\n";

/// The locked images, by reference and platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lock {
    images: BTreeMap<(String, String), Locked>,
}

/// A locked image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Locked {
    /// Its manifest's or index's digest.
    pub(crate) digest: Digest,
    /// Its OCI config for the platform, without `rootfs`.
    pub(crate) config: String,
}

impl Lock {
    /// Reads a lock; one that is not there locks nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Failure::say(Exit::Configuration, format!("{} cannot be read: {why}", path.display()))
                .hint("make it a file that can be read, or remove it and run: roche lock")
        };
        let metadata = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unreadable(&error)),
            Ok(metadata) => metadata,
        };
        if !metadata.is_file() {
            return Err(unreadable(&"it is not a regular file"));
        }
        if metadata.len() > LIMIT_BYTES {
            return Err(unreadable(&format!("it has more than {LIMIT_BYTES} bytes")));
        }
        let bytes = std::fs::read(path).map_err(|error| unreadable(&error))?;
        let text = String::from_utf8(bytes).map_err(|_| unreadable(&"it is not UTF-8"))?;
        Self::parse(&text).map_err(|(line, reason)| {
            Failure::say(Exit::Configuration, format!("{}:{line}: {reason}", path.display()))
                .hint("restore the file, or remove it and run: roche lock")
        })
    }

    /// Returns a locked image.
    pub(crate) fn find(&self, reference: &str, platform: &str) -> Option<&Locked> {
        // Not by the map's key, which would have to own both.
        self.images.iter().find(|((name, on), _)| name == reference && on == platform).map(|(_, locked)| locked)
    }

    /// Locks an image.
    pub(crate) fn put(&mut self, reference: String, platform: String, locked: Locked) {
        self.images.insert((reference, platform), locked);
    }

    /// Returns the platforms that images are locked for.
    pub(crate) fn platforms(&self) -> Vec<Platform> {
        self.images.keys().filter_map(|(_, platform)| self::platform(platform)).collect()
    }

    /// Writes the lock down.
    pub(crate) fn text(&self) -> String {
        let mut out = format!("{HEADER}version = {VERSION}\n");
        for ((reference, platform), locked) in &self.images {
            out.push_str("\n[[image]]\n");
            let digest = locked.digest.to_string();
            for (key, value) in
                [("reference", reference), ("platform", platform), ("digest", &digest), ("config", &locked.config)]
            {
                let quoted = serde_json::to_string(value).expect("text is always JSON");
                // What JSON escapes in a string, TOML does too, and it wants one character more.
                let _ = writeln!(out, "{key} = {}", quoted.replace('\u{7f}', "\\u007f"));
            }
        }
        out
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut lock = Self::default();
        let mut version = None;
        let mut image: Option<(usize, BTreeMap<&str, String>)> = None;
        let mut last = 1;
        for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
            last = number;
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line == "[[image]]" {
                lock.close(image.replace((number, BTreeMap::new())))?;
                continue;
            }
            let (key, value) = line.split_once('=').ok_or((number, "expected KEY = VALUE or [[image]]".to_owned()))?;
            let (key, value) = (key.trim(), value.trim());
            match &mut image {
                None if key == "version" => version = Some(of_version(value).map_err(|reason| (number, reason))?),
                Some((_, fields)) if ["reference", "platform", "digest", "config"].contains(&key) => {
                    let text = serde_json::from_str(value)
                        .map_err(|_| (number, format!("{key}: expected a string in double quotes")))?;
                    if fields.insert(key, text).is_some() {
                        return Err((number, format!("{key} is there twice")));
                    }
                }
                _ => return Err((number, format!("{:?} is not known", roche_engine::text::shown(key)))),
            }
            if version.is_none() {
                return Err((number, "expected the version first".to_owned()));
            }
        }
        version.ok_or((last, "expected the version, and there is none".to_owned()))?;
        lock.close(image)?;
        Ok(lock)
    }

    /// Takes in an image whose fields are all read.
    fn close(&mut self, image: Option<(usize, BTreeMap<&str, String>)>) -> Result<(), (usize, String)> {
        let Some((line, mut fields)) = image else { return Ok(()) };
        let mut take = |key: &str| fields.remove(key).ok_or((line, format!("the image has no {key}")));
        let (reference, platform, digest, config) = (take("reference")?, take("platform")?, take("digest")?, take("config")?);
        let wrong = |what: &str, text: &str| (line, format!("the image's {what} is {:?}", roche_engine::text::shown(text)));
        let named: roche_engine::oci::Reference = reference.parse().map_err(|_| wrong("reference", &reference))?;
        if named.to_string() != reference {
            return Err(wrong("reference", &reference));
        }
        if self::platform(&platform).is_none() {
            return Err(wrong("platform", &platform));
        }
        let digest: Digest = digest.parse().map_err(|_| wrong("digest", &digest))?;
        if named.digest().is_some_and(|named| named != digest) {
            return Err((line, "the image's reference and digest are of two images".to_owned()));
        }
        if !serde_json::from_str::<serde_json::Value>(&config).is_ok_and(|config| config.is_object()) {
            return Err((line, "the image's config is not a JSON object".to_owned()));
        }
        match self.images.insert((reference, platform), Locked { digest, config }) {
            None => Ok(()),
            Some(_) => Err((line, "the image is there twice".to_owned())),
        }
    }
}

fn of_version(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(VERSION) => Ok(VERSION),
        Ok(later) if later > VERSION => {
            Err(format!("version {later} was written by a newer roche, and this one reads version {VERSION}"))
        }
        _ => Err(format!("the version is not {VERSION}")),
    }
}

/// Reads `os/architecture[/variant]`.
fn platform(text: &str) -> Option<Platform> {
    let legal = |part: &&str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let parts: Vec<&str> = text.split('/').collect();
    if !parts.iter().all(legal) {
        return None;
    }
    match parts[..] {
        [os, architecture] => Some(Platform::new(os, architecture)),
        [os, architecture, variant] => Some(Platform { variant: variant.to_owned(), ..Platform::new(os, architecture) }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let mut lock = Lock::default();
        let config = "{\"a\":\"quote \\\" and \\\\ and \u{7f}\\n\",\"architecture\":\"amd64\"}".to_owned();
        for (reference, platform) in [("docker.io/library/b:1", "linux/arm/v7"), ("docker.io/library/a:1", "linux/amd64")] {
            let digest = Digest::of(reference.as_bytes());
            lock.put(reference.to_owned(), platform.to_owned(), Locked { digest, config: config.clone() });
        }
        lock
    }

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let text = lock().text();
        assert_eq!(Lock::parse(&text).unwrap(), lock());
        assert_eq!(Lock::parse(&text.replace('\n', "\r\n")).unwrap(), lock());
        assert!(text.lines().all(|line| line.chars().all(|c| !c.is_control())), "{text}");
        assert!(text.find("a:1").unwrap() < text.find("b:1").unwrap());
        assert_eq!(Lock::parse("version = 1").unwrap(), Lock::default());
        let platforms: Vec<String> = lock().platforms().iter().map(ToString::to_string).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm/v7"]);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        let good = lock().text();
        let table = [
            ("", 1, "version"),
            ("version = 2", 1, "newer"),
            ("version = \"1\"", 1, "version"),
            ("version = 0", 1, "version"),
            ("[[image]]", 1, "version"),
            ("# x\n\nnonsense", 3, "expected KEY = VALUE"),
            ("version = 1\n<<<<<<< ours", 2, "expected KEY = VALUE"),
            ("version = 1\nlater = 1", 2, "\"later\""),
            ("version = 1\n[[image]]\nlater = \"x\"", 3, "\"later\""),
            ("version = 1\n[[image]]\ndigest = 'x'", 3, "double quotes"),
            ("version = 1\n[[image]]\ndigest = \"x", 3, "double quotes"),
            ("version = 1\n[[image]]\ndigest = \"x\"\ndigest = \"y\"", 4, "twice"),
            ("version = 1\n[[image]]\ndigest = \"x\"", 2, "no reference"),
        ];
        for (text, line, says) in table {
            let (at, reason) = Lock::parse(text).unwrap_err();
            assert!(at == line && reason.contains(says), "{text:?}: {at}: {reason}");
        }
        let digest = Digest::of(b"docker.io/library/a:1").to_string();
        for (from, to, says) in [
            ("docker.io/library/a:1", "a:1", "reference"),
            ("docker.io/library/a:1", "docker.io/library/A:1", "reference"),
            ("linux/amd64", "linux", "platform"),
            ("linux/amd64", "linux/../x", "platform"),
            (&digest, "sha256:1", "digest"),
            (&digest, "\\u001b[31m", "digest"),
            ("docker.io/library/b:1", "docker.io/library/a:1", "twice"),
            ("{\\\"a", "x", "JSON"),
        ] {
            let text =
                good.replace(from, to).replace("linux/arm/v7", if says == "twice" { "linux/amd64" } else { "linux/arm/v7" });
            let (_, reason) = Lock::parse(&text).unwrap_err();
            assert!(reason.contains(says) && !reason.contains('\u{1b}'), "{from} to {to}: {reason}");
        }
    }
}
