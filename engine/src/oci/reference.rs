//! Image references, by distribution's grammar.
//!
//! Invariant: a [`Reference`] is normalised and legal in every part; its text is what daemons and
//! registries get, unquoted and unescaped.
//!
//! The grammar and the defaults are those of `ParseNormalizedNamed` in
//! <https://github.com/distribution/reference>, with two differences, both of them refusals: a
//! digest must be a sha256, and a host must be one (distribution takes `foo_bar.com/x` for a name
//! without any host, which nothing can pull).

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// The longest path, in bytes.
const MAX_PATH: usize = 255;
/// The longest tag, in bytes.
const MAX_TAG: usize = 128;

/// An image's full name: host, path, and a tag, a digest, both or neither.
///
/// ```
/// use roche_engine::oci::Reference;
/// let reference: Reference = "alpine:3.20".parse()?;
/// assert_eq!(reference.to_string(), "docker.io/library/alpine:3.20");
/// assert_eq!(reference.familiar(), "alpine:3.20");
/// # Ok::<(), roche_engine::oci::ReferenceError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Says why a text is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReferenceError(String);

impl Reference {
    /// Returns the registry as names have it (`docker.io`, `localhost:5000`, `[::1]:5000`).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the repository's path on its registry (`library/alpine`).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest of the manifest or index.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns host and path, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// Returns the reference with this digest; a tag stays.
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// Returns the reference with this tag; a digest stays.
    pub fn with_tag(mut self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag).map_err(|cause| error(&format!("{self}:{tag}"), &cause))?;
        self.tag = Some(tag.to_owned());
        Ok(self)
    }

    /// Returns the reference with the tag `latest` where it has neither tag nor digest.
    pub fn tagged(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// Returns the short form that people write: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let mut short = self.clone();
        if short.host == "docker.io" {
            short.host.clear();
            if let Some(name) = short.path.strip_prefix("library/").filter(|name| !name.contains('/')) {
                short.path = name.to_owned();
            }
        }
        short.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.host.is_empty() {
            write!(f, "{}/", self.host)?;
        }
        f.write_str(&self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Parses and normalises; no tag is added (see [`Reference::tagged`]).
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|cause| error(text, &cause))
    }
}

/// Makes a name, such as a folder's, legal as one component of a path: lower case, with every run
/// of illegal characters as `-`, at most 128 bytes. None where nothing legal is left.
///
/// ```
/// use roche_engine::oci::reference::path_component;
/// assert_eq!(path_component("My App (v2)").as_deref(), Some("my-app-v2"));
/// ```
pub fn path_component(text: &str) -> Option<String> {
    let mut component = String::new();
    let mut separator = String::new();
    for c in text.to_lowercase().chars() {
        if !matches!(c, 'a'..='z' | '0'..='9') {
            separator.push(c);
            continue;
        }
        if !component.is_empty() {
            component.push_str(match separator.as_str() {
                legal if is_separator(legal.as_bytes()) => legal,
                "" => "",
                _ => "-",
            });
        }
        separator.clear();
        component.push(c);
        if component.len() >= 128 {
            component.truncate(128);
            break;
        }
    }
    component.truncate(component.trim_end_matches(['.', '_', '-']).len());
    (!component.is_empty()).then_some(component)
}

fn error(text: &str, cause: &str) -> ReferenceError {
    ReferenceError(format!("{} is not an image reference: {cause}", shown(text)))
}

/// Quotes the first 100 characters; control, bidirectional and other invisible ones are escaped.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(100).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{more}")
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty; give a name such as registry.example/app:1".to_owned());
    }
    if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("64 hex digits are an image id, not a name; put the host or docker.io/library/ before it".to_owned());
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(format!("it contains {c:?}; only ASCII letters, digits and . _ - / : @ [ ] may stand in it"));
    }
    let (host, rest) = split_host(text);
    check_host(&host)?;
    let (path, suffix) = rest.split_at(rest.find([':', '@']).unwrap_or(rest.len()));
    let (tag, digest) = match suffix.split_once('@') {
        Some((tag, digest)) => (tag, Some(check_digest(digest)?)),
        None => (suffix, None),
    };
    check_path(path)?;
    let tag = match tag.strip_prefix(':') {
        Some(tag) => {
            check_tag(tag)?;
            Some(tag.to_owned())
        }
        None => None,
    };
    Ok(Reference { host, path: path.to_owned(), tag, digest })
}

