//! Named instants at which a debug build can be told to die, so that tests can see what a `kill -9` leaves behind.
//!
//! The steps sit between any two acts that must not be seen half done: a test starts the program with
//! [`CRASH_AT_VARIABLE`] set to each of [`STEPS`] in turn and looks at what the next start finds. Release builds contain
//! none of it.

/// The environment variable that names the step to die at.
pub const CRASH_AT_VARIABLE: &str = "LEVAIN_CRASH_AT";

/// Every step there is, in the order in which a deployment and then the deletion of a version pass them.
pub const STEPS: &[&str] = &[
    // The row of a deployment that runs is on disk, and its function if that is new.
    "deployment.begun",
    // An archive is unpacked to a temporary folder.
    "archive.unpacked",
    // A bundle is being written: its folder exists, and at least its first file.
    "bundle.staging",
    // A bundle is complete under its temporary name.
    "bundle.staged",
    // A bundle has its final name, which is not yet forced to disk.
    "bundle.renamed",
    // A bundle is published, and no row refers to it yet.
    "bundle.published",
    // All statements of a transaction are done, and the transaction is not.
    "store.before_commit",
    // A transaction is on disk, and its caller does not know yet.
    "store.committed",
    // A bundle has lost its name, and its files still exist.
    "bundle.trashed",
];

/// The steps of a restore, in their order.
pub const RESTORE_STEPS: &[&str] = &[
    // All is unpacked and checked, and nothing is in its place.
    "restore.checked",
    // The bundles are in their place.
    "restore.bundles",
    // The manifests are as well.
    "restore.deployments",
    // So is the database, and the restore has ended but for an empty folder.
    "restore.database",
];

/// The steps that a rotation of the master key passes besides.
pub const ROTATION_STEPS: &[&str] = &[
    // The next key is beside the present one.
    "secrets.next_key",
    // Every data key is sealed with it, in a transaction that is not done.
    "secrets.rewrapped",
    // The transaction is on disk, and the next key has not got its name.
    "secrets.committed",
];

/// Ends the process here if this is the step that [`CRASH_AT_VARIABLE`] names; in release builds it does nothing.
///
/// The end is a SIGKILL, so that nothing of this process gets to tidy up: no destructor, no flush, no signal handler.
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
