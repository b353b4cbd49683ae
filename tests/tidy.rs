//! Rules that the compiler cannot check: the direction of imports, the length of files, how comments begin, a test file
//! for each command.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Reading order from the ground up. A module may use itself and anything on a lower layer.
const LAYERS: &[&[&str]] = &[
    &["model", "error", "crash_point", "file_id"],
    &["config"],
    &["protocol", "socket", "lanes", "sqlite", "logging", "secrets"],
    &["store", "bundle", "telemetry", "client"],
    &["worker"],
    &["router", "scheduler", "deploy", "backup"],
    &["commands"],
    &["ipc", "http", "watch"],
    &["daemon"],
    &["cli"],
];

/// Limit of a source file's lines before its tests.
const LINES_MAX: usize = 400;

/// Files of `src/commands/` without a command.
const NO_COMMANDS: [&str; 21] = [
    "mod",
    "activate",
    "admin_token",
    "answer",
    "auth",
    "call",
    "caller",
    "context",
    "dispatch",
    "explain",
    "failures",
    "floors",
    "load",
    "locks",
    "page",
    "publish",
    "room",
    "running",
    "scopes",
    "share",
    "wanted",
];

/// First words that make a comment a riddle: its subject comes late or never.
const RIDDLES: [&str; 10] =
    ["What", "Who", "Whoever", "Whatever", "Whose", "Those", "The same", "It", "None", "Nobody"];

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty());
    files
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|it| it.as_os_str().to_string_lossy().trim_end_matches(".rs").ends_with("tests"))
}

/// Names of the crate's modules that a line of code uses: `crate::a::…` and each name in `crate::{a::…, b}`.
fn imports(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => names.push(identifier(rest)),
            Some(group) => {
                let mut depth = 1;
                let mut at_name = true;
                for (index, character) in group.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => at_name = true,
                        it if at_name && depth == 1 && it.is_alphabetic() => {
                            names.push(identifier(&group[index..]));
                            at_name = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect()
}

/// The code of a file without comments and without the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn modules_use_only_what_is_below_them() {
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let mut errors = Vec::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in rust_files("src").iter().filter(|path| !is_test_file(path)) {
        let relative = path.strip_prefix(&source).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(own) = layer(&module) else {
            errors.push(format!("{}: the module `{module}` is on no layer", relative.display()));
            continue;
        };
        for target in imports(&code(path)) {
            if target != module && layer(&target).is_none_or(|it| it >= own) {
                errors.push(format!("{}: `{module}` uses `{target}`", relative.display()));
            }
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn the_check_of_imports_sees_nested_groups() {
    let code = "use crate::{\n    a::{b, c::d},\n    e,\n};\nuse crate::f::g; let x = crate::h::i();";
    assert_eq!(imports(code), ["a", "e", "f", "h"]);
}

#[test]
fn comments_begin_with_their_subject() {
    let mut riddles = Vec::new();
    for path in ["src", "tests", "benches"].iter().flat_map(|folder| rust_files(folder)) {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<Option<&str>> = text.lines().map(comment).collect();
        for (number, line) in lines.iter().enumerate() {
            let begins = number == 0 || lines[number - 1].is_none();
            if begins && line.is_some_and(is_riddle) {
                riddles.push(format!("{}:{}: {}", path.display(), number + 1, line.unwrap()));
            }
        }
    }
    assert!(riddles.is_empty(), "begin these comments with their subject:\n{}", riddles.join("\n"));
}

/// The text of a line that is a comment.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start().strip_prefix("//")?;
    Some(line.trim_start_matches(['/', '!']).trim_start())
}

fn is_riddle(text: &str) -> bool {
    let is_word = |rest: &str| rest.starts_with(|it: char| it.is_whitespace() || ",.:".contains(it));
    RIDDLES.iter().any(|word| text.strip_prefix(word).is_some_and(is_word))
}

#[test]
fn the_check_of_comments_knows_a_riddle() {
    for riddle in ["/// What of it is compiled.", "//! Whoever comes late.", "// The same, in memory."] {
        assert!(comment(riddle).is_some_and(is_riddle), "{riddle}");
    }
    for plain in ["/// Whether a worker is busy.", "// Items of the list.", "let it = \"// What\";"] {
        assert!(!comment(plain).is_some_and(is_riddle), "{plain}");
    }
}

#[test]
fn source_files_stay_short() {
    let files = rust_files("src");
    let lines = |path: &PathBuf| code(path).lines().count();
    let long: Vec<_> = files.iter().filter(|path| !is_test_file(path) && lines(path) > LINES_MAX).collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:?}");
}

#[test]
fn every_command_has_a_test_file() {
    for command in rust_files("src/commands").into_iter().filter(|path| !is_test_file(path)) {
        let name = command.file_stem().unwrap().to_str().unwrap().to_owned();
        let test = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(format!("{name}.rs"));
        assert!(NO_COMMANDS.contains(&name.as_str()) || test.exists(), "{} is missing", test.display());
    }
}

/// Cargo gives a dependency all the features that any part of the build asks for, the tests' own dependencies included.
/// A feature that only the tests ask for would make them check other code than is shipped.
#[test]
fn dependencies_have_the_same_features_in_tests() {
    let with_features = |edges: &str| {
        let mut command = std::process::Command::new(env!("CARGO"));
        command.args(["tree", "--offline", "--locked", "--depth", "1", "--prefix", "none", "--format", "{p} {f}"]);
        let output = command.args(["--edges", edges]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (shipped, tested) = (with_features("normal"), with_features("normal,dev"));
    let tested: Vec<_> = tested.lines().collect();
    let differ: Vec<_> = shipped.lines().filter(|line| !tested.contains(line)).collect();
    assert!(shipped.lines().count() > 20, "{shipped}");
    assert!(
        differ.is_empty(),
        "the tests build these dependencies with more features; name the features in [dependencies]: {differ:?}"
    );
}

#[test]
fn every_module_says_what_it_is() {
    let files = ["src", "tests", "benches"].into_iter().flat_map(rust_files);
    let silent: Vec<_> = files.filter(|path| !fs::read_to_string(path).unwrap().starts_with("//!")).collect();
    assert!(silent.is_empty(), "no module docs: {silent:?}");
}
