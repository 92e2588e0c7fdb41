//! An edit always reaches the image, and nothing is done twice.
//!
//! Red when: the step trusts mtimes, so that cargo finds its old program fresh (every row with an
//! old date, and worst with a build image of 2100); anything that changes by itself enters an op,
//! so that a second release is not a cached one.

use crate::harness::{Daemon, Project, Roche, Trace, dated_2100, image, on_every_daemon, unique};

const IN_1970: u64 = 1;
const IN_2001: u64 = 978_307_200;

on_every_daemon!(an_edit_is_served_whatever_its_date);
fn an_edit_is_served_whatever_its_date(daemon: &Daemon) {
    let future = dated_2100(daemon);
    let rows = [
        ("an edit of now", image("build"), None),
        ("an edit dated 1970", image("build"), Some(IN_1970)),
        ("an edit dated 2001", image("build"), Some(IN_2001)),
        ("an edit of now, the build image dated 2100", future.name.clone(), None),
        ("an edit dated 1970, the build image 2100", future.name.clone(), Some(IN_1970)),
        ("an edit dated 2001, the build image 2100", future.name.clone(), Some(IN_2001)),
    ];
    let (project, tag) = (Project::empty(), daemon.tag());
    for (row, build_image, date) in rows {
        // Two releases, so that the second text replaces one that was compiled before.
        for _ in 0..2 {
            let text = format!("text {}", unique());
            project.write("functions.rs", Project::function(&text));
            if let Some(date) = date {
                project.date("functions.rs", date);
            }
            let ended = Roche::release(daemon, project.root()).args(["-b", &build_image]).tag(&tag).run().succeeds();
            let served = daemon.serve(&tag.name, &[]).get("/").body;
            assert_eq!(served, text, "{row}\n{}", ended.story());
        }
    }
}

on_every_daemon!(nothing_changed_means_every_vertex_cached_and_the_same_digest);
fn nothing_changed_means_every_vertex_cached_and_the_same_digest(daemon: &Daemon) {
    let (project, tag) = (Project::hello(&unique()), daemon.tag());
    let release = || Roche::release(daemon, project.root()).tag(&tag).args(["--progress", "rawjson"]);
    let first = release().run().succeeds();
    assert!(!Trace::of(&first.stderr).done().is_empty(), "the first was cached too: nothing is shown\n{}", first.story());

    project.date("functions.rs", IN_2001);
    let second = release().run().succeeds();

    assert_eq!(Trace::of(&second.stderr).done(), [""; 0], "not cached\n{}", second.story());
    assert_eq!(second.digest(), first.digest());
}

on_every_daemon!(the_report_says_that_nothing_was_to_do);
fn the_report_says_that_nothing_was_to_do(daemon: &Daemon) {
    let (project, tag) = (Project::hello(&unique()), daemon.tag());
    let release = || Roche::release(daemon, project.root()).tag(&tag).args(["--progress", "quiet"]);
    let first = release().run().succeeds();
    let second = release().run().succeeds();
    let all_of_them = |words: &[&str]| words.len() == 4 && words[0] == words[2] && words[1] == "of" && words[3] == "cached";
    let says_so = |text: &str| {
        let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        words.windows(4).any(all_of_them)
    };
    assert!(says_so(&second.stderr), "{}", second.story());
    assert!(!says_so(&first.stderr), "{}", first.story());
}
