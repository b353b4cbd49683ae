//! `.env` files: parsing what people write, and writing lines that parse back to the same value.
//!
//! A line is `KEY=value`, optionally after `export `. Blank lines and lines that begin with `#` are ignored. A value
//! without quotes ends at a ` #` or at the end of the line, and is trimmed. `'…'` is taken literally; in `"…"`, `
//! `, `\r`, `\t`, `\"`, `\\` and `\$` are escapes. Both may span several lines. Variables are never expanded: `$X`
//! stays `$X`.

use super::{SecretText, variable::is_formed};

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct DotenvError {
    /// Line number, from 1.
    pub line: usize,
    /// Description of the fault. The line itself is not shown because it may hold a secret.
    pub what: &'static str,
}

const NO_NAME: &str =
    "the text before the = is not a name of A-Z, a-z, 0-9 and _; put a value of several lines in quotes";

/// Longest malformed name that an error may show, in bytes.
const SHOWN_BYTES_MAX: usize = 32;

/// Markers around a key, a certificate or similar.
const PEM: (&str, &str) = ("-----BEGIN ", "-----END ");

/// Parses a file into keys, line numbers and values. Keys are not validated, but are safe to show.
pub fn parse(text: &str) -> Result<Vec<(String, usize, SecretText)>, DotenvError> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (this, _) = split_line(rest);
        let trimmed = this.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = split_line(rest).1;
            line += 1;
            continue;
        }
        let error = |what| DotenvError { line, what };
        let (head, _) = this.split_once('=').ok_or_else(|| error("expected KEY=value"))?;
        let value_begins = &rest[head.len() + 1..];
        let key = head.trim();
        let key = match key.strip_prefix("export") {
            Some(after) if after.starts_with([' ', '\t']) => after.trim_start(),
            _ => key,
        };
        if key.is_empty() {
            return Err(error("expected a name before the ="));
        }
        // The text may be a line of a value that should have been quoted, so it is not shown as a name.
        if !is_formed(key) && !may_be_shown(key) {
            return Err(error(NO_NAME));
        }
        let (value, after) = value(value_begins).map_err(error)?;
        found.push((key.to_owned(), line, value));
        line += rest[..rest.len() - after.len()].matches('\n').count();
        rest = after;
    }
    Ok(found)
}

/// Whether a malformed key looks like a misspelt name rather than part of a value.
fn may_be_shown(key: &str) -> bool {
    key.len() <= SHOWN_BYTES_MAX && key.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-.".contains(&it))
}

/// Splits a text into its first line and the rest.
fn split_line(text: &str) -> (&str, &str) {
    match text.split_once('\n') {
        Some((line, rest)) => (line.strip_suffix('\r').unwrap_or(line), rest),
        None => (text, ""),
    }
}

/// Returns the value that begins here, and the text after its line.
fn value(text: &str) -> Result<(SecretText, &str), &'static str> {
    let begin = text.trim_start_matches([' ', '\t']);
    let quote = begin.chars().next().filter(|it| matches!(it, '\'' | '"'));
    let Some(quote) = quote else {
        let (line, rest) = split_line(text);
        let end = comment(line).unwrap_or(line.len());
        if line.starts_with(PEM.0) && !line.contains(PEM.1) {
            return Err("put a value of several lines in quotes");
        }
        return Ok((line[..end].trim().into(), rest));
    };
    let mut value = String::new();
    let mut characters = begin.char_indices().skip(1);
    while let Some((index, character)) = characters.next() {
        match character {
            it if it == quote => {
                let (line, rest) = split_line(&begin[index + 1..]);
                let line = line.trim_start();
                return match line.is_empty() || line.starts_with('#') {
                    true => Ok((value.into(), rest)),
                    false => Err("something follows the closing quote"),
                };
            }
            '\\' if quote == '"' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, it @ ('"' | '\\' | '$' | '\''))) => value.push(it),
                // Unknown escapes are kept as written.
                Some((_, it)) => value.extend(['\\', it]),
                None => break,
            },
            it => value.push(it),
        }
    }
    Err("a quote is not closed")
}

