//! What a page in somebody's browser may not do: use this node for another site.
//!
//! A browser sends what any page asks for to wherever its user can reach. A page that leads a name of
//! its own to this node's address (DNS rebinding) can also read the replies: to the browser they
//! are of the page's own site. So a request of another site's page is refused at every path; and at
//! those that need no key the host must be a name of this node, which no such page has.
//! Programs are no browsers: they send no `Origin`, and the name that they were given.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::Problem;
use crate::config::HostName;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// How much of a wrong name is repeated.
const SHOWN_CHARS_MAX: usize = 80;

/// The hosts that this node is asked as.
#[derive(Debug, Clone)]
pub struct Names {
    /// It listens on a loopback address, and nobody reaches it at another one.
    loopback_only: bool,
    known: BTreeSet<HostName>,
}

impl Names {
    /// Those of a node that listens at this address and has these names.
    pub fn new(at: IpAddr, known: impl IntoIterator<Item = HostName>) -> Self {
        Self {
            loopback_only: at.to_canonical().is_loopback(),
            known: known.into_iter().collect(),
        }
    }

    /// Whether a request may name this host. An address is no name that a page could have brought.
    fn has(&self, host: &HostName) -> bool {
        let any_address = !self.loopback_only && host.address().is_some();
        any_address || host.is_loopback() || self.known.contains(host)
    }

    /// Whether pages of this host may ask when they ask for that one.
    fn trusts(&self, page: &HostName, asked: Option<&HostName>) -> bool {
        let of_this_machine = page.is_loopback() && asked.is_some_and(HostName::is_loopback);
        asked == Some(page) || of_this_machine || self.known.contains(page)
    }

    fn check_host(&self, request: &Request) -> Result<(), Problem> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let (header, another) = (hosts.next(), hosts.next());
        // Both count: which of them a proxy went by is not known.
        let target = request.uri().authority().map(Authority::as_str);
        let header = header.map(|header| String::from_utf8_lossy(header.as_bytes()));
        let mut named = target.into_iter().chain(header.as_deref()).peekable();
        if named.peek().is_none() && request.version() >= Version::HTTP_11 {
            let text = "the request names no host: send the header Host".to_owned();
            return Err(Problem::WrongHost(text));
        }
        if another.is_some() {
            let text = "the header Host is there twice".to_owned();
            return Err(Problem::WrongHost(text));
        }
        match named.find(|text| !HostName::of_authority(text).is_some_and(|host| self.has(&host))) {
            Some(wrong) => Err(Problem::WrongHost(format!(
                "'{}' is no name of this node; if it is to be one, start the node with \
                 --allow-host and that name",
                shown(wrong)
            ))),
            None => Ok(()),
        }
    }

    fn check_origin(&self, request: &Request) -> Result<(), Problem> {
        let headers = request.headers();
        let Some(origin) = headers.get(ORIGIN) else {
            return match is_of_another_site(request.method(), headers) {
                true => Err(Problem::ForeignPage(
                    "the request comes from a page of another site, which may not use this node"
                        .into(),
                )),
                false => Ok(()),
            };
        };
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let page = origin.split_once("://").map(|(_, rest)| rest);
        let page = page.and_then(HostName::of_authority);
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let asked = host.and_then(HostName::of_authority);
        match page.is_some_and(|page| self.trusts(&page, asked.as_ref())) {
            true => Ok(()),
            false => Err(Problem::ForeignPage(format!(
                "the request comes from a page of '{}', which may not use this node; if the page \
                 is yours, start the node with --allow-host and that page's host",
                shown(&origin)
            ))),
        }
    }
}

