//! Merges the layers and reports every problem in them.

use super::{
    error::{ConfigError, Problem, ValueOrigin},
    file,
    schema::{Config, KEYS, Key, SECTIONS},
    suggest,
    value::Raw,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

/// File that is read if none is named.
const DEFAULT_FILE: &str = "config.toml";

/// Variables that set a key under a shorter name.
const SHORT_VARIABLES: [(&str, &str); 2] = [("LEVAIN_SOCKET", "daemon.socket"), ("LEVAIN_DATA_DIR", "daemon.data_dir")];

/// Former names of variables, which are still read.
const FORMER_VARIABLES: [(&str, &str); 1] = [("LEVAIN_MASTER_KEY_FILE", "secrets.master_key_file")];

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// Origins of the values that are not defaults.
    origins: BTreeMap<String, ValueOrigin>,
    file: Option<PathBuf>,
}

impl Effective {
    /// Returns what the user should change, one sentence each.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let is_used = |name: &str, path: &str| self.origins.get(path) == Some(&ValueOrigin::Environment(name.into()));
        let former = FORMER_VARIABLES.iter().filter(|(name, path)| is_used(name, path));
        let notice = |(name, path): &(&str, &str)| {
            let now = KEYS.iter().find(|key| key.path() == *path).map(Key::variable).unwrap_or_default();
            format!("the variable {name} is now called {now}: rename it, the former name will be dropped")
        };
        former.map(notice).collect()
    }

    /// Returns the file that was read.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the origin of a key's value.
    #[must_use]
    pub fn origin(&self, key: &str) -> &ValueOrigin {
        self.origins.get(key).unwrap_or(&ValueOrigin::Default)
    }

    /// Returns every value with its origin, in the order of `config.toml`.
    #[must_use]
    pub fn rows(&self) -> Vec<ConfigRow> {
        let row = |key: &Key| {
            let origin = self.origin(&key.path()).to_string();
            ConfigRow { key: key.path(), value: key.value(&self.config), origin }
        };
        KEYS.iter().map(row).collect()
    }

    /// Returns every value as TOML, followed by its origin.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (section, _) in SECTIONS {
            text += &format!("[{section}]\n");
            for key in KEYS.iter().filter(|key| key.section == *section) {
                let value = format!("{} = {}", key.name, key.value(&self.config));
                text += &format!("{value:<44} # {}\n", self.origin(&key.path()));
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text
    }
}

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigRow {
    /// Section and name: `daemon.socket`.
    pub key: String,
    /// The value as TOML.
    pub value: String,
    /// `default`, the file and line, the variable, or the flag.
    pub origin: String,
}

