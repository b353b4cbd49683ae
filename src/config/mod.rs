//! The configuration: what can be set, what it is when nobody sets it, and where each value comes from.
//!
//! The table below is the one list of keys. The structs, the checks, the names of the environment variables,
//! `config.toml` and what can be reloaded all come from it: a new key is one line here.
//!
//! Layers, the later ones win: the defaults, the file, `LEVAIN_<SECTION>_<KEY>` variables, flags. `LEVAIN_SOCKET` and
//! `LEVAIN_DATA_DIR` are short for two of them, and give way to the long name.

mod derived;
mod file;
mod load;
mod paths;
mod suggest;
mod value;

pub use load::{ConfigError, Effective, Origin, Problem, Row, load, load_from};
pub(crate) use suggest::meant;
pub use value::{Auth, Bytecode, ErrorDetails, LogFormat, Metrics, Network, SandboxLevel, SandboxMode, Switch, Verify};

use serde::Serialize;
use value::{Raw, Rule, Value};

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// At once, when the file changes or SIGHUP comes.
    Live,
    /// At the next start.
    Restart,
}

/// One key of the configuration.
pub struct Key {
    /// The part of the file it is in.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What it is for, in a sentence.
    pub doc: &'static str,
    /// When a change takes effect.
    pub reload: Reload,
    rule: Rule,
    set: fn(&mut Config, Raw<'_>, &Rule) -> Option<()>,
    show: fn(&Config) -> String,
    copy: fn(&mut Config, &Config),
    make_absolute: fn(&mut Config, &Rule) -> Result<(), String>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path())
    }
}

impl Key {
    /// The key as errors and flags name it: `daemon.socket`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("LEVAIN_{}_{}", self.section, self.name).to_ascii_uppercase()
    }

    /// Its value in a configuration, as TOML.
    #[must_use]
    pub fn value(&self, config: &Config) -> String {
        (self.show)(config)
    }
}

macro_rules! schema {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $($key:ident: $type:ty = $default:expr, $rule:expr, $reload:ident, $doc:literal;)*
        }
    )*) => {
        /// Every value the daemon can be configured with.
        #[derive(Debug, Clone, PartialEq, Serialize, Default)]
        pub struct Config {
            $($(#[doc = $section_doc])+ pub $section: $Section,)*
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone, PartialEq, Serialize)]
            pub struct $Section {
                $(#[doc = $doc] pub $key: $type,)*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($key: <$type>::from($default),)* }
                }
            }
        )*

        /// Every key, in the order of `config.toml`.
        pub static KEYS: &[Key] = &[$($(Key {
            section: stringify!($section),
            name: stringify!($key),
            doc: $doc,
            reload: Reload::$reload,
            rule: $rule,
            set: |config, raw, rule| {
                config.$section.$key = <$type as Value>::read(raw, rule)?;
                Some(())
            },
            show: |config| config.$section.$key.show(),
            copy: |config, from| config.$section.$key.clone_from(&from.$section.$key),
            make_absolute: |config, rule| {
                if let Some(absolute) = config.$section.$key.absolute(rule) {
                    config.$section.$key = absolute?;
                }
                Ok(())
            },
        },)*)*];

        const SECTIONS: &[(&str, &str)] = &[$((stringify!($section), concat!($($section_doc),+))),*];
    };
}

/// The least and the most that `versioning.keep_versions` may be, and a cleanup may be told.
pub const KEEP_VERSIONS: (u32, u32) = (1, 10_000);

