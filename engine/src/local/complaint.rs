//! What a failed step says of ids that it could not have.
//!
//! With one user id the kernel refuses a step every other user and owner, and only the step's
//! programs know that it did: they report it in the words of the C library.
//!
//! Invariant: words are heard wherever the pieces of a log are cut, and none is kept but the last few.

use super::ids::{self, Identity, Ids};

/// What `chown`, `setuid` (EINVAL) and `setgroups` (EPERM) end with, in small letters.
const WORDS: [&[u8]; 2] = [b"invalid argument", b"operation not permitted"];

/// Listens to a log.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    /// The end of what was said, in small letters: a word may go on in the next piece.
    end: Vec<u8>,
    heard: bool,
}

impl Complaint {
    /// Takes the next piece of the log.
    pub(super) fn hear(&mut self, piece: &[u8]) {
        if self.heard {
            return;
        }
        self.end.extend(piece.iter().map(u8::to_ascii_lowercase));
        self.heard = WORDS.iter().any(|word| self.end.windows(word.len()).any(|said| said == *word));
        let longest = WORDS.iter().map(|word| word.len()).max().unwrap_or_default();
        self.end.drain(..self.end.len().saturating_sub(longest));
    }

    /// Says whether an id may have been refused.
    pub(super) fn heard(&self) -> bool {
        self.heard
    }
}

/// Returns what to do about a failed step that may have been refused an id.
pub(super) fn remedy(identity: &Identity) -> Option<String> {
    (identity.ids == Ids::Single)
        .then(|| format!("the step had one user id, root, and no other (/etc/subuid); {}", ids::remedy(&identity.user)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&str]) -> bool {
        let mut complaint = Complaint::default();
        pieces.iter().for_each(|piece| complaint.hear(piece.as_bytes()));
        complaint.heard()
    }

    #[test]
    fn words_are_heard_wherever_they_are_cut() {
        let said = "setgroups 65534 failed - setgroups (1: Operation not permitted)\n";
        for at in 0..said.len() {
            assert!(heard(&[&said[..at], &said[at..]]), "{at}");
        }
        assert!(heard(&["chown: f: Inv", "alid arg", "ument\n", "done\n"]));
        assert!(!heard(&["invalid", "", "arguments were: none", "permitted"]));
    }

    #[test]
    fn only_who_has_one_id_is_told_to_get_more() {
        let identity = |ids| Identity { ids, mappers: None, user: "ann".to_owned(), lacking: None };
        let remedy_text = remedy(&identity(Ids::Single)).unwrap();
        assert!(remedy_text.contains("/etc/subuid") && remedy_text.contains("usermod --add-subuids"), "{remedy_text}");
        assert_eq!(remedy(&identity(Ids::Root)), None);
    }
}
