//! Whose origin a function is on: the daemon's, which all functions and the management API share, or a host of its own.
//!
//! A browser keeps what belongs together by origin: cookies, storage, service workers, and what a site has said about
//! itself. On the shared origin one function could so speak for all others, with a header or with a script:
//!
//! | header | what it would do to the others |
//! |---|---|
//! | `Service-Worker-Allowed` | lets a script of this function answer for their pages |
//! | `Strict-Transport-Security` | keeps browsers from reaching them without TLS |
//! | `Alt-Svc` | sends their visitors to another server |
//! | `Clear-Site-Data` | deletes their cookies and storage |
//! | `NEL`, `Report-To`, `Reporting-Endpoints` | reports their visits to somebody |
//!
//! These are dropped there. A script below `/functions/<name>/` may have a service worker for what is below that path, and
//! one at `/functions/<name>` itself may not: its directory is that of all functions (Service Workers, section «Register»).

use crate::error::Error;
use http::{HeaderMap, HeaderName, header};

/// What speaks for a whole origin.
const FOR_ORIGINS: [HeaderName; 7] = [
    HeaderName::from_static("service-worker-allowed"),
    header::STRICT_TRANSPORT_SECURITY,
    header::ALT_SVC,
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("reporting-endpoints"),
];

/// What a browser sends with the request for the script of a service worker.
const SERVICE_WORKER: HeaderName = HeaderName::from_static("service-worker");

/// Takes off what an answer says about the origin that its function shares with others.
pub(super) fn quieten(headers: &mut HeaderMap) {
    // Few answers have any: looking at their two or three names costs less than seven look-ups.
    if headers.keys().any(|name| FOR_ORIGINS.contains(name)) {
        for name in &FOR_ORIGINS {
            headers.remove(name);
        }
    }
}

/// Refuses the script of a service worker that would be one for all functions.
pub(super) fn check_script(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(SERVICE_WORKER) {
        return Err(Error::invalid(
            "a service worker at this path would be one of all functions: have its script below /functions/<name>/",
        ));
    }
    Ok(())
}

/// What stands before a domain in the name of a host, such as `hello` in `hello.example.com`.
pub(super) fn below<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    let at = host.len().checked_sub(domain.len()).filter(|_| !domain.is_empty())?;
    let (label, rest) = host.split_at_checked(at)?;
    let label = label.strip_suffix('.').filter(|it| !it.is_empty())?;
    rest.eq_ignore_ascii_case(domain).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_below_a_domain_by_whole_labels() {
        for (host, domain, expected) in [
            ("hello.example.com", "example.com", Some("hello")),
            ("a.b.Example.Com", "example.com", Some("a.b")),
            ("example.com", "example.com", None),
            (".example.com", "example.com", None),
            ("helloexample.com", "example.com", None),
            ("com", "example.com", None),
            ("hello.localhost", "", None),
        ] {
            assert_eq!(below(host, domain), expected, "{host} {domain}");
        }
    }
}