/// Splits the host off and fills in Docker Hub's: what stands before the first slash is a host
/// where it cannot be the first component of a path.
fn split_host(text: &str) -> (String, String) {
    let (host, rest) = match text.split_once('/') {
        Some(("index.docker.io", rest)) => ("docker.io", rest),
        Some((first, rest)) if first == "localhost" || first.contains(|c: char| matches!(c, '.' | ':' | 'A'..='Z')) => {
            (first, rest)
        }
        _ => ("docker.io", text),
    };
    let library = if host == "docker.io" && !rest.contains('/') { "library/" } else { "" };
    (host.to_owned(), format!("{library}{rest}"))
}

fn check_host(host: &str) -> Result<(), String> {
    let name = match host.rfind(':').filter(|_| !host.ends_with(']')) {
        Some(at) if host[at + 1..].is_empty() || !host[at + 1..].bytes().all(|b| b.is_ascii_digit()) => {
            let (name, port) = (shown(&host[..at]), shown(&host[at + 1..]));
            return Err(format!("{port} is not a port of {name}; a port is digits, and names have no https://"));
        }
        Some(at) => &host[..at],
        None => host,
    };
    let legal = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => name.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    if legal {
        return Ok(());
    }
    let name = shown(name);
    Err(format!("{name} is not a host; give a domain name, an IPv4 address or an IPv6 address in brackets, without a zone"))
}

fn check_path(path: &str) -> Result<(), String> {
    if let Some(upper) = path.split('/').find(|part| part.contains(|c: char| c.is_ascii_uppercase())) {
        return Err(format!("{} has upper-case letters; write {}", shown(upper), shown(&upper.to_ascii_lowercase())));
    }
    if path.len() > MAX_PATH {
        return Err(format!("its path has {} characters and may have {MAX_PATH}; shorten it", path.len()));
    }
    for part in path.split('/') {
        if part.is_empty() {
            return Err("a part of its path is empty; remove the slash, or name the part".to_owned());
        }
        if let Some(c) = part.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-')) {
            return Err(format!("{} contains {c:?}; only a to z, 0 to 9, ., _ and - may stand in a path", shown(part)));
        }
        let legal = part.split(|c: char| !matches!(c, '.' | '_' | '-')).all(|run| run.is_empty() || is_separator(run.as_bytes()));
        if !legal || part.starts_with(['.', '_', '-']) || part.ends_with(['.', '_', '-']) {
            let instead = path_component(part).map(|part| format!("; write {}", shown(&part))).unwrap_or_default();
            let part = shown(part);
            return Err(format!("{part} must be letters and digits with one of ., _, __ or dashes between them{instead}"));
        }
    }
    Ok(())
}

/// Says whether letters may be joined by `run`: a dot, one or two underscores, any number of dashes.
fn is_separator(run: &[u8]) -> bool {
    matches!(run, b"." | b"_" | b"__") || (!run.is_empty() && run.iter().all(|b| *b == b'-'))
}

fn check_tag(tag: &str) -> Result<(), String> {
    let remedy = "a tag is up to 128 ASCII letters, digits, _, . and -, and starts with none of the last two";
    if tag.len() > MAX_TAG {
        return Err(format!("its tag has {} characters; {remedy}", tag.len()));
    }
    let legal = tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if tag.is_empty() || !legal || tag.starts_with(['.', '-']) {
        return Err(format!("{tag:?} is not a tag; {remedy}"));
    }
    Ok(())
}

