//! Search patterns of a secret's value.

use super::view::percent_decoded;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use zeroize::Zeroizing;

/// Shortest value that is masked, in bytes.
pub const MASKED_BYTES_MIN: usize = 4;

/// Shortest line of a multi-line value that is masked by itself, in bytes. Shorter lines are mostly brackets and common
/// words.
const LINE_BYTES_MIN: usize = 6;

/// Shortest password of a URL that is masked by itself, in bytes. Shorter ones are often common words, such as the
/// user's name.
const PASSWORD_BYTES_MIN: usize = 8;

/// Returns the patterns: the value, its lines, the passwords of URLs in it, and all of these except the lines as
/// base64.
pub(super) fn forms(value: &str) -> Zeroizing<Vec<String>> {
    let mut forms = Zeroizing::new(Vec::new());
    // Blanks and line ends around a value mostly come from the file that held it.
    let trimmed = value.trim();
    let whole = if trimmed.len() >= MASKED_BYTES_MIN { trimmed } else { value };
    if whole.len() < MASKED_BYTES_MIN {
        return forms;
    }
    let passwords = passwords(whole);
    for text in std::iter::once(whole).chain(passwords.iter().map(String::as_str)) {
        forms.push(text.to_owned());
        forms.extend(base64(text.as_bytes()));
        let quoted = Zeroizing::new(serde_json::to_string(text).unwrap_or_default());
        if quoted.len() > text.len() + 2 {
            forms.extend(base64(&quoted.as_bytes()[1..quoted.len() - 1]));
        }
    }
    let lines = whole.lines().map(str::trim).filter(|it| it.len() >= LINE_BYTES_MIN);
    forms.extend(lines.map(str::to_owned));
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// Finds the passwords of connection strings, `scheme://user:password@host`, as written and percent-decoded.
fn passwords(value: &str) -> Zeroizing<Vec<String>> {
    let mut found = Zeroizing::new(Vec::new());
    for (at, separator) in value.match_indices("://") {
        let rest = &value[at + separator.len()..];
        let ends = |it: char| it.is_whitespace() || matches!(it, '/' | '?' | '#' | '"' | '\'');
        let authority = rest.find(ends).map_or(rest, |end| &rest[..end]);
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        let Some((_, password)) = user.and_then(|it| it.split_once(':')) else { continue };
        for text in [Some(password.to_owned()), percent_decoded(password)].into_iter().flatten() {
            if text.len() >= PASSWORD_BYTES_MIN {
                found.push(text);
            }
        }
    }
    found
}

/// Returns the base64 characters that a value produces at any position in encoded text: three alignments, two
/// alphabets.
fn base64(value: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for shift in 0..3 {
        let mut bytes = Zeroizing::new(vec![0; shift]);
        bytes.extend_from_slice(value);
        // The first characters and the last one depend on the neighbouring bytes.
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
