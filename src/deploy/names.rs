//! Names of files that have a meaning of their own in a source.

use crate::protocol::worker::COMPILED_FILE;
use std::path::Path;

/// Longest name under which a file of code is stored.
const NAME_BYTES_MAX: usize = 100;

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

/// Returns the name to store a single file of code under: the file's own, which errors and stacks then show. A name that
/// is not plain text is replaced.
#[must_use]
pub fn stored_name(path: &Path) -> Option<String> {
    let extension = code_extension(path)?;
    let is_plain = |it: &&str| {
        let is_letter = |it: char| it.is_ascii_alphanumeric() || "._-".contains(it);
        it.len() <= NAME_BYTES_MAX && !it.starts_with(['.', '-']) && it.chars().all(is_letter) && *it != COMPILED_FILE
    };
    let own = path.file_name().and_then(|it| it.to_str()).filter(is_plain);
    Some(own.map_or_else(|| format!("{BUNDLED_NAME}.{extension}"), str::to_owned))
}

/// Whether a file determines which packages are installed, if they come from a registry.
pub(super) fn tells_packages(path: &str) -> bool {
    [PACKAGE_FILE, REGISTRY_FILE].contains(&path) || LOCKFILES.contains(&path)
}

/// Whether a file is inside a folder of installed packages.
pub(super) fn is_installed(path: &str) -> bool {
    path.split('/').any(|it| it == MODULES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_code_keeps_a_plain_name() {
        let long = format!("{}.ts", "x".repeat(100));
        for (path, expected) in [
            ("/home/me/syn.ts", Some("syn.ts")),
            ("a.b-c_1.mjs", Some("a.b-c_1.mjs")),
            ("my code.ts", Some("bundle.ts")),
            ("né.js", Some("bundle.js")),
            (".hidden.js", Some("bundle.js")),
            (COMPILED_FILE, Some("bundle.js")),
            (long.as_str(), Some("bundle.ts")),
            ("words.txt", None),
        ] {
            assert_eq!(stored_name(Path::new(path)).as_deref(), expected, "{path}");
        }
    }
}
