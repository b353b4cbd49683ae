//! The protocol between the daemon and a worker; `worker-shim/src/protocol.ts` mirrors it.
//!
//! Invocations are plain HTTP/1.1 on the worker's own Unix socket. In addition, a worker writes [`FromWorker`] messages
//! to its control channel, one JSON object per line. All input from a worker is hostile: the reader bounds it, and a
//! field that names an invocation is checked against the invocations that the worker runs.

use crate::model::SecretText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// Route that assigns a function to the worker. The route disappears after a successful assignment.
pub const ASSIGN_PATH: &str = "/assign";

/// Route of a rehearsal, which is an assignment that leaves the worker without a function. The route exists until the
/// assignment.
pub const REHEARSAL_PATH: &str = "/rehearsal";

/// Request header with the invocation's id. The function sees it.
pub const INVOCATION_HEADER: &str = "x-invocation-id";

/// Request header with the time left, in milliseconds. The shim removes it.
pub const DEADLINE_HEADER: &str = "x-levain-deadline";

/// Response header of an answer that the shim made because the handler failed. The body is a [`HandlerFailure`].
pub const ERROR_HEADER: &str = "x-levain-error";

/// Response header: promises given to `waitUntil` are pending, and a `settled` message follows.
pub const PENDING_HEADER: &str = "x-levain-pending";

/// File that a compilation writes into its folder. The worker imports it instead of its source. The files that Bun
/// reads beside it have longer names.
pub const COMPILED_FILE: &str = "levain_compiled.js";

/// Prefix of the protocol's own headers. A client's headers with this prefix are dropped.
pub const RESERVED_PREFIX: &str = "x-levain-";

/// Assignment of a function to a prewarmed worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Name of the function.
    pub function: String,
    /// Id of the function.
    pub function_id: String,
    /// Label of the version.
    pub version: String,
    /// Environment that the worker runs in.
    pub environment: String,
    /// Absolute path of the file to import.
    pub entry: String,
    /// Absolute path of its compiled form, which is imported instead while that file exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiled: Option<String>,
    /// Name of the export to call.
    pub handler: String,
    /// Environment variables of the function, including secrets.
    pub variables: BTreeMap<String, SecretText>,
    /// Longest log message, in bytes; the shim cuts longer ones.
    pub log_line_bytes_max: u32,
    /// The daemon's version.
    pub levain: String,
}

impl Assignment {
    /// Builds the assignment of a rehearsal, for a file that stands in for a function.
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
    /// Form of the handler: `default`, `fetch`, `named` or `commonjs`.
    pub kind: String,
    /// Time of the import, in milliseconds.
    pub import_ms: f64,
    /// The worker's Bun version.
    pub bun: String,
}

/// The answer to an assignment that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssignFailed {
    /// Reason of the failure.
    pub error: LoadError,
}

/// Reason why a bundle could not be loaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadError {
    /// `syntax`, `missing_module`, `no_handler`, `throw` or `not_found`.
    pub kind: String,
    /// Class of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Message of the error.
    pub message: String,
    /// Stack of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// File that the error is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line number, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column number, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Text of that line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_text: Option<String>,
    /// Names that the module exports, for `no_handler`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exports: Option<Vec<String>>,
}

/// The body of an answer with [`ERROR_HEADER`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandlerFailure {
    /// Class of the error.
    #[serde(default)]
    pub name: Option<String>,
    /// Message of the error.
    pub message: String,
    /// Stack of the error.
    #[serde(default)]
    pub stack: Option<String>,
}

/// Message of a worker on the control channel, one line each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromWorker {
    /// The shim serves its socket.
    Ready {
        /// The worker's Bun version.
        bun: String,
    },
    /// The function wrote a log message with `console`.
    Log {
        /// `debug`, `info`, `warn` or `error`.
        level: LogLevel,
        /// The invocation that wrote it; `None` for output during import.
        invocation: Option<String>,
        /// Text of the message, which may have several lines.
        message: String,
        /// Messages lost before this one because the channel was full.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dropped: Option<u32>,
    },
    /// A promise rejection or a thrown error was not handled.
    Rejection {
        /// The invocation that it belongs to, if known or inferred.
        invocation: Option<String>,
        /// Message of the error.
        message: String,
        /// Stack of the error.
        #[serde(default)]
        stack: Option<String>,
        /// Whether the invocation is inferred: the only running one, or else the last one.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        guessed: bool,
        /// Messages lost before this one, as for [`Self::Log`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dropped: Option<u32>,
    },
    /// An invocation that ended for its caller has now ended in the worker too.
    Settled {
        /// The invocation.
        invocation: String,
    },
    /// Answer to a ping: the event loop is running.
    Pong {
        /// Number of the ping that it answers.
        number: u64,
    },
}

/// Message of the daemon on the control channel, one line each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker {
    /// The daemon has dropped the connection of an invocation, and asks for a `settled` message.
    Dropped {
        /// The invocation.
        invocation: String,
    },
    /// Checks whether the event loop is running.
    Ping {
        /// Number of the ping; the answer repeats it.
        number: u64,
    },
}

/// Level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Detail for debugging.
    Debug,
    /// Normal event.
    Info,
    /// Possible problem.
    Warn,
    /// Failure.
    Error,
}

impl LogLevel {
    /// Returns the level's name on the wire.
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

/// Output of the syntax check of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyntaxCheck {
    /// Whether the file parses.
    pub ok: bool,
    /// Names that the file exports.
    #[serde(default)]
    pub exports: Vec<String>,
    /// Whether the file is CommonJS. Its exports are known only after it has run.
    #[serde(default)]
    pub commonjs: bool,
    /// Syntax errors in the file.
    #[serde(default)]
    pub errors: Vec<CodeProblem>,
}

/// Output of the compilation of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compilation {
    /// Whether a compiled form was written.
    pub ok: bool,
    /// Reason why compilation failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Problem or warning in a file of code.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CodeProblem {
    /// Description of the problem.
    pub message: String,
    /// Path of the file, relative to the project; absent in the check of one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line number, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column number, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Text of that line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_text: Option<String>,
}

/// Result that the build of a project writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildResult {
    /// Whether the build wrote a bundle.
    pub ok: bool,
    /// Problems that prevented a bundle.
    pub problems: Vec<CodeProblem>,
    /// Warnings of a build, which do not prevent a bundle.
    pub warnings: Vec<CodeProblem>,
}

/// File name of the bundle that a build writes.
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

    /// Reads a golden message and writes it back, which shows that every field is known here by name and type.
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
                // A check also reports imports, which the daemon does not use.
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
