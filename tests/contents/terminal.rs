//! Lines and the width of the terminal.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::{Tar, docker_archive};

#[test]
fn every_line_fits_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let long = "d/".repeat(40) + &"name".repeat(30);
    let wide = "目录/".repeat(30) + "文件";
    let layers = [
        Tar::default().file(&long, "x").file(&wide, "yy").program("su", 0o4755).symlink("link", "t".repeat(150).as_bytes()).end(),
        Tar::default().file(&long, "new").end(),
    ];
    let more = json!({
        "config": {"Env": [format!("LONG={}", "v".repeat(300))], "Labels": {"l".repeat(100): "w ".repeat(90)}, "Cmd": ["x", "y z"]},
        "history": [{"created_by": "c".repeat(300)}, {}],
    });
    docker_archive(&folder.path().join("a.tar"), &layers, more);
    docker_archive(&folder.path().join("b.tar"), &layers[..1], json!({}));
    for columns in [20, 21, 40, 59, 60, 80, 133] {
        for line in ["contents a.tar", "contents --all a.tar", "diff a.tar b.tar"] {
            let shown = on_terminal(folder.path(), columns, line);
            let odd = shown.lines().find(|line| columns_of(line) > columns);
            assert_eq!(odd, None, "{columns} columns, {line}\n{shown}");
            assert!(shown.lines().count() > 4, "{columns} columns, {line}\n{shown}");
        }
    }
}

/// Runs a line on a terminal of so many columns; returns what it showed.
fn on_terminal(folder: &Path, columns: usize, line: &str) -> String {
    let script = format!("stty cols {columns} rows 24; {} {line}", env!("CARGO_BIN_EXE_roche"));
    let output = Command::new("script")
        .args(["-qec", &script, "/dev/null"])
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .env("TERM", "xterm")
        .output()
        .expect("script runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8").replace('\r', "");
    assert!(output.status.success(), "{line}: {text}");
    let control = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "{line}: {text:?}");
    text
}

/// Counts columns: ideographs take two.
fn columns_of(line: &str) -> usize {
    line.chars().map(|c| if ('\u{2e80}'..='\u{9fff}').contains(&c) { 2 } else { 1 }).sum()
}
