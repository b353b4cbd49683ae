//! The private root of workers: Bun, its libraries, the shim, and nothing else of the machine.
//!
//! ```text
//! /bun  /lib…  /shim/  /etc/resolv.conf…     read-only, the same for all
//! /bundle/                                   the worker's slot: the daemon puts the function's code there; read-only, but
//!                                            for a throw-away process, which works there
//! /tmp/                                      its own, in memory, of limited size
//! /dev/{null,zero,random,urandom}  /proc/    its own processes
//! ```
//!
//! The template is created once, when the daemon starts. Each worker binds it into its own mount namespace.

use super::libraries;
use crate::worker::{launch::ConfineStep, runtime::BunRuntime};
use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// Paths inside a worker's root.
pub(super) const BUN: &str = "/bun";
pub(super) const SHIM: &str = "/shim";
pub(super) const BUNDLE: &str = "/bundle";
pub(super) const HOME: &str = "/tmp";

/// Files of the machine that are copied into the root if they exist: name resolution and library paths.
const COPIED: [&str; 6] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/nsswitch.conf", "/etc/ld.so.cache"];

const DEVICES: [&str; 4] = ["null", "zero", "random", "urandom"];

/// Maximum number of files in one `/tmp`.
const TMP_FILES_MAX: u32 = 65_536;

/// The template of all roots.
#[derive(Debug)]
pub(super) struct Root {
    folder: PathBuf,
    bun: PathBuf,
}

/// Differences of a root from the template.
#[derive(Debug, Clone, Copy)]
pub(super) struct RootOptions<'a> {
    /// Size of `/tmp` in MiB.
    pub(super) tmp_mb: u32,
    /// Owner of `/tmp`, if not the user who mounts it.
    pub(super) owner: Option<u32>,
    /// Whether the machine's own `/proc` is shown instead of one of the worker's namespace.
    pub(super) shared_proc: bool,
    /// Whether the process may write to its `/bundle`.
    pub(super) is_writable: bool,
    /// A further folder to show read-only, and its place in `/bundle`.
    pub(super) shown: Option<(&'a Path, &'a Path)>,
}

impl Root {
    /// Creates the template in a new folder.
    pub(super) fn make(folder: &Path, runtime: &BunRuntime) -> io::Result<Self> {
        let bun = runtime.bun.canonicalize()?;
        make_folder(folder)?;
        for name in ["shim", "bundle", "tmp", "proc", "dev", "etc"] {
            make_folder(&folder.join(name))?;
        }
        File::create(inside(folder, BUN))?;
        for device in DEVICES {
            File::create(folder.join("dev").join(device))?;
        }
        for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
            symlink(format!("/proc/self/{target}"), folder.join("dev").join(name))?;
        }
        for library in libraries::of(&bun)? {
            copy(&library, &inside(folder, &library))?;
        }
        for file in COPIED.iter().map(Path::new).filter(|it| it.is_file()) {
            copy(file, &inside(folder, file))?;
        }
        for file in fs::read_dir(runtime.shim_folder())? {
            let file = file?;
            copy(&file.path(), &inside(folder, SHIM).join(file.file_name()))?;
        }
        Ok(Self { folder: folder.to_owned(), bun })
    }

    /// Lists the steps by which a process enters a root of its own, with this folder as its `/bundle`.
    pub(super) fn steps(&self, bundle: &Path, options: RootOptions<'_>) -> Vec<ConfineStep> {
        let relative = |path: &'static str| Path::new(path.trim_start_matches('/'));
        let mut steps = vec![
            ConfineStep::private_mounts(),
            // Only a mount can become the root.
            ConfineStep::bind(&self.folder, &self.folder),
            ConfineStep::go_to(&self.folder),
            ConfineStep::bind(&self.bun, relative(BUN)),
            ConfineStep::read_only(relative(BUN)),
            ConfineStep::bind(bundle, relative(BUNDLE)),
        ];
        if !options.is_writable {
            steps.push(ConfineStep::read_only(relative(BUNDLE)));
        }
        if let Some((folder, place)) = options.shown {
            let place = relative(BUNDLE).join(place);
            steps.extend([ConfineStep::bind(folder, &place), ConfineStep::read_only(&place)]);
        }
        for device in DEVICES {
            // Read-only protects the permissions: the device itself stays writable.
            let inside = Path::new("dev").join(device);
            steps
                .extend([ConfineStep::bind(&Path::new("/dev").join(device), &inside), ConfineStep::read_only(&inside)]);
        }
        let mut tmp = format!("size={}m,nr_inodes={TMP_FILES_MAX},mode=1777", options.tmp_mb);
        if let Some(owner) = options.owner {
            tmp += &format!(",uid={owner},gid={owner}");
        }
        steps.push(ConfineStep::file_system(c"tmpfs", relative(HOME), Some(&tmp)));
        let proc = Path::new("proc");
        steps.push(match options.shared_proc {
            true => ConfineStep::bind(Path::new("/proc"), proc),
            false => ConfineStep::file_system(c"proc", proc, None),
        });
        // The kernel settings in `/proc` belong to root, and the daemon may be root.
        steps.push(ConfineStep::read_only(proc));
        steps.extend([
            ConfineStep::read_only(Path::new(".")),
            ConfineStep::SwapRoot,
            ConfineStep::go_to(Path::new("/")),
        ]);
        steps
    }
}

/// Maps a path of the root to the folder that will become it.
fn inside(folder: &Path, path: impl AsRef<Path>) -> PathBuf {
    folder.join(path.as_ref().strip_prefix("/").unwrap_or(path.as_ref()))
}

/// Creates a folder that everybody may enter, regardless of the daemon's umask.
fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut missing: Vec<&Path> = to.ancestors().skip(1).take_while(|it| !it.exists()).collect();
    missing.reverse();
    missing.into_iter().try_for_each(make_folder)?;
    fs::copy(from, to)?;
    fs::set_permissions(to, Permissions::from_mode(0o555))
}
