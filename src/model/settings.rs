//! Settings of a function.
//!
//! The table below is the only list of settings, with their defaults and ranges. The structs, the section `[functions]`
//! of the configuration, the columns of the database, the flags of the command line and the schema of the API are
//! generated from it: a new setting is one line here and one migration.

use super::words::words;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

words! {
    /// Whether a function reaches the network.
    #[derive(Default)]
    Network {
        /// Full access, as the machine has.
        #[default]
        On = "on",
        /// Only the function's own loopback device.
        Off = "off",
    }
}

words! {
    /// Access to a function over HTTP. Over the command socket, every peer that may connect may invoke it.
    #[derive(Default)]
    Auth {
        /// Anybody may invoke the function.
        #[default]
        Public = "public",
        /// A token with the scope `invoke` is required, for all functions or for this one.
        Token = "token",
    }
}

/// Description of a setting, for code that handles all of them alike.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name, the same in every interface.
    pub key: &'static str,
    /// Purpose, as shown to users.
    pub doc: &'static str,
    /// Values that it may have.
    pub values: SettingValues,
}

/// Values that a setting may have.
#[derive(Debug, Clone, Copy)]
pub enum SettingValues {
    /// Whole numbers between these two, inclusive.
    Numbers(u32, u32),
    /// These words.
    Words(&'static [&'static str]),
}

impl Setting {
    /// Parses a value, as the field of [`Settings`] or [`SettingsPatch`] has it in JSON. The error says what is allowed.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let key = self.key;
        match self.values {
            SettingValues::Numbers(min, max) => match text.parse::<u32>() {
                Ok(number) if (min..=max).contains(&number) => Ok(number.into()),
                _ => Err(format!("{key} is a whole number from {min} to {max}, not `{text}`")),
            },
            SettingValues::Words(words) if words.contains(&text) => Ok(text.into()),
            SettingValues::Words(words) => Err(format!("{key} is `{}`, not `{text}`", words.join("` or `"))),
        }
    }
}

