//! Masks a worker's secrets in what it writes.
//!
//! [`forms`] says what of a value is looked for: the value without the blanks around it, each line of it, the password
//! of a URL in it, and the value and the password as base64 (of any alignment, plain and URL alphabets, without the
//! characters at its ends that its neighbours share). [`view`] says in what it is looked for: in the text as it stands,
//! and as it reads once its escapes are taken for what they stand for (`%2F`, `+` in a form, `\"` and `\u00fc`; also one
//! within the other). Secrets that overlap are masked together.
//!
//! What is not found: a value that the function has cut, joined with something else before it was encoded other than as
//! above, encrypted, or spelled otherwise; what of it was written over two lines, but for whole lines; and one that is
//! shorter than [`MASKED_BYTES_MIN`], which would be found in everything.

mod forms;
mod view;

use crate::model::{SecretText, VariableKey};
use aho_corasick::AhoCorasick;
use std::borrow::Cow;
use view::View;
use zeroize::Zeroizing;

/// The shortest value that is masked, in bytes.
pub const MASKED_BYTES_MIN: usize = 4;

/// The shortest line of a value of several lines that is masked by itself. Shorter ones are mostly brackets and words
/// that others use too.
const LINE_BYTES_MIN: usize = 6;

/// The shortest password in a URL that is masked by itself: shorter ones are often words, such as the user's name.
const PASSWORD_BYTES_MIN: usize = 8;

/// How what the shim has cut ends: `… [cut, 12345 bytes]`.
const CUT_MARKER: &str = "… [cut, ";

/// Finds the values of some secrets in text.
pub struct Scrubber {
    search: AhoCorasick,
    /// What is looked for, and of which secret it is: its place in `keys`.
    needles: Zeroizing<Vec<String>>,
    of: Vec<usize>,
    keys: Vec<String>,
}

/// What has to be masked: from where to where, and the secret.
type Span = (usize, usize, usize);

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrubber").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Scrubber {
    /// For these secrets; none where there is nothing to look for.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a VariableKey, &'a SecretText)>) -> Option<Self> {
        let mut needles = Zeroizing::new(Vec::new());
        let (mut of, mut keys) = (Vec::new(), Vec::new());
        for (key, value) in secrets {
            let forms = forms::forms(value.expose());
            of.extend(forms.iter().map(|_| keys.len()));
            needles.extend(forms.iter().cloned());
            keys.push(key.to_string());
        }
        if needles.is_empty() {
            return None;
        }
        // It fails above two thousand million states only; then nothing may be written at all.
        let search = AhoCorasick::new(needles.iter()).ok()?;
        Some(Self { search, needles, of, keys })
    }

    /// The text without the secrets.
    #[must_use]
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !view::has_escapes(text) && !self.search.is_match(text) {
            return Cow::Borrowed(text);
        }
        let spans = view::all(text).iter().flat_map(|view| self.found(view)).collect();
        self.masked(text, spans)
    }

    /// The same for a text that may have been cut at its end, in the middle of a secret.
    fn scrub_cut(&self, text: &str) -> String {
        let views = view::all(text);
        let found = views.iter().flat_map(|view| self.found(view).into_iter().chain(self.begun(view, text.len())));
        self.masked(text, found.collect()).into_owned()
    }

    fn found(&self, view: &View) -> Vec<Span> {
        let matches = self.search.find_overlapping_iter(view.bytes.as_slice());
        let span = |begin, end, needle: usize| {
            let (begin, end) = view.place(begin, end);
            (begin, end, self.of[needle])
        };
        matches.map(|it| span(it.start(), it.end(), it.pattern().as_usize())).collect()
    }

    /// The beginnings of secrets that the text ends with. What is left of an escape after them goes too.
    fn begun(&self, view: &View, text_bytes: usize) -> Vec<Span> {
        let bytes = view.bytes.as_slice();
        let begun = |(needle, of): (&String, &usize)| {
            let longest = needle.len().min(bytes.len() + 1) - 1;
            let length = (MASKED_BYTES_MIN..=longest).rev().find(|&it| bytes.ends_with(&needle.as_bytes()[..it]))?;
            // A secret begins with a whole character, so that the text is cut before one.
            Some((view.place(bytes.len() - length, bytes.len()).0, text_bytes, *of))
        };
        self.needles.iter().zip(&self.of).filter_map(begun).collect()
    }

    /// The text with a mask in the place of these; one for those that overlap, which names all of their secrets.
    fn masked<'a>(&self, text: &'a str, mut spans: Vec<Span>) -> Cow<'a, str> {
        if spans.is_empty() {
            return Cow::Borrowed(text);
        }
        spans.sort_unstable_by_key(|&(begin, end, _)| (begin, std::cmp::Reverse(end)));
        let mut masked = String::with_capacity(text.len());
        let mut copied = 0;
        let mut spans = spans.into_iter().peekable();
        while let Some((begin, mut end, key)) = spans.next() {
            let mut keys = vec![key];
            while let Some((_, next_end, next)) = spans.next_if(|it| it.0 < end) {
                // What lies within another one is a part of that.
                if next_end > end {
                    end = next_end;
                    if !keys.contains(&next) {
                        keys.push(next);
                    }
                }
            }
            masked.push_str(&text[copied..begin]);
            keys.iter().for_each(|&key| masked.extend(["[secret ", &self.keys[key], "]"]));
            copied = end;
        }
        masked.push_str(&text[copied..]);
        Cow::Owned(masked)
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

#[cfg(test)]
mod tests;
