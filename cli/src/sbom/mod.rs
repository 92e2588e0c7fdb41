//! `--sbom`: what the released program was made of, as files in the forms that others read.
//!
//! 1. [`Wanted::parse`] reads the flag, before anything else is.
//! 2. [`Materials::read`] takes the list out of the program that is about to be released.
//! 3. [`spdx`] and [`cyclonedx`] write it down, once the image's digest is known.
//!
//! Invariant: the list is the one in the program, never one of what should be in it; the same image
//! gives the same bytes, so there is no time in them but the one that is given, and no random id.

mod cyclonedx;
mod spdx;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use roche_engine::Digest;
use roche_engine::oci::Reference;
use roche_engine::solver::{Job, Solved};
use roche_frontend::crates::{self, Crates, Details, Package, SERVICE};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::files;
use crate::report::AddedFile;

/// The most bytes of a program that is looked into.
const PROGRAM_BYTES: u64 = 256 << 20;

/// When things were made that have no time of their own (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The forms of a bill of materials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// SPDX 2.3, as JSON.
    Spdx,
    /// CycloneDX 1.6, as JSON.
    CycloneDx,
}

/// A file that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    form: Form,
    pub(crate) file: PathBuf,
}

impl Wanted {
    /// Reads `spdx=FILE` or `cyclonedx=FILE`; syft's names of the forms will do, too.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, Failure> {
        let refuse = |what: &str| {
            Failure::say(Exit::Usage, format!("--sbom {}: {what}", text.to_string_lossy()))
                .hint("name a form and a file: --sbom spdx=hello.spdx.json, or --sbom cyclonedx=hello.cdx.json")
        };
        let Some(given) = text.to_str() else { return Err(refuse("the name is not UTF-8")) };
        let Some((form, file)) = given.split_once('=') else {
            return Err(refuse("it needs a file to write; attestations in registries are not made"));
        };
        let form = match form {
            "spdx" | "spdx-json" => Form::Spdx,
            "cyclonedx" | "cyclonedx-json" => Form::CycloneDx,
            _ => return Err(refuse("there are the forms spdx and cyclonedx")),
        };
        match file {
            "" => Err(refuse("the file has no name")),
            "-" => Err(refuse("standard output is the release's own")),
            file => Ok(Self { form, file: file.into() }),
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    wanted: Vec<Wanted>,
    /// When it was made, as RFC 3339 has it.
    created: String,
    /// What the program is for, in OCI's words.
    pub(crate) architecture: String,
}

impl Request {
    /// Takes what was asked for, with the time that is given.
    pub(crate) fn new(wanted: Vec<Wanted>, architecture: &str, environment: &Environment) -> Result<Self, Failure> {
        let created = if wanted.is_empty() { String::new() } else { created(environment)? };
        Ok(Self { wanted, created, architecture: architecture.to_owned() })
    }

    /// Says whether anything was.
    pub(crate) fn is_asked(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Writes the files, relative to a folder.
    pub(crate) fn write(
        &self,
        names: &[Reference],
        digest: Option<&str>,
        materials: &Materials,
        folder: &Path,
    ) -> Result<(), Failure> {
        let bill = Bill { names, digest, created: &self.created, materials };
        self.wanted.iter().try_for_each(|wanted| files::replace(&folder.join(&wanted.file), &bill.render(wanted)))
    }
}

/// The crates of a program, with all that is known of them.
#[derive(Debug)]
pub(crate) struct Materials {
    crates: Crates,
    /// In the order of the packages.
    details: Vec<Details>,
    /// The program's digest.
    program: Digest,
}

impl Materials {
    /// Reads them out of the service in a result.
    pub(crate) async fn read(job: &dyn Job, result: &Solved, added: &[AddedFile], architecture: &str) -> Result<Self, Failure> {
        let missing = || {
            Failure::say(Exit::Configuration, format!("{SERVICE} has no list of its crates, so there is no bill of materials"))
                .hint("make the build image anew: roche prepare --from IMAGE -t NAME")
                .hint("or compile with this machine's toolchain: roche release -b host")
        };
        if !added.iter().any(|file| file.path == SERVICE) {
            return Err(missing());
        }
        let program = job.read_file(result, SERVICE, PROGRAM_BYTES).await?;
        match Crates::of_program(&program) {
            Ok(Some(crates)) => {
                let details = crates::details(&crates, architecture);
                Ok(Self { crates, details, program: Digest::of(&program) })
            }
            Ok(None) => Err(missing()),
            Err(error) => Err(missing().caused_by(error.to_string())),
        }
    }

