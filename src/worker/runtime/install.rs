//! Installing Bun with npm.
//!
//! npm brings what a download of our own would need: proxies, mirrors, certificates, retries, and the check of the
//! package against the registry's digest. The package of the platform contains the executable, so no script is run.

use super::RuntimeError;
use super::bun::{self, FoundBun, Origin, Unusable, pinned_version};
use super::command::{self, CommandError};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{AccessFlags, access};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, io};
use tokio::process::Command;

/// Time limit for npm.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Output limit for npm.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Interval of progress reports while npm prints nothing.
const TICK: Duration = Duration::from_secs(5);

/// Interval at which a lock of another process is retried.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// Name prefix of unfinished installations.
const UNFINISHED: &str = ".install-";

/// Installs the pinned Bun into the data directory, unless it is there. `progress` gets lines for people to read.
///
/// Concurrent installations wait for each other, so that only one downloads.
///
/// # Errors
/// When npm is missing or fails, or when the installed Bun does not run here.
pub async fn install(data_dir: &Path, progress: impl FnMut(&str)) -> Result<FoundBun, RuntimeError> {
    install_with("npm".as_ref(), data_dir, progress).await
}

async fn install_with(npm: &OsStr, data_dir: &Path, mut progress: impl FnMut(&str)) -> Result<FoundBun, RuntimeError> {
    let parent = super::folder(data_dir)?;
    let _lock = lock(&parent.join("install.lock"), &mut progress).await?;
    let target = bun::own_bun(&std::path::absolute(data_dir).map_err(RuntimeError::at(data_dir))?);
    if let Ok(found) = check(&target).await {
        progress(&format!("Bun {} is installed", found.version));
        return Ok(found);
    }
    remove_unfinished(&parent);

    let started = Instant::now();
    let name = package();
    let package = format!("{name}@{}", pinned_version());
    let new = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&parent).map_err(RuntimeError::at(&parent))?;
    progress(&format!("installing Bun {} with npm (about 50 MB) …", pinned_version()));
    run_npm(npm, new.path(), &package, &mut progress).await?;
    let unpacked = new.path().join("node_modules").join(name).join("bin/bun");
    check(&unpacked).await.map_err(|reason| RuntimeError::Installed { package, reason })?;

    let folder = target.parent().unwrap_or(&parent);
    let complete = new.path().join("complete");
    let _ = fs::remove_dir_all(folder);
    fs::create_dir(&complete)
        .and_then(|()| fs::rename(&unpacked, complete.join("bun")))
        .and_then(|()| fs::rename(&complete, folder))
        .map_err(RuntimeError::at(folder))?;
    progress(&format!("installed Bun {} in {:.1} s", pinned_version(), started.elapsed().as_secs_f64()));
    Ok(FoundBun { path: target, version: pinned_version().clone(), origin: Origin::DataDirectory })
}

/// Checks that the pinned version is present and runs.
async fn check(path: &Path) -> Result<FoundBun, Unusable> {
    let found = bun::check(Origin::DataDirectory, path).await?;
    if found.version == *pinned_version() { Ok(found) } else { Err(Unusable::OtherVersion { found: found.version }) }
}

/// Waits for the lock, which ends with its process, however that ends.
async fn lock(path: &Path, progress: &mut impl FnMut(&str)) -> Result<Flock<File>, RuntimeError> {
    let mut file =
        File::options().create(true).truncate(false).write(true).open(path).map_err(RuntimeError::at(path))?;
    let mut waits = false;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => file,
            Err((_, error)) => return Err(RuntimeError::at(path)(error.into())),
        };
        if !waits {
            progress("waiting for another installation …");
            waits = true;
        }
        tokio::time::sleep(LOCK_RETRY).await;
    }
}

