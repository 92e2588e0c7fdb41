//! Which files may leave the machine: environment files never, look-alike secrets neither.
//!
//! Invariant: a verdict rests on names; only keys in PEM form are looked into, because
//! certificates share their extensions. Patterns are narrow, so that source files pass
//! (`credentials.rs` is code, `credentials.toml` is not).

use std::io::Read as _;
use std::path::Path;

use crate::shown;

/// Whether a file may leave the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Admit,
    /// It may not, and what it is taken for.
    LeaveOut(&'static str),
}

/// What a name alone says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Admit,
    LeaveOut(&'static str),
    /// Left out where the content holds a private key.
    Look,
}

const ENVIRONMENT: &str = "an environment file";
const KEY: &str = "a private key";
const CREDENTIALS: &str = "credentials";
const STORE: &str = "a key store";
const STATE: &str = "Terraform state";

/// Says whether a file name is that of an environment file or of an editor's copy of one. No
/// flag admits these.
///
/// ```
/// use roche_frontend::project::secrets::is_environment_file;
/// assert!(is_environment_file(".env.local") && is_environment_file("prod.env"));
/// assert!(!is_environment_file("environment.rs"));
/// ```
pub fn is_environment_file(name: &str) -> bool {
    originals(&name.to_ascii_lowercase()).iter().any(|name| environment(name))
}

/// Judges a file or folder by its path `relative` to the project (with `/`); `path` is read only
/// where it may be a key in PEM form, 64 KiB of it at most, and never waited for.
pub fn verdict(relative: &str, path: &Path) -> Verdict {
    let folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    match rule(relative, folder) {
        Rule::Admit => Verdict::Admit,
        Rule::LeaveOut(reason) => Verdict::LeaveOut(reason),
        Rule::Look if holds_private_key(path) => Verdict::LeaveOut(KEY),
        Rule::Look => Verdict::Admit,
    }
}

/// Judges a file of an image by its path (with `/`, without one in front) and the first 64 KiB of it, which only count where
/// [`is_looked_into`] says so.
///
/// ```
/// use roche_frontend::project::secrets::{Verdict, verdict_of};
/// assert!(matches!(verdict_of("root/.aws/credentials", b""), Verdict::LeaveOut(_)));
/// assert_eq!(verdict_of("etc/ssl/ca.pem", b"-----BEGIN CERTIFICATE-----"), Verdict::Admit);
/// ```
pub fn verdict_of(relative: &str, start: &[u8]) -> Verdict {
    match rule(relative, false) {
        Rule::Admit => Verdict::Admit,
        Rule::LeaveOut(reason) => Verdict::LeaveOut(reason),
        Rule::Look if is_private_key(start) => Verdict::LeaveOut(KEY),
        Rule::Look => Verdict::Admit,
    }
}

/// Says whether a file's content decides, by its name alone.
pub fn is_looked_into(name: &str) -> bool {
    matches!(rule(name, false), Rule::Look)
}

/// Says whether a variable looks like a secret: by its name, unless it names a file, or by a value in the form of a token.
///
/// ```
/// use roche_frontend::project::secrets::is_secret_variable;
/// assert!(is_secret_variable("DB_PASSWORD", "x") && is_secret_variable("URL", "https://user:pass@host/"));
/// assert!(!is_secret_variable("DB_PASSWORD_FILE", "/run/x") && !is_secret_variable("GPG_KEY", "E3FF2839C048B25C"));
/// ```
pub fn is_secret_variable(name: &str, value: &str) -> bool {
    const WORDS: [&str; 9] =
        ["TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS", "APIKEY"];
    const PAIRS: [[&str; 2]; 6] =
        [["API", "KEY"], ["ACCESS", "KEY"], ["PRIVATE", "KEY"], ["ENCRYPTION", "KEY"], ["SIGNING", "KEY"], ["MASTER", "KEY"]];
    const STARTS: [&str; 7] = ["ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xoxb-", "sk_live_"];
    if value.trim().is_empty() {
        return false;
    }
    let name = name.to_ascii_uppercase();
    let parts: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let is_elsewhere = matches!(parts.last(), Some(&("FILE" | "PATH" | "DIR" | "URL" | "NAME" | "ID")));
    let by_name = parts.iter().any(|part| WORDS.contains(part)) || parts.windows(2).any(|pair| PAIRS.iter().any(|p| p == pair));
    let has_password = value.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.split_once(':').is_some_and(|(_, password)| !password.is_empty()))
    });
    let is_aws =
        value.strip_prefix("AKIA").is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_alphanumeric()));
    by_name && !is_elsewhere
        || has_password
        || is_aws
        || STARTS.iter().any(|start| value.starts_with(start))
        || is_private_key(value.as_bytes())
}

