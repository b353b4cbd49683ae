//! A text with its escapes decoded, and the position of each decoded byte in the original.
//!
//! ```text
//! k=a%2Fb%22c   percent ─▶ k=a/b"c        {"k":"a\"b"}   backslash ─▶ {"k":"a"b"}
//! ```
//!
//! Values are searched for in the decoded text, so it does not matter which characters were escaped, how and how often.
//! Bytes that are not part of an escape stand for themselves.

use zeroize::Zeroizing;

/// Most levels of nested URL escapes that are decoded.
const PERCENT_LEVELS: usize = 2;

/// Most levels of nested quoting that are decoded.
const QUOTE_LEVELS: usize = 3;

/// Decoded bytes, and for each of them its range in the original text.
pub(super) struct View {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    written: Vec<(u32, u32)>,
}

impl View {
    /// Creates the view of the text without decoding.
    pub(super) fn of(text: &str) -> Self {
        let written = (0..text.len() as u32).map(|at| (at, at + 1)).collect();
        Self { bytes: Zeroizing::new(text.as_bytes().to_vec()), written }
    }

    /// Returns the range in the original text of these decoded bytes.
    pub(super) fn place(&self, begin: usize, end: usize) -> (usize, usize) {
        let begin_written = self.written.get(begin).map_or(0, |it| it.0);
        let end_written = end.checked_sub(1).and_then(|at| self.written.get(at)).map_or(begin_written, |it| it.1);
        (begin_written as usize, end_written as usize)
    }

    fn with_room(bytes: usize) -> Self {
        // The buffers never grow, so that no copy of the decoded text stays in memory.
        Self { bytes: Zeroizing::new(Vec::with_capacity(bytes)), written: Vec::with_capacity(bytes) }
    }

    fn push(&mut self, bytes: &[u8], written: (u32, u32)) {
        self.bytes.extend_from_slice(bytes);
        self.written.extend(bytes.iter().map(|_| written));
    }

    /// Decodes `%2F` to `/`, and in a form also `+` to a blank. Returns `None` if there is nothing to decode.
    fn percent(&self, is_form: bool) -> Option<Self> {
        let starts_escape = |it: &u8| *it == b'%' || is_form && *it == b'+';
        if !self.bytes.iter().any(starts_escape) {
            return None;
        }
        let mut read = Self::with_room(self.bytes.len());
        let mut at = 0;
        while let Some(&byte) = self.bytes.get(at) {
            let (byte, length) = match byte {
                b'+' if is_form => (b' ', 1),
                b'%' => match number(&self.bytes, at + 1, 2) {
                    Some(number) => (number as u8, 3),
                    None if self.is_cut(at, 3) => break,
                    None => (byte, 1),
                },
                _ => (byte, 1),
            };
            read.push(&[byte], self.written_from(at, length));
            at += length;
        }
        Some(read)
    }

    /// Decodes `
    /// `, `\"`, `\\`, `\xfc`, `\u00fc` and `\u{fc}`, as in JSON and in source code. Returns `None` if there is no
    /// backslash.
    fn backslash(&self) -> Option<Self> {
        if !self.bytes.contains(&b'\\') {
            return None;
        }
        let mut read = Self::with_room(self.bytes.len());
        let mut at = 0;
        while let Some(&byte) = self.bytes.get(at) {
            if byte != b'\\' {
                read.push(&[byte], self.written_from(at, 1));
                at += 1;
                continue;
            }
            let Some((character, length)) = escape(&self.bytes[at..]) else {
                if self.is_cut(at, 12) && matches!(self.bytes.get(at + 1), None | Some(b'u' | b'x')) {
                    break;
                }
                read.push(&[byte], self.written_from(at, 1));
                at += 1;
                continue;
            };
            read.push(character.encode_utf8(&mut [0; 4]).as_bytes(), self.written_from(at, length));
            at += length;
        }
        Some(read)
    }

    fn written_from(&self, at: usize, length: usize) -> (u32, u32) {
        (self.written[at].0, self.written[at + length - 1].1)
    }

    /// Returns whether the text ends within the length of an escape that begins here.
    fn is_cut(&self, at: usize, length: usize) -> bool {
        self.bytes.len() < at + length
    }
}

/// Returns whether a text may contain escapes.
pub(super) fn has_escapes(text: &str) -> bool {
    text.bytes().any(|it| matches!(it, b'%' | b'+' | b'\\'))
}

