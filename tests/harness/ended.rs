//! What came of a call, and the rules that every success and every failure keeps.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// A call that has ended.
pub(crate) struct Ended {
    /// The command line, for messages.
    pub(crate) line: String,
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Standard output, byte for byte.
    pub(crate) stdout: Vec<u8>,
    /// Standard error.
    pub(crate) stderr: String,
    /// From start to end.
    pub(crate) elapsed: Duration,
    /// From the moment the end was waited for.
    pub(crate) waited: Duration,
    /// The most memory that it held, by samples every 10 ms.
    pub(crate) peak_memory_bytes: u64,
}

impl Ended {
    /// Fails the test unless the exit code is 0 and nothing looks like a failure.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.status.code(), Some(0), "{}", self.story());
        assert!(!self.panicked(), "{}", self.story());
        self
    }

    /// Fails the test unless the call failed as [`Self::check_failure`] says.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, says: &[&str]) -> Self {
        if let Err(reason) = self.check_failure(code, says) {
            panic!("{reason}\n{}", self.story());
        }
        self
    }

    /// The rules of a failure: the exit code; one message, with a remedy, that holds every text of
    /// `says`; nothing on standard output; no panic; nothing that would move a terminal's cursor.
    ///
    /// The remedy is a hint; where what was typed or written is wrong it may stand in the message
    /// itself, behind a semicolon.
    pub(crate) fn check_failure(&self, code: i32, says: &[&str]) -> Result<(), String> {
        let rule = |kept: bool, reason: String| if kept { Ok(()) } else { Err(reason) };
        rule(self.status.code() == Some(code), format!("ended with {}, not exit code {code}", self.how()))?;
        rule(self.stdout.is_empty(), format!("stdout holds {:?}", self.stdout_text()))?;
        rule(!self.panicked(), "it panicked".into())?;
        let control = self.stderr.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        rule(control.is_none(), format!("stderr holds the control character {control:?}"))?;
        let errors = self.lines("error: ").len();
        rule(errors == 1, format!("{errors} lines start with \"error: \", not one"))?;
        let in_the_message = [2, 3, 4, 11, 130, 143].contains(&code)
            && (self.error().contains("; ") || self.stderr.contains("\nFor more information, try '--help'."));
        rule(in_the_message || !self.lines("hint: ").is_empty(), "no hint".into())?;
        match says.iter().find(|text| !self.stderr.contains(**text)) {
            Some(text) => Err(format!("stderr does not say {text:?}")),
            None => Ok(()),
        }
    }

    /// The lines of standard error that are the program's own and start with `prefix`; what cargo
    /// says in a step is shown too, and starts as ours does.
    pub(crate) fn lines(&self, prefix: &str) -> Vec<&str> {
        const CARGO: [&str; 3] = ["error: could not compile", "error: test failed", "error: aborting"];
        let lines = self.stderr.lines().filter(|line| line.starts_with(prefix));
        lines.filter(|line| !CARGO.iter().any(|start| line.starts_with(start))).collect()
    }

    /// Whether one of its own threads panicked; a step may show a test's panic, whose thread has
    /// the test's name.
    fn panicked(&self) -> bool {
        const OURS: [&str; 3] = ["thread 'main'", "thread 'tokio", "thread '<unnamed>'"];
        self.stderr.lines().any(|line| line.contains("panicked at") && OURS.iter().any(|start| line.starts_with(start)))
    }

    /// The one `error: ` line.
    #[track_caller]
    pub(crate) fn error(&self) -> &str {
        self.lines("error: ").first().unwrap_or_else(|| panic!("no error\n{}", self.story()))
    }

    /// Standard output as text.
    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The release's one line of output, as reference and digest.
    #[track_caller]
    pub(crate) fn reference_and_digest(&self) -> (String, String) {
        let text = self.stdout_text();
        let line = text.strip_suffix('\n').filter(|line| !line.contains('\n'));
        let parts = line.and_then(|line| line.split_once('@'));
        let Some((reference, digest)) = parts.filter(|(_, digest)| is_digest(digest)) else {
            panic!("stdout is not the one line REF@sha256:…\n{}", self.story());
        };
        (reference.to_string(), digest.to_string())
    }

    /// The release's digest.
    #[track_caller]
    pub(crate) fn digest(&self) -> String {
        self.reference_and_digest().1
    }

    /// How it ended, in words.
    pub(crate) fn how(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {signal:?}"),
        }
    }

    /// All that is known, for a message.
    pub(crate) fn story(&self) -> String {
        // A flood is not a message.
        let cut = |text: &str| match text.char_indices().nth_back(8000) {
            Some((start, _)) => format!("(…)\n{}", &text[start..]),
            None => text.to_string(),
        };
        format!(
            "{} ended with {} after {:.1?}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.line,
            self.how(),
            self.elapsed,
            cut(&self.stdout_text()),
            cut(&self.stderr)
        )
    }
}

/// Whether a text is `sha256:` and 64 small hex digits.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}
