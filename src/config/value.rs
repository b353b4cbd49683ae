//! Types of values, their rules, and how they are read from TOML or from the text of a variable or flag.

use crate::model::words::words;
use std::path::Path;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

/// A value as it was given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Raw<'a> {
    /// A value in the file, with its text there.
    Toml(&'a DeValue<'a>, &'a str),
    /// Text of a variable or flag.
    Text(&'a str),
}

/// Rule that a value must follow.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// Any text.
    Text,
    /// A path, or one of these words with a special meaning.
    Path(&'static [&'static str]),
    /// A domain name, or empty.
    Domain,
    /// A log level, or directives.
    LogLevel,
    /// A whole number between these two, inclusive.
    Number(u32, u32),
    /// A list of whole numbers.
    Numbers,
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl Rule {
    /// Returns the least and the greatest number.
    pub(super) fn range(&self) -> Option<(u32, u32)> {
        match self {
            Self::Number(min, max) => Some((*min, *max)),
            _ => None,
        }
    }

    /// Returns the rest of the sentence that begins with "expected".
    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Text => "a text".into(),
            Self::Path(_) => "a path".into(),
            Self::Domain => {
                "a domain such as functions.example.com, without a scheme, a port or a `*`, or nothing".into()
            }
            Self::LogLevel => format!("{}, or directives such as info,levain::scheduler=debug", LEVELS.join(", ")),
            Self::Number(min, max) => format!("a whole number from {min} to {max}"),
            Self::Numbers => {
                format!("a list of whole numbers from 0 to {}, separated by commas in a variable", u32::MAX)
            }
            Self::Choice(names) => names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or "),
        }
    }
}

/// Type of a configuration value.
pub(super) trait ConfigValue: Sized {
    /// Parses a value; `None` if the rule forbids it.
    fn read(raw: Raw<'_>, rule: &Rule) -> Option<Self>;

    /// Formats the value as TOML.
    fn show(&self) -> String;

    /// Returns the value with its path made absolute, or `None` if it holds no relative path.
    ///
    /// # Errors
    /// Fails if the working directory, which the path is relative to, cannot be used.
    fn absolute(&self, _: &Rule) -> Option<Result<Self, String>> {
        None
    }
}

impl ConfigValue for String {
    fn read(raw: Raw<'_>, rule: &Rule) -> Option<Self> {
        let text = match raw {
            Raw::Toml(value, _) => value.as_str()?,
            Raw::Text(text) => text,
        };
        let allowed = match rule {
            Rule::Path(words) => !text.is_empty() || words.contains(&""),
            Rule::Domain => text.is_empty() || is_domain(text),
            Rule::LogLevel => is_log_level(text),
            Rule::Choice(words) => words.contains(&text),
            _ => true,
        };
        allowed.then(|| text.into())
    }

    fn show(&self) -> String {
        toml::Value::String(self.clone()).to_string()
    }

    fn absolute(&self, rule: &Rule) -> Option<Result<Self, String>> {
        let Rule::Path(words) = rule else { return None };
        if words.contains(&self.as_str()) || Path::new(self).is_absolute() {
            return None;
        }
        let path = std::path::absolute(self).map_err(|error| format!("the working directory is unknown: {error}"));
        Some(path.and_then(|it| {
            it.into_os_string().into_string().map_err(|it| format!("the working directory is not UTF-8: {it:?}"))
        }))
    }
}

/// Whether a text is a domain: labels of letters, digits and hyphens with dots between them (RFC 1123, section 2.1),
/// the last of which is not a number.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_inside = label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
        is_inside && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_number = text.rsplit('.').next().is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_digit()));
    // A name has at most 253 bytes, and needs room for a function's label and its dot.
    text.len() <= 189 && text.split('.').all(is_label) && !is_number
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Whether a text is a log level. Stricter than the filter itself, which takes a misspelt level for a target's name and
/// thereby turns the log off.
fn is_log_level(text: &str) -> bool {
    let words = text.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', ']', '{', '}']));
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    words.into_iter().all(is_level) && EnvFilter::try_new(text).is_ok()
}

fn number(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

impl ConfigValue for u32 {
    fn read(raw: Raw<'_>, rule: &Rule) -> Option<Self> {
        let number = match raw {
            Raw::Toml(value, _) => number(value)?,
            Raw::Text(text) => text.trim().replace('_', "").parse().ok()?,
        };
        let (min, max) = rule.range()?;
        (min..=max).contains(&number).then_some(number)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for Vec<u32> {
    fn read(raw: Raw<'_>, _: &Rule) -> Option<Self> {
        match raw {
            Raw::Toml(value, _) => value.as_array()?.iter().map(|item| number(item.get_ref())).collect(),
            Raw::Text(text) if text.trim().is_empty() => Some(Vec::new()),
            Raw::Text(text) => text.split(',').map(|item| item.trim().parse().ok()).collect(),
        }
    }

    fn show(&self) -> String {
        let items: Vec<String> = self.iter().map(u32::to_string).collect();
        format!("[{}]", items.join(", "))
    }
}

macro_rules! choices {
    ($($name:ident),*) => {
        $(impl ConfigValue for $name {
            fn read(raw: Raw<'_>, rule: &Rule) -> Option<Self> {
                Self::from_name(&String::read(raw, rule)?)
            }

            fn show(&self) -> String {
                format!("\"{}\"", self.name())
            }
        })*
    };
}

choices!(LogFormat, Bytecode, SandboxMode, SandboxLevel, Metrics, ErrorDetails, Switch, Verify);

words! {
    /// Format of the daemon's own log.
    LogFormat {
        /// Text on a terminal, JSON otherwise.
        Auto = "auto",
        /// Text.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// Whether bundles are compiled ahead of their use.
    Bytecode {
        /// If a bundle loads faster and behaves the same.
        Auto = "auto",
        /// Never.
        Off = "off",
    }
}

words! {
    /// Whether workers are isolated from the rest of the machine.
    SandboxMode {
        /// At the best level that this machine allows.
        Auto = "auto",
        /// At the wanted level (for `auto`: `privileged` or `user-namespace`), or the daemon does not start.
        Strict = "strict",
        /// Not at all.
        Off = "off",
    }
}

words! {
    /// Level of isolation; see `worker::sandbox`.
    SandboxLevel {
        /// The best level that works.
        Auto = "auto",
        /// Namespaces, a root and a user per worker, set up with the rights of root.
        Privileged = "privileged",
        /// Like `Privileged`, set up in a user namespace.
        UserNamespace = "user-namespace",
        /// Like `UserNamespace`, but workers see the processes of the machine.
        SharedProc = "shared-proc",
        /// File rules and system-call filters.
        Landlock = "landlock",
    }
}

words! {
    /// Access to `/metrics`.
    Metrics {
        /// Programs of this machine, except functions, on a loopback address; otherwise clients with a token.
        Auto = "auto",
        /// Everybody.
        Open = "open",
        /// Clients with a token of the scope `read`.
        Token = "token",
        /// Closed to every client.
        Off = "off",
    }
}

words! {
    /// Which callers of functions get the details of a failure.
    ErrorDetails {
        /// Callers with a token, on this machine, or of the environment `dev`.
        Auto = "auto",
        /// Every caller.
        Full = "full",
        /// No caller.
        None = "none",
    }
}

words! {
    /// A switch.
    Switch {
        /// Switched on.
        On = "on",
        /// Switched off.
        Off = "off",
    }
}

words! {
    /// Check that a bundle must pass before it takes traffic.
    Verify {
        /// The bundle loads in a worker.
        Load = "load",
        /// The bundle's syntax is valid.
        Syntax = "syntax",
    }
}
