//! Tests of masking: the forms in which a secret is found, and text that stays unchanged.

use super::*;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use proptest::prelude::*;

/// Characters that `encodeURIComponent` does not escape.
const COMPONENT: &[u8] = b"-_.!~*'()";

/// Characters that `URLSearchParams` does not escape, and the blank, which it writes as `+`.
const FORM: &[u8] = b"*-._ ";

fn percent(text: &str, safe: &[u8], upper: bool) -> String {
    let encode = |byte: u8| match byte {
        it if it.is_ascii_alphanumeric() || safe.contains(&it) => char::from(it).to_string(),
        it if upper => format!("%{it:02X}"),
        it => format!("%{it:02x}"),
    };
    text.bytes().map(encode).collect()
}

fn form(text: &str) -> String {
    percent(text, FORM, true).replace(' ', "+")
}

fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("a text");
    quoted[1..quoted.len() - 1].to_owned()
}

fn scrubber_of(secrets: &[(&str, &str)]) -> Scrubber {
    let secrets: Vec<(VariableKey, SecretText)> =
        secrets.iter().map(|(key, value)| (key.parse().expect("a key"), SecretText::from(*value))).collect();
    Scrubber::new(secrets.iter().map(|(key, value)| (key, value))).expect("they are long enough")
}

fn scrubber(value: &str) -> Option<Scrubber> {
    let (key, value) = ("API_KEY".parse().expect("a key"), value.into());
    Scrubber::new([(&key, &value)])
}

#[test]
fn values_are_masked_however_they_are_usually_written() {
    let value = "s3cr/t? \"value\"+ü";
    let scrubber = scrubber(value).expect("it is long enough");
    let texts = [
        value.to_owned(),
        json(value),
        json(&json(value)),
        percent(value, COMPONENT, true),
        percent(value, COMPONENT, false),
        percent(&percent(value, COMPONENT, true), COMPONENT, true),
        percent(&json(value), COMPONENT, true),
        // Some encoders escape every special character.
        percent(value, b"", true),
        form(value),
        value.replace('/', "\\/").replace('ü', "\\u00fc"),
        STANDARD.encode(value),
        STANDARD.encode(json(value)),
        URL_SAFE.encode(value),
    ];
    for text in texts {
        let scrubbed = scrubber.scrub(&text).into_owned();
        assert!(scrubbed.contains("[secret API_KEY]"), "{text}: {scrubbed}");
        assert!(!scrubbed.contains("value") && !scrubbed.contains("dmFs"), "{text}: {scrubbed}");
    }
    let basic = STANDARD.encode(format!("user:{value}"));
    assert!(scrubber.scrub(&basic).contains("[secret API_KEY]"), "{basic}");
    assert_eq!(scrubber.scrub("nothing in it"), "nothing in it");
    assert_eq!(scrubber.scrub(&format!("a {value} b {value} c")), "a [secret API_KEY] b [secret API_KEY] c");
}

#[test]
fn forms_and_what_inspects_values_escape_in_their_own_way() {
    let scrubber = scrubber("correct horse! battery~(staple)").expect("it is long enough");
    assert_eq!(scrubber.scrub("k=correct+horse%21+battery%7E%28staple%29&n=1"), "k=[secret API_KEY]&n=1");
    let scrubber = scrubber_of(&[("K", "it's \"odd\" \\ here")]);
    for text in [r#"{ k: "it's \"odd\" \\ here" }"#, r#"{ k: 'it\'s "odd" \\ here' }"#, r#"`it's "odd" \\ here`"#] {
        let scrubbed = scrubber.scrub(text);
        assert!(scrubbed.contains("[secret K]") && !scrubbed.contains("odd"), "{text}: {scrubbed}");
    }
}