macro_rules! settings {
    (
        numbers { $(#[doc = $doc:literal] $key:ident = $default:literal, $min:literal..=$max:literal;)* }
        words { $(#[doc = $word_doc:literal] $word_key:ident: $word:ident;)* }
    ) => {
        /// The settings of a function. A row written before a setting existed has its default.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(default)]
        pub struct Settings {
            $(#[doc = $doc] pub $key: u32,)*
            $(#[doc = $word_doc] pub $word_key: $word,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($key: $default,)* $($word_key: $word::default(),)* }
            }
        }

        /// Settings to change; absent fields keep their value.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct SettingsPatch {
            $(
                #[doc = $doc]
                #[serde(skip_serializing_if = "Option::is_none")]
                #[schemars(range(min = $min, max = $max))]
                pub $key: Option<u32>,
            )*
            $(
                #[doc = $word_doc]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $word_key: Option<$word>,
            )*
        }

        impl Settings {
            /// Every setting, in display order.
            pub const ALL: &[Setting] = &[
                $(Setting { key: stringify!($key), doc: $doc.trim_ascii(), values: SettingValues::Numbers($min, $max) },)*
                $(Setting {
                    key: stringify!($word_key),
                    doc: $word_doc.trim_ascii(),
                    values: SettingValues::Words($word::NAMES),
                },)*
            ];

            /// Applies a patch. Fails if the result is outside its ranges.
            pub fn with(mut self, patch: &SettingsPatch) -> Result<Self, SettingsError> {
                $(if let Some(found) = patch.$key {
                    if !($min..=$max).contains(&found) {
                        return Err(SettingsError::OutOfRange { key: stringify!($key), found, min: $min, max: $max });
                    }
                    self.$key = found;
                })*
                $(self.$word_key = patch.$word_key.unwrap_or(self.$word_key);)*
                if self.warm_workers > self.workers_max() {
                    return Err(SettingsError::FloorAboveCeiling { warm: self.warm_workers, max: self.workers_max() });
                }
                Ok(self)
            }
        }
    };
}

settings! {
    numbers {
        /// Private memory of one worker, in MiB; a worker over it is ended with OUT_OF_MEMORY.
        memory_mb = 256, 32..=65_536;
        /// Time of one invocation, in seconds, including the wait for a worker.
        timeout_seconds = 30, 1..=86_400;
        /// Invocations of one version that may run at once.
        max_concurrent_executions = 10, 1..=1_000;
        /// Workers of the live version that are kept while it is not invoked.
        warm_workers = 0, 0..=1_000;
        /// Invocations that one worker runs at once, interleaved; more than 1 suits functions that mostly wait.
        worker_concurrency = 1, 1..=1_000;
        /// Time after which an idle worker beyond warm_workers stops, in seconds.
        idle_timeout_seconds = 300, 1..=86_400;
        /// Invocations that may wait while all workers are busy; further ones are refused with OVERLOADED.
        queue_max = 128, 0..=100_000;
        /// Invocations after which a worker is replaced; 0: no limit. Each worker gets up to a tenth less, so that workers are not replaced together.
        max_requests_per_worker = 0, 0..=1_000_000_000;
        /// Age at which a worker is replaced, in seconds; 0: no limit. Each worker gets up to a tenth less, so that workers are not replaced together.
        max_age_seconds = 0, 0..=31_536_000;
    }
    words {
        /// Network access. on: as the machine; off: only the function's own loopback device.
        network: Network;
        /// Access over HTTP. public: everybody may invoke the function; token: clients with a token of the scope invoke.
        auth: Auth;
    }
}

/// Settings that are not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SettingsError {
    #[error("{key} is {found}: it must be from {min} to {max}")]
    OutOfRange { key: &'static str, found: u32, min: u32, max: u32 },
    #[error("warm_workers is {warm}: max_concurrent_executions and worker_concurrency allow for {max} workers")]
    FloorAboveCeiling { warm: u32, max: u32 },
}

impl Settings {
    /// Returns the settings with their values, in display order: numbers, and words as texts.
    pub fn values(&self) -> impl Iterator<Item = (&'static Setting, Value)> {
        let mut fields = self.fields();
        Self::ALL.iter().map(move |setting| (setting, fields.remove(setting.key).unwrap_or_default()))
    }

    /// Returns the value of the setting with this key, in the form of [`Self::values`].
    #[must_use]
    pub fn value(&self, key: &str) -> Value {
        self.fields().remove(key).unwrap_or_default()
    }

    /// Returns the settings with another value for one of them, in the form of [`Self::values`].
    pub fn with_value(&self, key: &str, value: Value) -> Result<Self, serde_json::Error> {
        let mut fields = self.fields();
        fields.insert(key.to_owned(), value);
        serde_json::from_value(fields.into())
    }

    fn fields(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            other => unreachable!("settings are plain data: {other:?}"),
        }
    }

    /// Private memory of one worker, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        u64::from(self.memory_mb) << 20
    }

    /// Number of workers needed to run `max_concurrent_executions` invocations at once.
    #[must_use]
    pub fn workers_max(&self) -> u32 {
        self.max_concurrent_executions.div_ceil(self.worker_concurrency.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let patch = SettingsPatch { timeout_seconds: Some(5), ..SettingsPatch::default() };
        let settings = Settings::default();
        assert_eq!(settings.with(&patch), Ok(Settings { timeout_seconds: 5, ..settings }));
    }

    #[test]
    fn impossible_settings_are_refused_with_the_range() {
        let refused = |patch: &SettingsPatch| Settings::default().with(patch).expect_err("impossible");
        let error = refused(&SettingsPatch { timeout_seconds: Some(0), ..SettingsPatch::default() });
        assert_eq!(error.to_string(), "timeout_seconds is 0: it must be from 1 to 86400");
        let patch = SettingsPatch { warm_workers: Some(11), ..SettingsPatch::default() };
        assert!(matches!(refused(&patch), SettingsError::FloorAboveCeiling { warm: 11, max: 10 }));
        let patch = SettingsPatch { warm_workers: Some(4), worker_concurrency: Some(4), ..SettingsPatch::default() };
        assert!(matches!(refused(&patch), SettingsError::FloorAboveCeiling { warm: 4, max: 3 }));
    }

    #[test]
    fn every_setting_has_a_valid_default_that_is_parsed_and_documented() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/functions.md");
        let guide = std::fs::read_to_string(path).expect("the guide");
        for (setting, value) in Settings::default().values() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(setting.parse(&text), Ok(value.clone()));
            let shown = if value.is_string() { format!("`{text}`") } else { text };
            let row = format!("\n| `{}` | {shown} ", setting.key);
            assert!(guide.contains(&row), "the settings in docs/functions.md lack the row{row}…");
        }
    }

    #[test]
    fn a_row_without_a_setting_has_its_default() {
        let settings: Settings = serde_json::from_str(r#"{"memory_mb": 64}"#).expect("settings");
        assert_eq!(settings, Settings { memory_mb: 64, ..Settings::default() });
    }
}
