//! The daemon's own log: text for a terminal, JSON otherwise. Its level can be changed while the daemon runs.

use std::io::IsTerminal;
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{self, time::SystemTime},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

/// Format of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text, with colours on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the log cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is not a valid filter.
    #[error(
        "log level `{level}` is not valid ({cause}): use error, warn, info, debug or trace, or directives such as info,levain::scheduler=debug"
    )]
    Level {
        /// The given level.
        level: String,
        /// Reason.
        cause: String,
    },
    /// The process already has a log.
    #[error("the log is already set up")]
    Taken,
}

/// Handle that changes the level of a running log.
#[derive(Debug, Clone)]
pub struct LevelHandle(reload::Handle<EnvFilter, Registry>);

impl LevelHandle {
    /// Applies a level, or directives such as `info,levain::scheduler=debug`.
    pub fn set(&self, level: &str) -> Result<(), LoggingError> {
        self.0.reload(filter(level)?).map_err(|_| LoggingError::Taken)
    }
}

fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::try_new(level).map_err(|cause| LoggingError::Level { level: level.into(), cause: cause.to_string() })
}

/// Sets up the log of this process, on stderr.
pub fn init(format: Format, level: &str) -> Result<LevelHandle, LoggingError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let terminal = std::io::stderr().is_terminal();
    let text = format == Format::Text || (format == Format::Auto && terminal);
    let registry = tracing_subscriber::registry().with(filter);
    let done = if text {
        let layer =
            fmt::layer().with_writer(std::io::stderr).with_ansi(terminal).with_target(false).with_timer(SystemTime);
        registry.with(layer).try_init()
    } else {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
    };
    done.map_err(|_| LoggingError::Taken)?;
    Ok(LevelHandle(handle))
}
