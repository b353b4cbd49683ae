//! Values as people read them. The functions are pure: the present time is an argument.

use crate::model::Timestamp;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Milliseconds with three digits that matter: `421 µs`, `1.42 ms`, `12.3 ms`, `1.20 s`, `2m 05s`, `3h 20m`, `4d 6h`.
pub(super) fn duration_ms(ms: f64) -> String {
    // Whole seconds, for a minute and more. The cast saturates, which is right for nonsense.
    let seconds = (ms / 1000.0).round() as u64;
    match ms {
        _ if ms < 0.9995 => format!("{:.0} µs", ms * 1000.0),
        _ if ms < 9.995 => format!("{ms:.2} ms"),
        _ if ms < 99.95 => format!("{ms:.1} ms"),
        _ if ms < 999.5 => format!("{ms:.0} ms"),
        _ if ms < 9_995.0 => format!("{:.2} s", ms / 1000.0),
        _ if seconds < 60 => format!("{:.1} s", ms / 1000.0),
        _ if seconds < 3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Bytes in binary units: `812 B`, `1.2 KiB`, `34 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" || value >= 9.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// Age of a moment: `now`, `12s ago`, `5m ago`, `3h ago`, `2d ago`.
pub(super) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_millis().saturating_sub(then.as_millis()) / 1000;
    match seconds {
        ..=0 => "now".into(),
        1..=59 => format!("{seconds}s ago"),
        60..=3_599 => format!("{}m ago", seconds / 60),
        3_600..=86_399 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// Time until a moment, `never` without one.
pub(super) fn left(at: Option<Timestamp>, now: Timestamp) -> String {
    let left = at.map(|at| at.as_millis().saturating_sub(now.as_millis()).max(0));
    left.map_or_else(|| "never".into(), |left| duration_ms(left as f64))
}

/// The end of an id, which is its random part: enough to tell invocations apart on a screen.
pub(super) fn short_id(id: &str) -> &str {
    id.len().checked_sub(8).and_then(|at| id.get(at..)).unwrap_or(id)
}

/// A name of the wire in words: `auto rollback`.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// `1 alias`, `2 aliases`.
pub(super) fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Joins names, and counts those beyond the first ten.
pub(super) fn names(names: &[String]) -> String {
    const SHOWN_MAX: usize = 10;
    match names.len().saturating_sub(SHOWN_MAX) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..SHOWN_MAX].join(", ")),
    }
}

/// Value of a function's setting.
pub(super) fn setting(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

/// Returns the text, or `-` if it is missing or empty.
pub(super) fn or_dash(value: Option<impl fmt::Display>) -> String {
    value.map(|it| it.to_string()).filter(|it| !it.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// Whether a character is not shown as itself: a control character, or one that changes how the text around it is
/// shown.
///
/// Characters of the second kind have no width: they turn the direction of the text that follows (Unicode Standard
/// Annex 9), end a line, or hide in a text. The joiners of emoji and some scripts are not among them.
fn is_hidden(it: char) -> bool {
    it.is_control()
        || matches!(it,
            '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Escapes hidden characters in a function's text, except tabs and line ends: the text must neither steer the reader's
/// terminal nor look like something else there.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    written_out(text, |_| false)
}

/// Escapes hidden characters in text that this program has composed, as the last step before it is printed; styles
/// stay.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    written_out(text, is_style)
}

/// Whether a text begins with a sequence that sets a style: `ESC [`, numbers, `m`.
fn is_style(text: &str) -> bool {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return false };
    parameters.trim_start_matches(|it: char| it.is_ascii_digit() || it == ';').starts_with('m')
}

/// Escapes hidden characters, except those for which `is_kept` accepts the text that begins with them.
fn written_out(text: &str, is_kept: impl Fn(&str) -> bool) -> Cow<'_, str> {
    let is_harmful = |it: char| is_hidden(it) && !matches!(it, '\n' | '\t');
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len() + 16);
    for (at, character) in text.char_indices() {
        if is_harmful(character) && !is_kept(&text[at..]) {
            let _ = write!(harmless, "{}", character.escape_default());
        } else {
            harmless.push(character);
        }
    }
    Cow::Owned(harmless)
}

/// Writes hidden characters of JSON as `\\uXXXX`, which means the same: JSON has them only in its strings.
pub(super) fn printable_json(json: String) -> String {
    if !json.contains(is_hidden) {
        return json;
    }
    let mut printable = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(printable, "\\u{unit:04x}");
            }
        } else {
            printable.push(character);
        }
    }
    printable
}

/// Facts that the message of a failure contains in other words, or that only programs need.
const FACTS_NOT_SHOWN: [&str; 6] = ["name", "message", "kind", "function", "alias", "environment"];

/// Formats the facts about a failure: the stack first and alone, values of several lines under their name, short ones
/// beside it. Nested values are for programs and left out. Lines that repeat the message or the stack are left out too.
pub(super) fn details(details: &Value, message: &str) -> String {
    let Some(facts) = details.as_object() else { return details.to_string() };
    let stack = facts.get("stack").and_then(Value::as_str).unwrap_or_default().trim_end();
    let is_said = |line: &str| !line.trim().is_empty() && message.contains(line.trim());
    // The message has the place already.
    let place = |name: &str| facts.get(name).map(ToString::to_string).unwrap_or_default();
    let has_place = message.contains(&format!(":{}:{}", place("line"), place("column")));
    let is_repeated = |name: &str, value: &str| {
        has_place && matches!(name, "file" | "line" | "column") || value.len() > 2 && message.contains(value)
    };
    let mut lines: Vec<String> = stack.lines().skip_while(|line| is_said(line)).map(str::to_owned).collect();
    for (name, value) in facts.iter().filter(|(name, _)| *name != "stack" && !FACTS_NOT_SHOWN.contains(&name.as_str()))
    {
        let value = match value {
            Value::String(value) => value.trim_end().to_owned(),
            Value::Array(items) => {
                let items = items.iter().filter_map(Value::as_str);
                match name.ends_with("log") {
                    true => {
                        items.filter(|it| !is_said(it) && !stack.contains(it.trim())).collect::<Vec<_>>().join("\n")
                    }
                    false => items.collect::<Vec<_>>().join(", "),
                }
            }
            Value::Null | Value::Object(_) => continue,
            scalar => scalar.to_string(),
        };
        match value.as_str() {
            "" => {}
            value if is_repeated(name, value) => {}
            value if value.contains('\n') => lines.push(format!("{name}:\n  {}", value.replace('\n', "\n  "))),
            value => lines.push(format!("{name}: {value}")),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_three_digits_and_roll_over_cleanly() {
        let cases = [
            (0.0, "0 µs"),
            (0.4213, "421 µs"),
            (0.9996, "1.00 ms"),
            (9.996, "10.0 ms"),
            (123.4, "123 ms"),
            (999.6, "1.00 s"),
            (12_340.0, "12.3 s"),
            (59_600.0, "1m 00s"),
            (125_000.0, "2m 05s"),
            (12_000_000.0, "3h 20m"),
            (367_200_000.0, "4d 6h"),
        ];
        for (ms, expected) in cases {
            assert_eq!(duration_ms(ms), expected, "{ms}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        for (bytes, expected) in
            [(0, "0 B"), (812, "812 B"), (1024, "1.0 KiB"), (35_651_584, "34 MiB"), (u64::MAX, "16777216 TiB")]
        {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn ages_are_in_the_largest_whole_unit() {
        let at = Timestamp::from_millis;
        let ages = [0, 12_000, 300_000, 7_200_000, 200_000_000].map(|ms| age(at(0), at(ms)));
        assert_eq!(ages, ["now", "12s ago", "5m ago", "2h ago", "2d ago"]);
        assert_eq!(age(at(5_000), at(0)), "now", "clocks may differ");
    }

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        assert_eq!(harmless("plain\n\ttext ü"), "plain\n\ttext ü");
        assert_eq!(harmless("\u{1b}[2Jgone\r"), "\\u{1b}[2Jgone\\r");
        assert_eq!(harmless("\u{9b}2J\u{7f}"), "\\u{9b}2J\\u{7f}");
    }

    #[test]
    fn what_turns_or_hides_text_is_shown_too() {
        assert_eq!(harmless("gpj.\u{202e}exe\u{2066}a\u{2069}"), "gpj.\\u{202e}exe\\u{2066}a\\u{2069}");
        for hidden in
            "\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202c}\u{2060}\u{2067}\u{feff}\u{e0041}".chars()
        {
            assert_eq!(harmless(&format!("a{hidden}b")), format!("a{}b", hidden.escape_unicode()));
        }
        for shown in ["שלום", "مرحبا", "👩\u{200d}💻", "می\u{200c}خواهم", "naïve", "日本"] {
            assert_eq!(harmless(shown), shown);
        }
    }

    #[test]
    fn styles_of_this_program_stay_and_all_else_is_written_out() {
        assert_eq!(printable("\u{1b}[1mname\u{202e}\u{1b}[0m\n"), "\u{1b}[1mname\\u{202e}\u{1b}[0m\n");
        assert_eq!(printable("\u{1b}[38;5;9mred\u{1b}[2J\r"), "\u{1b}[38;5;9mred\\u{1b}[2J\\r");
    }

    #[test]
    fn json_means_the_same_with_its_hidden_characters_written_out() {
        let value = serde_json::json!({ "a\u{202e}": "b\u{7f}\u{9b}\u{e0041}\n\"ü" });
        let json = printable_json(value.to_string());
        assert!(json.is_ascii() || !json.contains(is_hidden), "{json}");
        assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON"), value);
    }

    #[test]
    fn details_show_the_stack_as_it_is_and_other_facts_by_name() {
        let facts = serde_json::json!({"names": ["a", "b"], "exit": 1, "last_words": "a\nb", "stack": "Error: x\n  at y", "none": null, "empty": "", "tree": {}});
        assert_eq!(details(&facts, "no"), "Error: x\n  at y\nexit: 1\nlast_words:\n  a\n  b\nnames: a, b");
    }

    #[test]
    fn details_do_not_repeat_the_message() {
        let log = ["first", "Error: at import", "  at syn.ts:1:7"];
        let facts = serde_json::json!({
            "kind": "throw", "name": "Error", "message": "at import", "stack": "Error: at import\n  at syn.ts:1:7",
            "boot_log": log, "file": "/bundle/syn.ts", "line": 1, "column": 7, "exit": 1,
        });
        let message = "the bundle cannot be loaded: Error: at import (syn.ts:1:7)";
        assert_eq!(details(&facts, message), "  at syn.ts:1:7\nboot_log: first\nexit: 1");
    }

    #[test]
    fn a_short_id_is_its_end() {
        assert_eq!(short_id("exec-0190c1d2-aaaa-7bbb-8ccc-0123456789ab"), "456789ab");
        assert_eq!(short_id("x"), "x");
    }

    #[test]
    fn names_end_after_ten() {
        let all: Vec<_> = (1..=12).map(|it| format!("N{it}")).collect();
        assert_eq!(names(&all[..2]), "N1, N2");
        assert_eq!(names(&all[..10]).matches("N").count(), 10);
        assert!(names(&all).ends_with("N9, N10 and 2 more"), "{}", names(&all));
    }
}
