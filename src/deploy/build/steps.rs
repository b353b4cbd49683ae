//! The two processes of a build.

use super::{
    super::{
        names::{MODULES, tells_packages},
        problem::line,
        project::Project,
    },
    error::{BuildError, BuildStep},
    log::BuildLog,
    packages::{CachedPackages, InstallationKey, Packages},
};
use crate::{
    bundle::{Content, Staged},
    config::BuildConfig,
    model::Network,
    protocol::worker::{BuildResult, CodeProblem},
    worker::{BunRuntime, Spawner, ToolError, ToolJob, Workplace, runtime::BUILD},
};
use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitStatus,
};
use tokio::{task::spawn_blocking, time::Instant};

/// Folder of the project in the workplace. The shim replaces this name in its output, so it must not occur in code.
const PROJECT: &str = "levain-project";

/// Folder of the output.
const OUT: &str = "out";

/// Result file of the build, and its largest size in bytes.
const RESULT: &str = "result.json";
const RESULT_BYTES_MAX: u64 = 1 << 20;

/// Limit on the files that are listed; staging enforces the limit on a bundle's files.
const OUT_FILES_MAX: usize = 100_000;

/// Arguments of every installation, except the registry.
const INSTALL: [&str; 7] = [
    "install",
    // These prevent the project's code from running, whatever its `bunfig.toml` says.
    "--config=/dev/null",
    "--ignore-scripts",
    "--frozen-lockfile",
    "--production",
    "--no-progress",
    "--no-env-file",
];

/// A build in progress.
pub(super) struct Run<'a> {
    pub(super) spawner: &'a Spawner,
    pub(super) place: &'a Workplace<'a>,
    pub(super) sources: &'a Staged,
    pub(super) project: &'a Project,
    pub(super) config: &'a BuildConfig,
    pub(super) log: &'a BuildLog,
    pub(super) deadline: Instant,
}

