//! Rules that the compiler cannot check: the direction of imports, the length of files, how comments begin, a test file
//! for each command.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// Circles between files of a room that stay, each with its reason in the documentation of the crate. A file may use
/// the files above it in its own path: they hold what the files below share.
const CIRCLES: &[&[&str]] = &[&[
    "http::api",
    "http::api::fields",
    "http::api::form",
    "http::api::openapi",
    "http::api::openapi::pages",
    "http::pages",
]];

/// Limit of a source file's lines before its tests.
const LINES_MAX: usize = 400;

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
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().replace("#[cfg(test)]\nmod tests;\n", "");
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

/// The crate's files as a graph of what each uses.
#[derive(Default)]
struct Graph {
    /// Code of each file, by the path of its module.
    code: BTreeMap<String, String>,
    /// Names that a module takes from others, with their paths; those that it passes on come first.
    names: BTreeMap<(String, String), String>,
}

impl Graph {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut graph = Self::default();
        for path in rust_files("src").iter().filter(|path| !is_test_file(path)) {
            let module = path.strip_prefix(&root).unwrap().with_extension("");
            let module = module.to_str().unwrap().trim_end_matches("/mod").replace('/', "::");
            if module != "lib" && module != "main" {
                graph.code.insert(module, code(path));
            }
        }
        let files: Vec<(String, String)> =
            graph.code.iter().map(|(module, code)| (module.clone(), code.clone())).collect();
        for (module, code) in files {
            for (is_passed_on, path) in uses(&code) {
                let name = path.rsplit("::").next().unwrap_or_default().to_owned();
                if let Some(path) = graph.absolute(&module, &path).filter(|_| is_passed_on) {
                    graph.names.insert((module.clone(), name), path);
                }
            }
        }
        graph
    }

    /// The path of a name from the root of the crate, if it is the crate's.
    fn absolute(&self, module: &str, path: &str) -> Option<String> {
        let (mut base, mut rest) = (module.to_owned(), path);
        if let Some(path) = path.strip_prefix("crate::") {
            return Some(path.to_owned());
        }
        let is_child = self.code.contains_key(&format!("{module}::{}", identifier(path)));
        if !path.starts_with("super::") && !path.starts_with("self::") && !is_child {
            return None;
        }
        loop {
            if let Some(path) = rest.strip_prefix("super::") {
                base = base.rsplit_once("::").map_or_else(String::new, |it| it.0.to_owned());
                rest = path;
            } else if let Some(path) = rest.strip_prefix("self::") {
                rest = path;
            } else {
                return Some(if base.is_empty() { rest.to_owned() } else { format!("{base}::{rest}") });
            }
        }
    }

    /// The file that defines a name, found through the modules that pass it on.
    fn file_of(&self, path: &str) -> String {
        let mut module = String::new();
        let mut segments = path.split("::").peekable();
        while let Some(segment) = segments.peek() {
            let longer = if module.is_empty() { (*segment).to_owned() } else { format!("{module}::{segment}") };
            if self.code.contains_key(&longer) {
                module = longer;
                segments.next();
                continue;
            }
            return match self.names.get(&(module.clone(), (*segment).to_owned())) {
                Some(passed_on) if !passed_on.starts_with(&longer) => self.file_of(passed_on),
                _ => module,
            };
        }
        module
    }

    /// Files that a file uses, apart from those above it.
    fn used(&self, module: &str) -> BTreeSet<String> {
        let paths = uses(&self.code[module]).into_iter().filter(|(is_passed_on, _)| !is_passed_on).map(|it| it.1);
        let inline = inline_paths(&self.code[module]);
        let files = paths.chain(inline).filter_map(|path| Some(self.file_of(&self.absolute(module, &path)?)));
        files.filter(|file| !file.is_empty() && file != module && !module.starts_with(&format!("{file}::"))).collect()
    }

    /// Groups of files of which each uses every other, directly or through others.
    fn circles(&self) -> Vec<Vec<String>> {
        let used: BTreeMap<&str, BTreeSet<String>> = self.code.keys().map(|it| (it.as_str(), self.used(it))).collect();
        let reached = |from: &str| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
            while let Some(module) = next.pop() {
                next.extend(
                    used.get(module.as_str()).into_iter().flatten().filter(|it| seen.insert((*it).clone())).cloned(),
                );
            }
            seen
        };
        let reached: BTreeMap<&str, BTreeSet<String>> = used.keys().map(|it| (*it, reached(it))).collect();
        let mut circles = BTreeSet::new();
        for (module, others) in reached.iter().filter(|(module, others)| others.contains(**module)) {
            let circle = others.iter().filter(|it| reached[it.as_str()].contains(*module)).cloned();
            circles.insert(circle.collect::<Vec<_>>());
        }
        circles.into_iter().collect()
    }
}