    fn packages(&self) -> impl Iterator<Item = (&Package, &Details)> {
        self.crates.packages.iter().zip(&self.details)
    }
}

/// An image and what is in it.
struct Bill<'a> {
    /// The image's names.
    names: &'a [Reference],
    /// Its manifest's digest; its id where it has no manifest, and nothing for files alone.
    digest: Option<&'a str>,
    created: &'a str,
    materials: &'a Materials,
}

impl Bill<'_> {
    /// Writes a file's bytes.
    fn render(&self, wanted: &Wanted) -> Vec<u8> {
        let value = match wanted.form {
            Form::Spdx => spdx::document(self),
            Form::CycloneDx => cyclonedx::document(self),
        };
        let mut text = serde_json::to_string_pretty(&value).expect("a JSON value is always written");
        text.push('\n');
        crate::text::json(&text).into_bytes()
    }

    fn name(&self) -> String {
        self.names.first().map(ToString::to_string).unwrap_or_default()
    }

    /// Names the image as package URLs do (github.com/package-url/purl-spec).
    fn purl(&self) -> Option<String> {
        let name = self.names.first()?;
        let repository = format!("{}/{}", name.host(), name.path());
        let last = name.path().rsplit('/').next().unwrap_or_default();
        Some(format!("pkg:oci/{}@{}?repository_url={}", encoded(last), encoded(self.digest?), encoded(&repository)))
    }

    /// Returns an id that only this bill has, and has every time.
    fn uuid(&self, form: &str) -> String {
        let text = format!("{form}\n{}\n{:?}\n{}\n{:?}", self.name(), self.digest, self.created, self.materials);
        let hex = Digest::of(text.as_bytes()).hex();
        // RFC 9562, version 8: the bits are the maker's, but for the version and the variant.
        format!("{}-{}-8{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
    }
}

/// Returns the time that the files bear: `SOURCE_DATE_EPOCH`, else the image's own, which is 1970.
fn created(environment: &Environment) -> Result<String, Failure> {
    let text = environment.variable(EPOCH).unwrap_or("0");
    let seconds = text.parse().ok().filter(|seconds| *seconds >= 0);
    let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).ok_or_else(|| {
        Failure::say(Exit::Configuration, format!("{EPOCH} is {text:?}, which is no number of seconds since 1970"))
            .hint(format!("unset {EPOCH}, or: export {EPOCH}=$(git log -1 --format=%ct)"))
    })
}

/// Names a crate as package URLs do; crates that are on no registry have no such name.
fn purl(package: &Package) -> Option<String> {
    let is_public = package.source == "crates.io";
    is_public.then(|| format!("pkg:cargo/{}@{}", encoded(&package.name), encoded(&package.version)))
}

/// Returns where a crate's archive is.
fn archive(package: &Package) -> Option<String> {
    let (name, version) = (encoded(&package.name), encoded(&package.version));
    (package.source == "crates.io").then(|| format!("https://static.crates.io/crates/{name}/{name}-{version}.crate"))
}