/// Reads the configuration of this process: `file`, or `config.toml` in the working directory if it exists; then the
/// environment; then flags, as pairs of a key such as `daemon.socket` and its value. Relative paths become absolute,
/// based on the working directory, because workers and builds run in other folders.
pub fn load(file: Option<&Path>, flags: &[(&'static str, String)]) -> Result<Effective, ConfigError> {
    // No variable of Levain has a name that is not Unicode.
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    load_from(file, variables, flags)
}

/// Like [`load`], with the environment passed in.
pub fn load_from(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, OsString)>,
    flags: &[(&'static str, String)],
) -> Result<Effective, ConfigError> {
    let mut layers = Layers::default();
    let file = file.map(Path::to_owned).or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
    if let Some(path) = &file {
        let text = file::read(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        layers.file(path, &text)?;
    }
    layers.environment(variables);
    for (key, value) in flags {
        layers.set_path(key, Raw::Text(value), ValueOrigin::Flag(key));
    }
    layers.finish(file)
}

#[derive(Default)]
struct Layers {
    config: Config,
    origins: BTreeMap<String, ValueOrigin>,
    problems: Vec<Problem>,
}

impl Layers {
    fn file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let (document, errors) = DeTable::parse_recoverable(text);
        // Later errors are often consequences of the first one.
        if let Some(error) = errors.iter().min_by_key(|error| error.span().map(|span| span.start)) {
            let message = error.to_string().trim_end().to_owned();
            return Err(ConfigError::Syntax { path: path.into(), message });
        }
        let origin = |at: usize| ValueOrigin::File(path.into(), text[..at].matches('\n').count() + 1);
        for (section, content) in in_order(document.get_ref()) {
            let (name, place) = (section.get_ref().as_ref(), origin(section.span().start));
            let known = SECTIONS.iter().any(|(section, _)| *section == name);
            match content.get_ref().as_table() {
                Some(table) if known => {
                    for (key, value) in in_order(table) {
                        let raw = Raw::Toml(value.get_ref(), &text[value.span()]);
                        self.set(name, key.get_ref(), raw, origin(key.span().start));
                    }
                }
                Some(_) => self.problem(place, suggest::section(name)),
                None if known => self.problem(place, format!("{name} is a section: write [{name}] and its keys below")),
                None => self.problem(place, suggest::key("", name)),
            }
        }
        Ok(())
    }

    fn environment(&mut self, variables: impl IntoIterator<Item = (String, OsString)>) {
        let others = || SHORT_VARIABLES.iter().chain(&FORMER_VARIABLES);
        let short = |name: &str| others().find(|(short, _)| *short == name).map(|(_, path)| *path);
        let mut variables: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with("LEVAIN_")).collect();
        // The environment has no order. Sorting lets the long name win, and gives problems the same order every time.
        variables.sort_by_cached_key(|(name, _)| (short(name).is_none(), name.clone()));
        for (name, value) in variables {
            let path = short(&name).map(str::to_owned);
            let path = path.or_else(|| KEYS.iter().find(|key| key.variable() == name).map(Key::path));
            let origin = ValueOrigin::Environment(name.clone());
            match (path, value.to_str()) {
                (Some(path), Some(text)) => self.set_path(&path, Raw::Text(text), origin),
                (Some(path), None) => self.problem(origin, format!("{path} = {value:?}: expected text in UTF-8")),
                (None, _) if is_meant_for_a_section(&name) => self.problem(origin, suggest::variable(&name)),
                (None, _) => {}
            }
        }
    }

    fn set_path(&mut self, path: &str, raw: Raw<'_>, origin: ValueOrigin) {
        let (section, key) = path.split_once('.').unwrap_or(("", path));
        self.set(section, key, raw, origin);
    }

    fn set(&mut self, section: &str, name: &str, raw: Raw<'_>, origin: ValueOrigin) {
        let Some(key) = KEYS.iter().find(|key| key.section == section && key.name == name) else {
            return self.problem(origin, suggest::key(section, name));
        };
        match key.field.set(&mut self.config, raw, &key.rule) {
            Some(()) => {
                self.origins.insert(key.path(), origin);
            }
            None => self.problem(origin, format!("{} = {}: expected {}", key.path(), found(raw), key.rule.allowed())),
        }
    }

    fn problem(&mut self, origin: ValueOrigin, message: String) {
        self.problems.push(Problem { origin, message });
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Effective, ConfigError> {
        let functions = &self.config.functions;
        // A refused value leaves its default behind, which must not be compared.
        if self.problems.is_empty() && functions.warm_workers > functions.max_concurrent_executions {
            let key = "functions.warm_workers";
            let (warm, max) = (functions.warm_workers, functions.max_concurrent_executions);
            let message =
                format!("{key} = {warm}: expected at most functions.max_concurrent_executions, which is {max}");
            let origin = self.origins.get(key).cloned().unwrap_or(ValueOrigin::Default);
            self.problems.push(Problem { origin, message });
        }
        let http = &self.config.http;
        for (given, key, other) in [
            (&http.tls_certificate, "http.tls_certificate", "http.tls_key"),
            (&http.tls_key, "http.tls_key", "http.tls_certificate"),
        ] {
            let is_alone = !given.is_empty() && (http.tls_certificate.is_empty() || http.tls_key.is_empty());
            if is_alone {
                let message = format!("{key} = {given:?}: expected {other} to be set too, as TLS needs both files");
                let origin = self.origins.get(key).cloned().unwrap_or(ValueOrigin::Default);
                self.problems.push(Problem { origin, message });
            }
        }
        if self.problems.is_empty() {
            let origins = &self.origins;
            let origin = |key: &Key| origins.get(&key.path()).cloned().unwrap_or(ValueOrigin::Default);
            self.problems = self.config.make_absolute(origin);
        }
        if !self.problems.is_empty() {
            return Err(ConfigError::Invalid(self.problems));
        }
        Ok(Effective { config: self.config, origins: self.origins, file })
    }
}

/// Returns the entries of a table in the file's order; the table itself sorts them by name.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Whether a variable's name begins with a section. Other `LEVAIN_` variables belong to other programs.
fn is_meant_for_a_section(name: &str) -> bool {
    let rest = name.trim_start_matches("LEVAIN_").to_ascii_lowercase();
    rest.split_once('_').is_some_and(|(section, _)| SECTIONS.iter().any(|(known, _)| *known == section))
}

/// Returns a refused value as it was written.
fn found(raw: Raw<'_>) -> String {
    const SHOWN_MAX: usize = 80;
    let text = match raw {
        Raw::Text(text) => format!("{text:?}"),
        Raw::Toml(_, written) => written.replace(['\n', '\r'], " "),
    };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
