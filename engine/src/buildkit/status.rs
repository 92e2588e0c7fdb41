//! Progress as daemons send it: `StatusResponse` to [`Progress`].
//!
//! Invariant: nothing is made up. What a daemon says of a vertex without a proper digest is left
//! out, times are the daemon's, and logs stay bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1 as control;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::Digest;
use crate::solver::{LogProgress, Progress, ProgressSender, StatusProgress, VertexProgress, WarningProgress};

/// How much of a job's progress has come.
#[derive(Debug, Default)]
pub(super) struct Heard {
    messages: AtomicU64,
    over: watch::Sender<bool>,
}

impl Heard {
    /// The messages so far that said something. Who waits is not woken for each: a step that floods its
    /// log makes many.
    pub(super) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Waits until there will be no more.
    pub(super) async fn over(&self) {
        // The sender is here, so the wait cannot fail.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

/// How many times in a row a daemon may say nothing.
const NOTHINGS: u32 = 1000;

/// Reads a job's progress until it ends: `failed` is told each vertex that fails, `heard` how far
/// it is. A receiver that is slow slows the daemon down, so that no log piles up here.
///
/// BuildKit before 0.10 never leaves the loop that splits a status with more than 1 MiB of logs
/// (`control/control.go`): it goes on with empty ones, for ever. What is left of such a stream says
/// nothing, and so the daemon is asked anew, which goes on with what comes next.
pub(super) async fn follow(
    mut client: ControlClient<Channel>,
    reference: String,
    progress: ProgressSender,
    failed: watch::Sender<Option<VertexProgress>>,
    heard: Arc<Heard>,
) {
    let mut nothings = NOTHINGS;
    while nothings == NOTHINGS
        && let Ok(response) = client.status(control::StatusRequest { r#ref: reference.clone() }).await
    {
        nothings = 0;
        let mut deltas = response.into_inner();
        while nothings < NOTHINGS
            && let Ok(Some(delta)) = deltas.message().await
        {
            let delta = progress_of(delta);
            if delta == Progress::default() {
                nothings += 1;
                continue;
            }
            nothings = 0;
            heard.messages.fetch_add(1, Ordering::Relaxed);
            let failure = delta.vertices.iter().rfind(|vertex| !vertex.error.is_empty() && vertex.completed.is_some()).cloned();
            progress.send(delta).await;
            if failure.is_some() {
                failed.send_replace(failure);
            }
        }
    }
    heard.over.send_replace(true);
}

/// Reads one delta.
fn progress_of(response: control::StatusResponse) -> Progress {
    Progress {
        vertices: response.vertexes.into_iter().filter_map(vertex).collect(),
        statuses: response.statuses.into_iter().filter_map(status).collect(),
        logs: response.logs.into_iter().filter_map(log).collect(),
        warnings: response.warnings.into_iter().filter_map(warning).collect(),
    }
}

fn vertex(vertex: control::Vertex) -> Option<VertexProgress> {
    Some(VertexProgress {
        digest: vertex.digest.parse().ok()?,
        inputs: vertex.inputs.iter().filter_map(|input| input.parse::<Digest>().ok()).collect(),
        name: vertex.name,
        cached: vertex.cached,
        started: vertex.started.and_then(time),
        completed: vertex.completed.and_then(time),
        error: vertex.error,
    })
}

fn status(status: control::VertexStatus) -> Option<StatusProgress> {
    Some(StatusProgress {
        vertex: status.vertex.parse().ok()?,
        id: status.id,
        name: status.name,
        current: status.current,
        total: status.total,
        timestamp: status.timestamp.and_then(time),
        started: status.started.and_then(time),
        completed: status.completed.and_then(time),
    })
}

fn log(log: control::VertexLog) -> Option<LogProgress> {
    Some(LogProgress {
        vertex: log.vertex.parse().ok()?,
        stream: log.stream,
        data: log.msg,
        timestamp: log.timestamp.and_then(time),
    })
}

fn warning(warning: control::VertexWarning) -> Option<WarningProgress> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(WarningProgress {
        vertex: warning.vertex.parse().ok()?,
        level: warning.level,
        short: text(&warning.short),
        detail: warning.detail.iter().map(|line| text(line)).collect(),
        url: warning.url,
    })
}

/// The times that `google.protobuf.Timestamp` allows: the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Reads a time; one outside what a timestamp may say is no time.
fn time(timestamp: Timestamp) -> Option<SystemTime> {
    let nanos = u32::try_from(timestamp.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    if !SECONDS.contains(&timestamp.seconds) {
        return None;
    }
    let seconds = Duration::from_secs(timestamp.seconds.unsigned_abs());
    let whole = if timestamp.seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    whole?.checked_add(Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_range() {
        let at = |seconds, nanos| time(Timestamp { seconds, nanos });
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(at(1, 5), Some(epoch + Duration::new(1, 5)));
        assert_eq!(at(-1, 5), Some(epoch - Duration::from_secs(1) + Duration::from_nanos(5)));
        assert_eq!(at(1, -1), None);
        assert_eq!(at(1, 1_000_000_000), None);
        assert_eq!(at(i64::MAX, 0), None);
        assert_eq!(at(253_402_300_800, 0), None);
        assert_eq!(at(i64::MIN, 0), None);
    }

    #[test]
    fn what_has_no_digest_is_left_out() {
        let good = Digest::of(b"x");
        let vertex = |digest: &str| control::Vertex { digest: digest.to_owned(), ..Default::default() };
        let log = |vertex: &str| control::VertexLog { vertex: vertex.to_owned(), msg: vec![0xff], ..Default::default() };
        let progress = progress_of(control::StatusResponse {
            vertexes: vec![vertex(""), vertex(&good.to_string()), vertex("random:nothing")],
            logs: vec![log("x"), log(&good.to_string())],
            ..Default::default()
        });
        assert_eq!(progress.vertices.iter().map(|v| v.digest).collect::<Vec<_>>(), [good]);
        assert_eq!(progress.logs.iter().map(|l| &l.data[..]).collect::<Vec<_>>(), [[0xff]]);
    }
}
