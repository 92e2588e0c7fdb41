//! CycloneDX 1.6 (cyclonedx.org/docs/1.6/json), as JSON.
//!
//! A crate that is in the program is `required`; one that only took part in the build is `excluded`,
//! which is the specification's word for what is not there at run time.

use roche_frontend::crates::{Details, Kind, Package};
use serde_json::{Value, json};

use super::{Bill, archive, purl};

/// The image's place in the list of dependencies.
const IMAGE: &str = "image";

/// Writes the document.
pub(super) fn document(bill: &Bill<'_>) -> Value {
    let packages = &bill.materials.crates.packages;
    let components = bill.materials.packages().enumerate().map(|(number, (package, details))| {
        let mut value = component(number, package, details);
        if package.root {
            // The list is of this program.
            value["hashes"] = json!([{"alg": "SHA-256", "content": bill.materials.program.hex()}]);
        }
        value
    });
    let components: Vec<Value> = components.collect();
    // A list without a root is still one of what the image contains.
    let has_root = packages.iter().any(|package| package.root);
    let contained = packages.iter().enumerate().filter(|(_, package)| package.root || !has_root && package.kind == Kind::Runtime);
    let contained: Vec<String> = contained.map(|(number, package)| name(number, package)).collect();
    let mut dependencies = vec![json!({"ref": IMAGE, "dependsOn": contained})];
    dependencies.extend(packages.iter().enumerate().map(|(number, package)| {
        // The schema has them unique.
        let needed: std::collections::BTreeSet<usize> = package.dependencies.iter().copied().collect();
        let needed: Vec<String> = needed.into_iter().map(|needed| name(needed, &packages[needed])).collect();
        json!({"ref": name(number, package), "dependsOn": needed})
    }));
    let mut image = json!({"type": "container", "bom-ref": IMAGE, "name": bill.name()});
    if let Some(digest) = bill.digest {
        image["version"] = json!(digest);
    }
    if let Some(purl) = bill.purl() {
        image["purl"] = json!(purl);
    }
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", bill.uuid("cyclonedx")),
        "version": 1,
        "metadata": {
            "timestamp": bill.created,
            "tools": {"components": [{"type": "application", "name": "roche", "version": env!("CARGO_PKG_VERSION")}]},
            "component": image,
        },
        "components": components,
        "dependencies": dependencies,
    })
}

fn component(number: usize, package: &Package, details: &Details) -> Value {
    let mut value = json!({
        "type": if package.root { "application" } else { "library" },
        "bom-ref": name(number, package),
        "name": package.name,
        "version": package.version,
        "scope": if package.kind == Kind::Runtime { "required" } else { "excluded" },
    });
    if let Some(purl) = purl(package) {
        value["purl"] = json!(purl);
    }
    if let Some(license) = &details.license {
        value["licenses"] = json!([{"expression": license}]);
    }
    if let Some(archive) = archive(package) {
        let mut reference = json!({"type": "distribution", "url": archive});
        if let Some(checksum) = &details.checksum {
            // The archive's, and so the component's, too.
            reference["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
            value["hashes"] = reference["hashes"].clone();
        }
        value["externalReferences"] = json!([reference]);
    }
    if let Some(features) = details.features.as_ref().filter(|features| !features.is_empty()) {
        value["properties"] = json!([{"name": "cargo:features", "value": features.join(",")}]);
    }
    value
}

/// Names a package in the document; the number tells those apart that have everything in common.
fn name(number: usize, package: &Package) -> String {
    format!("crate-{number}-{}@{}", package.name, package.version)
}
