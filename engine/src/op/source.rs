//! Sources: content that enters the graph from outside it.
//!
//! Invariant: the identifier and the attributes are exactly what BuildKit's daemons read; the
//! constructors write them as `client/llb/source.go` does.

use std::collections::BTreeMap;

use super::Edge;

/// Brings content in from outside the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `docker-image://`, `local://`, `git://`, `https://`, `oci-layout://`, … and what follows.
    pub identifier: String,
    /// What the source is told beside its identifier (`solver/pb/attr.go`).
    pub attrs: BTreeMap<String, String>,
}

impl Source {
    /// An image by its full reference (`docker.io/library/alpine:3.20`, best with a digest).
    pub fn image(reference: &str) -> Self {
        Self::of(format!("docker-image://{reference}"))
    }

    /// A folder that the client sends through its session, by the name that the session knows.
    pub fn local(name: &str) -> Self {
        Self::of(format!("local://{name}"))
    }

    /// A git remote (`host/path.git#ref`) with the full address that it is fetched from.
    pub fn git(remote: &str, full_url: &str) -> Self {
        Self::of(format!("git://{remote}")).attr("git.fullurl", full_url)
    }

    /// A file by its `http://` or `https://` address.
    pub fn http(url: &str) -> Self {
        Self::of(url.to_owned())
    }

    /// An image in an OCI layout that the client serves, by `name@digest`.
    pub fn oci_layout(reference: &str) -> Self {
        Self::of(format!("oci-layout://{reference}"))
    }

    /// Adds an attribute.
    pub fn attr(mut self, key: &str, value: impl Into<String>) -> Self {
        self.attrs.insert(key.to_owned(), value.into());
        self
    }

    /// Adds an attribute whose value is a list, as the JSON array that Go's encoder writes.
    pub fn list(self, key: &str, values: &[&str]) -> Self {
        let mut json = serde_json::to_string(values).expect("strings are always JSON");
        for (character, escape) in
            [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")]
        {
            json = json.replace(character, escape);
        }
        self.attr(key, json)
    }

    fn of(identifier: String) -> Self {
        Self { identifier, attrs: BTreeMap::new() }
    }

    /// Returns the part of the identifier before `://`.
    pub fn scheme(&self) -> &str {
        self.identifier.split_once("://").map_or("", |(scheme, _)| scheme)
    }

    /// Returns the part of the identifier after `://`.
    pub fn reference(&self) -> &str {
        self.identifier.split_once("://").map_or(self.identifier.as_str(), |(_, rest)| rest)
    }

    pub(super) fn inputs(&self) -> Vec<Edge> {
        Vec::new()
    }

    pub(super) fn caps(&self) -> Vec<&'static str> {
        let mut caps = vec![match self.scheme() {
            "docker-image" => "source.image",
            "local" => "source.local",
            "git" => "source.git",
            "http" | "https" => "source.http",
            "oci-layout" => "source.ocilayout",
            "docker-image+blob" | "oci-layout+blob" => "source.imageblob",
            _ => return Vec::new(),
        }];
        for (key, value) in &self.attrs {
            caps.extend(match (caps[0], key.as_str()) {
                // BuildKit asks for the capability only where the mode is a matter of security.
                ("source.image", "image.resolvemode") if value == "pull" => Some("source.image.resolvemode"),
                ("source.image", "image.layerlimit") => Some("source.image.layerlimit"),
                ("source.image", "image.checksum") => Some("source.image.checksum"),
                ("source.local", "local.unique") => Some("source.local.unique"),
                ("source.local", "local.session") => Some("source.local.sessionid"),
                ("source.local", "local.includepattern") => Some("source.local.includepatterns"),
                ("source.local", "local.followpaths") => Some("source.local.followpaths"),
                ("source.local", "local.excludepatterns") => Some("source.local.excludepatterns"),
                ("source.local", "local.sharedkeyhint") => Some("source.local.sharedkeyhint"),
                ("source.local", "local.metadatatransfer") => Some("source.local.metadatatransfer"),
                ("source.git", "git.keepgitdir") => Some("source.git.keepgitdir"),
                ("source.git", "git.fullurl") => Some("source.git.fullurl"),
                // The client's default names are asked for without the capability.
                ("source.git", "git.authtokensecret") if value != "GIT_AUTH_TOKEN" => Some("source.git.httpauth"),
                ("source.git", "git.authheadersecret") if value != "GIT_AUTH_HEADER" => Some("source.git.httpauth"),
                ("source.git", "git.knownsshhosts") => Some("source.git.knownsshhosts"),
                ("source.git", "git.mountsshsock") => Some("source.git.mountsshsock"),
                ("source.git", "git.checksum") => Some("source.git.checksum"),
                ("source.git", "git.skipsubmodules") => Some("source.git.skipsubmodules"),
                ("source.git", "git.mtime") => Some("source.git.mtime"),
                ("source.git", "git.fetchbycommit") => Some("source.git.fetchbycommit"),
                ("source.git", "git.bundle") => Some("source.git.bundle"),
                ("source.git", "git.checkoutbundle") => Some("source.git.checkoutbundle"),
                ("source.http", "http.checksum") => Some("source.http.checksum"),
                ("source.http", "http.perm") => Some("source.http.perm"),
                // Misspelt so in BuildKit, and daemons know no other name.
                ("source.http", "http.uid" | "http.gid") => Some("soruce.http.uidgid"),
                ("source.http", "http.authheadersecret") => Some("source.http.auth"),
                ("source.http", header) if header.starts_with("http.header.") => Some("source.http.header"),
                _ => None,
            });
        }
        caps
    }

    pub(super) fn summary(&self) -> String {
        match self.scheme() {
            "docker-image" => format!("image {}", self.reference()),
            "local" => format!("local {}", self.reference()),
            _ => self.identifier.clone(),
        }
    }
}
