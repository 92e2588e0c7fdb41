//! The platform that a release is for.

use roche_engine::op::Platform;

use super::{ReleaseError, usage};
use crate::shown;

/// Reads `os/architecture[/variant]`, in the spellings that containerd's platforms package knows.
pub fn platform(text: &str) -> Result<Platform, ReleaseError> {
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
        ("aarch64" | "arm64", "9") => ("arm64", "v9"),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", "") | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", "") | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
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
    let (architecture, variant) = go(std::env::consts::ARCH, cfg!(target_endian = "little"));
    Platform { variant: variant.to_owned(), ..Platform::new("linux", architecture) }
}

/// Says in Go's words, which are those of images, what Rust calls `arch`; with its variant.
fn go(arch: &str, little_endian: bool) -> (&str, &'static str) {
    match (arch, little_endian) {
        ("x86_64", _) => ("amd64", ""),
        ("aarch64", _) => ("arm64", ""),
        ("x86", _) => ("386", ""),
        ("arm", _) => ("arm", "v7"),
        ("powerpc64", true) => ("ppc64le", ""),
        ("powerpc64", false) => ("ppc64", ""),
        ("mips", true) => ("mipsle", ""),
        ("mips64", true) => ("mips64le", ""),
        ("loongarch64", _) => ("loong64", ""),
        (other, _) => (other, ""),
    }
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
        assert_eq!((shown("linux/arm/5"), shown("linux/arm/8")), ("linux/arm/v5".to_owned(), "linux/arm/v8".to_owned()));
        assert_eq!(shown("linux/arm/6"), "linux/arm/v6");
        assert_eq!(shown("linux/arm/v6"), "linux/arm/v6");
        assert_eq!(shown("linux/i386"), "linux/386");
        assert_eq!(shown("linux/riscv64"), "linux/riscv64");
        assert!(["linux/", "linux/amd64/", "linux//v7", "linux/a/b/c", "/amd64", ""].iter().all(|text| platform(text).is_err()));
    }

    #[test]
    fn this_program_s_architecture_has_the_name_that_images_use() {
        let table =
            [("powerpc64", true, "ppc64le"), ("powerpc64", false, "ppc64"), ("mips", true, "mipsle"), ("s390x", false, "s390x")];
        for (arch, little, expected) in table {
            assert_eq!(go(arch, little).0, expected, "{arch} {little}");
        }
        assert_eq!((go("arm", true), go("x86_64", true)), (("arm", "v7"), ("amd64", "")));
        assert_eq!((go("loongarch64", true), go("aarch64", true)), (("loong64", ""), ("arm64", "")));
    }
}
