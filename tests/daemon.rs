//! Daemons that misbehave: silent, garbled, dying at any byte, flooding.
//!
//! A proxy stands before a real dockerd and breaks the connection at a chosen place. Red when: an
//! await has no deadline or the keepalive is gone (silence, stall); the end of a connection is not
//! an error, or is a success, at some place of the protocol (cuts); logs are kept whole (floods).

use std::time::{Duration, Instant};

use crate::harness::{
    Daemon, Fault, Project, Proxy, Roche, Tag, image, mebibytes, on_docker26, on_every_daemon, unique, with_cargo,
};

/// The contract's half minute for a black hole, with slack for a busy machine.
const BLACK_HOLE: Duration = Duration::from_secs(40);

/// The contract's bound on memory, whatever is thrown at the program.
const MOST_MEMORY: u64 = mebibytes(128);

fn release_through(proxy: &Proxy, daemon: &Daemon, project: &Project, tag: &Tag) -> Roche {
    Roche::release(daemon, project.root()).env("DOCKER_HOST", proxy.host()).tag(tag)
}

on_every_daemon!(a_daemon_that_never_answers_is_given_up);
fn a_daemon_that_never_answers_is_given_up(daemon: &Daemon) {
    let (proxy, project, tag) = (Proxy::start(daemon, Fault::Silence), Project::hello("hello"), daemon.tag());
    let ended = release_through(&proxy, daemon, &project, &tag).within(BLACK_HOLE).run();
    let code = if ended.status.code() == Some(5) { 5 } else { 6 };
    ended.fails(code, &["docker.sock"]);
}

on_every_daemon!(a_daemon_that_falls_silent_in_a_build_is_given_up);
fn a_daemon_that_falls_silent_in_a_build_is_given_up(daemon: &Daemon) {
    let (project, tag) = (Project::hello("hello"), daemon.tag());
    let all = bytes_of_a_release(daemon, &project);
    let proxy = Proxy::start(daemon, Fault::StallAfter(all / 2));
    let ended = release_through(&proxy, daemon, &project, &tag).within(BLACK_HOLE).run();
    ended.fails(6, &[]);
}

on_every_daemon!(a_connection_that_breaks_anywhere_is_an_error_or_a_whole_release);
fn a_connection_that_breaks_anywhere_is_an_error_or_a_whole_release(daemon: &Daemon) {
    let project = Project::hello("hello");
    let all = bytes_of_a_release(daemon, &project);
    println!("\na release takes {all} bytes from {}\n{:>8} {:>5} {:>8}  message", daemon.name, "cut at", "code", "seconds");
    let (mut broken, mut errors, mut whole) = (Vec::new(), 0, 0);
    // The soak cuts at 200 places, a plain run at a sample of them.
    let sample = vec![0, 1, 60, 200, all / 16, all / 8, all / 4, all / 2, all * 3 / 4, all * 15 / 16, all - 1];
    let places = if std::env::var_os("ROCHE_SOAK").is_some() { (0..200).map(|i| all * i / 200).collect() } else { sample };
    for at in places {
        let (proxy, tag) = (Proxy::start(daemon, Fault::CutAfter(at)), daemon.tag());
        let ended = release_through(&proxy, daemon, &project, &tag).within(Duration::from_secs(30)).run();
        let (code, message) = (ended.status.code().unwrap_or(-1), ended.lines("error: ").join(" / "));
        println!("{at:>8} {code:>5} {:>8.1}  {message}", ended.elapsed.as_secs_f32());
        let verdict = match code {
            0 if daemon.has_image(&tag.name) => {
                whole += 1;
                Ok(())
            }
            0 => Err("success without an image".to_string()),
            5 => ended.check_failure(5, &[]),
            _ => ended.check_failure(6, &[]),
        };
        errors += usize::from(code != 0);
        if let Err(reason) = verdict {
            broken.push(format!("cut at {at}: {reason}\n{}", ended.story()));
        }
    }
    println!("{}: {errors} cuts gave an error, {whole} a whole release, {} are broken", daemon.name, broken.len());
    assert!(broken.is_empty(), "{} places are broken\n{}", broken.len(), broken.join("\n"));
}

