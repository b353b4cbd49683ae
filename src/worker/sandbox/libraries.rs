//! Finds the libraries that a program needs, with the help of its own loader.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Libraries beside the C library that versions before 2.34 load by themselves when they resolve a name.
const RESOLVERS: [&str; 3] = ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"];

/// Returns the loader and all libraries of a program, at the loader's paths. Empty for a static program.
///
/// The program is not run: its loader lists what it would load, and exits.
pub(super) fn of(program: &Path) -> io::Result<Vec<PathBuf>> {
    let mut loader = Command::new(program);
    loader.env_clear().env("LD_TRACE_LOADED_OBJECTS", "1").arg("--version");
    let output = loader.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    let mut libraries = listed(&String::from_utf8_lossy(&output.stdout));
    let beside = libraries.iter().find(|it| it.file_name().is_some_and(|name| name == "libc.so.6"));
    if let Some(folder) = beside.and_then(|it| it.parent()).map(Path::to_owned) {
        libraries.extend(RESOLVERS.iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
    }
    Ok(libraries)
}

/// Extracts paths from lines such as `libc.so.6 => /lib/libc.so.6 (0x7f…)` and `/lib64/ld-linux.so.2 (0x7f…)`. Entries
/// without a path, such as the kernel's own part, are not files.
fn listed(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let named = line.split_once("=>").map_or(line, |(_, path)| path);
        named.split_whitespace().next().filter(|path| path.starts_with('/')).map(PathBuf::from)
    };
    text.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_follows_the_arrow_or_stands_alone() {
        let text = "\tlinux-vdso.so.1 (0x00007f7c6d757000)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f7c6d759000)\n\tlibx.so => not found\n";
        assert_eq!(listed(text), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from));
        assert_eq!(listed("1.4.5\n"), [] as [PathBuf; 0], "a static program ignores the question");
    }

    #[test]
    fn a_real_program_needs_files_that_exist() {
        let libraries = of(Path::new("/bin/sh")).expect("a shell");
        assert!(libraries.iter().all(|it| it.is_file()), "{libraries:?}");
    }
}
