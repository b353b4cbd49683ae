//! Keeps the tables of the documentation equal to those of the code.

use crate::{commands::SCOPES, error::ErrorCode, protocol::ipc::COMMANDS};
use std::{env, fs, path::Path};

/// Compares the tables of a document, between `<!-- name -->` and `<!-- /name -->`, with those of the code. With
/// `LEVAIN_WRITE_REFERENCE` set, it writes them instead.
pub(crate) fn keep(document: &str, tables: &[(&str, &str)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = fs::read_to_string(&path).expect("the document is there");
    let wanted = tables.iter().fold(text.clone(), |text, (name, table)| replace(&text, name, table));
    if env::var_os("LEVAIN_WRITE_REFERENCE").is_some() {
        fs::write(&path, wanted).expect("the document can be written");
    } else {
        assert_eq!(text, wanted, "run this test with LEVAIN_WRITE_REFERENCE=1 to update the tables");
    }
}

fn replace(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = text.find(&begin).expect("the marker is there") + begin.len();
    let stop = text.find(&end).expect("the marker is there");
    format!("{}{table}{}", &text[..start], &text[stop..])
}

#[test]
fn the_tables_of_the_protocol_are_those_of_the_code() {
    let mut commands = String::from("| byte | command | does | scope over HTTP |\n|---|---|---|---|\n");
    for row in COMMANDS {
        let found = SCOPES.iter().find(|(variant, ..)| *variant == row.variant);
        let (_, scope, other) = found.expect("every request has its scope, else it would not compile");
        let scope = other.map_or_else(|| scope.name().into(), |it| format!("{} or {}", scope.name(), it.name()));
        commands += &format!("| `0x{:02X}` | `{}` | {} | {scope} |\n", row.byte, row.name, row.does);
    }
    let mut codes = String::from("| code | meaning | HTTP status | CLI exit code |\n|---|---|---|---|\n");
    for code in ErrorCode::ALL {
        codes += &format!("| `{code}` | {} | {} | {} |\n", code.meaning(), code.http_status(), code.exit_code());
    }
    keep("docs/protocol.md", &[("commands", &commands), ("codes", &codes)]);
}
