//! One key of the configuration, and the field that holds its value.

use super::{
    Config,
    value::{ConfigValue, Raw, Rule},
};
use crate::model::{Setting, SettingValues};
use std::fmt;

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Immediately, when the file changes or the daemon receives SIGHUP.
    Live,
    /// At the next start of the daemon.
    Restart,
}

/// One key of the configuration.
#[derive(Clone, Copy)]
pub struct Key {
    /// Section of the file.
    pub section: &'static str,
    /// Name within the section.
    pub name: &'static str,
    /// Description in one sentence or two.
    pub doc: &'static str,
    /// Time at which a change takes effect.
    pub reload: Reload,
    pub(super) rule: Rule,
    pub(super) field: &'static dyn Field,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

impl Key {
    /// Returns the key of the default of a function's setting.
    pub(super) fn of_setting(setting: &'static Setting) -> Self {
        let rule = match setting.values {
            SettingValues::Numbers(min, max) => Rule::Number(min, max),
            SettingValues::Words(words) => Rule::Choice(words),
        };
        let Setting { key, doc, .. } = setting;
        Self { section: "functions", name: key, doc, reload: Reload::Live, rule, field: setting }
    }

    /// Returns the key as errors and flags name it: `daemon.socket`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Returns the environment variable that sets the key.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("LEVAIN_{}_{}", self.section, self.name).to_ascii_uppercase()
    }

    /// Returns the key's value in a configuration, as TOML.
    #[must_use]
    pub fn value(&self, config: &Config) -> String {
        self.field.show(config)
    }
}

/// Access to the value of one key.
pub(super) trait Field: Sync {
    /// Parses and sets the value; `None` if the rule forbids it.
    fn set(&self, config: &mut Config, raw: Raw<'_>, rule: &Rule) -> Option<()>;

    /// Formats the value as TOML.
    fn show(&self, config: &Config) -> String;

    /// Sets the value to that of another configuration.
    fn copy(&self, config: &mut Config, from: &Config);

    /// Makes the value absolute if it is a relative path.
    fn make_absolute(&self, _: &mut Config, _: &Rule) -> Result<(), String> {
        Ok(())
    }
}

/// A field of a section.
pub(super) struct Lens<T> {
    pub(super) get: fn(&Config) -> &T,
    pub(super) get_mut: fn(&mut Config) -> &mut T,
}

impl<T: ConfigValue + Clone> Field for Lens<T> {
    fn set(&self, config: &mut Config, raw: Raw<'_>, rule: &Rule) -> Option<()> {
        *(self.get_mut)(config) = T::read(raw, rule)?;
        Some(())
    }

    fn show(&self, config: &Config) -> String {
        (self.get)(config).show()
    }

    fn copy(&self, config: &mut Config, from: &Config) {
        (self.get_mut)(config).clone_from((self.get)(from));
    }

    fn make_absolute(&self, config: &mut Config, rule: &Rule) -> Result<(), String> {
        if let Some(absolute) = (self.get)(config).absolute(rule) {
            *(self.get_mut)(config) = absolute?;
        }
        Ok(())
    }
}

impl Field for Setting {
    fn set(&self, config: &mut Config, raw: Raw<'_>, rule: &Rule) -> Option<()> {
        let value = match self.values {
            SettingValues::Numbers(..) => u32::read(raw, rule)?.into(),
            SettingValues::Words(_) => String::read(raw, rule)?.into(),
        };
        config.functions = config.functions.with_value(self.key, value).ok()?;
        Some(())
    }

    fn show(&self, config: &Config) -> String {
        config.functions.value(self.key).to_string()
    }

    fn copy(&self, config: &mut Config, from: &Config) {
        let value = from.functions.value(self.key);
        config.functions = config.functions.with_value(self.key, value).expect("the value was valid");
    }
}
