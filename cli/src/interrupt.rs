//! SIGINT and SIGTERM.

use crate::error::{Exit, Failure};

/// Waits for a signal to stop; returns the exit code that tells which.
#[cfg(unix)]
pub(crate) async fn wait() -> Exit {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        // No handler can be installed: the signals then do what they always do.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    }
}

/// Waits for a signal to stop; returns the exit code that tells which.
#[cfg(not(unix))]
pub(crate) async fn wait() -> Exit {
    match tokio::signal::ctrl_c().await {
        Ok(()) => Exit::Interrupted,
        Err(_) => std::future::pending().await,
    }
}

/// Says that the work was stopped on request.
pub(crate) fn failure(exit: Exit) -> Failure {
    let signal = if exit == Exit::Terminated { "SIGTERM" } else { "SIGINT" };
    Failure::say(exit, format!("cancelled by {signal}; the work was stopped"))
}
