//! The proxies between a client and what it asks.
//!
//! Invariant: what is shown of a proxy is its scheme, host and port; its login goes to it alone.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{NoProxy, Proxy, Url};

/// What is never asked through a proxy: this machine.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// Which proxies are asked, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The one for `https://` addresses, asked for a tunnel (RFC 9110, section 9.3.6).
    pub https: Option<ProxyAddress>,
    /// The one for `http://` addresses.
    pub http: Option<ProxyAddress>,
    /// What is asked without a proxy, as `NO_PROXY` has it: hosts with those below them, addresses and
    /// networks with commas between, or `*`. Loopback never needs to be named.
    pub direct: String,
}

/// A proxy's address: `SCHEME://[user:password@]host[:port]`. The scheme is `http`, which it is where none
/// is named, `https`, `socks5`, or `socks5h` where the proxy looks names up.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyAddress(Url);

impl Proxies {
    /// Returns them as the HTTP client takes them.
    pub(super) fn to_client(&self) -> Result<Vec<Proxy>, reqwest::Error> {
        let direct = NoProxy::from_string(&self.direct());
        let https = self.https.iter().map(|proxy| Proxy::https(proxy.0.clone()));
        let http = self.http.iter().map(|proxy| Proxy::http(proxy.0.clone()));
        https.chain(http).map(|proxy| Ok(proxy?.no_proxy(direct.clone()))).collect()
    }

    /// Returns the proxy that `url` is asked through.
    pub(super) fn on_way_to(&self, url: &Url) -> Option<&ProxyAddress> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http }.as_ref()?;
        // The rule of the client, which keeps it to itself.
        let matcher = Matcher::builder().all(proxy.0.as_str()).no(self.direct()).build();
        let uri: Uri = url.as_str().parse().ok()?;
        matcher.intercept(&uri).map(|_| proxy)
    }

    fn direct(&self) -> String {
        format!("{LOOPBACK},{}", self.direct)
    }
}

impl FromStr for ProxyAddress {
    type Err = String;

    /// Reads an address; of one that is refused, the reason holds no part.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&text).map_err(|error| error.to_string())?;
        match (url.scheme(), url.host_str()) {
            (_, None | Some("")) => Err("it names no host".to_owned()),
            ("http" | "https" | "socks5" | "socks5h", _) => Ok(Self(url)),
            _ => Err("its scheme is none of http, https, socks5 and socks5h".to_owned()),
        }
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_proxy_is_shown_without_its_login() {
        for (text, shown) in [
            ("http://me:secret@proxy.example:3128/", "http://proxy.example:3128"),
            ("proxy.example:3128", "http://proxy.example:3128"),
            ("me:secret@10.0.0.1", "http://10.0.0.1"),
            ("HTTPS://[::1]:8443", "https://[::1]:8443"),
            ("socks5h://me:secret@proxy:1080", "socks5h://proxy:1080"),
        ] {
            let proxy: ProxyAddress = text.parse().expect(text);
            assert_eq!((proxy.to_string(), format!("{proxy:?}")), (shown.to_owned(), shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_being_repeated() {
        for text in
            ["ftp://me:secret@proxy", "http://me:secret@", "socks5://", "me:secret@proxy:port", "://secret", "secret proxy"]
        {
            let reason = text.parse::<ProxyAddress>().expect_err(text);
            assert!(!reason.contains("secret") && !reason.is_empty(), "{text}: {reason}");
        }
    }

    #[test]
    fn what_is_direct_is_asked_through_no_proxy() {
        let proxies = Proxies {
            https: "tunnel:1".parse().ok(),
            http: "plain:2".parse().ok(),
            direct: "registry.example, .inner.example,10.0.0.0/8".to_owned(),
        };
        for (url, proxy) in [
            ("https://other.example/v2/", Some("http://tunnel:1")),
            ("http://other.example/v2/", Some("http://plain:2")),
            ("https://registry.example:5000/v2/", None),
            ("https://a.registry.example/v2/", None),
            ("https://notregistry.example/v2/", Some("http://tunnel:1")),
            ("https://a.inner.example/v2/", None),
            ("https://10.1.2.3/v2/", None),
            ("https://11.1.2.3/v2/", Some("http://tunnel:1")),
            ("http://localhost:5000/v2/", None),
            ("http://127.8.0.1:5000/v2/", None),
            ("http://[::1]:5000/v2/", None),
        ] {
            let url: Url = url.parse().expect("an address");
            assert_eq!(proxies.on_way_to(&url).map(ToString::to_string).as_deref(), proxy, "{url}");
        }
        let none = Proxies { direct: "*".to_owned(), ..proxies };
        assert_eq!(none.on_way_to(&"https://other.example".parse().expect("an address")), None);
        assert_eq!(Proxies::default().on_way_to(&"https://other.example".parse().expect("an address")), None);
    }
}