#[test]
fn secrets_that_overlap_are_masked_together() {
    let scrubber = scrubber_of(&[("S2", "abcdWXYZ"), ("S3", "WXYZ12345678"), ("S4", "cdWX"), ("S5", "5678")]);
    assert_eq!(scrubber.scrub("a abcdWXYZ12345678 b"), "a [secret S2][secret S3] b");
    assert_eq!(scrubber.scrub("cdWX 5678abcdWXYZ"), "[secret S4] [secret S5][secret S2]");
    assert_eq!(scrubber.scrub_cut("abcdWXYZ1234"), "[secret S2][secret S3]");
    let scrubber = scrubber_of(&[("K", "ababab")]);
    assert_eq!(scrubber.scrub("ababababab-ababab"), "[secret K]-[secret K]");
}

#[test]
fn what_is_around_a_value_and_what_is_in_it_is_no_way_past() {
    for value in ["hunt3\n", " hunt3 \r\n", "hunt3"] {
        let scrubber = scrubber(value).expect("it is long enough");
        assert_eq!(scrubber.scrub("it is hunt3."), "it is [secret API_KEY].", "{value:?}");
        assert!(scrubber.scrub(&STANDARD.encode("x:hunt3")).contains("[secret API_KEY]"), "{value:?}");
    }
    let scrubber = scrubber("user77\npass88\nhost99\nab").expect("it is long enough");
    assert_eq!(scrubber.scrub("user77\npass88\nhost99\nab"), "[secret API_KEY]");
    assert_eq!(scrubber.scrub("{ k: 'user77\\npass88\\nhost99\\nab' }"), "{ k: '[secret API_KEY]' }");
    assert_eq!(scrubber.scrub("  pass88"), "  [secret API_KEY]");
}

#[test]
fn the_password_of_a_connection_string_is_masked_by_itself() {
    let scrubber = scrubber_of(&[("DB", "postgres://app:s3cretPassw0rd@db:5432/shop?x=a:b@c")]);
    assert_eq!(scrubber.scrub("password s3cretPassw0rd of app"), "password [secret DB] of app");
    assert!(scrubber.scrub(&STANDARD.encode("app:s3cretPassw0rd")).contains("[secret DB]"));
    let scrubber = scrubber_of(&[("DB", "mongodb+srv://app:p%40ss%2Fw0rd@a,b/x")]);
    assert_eq!(scrubber.scrub("p@ss/w0rd p%40ss%2Fw0rd p%40ss/w0rd"), "[secret DB] [secret DB] [secret DB]");
    for text in ["redis://app:short@db", "https://example.com/a:longenough@b", "https://name@example.com"] {
        let scrubber = scrubber_of(&[("DB", text)]);
        for part in ["app", "short", "longenough", "name", "example.com"] {
            assert_eq!(scrubber.scrub(part), part, "{text}");
        }
    }
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
    let scrubber = scrubber_of(&[("K", "a/b/c/d/e/f")]);
    for cut in ["k=a%2Fb%2Fc", "k=a%2Fb%2Fc%", "k=a%2Fb%2Fc%2", r"k=a\/b\/c\", r"k=a\u002fb\u002fc\u00"] {
        assert_eq!(scrubber.scrub_cut(cut), "k=[secret K]", "{cut}");
    }
}

proptest! {
    #[test]
    fn no_value_is_left(value in "[a-zA-Z0-9+/=% ]{4,30}", before in ".{0,20}", after in ".{0,20}", n in 0usize..5) {
        // An escape that has begun right before an encoded value takes the value's first characters for its own.
        prop_assume!(!matches!(n, 1 | 2) || !before.contains(['%', '\\']));
        let scrubber = scrubber(&value).expect("it is long enough");
        let text = match n {
            0 => format!("{before}{value}{after}"),
            1 => format!("{before}{}{after}", percent(&value, COMPONENT, true)),
            2 => format!("{before}{}{after}", form(&value)),
            3 => STANDARD.encode(format!("{before}{value}{after}")),
            _ => URL_SAFE.encode(format!("{before}{value}{after}")),
        };
        // The shortest values have too few base64 characters of their own to be recognised.
        if n < 3 || value.trim().len() >= 6 {
            prop_assert!(scrubber.scrub(&text).contains("[secret API_KEY]"), "{}", text);
        }
        let _ = scrubber.scrub_cut(&text);
    }
}