/// Returns the notice that names what lies beside the function and never enters a release. Reads
/// names only, of the project's folder and its `src`.
pub(super) fn left_out(root: &Path) -> Option<String> {
    const SHOWN: usize = 20;
    let mut names: Vec<String> = ["", "src/"]
        .iter()
        .flat_map(|folder| root.join(folder).read_dir().into_iter().flatten().map(move |entry| (folder, entry)))
        .filter_map(|(folder, entry)| {
            let entry = entry.ok()?;
            let is_folder = entry.file_type().is_ok_and(|file_type| file_type.is_dir());
            let relative = format!("{folder}{}", entry.file_name().to_string_lossy());
            matches!(rule(&relative, is_folder), Rule::LeaveOut(_)).then_some(relative)
        })
        .collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let list: Vec<String> = names.iter().map(|name| shown::text(name)).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!list.is_empty()).then(|| format!("left out: {}{more}", list.join(", ")))
}

/// Judges a path, whose last component is a folder or not.
fn rule(relative: &str, is_folder: bool) -> Rule {
    let relative = relative.to_ascii_lowercase();
    let mut parts = relative.split('/').peekable();
    let mut folder = "";
    while let Some(part) = parts.next() {
        let is_folder = is_folder || parts.peek().is_some();
        let rules = originals(part).into_iter().map(|name| if is_folder { folder_rule(&name) } else { file_rule(folder, &name) });
        match rules.max_by_key(|rule| match rule {
            Rule::Admit => 0,
            Rule::Look => 1,
            Rule::LeaveOut(_) => 2,
        }) {
            None | Some(Rule::Admit) => {}
            Some(rule) => return rule,
        }
        folder = part;
    }
    Rule::Admit
}

/// Folders are left out whole where only secrets live in them; a module may well be called
/// `credentials`.
fn folder_rule(name: &str) -> Rule {
    match name {
        _ if environment(name) => Rule::LeaveOut(ENVIRONMENT),
        ".aws" | ".ssh" | ".gnupg" => Rule::LeaveOut(CREDENTIALS),
        _ => Rule::Admit,
    }
}

fn file_rule(folder: &str, name: &str) -> Rule {
    if environment(name) {
        return Rule::LeaveOut(ENVIRONMENT);
    }
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let leave_out = |wanted: bool, reason| wanted.then_some(Rule::LeaveOut(reason));
    let exact = [
        ".netrc",
        "_netrc",
        ".npmrc",
        ".pypirc",
        ".git-credentials",
        ".dockercfg",
        ".htpasswd",
        ".pgpass",
        ".vault-token",
        ".s3cfg",
        "credentials",
        "credentials.toml",
        "credentials.json",
        "credentials.ini",
        "credentials.yml",
        "credentials.yaml",
        "credentials.db",
        "credentials.tfrc.json",
        ".credentials",
        "kubeconfig",
        "application_default_credentials.json",
    ];
    let service_account = ["service-account", "service_account", "serviceaccount"];
    let in_folder = matches!((folder, name), (".docker", "config.json") | (".kube", "config") | ("containers", "auth.json"));
    leave_out(exact.contains(&name) || in_folder || extension == "kubeconfig", CREDENTIALS)
        .or(leave_out(extension == "json" && service_account.iter().any(|start| name.starts_with(start)), CREDENTIALS))
        .or(leave_out(ssh_key(name) || extension == "ppk", KEY))
        .or(leave_out(matches!(extension, "p12" | "pfx" | "jks" | "keystore" | "kdbx"), STORE))
        .or(leave_out(extension == "tfstate" || name.contains(".tfstate."), STATE))
        .or(matches!(extension, "pem" | "key" | "p8").then_some(Rule::Look))
        .unwrap_or(Rule::Admit)
}

fn environment(name: &str) -> bool {
    matches!(name, ".env" | ".envrc" | ".rocherc")
        || [".env.", ".env-", ".env_"].iter().any(|start| name.starts_with(start))
        || name.ends_with(".env")
}

/// `id_rsa`, `id_ed25519_sk`, `id_rsa.work`; not `id_rsa.pub`, not `id_rsa.rs`.
fn ssh_key(name: &str) -> bool {
    let rest = ["id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_xmss"].iter().find_map(|start| name.strip_prefix(start));
    let harmless = [".pub", ".rs", ".md", ".txt", ".py", ".go", ".c", ".h", ".js", ".ts", ".html"];
    rest.is_some_and(|rest| {
        (rest.is_empty() || rest.starts_with(['.', '_', '-'])) && !harmless.iter().any(|end| rest.ends_with(end))
    })
}