fn check_digest(digest: &str) -> Result<Digest, String> {
    digest.parse().map_err(|_| match digest.split_once(':') {
        Some((algorithm @ ("sha384" | "sha512"), _)) => {
            format!("digests by {algorithm} are not supported; give the image's sha256 digest or its tag")
        }
        _ => format!("{} is not a digest; expected @sha256: and 64 lower-case hex digits", shown(digest)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a";

    // What distribution's own tests say of its `ParseNormalizedNamed`, and more of the kind; `$D`
    // stands for 64 hex digits.

    /// Names that are normalised already.
    const AS_THEY_ARE: &str = "
        docker.io/library/debian docker.io/docker/docker docker.io/library/foo/bar 127.0.0.1:5000/debian
        127.0.0.1:5000/library/debian 192.168.0.1:8/debian 192.168.1.1:750050/debian [fc00::1]:5000/docker
        [fc00:1:2:3:4:5:6:7]:5000/library/debian [::1]:5000/x [::1]/x:t [fd00123123123]:75050/x Docker/docker FOO/bar
        Asdf.com/foo/bar localhost/x localhost:5000/x test:5000/repo:tag@sha256:$D
        b.gcr.io/test.example.com/my-app:test.example.com xn--n3h.com:18080/foo example.com/some_separator__underscore/x
        registry.io/foo/project--id.module--name.ver---sion--name
    ";
    /// Names that get `docker.io/library/`.
    const LIBRARY: &str = "
        debian redis:latest 192.168.0.1 192.168.0.1:80 $D:tag localhost localhost:8080@sha256:$D test.com:5000
        repo@sha256:$D lowercase:Uppercase foo_bar.com:8080 a:_b.-c
    ";
    /// Names that get `docker.io/`.
    const HUB: &str = "
        docker/docker library/debian store/foo/bar:tag docker---rules/docker dock__er/docker d/docker test_com/foo
        foo/foo_bar.com:8080 0/0:0
    ";
    /// Other names, and what they become.
    const OTHER: &[(&str, &str)] = &[
        ("docker.io/debian", "docker.io/library/debian"),
        ("index.docker.io/debian", "docker.io/library/debian"),
        ("index.docker.io/docker/docker", "docker.io/docker/docker"),
        ("docker.io/$D", "docker.io/library/$D"),
    ];
    /// What no name is.
    const REFUSED: &str = "
        https://github.com/docker/docker docker/Docker Uppercase:tag test:5000/Uppercase/lowercase:tag -docker
        --privileged -docker/docker -docker.io/docker/docker docker-/docker foo/bar- docker//docker docker///docker
        docker.io/docker///docker docker/ docker.io/ /docker / ../x a/../b [fc00::1] [fc00::1]:5000 [2001:db8::1]:tag
        []/x [::1]5000/x [::1]::5000/x fc00::1:5000/debian [fe80::1%eth0]:5000/debian
        [2001:db8:3:4::192.0.2.33]:5000/debian $D ____/____ _docker/_docker dock..er/docker docker/dock_.er
        docker/dock-.er docker/a___b example.com/.dots/x docker./docker .docker/docker do__cker:8080/docker
        foo.com:http/bar foo.com:/bar :justtag @sha256:$D a:b:c a: a@ a:-b a:.b a:b/c myapp:invalid~tag
        repo@sha256:short repo@sha256:ffffffffffffffffffffffffffffffffff repo@sha256:$D0 repo@SHA256:$D
        repo@md5:d41d8cd98f00b204e9800998ecf8427e name@invaliddigest:$D repo@sha256:$D@sha256:$D repo@sha256:$D:tag
        aa/asdf$$^/aa $(x) `x` a;b user@host/x user:pass@host.com/x foo_bar.com/x
    ";
    /// The same, parted by `|`: what has white space or characters that are not ASCII.
    const REFUSED_TOO: &str =
        "| |alpine | alpine|alpine\n|alpine:3\n|alpine\0|al\u{1b}[31mpine|al\u{202e}pine|alpin\u{e9}|\u{430}lpine|a b|a\\b";

    #[test]
    fn names_are_read_as_distribution_reads_them() {
        let table = (AS_THEY_ARE.split_whitespace().map(|name| (name, name.to_owned())))
            .chain(LIBRARY.split_whitespace().map(|name| (name, format!("docker.io/library/{name}"))))
            .chain(HUB.split_whitespace().map(|name| (name, format!("docker.io/{name}"))))
            .chain(OTHER.iter().map(|(name, full)| (*name, full.to_string())));
        for (input, expected) in table {
            let (input, expected) = (input.replace("$D", HEX), expected.replace("$D", HEX));
            let reference: Reference = input.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(reference.to_string(), expected, "{input:?}");
            assert_eq!(expected.parse().as_ref(), Ok(&reference), "normalising twice changes nothing");
            if reference.path.strip_prefix("library/") != Some(HEX) {
                assert_eq!(reference.familiar().parse(), Ok(reference), "the short form is the same image");
            }
        }
    }

    #[test]
    fn what_distribution_refuses_is_refused() {
        for input in REFUSED.split_whitespace().chain(REFUSED_TOO.split('|')) {
            let read = input.replace("$D", HEX).parse::<Reference>();
            assert!(read.is_err(), "{input:?} was read as {read:?}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let path = |n: usize| format!("example.com/{}", "a".repeat(n));
        assert!(path(255).parse::<Reference>().is_ok());
        assert!(path(256).parse::<Reference>().is_err());
        assert!(format!("a:{}", "t".repeat(128)).parse::<Reference>().is_ok());
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn errors_are_bounded_and_name_the_remedy() {
        let error = |text: &str| text.parse::<Reference>().expect_err("illegal").to_string();
        assert_eq!(
            error("docker/Docker"),
            r#""docker/Docker" is not an image reference: "Docker" has upper-case letters; write "docker""#
        );
        let sha512 = error(&format!("a@sha512:{HEX}{HEX}"));
        assert!(sha512.contains("digests by sha512 are not supported; give the image's sha256"), "{sha512}");
        let hidden = error("a\u{1b}[2J\u{202e}\n");
        assert!(hidden.contains("\\u{1b}") && hidden.contains("\\u{202e}") && !hidden.contains(['\u{1b}', '\u{202e}', '\n']));
        for long in ["x y".repeat(100_000), format!("A/{}", "B".repeat(100_000)), format!("a.{}%/b", "c".repeat(100_000))] {
            assert!(error(&long).chars().count() < 600, "a bounded message");
        }
    }

    #[test]
    fn parts_can_be_read_and_replaced() {
        let plain: Reference = "alpine".parse().expect("legal");
        assert_eq!((plain.host(), plain.path(), plain.tag()), ("docker.io", "library/alpine", None));
        assert_eq!(plain.clone().tagged().familiar(), "alpine:latest");
        let digest = Digest::of(b"");
        let pinned = plain.clone().with_digest(digest);
        assert_eq!((pinned.digest(), pinned.clone().tagged().tag()), (Some(digest), None));
        assert_eq!(pinned.with_tag("3").expect("legal").to_string(), format!("docker.io/library/alpine:3@{digest}"));
        assert!(plain.with_tag("-f").is_err());
    }

    #[test]
    fn folder_names_become_path_components() {
        for (folder, expected) in [
            ("app", Some("app")),
            ("My App", Some("my-app")),
            ("a__b.c--d", Some("a__b.c--d")),
            ("a..b_-c", Some("a-b-c")),
            ("-._x_.-", Some("x")),
            ("caf\u{e9}s", Some("caf-s")),
            ("\u{212a}elvin", Some("kelvin")),
            ("\u{65e5}\u{672c}", None),
            ("..", None),
            ("", None),
        ] {
            let component = path_component(folder);
            assert_eq!(component.as_deref(), expected, "{folder:?}");
            assert!(component.is_none_or(|c| format!("example.com/{c}").parse::<Reference>().is_ok()));
        }
        assert_eq!(path_component(&"a-".repeat(500)).expect("letters").len(), 127);
    }
}