/// What a browser without an `Origin` says: it sends none with a plain GET. A link that is followed
/// is no use of the node by the page that had it.
fn is_of_another_site(method: &Method, headers: &HeaderMap) -> bool {
    let says = |name: &HeaderName, value: &str| {
        (headers.get_all(name).iter())
            .any(|said| said.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
    };
    let follows_link = *method == Method::GET
        && says(&SEC_FETCH_MODE, "navigate")
        && says(&SEC_FETCH_DEST, "document");
    says(&SEC_FETCH_SITE, "cross-site") && !follows_link
}

fn shown(text: &str) -> String {
    let text = text.chars().filter(|c| !c.is_control());
    text.take(SHOWN_CHARS_MAX).collect()
}

/// For every path.
pub async fn check_origin(
    State(names): State<Arc<Names>>,
    request: Request,
    next: Next,
) -> Response {
    match names.check_origin(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// For the paths that need no key.
pub async fn check_host(State(names): State<Arc<Names>>, request: Request, next: Next) -> Response {
    match names.check_host(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const LOOPBACK: &str = "127.0.0.1";
    const ALL: &str = "0.0.0.0";

    fn names(at: &str) -> Names {
        let known = ["n1", "db.example.com"].map(|name| HostName::parse(name).unwrap());
        Names::new(at.parse().unwrap(), known)
    }

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[track_caller]
    fn assert_host(at: &str, host: &str, taken: bool) {
        let checked = names(at).check_host(&request("/status", &[("host", host)]));
        assert_eq!(checked.is_ok(), taken, "{host} at {at}: {checked:?}");
    }

    #[test]
    fn the_host_is_a_name_of_the_node() {
        for host in [
            "localhost",
            "localhost:7401",
            "127.0.0.2:7401",
            "[::1]:7401",
            "N1:7401",
        ] {
            assert_host(LOOPBACK, host, true);
            assert_host("::1", host, true);
            assert_host(ALL, host, true);
        }
        assert_host(LOOPBACK, "db.example.com.:1", true);
        for host in ["10.0.0.1:7401", "0.0.0.0", "[2001:db8::1]:7401"] {
            assert_host(LOOPBACK, host, false);
            assert_host(ALL, host, true);
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:7401",
            "evil.db.example.com",
            "db.example.com@evil.example",
            "",
            "a b",
        ] {
            assert_host(LOOPBACK, host, false);
            assert_host(ALL, host, false);
        }
    }

    #[test]
    fn only_an_old_program_names_no_host() {
        let mut bare = request("/status", &[]);
        assert!(names(LOOPBACK).check_host(&bare).is_err());
        *bare.version_mut() = Version::HTTP_10;
        assert!(names(LOOPBACK).check_host(&bare).is_ok());
        let twice = [("host", "localhost"), ("host", "n1")];
        assert!(
            names(LOOPBACK)
                .check_host(&request("/status", &twice))
                .is_err()
        );
        let local = [("host", "localhost")];
        let absolute = request("http://evil.example/status", &local);
        assert!(names(LOOPBACK).check_host(&absolute).is_err());
        let absolute = request("http://localhost/status", &local);
        assert!(names(LOOPBACK).check_host(&absolute).is_ok());
    }

    #[test]
    fn a_wrong_host_is_named_with_the_setting() {
        let evil = [("host", "evil.example")];
        let checked = names(LOOPBACK).check_host(&request("/status", &evil));
        let Err(Problem::WrongHost(text)) = checked else {
            panic!("{checked:?}");
        };
        assert!(
            text.contains("'evil.example'") && text.contains("--allow-host"),
            "{text}"
        );
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let taken = |at: &str, host: &str, origin: &str| {
            let headers = [("host", host), ("origin", origin)];
            names(at)
                .check_origin(&request("/status", &headers))
                .is_ok()
        };
        for (host, origin) in [
            ("localhost:7401", "http://localhost:7401"),
            ("localhost:7401", "http://127.0.0.1:5173"),
            ("10.0.0.1:7401", "http://10.0.0.1:7401"),
            ("n1:7401", "https://DB.example.com"),
        ] {
            assert!(taken(ALL, host, origin), "{origin} asks {host}");
        }
        for (host, origin) in [
            ("localhost:7401", "http://evil.example"),
            ("localhost:7401", "https://localhost.evil.example"),
            ("localhost:7401", "null"),
            ("localhost:7401", ""),
            ("10.0.0.1:7401", "http://10.0.0.2"),
            ("n1:7401", "http://localhost"),
        ] {
            assert!(!taken(ALL, host, origin), "{origin} asks {host}");
            assert!(!taken(LOOPBACK, host, origin), "{origin} asks {host}");
        }
    }

    #[test]
    fn a_page_that_sends_no_origin_says_where_it_is() {
        let taken = |headers: &[(&str, &str)]| {
            names(LOOPBACK)
                .check_origin(&request("/status", headers))
                .is_ok()
        };
        assert!(taken(&[]));
        for site in ["none", "same-origin", "same-site"] {
            assert!(taken(&[("sec-fetch-site", site)]), "{site}");
        }
        let cross = ("sec-fetch-site", "cross-site");
        assert!(!taken(&[cross]));
        assert!(!taken(&[
            cross,
            ("sec-fetch-mode", "no-cors"),
            ("sec-fetch-dest", "image")
        ]));
        assert!(!taken(&[
            cross,
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "iframe")
        ]));
        assert!(taken(&[
            cross,
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document")
        ]));
    }
}
