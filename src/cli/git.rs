//! Git metadata of a path, if git is installed and the path is in a checkout.

use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

/// Time limit for git: a slow file system must not delay a deployment for a note in its record.
const TIME_MAX: Duration = Duration::from_secs(2);

/// Variables that would point git at another repository than the one around the path. Git sets them for its hooks.
const VARIABLES: [&str; 4] = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"];

/// Returns the commit and branch that are checked out around a file or folder. The commit is marked `-dirty` if the
/// deployed files have uncommitted changes, new files included. Ignored build output is made from other files, so there
/// the whole checkout counts.
pub(super) async fn head(path: &Path) -> (Option<String>, Option<String>) {
    head_by(&Git { program: "git", variables: &[] }, path).await
}

/// Git, with additional environment variables.
struct Git<'a> {
    program: &'a str,
    variables: &'a [(&'a str, &'a str)],
}

impl Git<'_> {
    /// Runs git and returns its output; `None` if it fails.
    async fn print(&self, folder: &Path, arguments: &[&str], path: Option<&Path>) -> Option<String> {
        let mut command = Command::new(self.program);
        // Git must not write an index, and must not run a program that the repository names.
        command.args(["--no-optional-locks", "-c", "core.fsmonitor=false", "-C"]).arg(folder).args(arguments);
        command.args(path.map(|_| "--")).args(path).kill_on_drop(true);
        VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
        command.envs(self.variables.iter().copied());
        let output = command.output().await.ok().filter(|it| it.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

async fn head_by(git: &Git<'_>, path: &Path) -> (Option<String>, Option<String>) {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("/")) };
    let look = async {
        let head = git.print(folder, &["rev-parse", "HEAD", "--abbrev-ref", "HEAD"], None).await?;
        let (commit, branch) = parse(&head);
        let is_dirty = is_dirty(git, folder, path).await?;
        Some((commit.map(|it| if is_dirty { it + "-dirty" } else { it }), branch))
    };
    tokio::time::timeout(TIME_MAX, look).await.ok().flatten().unwrap_or_default()
}

/// Parses two lines: the commit, and the branch or `HEAD` when none is checked out.
fn parse(output: &str) -> (Option<String>, Option<String>) {
    let mut lines = output.lines().map(str::trim).filter(|it| !it.is_empty());
    let commit = lines.next().map(str::to_owned);
    let branch = lines.next().filter(|it| *it != "HEAD").map(str::to_owned);
    (commit, branch)
}

async fn is_dirty(git: &Git<'_>, folder: &Path, path: &Path) -> Option<bool> {
    let status = ["status", "--porcelain", "--ignored"];
    let here = git.print(folder, &status, Some(path)).await?;
    let (ignored, changed): (Vec<_>, Vec<_>) = here.lines().partition(|line| line.starts_with("!!"));
    if !changed.is_empty() || ignored.is_empty() {
        return Some(!changed.is_empty());
    }
    let everywhere = git.print(folder, &status[..2], None).await?;
    Some(!everywhere.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    const GIT: Git<'_> = Git { program: "git", variables: &[] };

    /// Runs git independently of the user's configuration.
    fn run(folder: &Path, arguments: &[&str]) -> String {
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false", "-C"])
            .arg(folder)
            .args(arguments)
            .output()
            .expect("these tests need git");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Creates a repository with `src/index.js` and `other.js`, and `dist` ignored; returns it with its commit.
    fn repository() -> (TempDir, String) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        run(folder.path(), &["init", "--quiet", "--initial-branch", "trunk"]);
        write(&folder, ".gitignore", "dist\n");
        write(&folder, "src/index.js", "1");
        write(&folder, "other.js", "1");
        run(folder.path(), &["add", "."]);
        run(folder.path(), &["commit", "--quiet", "--message", "first"]);
        let commit = run(folder.path(), &["rev-parse", "HEAD"]);
        (folder, commit)
    }

    fn write(folder: &TempDir, path: &str, text: &str) {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn found(commit: &str, branch: &str) -> (Option<String>, Option<String>) {
        (Some(commit.into()), Some(branch.into()))
    }

    #[test]
    fn a_detached_head_is_no_branch() {
        assert_eq!(parse("abc123\nmain\n"), (Some("abc123".into()), Some("main".into())));
        assert_eq!(parse("abc123\nHEAD\n"), (Some("abc123".into()), None));
        assert_eq!(parse(""), (None, None));
    }

    #[tokio::test]
    async fn a_folder_outside_any_checkout_has_neither() {
        assert_eq!(head(Path::new("/proc")).await, (None, None));
    }

    #[tokio::test]
    async fn a_clean_checkout_gives_its_commit_for_a_file_and_for_a_folder() {
        let (folder, commit) = repository();
        for path in ["", "src", "src/index.js"] {
            assert_eq!(head(&folder.path().join(path)).await, found(&commit, "trunk"), "{path}");
        }
        run(folder.path(), &["checkout", "--quiet", "--detach"]);
        assert_eq!(head(folder.path()).await, (Some(commit), None));
    }

    #[tokio::test]
    async fn changes_that_are_not_committed_are_told_where_they_are_deployed() {
        let (folder, commit) = repository();
        let (clean, dirty) = (found(&commit, "trunk"), found(&format!("{commit}-dirty"), "trunk"));
        let at = |path: &str| folder.path().join(path);
        write(&folder, "other.js", "2");
        assert_eq!((head(&at("src")).await, head(&at("src/index.js")).await), (clean.clone(), clean.clone()));
        assert_eq!((head(&at("")).await, head(&at("other.js")).await), (dirty.clone(), dirty.clone()));
        // Staged changes are not committed, and a new file is deployed with its folder.
        run(folder.path(), &["add", "."]);
        assert_eq!(head(&at("other.js")).await, dirty);
        run(folder.path(), &["commit", "--quiet", "--message", "second"]);
        write(&folder, "src/new.js", "1");
        assert!(head(&at("src")).await.0.is_some_and(|it| it.ends_with("-dirty")));
        assert!(head(&at("src/index.js")).await.0.is_some_and(|it| !it.ends_with("-dirty")));
    }

    #[tokio::test]
    async fn build_output_is_as_dirty_as_the_checkout_it_is_made_of() {
        let (folder, commit) = repository();
        write(&folder, "dist/bundle.js", "1");
        let dist = folder.path().join("dist");
        assert_eq!(head(&dist).await, found(&commit, "trunk"));
        assert_eq!(head(&dist.join("bundle.js")).await, found(&commit, "trunk"));
        write(&folder, "src/index.js", "2");
        assert_eq!(head(&dist).await, found(&format!("{commit}-dirty"), "trunk"));
        assert_eq!(head(&dist.join("bundle.js")).await, found(&format!("{commit}-dirty"), "trunk"));
    }

    #[tokio::test]
    async fn a_worktree_has_its_own_branch_and_changes() {
        let (folder, commit) = repository();
        let beside = tempfile::tempdir().expect("a temporary folder");
        let tree = beside.path().join("tree");
        run(folder.path(), &["worktree", "add", "--quiet", "-b", "topic", tree.to_str().expect("UTF-8")]);
        write(&folder, "src/index.js", "2");
        assert_eq!(head(&tree.join("src")).await, found(&commit, "topic"));
        fs::write(tree.join("src/index.js"), "3").expect("a file");
        assert_eq!(head(&tree.join("src")).await, found(&format!("{commit}-dirty"), "topic"));
    }

    #[tokio::test]
    async fn where_git_cannot_say_nothing_is_recorded() {
        let empty = tempfile::tempdir().expect("a temporary folder");
        run(empty.path(), &["init", "--quiet"]);
        assert_eq!(head(empty.path()).await, (None, None), "no commit yet");
        let (folder, commit) = repository();
        let missing = Git { program: "git-that-is-not-installed", variables: &[] };
        assert_eq!(head_by(&missing, folder.path()).await, (None, None));
        // Git's own variable for tests with a repository that another user owns.
        let foreign = Git { program: "git", variables: &[("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")] };
        assert_eq!(head_by(&foreign, folder.path()).await, (None, None));
        assert_eq!(head_by(&GIT, folder.path()).await, found(&commit, "trunk"));
    }
}
