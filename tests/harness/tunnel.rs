//! A proxy as companies have them: it makes tunnels, by HTTP's CONNECT (RFC 9110, section 9.3.6) and by
//! SOCKS 5 (RFC 1928), to one address, whatever name is asked for.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What it answers to who has no login for it, or a wrong one.
const WHO_ARE_YOU: &[u8] =
    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"tests\"\r\nContent-Length: 0\r\n\r\n";

/// A proxy that listens, for as long as the tests run.
pub(crate) struct Tunnel {
    /// Its `HOST:PORT`.
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    /// Starts one to `target`. CONNECT needs this login, `user:password` in base64.
    pub(crate) fn start(target: SocketAddr, login: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let names = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let names = names.clone();
                // Whoever asks sees a connection that breaks; what it makes of that is the test's matter.
                thread::spawn(move || serve(stream, target, login, &names));
            }
        });
        Self { address, asked }
    }

    /// Returns the names that tunnels were asked to, each once, in the order of their first time.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut names = self.asked.lock().expect("nobody panics with it").clone();
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }
}

fn serve(mut stream: TcpStream, target: SocketAddr, login: &str, names: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut first = [0];
    stream.peek(&mut first)?;
    let (name, granted) = match first[0] {
        5 => socks(&mut stream)?,
        b'C' => connect(&mut stream, login)?,
        _ => return Ok(()),
    };
    names.lock().expect("nobody panics with it").push(name);
    if !granted {
        return Ok(());
    }
    let there = TcpStream::connect(target)?;
    let (mut from, mut to) = (stream.try_clone()?, there.try_clone()?);
    let up = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    io::copy(&mut &there, &mut stream)?;
    stream.shutdown(Shutdown::Both)?;
    up.join().map_err(|_| io::Error::other("a direction panicked"))
}

/// Reads a CONNECT and answers it; returns `HOST:PORT`, and whether the login was right.
fn connect(stream: &mut TcpStream, login: &str) -> io::Result<(String, bool)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let name = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or(&head).to_owned();
    let expected = format!("\r\nproxy-authorization: basic {login}\r\n").to_ascii_lowercase();
    let granted = head.to_ascii_lowercase().contains(&expected);
    stream.write_all(if granted { b"HTTP/1.1 200 OK\r\n\r\n" } else { WHO_ARE_YOU })?;
    Ok((name, granted))
}

/// Reads a greeting and a request by name, and grants both.
fn socks(stream: &mut TcpStream) -> io::Result<(String, bool)> {
    let methods = read(stream, 2)?[1];
    read(stream, methods.into())?;
    stream.write_all(&[5, 0])?;
    let request = read(stream, 5)?;
    assert_eq!(request[..4], [5, 1, 0, 3], "it asks for no tunnel to a name");
    let name = read(stream, request[4].into())?;
    let port = read(stream, 2)?;
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    Ok((format!("{}:{}", String::from_utf8_lossy(&name), u16::from_be_bytes([port[0], port[1]])), true))
}

fn read(stream: &mut TcpStream, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
