//! Finds a Bun and checks that it is usable.

use super::command::{self, CommandError};
use super::{FOLDER, RuntimeError};
use serde::Deserialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, fmt};
use tokio::process::Command;

/// Variable with the path of Bun, used if the configuration has none.
const VARIABLE: &str = "LEVAIN_BUN";

/// Time limit for printing the version; the first run after an installation reads 100 MB from disk.
const VERSION_TIME_MAX: Duration = Duration::from_secs(10);

const VERSION_OUTPUT_BYTES_MAX: u64 = 4_096;

/// The part of `worker-shim/package.json` that names the Bun versions of the shim.
#[derive(Deserialize)]
struct Package {
    levain: Pins,
}

#[derive(Deserialize)]
struct Pins {
    bun: String,
    #[serde(rename = "bunMinimum")]
    minimum: String,
}

static VERSIONS: LazyLock<(BunVersion, BunVersion)> = LazyLock::new(|| {
    let package: Package = serde_json::from_str(include_str!("../../../worker-shim/package.json"))
        .expect("a test reads this file, which is part of the binary");
    let version = |text: &str| text.parse().expect("a test reads this version, which is part of the binary");
    (version(&package.levain.bun), version(&package.levain.minimum))
});

/// The version that [`super::install()`] installs.
#[must_use]
pub fn pinned_version() -> &'static BunVersion {
    &VERSIONS.0
}

/// The oldest usable version.
#[must_use]
pub fn minimum_version() -> &'static BunVersion {
    &VERSIONS.1
}

/// A version such as `1.4.5` or `1.4.6-canary.1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BunVersion {
    /// Major, minor, patch.
    numbers: [u32; 3],
    text: String,
}

impl BunVersion {
    /// Whether this is `other` or a later version; anything after the three numbers is ignored.
    fn is_at_least(&self, other: &Self) -> bool {
        self.numbers >= other.numbers
    }
}

impl fmt::Display for BunVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// The text is not a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version: three numbers such as 1.4.5 are expected")]
pub struct BunVersionError;

impl FromStr for BunVersion {
    type Err = BunVersionError;

    fn from_str(text: &str) -> Result<Self, BunVersionError> {
        let numbers = text.split(['-', '+']).next().unwrap_or(text);
        let mut parts = numbers.split('.').map(|it| it.parse().map_err(|_| BunVersionError));
        let mut part = || parts.next().unwrap_or(Err(BunVersionError));
        let numbers = [part()?, part()?, part()?];
        if parts.next().is_some() || text.contains(|it: char| it.is_whitespace() || it.is_control()) {
            return Err(BunVersionError);
        }
        Ok(Self { numbers, text: text.into() })
    }
}

/// A usable Bun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundBun {
    /// Absolute path of the executable.
    pub path: PathBuf,
    /// Version that the executable reports.
    pub version: BunVersion,
    /// Place where it was found.
    pub origin: Origin,
}

/// Sources of a Bun, in the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Named by the configuration.
    Configuration,
    /// Named by `LEVAIN_BUN`.
    Variable,
    /// Installed into the data directory by `levain runtime install`.
    DataDirectory,
    /// Found on `PATH`.
    Path,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Configuration => "the configuration",
            Self::Variable => VARIABLE,
            Self::DataDirectory => "the data directory",
            Self::Path => "PATH",
        })
    }
}

/// Reason why a Bun is unusable.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Its version could not be determined.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The version is too old.
    #[error("it is version {found}, and {} or later is needed", minimum_version())]
    TooOld {
        /// The version found.
        found: BunVersion,
    },
    /// The version differs from the installed one.
    #[error("it is version {found}, not {}", pinned_version())]
    OtherVersion {
        /// The version found.
        found: BunVersion,
    },
}

/// Looks for a Bun: in the configuration, in `LEVAIN_BUN`, in the data directory, on `PATH`.
///
/// # Errors
/// An unusable Bun that the configuration or the variable names is an error, never a reason to look further.
pub async fn find(configured: Option<&Path>, data_dir: &Path) -> Result<FoundBun, RuntimeError> {
    let variable = env::var_os(VARIABLE).filter(|it| !it.is_empty());
    find_in(configured, variable, data_dir, env::var_os("PATH").unwrap_or_default()).await
}

