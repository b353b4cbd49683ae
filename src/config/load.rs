//! Puts the layers on top of one another and says everything that is wrong with them.

use super::{Config, KEYS, SECTIONS, value::Raw};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};
use toml::de::DeTable;

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "config.toml";

/// Variables that stand for a key under a shorter name.
const SHORT_VARIABLES: [(&str, &str); 2] = [("LEVAIN_SOCKET", "daemon.socket"), ("LEVAIN_DATA_DIR", "daemon.data_dir")];

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has set it.
    Default,
    /// The file, and the line in it.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A flag, by the key it stands for.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(key) => write!(f, "the flag for {key}"),
        }
    }
}

/// What applies.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// Where those come from that are not defaults.
    origins: BTreeMap<String, Origin>,
    file: Option<PathBuf>,
}

impl Effective {
    /// The file that was read.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Where a key's value comes from.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// Every value as TOML, with its origin behind it.
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

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What, and what is allowed.
    pub message: String,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line, column and the line itself.
        message: String,
    },
    /// Keys or values are wrong.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|it| format!("{}: {}", it.origin, it.message)).collect();
    lines.join("\n")
}

/// Reads the configuration of this process: `file`, or `config.toml` of the working directory if there is one; the
/// environment; and flags, as pairs of a key such as `daemon.socket` and its value.
pub fn load(file: Option<&Path>, flags: &[(&'static str, String)]) -> Result<Effective, ConfigError> {
    // A name or value that is not Unicode cannot be meant for Levain.
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_from(file, variables, flags)
}

/// The same with the environment given.
pub fn load_from(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: &[(&'static str, String)],
) -> Result<Effective, ConfigError> {
    let mut layers = Layers::default();
    let file = file.map(Path::to_owned).or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
    if let Some(path) = &file {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        layers.file(path, &text)?;
    }
    layers.environment(variables);
    for (key, value) in flags {
        layers.set_path(key, Raw::Text(value), Origin::Flag(key));
    }
    layers.finish(file)
}

#[derive(Default)]
struct Layers {
    config: Config,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Layers {
    fn file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax { path: path.into(), message: error.to_string() };
        let document = DeTable::parse(text).map_err(syntax)?;
        let origin = |at: usize| Origin::File(path.into(), text[..at].matches('\n').count() + 1);
        for (section, content) in document.get_ref() {
            let (name, place) = (section.get_ref().as_ref(), origin(section.span().start));
            let known = SECTIONS.iter().any(|(section, _)| *section == name);
            match content.get_ref().as_table() {
                Some(table) if known => {
                    for (key, value) in table {
                        let place = origin(key.span().start);
                        self.set(name, key.get_ref(), Raw::Toml(value.get_ref()), place);
                    }
                }
                _ => self.unknown(place, &format!("section [{name}]"), SECTIONS.iter().map(|(name, _)| (*name).to_owned())),
            }
        }
        Ok(())
    }

    fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in variables {
            let origin = Origin::Environment(name.clone());
            if let Some((_, key)) = SHORT_VARIABLES.iter().find(|(short, _)| *short == name) {
                self.set_path(key, Raw::Text(&value), origin);
            } else if let Some(rest) = name.strip_prefix("LEVAIN_").map(str::to_ascii_lowercase)
                && let Some((section, key)) = rest.split_once('_')
                && SECTIONS.iter().any(|(known, _)| *known == section)
            {
                self.set(section, key, Raw::Text(&value), origin);
            }
        }
    }

    fn set_path(&mut self, path: &str, raw: Raw<'_>, origin: Origin) {
        let (section, key) = path.split_once('.').unwrap_or((path, ""));
        self.set(section, key, raw, origin);
    }

    fn set(&mut self, section: &str, name: &str, raw: Raw<'_>, origin: Origin) {
        let siblings = || KEYS.iter().filter(|key| key.section == section);
        let Some(key) = siblings().find(|key| key.name == name) else {
            let allowed = siblings().map(|key| key.name.to_owned());
            return self.unknown(origin, &format!("key {section}.{name}"), allowed);
        };
        match (key.set)(&mut self.config, raw, &key.rule) {
            Some(()) => {
                self.origins.insert(key.path(), origin);
            }
            None => {
                let message = format!("{} = {}: expected {}", key.path(), found(raw), key.rule.allowed());
                self.problems.push(Problem { origin, message });
            }
        }
    }

    fn unknown(&mut self, origin: Origin, what: &str, allowed: impl Iterator<Item = String>) {
        let allowed: Vec<String> = allowed.collect();
        let message = format!("unknown {what}; there are {}", allowed.join(", "));
        self.problems.push(Problem { origin, message });
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Effective, ConfigError> {
        let functions = &self.config.functions;
        if functions.warm_workers > functions.max_concurrent_executions {
            let key = "functions.warm_workers";
            let (warm, max) = (functions.warm_workers, functions.max_concurrent_executions);
            let message = format!("{key} = {warm}: expected at most functions.max_concurrent_executions, which is {max}");
            let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default);
            self.problems.push(Problem { origin, message });
        }
        if !self.problems.is_empty() {
            return Err(ConfigError::Invalid(self.problems));
        }
        Ok(Effective { config: self.config, origins: self.origins, file })
    }
}

/// A value that is not allowed, as it was written.
fn found(raw: Raw<'_>) -> String {
    const SHOWN_MAX: usize = 80;
    let text = match raw {
        Raw::Text(text) => format!("{text:?}"),
        Raw::Toml(value) => match (value.as_str(), value.as_integer()) {
            (Some(text), _) => format!("{text:?}"),
            (_, Some(integer)) => integer.as_str().to_owned(),
            _ => format!("a value of type {}", value.type_str()),
        },
    };
    text.chars().take(SHOWN_MAX).collect()
}

