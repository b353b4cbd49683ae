//! A function and its settings.

use super::{FunctionId, FunctionName, Timestamp};
use serde::{Deserialize, Serialize};

/// How far a function has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionStatus {
    /// It has a name and no version.
    Registered,
    /// It has a version, and no alias points at one.
    Built,
    /// `LIVE` points at a version.
    Deployed,
    /// It is gone for every command; its rows and bundles are kept for audit.
    Deleted,
}

/// A named unit of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its identity, never used again.
    pub id: FunctionId,
    /// Its name, free again once the function is deleted.
    pub name: FunctionName,
    /// What runs it; `bun` is the only runtime.
    pub runtime: String,
    /// The export that is called: `default`, or the name of another.
    pub handler: String,
    /// How far it has come.
    pub status: FunctionStatus,
    /// The limits its workers run under.
    pub settings: Settings,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When anything about it last changed.
    pub updated_at: Timestamp,
}

/// The limits of a function's workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Memory of one worker, in MiB; a worker over it is killed with `OUT_OF_MEMORY`.
    pub memory_mb: u32,
    /// Time of one invocation, in seconds, the wait for a worker included.
    pub timeout_seconds: u32,
    /// Workers of one version at once, and so invocations running at once.
    pub max_concurrent_executions: u32,
    /// Workers that stay when the function is idle.
    pub warm_workers: u32,
    /// How long a worker above `warm_workers` stays idle before it stops, in seconds.
    pub idle_timeout_seconds: u32,
    /// Invocations that may wait for a worker; one more is refused with `OVERLOADED`.
    pub queue_max: u32,
}

/// Settings to change; what is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsPatch {
    /// See [`Settings::memory_mb`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// See [`Settings::timeout_seconds`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
    /// See [`Settings::max_concurrent_executions`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_executions: Option<u32>,
    /// See [`Settings::warm_workers`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_workers: Option<u32>,
    /// See [`Settings::idle_timeout_seconds`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<u32>,
    /// See [`Settings::queue_max`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_max: Option<u32>,
}

/// A setting outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// One value is out of its range.
    #[error("{key} is {found}: it must be from {min} to {max}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// What was asked for.
        found: u32,
        /// The least it may be.
        min: u32,
        /// The most it may be.
        max: u32,
    },
    /// The floor is above the ceiling.
    #[error("warm_workers is {warm}: it cannot be more than max_concurrent_executions, which is {max}")]
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

    /// These settings with the given ones changed, if the result is within its ranges.
    pub fn with(mut self, patch: &SettingsPatch) -> Result<Self, SettingsError> {
        let set = |value: &mut u32, key, given: Option<u32>, min, max| match given {
            Some(found) if found < min || found > max => Err(SettingsError::OutOfRange { key, found, min, max }),
            Some(found) => {
                *value = found;
                Ok(())
            }
            None => Ok(()),
        };
        set(&mut self.memory_mb, "memory_mb", patch.memory_mb, 32, 65_536)?;
        set(&mut self.timeout_seconds, "timeout_seconds", patch.timeout_seconds, 1, 86_400)?;
        let max = patch.max_concurrent_executions;
        set(&mut self.max_concurrent_executions, "max_concurrent_executions", max, 1, 1_000)?;
        set(&mut self.warm_workers, "warm_workers", patch.warm_workers, 0, 1_000)?;
        set(&mut self.idle_timeout_seconds, "idle_timeout_seconds", patch.idle_timeout_seconds, 1, 86_400)?;
        set(&mut self.queue_max, "queue_max", patch.queue_max, 0, 100_000)?;
        if self.warm_workers > self.max_concurrent_executions {
            let (warm, max) = (self.warm_workers, self.max_concurrent_executions);
            return Err(SettingsError::FloorAboveCeiling { warm, max });
        }
        Ok(self)
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
        idle_timeout_seconds: 300,
        queue_max: 128,
    };

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let patch = SettingsPatch { timeout_seconds: Some(5), ..SettingsPatch::default() };
        assert_eq!(SETTINGS.with(&patch), Ok(Settings { timeout_seconds: 5, ..SETTINGS }));
    }

    #[test]
    fn impossible_settings_are_refused_with_the_range() {
        let patch = SettingsPatch { timeout_seconds: Some(0), ..SettingsPatch::default() };
        let error = SETTINGS.with(&patch).expect_err("0 seconds is no time");
        assert_eq!(error.to_string(), "timeout_seconds is 0: it must be from 1 to 86400");
        let patch = SettingsPatch { warm_workers: Some(11), ..SettingsPatch::default() };
        assert!(matches!(SETTINGS.with(&patch), Err(SettingsError::FloorAboveCeiling { warm: 11, max: 10 })));
    }
}
