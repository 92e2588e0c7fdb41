//! The plan as a page, in a real browser.
//!
//! Red when: the page asks for anything beside itself, or complains; a step or file of the plan is
//! not in it; the keyboard, the search or a screen reader does not get through; light and dark look
//! alike; something from outside becomes markup; ten thousand steps are too many for it.

use serde_json::{Value, json};

use crate::harness::{Browser, Project, Roche, image};

/// Labels that would be markup or script if they got out of their place.
const HOSTILE: [&str; 3] = [
    "a=</script><script>document.title = 'owned'</script>",
    "b=<img src=x onerror=\"document.title = 'owned'\">",
    "c=<!--<script>",
];

/// The page of a plan of images that the registry has.
fn page() -> Vec<u8> {
    let project = Project::hello("hello");
    let call = Roche::new(project.root()).env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let call = call.build_image(&image("build")).runtime(&image("runtime-debian"));
    let call = call.args(["release", "-t", "x.invalid/plan:1", "--dry-run=html"]);
    call.args(HOSTILE.iter().flat_map(|label| ["--label", label])).run().succeeds().stdout
}

/// The page with its document changed.
fn changed(page: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let text = String::from_utf8(page.to_vec()).unwrap();
    let (start, rest) = text.split_once("id=\"document\">").unwrap();
    let (data, end) = rest.split_once("</script>").unwrap();
    let mut document: Value = serde_json::from_str(data).unwrap();
    change(&mut document);
    let data = document.to_string().replace('<', "\\u003c");
    format!("{start}id=\"document\">{data}</script>{end}").into_bytes()
}

const BOXES: &str = "document.querySelectorAll('[data-id]').length";

