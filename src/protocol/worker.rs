//! What the daemon and a worker say to each other; `worker-shim/src/protocol.ts` mirrors it.
//!
//! Invocations are plain HTTP/1.1 on the worker's own Unix socket. Beside them a worker writes [`FromWorker`], one JSON
//! object a line, on its control channel. Everything a worker says is hostile input: the reader bounds it, and a field
//! that names an invocation is checked against what that worker runs.

use crate::model::SecretText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// The route that gives a worker its function; it does not exist any more once that has worked.
pub const ASSIGN_PATH: &str = "/assign";

/// The route of a rehearsal, an assignment that leaves the worker without a function; it exists until the assignment.
pub const REHEARSAL_PATH: &str = "/rehearsal";

/// Request header with the invocation's id; the function sees it.
pub const INVOCATION_HEADER: &str = "x-invocation-id";

/// Request header with the milliseconds left; the shim takes it off.
pub const DEADLINE_HEADER: &str = "x-levain-deadline";

/// Response header of an answer the shim made because the handler failed; the body is a [`HandlerFailure`].
pub const ERROR_HEADER: &str = "x-levain-error";

/// Response header: promises given to `waitUntil` are pending, a `settled` message follows.
pub const PENDING_HEADER: &str = "x-levain-pending";

/// The file that a compilation leaves in its folder, to be imported instead of the one it was made from; what Bun reads
/// beside it has longer names.
pub const COMPILED_FILE: &str = "levain_compiled.js";

/// Names that begin with this are the protocol's own; a client's headers of that kind are dropped.
pub const RESERVED_PREFIX: &str = "x-levain-";

/// What makes a worker the worker of one function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The function's name.
    pub function: String,
    /// The function's id.
    pub function_id: String,
    /// The version's label.
    pub version: String,
    /// The environment the worker runs in.
    pub environment: String,
    /// The file to import, absolute.
    pub entry: String,
    /// Its compiled form, absolute, to be imported instead as long as it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiled: Option<String>,
    /// The export to call.
    pub handler: String,
    /// Environment variables of the function, secrets among them.
    pub variables: BTreeMap<String, SecretText>,
    /// Log messages are cut to this many bytes.
    pub log_line_bytes_max: u32,
    /// The daemon's version.
    pub levain: String,
}

impl Assignment {
    /// A rehearsal's: of a file that stands for a function.
    #[must_use]
    pub fn of_nothing(entry: &Path) -> Self {
        Self {
            function: String::new(),
            function_id: String::new(),
            version: String::new(),
            environment: String::new(),
            entry: entry.to_string_lossy().into_owned(),
            compiled: None,
            handler: "default".into(),
            variables: BTreeMap::new(),
            log_line_bytes_max: 1024,
            levain: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// The answer to an assignment that worked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assigned {
    /// Which form the handler has: `default`, `fetch`, `named` or `commonjs`.
    pub kind: String,
    /// Time of the import, in milliseconds.
    pub import_ms: f64,
    /// The worker's Bun version.
    pub bun: String,
}

/// The answer to an assignment that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssignFailed {
    /// Why.
    pub error: LoadError,
}

/// Why a bundle could not be loaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadError {
    /// `syntax`, `missing_module`, `no_handler`, `throw` or `not_found`.
    pub kind: String,
    /// The error's class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it says.
    pub message: String,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// The file it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The text of that line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_text: Option<String>,
    /// What the module does export, for `no_handler`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exports: Option<Vec<String>>,
}

/// The body of an answer with [`ERROR_HEADER`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandlerFailure {
    /// The error's class.
    #[serde(default)]
    pub name: Option<String>,
    /// What it says.
    pub message: String,
    /// Where it was thrown.
    #[serde(default)]
    pub stack: Option<String>,
}

/// One line on the control channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromWorker {
    /// The shim serves its socket.
    Ready {
        /// The worker's Bun version.
        bun: String,
    },
    /// The function wrote with `console`.
    Log {
        /// `debug`, `info`, `warn` or `error`.
        level: LogLevel,
        /// The invocation it belongs to; none for output at import.
        invocation: Option<String>,
        /// The text, which may have several lines.
        message: String,
        /// Messages lost before this one because the channel was full.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dropped: Option<u32>,
    },
    /// A promise was rejected, or an error thrown, with nobody to catch it.
    Rejection {
        /// The invocation it belongs to, as far as that can be known.
        invocation: Option<String>,
        /// What it says.
        message: String,
        /// Where it was thrown.
        #[serde(default)]
        stack: Option<String>,
        /// Whether the invocation is inferred: the only one that runs, else the last one.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        guessed: bool,
        /// As for [`Self::Log`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dropped: Option<u32>,
    },
    /// An invocation that ended for its caller has now ended in the worker too.
    Settled {
        /// The invocation.
        invocation: String,
    },
    /// The event loop turns.
    Pong {
        /// Of the question.
        number: u64,
    },
}