/// Returns a name with what editors and people add to copies of it taken off: the name itself
/// first, then every name that it may be a copy of.
fn originals(name: &str) -> Vec<String> {
    const COPIES: [&str; 14] =
        ["~", ".swp", ".swo", ".swn", ".swx", ".bak", ".orig", ".old", ".save", ".backup", ".tmp", ".copy", ".un", ".rej"];
    let mut names = vec![name.to_owned()];
    let mut next = 0;
    while next < names.len() && names.len() < 16 {
        let name = names[next].clone();
        next += 1;
        let mut add = |name: &str| {
            if !name.is_empty() && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        };
        for end in COPIES {
            if let Some(stem) = name.strip_suffix(end) {
                add(stem);
                // vim's swap and undo files have one more dot in front.
                if let Some(stem) =
                    stem.strip_prefix('.').filter(|_| end.starts_with(".s") || end.starts_with(".u") || end == "~")
                {
                    add(stem);
                }
            }
        }
        if let Some(stem) = name.strip_prefix('#').and_then(|name| name.strip_suffix('#')) {
            add(stem);
        }
        if let Some(stem) = name.strip_prefix(".#") {
            add(stem);
        }
    }
    names
}

fn holds_private_key(path: &Path) -> bool {
    const LOOK_BYTES: u64 = 64 << 10;
    // What is no regular file is never sent with content, and must never be waited for.
    if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    let mut data = Vec::new();
    match std::fs::File::open(path).and_then(|file| file.take(LOOK_BYTES).read_to_end(&mut data)) {
        Ok(_) => is_private_key(&data),
        // What cannot be judged does not leave.
        Err(_) => true,
    }
}

