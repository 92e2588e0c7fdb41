//! What a daemon's failures mean: gRPC statuses to [`Error`].
//!
//! New daemons name the failed vertex and the exit status in the status's details, which are JSON
//! in `google.protobuf.Any` (`util/grpcerrors` there); old ones only in the message.

use bollard_buildkit_proto::google::rpc;
use prost::Message as _;
use tonic::{Code, Status};

use super::address::shown;
use super::transport::causes;
use crate::graph::Definition;
use crate::op::OpKind;
use crate::solver::VertexProgress;
use crate::{Digest, Error};

/// Reads a failure of anything but a solve.
pub(super) fn call(status: &Status, doing: &str) -> Error {
    if let Some(error) = lost(status, doing).or_else(|| exhausted(status)) {
        return error;
    }
    Error::Daemon { doing: doing.to_owned(), reason: reason(status) }
}

/// Reads a failure of a solve; `failed` is the last vertex that progress called failed.
pub(super) fn solve(status: &Status, definition: &Definition, failed: Option<&VertexProgress>) -> Error {
    if let Some(error) = lost(status, "solving").or_else(|| exhausted(status)) {
        return error;
    }
    let reason = reason(status);
    let details = Details::of(status);
    let digest =
        details.vertex.or_else(|| failed.filter(|vertex| reason.contains(vertex.error.trim())).map(|vertex| vertex.digest));
    let Some(digest) = digest else { return Error::Daemon { doing: "solving".to_owned(), reason } };
    let vertex = definition.vertices().find(|vertex| vertex.digest == digest);
    if let Some(OpKind::Source(source)) = vertex.map(|vertex| &vertex.op.kind)
        && source.scheme() == "docker-image"
    {
        return registry(source.reference(), reason);
    }
    let name = vertex.map(|vertex| vertex.name()).or_else(|| failed.filter(|f| f.digest == digest).map(|f| f.name.clone()));
    Error::Step {
        vertex: Some(digest),
        name: name.unwrap_or_else(|| digest.to_string()),
        exit_code: details.exit_code.or_else(|| exit_code(&reason)),
        reason: reason.into(),
        hint: None,
    }
}

/// Reads a failure that concerns one image.
pub(super) fn image(status: &Status, reference: &str, doing: &str) -> Error {
    lost(status, doing).or_else(|| exhausted(status)).unwrap_or_else(|| registry(reference, reason(status)))
}

/// Reads a failure of the whole job: of an export, or of what the daemon was told at first.
pub(super) fn job(status: &Status, names: &[String], doing: &str) -> Error {
    if let Some(error) = lost(status, doing).or_else(|| exhausted(status)) {
        return error;
    }
    let reason = reason(status);
    match reason.split_once("failed to push ") {
        Some((_, rest)) => {
            let name = names.iter().find(|name| rest.starts_with(name.as_str())).map_or_else(|| names.join(", "), Clone::clone);
            registry(&name, reason)
        }
        None => Error::Daemon { doing: doing.to_owned(), reason },
    }
}

/// Makes an error about an image, and says whether a later try may succeed.
pub(super) fn registry(reference: &str, reason: String) -> Error {
    // A bare number may stand in any digest or port.
    const TRANSIENT: [&str; 17] = [
        "status code 429",
        "status: 429",
        "too many requests",
        "toomanyrequests",
        "500 internal",
        "502 bad",
        "503 service",
        "504 gateway",
        "unexpected status: 5",
        "unexpected status code 5",
        "server misbehaving",
        "temporary failure in name resolution",
        "i/o timeout",
        "deadline exceeded",
        "tls handshake timeout",
        "connection reset",
        "unexpected eof",
    ];
    // The reference is named by the error itself.
    let mut reason = reason.as_str();
    let repeated = format!("failed to resolve source metadata for {reference}: ");
    for prefix in [repeated, format!("{reference}: ")] {
        reason = reason.strip_prefix(&prefix).unwrap_or(reason);
    }
    let lower = reason.to_lowercase();
    let transient = TRANSIENT.iter().any(|sign| lower.contains(sign));
    Error::Registry { reference: reference.to_owned(), reason: reason.to_owned(), transient }
}

