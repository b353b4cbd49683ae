//! Named points at which a debug build can be made to die, so that tests can see what a `kill -9` leaves behind.
//!
//! The points lie between any two actions whose half-done state must not be visible. A test starts the program with
//! [`CRASH_AT_VARIABLE`] set to each of [`STEPS`] in turn, and checks what the next start finds. Release builds contain
//! none of this.

/// Environment variable that names the step to die at.
pub const CRASH_AT_VARIABLE: &str = "LEVAIN_CRASH_AT";

/// Every step, in the order in which a deployment and then the deletion of a version pass them.
pub const STEPS: &[&str] = &[
    // The row of a running deployment is on disk, and its function if that is new.
    "deployment.begun",
    // An archive is unpacked to a temporary folder.
    "archive.unpacked",
    // A bundle is being written: its folder exists, and at least its first file.
    "bundle.staging",
    // A bundle is complete under its temporary name.
    "bundle.staged",
    // A bundle has its final name, which is not yet synced to disk.
    "bundle.renamed",
    // A bundle is published, and no row refers to it yet.
    "bundle.published",
    // A transaction's statements are done, but it is not committed.
    "store.before_commit",
    // A transaction is on disk, but its caller does not know yet.
    "store.committed",
    // A bundle has lost its name, and its files still exist.
    "bundle.trashed",
];

/// Steps of a restore, in order.
pub const RESTORE_STEPS: &[&str] = &[
    // The backup is unpacked and checked; nothing is in place yet.
    "restore.checked",
    // The bundles are in place.
    "restore.bundles",
    // The manifests are in place.
    "restore.deployments",
    // The database is in place; only an empty folder remains to be removed.
    "restore.database",
];

/// Further steps that a rotation of the master key passes.
pub const ROTATION_STEPS: &[&str] = &[
    // The next key is beside the present one.
    "secrets.next_key",
    // Every data key is sealed with the next key, in a transaction that is not committed.
    "secrets.rewrapped",
    // The transaction is on disk, but the next key does not have its final name.
    "secrets.committed",
];

/// Ends the process if [`CRASH_AT_VARIABLE`] names this step; does nothing in release builds.
///
/// The process ends by SIGKILL, so that it cannot clean up: no destructor, no flush, no signal handler runs.
pub fn crash_point(step: &str) {
    #[cfg(debug_assertions)]
    {
        debug_assert!(
            STEPS.contains(&step) || ROTATION_STEPS.contains(&step) || RESTORE_STEPS.contains(&step),
            "`{step}` is missing in the list of steps"
        );
        if std::env::var_os(CRASH_AT_VARIABLE).is_some_and(|it| it == step) {
            let killed = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
            unreachable!("a process outlives its own SIGKILL: {killed:?}");
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = step;
}