schema! {
    /// The process itself.
    daemon: DaemonConfig {
        data_dir: String = "data", Rule::Path(&[]), Restart,
            "Folder of everything the daemon keeps; relative to the folder it is started in.";
        socket: String = "", Rule::Path(&[""]), Restart,
            "Path of the command socket; programs other than levain may need one of at most 107 bytes; empty: levain.sock in the data directory.";
        allowed_uids: Vec<u32> = [], Rule::Numbers, Restart,
            "Users besides the daemon's own and root that may use the command socket, with every command; docs/protocol.md.";
        allowed_gids: Vec<u32> = [], Rule::Numbers, Restart,
            "Groups whose members (by their primary group) may use the command socket as well.";
        log_level: String = "info", Rule::LogLevel, Live,
            "error, warn, info, debug or trace, or directives such as info,levain::scheduler=debug.";
        log_format: LogFormat = LogFormat::Auto, Rule::Choice(LogFormat::NAMES), Restart,
            "text, json, or auto: text on a terminal and JSON otherwise.";
        shutdown_grace_ms: u32 = 10_000_u32, Rule::Number(0, 3_600_000), Live,
            "How long running invocations may take to finish when the daemon is told to stop.";
    }
    /// The Bun that workers run on.
    runtime: RuntimeConfig {
        bun: String = "", Rule::Path(&[""]), Restart,
            "Path of the Bun binary; empty: LEVAIN_BUN, the data directory's own install, then PATH.";
    }
    /// The settings a function gets where its registration names none.
    functions: FunctionsConfig {
        memory_mb: u32 = 256_u32, Rule::Number(32, 65_536), Live,
            "Private memory of one worker; one over it is ended with OUT_OF_MEMORY.";
        timeout_seconds: u32 = 30_u32, Rule::Number(1, 86_400), Live,
            "How long one invocation may take, the wait for a worker included.";
        max_concurrent_executions: u32 = 10_u32, Rule::Number(1, 1_000), Live,
            "Invocations of one version that run at once.";
        warm_workers: u32 = 0_u32, Rule::Number(0, 1_000), Live,
            "Workers of the live version that stay when nothing is invoked.";
        worker_concurrency: u32 = 1_u32, Rule::Number(1, 1_000), Live,
            "Invocations that one worker runs at once, interleaved; over 1 it suits functions that mostly wait.";
        idle_timeout_seconds: u32 = 300_u32, Rule::Number(1, 86_400), Live,
            "How long a worker above warm_workers may be idle before it is stopped.";
        queue_max: u32 = 128_u32, Rule::Number(0, 100_000), Live,
            "Invocations that may wait when all workers are busy; one more is refused with OVERLOADED.";
        max_requests_per_worker: u32 = 0_u32, Rule::Number(0, 1_000_000_000), Live,
            "Invocations after which a worker is replaced by a new one; 0: never.";
        max_age_seconds: u32 = 0_u32, Rule::Number(0, 31_536_000), Live,
            "Time after which a worker is replaced by a new one; 0: never.";
        network: Network = Network::On, Rule::Choice(Network::NAMES), Live,
            "off: a function reaches nothing but its own loopback device.";
        auth: Auth = Auth::Public, Rule::Choice(Auth::NAMES), Live,
            "token: a call over HTTP needs a token with the scope invoke; public: it needs none.";
    }
    /// All workers of this machine.
    workers: WorkersConfig {
        starts_max: u32 = 0_u32, Rule::Number(0, 1_024), Live,
            "Worker starts going on at once; 0: twice the number of cores.";
        prewarmed_workers: u32 = 2_u32, Rule::Number(0, 1_000), Live,
            "Processes that wait for a function, so that a cold start costs its import only; about 3 MiB each.";
        start_timeout_ms: u32 = 10_000_u32, Rule::Number(100, 600_000), Live,
            "From the spawn of a worker until its function must be loaded.";
        queue_timeout_ms: u32 = 10_000_u32, Rule::Number(1, 3_600_000), Live,
            "How long an invocation waits for a worker before it is refused with OVERLOADED.";
        memory_poll_ms: u32 = 100_u32, Rule::Number(10, 60_000), Live,
            "How often the memory of workers is looked at.";
        workers_max: u32 = 512_u32, Rule::Number(1, 100_000), Live,
            "Workers of all functions at once. When more are wanted, the one that is idle longest makes room.";
        memory_mb_max: u32 = 0_u32, Rule::Number(0, 16_777_216), Live,
            "Private memory of all workers together, above which none starts and idle ones stop; 0: three quarters of the machine's.";
        memory_soft_percent: u32 = 80_u32, Rule::Number(1, 100), Live,
            "A worker that has grown to this part of its function's memory_mb is replaced by a new one; 100: not before it is ended.";
        blocked_ms: u32 = 1_000_u32, Rule::Number(10, 600_000), Live,
            "A worker that runs several invocations and whose event loop answers nothing for this long takes no more of them.";
        kill_grace_ms: u32 = 1_000_u32, Rule::Number(0, 600_000), Live,
            "How long an invocation over its time may take to end in a worker that runs others, before that worker is ended.";
    }
    /// What keeps a function from the rest of the machine; docs/isolation.md tells what each level stops.
    sandbox: SandboxConfig {
        mode: SandboxMode = SandboxMode::Auto, Rule::Choice(SandboxMode::NAMES), Restart,
            "auto: the best level that works here; strict: the daemon does not start with less; off: functions can do all that the daemon can.";
        level: SandboxLevel = SandboxLevel::Auto, Rule::Choice(SandboxLevel::NAMES), Restart,
            "The best level to try; auto: any.";
        processes_max: u32 = 256_u32, Rule::Number(32, 65_536), Restart,
            "Processes and threads of one worker, its own dozen included.";
        open_files_max: u32 = 1_024_u32, Rule::Number(128, 1_048_576), Restart,
            "Files, sockets and pipes that one process of a worker may have open; a call in it takes one, and each request it sends another.";
        tmp_mb: u32 = 64_u32, Rule::Number(1, 65_536), Restart,
            "How much fits into a worker's /tmp, where it has one of its own; it counts as the worker's memory.";
    }
    /// What one client can make the daemon hold.
    limits: LimitsConfig {
        frame_bytes_max: u32 = 16_777_216_u32, Rule::Number(65_536 * 2, 1_073_741_824), Live,
            "The largest frame on the command socket, either way.";
        frame_timeout_ms: u32 = 10_000_u32, Rule::Number(10, 600_000), Live,
            "A frame that was begun must be complete within this time; the wait for its first byte never counts.";
        connections_max: u32 = 1_024_u32, Rule::Number(1, 65_536), Restart,
            "Open connections on the command socket.";
        requests_per_connection_max: u32 = 1_024_u32, Rule::Number(1, 65_536), Live,
            "Requests in flight on one connection; further ones are not read until others are answered.";
        backlog_bytes_max: u32 = 268_435_456_u32, Rule::Number(1_048_576, 4_294_967_295), Live,
            "Answers waiting to be read, all connections together; beyond, who reads least is cut off.";
        bundle_bytes_max: u32 = 67_108_864_u32, Rule::Number(1_024, 2_147_483_648), Live,
            "Bytes of all files of one bundle.";
        bundle_files_max: u32 = 2_000_u32, Rule::Number(1, 100_000), Live,
            "Files of one bundle.";
        archive_ratio_max: u32 = 200_u32, Rule::Number(2, 2_000), Live,
            "Bytes that each byte of an archive may unpack to, beyond the first MiB; more is taken for a bomb.";
        archive_timeout_ms: u32 = 60_000_u32, Rule::Number(10, 3_600_000), Live,
            "How long an archive may take to unpack.";
    }
    /// Building code that is no finished bundle; docs/functions.md tells what is built.
    build: BuildConfig {
        builds_max: u32 = 2_u32, Rule::Number(1, 64), Restart,
            "Builds going on at once; further ones wait.";
        timeout_ms: u32 = 120_000_u32, Rule::Number(100, 3_600_000), Live,
            "How long one build may take, the installation of its packages included.";
        memory_mb: u32 = 1_024_u32, Rule::Number(64, 65_536), Live,
            "Private memory of the processes of one build.";
        processes_max: u32 = 256_u32, Rule::Number(32, 65_536), Live,
            "Processes and threads of one build.";
        disk_mb: u32 = 1_024_u32, Rule::Number(16, 1_048_576), Live,
            "What one build may write, packages and sources included; looked at four times a second.";
        log_bytes_max: u32 = 262_144_u32, Rule::Number(1_024, 4_194_304), Live,
            "What is kept of what a build prints.";
        packages_mb_max: u32 = 2_048_u32, Rule::Number(0, 16_777_216), Live,
            "Installed packages that are kept for the next builds with the same lockfile; 0: none.";
        registry: String = "", Rule::Text, Live,
            "URL of the npm registry, in place of the one that a project's .npmrc names; empty: that one, or Bun's own default.";
    }
    /// The HTTP face: functions below /functions/, management below /api/.
    http: HttpConfig {
        address: String = "127.0.0.1:8080", Rule::Text, Restart,
            "Address and port to listen on; off: no HTTP.";
        connections_max: u32 = 4_096_u32, Rule::Number(1, 65_536), Restart,
            "Open connections; when there are as many, the longest idle one is closed for a new one.";
        head_bytes_max: u32 = 32_768_u32, Rule::Number(8_192, 1_048_576), Restart,
            "The largest head of a request; functions take less, see docs/functions.md.";
        head_timeout_ms: u32 = 30_000_u32, Rule::Number(10, 3_600_000), Restart,
            "How long a connection may wait for the complete head of its next request.";
        body_bytes_max: u32 = 104_857_600_u32, Rule::Number(0, 4_294_967_295), Live,
            "The largest body of a request to a function.";
        body_timeout_ms: u32 = 30_000_u32, Rule::Number(10, 3_600_000), Live,
            "How long a body may make no progress, in either direction.";
        body_bytes_per_second_min: u32 = 240_u32, Rule::Number(0, 1_000_000), Live,
            "Bytes of a request's body that must come in a second, on average of the waits for it beyond body_timeout_ms; 0: any.";
        stream_seconds_max: u32 = 3_600_u32, Rule::Number(1, 604_800), Live,
            "How long an answer that makes progress may take; its beginning has the function's timeout_seconds.";
        requests_per_connection_max: u32 = 100_000_u32, Rule::Number(0, 1_000_000_000), Live,
            "Requests of one connection, after which it is closed without losing any; 0: as many as it likes.";
        tls_certificate: String = "", Rule::Path(&[""]), Restart,
            "PEM file with the certificate and those that vouch for it, read again when it changes; empty: no TLS.";
        tls_key: String = "", Rule::Path(&[""]), Restart,
            "PEM file with the certificate's private key, read again when it changes.";
        functions_domain: String = "", Rule::Domain, Live,
            "The domain of which each function has a host of its own, such as hello.example.com for hello; empty: there is only <name>.localhost.";
        error_details: ErrorDetails = ErrorDetails::Auto, Rule::Choice(ErrorDetails::NAMES), Live,
            "Which callers of functions get stacks, last lines and messages of a failure. full: all; none: none; auto: those with a token, at this machine, or of the environment dev.";
        metrics: Metrics = Metrics::Auto, Rule::Choice(Metrics::NAMES), Live,
            "Who may read /metrics. open: everybody; token: who has a token with the scope read; off: nobody; auto: open to programs of this machine where http.address is a loopback address, else token.";
        metrics_versions_max: u32 = 500_u32, Rule::Number(1, 10_000), Live,
            "Versions that /metrics tells of; of more, those that were called most.";
        access_log: String = "off", Rule::Path(&["", "off", "stdout", "stderr"]), Live,
            "Where each request is written down: off, stdout, stderr, or a file, which is opened anew at each reload.";
        access_log_query: Switch = Switch::Off, Rule::Choice(Switch::NAMES), Live,
            "on: with the queries of requests, which may have secrets in them.";
        cors_origin: String = "", Rule::Text, Live,
            "The origin whose pages may call functions, or * for all; empty: functions answer preflights themselves.";
    }
    /// What functions find in process.env; docs/variables.md.
    variables: VariablesConfig {
        count_max: u32 = 500_u32, Rule::Number(1, 10_000), Live,
            "Variables of one function in one environment, and as many for all of either.";
        value_bytes_max: u32 = 65_536_u32, Rule::Number(64, 1_048_576), Live,
            "The longest value.";
        total_bytes_max: u32 = 1_048_576_u32, Rule::Number(1_024, 16_777_216), Live,
            "Names and values of one function in one environment together.";
        renew_timeout_ms: u32 = 10_000_u32, Rule::Number(0, 600_000), Live,
            "How long a change waits until no call gets a worker with the values from before; then it answers that some do.";
    }
    /// How secrets are kept; docs/secrets.md.
    secrets: SecretsConfig {
        master_key_file: String = "", Rule::Path(&[""]), Restart,
            "File with the master key, such as a service manager gives; empty: LEVAIN_MASTER_KEY_FILE, LEVAIN_MASTER_KEY, then master.key in the data directory.";
        allow_missing_key: Switch = Switch::Off, Rule::Choice(Switch::NAMES), Restart,
            "on: the daemon starts without the right master key, and functions with secrets answer SECRET_UNAVAILABLE; off: it does not start.";
        generations_kept: u32 = 5_u32, Rule::Number(1, 1_000), Live,
            "Values of a secret that are kept, the present one included.";
        audit_rows_max: u32 = 10_000_u32, Rule::Number(100, 10_000_000), Live,
            "Rows of the audit trail of secrets; the oldest go when there are more.";
    }
    /// How versions come to be.
    versioning: VersioningConfig {
        verify: Verify = Verify::Load, Rule::Choice(Verify::NAMES), Live,
            "load: a version must load in a worker before it takes traffic; syntax: its syntax is checked only.";
        rollback_warm_seconds: u32 = 600_u32, Rule::Number(0, 86_400), Live,
            "How long the version that was live before keeps one warm worker, for a rollback; 0: not at all.";
        approval_ttl_hours: u32 = 72_u32, Rule::Number(1, 8_760), Live,
            "How long a deployment waits for approval before it is rejected.";
        bytecode: Bytecode = Bytecode::Auto, Rule::Choice(Bytecode::NAMES), Restart,
            "auto: live bundles that load faster as bytecode are compiled after their deployment; off: none is.";
        manifests_max: u32 = 1_000_u32, Rule::Number(100, 1_000_000), Live,
            "Manifests of past deployments that are kept in the data directory.";
        idempotency_key_seconds: u32 = 86_400_u32, Rule::Number(60, 31_536_000), Live,
            "How long a deployment that comes again with the same idempotency key gets the answer of the first one.";
        idempotency_keys_max: u32 = 10_000_u32, Rule::Number(100, 1_000_000), Live,
            "Idempotency keys that are remembered; one more makes the oldest be forgotten.";
        keep_versions: u32 = 5_u32, Rule::Number(KEEP_VERSIONS.0, KEEP_VERSIONS.1), Live,
            "How many of a function's newest versions a cleanup leaves; it leaves all that aliases point at, too.";
        auto_cleanup: Switch = Switch::Off, Rule::Choice(Switch::NAMES), Live,
            "on: a deployment that publishes a version cleans up its function; off: `levain cleanup` does when it is told.";
    }
    /// Versions that somebody tries out at an address of their own.
    previews: PreviewsConfig {
        ttl_hours: u32 = 168_u32, Rule::Number(0, 87_600), Live,
            "How long a preview stays after its last deployment, where that does not say; 0: until it is deleted.";
        per_function_max: u32 = 100_u32, Rule::Number(1, 10_000), Live,
            "Previews of one function at once.";
    }
    /// What functions log.
    logs: LogsConfig {
        buffer_records_max: u32 = 10_000_u32, Rule::Number(100, 1_000_000), Live,
            "Lines that may wait to be written. Beyond, those of the function with the most waiting are dropped and counted.";
        flush_interval_ms: u32 = 200_u32, Rule::Number(1, 60_000), Live,
            "How long a line waits for others to be written with it.";
        line_bytes_max: u32 = 16_384_u32, Rule::Number(256, 1_048_576), Live,
            "A longer line is cut; applies to workers that start from then on.";
        lines_per_second_max: u32 = 5_000_u32, Rule::Number(1, 1_000_000), Live,
            "Lines of one worker that are kept in a second; applies to workers that start from then on.";
        retention_hours: u32 = 168_u32, Rule::Number(1, 87_600), Live,
            "How long lines and metrics are kept.";
        database_mb_max: u32 = 256_u32, Rule::Number(16, 1_048_576), Live,
            "How large the log database may get before the oldest lines of the function with the most go.";
    }
}

impl Config {
    /// This configuration with the live keys of another: what applies after a reload. The keys that wait for the next
    /// start keep their values, so nothing of them takes effect halfway, and [`diff`] goes on naming them.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let mut config = self.clone();
        for key in KEYS.iter().filter(|key| key.reload == Reload::Live) {
            (key.copy)(&mut config, new);
        }
        config
    }
}

/// The keys whose values differ, by when the difference takes effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// At once.
    pub live: Vec<String>,
    /// At the next start.
    pub restart: Vec<String>,
}

/// What has changed between two configurations.
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

/// `config.toml`: every key with its default and what it is for.
#[must_use]
pub fn reference_toml() -> String {
    let mut text = String::from(
        "# Every key with its default. What is left out here keeps it.\n\
         # Relative paths start at the folder in which the daemon is started; `levain config print` shows them absolute.\n\
         # An environment variable LEVAIN_<SECTION>_<KEY> comes before this file, a flag before that.\n\
         # Keys marked (restart) take effect at the next start, all others when this file changes or SIGHUP comes.\n",
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