/// Start of a comment after a value without quotes.
fn comment(line: &str) -> Option<usize> {
    let bytes = line.as_bytes();
    (0..bytes.len()).find(|&at| bytes[at] == b'#' && (at == 0 || matches!(bytes[at - 1], b' ' | b'\t')))
}

/// Writes one assignment, over several lines for a value with line breaks.
#[must_use]
pub fn line(key: &str, value: &str) -> String {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "_-./:@%+,=".contains(it);
    if value.chars().all(is_plain) {
        return format!("{key}={value}\n");
    }
    let mut quoted = String::with_capacity(value.len() + 8);
    for character in value.chars() {
        match character {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            it @ ('"' | '\\' | '$') => quoted.extend(['\\', it]),
            it => quoted.push(it),
        }
    }
    format!("{key}=\"{quoted}\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, usize, String)> {
        let parsed = parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        parsed.into_iter().map(|(key, line, value)| (key, line, value.expose().to_owned())).collect()
    }

    #[test]
    fn files_are_read_as_people_write_them() {
        let text = "\u{feff}# a comment\r\n\
            \n\
            A=1\n\
            export B = two words  # not this\n\
            C='single # ${A} \\n'   # nor this\n\
            D=\"a\\nb\\t\\\"c\\\" \\$A \\d\"\n\
            E=\n\
            F=a#b=c\n\
            KEY=\"-----BEGIN-----\n\
            line two\n\
            -----END-----\"\n\
            exportX=1\n\
            \t G='x\ny'\n\
            LAST=end";
        let expected = [
            ("A", 3, "1"),
            ("B", 4, "two words"),
            ("C", 5, "single # ${A} \\n"),
            ("D", 6, "a\nb\t\"c\" $A \\d"),
            ("E", 7, ""),
            ("F", 8, "a#b=c"),
            ("KEY", 9, "-----BEGIN-----\nline two\n-----END-----"),
            ("exportX", 12, "1"),
            ("G", 13, "x\ny"),
            ("LAST", 15, "end"),
        ];
        let expected = expected.map(|(key, line, value)| (key.to_owned(), line, value.to_owned()));
        assert_eq!(read(text), expected);
    }

    #[test]
    fn what_cannot_be_read_names_its_line_and_shows_nothing_of_it() {
        for (text, line, what) in [
            ("A=1\nhunter22", 2, "expected KEY=value"),
            ("=hunter22", 1, "expected a name before the ="),
            ("\n\nA=\"hunter22", 3, "a quote is not closed"),
            ("A='x' hunter22", 1, "something follows the closing quote"),
            ("A=\"x\\", 1, "a quote is not closed"),
            ("A=-----BEGIN KEY-----\nMIIEvQIBADANBg=\n", 1, "put a value of several lines in quotes"),
            ("A=1\nMIIE/QIBADANBg==\n", 2, NO_NAME),
            ("A B=hunter22", 1, NO_NAME),
            ("9IIEvQIBADANBg9IIEvQIBADANBg9IIEvQ==\n", 1, NO_NAME),
        ] {
            assert_eq!(parse(text), Err(DotenvError { line, what }), "{text}");
        }
        assert_eq!(read("9A=1\nA-B=1\n").len(), 2, "misspelt names are left to the caller");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(values in prop::collection::vec("(?s).{0,40}", 0..6)) {
            let keys: Vec<String> = (0..values.len()).map(|it| format!("K{it}")).collect();
            let text: String = keys.iter().zip(&values).map(|(key, value)| line(key, value)).collect();
            let back: Vec<(String, String)> = read(&text).into_iter().map(|(key, _, value)| (key, value)).collect();
            prop_assert_eq!(back, keys.into_iter().zip(values).collect::<Vec<_>>());
        }

        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,200}") {
            let _ = parse(&text);
        }
    }
}
