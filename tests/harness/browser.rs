//! A browser without a window, asked over a pipe in the protocol of its developer tools.
//!
//! Invariant: the browser has no network, and ends with the value.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// One at a time: each has a few hundred megabytes.
static ALONE: Mutex<()> = Mutex::new(());

/// A page in a browser of its own.
pub(crate) struct Browser {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    session: String,
    calls: u64,
    /// What the page has asked for and complained of.
    pub(crate) requests: Vec<String>,
    pub(crate) complaints: Vec<String>,
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Browser {
    /// Opens a page from a file; `scheme` is `light` or `dark`, `fragment` what follows `#`.
    #[track_caller]
    pub(crate) fn open(page: &[u8], scheme: &str, fragment: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a temporary folder is made");
        fs::write(folder.path().join("plan.html"), page).expect("the page is written");
        // The pipe is two more descriptors, which the shell makes of the usual ones.
        let script = "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
            --disable-background-networking --proxy-server=127.0.0.1:1 --hide-scrollbars --force-device-scale-factor=1 \
            --user-data-dir=\"$1\" --remote-debugging-pipe about:blank 3<&0 4>&1 1>&2 </dev/null 2>\"$1.log\"";
        let mut command = Command::new("sh");
        // What a browser that is ended leaves behind goes with the folder.
        command.args(["-c", script, "sh"]).arg(folder.path().join("profile")).env("TMPDIR", folder.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh runs");
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().expect("piped")));
        let mut browser = Self {
            child,
            input,
            output,
            session: String::new(),
            calls: 0,
            requests: Vec::new(),
            complaints: Vec::new(),
            folder,
            _alone: alone,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Network", "Log", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1360, 860);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        browser.call("Emulation.setEmulatedMedia", json!({"features": features}));
        let url = format!("file://{}/plan.html{fragment}", browser.folder.path().display());
        browser.call("Page.navigate", json!({"url": url}));
        browser.wait("document.documentElement?.dataset.ready === 'yes'");
        browser
    }

    /// Sets the window's size.
    #[track_caller]
    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Returns what an expression of JavaScript gives.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true; it has as long as the browser takes, and 600 turns.
    #[track_caller]
    pub(crate) fn wait(&mut self, expression: &str) {
        for _ in 0..600 {
            if self.value(expression) == Value::Bool(true) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{expression} did not become true; the page complains of {:?}", self.complaints);
    }

    /// Presses keys, by their names.
    #[track_caller]
    pub(crate) fn press(&mut self, keys: &[&str]) {
        for key in keys {
            let mut event = json!({"type": "keyDown", "key": key, "code": key});
            match *key {
                "Enter" => event["text"] = json!("\r"),
                one if one.chars().count() == 1 => event["text"] = json!(one),
                _ => {}
            }
            if let Some(code) = code(key) {
                event["windowsVirtualKeyCode"] = json!(code);
            }
            self.call("Input.dispatchKeyEvent", event);
            self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key, "code": key}));
        }
    }

    /// Writes what is seen to a file, as PNG.
    #[track_caller]
    pub(crate) fn screenshot(&mut self, file: &Path) -> Vec<u8> {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let data = answer["data"].as_str().expect("a screenshot");
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        fs::write(file, &bytes).expect("the screenshot is written");
        bytes
    }

    /// Sends one call and waits for its answer.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let sent = self.input.as_mut().map(|input| input.write_all(format!("{message}\0").as_bytes()));
        assert!(matches!(sent, Some(Ok(()))), "{}", self.story());
        loop {
            let mut bytes = Vec::new();
            let read = self.output.read_until(0, &mut bytes).unwrap_or(0);
            assert!(read > 0, "{}", self.story());
            bytes.pop();
            let answer: Value = serde_json::from_slice(&bytes).expect("the browser speaks JSON");
            if answer["id"] == json!(self.calls) {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.noted(&answer);
        }
    }

    fn noted(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => self.requests.extend(params["request"]["url"].as_str().map(str::to_owned)),
            Some("Runtime.exceptionThrown" | "Log.entryAdded") => self.complaints.push(params.to_string()),
            _ => {}
        }
    }

    fn story(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("profile.log")).unwrap_or_default();
        format!("chromium does not answer: install the package chromium (tests/setup/packages)\n{log}")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends when nobody is at the other end of its pipe.
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(key: &str) -> Option<u32> {
    let codes =
        [("Tab", 9), ("Enter", 13), ("Escape", 27), ("ArrowLeft", 37), ("ArrowUp", 38), ("ArrowRight", 39), ("ArrowDown", 40)];
    codes.iter().find(|(name, _)| *name == key).map(|&(_, code)| code)
}
