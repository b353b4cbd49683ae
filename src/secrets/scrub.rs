//! Masks a worker's secrets in what it writes.
//!
//! A value is found as it stands, as base64 (of any alignment, plain and URL alphabets, without the characters at its ends that its
//! neighbours share), as it stands in a URL (`%XX`, upper or lower case hexadecimal) and in JSON (escaped). Of a value of
//! several lines each line counts too. What is not found: a value that the function has cut, joined with something else
//! before it was encoded, encrypted, or spelled otherwise; and one that is shorter than [`MASKED_BYTES_MIN`], which would
//! be found in everything.

use crate::model::{SecretText, VariableKey};
use aho_corasick::{AhoCorasick, MatchKind};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use std::{borrow::Cow, fmt::Write};
use zeroize::Zeroizing;

/// The shortest value that is masked, in bytes.
pub const MASKED_BYTES_MIN: usize = 4;

/// The shortest line of a value of several lines that is masked by itself.
const LINE_BYTES_MIN: usize = 8;

/// How what the shim has cut ends: `… [cut, 12345 bytes]`.
const CUT_MARKER: &str = "… [cut, ";

/// Finds the values of some secrets in text.
pub struct Scrubber {
    search: AhoCorasick,
    masks: Vec<String>,
    /// What is looked for: to find the beginning of one at the end of a text that was cut.
    needles: Zeroizing<Vec<String>>,
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrubber").field("masks", &self.masks.len()).finish_non_exhaustive()
    }
}

impl Scrubber {
    /// For these secrets; none where there is nothing to look for.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a VariableKey, &'a SecretText)>) -> Option<Self> {
        let mut needles = Zeroizing::new(Vec::new());
        let mut masks = Vec::new();
        for (key, value) in secrets {
            let forms = forms(value.expose());
            masks.extend(forms.iter().map(|_| format!("[secret {key}]")));
            needles.extend(forms.iter().cloned());
        }
        if needles.is_empty() {
            return None;
        }
        let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(needles.iter());
        // It fails above two thousand million states only; then nothing may be written at all.
        search.ok().map(|search| Self { search, masks, needles })
    }

    /// The text without the secrets.
    #[must_use]
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.search.is_match(text) {
            true => Cow::Owned(self.search.replace_all(text, &self.masks)),
            false => Cow::Borrowed(text),
        }
    }

    /// The same for a text that may have been cut at its end, in the middle of a secret.
    fn scrub_cut(&self, text: &str) -> String {
        let mut text = self.scrub(text).into_owned();
        // The longest beginning of a secret that the text ends with.
        let begins = |needle: &String| {
            let longest = needle.len().min(text.len() + 1) - 1;
            (MASKED_BYTES_MIN..=longest).rev().find(|&it| text.as_bytes().ends_with(&needle.as_bytes()[..it]))
        };
        let found = self.needles.iter().zip(&self.masks).filter_map(|(needle, mask)| Some((begins(needle)?, mask)));
        if let Some((length, mask)) = found.max_by_key(|(length, _)| *length) {
            let mask = mask.clone();
            // A secret begins with a whole character, so that the text is cut before one.
            text.truncate(text.len() - length);
            text.push_str(&mask);
        }
        text
    }

    /// The same for a line that was cut if it has this many bytes, or says so at its end.
    #[must_use]
    pub fn scrub_line(&self, line: &str, bytes_max: usize) -> String {
        match line.rfind(CUT_MARKER) {
            Some(end) if line.ends_with(" bytes]") => self.scrub_cut(&line[..end]) + &line[end..],
            // Where a character was cut, there is one that stands for it.
            _ if line.len() >= bytes_max => self.scrub_cut(line.trim_end_matches(char::REPLACEMENT_CHARACTER)),
            _ => self.scrub(line).into_owned(),
        }
    }
}

/// What a value may look like.
fn forms(value: &str) -> Zeroizing<Vec<String>> {
    let mut forms = Zeroizing::new(Vec::new());
    if value.len() < MASKED_BYTES_MIN {
        return forms;
    }
    let lines = value.lines().map(str::trim).filter(|it| it.len() >= LINE_BYTES_MIN && *it != value);
    for text in std::iter::once(value).chain(lines) {
        forms.push(text.to_owned());
        for encoded in [percent(text, true), percent(text, false), json(text)] {
            if encoded != text {
                forms.push(encoded);
            }
        }
    }
    forms.extend(base64(value.as_bytes()));
    forms.sort_unstable();
    forms.dedup();
    forms
}

fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or_default().to_owned()
}

/// As `encodeURIComponent` writes it.
fn percent(text: &str, upper: bool) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            it if it.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&it) => encoded.push(it.into()),
            it if upper => drop(write!(encoded, "%{it:02X}")),
            it => drop(write!(encoded, "%{it:02x}")),
        }
    }
    encoded
}

/// The characters that a value makes wherever it stands in what is encoded: three alignments, two alphabets.
fn base64(value: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for shift in 0..3 {
        let mut bytes = Zeroizing::new(vec![0; shift]);
        bytes.extend_from_slice(value);
        // The first characters and the last one depend on the neighbours.
        let first = (shift * 8).div_ceil(6);
        let last = bytes.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            let encoded = Zeroizing::new(encoded);
            if last.saturating_sub(first) > MASKED_BYTES_MIN {
                forms.push(encoded[first..last].to_owned());
            }
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    fn scrubber(value: &str) -> Option<Scrubber> {
        let (key, value) = ("API_KEY".parse().expect("a key"), value.into());
        Scrubber::new([(&key, &value)])
    }

    #[test]
    fn values_are_masked_however_they_are_usually_written() {
        let value = "s3cr/t? \"value\"+ü";
        let scrubber = scrubber(value).expect("it is long enough");
        let encoded = percent(value, true);
        for text in
            [value, &json(value), &encoded, &percent(value, false), &STANDARD.encode(value), &URL_SAFE.encode(value)]
        {
            let scrubbed = scrubber.scrub(text).into_owned();
            assert!(scrubbed.contains("[secret API_KEY]"), "{text}: {scrubbed}");
            assert!(!scrubbed.contains("value") && !scrubbed.contains("dmFs"), "{text}: {scrubbed}");
        }
        let basic = STANDARD.encode(format!("user:{value}"));
        assert!(scrubber.scrub(&basic).contains("[secret API_KEY]"), "{basic}");
        assert_eq!(scrubber.scrub("nothing in it"), "nothing in it");
        assert_eq!(scrubber.scrub(&format!("a {value} b {value} c")), "a [secret API_KEY] b [secret API_KEY] c");
    }

    #[test]
    fn short_values_are_not_looked_for() {
        assert!(scrubber("abc").is_none());
        assert!(scrubber("abcd").is_some());
    }

    #[test]
    fn lines_of_a_key_are_masked_one_by_one() {
        let scrubber = scrubber("-----BEGIN KEY-----\nMIIEvQIBADANBg\n}\n").expect("it is long enough");
        assert_eq!(scrubber.scrub("line MIIEvQIBADANBg!"), "line [secret API_KEY]!");
        assert_eq!(scrubber.scrub("}"), "}");
    }

    #[test]
    fn a_text_that_was_cut_within_a_secret_shows_no_beginning_of_it() {
        let scrubber = scrubber("hunter22hunter22").expect("it is long enough");
        assert_eq!(scrubber.scrub_cut("the key is hunter22hun"), "the key is [secret API_KEY]");
        assert_eq!(scrubber.scrub_cut("hunt"), "[secret API_KEY]");
        assert_eq!(scrubber.scrub_cut("the key is hun"), "the key is hun");
        assert_eq!(scrubber.scrub_cut(""), "");
        assert_eq!(scrubber.scrub_line("a hunter… [cut, 99 bytes]", 100), "a [secret API_KEY]… [cut, 99 bytes]");
        assert_eq!(scrubber.scrub_line("a hunter\u{fffd}", 9), "a [secret API_KEY]");
        assert_eq!(scrubber.scrub_line("a hunter", 100), "a hunter");
    }

    proptest! {
        #[test]
        fn no_value_is_left(value in "[a-zA-Z0-9+/=% ]{4,30}", before in ".{0,20}", after in ".{0,20}", n in 0usize..4) {
            let scrubber = scrubber(&value).expect("it is long enough");
            let text = match n {
                0 => format!("{before}{value}{after}"),
                1 => format!("{before}{}{after}", percent(&value, true)),
                2 => STANDARD.encode(format!("{before}{value}{after}")),
                _ => URL_SAFE.encode(format!("{before}{value}{after}")),
            };
            // The shortest values make too few characters of their own in base64 to be told from others.
            if n < 2 || value.len() >= 6 {
                prop_assert!(scrubber.scrub(&text).contains("[secret API_KEY]"), "{}", text);
            }
            let _ = scrubber.scrub_cut(&text);
        }
    }
}
