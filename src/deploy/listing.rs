//! Selects the files of a folder that belong to its bundle.
//!
//! Hidden files are left out because they hold tools' own data and often secrets; so is everything that a `.gitignore`
//! or `.levainignore` in the folder or below it names, by git's rules. `.levainignore` takes precedence, so that
//! `!dist` in it includes what git ignores. Rules of folders above do not apply: deploying `dist` means deploying its
//! content.
//!
//! `node_modules` is included because code imports from it. Git ignores it only because it can be installed again,
//! which does not happen for files that are used as the bundle, so `.gitignore` rules about it are skipped. It is left
//! out beside a `bundle` file, which is self-contained, and from the sources of a build ([`Listed`]).

use super::{
    SourceError,
    names::{self, MODULES, REGISTRY_FILE},
};
use crate::bundle::SourceFolder;
use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use std::{
    io::{self, Read},
    path::Path,
};

/// File with the rules of git.
const GIT_IGNORE: &str = ".gitignore";

/// File with the rules for deployments.
const OWN_IGNORE: &str = ".levainignore";

/// Longest file of rules, in bytes.
const IGNORE_BYTES_MAX: u64 = 64 * 1024;

/// Purpose of a folder's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    /// The files are the bundle, and its entry needs the installed packages.
    Bundle,
    /// The files are the bundle, and its entry is self-contained: the top folder's packages are left out.
    FinishedBundle,
    /// A bundle is built from the files: packages are left out everywhere, but not the files that say where they come
    /// from.
    Project,
}

impl Listed {
    /// Purpose of files that are used as the bundle with this entry.
    pub(super) fn of(entry: &str) -> Self {
        if names::is_bundled(entry) { Self::FinishedBundle } else { Self::Bundle }
    }
}

/// Rules of a folder and, after them, of its subfolders on the way to a file.
#[derive(Debug, Default)]
struct IgnoreRules {
    git: Vec<Gitignore>,
    own: Vec<Gitignore>,
}

impl IgnoreRules {
    /// Applies the nearest matching rule: whether to leave the path out, or `None` if no rule matches.
    fn say(rules: &[Gitignore], path: &Path, is_folder: bool) -> Option<bool> {
        rules.iter().rev().find_map(|rules| match rules.matched(path, is_folder) {
            Match::None => None,
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
        })
    }
}

/// State of listing a folder.
struct Listing<'a> {
    folder: &'a SourceFolder,
    rules: IgnoreRules,
    kind: Listed,
    files: Vec<String>,
    files_max: usize,
}

/// Lists the files of a bundle in a folder, by their paths inside it. Links are listed, not followed.
pub(super) fn list(folder: &SourceFolder, kind: Listed, files_max: usize) -> Result<Vec<String>, SourceError> {
    let mut listing = Listing { folder, rules: IgnoreRules::default(), kind, files: Vec::new(), files_max };
    listing.read("", false)?;
    Ok(listing.files)
}

impl Listing<'_> {
    /// Reads a folder; `prefix` is its path with a trailing slash, or empty.
    fn read(&mut self, prefix: &str, is_in_modules: bool) -> Result<(), SourceError> {
        let folder = self.folder.path_of(prefix);
        let at_folder = |cause| SourceError::NotFound { path: folder.clone(), uid: self.folder.uid(), cause };
        let (git, own) = (self.rules.git.len(), self.rules.own.len());
        let children = self.folder.list(prefix.trim_end_matches('/')).map_err(at_folder)?;
        self.rules.own.extend(rules(self.folder, prefix, OWN_IGNORE)?);
        if !is_in_modules {
            self.rules.git.extend(rules(self.folder, prefix, GIT_IGNORE)?);
        }
        for (name, is_folder) in children {
            let path = folder.join(&name);
            let name = name.into_string().map_err(|_| SourceError::Name(path.clone()))?;
            let is_modules = is_folder && name == MODULES;
            let left_out = match IgnoreRules::say(&self.rules.own, &path, is_folder) {
                _ if name.starts_with('.') => is_folder || name != REGISTRY_FILE || self.kind != Listed::Project,
                _ if is_modules && self.kind == Listed::Project => true,
                Some(said) => said,
                None if is_modules => self.kind == Listed::FinishedBundle && prefix.is_empty(),
                None => !is_in_modules && IgnoreRules::say(&self.rules.git, &path, is_folder) == Some(true),
            };
            if left_out {
                continue;
            }
            let inside = format!("{prefix}{name}");
            if is_folder {
                self.read(&format!("{inside}/"), is_in_modules || is_modules)?;
            } else {
                self.files.push(inside);
            }
            if self.files.len() > self.files_max {
                return Err(SourceError::TooManyFiles { path: folder, max: self.files_max });
            }
        }
        self.rules.git.truncate(git);
        self.rules.own.truncate(own);
        Ok(())
    }
}

/// Reads the rules of one file, if it exists. Links are ignored, as git does.
fn rules(folder: &SourceFolder, prefix: &str, name: &str) -> Result<Option<Gitignore>, SourceError> {
    let (parent, inside) = (folder.path_of(prefix), format!("{prefix}{name}"));
    let refused = |reason: String| SourceError::IgnoreFile { path: parent.join(name), reason };
    let Some(text) = read_rules(folder, &inside).map_err(|cause| refused(cause.to_string()))? else { return Ok(None) };
    let mut builder = GitignoreBuilder::new(&parent);
    for line in text.trim_start_matches('\u{feff}').lines() {
        builder.add_line(None, line).map_err(|error| refused(error.to_string()))?;
    }
    builder.build().map(Some).map_err(|error| refused(error.to_string()))
}

