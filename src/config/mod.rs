//! The configuration: every key, its default, and the origin of each value.
//!
//! [`schema`] is the list of keys. Layers, of which later ones win: the defaults, the file, `LEVAIN_<SECTION>_<KEY>`
//! variables, flags. `LEVAIN_SOCKET` and `LEVAIN_DATA_DIR` are short names for two variables; the long names take
//! precedence.

mod derived;
mod error;
mod file;
mod load;
mod paths;
mod schema;
mod suggest;
mod value;

pub use error::{ConfigError, Problem, ValueOrigin};
pub use load::{ConfigRow, Effective, load, load_from};
pub use schema::*;
pub(crate) use suggest::meant;
pub use value::{Bytecode, ErrorDetails, LogFormat, Metrics, SandboxLevel, SandboxMode, Switch, Verify};

impl Config {
    /// Returns this configuration with the live keys of another: the configuration after a reload. Keys that need a
    /// restart keep their values, so that no change takes effect halfway, and [`diff`] goes on listing them.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let mut config = self.clone();
        for key in KEYS.iter().filter(|key| key.reload == Reload::Live) {
            key.field.copy(&mut config, new);
        }
        config
    }
}

/// Keys with different values, grouped by the time at which the difference takes effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that change immediately.
    pub live: Vec<String>,
    /// Keys that change at the next start.
    pub restart: Vec<String>,
}

/// Returns the keys that differ between two configurations.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Changes {
    let mut changes = Changes::default();
    for key in KEYS.iter().filter(|key| key.value(old) != key.value(new)) {
        match key.reload {
            Reload::Live => changes.live.push(key.path()),
            Reload::Restart => changes.restart.push(key.path()),
        }
    }
    changes
}

/// Returns the text of `config.toml`: every key with its default and its description.
#[must_use]
pub fn reference_toml() -> String {
    let mut text = String::from(
        "# Every key with its default. A key that is left out keeps its default.\n\
         # Relative paths start at the folder in which the daemon is started; `levain config print` shows them absolute.\n\
         # An environment variable LEVAIN_<SECTION>_<KEY> overrides this file, and a flag overrides both.\n\
         # Keys marked (restart) take effect at the next start, all others when this file changes or on SIGHUP.\n",
    );
    let defaults = Config::default();
    for (section, doc) in SECTIONS {
        text += &format!("\n#{doc}\n[{section}]\n");
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let restart = if key.reload == Reload::Restart { " (restart)" } else { "" };
            let range = match key.rule.range() {
                Some((min, max)) => format!(" {min} to {max}."),
                None => String::new(),
            };
            text += &format!("# {}{range}{restart}\n{} = {}\n", key.doc, key.name, key.value(&defaults));
        }
    }
    text
}

#[cfg(test)]
mod tests;