#[test]
fn the_page_shows_the_plan_and_asks_for_nothing() {
    let page = page();
    assert!(page.len() < 300_000, "{} bytes", page.len());
    let mut browser = Browser::open(&page, "light", "");
    assert_eq!(browser.value(BOXES), json!(8));
    let text = browser.value("document.body.innerText").as_str().unwrap().to_owned();
    for words in
        ["x.invalid/plan:1", "/app/roche-service", "rocheuser", "functions.rs", "./run.sh", "8080/tcp", "compile roche-service"]
    {
        assert!(text.contains(words), "{words} is not on the page:\n{text}");
    }
    assert_eq!(browser.value("document.title"), json!("x.invalid/plan:1"));
    // What the labels say is read, and does nothing.
    for label in HOSTILE {
        assert!(text.contains(label), "{label} is not on the page:\n{text}");
    }
    assert_eq!(browser.value("document.images.length + document.querySelectorAll('script').length"), json!(2));
    assert!(
        browser.requests.iter().all(|url| url.starts_with("file://") && url.ends_with("plan.html")),
        "{:?}",
        browser.requests
    );
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn the_policy_admits_no_other_script() {
    let page = String::from_utf8(page()).unwrap();
    let owned =
        page.replace("</body>", "<script>document.title = 'owned'</script><p onclick=\"document.title = 'owned'\">x</p></body>");
    assert_ne!(owned, page);
    let mut browser = Browser::open(owned.as_bytes(), "light", "");
    browser.value("document.querySelector('p[onclick]').click()");
    assert_eq!(browser.value("document.title"), json!("x.invalid/plan:1"));
    assert!(!browser.complaints.is_empty(), "the browser refuses the script aloud");
}

#[test]
fn everything_is_done_by_keys() {
    let mut browser = Browser::open(&page(), "light", "");
    let chosen = |browser: &mut Browser| browser.value("document.activeElement.getAttribute('aria-label')");
    browser.press(&["ArrowLeft"]);
    assert!(chosen(&mut browser).as_str().unwrap().starts_with("step 8: image files"), "{}", chosen(&mut browser));
    browser.press(&["ArrowLeft"]);
    let left = chosen(&mut browser);
    browser.press(&["ArrowRight"]);
    assert!(chosen(&mut browser).as_str().unwrap().starts_with("step 8"), "back from {left} is {}", chosen(&mut browser));
    browser.press(&["Enter"]);
    assert_eq!(browser.value("panel.hidden"), json!(false));
    assert!(browser.value("panel.innerText").as_str().unwrap().contains("image files"));
    browser.press(&["Escape"]);
    assert_eq!(browser.value("panel.hidden"), json!(true));
    assert!(chosen(&mut browser).as_str().unwrap().starts_with("step 8"), "the focus is back in the graph");

    browser.press(&["/", "r", "u", "n", ".", "s", "h", "Enter"]);
    assert_eq!(browser.value("search.value"), json!("run.sh"));
    assert!(browser.value("panel.innerText").as_str().unwrap().contains("/app/run.sh"));
    browser.press(&["Escape", "?"]);
    assert_eq!(browser.value("help.open"), json!(true));
    browser.press(&["Escape"]);
    assert_eq!(browser.value("help.open"), json!(false));
    let scale = "document.querySelector('svg > g').getAttribute('transform')";
    let before = browser.value(scale);
    browser.value("document.activeElement.blur()");
    browser.press(&["+"]);
    browser.wait(&format!("{scale} !== {before}"));
    browser.press(&["0"]);
    browser.wait(&format!("{scale} === {before}"));
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn a_step_is_opened_by_its_address_and_told_whole() {
    let mut browser = Browser::open(&page(), "dark", "#step=4");
    let text = browser.value("panel.innerText").as_str().unwrap().to_owned();
    for words in [
        "compile roche-service",
        "exec",
        "sha256:",
        "/run/roche/steps/compile.sh",
        "network",
        "none",
        "CARGO_NET_OFFLINE=true",
        "build image",
    ] {
        assert!(text.contains(words), "{words} is not said of the step:\n{text}");
    }
    browser.value("document.querySelector('#panel .links button').click()");
    assert!(browser.value("panel.innerText").as_str().unwrap().contains("docker-image://"), "an input is one click away");
}

#[test]
fn a_screen_reader_is_told_every_step() {
    let mut browser = Browser::open(&page(), "light", "");
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let named = |role: &str, start: &str| {
        let is = |node: &&Value| {
            node["role"]["value"] == role && node["name"]["value"].as_str().is_some_and(|name| name.starts_with(start))
        };
        nodes.iter().filter(|node| node["ignored"] != json!(true)).filter(is).count()
    };
    assert_eq!(named("button", "step "), 8);
    assert_eq!(named("button", "step 4: compile roche-service, exec, from 1, "), 1);
    let unnamed = |node: &&Value| {
        matches!(node["role"]["value"].as_str(), Some("button" | "searchbox" | "link"))
            && node["name"]["value"].as_str().is_none_or(str::is_empty)
    };
    assert_eq!(nodes.iter().filter(|node| node["ignored"] != json!(true)).filter(unnamed).count(), 0, "a control has no name");
    assert!(named("heading", "What the image gains") == 1 && named("heading", "x.invalid/plan:1") == 1);
}

#[test]
fn light_and_dark_follow_the_reader() {
    let page = page();
    let light = |scheme: &str| {
        let mut browser = Browser::open(&page, scheme, "");
        let colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color].map((text) => \
            text.match(/\\d+/g).slice(0, 3).reduce((sum, one) => sum + Number(one), 0))";
        let colours: Vec<i64> = serde_json::from_value(browser.value(colours)).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(browser.screenshot(file.path()).len() > 20_000, "the page is empty");
        (colours[0], colours[1])
    };
    let (ground, ink) = light("light");
    assert!(ground > 600 && ink < 200, "light has {ground} and {ink}");
    let (ground, ink) = light("dark");
    assert!(ground < 150 && ink > 600, "dark has {ground} and {ink}");
}

#[test]
fn what_came_of_a_release_is_shown_with_the_critical_path() {
    let page = changed(&page(), |document| {
        for (id, vertex) in document["vertices"].as_array_mut().unwrap().iter_mut().enumerate() {
            let ms = [0, 0, 10, 1350, 0, 300, 20, 20][id];
            vertex["outcome"] = json!({"state": if ms == 0 { "cached" } else { "ran" }, "durationMs": ms});
        }
    });
    let mut browser = Browser::open(&page, "light", "");
    let hot = "[...document.querySelectorAll('.box.hot')].map((box) => Number(box.dataset.id)).sort().join()";
    assert_eq!(browser.value(hot), json!("2,3,5,6,7"));
    let text = browser.value("document.querySelector('.top').innerText").as_str().unwrap().replace('\n', " ");
    assert!(text.contains("critical path") && text.contains("1.7 s") && text.contains("3 of 8"), "{text}");
}

#[test]
fn odd_documents_are_drawn() {
    let page = page();
    let hostile = "</script><img src=x onerror=alert(1)>\u{202e}\u{1b}[2J".to_owned();
    let alone = changed(&page, |document| {
        let vertex = document["vertices"][0].clone();
        document["vertices"] = json!([vertex]);
        document["vertices"][0]["name"] = json!(hostile.repeat(500));
        document["stages"] = json!([]);
        document["contents"] = json!([]);
        document["target"] = json!({"vertex": 0, "output": 0});
        document["resolved"] = json!(false);
        document["unresolved"] = json!([{"image": hostile, "reason": hostile}]);
    });
    let mut browser = Browser::open(&alone, "light", "#step=1");
    assert_eq!(browser.value(BOXES), json!(1));
    assert_eq!(browser.value("unresolved.hidden"), json!(false));
    assert_eq!(browser.value("document.images.length"), json!(0));
    assert_eq!(
        browser.value("document.documentElement.scrollWidth <= innerWidth"),
        json!(true),
        "the page is wider than its window"
    );
    assert_eq!(browser.complaints, Vec::<String>::new());
    browser.size(320, 500);
    browser.wait("document.documentElement.scrollWidth <= innerWidth");
}

#[test]
fn ten_thousand_steps_stay_usable() {
    let page = changed(&page(), |document| {
        let step = document["vertices"][3].clone();
        let mut vertices = vec![document["vertices"][0].clone()];
        for id in 1..10_000usize {
            let mut vertex = step.clone();
            vertex["id"] = json!(id);
            vertex["name"] = json!(format!("step number {id}"));
            let from = if id % 10 == 0 { id - 1 } else { id / 3 };
            vertex["inputs"] = json!([{"vertex": from, "output": 0}]);
            vertex["mounts"] = json!([]);
            vertices.push(vertex);
        }
        document["vertices"] = json!(vertices);
        document["stages"] = json!([{"name": "builder", "vertices": (0..5_000).collect::<Vec<_>>()}, {"name": "runtime", "vertices": (5_000..10_000).collect::<Vec<_>>()}]);
        document["contents"] = json!([]);
        document["target"] = json!({"vertex": 9_999, "output": 0});
    });
    let mut browser = Browser::open(&page, "light", "");
    let elements = browser.value("document.querySelectorAll('*').length").as_u64().unwrap();
    assert!(elements < 8_000, "{elements} elements");
    browser.press(&["/"]);
    browser.call("Input.insertText", json!({"text": "number 7777"}));
    browser.press(&["Enter"]);
    assert!(browser.value("panel.innerText").as_str().unwrap().contains("step number 7777"));
    let seen = "(() => { const box = document.querySelector('.box.chosen').getBoundingClientRect(), all = document.querySelector('svg').getBoundingClientRect();
        return box.width > 80 && box.left >= all.left && box.right <= all.right && box.top >= all.top && box.bottom <= all.bottom; })()";
    browser.wait(seen);
    browser.press(&["Escape", "ArrowLeft"]);
    assert_eq!(browser.value("document.activeElement.getAttribute('aria-label').startsWith('step 2593:')"), json!(true));
    // Panning through it draws what comes into view, and drops what leaves it.
    for _ in 0..20 {
        browser.value("graph.x -= 900; graph.draw(); new Promise(requestAnimationFrame)");
    }
    let boxes = browser.value(BOXES).as_u64().unwrap();
    assert!((1..1_200).contains(&boxes), "{boxes} boxes");
    assert_eq!(browser.complaints, Vec::<String>::new());
}