async fn find_in(
    configured: Option<&Path>,
    variable: Option<OsString>,
    data_dir: &Path,
    path: OsString,
) -> Result<FoundBun, RuntimeError> {
    let named = configured.map(|it| (Origin::Configuration, it.to_owned()));
    if let Some((origin, path)) = named.or_else(|| variable.map(|it| (Origin::Variable, it.into()))) {
        let checked = check(origin, &path).await;
        return checked.map_err(|reason| RuntimeError::Unusable { origin, path, reason });
    }
    let mut looked = Vec::new();
    let own = own_bun(data_dir);
    let on_path: Vec<_> = env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("bun"))
        .filter(|file| file.is_file())
        .collect();
    if !own.exists() {
        looked.push(format!("{} does not exist", own.display()));
    } else {
        match check(Origin::DataDirectory, &own).await {
            Ok(found) => return Ok(found),
            Err(reason) => looked.push(format!("{}: {reason}", own.display())),
        }
    }
    if on_path.is_empty() {
        looked.push("no bun on PATH".into());
    }
    for bun in on_path {
        match check(Origin::Path, &bun).await {
            Ok(found) => return Ok(found),
            Err(reason) => looked.push(format!("{}: {reason}", bun.display())),
        }
    }
    Err(RuntimeError::NotFound { looked, data_dir: data_dir.to_owned() })
}

/// Path at which [`super::install()`] puts the pinned version.
pub(super) fn own_bun(data_dir: &Path) -> PathBuf {
    data_dir.join(FOLDER).join(format!("bun-{}", pinned_version())).join("bun")
}