impl Run<'_> {
    /// Copies the project into the workplace.
    pub(super) async fn fill(&self) -> Result<(), BuildError> {
        self.log.set_folder(&self.place.inside(PROJECT).to_string_lossy());
        let slot = self.place.filler();
        let folder = self.sources.folder().to_owned();
        Ok(spawn_blocking(move || slot.fill(PROJECT, &folder)).await.map_err(io::Error::other)??)
    }

    /// Puts the project's packages where the build finds them, from the cache or by installing them. Returns the cached
    /// packages.
    pub(super) async fn install(
        &self,
        packages: &Packages,
        lockfile: &str,
    ) -> Result<Option<CachedPackages>, BuildError> {
        self.fill().await?;
        let can_keep = self.spawner.can_show() && self.config.packages_mb_max > 0 && !self.project.has_workspaces;
        let name = match can_keep.then(|| self.key()).transpose()?.map(|key| packages.find(key)) {
            Some(Ok(kept)) => {
                self.log.say(&format!("using the packages of {lockfile} from an earlier build"));
                self.place.make_folder(&Path::new(PROJECT).join(MODULES))?;
                return Ok(Some(kept));
            }
            Some(Err(name)) => Some(name),
            None => None,
        };
        self.log.say(&format!("installing the packages of {lockfile}"));
        let (status, error) = self.install_anew().await?;
        if !status.success() {
            let reason = error.unwrap_or_else(|| status.to_string());
            return Err(BuildError::Install { lockfile: lockfile.into(), reason });
        }
        let modules = self.place.outside(PROJECT).join(MODULES);
        let is_there = is_folder(&self.place.outside(PROJECT)) && is_folder(&modules);
        let Some(name) = name.filter(|_| is_there) else { return Ok(None) };
        let (packages, bytes_max) = (packages.clone(), u64::from(self.config.packages_mb_max) << 20);
        let kept = spawn_blocking(move || packages.keep(&name, &modules, bytes_max)).await.map_err(io::Error::other)?;
        match kept {
            Ok(Some(kept)) => {
                self.place.make_folder(&Path::new(PROJECT).join(MODULES))?;
                Ok(Some(kept))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, "installed packages cannot be kept");
                // The packages may be moved only in part.
                Err(error.into())
            }
        }
    }

    /// Installs the packages. Returns the exit status and the error that Bun printed.
    async fn install_anew(&self) -> Result<(ExitStatus, Option<String>), BuildError> {
        self.place.make_folder(Path::new("tmp"))?;
        let inside = |name: &str| self.place.inside(name).to_string_lossy().into_owned();
        let mut environment = vec![
            ("BUN_INSTALL_CACHE_DIR".into(), inside("packages")),
            // Unpacked packages are moved into place, which is fast only within one file system.
            ("TMPDIR".into(), inside("tmp")),
        ];
        if !self.config.registry.is_empty() {
            environment.push(("BUN_CONFIG_REGISTRY".into(), self.config.registry.clone()));
        }
        let args = INSTALL.map(OsString::from).into();
        let before = self.log.text().len();
        let status = self.run(BuildStep::Install, args, environment, Network::On, None).await?;
        // The log is searched because a line may arrive in parts. The first error names the cause; notes follow it.
        let text = self.log.text();
        let mut errors = text[before..].lines().filter_map(|it| it.strip_prefix("error:")).map(str::trim);
        Ok((status, errors.find(|it| !it.is_empty()).map(Into::into)))
    }

    /// Returns the cache key: a hash of all inputs of the installation.
    fn key(&self) -> Result<InstallationKey, BuildError> {
        let mut key = InstallationKey::new();
        key.add("bun", self.spawner.runtime().version.to_string().as_bytes());
        key.add("registry", self.config.registry.as_bytes());
        if self.project.is_from_registry {
            for entry in fs::read_dir(self.sources.folder())? {
                let (path, name) = (entry.as_ref().map(|it| it.path()), entry.as_ref().map(|it| it.file_name()));
                if let (Ok(path), Ok(name)) = (path, name)
                    && let Some(name) = name.to_str().filter(|it| tells_packages(it))
                {
                    key.add(name, &fs::read(path)?);
                }
            }
        } else {
            key.add("sources", &self.sources.digest().0);
        }
        Ok(key)
    }

    /// Builds the bundle and returns its files.
    pub(super) async fn bundle(&self, kept: Option<&CachedPackages>) -> Result<Vec<(String, Content)>, BuildError> {
        let entry = &self.project.entry;
        self.log.say(&format!("building {entry}"));
        let mut args: Vec<OsString> = BunRuntime::tool_args(&self.place.shim(BUILD)).collect();
        args.push(entry.into());
        args.extend([OUT, RESULT].map(|it| self.place.inside(it).into_os_string()));
        let modules = kept.map(CachedPackages::folder);
        let at = Path::new(PROJECT).join(MODULES);
        let shown = modules.as_deref().map(|it| (it, at.as_path()));
        let status = self.run(BuildStep::Build, args, Vec::new(), Network::Off, shown).await?;
        let (result, out) = (self.place.outside(RESULT), self.place.outside(OUT));
        let read = spawn_blocking(move || {
            let result = read_result(&result)?;
            let files = if result.ok { outputs(&out)? } else { Vec::new() };
            Ok::<_, io::Error>((result, files))
        });
        // An unreadable result is the project's fault.
        let Ok((result, files)) = read.await.map_err(io::Error::other)? else {
            return Err(BuildError::NoResult(status));
        };
        for warning in &result.warnings {
            self.log.say(&format!("warning: {}", line(None, warning)));
        }
        match result.ok && !files.is_empty() {
            true => Ok(files),
            false if result.ok => Err(BuildError::NoResult(status)),
            false => {
                let problems = result.problems.into_iter().map(|it| self.explained(it));
                Err(BuildError::Problems(problems.collect()))
            }
        }
    }

    /// Adds a hint to a problem if the remedy is certain.
    fn explained(&self, mut problem: CodeProblem) -> CodeProblem {
        let package = problem.message.strip_prefix("Could not resolve: \"").and_then(|it| it.strip_suffix('"'));
        let Some(package) = package.filter(|it| !it.starts_with(['.', '/'])) else { return problem };
        let names = package.split('/').take(if package.starts_with('@') { 2 } else { 1 });
        let name = names.collect::<Vec<_>>().join("/");
        let advice = match self.project.development.contains(&name) {
            true => format!("`{name}` is a devDependency, which is not installed: make it a dependency"),
            false if self.project.lockfile.is_some() => format!("is `{name}` among the dependencies in package.json?"),
            false => format!("for a package, list `{name}` in the dependencies of a package.json, with a lockfile"),
        };
        problem.message = format!("{}; {advice}", problem.message);
        problem
    }

    async fn run(
        &self,
        step: BuildStep,
        args: Vec<OsString>,
        mut environment: Vec<(String, String)>,
        network: Network,
        shown: Option<(&Path, &Path)>,
    ) -> Result<ExitStatus, BuildError> {
        environment.extend([("NO_COLOR".into(), "1".into()), ("CI".into(), "1".into())]);
        let job = ToolJob {
            args,
            environment,
            folder: Path::new(PROJECT),
            network,
            is_writable: true,
            shown,
            deadline: self.deadline,
        };
        let ended = self.place.run(job, |bytes| self.log.print(bytes)).await;
        self.log.flush();
        let timeout_ms = self.config.timeout_ms;
        ended.map_err(|source| match source {
            ToolError::Io(error) => BuildError::Io(error),
            source => BuildError::Ended { step, source, timeout_ms },
        })
    }
}

/// Whether this is a real folder rather than a link: the process may have left links to any place.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|it| it.is_dir())
}

fn read_result(path: &Path) -> io::Result<BuildResult> {
    // The process may have replaced the file with anything.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = Vec::new();
    file.take(RESULT_BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Lists the files of the bundle. Staging refuses links and devices.
fn outputs(folder: &Path) -> io::Result<Vec<(String, Content)>> {
    let mut files = Vec::new();
    if !is_folder(folder) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let mut folders: Vec<(PathBuf, String)> = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| io::ErrorKind::InvalidData)?;
            let path = format!("{prefix}{name}");
            match entry.file_type()?.is_dir() {
                true => folders.push((entry.path(), format!("{path}/"))),
                false => files.push((path, Content::File(entry.path()))),
            }
            if files.len() + folders.len() > OUT_FILES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
    Ok(files)
}
