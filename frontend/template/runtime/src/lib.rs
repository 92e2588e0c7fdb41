//! The server around a function: port, listener, signals, orderly end.
//!
//! [`serve`] is not generic, so the machine code of the whole server is made
//! when this crate is compiled, with the dependencies, and not again at each
//! edit of a function. Keep generic parameters and `#[inline]` off its
//! signature, or that gain is gone.
//!
//! 1. `PORT` is read and checked.
//! 2. SIGTERM and SIGINT are caught. As process 1 of a container a program
//!    has no default action for them, and would be killed at the end of the
//!    grace period.
//! 3. The handler's server listens on every IPv4 address.
//! 4. On a signal it stops accepting, requests in progress are answered, and
//!    the process ends with 0.

mod crates;

use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_std::task;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tide::listener::Listener;
use tide::utils::async_trait;
use tide::{Middleware, Next, Request, Server};

/// The port where `PORT` is not set.
const DEFAULT_PORT: u16 = 8080;

/// The longest wait for requests in progress: half of the ten seconds that
/// `docker stop` grants.
const DRAIN: Duration = Duration::from_secs(5);

/// How often the end of the requests in progress is looked for.
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// Serves the handler's routes on `0.0.0.0:$PORT` until SIGTERM or SIGINT.
///
/// `PORT` is a number from 0 to 65535; without it the port is 8080, and 0 asks
/// the system for a free one. One line on stderr names the address when the
/// socket is open. After a signal no connection is accepted, and requests in
/// progress have five seconds; a second signal ends them at once.
///
/// Returns success after a signal. Returns failure, with one line on stderr,
/// where `PORT` is not a port or its address cannot be listened on.
pub fn serve(handler: fn() -> Server<()>) -> ExitCode {
    crates::keep();
    match run(handler) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(handler: fn() -> Server<()>) -> Result<(), String> {
    let port = port(env::var_os("PORT"))?;
    // Before the socket opens, so that a signal is never lost in between.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|e| format!("SIGTERM and SIGINT cannot be caught: {e}"))?;

    let active = Active::default();
    let mut server = handler();
    server.with(active.clone());

    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let mut listener = task::block_on(server.bind(address)).map_err(|e| unusable(address, &e))?;
    for place in listener.info() {
        eprintln!("roche-service listens on {place}");
    }
    let accepting = task::spawn(async move {
        if let Err(e) = listener.accept().await {
            eprintln!("error: connections are no longer accepted: {e}");
            process::exit(1);
        }
    });

    signals.forever().next();
    task::block_on(accepting.cancel());
    let deadline = Instant::now() + DRAIN;
    while active.any() && Instant::now() < deadline && signals.pending().next().is_none() {
        thread::sleep(DRAIN_STEP);
    }
    Ok(())
}

/// Reads the port from the value of `PORT`.
fn port(value: Option<std::ffi::OsString>) -> Result<u16, String> {
    let Some(value) = value else {
        return Ok(DEFAULT_PORT);
    };
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("PORT is {value:?}, which is not a port; set it to a number from 0 to 65535"))
}

/// Says why an address cannot be listened on, and what to do.
fn unusable(address: SocketAddr, e: &io::Error) -> String {
    let remedy = match e.kind() {
        io::ErrorKind::AddrInUse => "end the program that has it, or set PORT to another port",
        io::ErrorKind::PermissionDenied => "set PORT to 1024 or above",
        _ => "set PORT to a port that is free",
    };
    format!("{address} cannot be listened on: {e}; {remedy}")
}

/// Counts the requests that are in progress.
#[derive(Clone, Default)]
struct Active(Arc<AtomicUsize>);

impl Active {
    fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    fn begin(&self) -> InProgress {
        self.0.fetch_add(1, Ordering::AcqRel);
        InProgress(Arc::clone(&self.0))
    }
}

#[async_trait]
impl Middleware<()> for Active {
    async fn handle(&self, request: Request<()>, next: Next<'_, ()>) -> tide::Result {
        let in_progress = self.begin();
        let mut response = next.run(request).await;
        // The response owns the mark, and is dropped when its last byte is
        // written: a body in transit counts as in progress.
        response.insert_ext(in_progress);
        Ok(response)
    }
}

/// One request, from its routing to the last byte of its response.
struct InProgress(Arc<AtomicUsize>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_value_the_port_is_8080() {
        assert_eq!(port(None), Ok(8080));
    }

    #[test]
    fn a_value_that_is_no_port_is_named_in_the_error() {
        for bad in ["", "http", "65536", "-1", " 80"] {
            let message = port(Some(bad.into())).expect_err(bad);
            assert!(message.contains(&format!("{bad:?}")), "{message}");
            assert!(message.contains("0 to 65535"), "{message}");
        }
    }

    #[test]
    fn a_request_is_in_progress_until_its_response_is_dropped() {
        let active = Active::default();
        let mut app = tide::new();
        app.at("/").get(|_| async { Ok("done") });
        app.with(active.clone());
        let url = tide::http::Url::parse("http://localhost/").expect("a fixed address");
        let request = tide::http::Request::new(tide::http::Method::Get, url);
        let response: tide::http::Response = task::block_on(app.respond(request)).expect("tide answers with a response");
        assert!(active.any());
        drop(response);
        assert!(!active.any());
    }
}