/// Paths of the `use` items of some code, each with whether the name is passed on to other modules.
fn uses(code: &str) -> Vec<(bool, String)> {
    let mut paths = Vec::new();
    for item in code.split('\n').collect::<Vec<_>>().join(" ").split(';') {
        let Some(at) = item.rfind(" use ").or_else(|| item.strip_prefix("use ").map(|_| 0)) else { continue };
        let before = item[..at].trim_end();
        let is_passed_on =
            before.ends_with("pub") || before.rfind("pub(").is_some_and(|it| before[it..].ends_with(')'));
        let tree = item[at..].trim_start().trim_start_matches("use ");
        paths.extend(expand(tree).into_iter().map(|path| (is_passed_on, path)));
    }
    paths
}

/// Writes out the paths of a tree: `a::{b, c::{self, d}}` is `a::b`, `a::c` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        return vec![path.trim_end_matches("::self").to_owned()];
    };
    let group = group.trim_end().trim_end_matches('}');
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0, 0);
    // The group has lost its own closing bracket, and perhaps more of the inner ones.
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[begin..index]);
                begin = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[begin..]);
    let parts = parts.into_iter().filter(|it| !it.trim().is_empty());
    parts
        .flat_map(expand)
        .map(|path| format!("{}{path}", prefix.trim()).trim_end_matches("::self").to_owned())
        .collect()
}

/// Paths below `crate` and `super`, and of child modules, that code names without importing them.
fn inline_paths(code: &str) -> Vec<String> {
    let words = code.split(|it: char| !it.is_alphanumeric() && it != '_' && it != ':');
    words
        .filter(|it| it.contains("::") && it.starts_with(|it: char| it.is_ascii_lowercase()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn files_of_a_room_do_not_use_each_other_in_circles() {
    let found = Graph::read().circles();
    let allowed: Vec<Vec<String>> =
        CIRCLES.iter().map(|circle| circle.iter().map(|it| (*it).to_owned()).collect()).collect();
    assert_eq!(found, allowed, "move the part that two files need below both");
}

#[test]
fn the_check_of_circles_sees_paths_through_other_modules() {
    let mut graph = Graph::default();
    for (module, code) in
        [("a", "mod b; mod c; pub use b::B;"), ("a::b", "use super::c::C;"), ("a::c", "use crate::a::B;")]
    {
        graph.code.insert(module.to_owned(), code.to_owned());
    }
    graph.names.insert(("a".to_owned(), "B".to_owned()), "a::b::B".to_owned());
    assert_eq!(graph.circles(), [["a::b", "a::c"]]);
    assert_eq!(expand("a::{b, c::{self, d}}"), ["a::b", "a::c", "a::c::d"]);
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
fn a_module_with_parts_is_a_folder_with_its_mod_file() {
    let beside: Vec<_> = rust_files("src").into_iter().filter(|path| path.with_extension("").is_dir()).collect();
    assert!(beside.is_empty(), "move these to the mod.rs of their folder: {beside:?}");
}

#[test]
fn every_command_has_a_test_file() {
    let has_command = |path: &PathBuf| fs::read_to_string(path).unwrap().contains("\nimpl Command for ");
    let commands: Vec<_> = rust_files("src/commands").into_iter().filter(has_command).collect();
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands {
        // A command with parts is a folder.
        let named = if command.ends_with("mod.rs") { command.parent().unwrap() } else { &command };
        let name = named.file_stem().unwrap().to_str().unwrap();
        let test = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(format!("{name}.rs"));
        assert!(test.exists(), "{} is missing", test.display());
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
