//! Archives made by hand, so that every field can be wrong.

/// An archive being written.
#[derive(Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

/// A header being written.
pub(crate) struct Header(pub(crate) [u8; 512]);

impl Header {
    pub(crate) fn new(letter: u8, name: &[u8]) -> Self {
        let mut header = [0; 512];
        header[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        header[156] = letter;
        header[257..265].copy_from_slice(b"ustar\x0000");
        Self(header).mode(0o644).owner(0, 0).size(0).time(0)
    }

    pub(crate) fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        self.put(100, format!("{mode:07o}\0").as_bytes())
    }

    pub(crate) fn owner(self, uid: u32, gid: u32) -> Self {
        self.put(108, format!("{uid:07o}\0{gid:07o}\0").as_bytes())
    }

    pub(crate) fn size(self, size: u64) -> Self {
        self.put(124, format!("{size:011o}\0").as_bytes())
    }

    pub(crate) fn time(self, time: u64) -> Self {
        self.put(136, format!("{time:011o}\0").as_bytes())
    }

    pub(crate) fn link(self, target: &[u8]) -> Self {
        self.put(157, target)
    }

    pub(crate) fn device(self, major: u32, minor: u32) -> Self {
        self.put(329, format!("{major:07o}\0{minor:07o}\0").as_bytes())
    }

    pub(crate) fn prefix(self, prefix: &str) -> Self {
        self.put(345, prefix.as_bytes())
    }

    pub(crate) fn sparse(mut self, pairs: &[(u64, u64)], size: u64) -> Self {
        self = self.put(257, b"ustar  \0");
        for (i, (offset, length)) in pairs.iter().enumerate() {
            self = self.put(386 + 24 * i, format!("{offset:011o}\0{length:011o}\0").as_bytes());
        }
        self.put(483, format!("{size:011o}\0").as_bytes())
    }

    fn summed(self) -> [u8; 512] {
        let header = self.put(148, b"        ");
        let sum: u32 = header.0.iter().map(|&byte| u32::from(byte)).sum();
        header.put(148, format!("{sum:06o}\0 ").as_bytes()).0
    }
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a header that is right but for what `change` makes wrong.
    pub(crate) fn with(mut self, letter: u8, name: &str, change: impl FnOnce(Header) -> Header) -> Self {
        self.0.extend(change(Header::new(letter, name.as_bytes())).summed());
        self
    }

    /// Gives the last header content and its size.
    pub(crate) fn content(mut self, content: &str) -> Self {
        let header = self.0.len() - 512;
        let last = Header(self.0[header..].try_into().unwrap()).size(content.len() as u64);
        self.0.truncate(header);
        self.0.extend(last.summed());
        self.bytes(content.as_bytes())
    }

    /// Adds bytes and fills the block.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str) -> Self {
        self.with(b'0', name, |header| header)
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.with(b'5', name, |header| header.mode(0o755))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.with(b'2', name, |header| header.mode(0o777).link(target.as_bytes()))
    }

    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.with(b'1', name, |header| header.link(target.as_bytes()))
    }

    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let records: String = records
            .iter()
            .map(|(key, value)| {
                let rest = format!(" {key}={value}\n");
                let length = (1..).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
                format!("{length}{rest}")
            })
            .collect();
        self.with(b'x', "PaxHeaders.0/x", |header| header).content(&records)
    }

    /// Adds what marks the end.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}
