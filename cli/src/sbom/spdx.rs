//! SPDX 2.3 (spdx.github.io/spdx-spec/v2.3), as JSON.
//!
//! The image contains the service; a crate that is in it is depended on, one that only took part in
//! the build is a build dependency. Nothing is concluded about licences: what is declared is what the
//! crates say of themselves.

use roche_frontend::crates::{Details, Kind, Package};
use serde_json::{Value, json};

use super::{Bill, archive, purl};

const NONE: &str = "NOASSERTION";

/// Writes the document.
pub(super) fn document(bill: &Bill<'_>) -> Value {
    let packages = std::iter::once(image(bill))
        .chain(bill.materials.packages().enumerate().map(|(number, (package, details))| {
            let mut value = self::package(number, package, details);
            if package.root {
                // The list is of this program.
                value["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": bill.materials.program.hex()}]);
            }
            value
        }))
        .collect::<Vec<_>>();
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": bill.name(),
        "documentNamespace": format!("https://spdx.org/spdxdocs/roche-{}", bill.uuid("spdx")),
        "creationInfo": {"created": bill.created, "creators": [concat!("Tool: roche-", env!("CARGO_PKG_VERSION"))]},
        "packages": packages,
        "relationships": relationships(bill),
    })
}

fn image(bill: &Bill<'_>) -> Value {
    let mut value = json!({
        "SPDXID": "SPDXRef-image",
        "name": bill.name(),
        "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
    });
    if let Some(digest) = bill.digest {
        value["versionInfo"] = json!(digest);
    }
    if let Some(purl) = bill.purl() {
        value["externalRefs"] = json!([manager(&purl)]);
    }
    value
}

fn package(number: usize, package: &Package, details: &Details) -> Value {
    let mut value = json!({
        "SPDXID": id(number, package),
        "name": package.name,
        "versionInfo": package.version,
        "primaryPackagePurpose": if package.root { "APPLICATION" } else { "LIBRARY" },
        "downloadLocation": archive(package).unwrap_or_else(|| NONE.to_owned()),
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": details.license.as_deref().unwrap_or(NONE),
        "copyrightText": NONE,
    });
    if let Some(checksum) = &details.checksum {
        value["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": checksum}]);
    }
    if let Some(purl) = purl(package) {
        value["externalRefs"] = json!([manager(&purl)]);
    }
    if let Some(features) = details.features.as_ref().filter(|features| !features.is_empty()) {
        value["comment"] = json!(format!("features: {}", features.join(", ")));
    }
    value
}

fn manager(purl: &str) -> Value {
    json!({"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl})
}

fn relationships(bill: &Bill<'_>) -> Vec<Value> {
    let edge =
        |from: &str, kind: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    let packages = &bill.materials.crates.packages;
    let mut edges = vec![edge("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")];
    // A list without a root is still one of what the image contains.
    let has_root = packages.iter().any(|package| package.root);
    let contained = packages.iter().enumerate().filter(|(_, package)| package.root || !has_root && package.kind == Kind::Runtime);
    edges.extend(contained.map(|(number, package)| edge("SPDXRef-image", "CONTAINS", &id(number, package))));
    for (number, package) in packages.iter().enumerate() {
        for &needed in &package.dependencies {
            let (from, to) = (id(number, package), id(needed, &packages[needed]));
            edges.push(match (package.kind, packages[needed].kind) {
                (Kind::Runtime, Kind::Build) => edge(&to, "BUILD_DEPENDENCY_OF", &from),
                _ => edge(&from, "DEPENDS_ON", &to),
            });
        }
    }
    edges
}

/// Names a package in the document: ids are letters, digits, dots and hyphens.
fn id(number: usize, package: &Package) -> String {
    let text: String = format!("{}-{}", package.name, package.version)
        .chars()
        .take(100)
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    format!("SPDXRef-crate-{number}-{text}")
}
