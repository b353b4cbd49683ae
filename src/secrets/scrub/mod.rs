//! Masks a worker's secrets in its output.
//!
//! [`forms`] lists the search patterns of a value: the value without surrounding blanks, each of its lines, the
//! password of a URL in it, and the value and the password as base64 (in any alignment, in the plain and URL alphabets,
//! without the characters at both ends that depend on the neighbours). [`view`] lists the texts that are searched: the
//! text itself, and the text with its escapes decoded (`%2F`, `+` in a form, `\"` and `\u00fc`; also one within the
//! other). Overlapping secrets are masked together.
//!
//! Some output is not masked: a value that the function has cut, encrypted, spelled differently, or joined with other
//! text before encoding it in a form not listed above; parts of a value that were written over two lines, except whole
//! lines; and a value shorter than [`MASKED_BYTES_MIN`], which would match almost anywhere.

mod forms;
mod view;

pub use forms::MASKED_BYTES_MIN;

use crate::model::{SecretText, VariableKey};
use aho_corasick::AhoCorasick;
use std::borrow::Cow;
use view::View;
use zeroize::Zeroizing;

/// Marker at the end of a message that the shim has cut: `… [cut, 12345 bytes]`.
const CUT_MARKER: &str = "… [cut, ";

/// Finds and masks the values of some secrets in text.
pub struct Scrubber {
    search: AhoCorasick,
    /// Search patterns. `of` has, for each of them, the index of its secret in `keys`.
    needles: Zeroizing<Vec<String>>,
    of: Vec<usize>,
    keys: Vec<String>,
}

/// A range to mask: its begin, its end, and the index of the secret.
type Span = (usize, usize, usize);

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrubber").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Scrubber {
    /// Builds a scrubber for these secrets; returns `None` if there is nothing to search for.
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
        // Fails only above two thousand million states; then nothing may be written at all.
        let search = AhoCorasick::new(needles.iter()).ok()?;
        Some(Self { search, needles, of, keys })
    }

    /// Returns the text with its secrets masked.
    #[must_use]
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !view::has_escapes(text) && !self.search.is_match(text) {
            return Cow::Borrowed(text);
        }
        let spans = view::all(text).iter().flat_map(|view| self.found(view)).collect();
        self.masked(text, spans)
    }

    /// Masks secrets in a text whose end may have been cut in the middle of a secret.
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

    /// Finds prefixes of secrets at the end of the text. The range includes the rest of a cut escape after them.
    fn begun(&self, view: &View, text_bytes: usize) -> Vec<Span> {
        let bytes = view.bytes.as_slice();
        let begun = |(needle, of): (&String, &usize)| {
            let longest = needle.len().min(bytes.len() + 1) - 1;
            let length = (MASKED_BYTES_MIN..=longest).rev().find(|&it| bytes.ends_with(&needle.as_bytes()[..it]))?;
            // A secret begins with a whole character, so the range begins at a character boundary.
            Some((view.place(bytes.len() - length, bytes.len()).0, text_bytes, *of))
        };
        self.needles.iter().zip(&self.of).filter_map(begun).collect()
    }

    /// Replaces these ranges by masks. Overlapping ranges are replaced together, with a mask for each of their secrets.
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
                // A range within another one needs no mask of its own.
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

    /// Masks secrets in a line that may have been cut: it has at least `bytes_max` bytes, or ends with the shim's
    /// marker.
    #[must_use]
    pub fn scrub_line(&self, line: &str, bytes_max: usize) -> String {
        match line.rfind(CUT_MARKER) {
            Some(end) if line.ends_with(" bytes]") => self.scrub_cut(&line[..end]) + &line[end..],
            // A character that was cut was decoded as a replacement character.
            _ if line.len() >= bytes_max => self.scrub_cut(line.trim_end_matches(char::REPLACEMENT_CHARACTER)),
            _ => self.scrub(line).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
