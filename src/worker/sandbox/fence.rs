//! Landlock rulesets: access rules that the kernel enforces on a worker, whatever its user.
//!
//! Inside a private root there are no files to protect. The ruleset there creates a separate domain, which other
//! workers cannot trace, and blocks abstract sockets and signals to the outside. Without a private root the ruleset
//! also names every file that a worker may use.

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// Newest version whose rights are requested. An older kernel applies those it knows.
const NEWEST: ABI = ABI::V6;

/// First version with scopes: abstract sockets and signals.
pub(super) const WITH_SCOPES: u32 = 6;

/// First version that controls truncation of files by name.
pub(super) const WITH_TRUNCATE: u32 = 3;

/// Files with settings of the machine, which a worker needs for names and times.
const SETTINGS: [&str; 9] = [
    "/etc/ld.so.cache",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/proc",
];

/// The machine's files that a worker without a root of its own may use.
pub(super) struct Files<'a> {
    /// Programs that the worker executes, and the libraries they are linked with.
    pub(super) programs: &'a [PathBuf],
    /// Folders and files that the worker reads.
    pub(super) readable: &'a [&'a Path],
    /// Folders that the worker writes to.
    pub(super) writable: &'a [&'a Path],
}

/// Builds the ruleset for private roots made from this template; `None` if the kernel has no Landlock.
pub(super) fn inside_a_root(template: &Path) -> io::Result<Option<OwnedFd>> {
    let with_rule = || {
        // A domain needs at least one handled right; workers may not create device files anyway.
        let mut ruleset = create(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::Refer)?;
        // Every ruleset forbids moving or linking files between folders unless a rule allows it. Of the mounts in a
        // root, the ruleset covers only the root itself: there the process can write only its own files.
        allow(&mut ruleset, template, AccessFs::Refer.into())?;
        Ok::<_, RulesetError>(ruleset)
    };
    Ok(with_rule().map_err(io::Error::other)?.into())
}

/// Builds the ruleset for a worker that sees the machine's files; `None` if the kernel has no Landlock.
pub(super) fn among_files(files: &Files<'_>) -> io::Result<Option<OwnedFd>> {
    Ok(with_rules(files).map_err(io::Error::other)?.into())
}

fn create(handled: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()
}

fn with_rules(files: &Files<'_>) -> Result<RulesetCreated, RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::Execute);
    let mut ruleset = create(AccessFs::from_all(NEWEST))?;
    for program in files.programs {
        allow(&mut ruleset, program, AccessFs::ReadFile | AccessFs::Execute)?;
    }
    for path in SETTINGS.iter().map(Path::new).chain(files.readable.iter().copied()) {
        allow(&mut ruleset, path, read)?;
    }
    for device in ["/dev/zero", "/dev/random", "/dev/urandom"] {
        allow(&mut ruleset, Path::new(device), AccessFs::ReadFile.into())?;
    }
    allow(&mut ruleset, Path::new("/dev/null"), AccessFs::ReadFile | AccessFs::WriteFile)?;
    for folder in files.writable {
        allow(&mut ruleset, folder, write)?;
    }
    Ok(ruleset)
}

/// Adds a rule for a path, if it exists.
fn allow(ruleset: &mut RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<(), RulesetError> {
    let Ok(file) = PathFd::new(path) else { return Ok(()) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    ruleset.add_rule(PathBeneath::new(file, access)).map(drop)
}
