//! Back ends that are not there, or are something else: 5, with the address and where it came from.
//!
//! Red when: an address that was named is passed over for another one, TLS is given up, something
//! that is no daemon is waited for, or the message does not say which setting to change.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::thread;

use super::{DEAD, SECOND, Table};
use crate::harness::{Daemon, Project, Roche, image, on_docker26};

/// A release to whatever its environment and its flags name.
fn release(project: &Project) -> Roche {
    Roche::new(project.root()).build_image(&image("build")).runtime(&image("runtime-busybox")).args([
        "release",
        "-t",
        "x.invalid/unnamed:1",
    ])
}

/// The ways to name an address, and how a message calls them.
const CHANNELS: [(&str, &str); 3] = [("DOCKER_HOST", "DOCKER_HOST"), ("BUILDKIT_HOST", "BUILDKIT_HOST"), ("--addr", "--addr")];

fn named(project: &Project, channel: &str, address: &str) -> Roche {
    match channel {
        "--addr" => release(project).args(["--addr", address]),
        variable => release(project).env(variable, address),
    }
}

#[test]
fn what_is_absent_or_refused_gives_5() {
    let (project, mut table) = (Project::hello("x"), Table::new("absent back ends"));
    let left = project.path("left.sock");
    drop(UnixListener::bind(&left).unwrap());
    project.write("file.sock", "no socket");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = |name: &str| format!("unix://{}", project.path(name).display());
    let rows = [
        ("no such socket", DEAD.to_string()),
        ("nobody listens on the socket", at("left.sock")),
        ("a file, no socket", at("file.sock")),
        ("a folder", format!("unix://{}", project.root().display())),
        ("below a file", at("file.sock/x")),
        ("a name that is too long", format!("unix:///{}", "x".repeat(200))),
        ("refused port", format!("tcp://127.0.0.1:{port}")),
        ("refused port, IPv6", format!("tcp://[::1]:{port}")),
    ];
    for (what, address) in rows {
        for (channel, said) in CHANNELS {
            let ended = named(&project, channel, &address).run();
            let shown = address.trim_start_matches("unix://").trim_start_matches("tcp://");
            // A message may cut what is very long.
            table.fails(what, channel, &ended, &[5], &[shown.get(..100).unwrap_or(shown), said], SECOND);
        }
    }
    // A name server may take its own time to say no.
    let ended = named(&project, "DOCKER_HOST", "tcp://no-such-host.invalid:2375").run();
    table.fails("no such host", "DOCKER_HOST", &ended, &[5], &["no-such-host.invalid", "DOCKER_HOST"], SECOND * 10);
    table.end();
}

#[test]
fn no_permission_gives_5() {
    use std::os::unix::fs::PermissionsExt;
    let (project, mut table) = (Project::hello("x"), Table::new("no permission"));
    let socket = project.path("closed.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (channel, said) in CHANNELS {
        let ended = named(&project, channel, &format!("unix://{}", socket.display())).as_nobody().run();
        table.fails("a socket of root's, as nobody", channel, &ended, &[5], &["closed.sock", "ermission denied", said], SECOND);
    }
    table.end();
}

#[test]
fn schemes_that_are_not_supported_give_5_or_2() {
    let (project, mut table) = (Project::hello("x"), Table::new("schemes"));
    for address in [
        "docker-container://x",
        "podman-container://x",
        "kube-pod://x",
        "ssh://h.invalid",
        "http://h.invalid",
        "https://h.invalid",
        "npipe:////./pipe/x",
        "fd://3",
        "nope://x",
        "file:///etc/passwd",
    ] {
        for (channel, said) in CHANNELS {
            let ended = named(&project, channel, address).run();
            // docker takes http for tcp.
            let shown = address.split(':').next().filter(|scheme| *scheme != "http").unwrap_or("h.invalid");
            table.fails(address, channel, &ended, &[5, 2], &[shown, said], SECOND);
        }
    }
    table.end();
}

/// A server on loopback that answers whatever comes with the same bytes; its address.
fn server(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer);
            });
        }
    });
    format!("tcp://{address}")
}

