//! The certificate authorities that the machine trusts, for images that stand on nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{HostError, at};

/// Where systems keep them as one file: Debian, Alpine and Arch; Fedora; openSUSE; OpenBSD's name.
const PLACES: [&str; 4] =
    ["etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem", "etc/ssl/cert.pem"];

/// The largest bundle that is taken: a graph carries it in one message.
const LIMIT_BYTES: u64 = 2 << 20;

/// A bundle of certificate authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// Where it was found.
    pub path: PathBuf,
    /// PEM.
    pub data: Vec<u8>,
}

/// Reads the bundle of the system under `root`, which is `/` for this machine's; none where there
/// is none.
pub fn certificates(root: &Path) -> Result<Option<Certificates>, HostError> {
    for place in PLACES {
        let path = root.join(place);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at(&path)(error)),
        };
        if !metadata.is_file() || metadata.len() > LIMIT_BYTES {
            let reason = format!("is no file of at most {LIMIT_BYTES} bytes, which a bundle of certificates is");
            return Err(HostError::Unusable { path, reason });
        }
        let data = fs::read(&path).map_err(at(&path))?;
        return Ok(Some(Certificates { path, data }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bundle_is_taken_and_none_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(certificates(root.path()).unwrap(), None);
        fs::create_dir_all(root.path().join("etc/ssl")).unwrap();
        fs::write(root.path().join("etc/ssl/cert.pem"), "pem").unwrap();
        let found = certificates(root.path()).unwrap().unwrap();
        assert_eq!((found.path, found.data), (root.path().join("etc/ssl/cert.pem"), b"pem".to_vec()));
        fs::create_dir_all(root.path().join("etc/ssl/certs/ca-certificates.crt")).unwrap();
        assert!(certificates(root.path()).unwrap_err().to_string().contains("is no file"));
    }
}