/// Says whether the connection failed and not the request.
pub(super) fn is_lost(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn lost(status: &Status, doing: &str) -> Option<Error> {
    let cause = std::error::Error::source(status)?;
    let reason = format!("the connection broke: {}", shown(&causes(cause)));
    Some(Error::Daemon { doing: doing.to_owned(), reason })
}

fn exhausted(status: &Status) -> Option<Error> {
    let message = status.message();
    let full = ["no space left on device", "disk quota exceeded", "cannot allocate memory"];
    let exhausted = status.code() == Code::ResourceExhausted || full.iter().any(|sign| message.contains(sign));
    exhausted.then(|| Error::Resource(format!("the daemon ran out of something: {}", reason(status))))
}

/// Takes off what daemons and gRPC put in front of a message.
fn reason(status: &Status) -> String {
    let mut text = status.message().trim();
    loop {
        let shorter = text.strip_prefix("failed to solve: ").or_else(|| {
            let rest = text.strip_prefix("rpc error: code = ")?;
            rest.split_once(" desc = ").map(|(_, message)| message)
        });
        match shorter {
            Some(shorter) => text = shorter,
            None if text.is_empty() => return format!("it says {:?} and no more", status.code()),
            None => return text.to_owned(),
        }
    }
}

/// Reads `… exit code: N` at a message's end.
fn exit_code(reason: &str) -> Option<i32> {
    let (_, after) = reason.rsplit_once("exit code: ")?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What the details of a status name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Details {
    vertex: Option<Digest>,
    exit_code: Option<i32>,
}

impl Details {
    fn of(status: &Status) -> Self {
        let mut details = Self::default();
        let Ok(decoded) = rpc::Status::decode(status.details()) else { return details };
        for detail in decoded.details {
            let Ok(json) = serde_json::from_slice::<serde_json::Value>(&detail.value) else { continue };
            let kind = detail.type_url.rsplit(['/', '.']).next().unwrap_or_default().trim_end_matches("+json");
            match kind {
                "Vertex" => {
                    details.vertex = json.get("digest").and_then(|d| d.as_str()).and_then(|d| d.parse().ok()).or(details.vertex)
                }
                "ExitMessage" | "ExitError" => {
                    let code = ["Code", "code", "ExitCode"].iter().find_map(|key| json.get(key)?.as_i64());
                    details.exit_code = code.and_then(|code| i32::try_from(code).ok()).or(details.exit_code);
                }
                _ => {}
            }
        }
        details
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Graph;
    use crate::op::{Exec, Metadata, Source};

    fn detail(kind: &str, json: &str) -> bollard_buildkit_proto::google::protobuf::Any {
        bollard_buildkit_proto::google::protobuf::Any {
            type_url: format!("github.com/moby/buildkit/solver/errdefs.{kind}+json"),
            value: json.as_bytes().to_vec(),
        }
    }

    fn status(message: &str, details: Vec<bollard_buildkit_proto::google::protobuf::Any>) -> Status {
        let details = rpc::Status { code: 2, message: message.to_owned(), details }.encode_to_vec();
        Status::with_details(Code::Unknown, message, details.into())
    }

    fn definition() -> (Definition, Digest, Digest) {
        let mut graph = Graph::new();
        let image = graph.add(Source::image("docker.io/library/a:1"), Metadata::default()).unwrap();
        let exec = graph.add(Exec::new(image, "/", &["false"]), Metadata::named("the step")).unwrap();
        (graph.definition(exec.into()), image, exec)
    }

    fn vertex(digest: Digest) -> bollard_buildkit_proto::google::protobuf::Any {
        detail("Vertex", &format!(r#"{{"digest":"{digest}"}}"#))
    }

    #[test]
    fn a_failed_step_is_named_with_its_exit_status() {
        let (definition, _, exec) = definition();
        let message = r#"process "false" did not complete successfully: exit code: 7"#;
        for details in [vec![vertex(exec)], vec![vertex(exec), detail("ExitMessage", r#"{"Code":7}"#)]] {
            match solve(&status(message, details), &definition, None) {
                Error::Step { vertex, name, exit_code, reason, .. } => {
                    assert_eq!((vertex, name.as_str(), exit_code), (Some(exec), "the step", Some(7)));
                    assert_eq!(&*reason, message);
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn old_daemons_name_the_step_in_progress_alone() {
        let (definition, _, exec) = definition();
        let error = "executor failed running [false]: exit code: 1";
        let failed = VertexProgress {
            digest: exec,
            inputs: Vec::new(),
            name: "the step".to_owned(),
            cached: false,
            started: None,
            completed: None,
            error: error.to_owned(),
        };
        let status = status(&format!("rpc error: code = Unknown desc = failed to solve: {error}"), Vec::new());
        match solve(&status, &definition, Some(&failed)) {
            Error::Step { vertex, exit_code, reason, .. } => {
                assert_eq!((vertex, exit_code, &*reason), (Some(exec), Some(1), error));
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_failed_image_is_the_registrys_affair() {
        let (definition, image, _) = definition();
        match solve(&status("docker.io/library/a:1: not found", vec![vertex(image)]), &definition, None) {
            Error::Registry { reference, reason, transient } => {
                assert_eq!((reference.as_str(), reason.as_str(), transient), ("docker.io/library/a:1", "not found", false));
            }
            other => panic!("{other}"),
        }
        for (reason, expected) in [
            ("unexpected status from HEAD request to https://h/v2/: 503 Service Unavailable", true),
            ("toomanyrequests: You have reached your pull rate limit", true),
            ("unexpected status from GET request to https://h/v2/x: 429 Too Many Requests", true),
            ("unexpected status code 429", true),
            ("unexpected status: 429", true),
            ("h/x@sha256:4292f1a1b1: not found", false),
            ("dial tcp 10.0.42.9:4290: connect: connection refused", false),
            ("dial tcp 127.0.0.1:1: connect: connection refused", false),
            ("pull access denied, repository does not exist or may require authorization", false),
        ] {
            assert!(
                matches!(registry("h/x", reason.to_owned()), Error::Registry { transient, .. } if transient == expected),
                "{reason}"
            );
        }
    }

    #[test]
    fn a_failed_push_names_the_image() {
        let names = ["h/x:1".to_owned(), "h/x:2".to_owned()];
        match job(&status("failed to push h/x:2: unexpected status: 401 Unauthorized", Vec::new()), &names, "exporting") {
            Error::Registry { reference, transient, .. } => assert_eq!((reference.as_str(), transient), ("h/x:2", false)),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_full_disk_is_told_from_a_failed_step() {
        let (definition, _, exec) = definition();
        let error = solve(&status("write /x: no space left on device", vec![vertex(exec)]), &definition, None);
        assert!(matches!(error, Error::Resource(_)), "{error}");
    }

    #[test]
    fn details_that_make_no_sense_are_passed_over() {
        let details = vec![detail("Vertex", "{"), detail("Vertex", "[]"), detail("ExitMessage", r#"{"Code":1e99}"#)];
        assert_eq!(Details::of(&status("x", details)), Details::default());
        assert_eq!(
            Details::of(&Status::with_details(Code::Unknown, "x", bytes::Bytes::from_static(b"\xff\xff"))),
            Details::default()
        );
    }
}
