//! A release makes an image that runs, with the promised user, folder, port and command.
//!
//! Red when: the runtime stage loses a copied file, its owner or libgcc; the image's config is not
//! the gateway's; the function file is looked for elsewhere; tests of a `lib.rs` are not run; a
//! musl runtime gets a glibc program; docker's program is called.

use std::path::Path;

use crate::harness::{Daemon, Project, Roche, contains, files, image, on_every_daemon, unique};

const RUNTIMES: [&str; 2] = ["runtime-debian", "runtime-busybox"];

on_every_daemon!(hello_runs_from_every_folder_it_may_be_released_from);
fn hello_runs_from_every_folder_it_may_be_released_from(daemon: &Daemon) {
    let flat = Project::example("hello");
    let nested = Project::empty().file("src/functions.rs", std::fs::read(flat.path("functions.rs")).unwrap());
    let folders = [
        ("the project root is the function's folder", flat.path("")),
        ("from the project root", nested.path("")),
        ("from the function's folder", nested.path("src")),
    ];
    for runtime in RUNTIMES {
        for (layout, folder) in &folders {
            let tag = daemon.tag();
            let line = ["release", "-b", &image("build"), "-r", &image(runtime), "-t", &tag.name].map(String::from);
            let ended = Roche::new(folder).on(daemon).args(line).run().succeeds();

            assert_eq!(ended.reference_and_digest().0, tag.name, "{layout}, {runtime}");
            let response = daemon.serve(&tag.name, &[]).get("/");
            assert_eq!((response.status, response.body.as_str()), (200, "Hello, World!\n"), "{layout}, {runtime}");
            check_config(daemon, &tag.name);
            check_files(daemon, &tag.name);
        }
    }
}

fn check_config(daemon: &Daemon, image: &str) {
    let config = &daemon.inspect(image)["Config"];
    assert_eq!(config["User"], "rocheuser", "{config}");
    assert_eq!(config["WorkingDir"], "/app", "{config}");
    assert_eq!(config["Cmd"], serde_json::json!(["./run.sh"]), "{config}");
    assert_eq!(config["ExposedPorts"], serde_json::json!({"8080/tcp": {}}), "{config}");
    let environment: Vec<&str> = config["Env"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert!(environment.contains(&"PORT=8080"), "{environment:?}");
    assert!(environment.iter().any(|v| v.starts_with("PATH=")), "the runtime's variables are kept: {environment:?}");
}

fn check_files(daemon: &Daemon, image: &str) {
    let files = files(daemon, image, "/app");
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["/app", "/app/Cargo.toml", "/app/roche-service", "/app/run.sh"]);
    for (path, mode) in [("/app/Cargo.toml", 0o100_644), ("/app/roche-service", 0o100_755), ("/app/run.sh", 0o100_755)] {
        let entry = &files[path];
        assert_eq!((entry.owner.as_str(), entry.group.as_str()), ("rocheuser", "rocheuser"), "{path}");
        assert_eq!(entry.mode, mode, "{path} has the mode {:o}", entry.mode);
    }
}

on_every_daemon!(libgcc_arrives_in_a_runtime_that_lacks_it);
fn libgcc_arrives_in_a_runtime_that_lacks_it(daemon: &Daemon) {
    let runtime = image("runtime-busybox");
    let has_libgcc = |image: &str| files(daemon, image, "/lib").keys().any(|path| path.ends_with("/libgcc_s.so.1"));
    assert!(!has_libgcc(&runtime), "{runtime} holds libgcc already: this test would show nothing");
    let (project, tag) = (Project::example("hello"), daemon.tag());
    Roche::release(daemon, project.root()).tag(&tag).run().succeeds();
    assert!(has_libgcc(&tag.name));
}

on_every_daemon!(what_the_runtime_holds_keeps_its_owners_and_modes);
fn what_the_runtime_holds_keeps_its_owners_and_modes(daemon: &Daemon) {
    let (project, tag) = (Project::example("hello"), daemon.tag());
    Roche::release(daemon, project.root()).tag(&tag).run().succeeds();
    for folder in ["/etc", "/lib", "/tmp", "/root"] {
        let (before, after) = (files(daemon, &image("runtime-busybox"), folder), files(daemon, &tag.name, folder));
        for (path, entry) in before {
            let kept = after.get(&path).unwrap_or_else(|| panic!("{path} is gone"));
            let told = |e: &crate::harness::Entry| (format!("{:o}", e.mode), e.owner.clone(), e.group.clone());
            assert_eq!(told(kept), told(&entry), "{path}");
        }
    }
}