/// Says whether the start of a file holds a private key in PEM form.
fn is_private_key(start: &[u8]) -> bool {
    start.windows(b"PRIVATE KEY-----".len()).any(|window| window == b"PRIVATE KEY-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT_OUT: [&str; 74] = [
        ".env",
        ".env.local",
        ".env.production",
        ".env.example",
        "prod.env",
        "src/.env",
        "a/b/c/.env",
        ".ENV",
        ".Env.Local",
        ".envrc",
        ".env-prod",
        ".env_prod",
        ".rocherc",
        "src/.rocherc",
        ".env~",
        ".env.swp",
        ".env.swo",
        "..env.swp",
        "#.env#",
        ".#.env",
        ".env.bak",
        ".env.orig",
        ".env.old",
        ".env.swp.bak",
        "prod.env~",
        ".prod.env.swp",
        "#prod.env#",
        ".rocherc~",
        ".rocherc.swp",
        "..rocherc.swp",
        ".env/inside.txt",
        ".netrc",
        "_netrc",
        ".netrc.swp",
        ".netrc~",
        "id_rsa",
        "id_dsa",
        "id_ecdsa",
        "id_ed25519",
        "id_ed25519_sk",
        "id_rsa_work",
        "id_rsa.old",
        "id_rsa-2024",
        ".id_rsa.swp",
        "id_rsa~",
        "ID_RSA",
        "deploy.ppk",
        ".npmrc",
        ".pypirc",
        "credentials",
        "credentials.toml",
        "credentials.json",
        "credentials~",
        ".cargo/credentials.toml",
        ".git-credentials",
        ".dockercfg",
        ".docker/config.json",
        ".aws/config",
        ".aws/credentials",
        ".ssh/config",
        ".kube/config",
        "kubeconfig",
        "prod.kubeconfig",
        "key.p12",
        "key.pfx",
        "store.jks",
        "release.keystore",
        "terraform.tfstate",
        "terraform.tfstate.backup",
        "x.tfstate.123.backup",
        ".htpasswd",
        "service-account.json",
        "service-account-prod.json",
        ".pgpass",
    ];

    const ADMITTED: [&str; 46] = [
        "functions.rs",
        "lib.rs",
        "src/main.rs",
        "Cargo.toml",
        "Cargo.lock",
        ".gitignore",
        ".dockerignore",
        "README.md",
        "env",
        "env.rs",
        "environment.rs",
        ".environment",
        "envoy.yaml",
        "src/env/mod.rs",
        "dotenv.rs",
        "venv/bin/python",
        "credentials.rs",
        "src/credentials/mod.rs",
        "credentials_test.rs",
        "my-credentials.md",
        "id_rsa.pub",
        "id_ed25519.pub",
        "id_rsa.rs",
        "id_rsa_helper.rs",
        "id_rsafoo",
        "identity.rs",
        "grid_rsa",
        "config.json",
        "docker/config.json",
        "kube/config",
        ".docker/daemon.json",
        "kubeconfig.rs",
        "tfstate.rs",
        "main.tf",
        "netrc",
        "netrc.rs",
        "npmrc.md",
        "service-account.md",
        "account.json",
        "keystore.rs",
        "p12.rs",
        "htpasswd.rs",
        "aws/config",
        "rocherc",
        "a.bak",
        "functions.rs~",
    ];

    #[test]
    fn secrets_are_left_out_by_name() {
        for name in LEFT_OUT {
            assert!(matches!(verdict(name, Path::new("/dev/null/x")), Verdict::LeaveOut(_)), "{name}");
        }
    }

    #[test]
    fn source_files_with_names_like_secrets_are_admitted() {
        for name in ADMITTED {
            assert_eq!(verdict(name, Path::new("/dev/null/x")), Verdict::Admit, "{name}");
        }
    }

    #[test]
    fn environment_files_are_told_from_other_secrets() {
        assert!([".env", ".env.bak", "..env.swp", "x.env", ".rocherc"].into_iter().all(is_environment_file));
        assert!(![".netrc", "id_rsa", "env.rs", ".envoy"].into_iter().any(is_environment_file));
    }

    #[test]
    fn a_pem_file_is_left_out_only_where_it_holds_a_private_key() {
        let dir = tempfile::tempdir().unwrap();
        let judge = |name: &str, content: &str| {
            std::fs::write(dir.path().join(name), content).unwrap();
            verdict(name, &dir.path().join(name))
        };
        assert_eq!(judge("ca.pem", "-----BEGIN CERTIFICATE-----\nMII\n"), Verdict::Admit);
        assert_eq!(judge("ca.key", "-----BEGIN PUBLIC KEY-----\nMII\n"), Verdict::Admit);
        for kind in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "] {
            let pem = format!("-----BEGIN {kind}PRIVATE KEY-----\nMII\n");
            assert_eq!(judge("tls.pem", &pem), Verdict::LeaveOut(KEY), "{kind}");
            assert_eq!(judge("tls.key.bak", &pem), Verdict::LeaveOut(KEY), "{kind}");
        }
        std::fs::create_dir(dir.path().join("folder.pem")).unwrap();
        assert_eq!(verdict("folder.pem", &dir.path().join("folder.pem")), Verdict::Admit);
    }

    #[test]
    fn an_image_is_judged_by_the_same_rules() {
        for name in LEFT_OUT {
            assert!(matches!(verdict_of(name, b""), Verdict::LeaveOut(_)), "{name}");
        }
        for name in ADMITTED {
            assert_eq!(verdict_of(name, b"-----BEGIN PRIVATE KEY-----"), Verdict::Admit, "{name}");
        }
        assert!(is_looked_into("tls.key") && !is_looked_into("tls.crt") && !is_looked_into(".env"));
        assert_eq!(verdict_of("etc/tls.key", b"-----BEGIN RSA PRIVATE KEY-----"), Verdict::LeaveOut(KEY));
        assert_eq!(verdict_of("etc/tls.key", b"-----BEGIN PUBLIC KEY-----"), Verdict::Admit);
    }

    #[test]
    fn variables_are_judged_by_name_and_form() {
        for (name, value) in [
            ("DB_PASSWORD", "x"),
            ("npm_token", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("STRIPE-API-KEY", "x"),
            ("X", "ghp_0123456789"),
            ("X", "AKIAIOSFODNN7EXAMPLE"),
            ("PROXY", "http://me:pass@host:80"),
            ("X", "-----BEGIN PRIVATE KEY-----"),
        ] {
            assert!(is_secret_variable(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("PATH", "/usr/bin"),
            ("DB_PASSWORD", ""),
            ("DB_PASSWORD_FILE", "/run/secrets/db"),
            ("GPG_KEY", "E3FF2839C048B25C084DEBE9B26995E310250568"),
            ("KEYBOARD", "us"),
            ("TOKENIZERS_PARALLELISM", "false"),
            ("URL", "https://user@host/a:b"),
            ("AWS_ACCESS_KEY_ID", "not-a-key"),
        ] {
            assert!(!is_secret_variable(name, value), "{name}={value}");
        }
    }

    #[test]
    fn a_long_chain_of_copies_ends() {
        assert!(originals(&".bak".repeat(1000)).len() <= 20);
    }
}
