//! The table of keys.
//!
//! It is the only list of keys, except those of the section `[functions]`, which are the settings of [`Settings::ALL`].
//! The structs, the checks, the names of the environment variables, `config.toml` and the set of reloadable keys are
//! generated from both, so a new key is one line.

use super::value::*;
use crate::model::{Setting, SettingValues, Settings};
use serde::Serialize;
use std::{fmt, sync::LazyLock};

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
    fn of_setting(setting: &'static Setting) -> Self {
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
struct Lens<T> {
    get: fn(&Config) -> &T,
    get_mut: fn(&mut Config) -> &mut T,
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

macro_rules! schema {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident $({
            $($key:ident: $type:ty = $default:expr, $rule:expr, $reload:ident, $doc:literal;)*
        })?
    )*) => {
        /// Every value the daemon can be configured with.
        #[derive(Debug, Clone, PartialEq, Serialize, Default)]
        pub struct Config {
            $($(#[doc = $section_doc])+ pub $section: $Section,)*
        }

        $($(
            /// Values of one section.
            #[derive(Debug, Clone, PartialEq, Serialize)]
            pub struct $Section {
                $(#[doc = $doc] pub $key: $type,)*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($key: <$type>::from($default),)* }
                }
            }
        )?)*

        const OWN_KEYS: &[Key] = &[$($($(Key {
            section: stringify!($section),
            name: stringify!($key),
            doc: $doc,
            reload: Reload::$reload,
            rule: $rule,
            field: &Lens { get: |config| &config.$section.$key, get_mut: |config| &mut config.$section.$key },
        },)*)?)*];

        /// Sections and their descriptions, in the order of `config.toml`.
        pub(super) const SECTIONS: &[(&str, &str)] = &[$((stringify!($section), concat!($($section_doc),+))),*];
    };
}

/// Every key, in the order of `config.toml`.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys: Vec<Key> = OWN_KEYS.iter().copied().chain(Settings::ALL.iter().map(Key::of_setting)).collect();
    keys.sort_by_key(|key| SECTIONS.iter().position(|(section, _)| *section == key.section));
    keys
});

/// Bounds of `versioning.keep_versions` and of the number given to a cleanup.
pub const KEEP_VERSIONS: (u32, u32) = (1, 10_000);

