//! Host names as they appear in URLs.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    str::from_utf8,
};

/// Prefix of labels that encode non-ASCII letters (RFC 5890, section 2.3.2.5).
const ENCODED_PREFIX: &[u8] = b"xn--";

/// Whether this is a literal host, with or without a port (RFC 3986, sections 3.2.2 and 3.2.3): a name without `%XX`,
/// an IPv4 address of four numbers, or an IPv6 address in brackets.
///
/// Parsers that follow browsers treat a name whose last label is a number as an IPv4 address, and decode encoded labels
/// (WHATWG URL Standard, section 3.5). A host that such a parser would reject is rejected here too.
#[must_use]
pub fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|it| *it == b']') else { return false };
            let is_address = from_utf8(&rest[..end]).is_ok_and(|it| it.parse::<Ipv6Addr>().is_ok());
            return is_address && is_port(&rest[end + 1..]);
        }
        _ => text.split_at(text.iter().position(|it| *it == b':').unwrap_or(text.len())),
    };
    is_port(port) && is_name(host)
}

/// Accepts an empty port, or a colon and a valid port number; RFC 3986 also allows a lone colon.
fn is_port(text: &[u8]) -> bool {
    match text {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            let is_number = digits.iter().all(u8::is_ascii_digit);
            is_number && from_utf8(digits).is_ok_and(|it| it.parse::<u16>().is_ok())
        }
        _ => false,
    }
}

fn is_name(text: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte);
    if text.is_empty() || !text.iter().all(is_allowed) {
        return false;
    }
    let name = text.strip_suffix(b".").unwrap_or(text);
    let mut labels = name.rsplit(|it| *it == b'.');
    if labels.next().is_some_and(is_number) {
        return from_utf8(name).is_ok_and(|it| it.parse::<Ipv4Addr>().is_ok());
    }
    name.split(|it| *it == b'.').all(|label| match label.split_at_checked(ENCODED_PREFIX.len()) {
        Some((prefix, encoded)) if prefix.eq_ignore_ascii_case(ENCODED_PREFIX) => is_encoded(encoded),
        _ => true,
    })
}

/// Accepts decimal digits, or hexadecimal digits after `0x`.
fn is_number(label: &[u8]) -> bool {
    match label {
        [] => false,
        [b'0', b'x' | b'X', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        digits => digits.iter().all(u8::is_ascii_digit),
    }
}

/// Whether this is Punycode (RFC 3492, section 6.2) of lower-case letters, at least one of them outside ASCII.
fn is_encoded(text: &[u8]) -> bool {
    const BASE: u32 = 36;
    let (mut length, digits) = match text.iter().rposition(|it| *it == b'-') {
        Some(at) => (at, &text[at + 1..]),
        None => (0, text),
    };
    let (mut digits, mut point, mut index, mut bias) = (digits.iter(), 128_u32, 0_u32, 72_u32);
    if digits.len() == 0 {
        return false;
    }
    while digits.len() > 0 {
        let (before, mut weight, mut at) = (index, 1_u32, BASE);
        loop {
            let digit = match digits.next() {
                Some(letter @ (b'a'..=b'z' | b'A'..=b'Z')) => u32::from(letter.to_ascii_lowercase() - b'a'),
                Some(digit @ b'0'..=b'9') => u32::from(digit - b'0') + 26,
                _ => return false,
            };
            let sum = digit.checked_mul(weight).and_then(|it| index.checked_add(it));
            let threshold = at.saturating_sub(bias).clamp(1, 26);
            let Some(sum) = sum else { return false };
            index = sum;
            if digit < threshold {
                break;
            }
            let Some(next) = weight.checked_mul(BASE - threshold) else { return false };
            (weight, at) = (next, at + BASE);
        }
        length += 1;
        let places = length as u32;
        bias = adapted(index - before, places, before == 0);
        let Some(next) = point.checked_add(index / places) else { return false };
        (point, index) = (next, index % places + 1);
        let letter = char::from_u32(point);
        if letter.is_none_or(|it| it.is_control() || it.is_whitespace() || !it.to_lowercase().eq([it])) {
            return false;
        }
    }
    true
}

/// Bias adaptation of RFC 3492, section 6.1.
fn adapted(delta: u32, places: u32, is_first: bool) -> u32 {
    let mut delta = delta / if is_first { 700 } else { 2 };
    delta += delta / places;
    let mut steps = 0;
    while delta > 35 * 26 / 2 {
        delta /= 35;
        steps += 36;
    }
    steps + 36 * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in [
            "a",
            "a.",
            "a:",
            "a:00080",
            "a:65535",
            "a_b.c-d~e!$&'()*+,;=",
            "A.Example",
            "1.2.3.4",
            "1.2.3.4.:80",
            "1.2.3.a",
            "1a",
            "a.0xg",
            "[::1]",
            "[::ffff:1.2.3.4]:80",
            "xn--bcher-kva.example",
            "XN--BCHER-KVA",
            "xn--n3h",
            "xn--ls8h.a",
            "xn--fiqs8s",
            "xn--mgbh0fb.xn--kgbechtv",
            "xn--55qx5d",
            "axn--b",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for other in [
            "",
            ":80",
            "a b",
            "a\tb",
            "\u{e9}",
            "user@a",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a\"b",
            "a%41",
            "a^b",
            "a|b",
            "a:+80",
            "a:65536",
            "a:b",
            "a:1:2",
            "::1",
            "[::1",
            "[::1]a",
            "[::1]:a",
            "[]",
            "[1.2.3.4]",
            "[::1%25lo]",
            "[v1.a]",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "01.2.3.4",
            "a.1",
            "a.09",
            "a.0x",
            "a.0x1f",
            "xn--",
            "xn--a",
            "xn--0",
            "a.xn--x",
            "xn--abc.b",
            "xn--a-",
            "xn--99999999999",
            "XN--a_b",
        ] {
            assert!(!is_host(other.as_bytes()), "{other:?}");
        }
    }
}