/// Runs a Bun to check whether it is usable. Workers have no environment, so Bun gets none here either.
pub(super) async fn check(origin: Origin, path: &Path) -> Result<FoundBun, Unusable> {
    let path = std::path::absolute(path).map_err(CommandError::from)?;
    let mut command = Command::new(&path);
    command.arg("--version").env_clear().current_dir("/");
    let text = command::run(command, VERSION_TIME_MAX, VERSION_OUTPUT_BYTES_MAX).await?;
    let version: BunVersion =
        text.trim().parse().map_err(|_| CommandError::Unexpected { output: command::excerpt(&text) })?;
    if !version.is_at_least(minimum_version()) {
        return Err(Unusable::TooOld { found: version });
    }
    Ok(FoundBun { path, version, origin })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;
    use std::process::Stdio;

    /// Writes a script that stands in for Bun.
    ///
    /// Another process writes it: while it is open for writing here, a process that another test is starting may
    /// inherit the descriptor, and a file that is open for writing cannot be executed.
    pub(crate) fn fake_bun(path: &Path, script: &str) -> PathBuf {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let mut writer = std::process::Command::new("/bin/sh")
            .args(["-c", r#"cat > "$0" && chmod 755 "$0""#])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut stdin = writer.stdin.take().expect("a pipe");
        write!(stdin, "#!/bin/sh\n{script}\n").expect("the script");
        drop(stdin);
        assert!(writer.wait().expect("its end").success());
        path.into()
    }

    fn version(text: &str) -> BunVersion {
        text.parse().expect("a version")
    }

    /// A folder with a data directory, two folders for PATH and a Bun outside both.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }

        fn bun(&self, place: &str, script: &str) -> PathBuf {
            let own = format!("data/runtime/bun-{}/bun", pinned_version());
            fake_bun(&self.0.path().join(if place == "own" { &own } else { place }), script)
        }

        async fn find(&self, configured: Option<&Path>, variable: Option<&Path>) -> Result<FoundBun, RuntimeError> {
            let root = self.0.path();
            let path = env::join_paths([root.join("a"), "relative".into(), root.join("b")]).expect("plain paths");
            find_in(configured, variable.map(Into::into), &root.join("data"), path).await
        }
    }

    #[test]
    fn versions_are_read_and_compared_by_their_numbers() {
        assert_eq!(version("1.10.2").numbers, [1, 10, 2]);
        assert!(version("1.10.0").is_at_least(&version("1.9.9")));
        assert!(version("1.4.5-canary.1+abc").is_at_least(&version("1.4.5")));
        assert!(!version("1.4.4").is_at_least(&version("1.4.5")));
        assert_eq!(version("1.4.5-canary.1").to_string(), "1.4.5-canary.1");
        for bad in ["", "1", "1.4", "1.4.5.6", "v1.4.5", "1.4.x", "1.4.5 x", "1.4.5-\n"] {
            assert!(bad.parse::<BunVersion>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_hint_names_the_data_directory_as_a_shell_takes_it() {
        let hint = |path: &str| RuntimeError::NotFound { looked: Vec::new(), data_dir: path.into() }.to_string();
        assert!(hint("/srv/levain").contains("--data-dir /srv/levain`"), "{}", hint("/srv/levain"));
        assert!(hint("/a b/it's").contains(r"--data-dir '/a b/it'\''s'`"), "{}", hint("/a b/it's"));
    }

    #[test]
    fn the_pinned_version_is_new_enough() {
        assert!(pinned_version().is_at_least(minimum_version()));
    }

    #[tokio::test]
    async fn places_are_looked_at_in_their_order() {
        let machine = Machine::new();
        let found = async |configured, variable| {
            let found = machine.find(configured, variable).await.expect("a Bun");
            (found.origin, found.version.to_string())
        };
        machine.bun("b/bun", "echo 91.0.0");
        assert_eq!(found(None, None).await, (Origin::Path, "91.0.0".into()));
        machine.bun("a/bun", "echo 92.0.0");
        assert_eq!(found(None, None).await, (Origin::Path, "92.0.0".into()));
        machine.bun("own", "echo 93.0.0");
        assert_eq!(found(None, None).await, (Origin::DataDirectory, "93.0.0".into()));
        let named = machine.bun("named", "echo 94.0.0");
        assert_eq!(found(None, Some(&named)).await, (Origin::Variable, "94.0.0".into()));
        let configured = machine.bun("configured", "echo 95.0.0");
        assert_eq!(found(Some(&configured), Some(&named)).await, (Origin::Configuration, "95.0.0".into()));
    }

    #[tokio::test]
    async fn a_named_one_that_will_not_do_is_an_error() {
        let machine = Machine::new();
        machine.bun("a/bun", "echo 91.0.0");
        let old = machine.bun("old", "echo 0.9.0");
        let error = machine.find(Some(&old), None).await.expect_err("too old").to_string();
        assert!(error.starts_with("the configuration names the Bun at /"), "{error}");
        assert!(error.contains(&format!("it is version 0.9.0, and {} or later", minimum_version())), "{error}");
        let missing = machine.0.path().join("missing");
        let error = machine.find(None, Some(&missing)).await.expect_err("missing").to_string();
        assert!(error.contains("LEVAIN_BUN names") && error.contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn what_will_not_do_is_skipped_elsewhere_and_named_in_the_end() {
        let machine = Machine::new();
        let error = machine.find(None, None).await.expect_err("no Bun anywhere").to_string();
        assert!(error.contains("does not exist; no bun on PATH"), "{error}");
        let data = machine.0.path().join("data");
        assert!(error.contains(&format!("`levain runtime install --data-dir {}`", data.display())), "{error}");
        machine.bun("own", "echo broken >&2; exit 1");
        machine.bun("a/bun", "echo 0.9.0");
        let error = machine.find(None, None).await.expect_err("no usable Bun").to_string();
        assert!(error.contains("exit status: 1: broken") && error.contains("it is version 0.9.0"), "{error}");
        machine.bun("b/bun", r#"[ "$1" = --version ] && [ -z "$HOME" ] && echo 91.0.0"#);
        assert_eq!(machine.find(None, None).await.expect("the second on PATH").origin, Origin::Path);
    }
}