/// Returns all views of a text, the undecoded one first.
pub(super) fn all(text: &str) -> Vec<View> {
    let mut views = vec![View::of(text)];
    let mut last = vec![0];
    for level in 0..PERCENT_LEVELS {
        let mut found = Vec::new();
        for from in last {
            // A form is never nested, so `+` is decoded at the first level only.
            for is_form in [false, true].into_iter().filter(|it| level == 0 || !it) {
                if let Some(view) = views[from].percent(is_form) {
                    found.push(views.len());
                    views.push(view);
                }
            }
        }
        last = found;
    }
    for from in 0..views.len() {
        let mut from = from;
        for _ in 0..QUOTE_LEVELS {
            let Some(view) = views[from].backslash() else { break };
            from = views.len();
            views.push(view);
        }
    }
    views
}

/// Percent-decodes a part of a URL; returns `None` if there is nothing to decode or the result is not UTF-8.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let read = View::of(text).percent(false)?;
    std::str::from_utf8(&read.bytes).ok().map(str::to_owned)
}

/// Decodes the escape at the beginning of these bytes; returns its character and its length.
fn escape(bytes: &[u8]) -> Option<(char, usize)> {
    let character = match *bytes.get(1)? {
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'v' => '\u{b}',
        b'0' => '\0',
        b'x' => return Some((char::from_u32(number(bytes, 2, 2)?)?, 4)),
        b'u' if bytes.get(2) == Some(&b'{') => {
            let digits = bytes[3..].iter().take(7).position(|it| *it == b'}')?;
            return Some((char::from_u32(number(bytes, 3, digits)?)?, digits + 4));
        }
        b'u' => return unit(bytes),
        it @ (b'"' | b'\'' | b'`' | b'\\' | b'/' | b'$') => it.into(),
        _ => return None,
    };
    Some((character, 2))
}

/// Decodes `\uXXXX`, or two of them for a surrogate pair.
fn unit(bytes: &[u8]) -> Option<(char, usize)> {
    let first = number(bytes, 2, 4)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 6));
    }
    let second = bytes[6..].starts_with(b"\\u").then(|| number(bytes, 8, 4))??;
    let pair = char::decode_utf16([first as u16, second as u16]).next()?;
    Some((pair.ok()?, 12))
}

/// Parses a number of `digits` hexadecimal digits.
fn number(bytes: &[u8], from: usize, digits: usize) -> Option<u32> {
    let digits = bytes.get(from..from + digits).filter(|it| !it.is_empty())?;
    digits.iter().try_fold(0, |number, it| Some(number * 16 + (*it as char).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<String> {
        all(text).iter().map(|it| String::from_utf8_lossy(&it.bytes).into_owned()).collect()
    }

    #[test]
    fn escapes_read_as_what_they_stand_for() {
        assert_eq!(read("plain"), ["plain"]);
        assert!(read("a%2fb%2Fc%zz%").contains(&"a/b/c%zz".to_owned()));
        assert!(read("a+b%21").contains(&"a b!".to_owned()));
        assert!(read("%2541").contains(&"A".to_owned()));
        let json = r#"\"\\\/\n\u00fc\ud83d\ude00\xfc\u{1f600}\q"#;
        assert!(read(json).contains(&"\"\\/\nü😀ü😀\\q".to_owned()), "{:?}", read(json));
        assert!(read(r#"{\"a\":\"\\\"b\"}"#).contains(&"{\"a\":\"\"b\"}".to_owned()));
        // A text that was cut within an escape ends before that escape.
        assert!(read("ab%2").contains(&"ab".to_owned()) && read(r"ab\u00").contains(&"ab".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_read_was_written_somewhere(text in r#"([a-zü+%\\"'/0-9{}😀]|%[0-9a-f]{2}|\\u00fc|\\n){0,8}"#) {
            for view in all(&text) {
                for begin in 0..view.bytes.len() {
                    for end in begin + 1..=view.bytes.len() {
                        let (first, last) = view.place(begin, end);
                        prop_assert!(first < last && last <= text.len());
                        // Whole decoded characters cover whole characters of the original.
                        if std::str::from_utf8(&view.bytes[begin..end]).is_ok() {
                            prop_assert!(text.is_char_boundary(first) && text.is_char_boundary(last), "{}", text);
                        }
                    }
                }
            }
        }
    }
}
