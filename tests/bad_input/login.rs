//! The tag that is made when none is given, from the registries one is logged in to.
//!
//! Red when: a login is looked for in fewer places, one of several is chosen silently, a token's
//! placeholder is taken for a user, or a folder's name makes a reference that is none.

use std::fs;

use super::{SECOND, Table, roche};
use crate::harness::{Project, Roche};

/// `mallory:-` in base64.
const MALLORY: &str = "bWFsbG9yeTot";
const HUB: &str = "https://index.docker.io/v1/";

/// A plan's text without a tag.
fn untagged(project: &Project) -> Roche {
    roche(project.root()).args(["release", "--dry-run"])
}

fn auths(hosts: &[&str]) -> String {
    let entries: Vec<String> = hosts.iter().map(|host| format!("\"{host}\": {{\"auth\": \"{MALLORY}\"}}")).collect();
    format!("{{\"auths\": {{{}}}}}", entries.join(", "))
}

#[test]
fn a_login_makes_the_tag() {
    let (project, mut table) = (Project::hello("x"), Table::new("logins"));
    let config = |text: &str| untagged(&project).home_file(".docker/config.json", text);
    let user_and_password = format!("{{\"auths\": {{\"{HUB}\": {{\"username\": \"mallory\", \"password\": \"-\"}}}}}}");
    let rows = [
        ("DOCKER_USERNAME", untagged(&project).env("DOCKER_USERNAME", "mallory"), "docker.io/mallory/shop"),
        (
            "DOCKER_USERNAME before a login",
            config(&auths(&["one.invalid"])).env("DOCKER_USERNAME", "alice"),
            "docker.io/alice/shop",
        ),
        ("docker hub", config(&auths(&[HUB])), "docker.io/mallory/shop"),
        ("docker hub, as docker.io", config(&auths(&["docker.io"])), "docker.io/mallory/shop"),
        ("docker hub, as index.docker.io", config(&auths(&["index.docker.io"])), "docker.io/mallory/shop"),
        ("docker hub, user and password", config(&user_and_password), "docker.io/mallory/shop"),
        ("docker hub and another", config(&auths(&[HUB, "one.invalid"])), "docker.io/mallory/shop"),
        ("one other", config(&auths(&["one.invalid"])), "one.invalid/mallory/shop"),
        ("one other with a port", config(&auths(&["one.invalid:5000"])), "one.invalid:5000/mallory/shop"),
        ("one other, as a URL", config(&auths(&["https://one.invalid/v2/"])), "one.invalid/mallory/shop"),
        (
            "one in both files",
            config(&auths(&["one.invalid"])).home_file(".config/containers/auth.json", &auths(&["one.invalid"])),
            "one.invalid/mallory/shop",
        ),
    ];
    for (what, call, name) in rows {
        table.succeeds(what, "login", &call.run(), &[name.as_bytes()], SECOND);
    }
    table.end();
}

#[test]
fn other_places_of_a_login_are_read() {
    let (project, mut table) = (Project::hello("x"), Table::new("places of logins"));
    let elsewhere = Project::empty().file("config.json", auths(&[HUB])).file("containers/auth.json", auths(&[HUB]));
    let call = untagged(&project).env("DOCKER_CONFIG", elsewhere.root());
    table.succeeds("docker's", "DOCKER_CONFIG", &call.run(), &[b"docker.io/mallory/shop"], SECOND);
    let call = untagged(&project).env("XDG_RUNTIME_DIR", elsewhere.root());
    table.succeeds("podman's", "XDG_RUNTIME_DIR", &call.run(), &[b"docker.io/mallory/shop"], SECOND);
    let call = untagged(&project).env("REGISTRY_AUTH_FILE", elsewhere.path("containers/auth.json"));
    table.succeeds("podman's", "REGISTRY_AUTH_FILE", &call.run(), &[b"docker.io/mallory/shop"], SECOND);
    table.end();
}

