//! As much of HTTP/1.1 as asking one question takes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// Header lines as they came.
    head: String,
    /// The content.
    pub(crate) body: String,
}

impl Response {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    }
}

/// Sends one request to `HOST:PORT`, and reads the answer to its end.
pub(crate) fn request(method: &str, address: &str, path: &str, headers: &[&str]) -> io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for header in headers {
        text += &format!("{header}\r\n");
    }
    stream.write_all(format!("{text}\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(wrong)?;
    let response = Response { status, head: head.to_string(), body: body.to_string() };
    match response.header("transfer-encoding") {
        Some(coding) => Err(io::Error::new(io::ErrorKind::Unsupported, format!("transfer coding {coding}"))),
        None => Ok(response),
    }
}