on_every_daemon!(a_step_that_floods_its_log_costs_no_memory);
fn a_step_that_floods_its_log_costs_no_memory(daemon: &Daemon) {
    flood(daemon, &with_cargo(daemon, FLOOD).name);
}

on_every_daemon!(a_release_that_was_stopped_in_a_flood_goes_on);
fn a_release_that_was_stopped_in_a_flood_goes_on(daemon: &Daemon) {
    // More than 1 MiB of log comes together meanwhile, which a daemon splits; an old one never ends that.
    let (project, tag, build_image) = (Project::hello(&unique()), daemon.tag(), with_cargo(daemon, FLOOD));
    let call = Roche::release(daemon, project.root()).tag(&tag).args(["-b", &build_image.name, "--progress", "plain"]);
    let running = call.start();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !running.said().contains("a line of a step") {
        assert!(Instant::now() < deadline, "the flood does not begin:\n{}", running.said());
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal("STOP");
    std::thread::sleep(Duration::from_secs(5));
    running.signal("CONT");
    let ended = running.ends_within(Duration::from_secs(100)).succeeds();
    assert!(daemon.has_image(&tag.name));
    // What came after the flood is known.
    let end = &ended.stderr[ended.stderr.len().saturating_sub(3000)..];
    assert!(end.contains(" make what the runtime image lacks"), "{end}");
}

on_docker26!(a_flood_that_no_daemon_cuts_off_costs_no_memory);
fn a_flood_that_no_daemon_cuts_off_costs_no_memory(_shared: &Daemon) {
    // A daemon cuts a step's log at 2 MiB: this one is told not to.
    let unlimited = [("BUILDKIT_STEP_LOG_MAX_SIZE", "-1"), ("BUILDKIT_STEP_LOG_MAX_SPEED", "-1")];
    let daemon = Daemon::empty("flood", &unlimited);
    daemon.daemon.run(["pull", "-q", &image("runtime-busybox")]);
    let build_image = with_cargo(&daemon.daemon, FLOOD);
    let shown = flood(&daemon.daemon, &build_image.name);
    assert!(shown.len() > 120_000_000, "of 120,000,000 bytes of log only {} are shown", shown.len());
    assert!(shown.contains("the flood is over"), "the end of the log is lost");
}

/// 100 MB in lines, then 20 MB in one, then a service.
const FLOOD: &str = "yes 'a line of a step that says the same thing again and again' | head -c 100000000
echo
head -c 20000000 /dev/zero | tr '\\0' x
echo
echo the flood is over
exec build-service";

/// Releases with a flooding build image; returns the plain progress.
#[track_caller]
fn flood(daemon: &Daemon, build_image: &str) -> String {
    let mut shown = String::new();
    for progress in ["plain", "quiet"] {
        let (project, tag) = (Project::hello(&unique()), daemon.tag());
        let call = Roche::release(daemon, project.root()).tag(&tag).args(["-b", build_image, "--progress", progress]);
        let ended = call.run().succeeds();
        println!(
            "{}, {progress}: {} bytes on stderr, peak {} MiB",
            daemon.name,
            ended.stderr.len(),
            ended.peak_memory_bytes >> 20
        );
        assert!(ended.peak_memory_bytes > 0, "no memory was sampled");
        assert!(ended.peak_memory_bytes < MOST_MEMORY, "{} MiB at {progress}", ended.peak_memory_bytes >> 20);
        assert!(daemon.has_image(&tag.name));
        if progress == "plain" {
            shown = ended.stderr;
        }
    }
    shown
}

/// How much the daemon sends in a release whose steps are cached, as all later ones are.
fn bytes_of_a_release(daemon: &Daemon, project: &Project) -> u64 {
    let mut bytes = 0;
    for _ in 0..2 {
        let (proxy, tag) = (Proxy::start(daemon, Fault::Never), daemon.tag());
        release_through(&proxy, daemon, project, &tag).run().succeeds();
        bytes = proxy.bytes_from_daemon();
    }
    bytes
}
