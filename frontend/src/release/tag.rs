//! The image's names: those that were given, or one made from a login and the folder.

use std::collections::BTreeMap;
use std::str::FromStr;

use roche_engine::oci::Reference;
use roche_engine::oci::reference::path_component;

use super::{ReleaseError, usage};
use crate::shown;

/// Reads a `--tag`: a reference without a digest; `latest` where it has no tag.
pub(super) fn parse(text: &str) -> Result<Reference, ReleaseError> {
    let reference = Reference::from_str(text).map_err(|error| usage("--tag", error.to_string()))?;
    if reference.digest().is_some() {
        return Err(usage(
            "--tag",
            format!("{:?} has a digest, which only the finished image has; leave it out", shown::text(text)),
        ));
    }
    Ok(reference.tagged())
}

/// Makes the tag of a release that was given none: Docker Hub's login (`DOCKER_USERNAME` before
/// what is stored), else the only other one, and the folder.
pub(super) fn default(
    environment: &BTreeMap<String, String>,
    folder: Option<&str>,
    logins: &dyn Fn() -> Result<Vec<(String, String)>, roche_engine::Error>,
) -> Result<Reference, ReleaseError> {
    let hints = || vec!["roche release -t NAME".to_owned(), "docker login".to_owned()];
    let fail = |reason: String| ReleaseError::NoTag { reason, hints: hints() };
    let folder = folder
        .and_then(path_component)
        .ok_or_else(|| fail("the project's folder has no name that an image may have".to_owned()))?;
    let login = match environment.get("DOCKER_USERNAME").filter(|user| !user.is_empty()) {
        Some(user) => Login { host: None, user: user.clone(), source: "DOCKER_USERNAME".to_owned() },
        None => choose(logins().map_err(ReleaseError::Logins)?).map_err(fail)?,
    };
    let name = match &login.host {
        Some(host) => format!("{host}/{}/{folder}", login.user),
        // The host is written out, or a user such as `a.b` would be read as one.
        None => format!("docker.io/{}/{folder}", login.user),
    };
    let reference = Reference::from_str(&name);
    let reference = reference.map_err(|error| fail(format!("the login from {} makes none: {error}", login.source)))?;
    Ok(reference.tagged())
}

struct Login {
    /// None is Docker Hub.
    host: Option<String>,
    user: String,
    source: String,
}

/// Chooses among stored logins; those without a user (tokens) make no name.
fn choose(logins: Vec<(String, String)>) -> Result<Login, String> {
    let tokens = !logins.is_empty();
    let mut named: Vec<(String, String)> = logins.into_iter().filter(|(_, user)| !user.is_empty() && user != "<token>").collect();
    if let Some((host, user)) = named.iter().find(|(host, _)| host == "docker.io") {
        return Ok(Login { host: None, user: user.clone(), source: host.clone() });
    }
    named.sort();
    named.dedup();
    match named.as_slice() {
        [(host, user)] => Ok(Login { host: Some(host.clone()), user: user.clone(), source: host.clone() }),
        [] if tokens => Err("the stored logins are tokens without a user name".to_owned()),
        [] => Err("there is no registry login".to_owned()),
        several => {
            let list: Vec<String> = several.iter().map(|(host, user)| shown::text(&format!("{host}/{user}"))).collect();
            Err(format!("there are several logins: {}", list.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(user: Option<&str>, folder: &str, logins: &[(&str, &str)]) -> Result<String, String> {
        let environment = user.map(|user| ("DOCKER_USERNAME".to_owned(), user.to_owned())).into_iter().collect();
        let logins: Vec<(String, String)> = logins.iter().map(|&(host, user)| (host.to_owned(), user.to_owned())).collect();
        default(&environment, Some(folder), &|| Ok(logins.clone())).map(|tag| tag.to_string()).map_err(|error| {
            assert_eq!(error.hints().len(), 2);
            error.to_string()
        })
    }

    #[test]
    fn docker_hub_s_login_gives_its_user_and_the_folder() {
        assert_eq!(made(Some("joe"), "Hello World", &[]).unwrap(), "docker.io/joe/hello-world:latest");
        assert_eq!(made(None, "hello", &[("a.io", "x"), ("docker.io", "joe")]).unwrap(), "docker.io/joe/hello:latest");
        assert_eq!(made(Some(""), "hello", &[("docker.io", "joe")]).unwrap(), "docker.io/joe/hello:latest");
    }

    #[test]
    fn exactly_one_other_login_gives_its_host_too() {
        assert_eq!(made(None, "hello", &[("r.io:5000", "joe")]).unwrap(), "r.io:5000/joe/hello:latest");
        assert_eq!(made(None, "hello", &[("r.io", "joe"), ("t.io", "<token>"), ("u.io", "")]).unwrap(), "r.io/joe/hello:latest");
    }

    #[test]
    fn several_none_and_tokens_alone_say_so() {
        let several = made(None, "hello", &[("b.io", "y"), ("a.io", "x")]).unwrap_err();
        assert!(several.ends_with("there are several logins: a.io/x, b.io/y"), "{several}");
        assert!(made(None, "hello", &[]).unwrap_err().ends_with("there is no registry login"));
        assert!(made(None, "hello", &[("a.io", "<token>")]).unwrap_err().contains("tokens"));
    }

    #[test]
    fn a_login_or_folder_that_no_name_may_have_is_said() {
        assert!(made(Some("Joe Doe"), "hello", &[]).unwrap_err().contains("DOCKER_USERNAME"));
        assert!(made(Some("joe"), "…", &[]).unwrap_err().contains("folder"));
    }

    #[test]
    fn a_tag_with_a_digest_is_refused_and_one_without_a_tag_gets_latest() {
        assert_eq!(parse("a/b").unwrap().to_string(), "docker.io/a/b:latest");
        assert!(parse(&format!("a/b@sha256:{}", "0".repeat(64))).is_err());
    }
}