/// Writes what a URL's part may not hold as `%` and hex digits (RFC 3986).
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use roche_frontend::crates::Kind;
    use serde_json::Value;

    use super::*;

    fn materials(json: &str) -> Materials {
        let crates: Crates = serde_json::from_str(json).unwrap();
        let mut details = crates::details(&crates, "amd64");
        details[0].features = Some(vec!["default".to_owned(), "std".to_owned()]);
        Materials { crates, details, program: Digest::of(b"program") }
    }

    const LIST: &str = r#"{"packages":[
        {"name":"serde","version":"1.0.0+x","source":"crates.io","dependencies":[1]},
        {"name":"serde_derive","version":"1.0.0","source":"crates.io","kind":"build"},
        {"name":"service\u001b[2J","version":"0.1.0","source":"local","dependencies":[0,1],"root":true}]}"#;

    fn rendered(form: &str, materials: &Materials) -> Value {
        let names = ["docker.io/me/hello:1".parse().unwrap()];
        let digest = Digest::of(b"manifest").to_string();
        let bill = Bill { names: &names, digest: Some(&digest), created: "1970-01-01T00:00:00Z", materials };
        let wanted = Wanted::parse(OsStr::new(&format!("{form}=x"))).unwrap();
        let (bytes, again) = (bill.render(&wanted), bill.render(&wanted));
        assert_eq!(bytes, again);
        assert!(!bytes.contains(&0x1b));
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_flag_names_a_form_and_a_file() {
        let parsed = |text: &str| Wanted::parse(OsStr::new(text)).map_err(|failure| failure.exit);
        for (text, form) in [
            ("spdx=a=b.json", Form::Spdx),
            ("spdx-json=a=b.json", Form::Spdx),
            ("cyclonedx=a=b.json", Form::CycloneDx),
            ("cyclonedx-json=a=b.json", Form::CycloneDx),
        ] {
            assert_eq!(parsed(text), Ok(Wanted { form, file: "a=b.json".into() }), "{text}");
        }
        for text in ["", "true", "spdx", "spdx=", "spdx=-", "SPDX=a", "xml=a", "=a"] {
            assert_eq!(parsed(text), Err(Exit::Usage), "{text}");
        }
    }

    #[test]
    fn spdx_has_every_package_once_and_every_edge() {
        let value = rendered("spdx", &materials(LIST));
        let packages = value["packages"].as_array().unwrap();
        let names: Vec<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["docker.io/me/hello:1", "serde", "serde_derive", "service\u{1b}[2J"]);
        assert_eq!(packages[1]["externalRefs"][0]["referenceLocator"], "pkg:cargo/serde@1.0.0%2Bx");
        assert_eq!(packages[3].get("externalRefs"), None);
        let edges: Vec<String> = value["relationships"]
            .as_array()
            .unwrap()
            .iter()
            .map(|edge| {
                let text = |key: &str| edge[key].as_str().unwrap().trim_start_matches("SPDXRef-").to_owned();
                format!("{} {} {}", text("spdxElementId"), text("relationshipType"), text("relatedSpdxElement"))
            })
            .collect();
        let expected = [
            "DOCUMENT DESCRIBES image",
            "image CONTAINS crate-2-service--2J-0.1.0",
            "crate-1-serde-derive-1.0.0 BUILD_DEPENDENCY_OF crate-0-serde-1.0.0-x",
            "crate-2-service--2J-0.1.0 DEPENDS_ON crate-0-serde-1.0.0-x",
            "crate-1-serde-derive-1.0.0 BUILD_DEPENDENCY_OF crate-2-service--2J-0.1.0",
        ];
        assert_eq!(edges, expected);
    }

    #[test]
    fn cyclonedx_has_every_package_once_and_every_edge() {
        let value = rendered("cyclonedx", &materials(LIST));
        let components = value["components"].as_array().unwrap();
        let scopes: Vec<&str> = components.iter().map(|component| component["scope"].as_str().unwrap()).collect();
        assert_eq!(scopes, ["required", "excluded", "required"]);
        assert_eq!(components[0]["properties"][0], serde_json::json!({"name": "cargo:features", "value": "default,std"}));
        assert_eq!(value["dependencies"].as_array().unwrap().len(), 4);
        assert_eq!(value["metadata"]["component"]["bom-ref"], "image");
        let refs: std::collections::BTreeSet<&str> =
            components.iter().map(|component| component["bom-ref"].as_str().unwrap()).collect();
        assert_eq!(refs.len(), 3);
    }

    #[test]
    fn ids_are_uuids_and_differ_with_what_they_are_of() {
        let (one, other) = (materials(LIST), materials(&LIST.replace("1.0.0\"", "1.0.1\"")));
        let serial = |materials: &Materials| rendered("cyclonedx", materials)["serialNumber"].as_str().unwrap().to_owned();
        assert_ne!(serial(&one), serial(&other));
        let parts: Vec<usize> = serial(&one).trim_start_matches("urn:uuid:").split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(one.crates.of_kind(Kind::Build).count(), 1);
    }

    #[test]
    fn the_time_is_the_one_that_is_given() {
        let environment = |epoch: Option<&str>| Environment {
            variables: epoch.map(|epoch| (EPOCH.to_owned(), epoch.to_owned())).into_iter().collect::<BTreeMap<_, _>>(),
            folder: "/".into(),
            stderr_terminal: false,
            stdout_terminal: false,
        };
        let at = |epoch| created(&environment(epoch)).map_err(|failure| failure.exit);
        assert_eq!(at(None), Ok("1970-01-01T00:00:00Z".to_owned()));
        assert_eq!(at(Some("86400")), Ok("1970-01-02T00:00:00Z".to_owned()));
        for odd in ["now", "-1", "1.5", "99999999999999999999", "9999999999999"] {
            assert_eq!(at(Some(odd)), Err(Exit::Configuration), "{odd}");
        }
    }
}
