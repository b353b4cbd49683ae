//! Typed views of the values: durations, sizes, and options in place of empty texts.

use super::schema::{
    BuildConfig, DaemonConfig, HttpConfig, LimitsConfig, LogsConfig, PreviewsConfig, VariablesConfig, VersioningConfig,
    WorkersConfig,
};
use std::{path::Path, time::Duration};

/// Defines methods that return fields as durations.
macro_rules! durations {
    ($($section:ident: $name:ident = $field:ident $unit:ident;)*) => {
        $(impl $section {
            #[doc = concat!("See [`Self::", stringify!($field), "`].")]
            #[must_use]
            pub fn $name(&self) -> Duration {
                $unit(self.$field)
            }
        })*
    };
}

fn milliseconds(number: u32) -> Duration {
    Duration::from_millis(number.into())
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

fn hours(number: u32) -> Duration {
    Duration::from_secs(u64::from(number) * 3_600)
}

durations! {
    DaemonConfig: shutdown_grace = shutdown_grace_ms milliseconds;
    WorkersConfig: start_timeout = start_timeout_ms milliseconds;
    WorkersConfig: queue_timeout = queue_timeout_ms milliseconds;
    WorkersConfig: blocked = blocked_ms milliseconds;
    WorkersConfig: kill_grace = kill_grace_ms milliseconds;
    WorkersConfig: memory_poll = memory_poll_ms milliseconds;
    VariablesConfig: renew_timeout = renew_timeout_ms milliseconds;
    VersioningConfig: rollback_warm = rollback_warm_seconds seconds;
    PreviewsConfig: ttl = ttl_hours hours;
    HttpConfig: head_timeout = head_timeout_ms milliseconds;
    HttpConfig: body_timeout = body_timeout_ms milliseconds;
    HttpConfig: stream_max = stream_seconds_max seconds;
    BuildConfig: timeout = timeout_ms milliseconds;
    LimitsConfig: frame_timeout = frame_timeout_ms milliseconds;
    LimitsConfig: archive_timeout = archive_timeout_ms milliseconds;
    LogsConfig: flush_interval = flush_interval_ms milliseconds;
    LogsConfig: retention = retention_hours hours;
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
}

impl LogsConfig {
    /// See [`Self::database_mb_max`].
    #[must_use]
    pub fn database_bytes_max(&self) -> u64 {
        u64::from(self.database_mb_max) << 20
    }
}
