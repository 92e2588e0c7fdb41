//! `compile.sh`: where the function goes, what is removed first, what is said where it cannot be.

use super::*;

/// Answers as cargo would: writes the function's text as the program, where it was told by a
/// variable or (`CONFIGURED`, `TRIPLE`) by its configuration.
const CARGO: &str = r#"#!/bin/sh
target=${CARGO_TARGET_DIR:-${CONFIGURED:-$PWD/target}}
if [ "$1" = metadata ]; then
    printf '{"packages":[],"target_directory":"%s","build_directory":"%s","version":1,"metadata":null}' "$target" "${BUILD:-$target}"
    exit
fi
echo "$*" >>"$LOG"
[ "$1" = build ] || exit 0
made=$target/${TRIPLE:+$TRIPLE/}release
mkdir -p "$made"
cat src/app/functions.rs src/functions.rs 2>/dev/null | head -n 1 >"$made/${MADE:-roche-service}"
"#;

const MANIFEST: &str =
    "[workspace]\nmembers = []\n[package]\nversion = \"1\"\nname = \"roche-service\"\n[dependencies]\nname = \"x\"\n";

struct Case {
    _outer: tempfile::TempDir,
    root: PathBuf,
}

impl Case {
    fn new(project: &[(&str, &str)]) -> Self {
        let (outer, root) = tree(&[("function/functions.rs", "new\n"), ("project/run.sh", "x"), ("project/src/main.rs", "")]);
        add(&root.join("project"), &[("Cargo.toml", MANIFEST)]);
        add(&root.join("project"), project);
        executable(&root.join("bin/cargo"), CARGO);
        Self { _outer: outer, root }
    }

