//! The messages of a job, where they are more than their fields.

use bollard_buildkit_proto::moby::buildkit::v1 as control;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as bridge;
use bytes::Bytes;

use super::export::Plan;
use crate::solver::{CacheEntry, JobOptions};

/// `LLBBridge.SolveRequest`, its definition bytes already: a daemon cannot tell the difference,
/// and no digest can change by being decoded and encoded again.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EncodedSolveRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) definition: Bytes,
    #[prost(bool, tag = "5")]
    pub(super) allow_result_return: bool,
    #[prost(bool, tag = "6")]
    pub(super) allow_result_array_ref: bool,
    #[prost(message, repeated, tag = "12")]
    pub(super) cache_imports: Vec<bridge::CacheOptionsEntry>,
    #[prost(bool, tag = "14")]
    pub(super) evaluate: bool,
}

/// `LLBBridge.ReadDirResponse`, its names bytes: a file's name is any bytes, and Go sends them as they are in a field that
/// prost refuses to decode where it is no UTF-8.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Listing {
    #[prost(message, repeated, tag = "1")]
    pub(super) entries: Vec<Listed>,
}

/// `fsutil.types.Stat` (fsutil's types/stat.proto), as far as it is read.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Listed {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) path: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(super) mode: u32,
    #[prost(uint32, tag = "3")]
    pub(super) uid: u32,
    #[prost(uint32, tag = "4")]
    pub(super) gid: u32,
    #[prost(int64, tag = "5")]
    pub(super) size: i64,
    #[prost(bytes = "vec", tag = "7")]
    pub(super) link_name: Vec<u8>,
}

/// What `Control.Solve` is told: everything but a definition.
pub(super) fn solve_request(reference: &str, session: &str, plan: &Plan, options: &JobOptions) -> control::SolveRequest {
    let entries = |caches: &[CacheEntry]| {
        let entry = |cache: &CacheEntry| control::CacheOptionsEntry {
            r#type: cache.kind.clone(),
            attrs: cache.attrs.clone().into_iter().collect(),
        };
        caches.iter().map(entry).collect()
    };
    let exporters: Vec<control::Exporter> = plan
        .exporters
        .iter()
        .map(|exporter| control::Exporter {
            r#type: exporter.kind.to_owned(),
            attrs: exporter.attrs.clone().into_iter().collect(),
        })
        .collect();
    let first = exporters.first().cloned().unwrap_or_default();
    control::SolveRequest {
        r#ref: reference.to_owned(),
        session: session.to_owned(),
        // Daemons that know no list of exporters read these two.
        exporter_deprecated: first.r#type,
        exporter_attrs_deprecated: first.attrs,
        exporters,
        cache: Some(control::CacheOptions {
            exports: entries(&options.cache_exports),
            imports: entries(&options.cache_imports),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Returns the name of a solve's result; empty for an empty tree.
pub(super) fn result_id(response: bridge::SolveResponse) -> String {
    match response.result.and_then(|result| result.result) {
        Some(bridge::result::Result::Ref(reference)) => reference.id,
        Some(bridge::result::Result::RefDeprecated(id)) => id,
        _ => response.r#ref,
    }
}

/// Turns Go's `os.FileMode` bits into `st_mode`.
pub(super) fn unix_mode(go: u32) -> u32 {
    let kind = match go {
        _ if go & 1 << 31 != 0 => 0o040_000,
        _ if go & 1 << 27 != 0 => 0o120_000,
        _ if go & 1 << 25 != 0 => 0o010_000,
        _ if go & 1 << 24 != 0 => 0o140_000,
        _ if go & 1 << 21 != 0 => 0o020_000,
        _ if go & 1 << 26 != 0 => 0o060_000,
        _ => 0o100_000,
    };
    let bit = |go_bit: u32, bit: u32| if go & 1 << go_bit != 0 { bit } else { 0 };
    kind | go & 0o777 | bit(23, 0o4000) | bit(22, 0o2000) | bit(20, 0o1000)
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::pb;
    use prost::Message as _;

    use super::*;

    #[test]
    fn an_encoded_definition_is_the_same_message() {
        let definition = pb::Definition { def: vec![vec![1, 2, 3], vec![4]], ..Default::default() };
        let ours = EncodedSolveRequest {
            definition: definition.encode_to_vec().into(),
            allow_result_return: true,
            allow_result_array_ref: true,
            cache_imports: vec![bridge::CacheOptionsEntry { r#type: "registry".to_owned(), ..Default::default() }],
            evaluate: true,
        };
        let theirs = bridge::SolveRequest {
            definition: Some(definition),
            allow_result_return: true,
            allow_result_array_ref: true,
            cache_imports: ours.cache_imports.clone(),
            evaluate: true,
            ..Default::default()
        };
        assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
    }

    #[test]
    fn modes_are_unixs() {
        for (go, unix) in [
            (1 << 31 | 0o755, 0o040_755),
            (1 << 31 | 1 << 20 | 0o777, 0o041_777),
            (1 << 27 | 0o777, 0o120_777),
            (1 << 23 | 0o755, 0o104_755),
            (1 << 22 | 0o755, 0o102_755),
            (1 << 26 | 1 << 21 | 0o600, 0o020_600),
            (1 << 26 | 0o600, 0o060_600),
            (1 << 25 | 0o600, 0o010_600),
            (0o644, 0o100_644),
        ] {
            assert_eq!(unix_mode(go), unix, "{go:o}");
        }
    }

    #[test]
    fn the_first_exporter_is_named_twice_for_old_daemons() {
        let options = JobOptions {
            exports: vec![crate::solver::Export::Folder { dest: "out".into() }],
            cache_exports: vec![CacheEntry { kind: "inline".to_owned(), attrs: Default::default() }],
            ..Default::default()
        };
        let plan = super::super::export::plan(&options.exports, super::super::export::Exporters::Standalone, "daemon").unwrap();
        let request = solve_request("ref", "session", &plan, &options);
        assert_eq!(request.exporter_deprecated, "local");
        assert_eq!(request.exporters.len(), 1);
        assert_eq!(request.cache.unwrap().exports[0].r#type, "inline");
        assert!(request.definition.is_none());
    }
}