#[test]
fn no_login_and_several_give_4() {
    let (project, mut table) = (Project::hello("x"), Table::new("no single login"));
    let token = format!("{{\"auths\": {{\"{HUB}\": {{\"identitytoken\": \"t\"}}}}}}");
    let user_token =
        format!("{{\"auths\": {{\"one.invalid\": {{\"auth\": \"{}\", \"identitytoken\": \"t\"}}}}}}", "PHRva2VuPjo=");
    let registry_token = "{\"auths\": {\"one.invalid\": {\"registrytoken\": \"t\"}}}".to_string();
    let rows: &[(&str, Option<String>, &[&str])] = &[
        ("no file", None, &["-t", "docker login"]),
        ("an empty file", Some(String::new()), &["-t", "docker login"]),
        ("an empty object", Some("{}".into()), &["-t", "docker login"]),
        ("no logins", Some("{\"auths\": {}}".into()), &["-t", "docker login"]),
        ("a login without anything", Some(format!("{{\"auths\": {{\"{HUB}\": {{}}}}}}")), &["-t", "docker login"]),
        ("a token alone", Some(token), &["-t", "docker login"]),
        ("a token as the user", Some(user_token), &["-t", "docker login"]),
        ("a registry's token alone", Some(registry_token), &["-t", "docker login"]),
        ("two others", Some(auths(&["one.invalid", "two.invalid"])), &["one.invalid", "two.invalid", "-t"]),
        ("three others", Some(auths(&["c.invalid", "a.invalid", "b.invalid"])), &["a.invalid", "b.invalid", "c.invalid", "-t"]),
    ];
    for (what, config, says) in rows {
        for (how, args) in [("plan", &["release", "--dry-run"][..]), ("release", &["release"])] {
            let mut call = roche(project.root()).args(args);
            if let Some(config) = config {
                call = call.home_file(".docker/config.json", config);
            }
            table.fails(what, how, &call.run(), &[4], says, SECOND);
        }
    }
    for name in ["Mallory", "a b", "a/../b", "$(id)", "a\nb", "\u{1b}[31m", "{{.ID}}"] {
        let ended = untagged(&project).env("DOCKER_USERNAME", name).run();
        table.fails(name, "DOCKER_USERNAME", &ended, &[4, 2], &["-t"], SECOND);
    }
    table.end();
}

#[test]
fn a_folders_name_is_made_legal() {
    let mut table = Table::new("names of folders");
    let project = Project::empty();
    for folder in ["My Shop!", "UPPER", "a__b", "a___b", "-a-", "..a", "a..b", "\u{e4}rger", "a\nb", "$(id)", &"x".repeat(255)] {
        let dir = project.path("above").join(folder);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("functions.rs"), Project::function("x")).unwrap();
        let ended = roche(&dir).env("DOCKER_USERNAME", "mallory").args(["release", "--dry-run"]).run();
        table.succeeds(folder, "folder", &ended, &[b"mallory/"], SECOND);
        let text = ended.stdout_text();
        let name = text.split_once("mallory/").and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or_default();
        // A name that can be given back by hand is a name.
        let again = roche(&dir).args(["release", "--dry-run", "-t", &format!("mallory/{name}")]).run();
        table.succeeds(folder, "folder, given back", &again, &[name.as_bytes()], SECOND);
        table.rule(folder, "folder", &ended, name == name.to_lowercase(), "the name has capitals");
    }
    for (folder, name) in
        [("a/src", "docker.io/mallory/a"), ("b/src/src", "docker.io/mallory/"), ("c/srcs", "docker.io/mallory/srcs")]
    {
        let dir = project.path(folder);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("functions.rs"), Project::function("x")).unwrap();
        let ended = roche(&dir).env("DOCKER_USERNAME", "mallory").args(["release", "--dry-run"]).run();
        table.succeeds(folder, "folder", &ended, &[name.as_bytes()], SECOND);
    }
    table.end();
}