    fn run(&self, shell: &[&str], env: &[(&str, &str)]) -> Output {
        let path = format!("{}:{}", self.root.join("bin").display(), std::env::var("PATH").unwrap());
        let log = self.root.join("log").display().to_string();
        let env: Vec<(&str, &str)> = [("PATH", path.as_str()), ("LOG", log.as_str())].iter().chain(env).copied().collect();
        run(shell, "compile.sh", &[&self.root.join("function"), &self.root.join("project")], &env)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

#[test]
fn the_function_goes_to_the_documented_folder_where_that_exists() {
    for shell in SHELLS {
        let case = Case::new(&[("src/app/functions.rs", "old\n"), ("src/functions.rs", "->app/functions.rs")]);
        let output = case.run(shell, &[]);
        assert!(output.status.success(), "{shell:?} {}", stderr(&output));
        assert_eq!(case.read("project/src/app/functions.rs"), "new\n");
        assert!(case.root.join("project/src/functions.rs").is_symlink());
        assert_eq!(case.read("project/target/release/roche-service"), "new\n");
        assert_eq!(case.read("log"), "build --release\n");
    }
}

#[test]
fn the_function_goes_beside_main_elsewhere_and_replaces_a_link() {
    for shell in SHELLS {
        let case = Case::new(&[("src/functions.rs", "->elsewhere.rs"), ("src/elsewhere.rs", "kept\n"), ("src/lib.rs", "old\n")]);
        add(&case.root, &[("function/lib.rs", "tests\n")]);
        let output = case.run(shell, &[]);
        assert!(output.status.success(), "{shell:?} {}", stderr(&output));
        assert_eq!(case.read("project/src/functions.rs"), "new\n");
        assert_eq!(case.read("project/src/elsewhere.rs"), "kept\n");
        assert_eq!(case.read("project/src/lib.rs"), "tests\n");
        assert_eq!(fs::metadata(case.root.join("project/src/functions.rs")).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

#[test]
fn what_cargo_knows_of_the_service_goes_and_of_its_dependencies_stays() {
    let (hash, prints) = ("0123456789abcdef", "project/target/release/.fingerprint");
    for shell in SHELLS {
        let case = Case::new(&[]);
        for name in ["roche-service", "roche-runtime", "tide"] {
            add(&case.root, &[(&format!("{prints}/{name}-{hash}/x"), "")]);
        }
        add(
            &case.root,
            &[("project/target/release/deps/roche_service-1", ""), ("project/target/release/deps/libtide-1.rlib", "")],
        );
        add(&case.root, &[("project/target/release/roche-service", "old\n")]);
        let output = case.run(shell, &[]);
        assert!(output.status.success(), "{shell:?} {}", stderr(&output));
        let left = list(&case.root.join("project/target/release"));
        let expected = [
            ".fingerprint/roche-runtime-0123456789abcdef/x",
            ".fingerprint/tide-0123456789abcdef/x",
            "deps/libtide-1.rlib",
            "roche-service",
        ];
        assert_eq!(left, expected);
    }
}

#[test]
fn a_package_of_another_name_and_a_layout_that_is_not_known_are_cleaned_too() {
    for shell in SHELLS {
        let case = Case::new(&[("target/release/.fingerprint/faas-0123456789abcdef/x", "")]);
        add(&case.root, &[("project/Cargo.toml", "[package]\nname = 'faas'\n")]);
        assert!(case.run(shell, &[]).status.success());
        assert_eq!(list(&case.root.join("project/target")), ["release/roche-service"]);
        let case = Case::new(&[("target/release/build/x", "")]);
        assert!(case.run(shell, &[]).status.success());
        assert_eq!(case.read("log"), "clean --release -p roche-service\nbuild --release\n");
    }
}

#[test]
fn what_cargo_knows_goes_where_it_is_kept_apart_too() {
    for shell in SHELLS {
        let case = Case::new(&[("known/release/.fingerprint/roche-service-0123456789abcdef/x", "")]);
        add(&case.root, &[("project/known/release/.fingerprint/tide-0123456789abcdef/x", "")]);
        let known = case.root.join("project/known").display().to_string();
        assert!(case.run(shell, &[("BUILD", &known)]).status.success());
        assert_eq!(list(&case.root.join("project/known")), ["release/.fingerprint/tide-0123456789abcdef/x"]);
    }
}

#[test]
fn a_program_in_another_target_folder_is_found() {
    for shell in SHELLS {
        let case = Case::new(&[]);
        let elsewhere = case.root.join("elsewhere").display().to_string();
        let output = case.run(shell, &[("CARGO_TARGET_DIR", &elsewhere)]);
        assert!(output.status.success(), "{shell:?} {}", stderr(&output));
        assert_eq!(case.read("project/target/release/roche-service"), "new\n");
    }
}

#[test]
fn an_old_program_never_ships_for_one_that_was_made_elsewhere() {
    for shell in SHELLS {
        for (variable, triple) in [("CARGO_TARGET_DIR", ""), ("CONFIGURED", ""), ("CARGO_TARGET_DIR", "x"), ("CONFIGURED", "x")] {
            let case = Case::new(&[("target/release/roche-service", "old\n"), ("target/x/release/roche-service", "old\n")]);
            add(&case.root, &[("elsewhere/release/roche-service", "old\n"), ("elsewhere/x/release/roche-service", "old\n")]);
            let elsewhere = case.root.join("elsewhere").display().to_string();
            let output = case.run(shell, &[(variable, &elsewhere), ("TRIPLE", triple)]);
            assert!(output.status.success(), "{shell:?} {variable} {}", stderr(&output));
            assert_eq!(case.read("project/target/release/roche-service"), "new\n", "{shell:?} {variable} {triple}");
        }
    }
}

#[test]
fn cargo_itself_says_where_its_configuration_puts_programs() {
    let case =
        Case::new(&[("target/release/roche-service", "old"), ("src/main.rs", "mod functions;\nfn main() { functions::f() }")]);
    add(&case.root.join("function"), &[("functions.rs", "pub fn f() { print!(\"new\") }")]);
    let manifest = "[package]\nname = \"roche-service\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    add(&case.root.join("project"), &[("Cargo.toml", manifest), (".cargo/config.toml", "[build]\ntarget-dir = \"made\"\n")]);
    let tools = Path::new(env!("CARGO")).parent().unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let rustc = tools.join("rustc").display().to_string();
    let output = case.run(&["/bin/sh"], &[("PATH", &path), ("RUSTC", &rustc), ("CARGO_NET_OFFLINE", "true")]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = Command::new(case.root.join("project/target/release/roche-service")).output().unwrap();
    assert_eq!(said.stdout, b"new");
}

#[test]
fn an_old_program_never_stands_for_one_that_was_not_made() {
    for shell in SHELLS {
        let case = Case::new(&[("target/release/.fingerprint/", ""), ("target/release/roche-service", "old\n")]);
        let output = case.run(shell, &[("MADE", "something-else")]);
        assert_eq!(output.status.code(), Some(66));
        assert!(stderr(&output).contains("gave no"), "{}", stderr(&output));
    }
}

#[test]
fn what_a_build_image_lacks_is_said_with_its_remedy() {
    for shell in SHELLS {
        let case = Case::new(&[]);
        fs::remove_file(case.root.join("project/Cargo.toml")).unwrap();
        let output = case.run(shell, &[]);
        assert_eq!(output.status.code(), Some(66));
        assert!(stderr(&output).contains("make a build image with `roche prepare`"), "{}", stderr(&output));
        let case = Case::new(&[]);
        let output = case.run(shell, &[("PATH", "/nonexistent")]);
        assert_eq!(output.status.code(), Some(69));
        assert!(stderr(&output).contains("no cargo in its PATH (/nonexistent)"), "{}", stderr(&output));
    }
}