fn read_rules(folder: &SourceFolder, inside: &str) -> io::Result<Option<String>> {
    let file = match folder.open(inside) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => return Err(cause),
        _ => return Ok(None),
    };
    let mut text = String::new();
    if file.take(IGNORE_BYTES_MAX + 1).read_to_string(&mut text)? as u64 > IGNORE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {IGNORE_BYTES_MAX} bytes")));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::SourceEntry;
    use std::fs;

    fn opened(path: &Path) -> SourceFolder {
        match SourceEntry::open(path, None) {
            Ok(SourceEntry::Folder(folder)) => folder,
            other => panic!("{other:?}"),
        }
    }

    fn listed(files: &[(&str, &str)], is_finished: bool) -> Result<Vec<String>, SourceError> {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it is below the folder")).expect("folders");
            fs::write(path, text).expect("a file");
        }
        let kind = if is_finished { Listed::FinishedBundle } else { Listed::Bundle };
        let mut names = list(&opened(folder.path()), kind, 10)?;
        names.sort();
        Ok(names)
    }

    #[test]
    fn hidden_files_and_what_the_rules_name_are_left_out() {
        let files = [
            (".gitignore", "\u{feff}# comment\n*.log\n/dist\n!keep.log\nlib/*\n!lib/used.ts\ntmp/\n"),
            (".git/config", ""),
            (".env", "SECRET=1"),
            ("index.ts", ""),
            ("a.log", ""),
            ("keep.log", ""),
            ("dist/index.js", ""),
            ("sub/dist/a.js", ""),
            ("lib/used.ts", ""),
            ("lib/unused.ts", ""),
            ("tmp", "a file, not a folder"),
            ("sub/tmp/x", ""),
        ];
        let wanted = ["index.ts", "keep.log", "lib/used.ts", "sub/dist/a.js", "tmp"];
        assert_eq!(listed(&files, false).expect("a listing"), wanted);
    }

    #[test]
    fn the_nearest_rule_and_levainignore_have_the_last_word() {
        let files = [
            (".gitignore", "dist\n*.map\n"),
            (".levainignore", "!dist\n*.test.ts\n/README.md\n"),
            ("dist/index.js", ""),
            ("dist/index.js.map", ""),
            ("dist/.gitignore", "!index.js.map\n"),
            ("a.test.ts", ""),
            ("README.md", ""),
            ("sub/README.md", ""),
            ("sub/.levainignore", "!b.test.ts\n"),
            ("sub/b.test.ts", ""),
            ("sub/c.test.ts", ""),
        ];
        let wanted = ["dist/index.js", "dist/index.js.map", "sub/README.md", "sub/b.test.ts"];
        assert_eq!(listed(&files, false).expect("a listing"), wanted);
    }

    #[test]
    fn packages_stay_unless_the_bundle_has_them_or_levainignore_says_so() {
        let packages = [
            (".gitignore", "node_modules\n*.map\n"),
            ("index.ts", ""),
            ("node_modules/a/index.js", ""),
            ("node_modules/a/index.js.map", ""),
            ("node_modules/a/.gitignore", "index.js\n"),
            ("node_modules/.bin/a", ""),
        ];
        let kept = ["index.ts", "node_modules/a/index.js", "node_modules/a/index.js.map"];
        assert_eq!(listed(&packages, false).expect("a listing"), kept);
        assert_eq!(listed(&packages, true).expect("a listing"), ["index.ts"]);
        let with = |rules| [&packages[..], &[(".levainignore", rules)]].concat();
        assert_eq!(listed(&with("!node_modules"), true).expect("a listing"), kept);
        assert_eq!(listed(&with("node_modules"), false).expect("a listing"), ["index.ts"]);
        assert_eq!(listed(&with("*.map"), false).expect("a listing"), kept[..2]);
    }

    #[test]
    fn a_project_is_sent_without_packages_and_with_its_registry() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in
            ["node_modules/a.js", "packages/b/node_modules/c.js", "packages/b/index.ts", ".npmrc", ".env", "src/a.ts"]
        {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it is below the folder")).expect("folders");
            fs::write(path, "").expect("a file");
        }
        fs::write(folder.path().join(".levainignore"), "!node_modules").expect("a file");
        let mut names = list(&opened(folder.path()), Listed::Project, 10).expect("a listing");
        names.sort();
        assert_eq!(names, [".npmrc", "packages/b/index.ts", "src/a.ts"]);
    }

    #[test]
    fn rules_that_cannot_be_read_are_refused() {
        let refused = |rules: &str| {
            let outcome = listed(&[(".levainignore", rules), ("index.ts", "")], false);
            assert!(matches!(outcome, Err(SourceError::IgnoreFile { .. })), "{outcome:?}");
        };
        refused("a{b\n");
        refused(&"x\n".repeat(40_000));
        let link = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/dev/zero", link.path().join(".gitignore")).expect("a link");
        nix::unistd::mkfifo(&link.path().join(".levainignore"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(list(&opened(link.path()), Listed::Bundle, 10).expect("a listing").is_empty());
    }
}