const ANSWERS: &[(&str, &[u8])] = &[
    ("404", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    ("200, a web page", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<html>hi</html>"),
    ("301", b"HTTP/1.1 301 Moved Permanently\r\nLocation: http://evil.invalid/\r\nContent-Length: 0\r\n\r\n"),
    ("400, it wants TLS", b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"),
    ("101 to something else", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nxxxx"),
    ("a mail server", b"220 mail.invalid ESMTP\r\n"),
    ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n"),
    ("garbage", b"\x00\xff\x1b[31m\x07\xfe garbage \x1b]0;x\x07"),
    ("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46"),
    ("nothing", b""),
    ("half a head", b"HTTP/1.1 200"),
    ("HTTP/2 with a frame that is too large", b"\xff\xff\xff\x04\x00\x00\x00\x00\x00"),
];

#[test]
fn another_protocol_gives_5() {
    let (project, mut table) = (Project::hello("x"), Table::new("other protocols"));
    for (what, answer) in ANSWERS {
        for (channel, said) in CHANNELS {
            let address = server(answer);
            let ended = named(&project, channel, &address).run();
            let shown = address.trim_start_matches("tcp://");
            table.fails(what, channel, &ended, &[5], &[shown, said], SECOND);
        }
    }
    table.end();
}

/// A certificate authority that nothing is signed by.
fn authority(project: &Project) -> String {
    super::shell(
        project.root(),
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=x.invalid -keyout key.pem -out ca.pem 2>/dev/null",
    );
    project.path("ca.pem").display().to_string()
}

#[test]
fn tls_that_cannot_be_had_gives_5() {
    let (project, mut table) = (Project::hello("x"), Table::new("TLS"));
    let ca = authority(&project);
    for (what, answer) in ANSWERS {
        let address = server(answer);
        let ended = release(&project).args(["--addr", &address, "--tlscacert", &ca]).run();
        table.fails(what, "--tlscacert", &ended, &[5], &["--addr", address.trim_start_matches("tcp://")], SECOND);
        table.rule(what, "--tlscacert", &ended, ended.stderr.contains("TLS"), "TLS is not named");
    }
    let folder = project.root().display().to_string();
    let address = server(ANSWERS[0].1);
    // The names that docker's own variables expect.
    super::shell(project.root(), "cp ca.pem cert.pem");
    let ended =
        release(&project).env("DOCKER_HOST", &address).env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", &folder).run();
    table.fails("404", "DOCKER_TLS_VERIFY", &ended, &[5], &["DOCKER_HOST", address.trim_start_matches("tcp://")], SECOND);
    table.rule("404", "DOCKER_TLS_VERIFY", &ended, ended.stderr.contains("TLS"), "TLS is not named");
    project.write("bad.pem", "no certificate");
    std::fs::create_dir(project.path("folder")).unwrap();
    for file in ["/nonexistent/ca.pem", "bad.pem", "folder"] {
        for flag in ["--tlscacert", "--tlscert", "--tlskey"] {
            let ended = release(&project).args(["--addr", &address, flag, file]).run();
            table.fails(file, flag, &ended, &[5, 2, 4], &["--addr"], SECOND);
            let named = ended.stderr.contains(flag) || ended.stderr.contains(file);
            table.rule(file, flag, &ended, named, "neither the flag nor the file is named");
        }
    }
    table.end();
}

#[test]
fn tls_with_a_server_that_another_authority_vouches_for_gives_5() {
    use std::process::{Command, Stdio};
    let (project, mut table) = (Project::hello("x"), Table::new("certificates"));
    let ca = authority(&project);
    let other = Project::empty();
    authority(&other);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-key", "key.pem", "-cert", "ca.pem", "-accept", &format!("127.0.0.1:{port}")])
        .current_dir(other.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(server.try_wait().unwrap().is_none(), "openssl s_server has ended");
        thread::sleep(std::time::Duration::from_millis(20));
    }
    let address = format!("tcp://127.0.0.1:{port}");
    let ended = release(&project).args(["--addr", &address, "--tlscacert", &ca]).run();
    let same = release(&project).args(["--addr", &address, "--tlscacert", &other.path("ca.pem").display().to_string()]).run();
    server.kill().unwrap();
    server.wait().unwrap();
    let port = format!("127.0.0.1:{port}");
    table.fails("another authority's", "--tlscacert", &ended, &[5], &["--addr", &port, "certificate"], SECOND);
    table.fails("another host's", "--tlscacert", &same, &[5], &["--addr", &port, "certificate"], SECOND);
    table.end();
}

on_docker26!(what_is_named_and_fails_has_no_fallback);
fn what_is_named_and_fails_has_no_fallback(daemon: &Daemon) {
    let (project, mut table) = (Project::hello("fallback"), Table::new("no fallback"));
    let context = r#"{"currentContext": "no-such-context"}"#;
    let live = || release(&project).env("DOCKER_HOST", daemon.host());
    let rows = [
        ("unknown builder", "--builder", live().args(["--builder", "no-such-builder"])),
        ("unknown builder", "BUILDX_BUILDER", live().env("BUILDX_BUILDER", "no-such-builder")),
        ("dead address", "--addr", live().args(["--addr", DEAD])),
        ("dead address", "BUILDKIT_HOST", live().env("BUILDKIT_HOST", DEAD)),
        ("a builder by a path", "--builder", live().args(["--builder", "../../../etc/passwd"])),
        ("a builder with escapes", "BUILDX_BUILDER", live().env("BUILDX_BUILDER", "\u{1b}[31m")),
        ("unknown context", "DOCKER_CONTEXT", release(&project).env("DOCKER_CONTEXT", "no-such-context")),
        ("a context by a path", "DOCKER_CONTEXT", release(&project).env("DOCKER_CONTEXT", "../../x")),
        ("unknown context", "currentContext", release(&project).home_file(".docker/config.json", context)),
        ("dead address", "DOCKER_HOST", release(&project).env("DOCKER_HOST", DEAD)),
        (
            "dead address before a flag's own order",
            "--builder",
            release(&project).env("BUILDKIT_HOST", daemon.host()).args(["--builder", "no-such-builder"]),
        ),
    ];
    for (what, channel, call) in rows {
        let ended = call.run();
        table.fails(what, channel, &ended, &[5], &[], SECOND);
        let named = ended.stderr.contains(channel) || (channel == "currentContext" && ended.stderr.contains("no-such-context"));
        table.rule(what, channel, &ended, named, "the message does not say where the name came from");
    }
    assert!(!daemon.has_image("x.invalid/unnamed:1"), "a daemon that was not named has built the image");
    table.end();
}
