//! The platform that a release is for.

use roche_engine::op::Platform;

use super::{ReleaseError, usage};
use crate::shown;

/// Reads `os/architecture[/variant]`, in the spellings that containerd's platforms package knows.
pub(super) fn platform(text: &str) -> Result<Platform, ReleaseError> {
    let fail = |reason: &str| usage("--platform", format!("{:?} {reason}", shown::text(text)));
    if text.contains(',') {
        return Err(fail("names several platforms; a release is for one: run the command once for each"));
    }
    let lower = text.to_ascii_lowercase();
    let mut parts = lower.split('/');
    let (os, architecture, variant) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(os), Some(architecture), variant, None) => (os, architecture, variant.unwrap_or_default()),
        _ => return Err(fail("is not a platform: expected linux/ARCHITECTURE, such as linux/amd64")),
    };
    let legal = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if os != "linux" {
        return Err(fail("is not for Linux: functions run on linux/ARCHITECTURE, such as linux/amd64"));
    }
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
        ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
        ("armhf", "") | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", "") => ("arm", "v6"),
        ("i386" | "i686" | "386", "") => ("386", ""),
        other => other,
    };
    if architecture.is_empty() || !legal(architecture) || !legal(variant) || text.ends_with('/') {
        return Err(fail("is not a platform: expected linux/ARCHITECTURE, such as linux/amd64"));
    }
    Ok(Platform { variant: variant.to_owned(), ..Platform::new("linux", architecture) })
}

/// Returns Linux on the architecture that this program was compiled for.
pub fn host_platform() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", ""),
        "x86" => ("386", ""),
        "arm" => ("arm", "v7"),
        "powerpc64" => ("ppc64le", ""),
        other => (other, ""),
    };
    Platform { variant: variant.to_owned(), ..Platform::new("linux", architecture) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_in_every_usual_spelling() {
        let shown = |text: &str| platform(text).unwrap().to_string();
        assert_eq!(shown("linux/x86_64"), "linux/amd64");
        assert_eq!(shown("Linux/ARM64/v8"), "linux/arm64");
        assert_eq!(shown("linux/arm"), "linux/arm/v7");
        assert_eq!(shown("linux/riscv64"), "linux/riscv64");
        assert!(["linux/", "linux/amd64/", "linux//v7", "linux/a/b/c", "/amd64", ""].iter().all(|text| platform(text).is_err()));
    }
}
