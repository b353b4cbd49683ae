//! Origins of functions: the daemon's own, shared by all functions and the management API, or a host per function.
//!
//! A browser groups cookies, storage, service workers and a site's own policies by origin. On the shared origin one
//! function could speak for all others, with a header or with a script:
//!
//! | header | effect on the other functions |
//! |---|---|
//! | `Service-Worker-Allowed` | lets a script of this function answer for their pages |
//! | `Strict-Transport-Security` | keeps browsers from reaching them without TLS |
//! | `Alt-Svc` | sends their visitors to another server |
//! | `Clear-Site-Data` | deletes their cookies and storage |
//! | `NEL`, `Report-To`, `Reporting-Endpoints` | reports their visits to somebody |
//!
//! The daemon drops these headers on the shared origin. A script below `/functions/<name>/` may register a service
//! worker for the paths below it. A script at `/functions/<name>` may not, because its directory is that of all
//! functions (Service Workers, section «Register»).

use crate::error::Error;
use http::{HeaderMap, HeaderName, header};

/// Headers that speak for a whole origin.
const FOR_ORIGINS: [HeaderName; 7] = [
    HeaderName::from_static("service-worker-allowed"),
    header::STRICT_TRANSPORT_SECURITY,
    header::ALT_SVC,
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("reporting-endpoints"),
];

/// Header that a browser sends with the request for a service worker's script.
const SERVICE_WORKER: HeaderName = HeaderName::from_static("service-worker");

/// Removes headers that speak for an origin that the function shares.
pub(super) fn quieten(headers: &mut HeaderMap) {
    // Few answers have any: looking at their two or three names costs less than seven look-ups.
    if headers.keys().any(|name| FOR_ORIGINS.contains(name)) {
        for name in &FOR_ORIGINS {
            headers.remove(name);
        }
    }
}

/// Refuses a service worker's script whose scope would be all functions.
pub(super) fn check_script(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(SERVICE_WORKER) {
        return Err(Error::invalid(
            "a service worker at this path would control all functions: serve its script below /functions/<name>/",
        ));
    }
    Ok(())
}

/// Returns the part of a host name before a domain, such as `hello` in `hello.example.com`.
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
