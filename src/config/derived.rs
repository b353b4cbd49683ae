//! Typed views of the values: durations, sizes, and options in place of empty texts.

use super::{
    BuildConfig, DaemonConfig, HttpConfig, LimitsConfig, LogsConfig, PreviewsConfig, VariablesConfig, VersioningConfig,
    WorkersConfig,
};
use std::{path::Path, time::Duration};

const fn milliseconds(number: u32) -> Duration {
    Duration::from_millis(number as u64)
}

impl DaemonConfig {
    /// See [`Self::shutdown_grace_ms`].
    #[must_use]
    pub fn shutdown_grace(&self) -> Duration {
        milliseconds(self.shutdown_grace_ms)
    }
}

impl WorkersConfig {
    /// See [`Self::start_timeout_ms`].
    #[must_use]
    pub fn start_timeout(&self) -> Duration {
        milliseconds(self.start_timeout_ms)
    }

    /// See [`Self::queue_timeout_ms`].
    #[must_use]
    pub fn queue_timeout(&self) -> Duration {
        milliseconds(self.queue_timeout_ms)
    }

    /// See [`Self::blocked_ms`].
    #[must_use]
    pub fn blocked(&self) -> Duration {
        milliseconds(self.blocked_ms)
    }

    /// See [`Self::kill_grace_ms`].
    #[must_use]
    pub fn kill_grace(&self) -> Duration {
        milliseconds(self.kill_grace_ms)
    }

    /// See [`Self::memory_poll_ms`].
    #[must_use]
    pub fn memory_poll(&self) -> Duration {
        milliseconds(self.memory_poll_ms)
    }
}

impl VariablesConfig {
    /// See [`Self::renew_timeout_ms`].
    #[must_use]
    pub fn renew_timeout(&self) -> Duration {
        milliseconds(self.renew_timeout_ms)
    }
}

impl VersioningConfig {
    /// See [`Self::rollback_warm_seconds`].
    #[must_use]
    pub fn rollback_warm(&self) -> Duration {
        Duration::from_secs(self.rollback_warm_seconds.into())
    }
}

impl PreviewsConfig {
    /// See [`Self::ttl_hours`].
    #[must_use]
    pub fn ttl(&self) -> Duration {
        Duration::from_secs(u64::from(self.ttl_hours) * 3_600)
    }
}

impl HttpConfig {
    /// Address to listen on; `None` if HTTP is off.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        Some(self.address.as_str()).filter(|it| !it.is_empty() && *it != "off")
    }

    /// Files of the certificate and the key; `None` if TLS is off.
    #[must_use]
    pub fn tls_files(&self) -> Option<(&Path, &Path)> {
        let are_set = !self.tls_certificate.is_empty() && !self.tls_key.is_empty();
        are_set.then(|| (Path::new(&self.tls_certificate), Path::new(&self.tls_key)))
    }

    /// See [`Self::head_timeout_ms`].
    #[must_use]
    pub fn head_timeout(&self) -> Duration {
        milliseconds(self.head_timeout_ms)
    }

    /// See [`Self::body_timeout_ms`].
    #[must_use]
    pub fn body_timeout(&self) -> Duration {
        milliseconds(self.body_timeout_ms)
    }

    /// See [`Self::stream_seconds_max`].
    #[must_use]
    pub fn stream_max(&self) -> Duration {
        Duration::from_secs(self.stream_seconds_max.into())
    }
}

impl BuildConfig {
    /// See [`Self::timeout_ms`].
    #[must_use]
    pub fn timeout(&self) -> Duration {
        milliseconds(self.timeout_ms)
    }
}

impl LimitsConfig {
    /// See [`Self::frame_timeout_ms`].
    #[must_use]
    pub fn frame_timeout(&self) -> Duration {
        milliseconds(self.frame_timeout_ms)
    }

    /// See [`Self::archive_timeout_ms`].
    #[must_use]
    pub fn archive_timeout(&self) -> Duration {
        milliseconds(self.archive_timeout_ms)
    }
}

impl LogsConfig {
    /// See [`Self::flush_interval_ms`].
    #[must_use]
    pub fn flush_interval(&self) -> Duration {
        milliseconds(self.flush_interval_ms)
    }

    /// See [`Self::retention_hours`].
    #[must_use]
    pub fn retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.retention_hours) * 3_600)
    }

    /// See [`Self::database_mb_max`].
    #[must_use]
    pub fn database_bytes_max(&self) -> u64 {
        u64::from(self.database_mb_max) << 20
    }
}
