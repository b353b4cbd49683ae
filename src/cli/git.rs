//! What git knows about a folder, where there is git and a checkout; nothing otherwise.

use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

/// A slow file system must not hold up a deploy for the sake of a note in its record.
const TIME_MAX: Duration = Duration::from_secs(2);

/// The commit and branch that are checked out around `folder`.
pub(super) async fn head(folder: &Path) -> (Option<String>, Option<String>) {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(["rev-parse", "HEAD", "--abbrev-ref", "HEAD"]).kill_on_drop(true);
    match tokio::time::timeout(TIME_MAX, command.output()).await {
        Ok(Ok(output)) if output.status.success() => parse(&String::from_utf8_lossy(&output.stdout)),
        _ => (None, None),
    }
}

/// Two lines: the commit, and the branch or `HEAD` when none is checked out.
fn parse(output: &str) -> (Option<String>, Option<String>) {
    let mut lines = output.lines().map(str::trim).filter(|it| !it.is_empty());
    let commit = lines.next().map(str::to_owned);
    let branch = lines.next().filter(|it| *it != "HEAD").map(str::to_owned);
    (commit, branch)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