on_every_daemon!(a_function_is_configured_by_the_containers_environment);
fn a_function_is_configured_by_the_containers_environment(daemon: &Daemon) {
    let (project, tag) = (Project::example("env"), daemon.tag());
    let word = unique();
    project.write(".env", format!("GREETING={word}\n"));
    Roche::release(daemon, project.root()).tag(&tag).run().succeeds();
    assert_eq!(daemon.serve(&tag.name, &[]).get("/").body, "GREETING is not set\n");
    assert_eq!(daemon.serve(&tag.name, &["-e", "GREETING=hello"]).get("/").body, "hello\n");
    assert!(!contains(daemon, &tag.name, &word), ".env is in the image");
}

on_every_daemon!(the_nearer_of_two_function_files_is_released_with_a_notice);
fn the_nearer_of_two_function_files_is_released_with_a_notice(daemon: &Daemon) {
    let project = Project::hello("from the root").file("src/functions.rs", Project::function("from src"));
    let tag = daemon.tag();
    let ended = Roche::release(daemon, project.root()).tag(&tag).run().succeeds();
    assert_eq!(daemon.serve(&tag.name, &[]).get("/").body, "from the root");
    let told = ended.stderr.lines().any(|line| line.contains("src/functions.rs") && line.contains("ignored"));
    assert!(told, "no notice of src/functions.rs\n{}", ended.story());
}

on_every_daemon!(a_release_with_passing_tests_is_made);
fn a_release_with_passing_tests_is_made(daemon: &Daemon) {
    let (project, tag) = (Project::example("tested"), daemon.tag());
    let ended = Roche::release(daemon, project.root()).tag(&tag).args(["--progress", "plain"]).run().succeeds();
    assert_eq!(daemon.serve(&tag.name, &[]).get("/leap/2028").body, "true\n");
    let cached = ended.stderr.contains("CACHED");
    assert!(cached || ended.stderr.contains("test result: ok. 3 passed"), "no test was run\n{}", ended.story());
}

on_every_daemon!(a_failing_test_stops_the_release);
fn a_failing_test_stops_the_release(daemon: &Daemon) {
    let (project, tag) = (Project::example("tested"), daemon.tag());
    let lib = std::fs::read_to_string(project.path("src/lib.rs")).unwrap();
    assert!(lib.contains("assert!(is_leap_year(2000))"), "examples/tested has changed: change this test with it");
    project.write("src/lib.rs", lib.replace("assert!(is_leap_year(2000))", "assert!(!is_leap_year(2000))"));
    let ended = Roche::release(daemon, project.root()).tag(&tag).run();
    ended.fails(1, &["a_century_is_a_leap_year_every_fourth_time", "101"]);
    assert!(!daemon.has_image(&tag.name), "there is an image all the same");
}

on_every_daemon!(a_runtime_without_a_shell_takes_the_direct_entrypoint);
fn a_runtime_without_a_shell_takes_the_direct_entrypoint(daemon: &Daemon) {
    let (project, tag) = (Project::example("hello"), daemon.tag());
    let line = ["-r", &image("runtime-distroless"), "--entrypoint", "direct"].map(String::from);
    Roche::release(daemon, project.root()).tag(&tag).args(line).run().succeeds();
    assert_eq!(daemon.inspect(&tag.name)["Config"]["Cmd"], serde_json::json!(["/app/roche-service"]));
    assert_eq!(daemon.serve(&tag.name, &[]).get("/").body, "Hello, World!\n");
    let users = files(daemon, &tag.name, "/etc/passwd")["/etc/passwd"].clone();
    let users = String::from_utf8(users.content).unwrap();
    assert!(users.contains("nonroot:x:65532:") && users.contains("rocheuser:"), "the runtime's users are kept: {users}");
}

