//! The command line describes itself.
//!
//! Red when: an option is added without help, default or environment name, or one is renamed.

use std::path::Path;

use crate::harness::Roche;

/// Options of `roche release`, and what their help has to say beside the description.
const OPTIONS: &[(&str, &[&str])] = &[
    ("-b, --buildimage", &["release_build_image", "quay.io/roche/default:1.0.0"]),
    ("-r, --runtime", &["runtime_image", "quay.io/roche/alpine:3.12"]),
    ("-t, --tag", &["DOCKER_USERNAME"]),
    ("-o, --output", &["type="]),
    ("--addr", &["BUILDKIT_HOST", "DOCKER_HOST"]),
    ("--builder", &["BUILDX_BUILDER"]),
    ("--progress", &["BUILDKIT_PROGRESS", "auto"]),
    ("--platform", &[]),
    ("--label", &[]),
    ("--entrypoint", &["direct"]),
    ("--no-cache", &[]),
    ("--pull", &[]),
    ("--locked", &[]),
    ("--offline", &[]),
    ("--frozen", &[]),
    ("--push", &[]),
    ("--cache-from", &["type="]),
    ("--cache-to", &["type="]),
    ("-q, --quiet", &[]),
    ("--metadata-file", &[]),
    ("--iidfile", &[]),
    ("--trace", &["Chrome"]),
    ("--dry-run", &["text", "json", "dot", "mermaid", "html", "llb", "dockerfile"]),
];

#[test]
fn the_help_lists_every_option_with_default_and_environment_name() {
    let ended = Roche::new(Path::new("/")).args(["release", "--help"]).run().succeeds();
    let help = ended.stdout_text();
    assert_eq!(ended.stderr, "", "help is what was asked for: it goes to stdout");
    for (option, says) in OPTIONS {
        let block = block(&help, option).unwrap_or_else(|| panic!("{option} is not listed:\n{help}"));
        for text in *says {
            assert!(block.contains(text), "{option} does not name {text}:\n{block}");
        }
        assert!(block.contains("[default: ") || block.contains("[default without "), "{option} has no default:\n{block}");
    }
}

#[test]
fn the_commands_are_listed() {
    let ended = Roche::new(Path::new("/")).arg("--help").run().succeeds();
    for command in ["release", "init", "prepare", "history", "explain"] {
        assert!(ended.stdout_text().contains(&format!("  {command} ")), "{command} is not listed\n{}", ended.story());
    }
}

#[test]
fn the_version_is_on_stdout() {
    let ended = Roche::new(Path::new("/")).arg("--version").run().succeeds();
    assert_eq!(ended.stdout_text(), format!("roche {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(ended.stderr, "");
}

#[test]
fn without_a_command_the_help_is_an_error() {
    let ended = Roche::new(Path::new("/")).run();
    assert_eq!(ended.status.code(), Some(2), "{}", ended.story());
    assert!(ended.stdout.is_empty() && ended.stderr.contains("roche"), "{}", ended.story());
}

/// An option's part of the help, from its own line to the next option's, on one line.
fn block(help: &str, option: &str) -> Option<String> {
    let starts = |line: &str| line.trim_start().starts_with('-');
    let is_it = |line: &str| {
        let rest = line.trim_start().strip_prefix(option);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
    };
    let lines: Vec<&str> = help.lines().collect();
    let first = lines.iter().position(|line| is_it(line))?;
    let count = lines[first + 1..].iter().take_while(|line| !starts(line)).count();
    Some(lines[first..=first + count].join(" ").split_whitespace().collect::<Vec<_>>().join(" "))
}
