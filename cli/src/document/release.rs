//! What came of a release as a whole: the part of a document that only its record has.
//!
//! Invariant: of the environment there are names alone, of the user's folder the name of its last part. What decided a
//! setting is named, so that two releases can be compared without asking anybody.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A release that has ended, or was ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ran {
    /// Names it among the records, eight hex digits.
    pub(crate) id: String,
    /// When it started, RFC 3339 in UTC.
    pub(crate) when: String,
    /// How long it took.
    pub(crate) duration_ms: u64,
    /// The version of roche.
    pub(crate) roche: String,
    /// The project's folder, without those above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) folder: Option<String>,
    /// What solved it; absent where none was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) back_end: Option<BackEnd>,
    /// What was decided, and by whom.
    pub(crate) settings: Vec<Setting>,
    /// What of the machine went into it, by name: `toolchain`, `crates`, `certificates`, `timeZones`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) materials: BTreeMap<String, Material>,
    /// Where the image is not what was planned, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) differences: Vec<String>,
    /// What was made; absent where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Made>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Failed>,
}

/// What solved a release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BackEnd {
    /// Its kind and address.
    pub(crate) name: String,
    /// Where its address came from.
    pub(crate) origin: String,
    /// Whether it is the engine of roche itself.
    pub(crate) embedded: bool,
    /// Tells it from others of the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
}

/// A setting and who decided it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// What it is about, such as `build image`.
    pub(crate) name: String,
    /// What was decided.
    pub(crate) value: String,
    /// `flag`, `environment`, `file`, `login` or `default`.
    pub(crate) from: String,
    /// The flag, the variable, or the file and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
}

/// Something of the machine that went into a release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Material {
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// The digest of all that is in it.
    pub(crate) digest: String,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Made {
    /// The manifest's digest, where there is a manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// The config's digest, where the back end said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image_id: Option<String>,
    /// Where it went.
    pub(crate) outputs: Vec<Written>,
}

/// Where a result went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// `store`, `registry`, `archive`, `layout` or `folder`.
    pub(crate) kind: String,
    /// The file or folder as it was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<String>,
}

/// Why a release failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failed {
    /// The exit code; absent where a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<u8>,
    /// What was said, in one line.
    pub(crate) message: String,
}

impl Ran {
    /// Returns a setting's decision.
    pub(crate) fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }
}

impl Setting {
    /// Says who decided, for people.
    pub(crate) fn decided(&self) -> String {
        match (&self.by, self.from.as_str()) {
            (Some(by), "environment") => format!("the variable {by}"),
            (Some(by), _) => by.clone(),
            (None, "login") => "the registry login".to_owned(),
            (None, _) => "the default".to_owned(),
        }
    }
}

impl Made {
    /// Returns what names the image best: the manifest's digest, else the config's.
    pub(crate) fn best(&self) -> Option<&str> {
        self.digest.as_deref().or(self.image_id.as_deref())
    }
}
