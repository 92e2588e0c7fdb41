//! Proxies between the program and registries.
//!
//! Red when: a registry is reached past the proxy that the environment names, or through it although
//! `NO_PROXY` names the registry; a proxy's login is said anywhere; who cannot get through is told less than
//! the registry and the proxy.

use crate::harness::{PrivateRegistry, Project, Roche, Tunnel, unique};

const NAME: &str = "registry.test";
const LOGIN: &str = "me:s3cret-0f-pr0xy";
const LOGIN_IN_BASE64: &str = "bWU6czNjcmV0LTBmLXByMHh5";

struct Stand {
    registry: PrivateRegistry,
    tunnel: Tunnel,
    project: Project,
    cache: tempfile::TempDir,
}

impl Stand {
    fn new() -> Self {
        let registry = PrivateRegistry::start_as(NAME);
        let tunnel = Tunnel::start(registry.address, LOGIN_IN_BASE64);
        Self { registry, tunnel, project: Project::hello(&unique()), cache: tempfile::tempdir().unwrap() }
    }

    /// A call that trusts the registry, and has a login for it.
    fn call(&self, args: &[&str]) -> Roche {
        let call = Roche::new(self.project.root()).args(args).env("XDG_CACHE_HOME", self.cache.path());
        self.registry.logged_in(call.env("SSL_CERT_FILE", self.registry.authority()))
    }

    fn release(&self, tag: &str) -> Roche {
        let images = [self.registry.image("build"), self.registry.image("runtime-busybox")];
        self.call(&["release", "--builder", "embedded", "-b", &images[0], "-r", &images[1], "-t", tag, "--push"])
    }

    fn proxy(&self) -> String {
        format!("http://{LOGIN}@{}", self.tunnel.address)
    }
}

#[test]
fn images_come_and_go_through_the_proxy() {
    let stand = Stand::new();
    let tag = format!("{NAME}/t/{}:1", unique());
    let made = stand.release(&tag).env("HTTPS_PROXY", stand.proxy()).run().succeeds();
    assert_eq!(stand.tunnel.asked(), [format!("{NAME}:443")]);
    assert!(!made.story().contains("s3cret"), "{}", made.story());

    let read = stand.call(&["contents", &tag]).env("https_proxy", stand.proxy()).run().succeeds();
    assert!(read.stdout_text().contains("app"), "{}", read.story());

    let socks = Tunnel::start(stand.registry.address, "");
    let read = stand.call(&["contents", &tag]).env("HTTPS_PROXY", format!("socks5h://{}", socks.address)).run().succeeds();
    assert_eq!(socks.asked(), [format!("{NAME}:443")], "{}", read.story());
}

#[test]
fn a_proxy_that_is_not_for_the_registry_is_not_asked() {
    let stand = Stand::new();
    for (variable, value) in [("NO_PROXY", "other.test, .test"), ("no_proxy", NAME), ("NO_PROXY", "*")] {
        let ended = stand.call(&["contents", "registry.test/t/x:1"]).env("HTTPS_PROXY", stand.proxy()).env(variable, value).run();
        let ended = ended.fails(75, &[NAME, "cannot be reached"]);
        assert!(!ended.stderr.contains(&stand.tunnel.address.to_string()), "{}", ended.story());
    }
    // The one for plain http has no say in what is asked over TLS.
    stand.call(&["contents", "registry.test/t/x:1"]).env("HTTP_PROXY", stand.proxy()).run().fails(75, &["cannot be reached"]);
    assert_eq!(stand.tunnel.asked(), Vec::<String>::new());
}

#[test]
fn who_cannot_get_through_is_told_of_the_proxy() {
    let stand = Stand::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (what, code, proxy) in [
        ("a wrong login", 8, format!("http://me:s3cret-wrong@{}", stand.tunnel.address)),
        ("nobody listens", 75, format!("http://me:s3cret@{nobody}")),
        ("it speaks no TLS", 75, format!("https://me:s3cret@{}", stand.tunnel.address)),
        ("nobody listens", 75, format!("socks5h://me:s3cret@{nobody}")),
        ("it is no proxy", 75, format!("http://me:s3cret@{}", stand.registry.address)),
    ] {
        let ended = stand.release("registry.test/t/x:1").env("HTTPS_PROXY", &proxy).run();
        let shown = proxy.replacen("me:s3cret-wrong@", "", 1).replacen("me:s3cret@", "", 1);
        let ended = ended.fails(code, &[NAME, &format!("the proxy {shown}")]);
        assert!(!ended.story().contains("s3cret"), "{what}: {}", ended.story());
    }
}

#[test]
fn what_is_no_proxy_is_refused_by_its_variable() {
    let stand = Stand::new();
    for (variable, value) in [
        ("HTTPS_PROXY", "ftp://me:s3cret@proxy:21"),
        ("https_proxy", "http://me:s3cret@"),
        ("HTTP_PROXY", "s3cret proxy"),
        ("http_proxy", "proxy:s3cret"),
    ] {
        let ended = stand.release("registry.test/t/x:1").env(variable, value).run().fails(2, &[variable]);
        assert!(!ended.stderr.contains("s3cret"), "{}", ended.story());
    }
}
