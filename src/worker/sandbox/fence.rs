//! Landlock: what the kernel keeps a worker from, whoever it is.
//!
//! Inside a private root there are no files to keep it from. The ruleset there makes a domain of its own, which no other
//! worker may trace, and keeps it from abstract sockets and from signals to the outside. Without a private root the
//! ruleset also names every file that a worker may use.

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// The newest version whose rights are meant here. An older kernel keeps what it knows of them.
const NEWEST: ABI = ABI::V6;

/// The version that knows scopes: abstract sockets and signals.
pub(super) const WITH_SCOPES: u32 = 6;

/// The version that knows whether a file may be shortened by its name.
pub(super) const WITH_TRUNCATE: u32 = 3;

/// Files that hold settings of the machine which a worker needs for names and times.
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

/// The files of a worker that sees those of the machine.
pub(super) struct Files<'a> {
    /// What it executes, and what that is linked with.
    pub(super) programs: &'a [PathBuf],
    /// Folders and files it reads.
    pub(super) readable: &'a [&'a Path],
    /// The folders it writes in.
    pub(super) writable: &'a [&'a Path],
}

/// The ruleset for the inside of the private roots made of this template; none where the kernel has no Landlock.
pub(super) fn inside_a_root(template: &Path) -> io::Result<Option<OwnedFd>> {
    let with_rule = || {
        // A domain comes with a right that it takes away; nobody may make device files as it is.
        let mut ruleset = create(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::Refer)?;
        // Every ruleset refuses to move or link files from one folder to another unless it says otherwise. Of what is
        // mounted in a root its ruleset knows only the root: there nothing can be written but what is the process's own.
        allow(&mut ruleset, template, AccessFs::Refer.into())?;
        Ok::<_, RulesetError>(ruleset)
    };
    Ok(with_rule().map_err(io::Error::other)?.into())
}

/// The ruleset for a worker that sees the machine's files; none where the kernel has no Landlock.
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

/// Allows it if it is there.
fn allow(ruleset: &mut RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<(), RulesetError> {
    let Ok(file) = PathFd::new(path) else { return Ok(()) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    ruleset.add_rule(PathBeneath::new(file, access)).map(drop)
}
