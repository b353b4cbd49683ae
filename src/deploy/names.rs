//! Names of files that have a meaning of their own in a source.

use std::path::Path;

/// Extensions of files that Bun can import, best first.
pub(super) const EXTENSIONS: [&str; 8] = ["js", "mjs", "cjs", "ts", "mts", "cts", "jsx", "tsx"];

/// Name of a self-contained file, without extension.
pub(super) const BUNDLED_NAME: &str = "bundle";

/// File that lists a project's packages and workspaces and may name the file to build.
pub(super) const PACKAGE_FILE: &str = "package.json";

/// File that names the registry of a project's packages.
pub(super) const REGISTRY_FILE: &str = ".npmrc";

/// Folder of installed packages.
pub(super) const MODULES: &str = "node_modules";

/// Lockfiles, which fix the versions of all packages, best first: Bun's own, and those it reads.
pub(super) const LOCKFILES: [&str; 5] = ["bun.lock", "bun.lockb", "package-lock.json", "yarn.lock", "pnpm-lock.yaml"];

/// Returns the extension of a file that Bun can import.
pub(super) fn code_extension(path: &Path) -> Option<&str> {
    path.extension()?.to_str().filter(|it| EXTENSIONS.contains(it))
}

/// Whether Bun can import a file, judged by its name.
pub(super) fn is_code(path: &str) -> bool {
    code_extension(Path::new(path)).is_some()
}

/// Whether a file is self-contained, judged by its name.
pub(super) fn is_bundled(path: &str) -> bool {
    Path::new(path).file_stem().is_some_and(|it| it == BUNDLED_NAME)
}

/// Returns the name to store a single file of code under. It does not depend on the file's own name, so that equal code
/// gives equal versions.
#[must_use]
pub fn stored_name(path: &Path) -> Option<String> {
    code_extension(path).map(|it| format!("{BUNDLED_NAME}.{it}"))
}

/// Whether a file determines which packages are installed, if they come from a registry.
pub(super) fn tells_packages(path: &str) -> bool {
    [PACKAGE_FILE, REGISTRY_FILE].contains(&path) || LOCKFILES.contains(&path)
}

/// Whether a file is inside a folder of installed packages.
pub(super) fn is_installed(path: &str) -> bool {
    path.split('/').any(|it| it == MODULES)
}
