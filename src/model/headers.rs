//! Hop-by-hop headers: those that concern one connection only.

use http::{HeaderMap, HeaderName, header};

/// Removes the headers that `Connection` names, and `Connection` itself: they are meant for the receiver of this
/// message only (RFC 9110, section 7.6.1).
///
/// `Host` is always kept: it tells what the request is for, and a proxy that forwards the request needs it.
pub fn remove_named_by_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok());
    let named: Vec<HeaderName> = names.filter(|name| name != header::HOST).collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_connection_names_goes_except_the_host() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "close, X-One ,host"), ("connection", "x-two"), ("host", "a"), ("x-one", "1")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        for (name, value) in [("x-two", "2"), ("x-two", "3"), ("x-three", "4"), ("close", "5")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        remove_named_by_connection(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-three"]);
    }
}