schema! {
    /// The daemon's process.
    daemon: DaemonConfig {
        data_dir: String = "data", Rule::Path(&[]), Restart,
            "Folder of all the daemon's data; a relative path starts at the folder in which the daemon is started.";
        socket: String = "", Rule::Path(&[""]), Restart,
            "Path of the command socket; empty: levain.sock in the data directory. Programs other than levain may need a path of at most 107 bytes.";
        allowed_uids: Vec<u32> = [], Rule::Numbers, Restart,
            "Ids of users that may use the command socket with every command, besides the daemon's own user and root; see docs/protocol.md.";
        allowed_gids: Vec<u32> = [], Rule::Numbers, Restart,
            "Ids of groups whose members may use the command socket too; only a user's primary group counts.";
        log_level: String = "info", Rule::LogLevel, Live,
            "Level of the daemon's own log: error, warn, info, debug or trace, or directives such as info,levain::scheduler=debug.";
        log_format: LogFormat = LogFormat::Auto, Rule::Choice(LogFormat::NAMES), Restart,
            "Format of the daemon's own log: text, json, or auto (text on a terminal and JSON otherwise).";
        shutdown_grace_ms: u32 = 10_000_u32, Rule::Number(0, 3_600_000), Live,
            "Time that running invocations get to finish when the daemon stops.";
    }
    /// Bun, which runs the workers.
    runtime: RuntimeConfig {
        bun: String = "", Rule::Path(&[""]), Restart,
            "Path of the Bun binary; empty: LEVAIN_BUN, then the install in the data directory, then PATH.";
    }
    /// Default settings of functions; a function's own settings override them.
    functions: Settings
    /// Workers of this machine, of all functions together.
    workers: WorkersConfig {
        starts_max: u32 = 0_u32, Rule::Number(0, 1_024), Live,
            "Concurrent starts of workers; 0: twice the number of cores.";
        prewarmed_workers: u32 = 2_u32, Rule::Number(0, 1_000), Live,
            "Prewarmed workers, with which a cold start costs only the import of the function; about 3 MiB each.";
        start_timeout_ms: u32 = 10_000_u32, Rule::Number(100, 600_000), Live,
            "Time limit from the spawn of a worker until its function is loaded.";
        queue_timeout_ms: u32 = 10_000_u32, Rule::Number(1, 3_600_000), Live,
            "Time that an invocation waits for a worker before it is refused with OVERLOADED.";
        memory_poll_ms: u32 = 100_u32, Rule::Number(10, 60_000), Live,
            "Interval at which the memory of workers is measured.";
        workers_max: u32 = 512_u32, Rule::Number(1, 100_000), Live,
            "Workers of all functions at once; if more are needed, the worker idle longest is stopped.";
        memory_mb_max: u32 = 0_u32, Rule::Number(0, 16_777_216), Live,
            "Private memory of all workers together; above it no worker starts and idle ones stop; 0: three quarters of the machine's memory.";
        memory_soft_percent: u32 = 80_u32, Rule::Number(1, 100), Live,
            "Share of its function's memory_mb at which a worker is replaced; 100: no replacement before the limit ends it.";
        blocked_ms: u32 = 1_000_u32, Rule::Number(10, 600_000), Live,
            "Time after which a worker with several invocations gets no further ones if its event loop does not respond.";
        kill_grace_ms: u32 = 1_000_u32, Rule::Number(0, 600_000), Live,
            "Time that an invocation over its limit gets to end, in a worker that runs others, before the worker is ended.";
    }
    /// Isolation of functions from the rest of the machine; docs/isolation.md describes the levels.
    sandbox: SandboxConfig {
        mode: SandboxMode = SandboxMode::Auto, Rule::Choice(SandboxMode::NAMES), Restart,
            "Whether functions are isolated. auto: at the best level that works here; strict: at sandbox.level (auto: privileged or user-namespace), or the daemon does not start; off: functions can do all that the daemon can.";
        level: SandboxLevel = SandboxLevel::Auto, Rule::Choice(SandboxLevel::NAMES), Restart,
            "Best level to try: privileged, user-namespace, shared-proc, landlock, or auto for any.";
        processes_max: u32 = 256_u32, Rule::Number(32, 65_536), Restart,
            "Processes and threads of one worker, including its own dozen.";
        open_files_max: u32 = 1_024_u32, Rule::Number(128, 1_048_576), Restart,
            "Open files, sockets and pipes of one process of a worker; each invocation takes one, and each request it sends another.";
        tmp_mb: u32 = 64_u32, Rule::Number(1, 65_536), Restart,
            "Size of a worker's own /tmp, at the levels that have one; its content counts as the worker's memory.";
    }
    /// Limits on what clients can make the daemon hold.
    limits: LimitsConfig {
        frame_bytes_max: u32 = 16_777_216_u32, Rule::Number(65_536 * 2, 1_073_741_824), Live,
            "Largest frame on the command socket, in either direction.";
        frame_timeout_ms: u32 = 10_000_u32, Rule::Number(10, 600_000), Live,
            "Time limit from the first byte of a frame until it is complete.";
        connections_max: u32 = 1_024_u32, Rule::Number(1, 65_536), Restart,
            "Open connections on the command socket.";
        requests_per_connection_max: u32 = 1_024_u32, Rule::Number(1, 65_536), Live,
            "Concurrent requests on one connection; further ones are not read until others are answered.";
        backlog_bytes_max: u32 = 268_435_456_u32, Rule::Number(1_048_576, 4_294_967_295), Live,
            "Unread answers of all connections together; beyond it, the client that has read nothing for longest is cut off.";
        bundle_bytes_max: u32 = 67_108_864_u32, Rule::Number(1_024, 2_147_483_648), Live,
            "Size of one bundle, all files together.";
        bundle_files_max: u32 = 2_000_u32, Rule::Number(1, 100_000), Live,
            "Number of files in one bundle.";
        archive_ratio_max: u32 = 200_u32, Rule::Number(2, 2_000), Live,
            "Compression ratio of an archive beyond its first unpacked MiB; a higher one is refused as a decompression bomb.";
        archive_timeout_ms: u32 = 60_000_u32, Rule::Number(10, 3_600_000), Live,
            "Time limit for unpacking an archive.";
    }
    /// Builds of code that is not a finished bundle; docs/functions.md describes them.
    build: BuildConfig {
        builds_max: u32 = 2_u32, Rule::Number(1, 64), Restart,
            "Concurrent builds; further ones wait.";
        timeout_ms: u32 = 120_000_u32, Rule::Number(100, 3_600_000), Live,
            "Time limit of one build, including the installation of its packages.";
        memory_mb: u32 = 1_024_u32, Rule::Number(64, 65_536), Live,
            "Private memory of all processes of one build.";
        processes_max: u32 = 256_u32, Rule::Number(32, 65_536), Live,
            "Processes and threads of one build.";
        disk_mb: u32 = 1_024_u32, Rule::Number(16, 1_048_576), Live,
            "Disk space of one build, including packages and sources; measured four times a second.";
        log_bytes_max: u32 = 262_144_u32, Rule::Number(1_024, 4_194_304), Live,
            "Size of the kept output of a build.";
        packages_mb_max: u32 = 2_048_u32, Rule::Number(0, 16_777_216), Live,
            "Size of the cache of installed packages, for later builds with the same lockfile; 0: no cache.";
        registry: String = "", Rule::Text, Live,
            "URL of the npm registry, which overrides a project's .npmrc; empty: the one in .npmrc, or Bun's default.";
    }
    /// The HTTP server: functions below /functions/, management below /api/.
    http: HttpConfig {
        address: String = "127.0.0.1:8080", Rule::Text, Restart,
            "Address and port of the HTTP server; off: no HTTP.";
        connections_max: u32 = 4_096_u32, Rule::Number(1, 65_536), Restart,
            "Open connections; at the limit, the longest idle one is closed for a new one.";
        head_bytes_max: u32 = 32_768_u32, Rule::Number(8_192, 1_048_576), Restart,
            "Largest head of a request; functions accept less, see docs/functions.md.";
        head_timeout_ms: u32 = 30_000_u32, Rule::Number(10, 3_600_000), Restart,
            "Time that a connection waits for the complete head of its next request.";
        body_bytes_max: u32 = 104_857_600_u32, Rule::Number(0, 4_294_967_295), Live,
            "Largest body of a request to a function.";
        body_timeout_ms: u32 = 30_000_u32, Rule::Number(10, 3_600_000), Live,
            "Time that a body may make no progress, in either direction.";
        body_bytes_per_second_min: u32 = 240_u32, Rule::Number(0, 1_000_000), Live,
            "Lowest rate of a request's body in bytes per second, averaged over the waits for it beyond body_timeout_ms; 0: no limit.";
        stream_seconds_max: u32 = 3_600_u32, Rule::Number(1, 604_800), Live,
            "Time limit of a streamed answer that makes progress; its beginning is limited by the function's timeout_seconds.";
        requests_per_connection_max: u32 = 100_000_u32, Rule::Number(0, 1_000_000_000), Live,
            "Requests of one connection, after which it is closed without losing any; 0: no limit.";
        tls_certificate: String = "", Rule::Path(&[""]), Restart,
            "PEM file with the certificate and its chain, read again when it changes; empty: no TLS.";
        tls_key: String = "", Rule::Path(&[""]), Restart,
            "PEM file with the certificate's private key, read again when it changes.";
        functions_domain: String = "", Rule::Domain, Live,
            "Domain under which each function has its own host, such as hello.example.com for hello; empty: only NAME.localhost.";
        error_details: ErrorDetails = ErrorDetails::Auto, Rule::Choice(ErrorDetails::NAMES), Live,
            "Which callers of functions get the stack, last output and message of a failure. full: all; none: nobody; auto: callers with a token, on this machine, or of the environment dev.";
        metrics: Metrics = Metrics::Auto, Rule::Choice(Metrics::NAMES), Live,
            "Access to /metrics. open: everybody; token: clients with a token of the scope read; off: nobody; auto: programs of this machine if http.address is a loopback address, otherwise as token.";
        metrics_versions_max: u32 = 500_u32, Rule::Number(1, 10_000), Live,
            "Versions in /metrics; if there are more, the most invoked ones are shown.";
        access_log: String = "off", Rule::Path(&["", "off", "stdout", "stderr"]), Live,
            "Target of the access log: off, stdout, stderr, or a file, which is reopened at each reload.";
        access_log_query: Switch = Switch::Off, Rule::Choice(Switch::NAMES), Live,
            "Whether the access log includes the queries of requests, which may contain secrets: on or off.";
        cors_origin: String = "", Rule::Text, Live,
            "Origin whose pages may call functions, or * for all; empty: functions answer preflight requests themselves.";
    }
    /// Variables that functions find in process.env; see docs/variables.md.
    variables: VariablesConfig {
        count_max: u32 = 500_u32, Rule::Number(1, 10_000), Live,
            "Variables of one function in one environment; the same limit holds for those of all functions or all environments.";
        value_bytes_max: u32 = 65_536_u32, Rule::Number(64, 1_048_576), Live,
            "Longest value.";
        total_bytes_max: u32 = 1_048_576_u32, Rule::Number(1_024, 16_777_216), Live,
            "Total size of the names and values of one function in one environment.";
        renew_timeout_ms: u32 = 10_000_u32, Rule::Number(0, 600_000), Live,
            "Time that a change waits until no invocation gets a worker with the old values; afterwards it reports that some still do.";
    }
    /// Storage of secrets; see docs/secrets.md.
    secrets: SecretsConfig {
        master_key_file: String = "", Rule::Path(&[""]), Restart,
            "File with the master key, for example a service manager's credential; empty: LEVAIN_MASTER_KEY, then master.key in the data directory.";
        allow_missing_key: Switch = Switch::Off, Rule::Choice(Switch::NAMES), Restart,
            "Whether the daemon starts without the right master key. on: it starts, and functions with secrets fail with SECRET_UNAVAILABLE; off: it does not start.";
        generations_kept: u32 = 5_u32, Rule::Number(1, 1_000), Live,
            "Kept values of a secret, including the current one.";
        audit_rows_max: u32 = 10_000_u32, Rule::Number(100, 10_000_000), Live,
            "Rows of the secrets' audit trail; beyond it the oldest are deleted.";
    }
    /// Publishing, keeping and cleaning up versions.
    versioning: VersioningConfig {
        verify: Verify = Verify::Load, Rule::Choice(Verify::NAMES), Live,
            "Check of a version before it takes traffic. load: it must load in a worker; syntax: only its syntax is checked.";
        rollback_warm_seconds: u32 = 600_u32, Rule::Number(0, 86_400), Live,
            "Time that the previously live version keeps one warm worker for a rollback; 0: none.";
        approval_ttl_hours: u32 = 72_u32, Rule::Number(1, 8_760), Live,
            "Time that a deployment waits for approval before it is rejected.";
        bytecode: Bytecode = Bytecode::Auto, Rule::Choice(Bytecode::NAMES), Restart,
            "Bytecode compilation. auto: live bundles that load faster as bytecode are compiled after their deployment; off: never.";
        manifests_max: u32 = 1_000_u32, Rule::Number(100, 1_000_000), Live,
            "Manifests of past deployments kept in the data directory.";
        idempotency_key_seconds: u32 = 86_400_u32, Rule::Number(60, 31_536_000), Live,
            "Time during which a deployment repeated with the same idempotency key gets the first one's answer.";
        idempotency_keys_max: u32 = 10_000_u32, Rule::Number(100, 1_000_000), Live,
            "Remembered idempotency keys; beyond it the oldest is forgotten.";
        keep_versions: u32 = 5_u32, Rule::Number(KEEP_VERSIONS.0, KEEP_VERSIONS.1), Live,
            "Newest versions of a function that a cleanup keeps, in addition to those that aliases point at.";
        auto_cleanup: Switch = Switch::Off, Rule::Choice(Switch::NAMES), Live,
            "Automatic cleanup. on: a deployment that publishes a version also cleans up its function; off: only `levain cleanup` does.";
    }
    /// Previews: versions to try out at an address of their own.
    previews: PreviewsConfig {
        ttl_hours: u32 = 168_u32, Rule::Number(0, 87_600), Live,
            "Time that a preview is kept after its last deployment, unless the deployment says otherwise; 0: until it is deleted.";
        per_function_max: u32 = 100_u32, Rule::Number(1, 10_000), Live,
            "Concurrent previews of one function.";
    }
    /// Logs of functions.
    logs: LogsConfig {
        buffer_records_max: u32 = 10_000_u32, Rule::Number(100, 1_000_000), Live,
            "Lines that may wait to be written; beyond it, lines of the function with the most waiting ones are dropped and counted.";
        flush_interval_ms: u32 = 200_u32, Rule::Number(1, 60_000), Live,
            "Time that a line waits for others, to be written together with them.";
        line_bytes_max: u32 = 16_384_u32, Rule::Number(256, 1_048_576), Live,
            "Longest line; longer ones are cut. Applies to workers that start after the change.";
        lines_per_second_max: u32 = 5_000_u32, Rule::Number(1, 1_000_000), Live,
            "Lines kept per second and worker. Applies to workers that start after the change.";
        retention_hours: u32 = 168_u32, Rule::Number(1, 87_600), Live,
            "Time that lines and metrics are kept.";
        database_mb_max: u32 = 256_u32, Rule::Number(16, 1_048_576), Live,
            "Size of the log database; beyond it, the oldest lines of the function with the most lines are deleted.";
    }
}
