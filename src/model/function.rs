//! A function and its settings.

use super::{FunctionId, FunctionName, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Progress of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FunctionStatus {
    /// Registered by name, without a version.
    Registered,
    /// At least one version exists, but no alias points at any.
    Built,
    /// `LIVE` points at a version.
    Deployed,
    /// Gone for every command; rows and bundles are kept for audit.
    Deleted,
}

/// A named unit of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Identity, never reused.
    pub id: FunctionId,
    /// Name, free for reuse once the function is deleted.
    pub name: FunctionName,
    /// Runtime; `bun` is the only one.
    pub runtime: String,
    /// Export that is called: `default` or another name.
    pub handler: String,
    /// Progress of the function.
    pub status: FunctionStatus,
    /// Limits its workers run under.
    pub settings: Settings,
    /// Time of registration.
    pub created_at: Timestamp,
    /// Time of the last change to anything about the function.
    pub updated_at: Timestamp,
}

/// Whether a function reaches the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Full access, as the machine has.
    #[default]
    On,
    /// Only the function's own loopback device.
    Off,
}

impl Network {
    /// Both variants with their names.
    pub const ALL: [(&str, Self); 2] = [("on", Self::On), ("off", Self::Off)];

    /// Returns `on` or `off`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// Access to a function over HTTP. Over the command socket, every peer that may connect may invoke it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Anybody may invoke the function.
    #[default]
    Public,
    /// A token with the scope `invoke` is required, for all functions or for this one.
    Token,
}

impl Auth {
    /// Both variants with their names.
    pub const ALL: [(&str, Self); 2] = [("public", Self::Public), ("token", Self::Token)];

    /// Returns `public` or `token`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Token => "token",
        }
    }
}

/// Description of a numeric setting, for code that handles all of them alike.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name, the same in every interface.
    pub key: &'static str,
    /// Purpose, as shown to users.
    pub doc: &'static str,
    /// Smallest allowed value.
    pub min: u32,
    /// Largest allowed value.
    pub max: u32,
    /// Reads the value.
    pub get: fn(&Settings) -> u32,
    /// Returns its place in a patch.
    pub place: fn(&mut SettingsPatch) -> &mut Option<u32>,
}

/// Defines the numeric settings, each with its range.
macro_rules! settings {
    ($(#[doc = $doc:literal] $key:ident: $min:literal..=$max:literal;)*) => {
        /// The limits of a function's workers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub struct Settings {
            $(#[doc = $doc] pub $key: u32,)*
            /// Whether the function reaches the network.
            pub network: Network,
            /// Access over HTTP; absent in rows written before the setting existed.
            #[serde(default)]
            pub auth: Auth,
        }

        /// Settings to change; absent fields keep their value.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct SettingsPatch {
            $(
                #[doc = $doc]
                #[serde(default, skip_serializing_if = "Option::is_none")]
                #[schemars(range(min = $min, max = $max))]
                pub $key: Option<u32>,
            )*
            /// Whether the function reaches the network.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub network: Option<Network>,
            /// Access over HTTP.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub auth: Option<Auth>,
        }

        impl Settings {
            /// Numeric settings in display order.
            pub const ALL: &[Setting] = &[$(Setting {
                key: stringify!($key),
                doc: $doc,
                min: $min,
                max: $max,
                get: |settings| settings.$key,
                place: |patch| &mut patch.$key,
            },)*];

            /// Applies a patch. Fails if the result is outside its ranges.
            pub fn with(mut self, patch: &SettingsPatch) -> Result<Self, SettingsError> {
                $(if let Some(found) = patch.$key {
                    if !($min..=$max).contains(&found) {
                        return Err(SettingsError::OutOfRange { key: stringify!($key), found, min: $min, max: $max });
                    }
                    self.$key = found;
                })*
                self.network = patch.network.unwrap_or(self.network);
                self.auth = patch.auth.unwrap_or(self.auth);
                if self.warm_workers > self.workers_max() {
                    return Err(SettingsError::FloorAboveCeiling { warm: self.warm_workers, max: self.workers_max() });
                }
                Ok(self)
            }
        }
    };
}

settings! {
    /// Memory of one worker, in MiB; a worker over it is ended with `OUT_OF_MEMORY`.
    memory_mb: 32..=65_536;
    /// Time of one invocation, in seconds, the wait for a worker included.
    timeout_seconds: 1..=86_400;
    /// Invocations of one version that may run at once.
    max_concurrent_executions: 1..=1_000;
    /// Workers that are kept while the function is idle.
    warm_workers: 0..=1_000;
    /// Invocations that one worker runs at once, interleaved.
    worker_concurrency: 1..=1_000;
    /// How long a worker above `warm_workers` stays idle before it stops, in seconds.
    idle_timeout_seconds: 1..=86_400;
    /// Invocations that may wait for a worker; one more is refused with `OVERLOADED`.
    queue_max: 0..=100_000;
    /// Invocations after which a worker is replaced; 0 means never. Each worker gets up to a tenth less, so that workers are not replaced together.
    max_requests_per_worker: 0..=1_000_000_000;
    /// Age at which a worker is replaced, in seconds; 0 means never. Each worker gets up to a tenth less, so that workers are not replaced together.
    max_age_seconds: 0..=31_536_000;
}

/// Settings that are not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A value is out of its range.
    #[error("{key} is {found}: it must be from {min} to {max}")]
    OutOfRange {
        /// Name of the setting.
        key: &'static str,
        /// Requested value.
        found: u32,
        /// Smallest allowed value.
        min: u32,
        /// Largest allowed value.
        max: u32,
    },
    /// `warm_workers` is above the number of workers that may run.
    #[error("warm_workers is {warm}: max_concurrent_executions and worker_concurrency allow for {max} workers")]
    FloorAboveCeiling {
        /// Workers to keep.
        warm: u32,
        /// Workers allowed.
        max: u32,
    },
}

impl Settings {
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

    const SETTINGS: Settings = Settings {
        memory_mb: 256,
        timeout_seconds: 30,
        max_concurrent_executions: 10,
        warm_workers: 0,
        worker_concurrency: 1,
        idle_timeout_seconds: 300,
        queue_max: 128,
        max_requests_per_worker: 0,
        max_age_seconds: 0,
        network: Network::On,
        auth: Auth::Public,
    };

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let patch = SettingsPatch { timeout_seconds: Some(5), ..SettingsPatch::default() };
        assert_eq!(SETTINGS.with(&patch), Ok(Settings { timeout_seconds: 5, ..SETTINGS }));
    }

    #[test]
    fn impossible_settings_are_refused_with_the_range() {
        let patch = SettingsPatch { timeout_seconds: Some(0), ..SettingsPatch::default() };
        let error = SETTINGS.with(&patch).expect_err("0 seconds is below the minimum");
        assert_eq!(error.to_string(), "timeout_seconds is 0: it must be from 1 to 86400");
        let patch = SettingsPatch { warm_workers: Some(11), ..SettingsPatch::default() };
        assert!(matches!(SETTINGS.with(&patch), Err(SettingsError::FloorAboveCeiling { warm: 11, max: 10 })));
        let patch = SettingsPatch { warm_workers: Some(4), worker_concurrency: Some(4), ..SettingsPatch::default() };
        assert!(matches!(SETTINGS.with(&patch), Err(SettingsError::FloorAboveCeiling { warm: 4, max: 3 })));
    }
}