/// Removes what killed installations have left; the lock is held, so none is running.
fn remove_unfinished(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries.filter(|it| it.file_name().to_string_lossy().starts_with(UNFINISHED)) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

async fn run_npm(
    npm: &OsStr,
    folder: &Path,
    package: &str,
    progress: &mut impl FnMut(&str),
) -> Result<(), RuntimeError> {
    let mut command = Command::new(npm);
    command
        .args(["install", "--no-global", "--no-save", "--no-package-lock", "--ignore-scripts"])
        .args(["--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error", "--prefix"])
        .args([folder.as_os_str(), package.as_ref()])
        .current_dir(folder);
    // Without a writable home, npm has no place for its cache; with an empty one it creates a folder `~` here.
    let home = env::var_os("HOME").filter(|it| Path::new(it).is_absolute());
    if home.is_none_or(|it| access(Path::new(&it), AccessFlags::W_OK).is_err()) {
        command.env("HOME", folder);
    }
    let started = Instant::now();
    let mut installed = std::pin::pin!(command::run(command, TIME_MAX, OUTPUT_BYTES_MAX));
    let installed = loop {
        match tokio::time::timeout(TICK, &mut installed).await {
            Ok(installed) => break installed,
            Err(_) => progress(&format!("still installing after {} s …", started.elapsed().as_secs())),
        }
    };
    match installed {
        Ok(_) => Ok(()),
        Err(CommandError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Err(RuntimeError::NpmMissing),
        Err(reason) => Err(RuntimeError::Npm { package: package.into(), reason }),
    }
}

/// Name of the package with the executable for this machine.
fn package() -> &'static str {
    let is_arm = cfg!(target_arch = "aarch64");
    // This binary may be linked statically, so its own C library does not tell which one the machine has.
    let (glibc, musl) = if is_arm {
        ("/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-aarch64.so.1")
    } else {
        ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1")
    };
    let is_musl = !Path::new(glibc).exists() && Path::new(musl).exists();
    match (is_arm, is_musl, has_avx2()) {
        (true, false, _) => "@oven/bun-linux-aarch64",
        (true, true, _) => "@oven/bun-linux-aarch64-musl",
        (false, false, true) => "@oven/bun-linux-x64",
        (false, false, false) => "@oven/bun-linux-x64-baseline",
        (false, true, true) => "@oven/bun-linux-x64-musl",
        (false, true, false) => "@oven/bun-linux-x64-musl-baseline",
    }
}

/// Bun's ordinary x86-64 build ends with SIGILL on a processor without AVX2.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::super::bun::tests::fake_bun;
    use super::*;
    use std::path::PathBuf;

    #[tokio::test]
    async fn what_is_there_is_not_installed_again() {
        let data = tempfile::tempdir().expect("a folder");
        let own = bun::own_bun(data.path());
        fake_bun(&own, &format!("echo {}", pinned_version()));
        let mut lines = Vec::new();
        let found = install(data.path(), |line| lines.push(line.to_owned())).await.expect("it is there");
        assert_eq!((found.path, found.origin), (own, Origin::DataDirectory));
        assert_eq!(lines, [format!("Bun {} is installed", pinned_version())]);
    }

    #[tokio::test]
    async fn an_installation_waits_for_another() {
        let data = tempfile::tempdir().expect("a folder");
        let parent = data.path().join(super::super::FOLDER);
        fake_bun(&bun::own_bun(data.path()), &format!("echo {}", pinned_version()));
        let mut held = Some(lock(&parent.join("install.lock"), &mut |_| ()).await.expect("the lock"));
        let mut lines = Vec::new();
        let waits = |line: &str| {
            lines.push(line.to_owned());
            held.take();
        };
        install(data.path(), waits).await.expect("it is there");
        assert_eq!(lines[0], "waiting for another installation …");
        assert_eq!(lines.len(), 2);
    }

    /// A script that stands in for npm: `$folder` is its target, `$bun` the executable of the package.
    fn fake_npm(machine: &Path, script: &str) -> PathBuf {
        let find = r#"while [ "$1" != --prefix ]; do shift; done; folder=$2; bun=$folder/node_modules/${3%@*}/bin/bun"#;
        fake_bun(&machine.join("npm"), &format!("{find}\n{script}"))
    }

    /// Script lines that install a Bun of this version.
    fn installs(version: &str) -> String {
        format!(r#"mkdir -p "${{bun%/bun}}" && printf '#!/bin/sh\necho {version}\n' > "$bun" && chmod 755 "$bun""#)
    }

    fn unfinished(data: &Path) -> usize {
        let entries = fs::read_dir(data.join(super::super::FOLDER)).expect("a folder").flatten();
        entries.filter(|it| it.file_name().to_string_lossy().starts_with(UNFINISHED)).count()
    }

    #[tokio::test]
    async fn two_installations_at_once_download_once() {
        let machine = tempfile::tempdir().expect("a folder");
        let (data, count) = (machine.path().join("data"), machine.path().join("count"));
        let script = format!("echo run >> {}; {}", count.display(), installs(&pinned_version().to_string()));
        let npm = fake_npm(machine.path(), &script);
        let (one, other) =
            tokio::join!(install_with(npm.as_ref(), &data, |_| ()), install_with(npm.as_ref(), &data, |_| ()),);
        assert_eq!(one.expect("an installation"), other.expect("the same installation"));
        assert_eq!(fs::read_to_string(count).expect("npm was run"), "run\n");
        assert_eq!(unfinished(&data), 0);
        let found = bun::find(Some(&bun::own_bun(&data)), &data).await.expect("a Bun");
        assert_eq!(&found.version, pinned_version());
    }

    #[tokio::test]
    async fn a_broken_one_is_installed_again() {
        let machine = tempfile::tempdir().expect("a folder");
        let data = machine.path().join("data");
        fake_bun(&bun::own_bun(&data), "exit 1");
        let npm = fake_npm(machine.path(), &installs(&pinned_version().to_string()));
        install_with(npm.as_ref(), &data, |_| ()).await.expect("an installation");
    }

    #[tokio::test]
    async fn a_failed_installation_says_why_and_leaves_nothing() {
        let machine = tempfile::tempdir().expect("a folder");
        let data = machine.path().join("data");
        let error = async |npm: &Path| {
            let error = install_with(npm.as_os_str(), &data, |_| ()).await.expect_err("it fails").to_string();
            assert_eq!(unfinished(&data), 0);
            assert!(!bun::own_bun(&data).exists());
            error
        };
        let text = error(&machine.path().join("none")).await;
        assert!(text.starts_with("npm, which installs Bun, was not found: install Node's npm, put Bun"), "{text}");
        let text = error(&fake_npm(machine.path(), "mkdir $folder/x; echo no network >&2; exit 7")).await;
        assert!(
            text.contains("@oven/bun-linux-") && text.ends_with("it ended with exit status: 7: no network"),
            "{text}"
        );
        let text = error(&fake_npm(machine.path(), &installs("91.0.0"))).await;
        assert!(text.contains("it is version 91.0.0, not"), "{text}");
        let text = error(&fake_npm(machine.path(), "exit 0")).await;
        assert!(text.contains("it cannot be run: No such file"), "{text}");
    }

    #[test]
    fn only_unfinished_installations_are_removed() {
        let data = tempfile::tempdir().expect("a folder");
        for name in [".install-abc/node_modules", "bun-1.0.0", "shim-abc"] {
            fs::create_dir_all(data.path().join(name)).expect("a folder");
        }
        remove_unfinished(data.path());
        let mut left: Vec<_> =
            fs::read_dir(data.path()).expect("a folder").flatten().map(|it| it.file_name()).collect();
        left.sort();
        assert_eq!(left, ["bun-1.0.0", "shim-abc"]);
    }
}