/// One line on the control channel, the other way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker {
    /// The daemon has dropped the connection of an invocation and wants to hear when it has settled.
    Dropped {
        /// The invocation.
        invocation: String,
    },
    /// The daemon asks whether the event loop turns.
    Ping {
        /// Which question it is: the answer has the same number.
        number: u64,
    },
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Detail for the author.
    Debug,
    /// What happened.
    Info,
    /// What looks wrong.
    Warn,
    /// What went wrong.
    Error,
}

impl LogLevel {
    /// The level as it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What the syntax check of a file prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyntaxCheck {
    /// Whether the file parses.
    pub ok: bool,
    /// The names it exports.
    #[serde(default)]
    pub exports: Vec<String>,
    /// Whether it is a CommonJS file, whose exports are known only after it has run.
    #[serde(default)]
    pub commonjs: bool,
    /// What is wrong with it.
    #[serde(default)]
    pub errors: Vec<SyntaxProblem>,
}

/// One place where a file does not parse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyntaxProblem {
    /// What is wrong.
    pub message: String,
    /// The line, from 1.
    #[serde(default)]
    pub line: Option<u32>,
    /// The column, from 1.
    #[serde(default)]
    pub column: Option<u32>,
    /// The text of that line.
    #[serde(default)]
    pub line_text: Option<String>,
}

/// What the compilation of a file prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compilation {
    /// Whether there is a compiled form.
    pub ok: bool,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the build of a project has to say about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildProblem {
    /// What is wrong.
    pub message: String,
    /// The file, relative to the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The text of that line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_text: Option<String>,
}

/// What the build of a project writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildResult {
    /// Whether there is a bundle.
    pub ok: bool,
    /// Why there is none.
    pub problems: Vec<BuildProblem>,
    /// What is wrong nevertheless.
    pub warnings: Vec<BuildProblem>,
}

/// The file that a build makes.
pub const BUNDLE_FILE: &str = "bundle.js";

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::Value;
    use std::{fs, path::Path};

    fn without_nulls(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                fields.into_iter().filter(|(_, it)| !it.is_null()).map(|(name, it)| (name, without_nulls(it))).collect()
            }
            Value::Array(items) => items.into_iter().map(without_nulls).collect(),
            other => other,
        }
    }

    /// Reads a golden message and writes it again: every field of it is known here under its name and type.
    fn survives<T: Serialize + DeserializeOwned>(name: &str, text: &str) {
        let message: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let written = serde_json::to_value(&message).expect("plain data");
        let golden: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(without_nulls(written), without_nulls(golden), "{name}");
    }

    #[test]
    fn the_golden_messages_are_what_both_sides_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/worker");
        let files = fs::read_dir(folder).expect("the golden messages are there").flatten();
        let mut count = 0;
        for path in files.map(|entry| entry.path()) {
            let name = path.file_stem().and_then(|it| it.to_str()).expect("a plain name").to_owned();
            let text = fs::read_to_string(&path).expect("a file");
            match name.as_str() {
                "assign" => survives::<Assignment>(&name, &text),
                "assign_ok" => survives::<Assigned>(&name, &text),
                "built" | "build_failed" => survives::<BuildResult>(&name, &text),
                "compiled" | "not_compiled" => survives::<Compilation>(&name, &text),
                "dropped" | "ping" => survives::<ToWorker>(&name, &text),
                // The daemon has no use for the imports that a check reports besides.
                name if name.starts_with("check_") => {
                    serde_json::from_str::<SyntaxCheck>(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
                }
                name if name.starts_with("load_error_") => survives::<AssignFailed>(name, &text),
                name if name.starts_with("invocation_error_") => survives::<HandlerFailure>(name, &text),
                name => survives::<FromWorker>(name, &text),
            }
            count += 1;
        }
        assert!(count > 10, "{count} golden messages");
    }
}
