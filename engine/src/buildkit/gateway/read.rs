//! A single file of a result.
//!
//! Invariant: no more is kept than the caller allows, however much a daemon sends.

use super::{Error, GatewayJob, Solved, bridge, fault};
use crate::solver::too_large;

/// What is asked for at once: a daemon may send no more than 4 MiB in a message.
const PIECE_BYTES: usize = 1 << 20;

impl GatewayJob {
    /// Reads the regular file at `path`.
    pub(super) async fn file(&self, result: &Solved, path: &str, max_bytes: u64) -> Result<Vec<u8>, Error> {
        let doing = format!("reading {path} of a result");
        let mut client = self.bridge();
        let mut data = Vec::new();
        loop {
            let range = bridge::FileRange { offset: data.len() as i64, length: PIECE_BYTES as i64 };
            let (r#ref, file_path) = (result.id.clone(), path.to_owned());
            let request = self.request(bridge::ReadFileRequest { r#ref, file_path, range: Some(range), ..Default::default() });
            let read = self.call(&doing, client.read_file(request)).await?.map_err(|status| fault::call(&status, &doing))?;
            data.extend_from_slice(&read.data);
            if data.len() as u64 > max_bytes {
                return Err(too_large(path, max_bytes));
            }
            if read.data.len() < PIECE_BYTES {
                return Ok(data);
            }
        }
    }
}