on_every_daemon!(scratch_is_a_runtime);
fn scratch_is_a_runtime(daemon: &Daemon) {
    let (project, tag) = (Project::example("hello"), daemon.tag());
    Roche::release(daemon, project.root()).tag(&tag).args(["-r", "scratch"]).run().succeeds();
    assert_eq!(daemon.inspect(&tag.name)["Config"]["Cmd"], serde_json::json!(["/app/roche-service"]));
    assert_eq!(daemon.serve(&tag.name, &[]).get("/").body, "Hello, World!\n");
}

on_every_daemon!(a_runtime_with_another_libc_is_refused);
fn a_runtime_with_another_libc_is_refused(daemon: &Daemon) {
    let (project, tag) = (Project::example("hello"), daemon.tag());
    let ended = Roche::release(daemon, project.root()).tag(&tag).args(["-r", &image("runtime-musl")]).run();
    ended.fails(1, &["musl", "glibc"]);
    assert!(!daemon.has_image(&tag.name), "there is an image all the same");
}

on_every_daemon!(the_docker_program_is_not_needed);
fn the_docker_program_is_not_needed(daemon: &Daemon) {
    let (project, tag) = (Project::example("hello"), daemon.tag());
    Roche::release(daemon, project.root()).tag(&tag).env("PATH", "/nonexistent").run().succeeds();
    assert!(daemon.has_image(&tag.name));
}

on_every_daemon!(without_a_tag_the_login_and_the_folder_name_the_image);
fn without_a_tag_the_login_and_the_folder_name_the_image(daemon: &Daemon) {
    let project = Project::example("hello").file("src/functions.rs", Project::function("from src"));
    let login = unique();
    for (folder, expected) in [("", format!("{login}/shop")), ("src", format!("{login}/shop"))] {
        let ended = Roche::release(daemon, &project.path(folder)).env("DOCKER_USERNAME", &login).run().succeeds();
        let (reference, _) = ended.reference_and_digest();
        daemon.run(["image", "rm", "--force", &format!("{expected}:latest")]);
        let short = reference.strip_prefix("docker.io/").unwrap_or(&reference);
        assert_eq!(short.strip_suffix(":latest").unwrap_or(short), expected, "from {folder:?}\n{}", ended.story());
    }
}

on_every_daemon!(a_login_of_one_registry_names_the_image);
fn a_login_of_one_registry_names_the_image(daemon: &Daemon) {
    let project = Project::example("hello");
    // "mallory:-" in base64; the host is a name that nobody has.
    let config = r#"{"auths": {"registry.invalid": {"auth": "bWFsbG9yeTot"}}}"#;
    let ended = Roche::release(daemon, project.root()).home_file(".docker/config.json", config).run().succeeds();
    let (reference, _) = ended.reference_and_digest();
    daemon.run(["image", "rm", "--force", "registry.invalid/mallory/shop:latest"]);
    assert!(reference.starts_with("registry.invalid/mallory/shop"), "{}", ended.story());
}

on_every_daemon!(rocherc_names_the_images_unless_a_flag_does);
fn rocherc_names_the_images_unless_a_flag_does(daemon: &Daemon) {
    let rocherc = format!("release_build_image={}\nruntime_image={}\n", image("build"), image("runtime-busybox"));
    let project = Project::example("hello").file(".rocherc", rocherc);
    let by_file = daemon.tag();
    Roche::new(project.root()).on(daemon).args(["release", "-t", &by_file.name]).run().succeeds();
    let by_flag = daemon.tag();
    let line = ["release", "-t", &by_flag.name, "-r", &image("runtime-debian")].map(String::from);
    Roche::new(project.root()).on(daemon).args(line).run().succeeds();
    let has = |tag: &str, path: &str| files(daemon, tag, "/etc").contains_key(path);
    assert!(!has(&by_file.name, "/etc/debian_version"), "the file's runtime was not taken");
    assert!(has(&by_flag.name, "/etc/debian_version"), "the flag's runtime was not taken");
}

on_every_daemon!(a_new_project_is_released_as_it_is);
fn a_new_project_is_released_as_it_is(daemon: &Daemon) {
    let (folder, tag) = (Project::empty(), daemon.tag());
    Roche::new(folder.root()).args(["init", "greeter"]).run().succeeds();
    let project = folder.path("greeter");
    assert!(Path::new(&project).is_dir(), "roche init NAME makes the folder");
    Roche::release(daemon, &project).tag(&tag).run().succeeds();
    assert_eq!(daemon.serve(&tag.name, &[]).get("/").status, 200);
}
