//! Functions that try to escape from their sandbox, at every level of it.
//!
//! [`table`] lists the required outcome of each attempt at each level; the same table is in `docs/isolation.md`. A test
//! here runs all of it at one level, as root or as an ordinary user, in a [`scene`]: a real daemon with an attacker and
//! a victim, and around it the files, processes and sockets that the attacker goes for, all of them made by the test.
//! The attempts themselves are in `isolation/attacks/`.

mod calls;
mod open;
mod outcome;
mod scene;
mod sequences;
mod surroundings;
mod table;

use outcome::{Level, Outcome};
use scene::{Identity, Scene};
use std::{fs, path::Path};

/// Comma-separated levels that must run; other levels are skipped where the machine does not support them. If the
/// variable is unset, a test with all rights must be able to run every level but `shared-proc`.
const MUST_RUN: &str = "LEVAIN_TEST_LEVELS";

fn must_run(level: Level) -> bool {
    match std::env::var(MUST_RUN) {
        Ok(levels) => levels.split(',').any(|name| name.trim() == level.name()),
        Err(_) => level != Level::SharedProc && may_do_everything(),
    }
}

/// Whether this process has `CAP_SYS_ADMIN`, which root in a container usually lacks.
fn may_do_everything() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() & CAP_SYS_ADMIN != 0
}

/// Whether this process may create control groups of version 1. With version 2 that depends on the other processes in
/// its group.
fn may_make_groups() -> bool {
    let group = Path::new("/sys/fs/cgroup/memory").join(format!("levain-test-{}", std::process::id()));
    fs::create_dir(&group).and_then(|()| fs::remove_dir(&group)).is_ok()
}

/// Runs the whole table at one level, and lists every cell with a wrong outcome.
async fn holds(level: Level, identity: Identity) {
    let name = format!("{} as {identity}", level.name());
    if identity == Identity::Root && !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: {name}: this test does not run as root");
    }
    let scene = match Scene::start(level, identity).await {
        Ok(scene) => scene,
        Err(reason) if must_run(level) => panic!("{name} must run on this machine ({MUST_RUN}): {reason}"),
        Err(reason) => return eprintln!("skipped: {name}: {reason}"),
    };
    if identity == Identity::Root && level == Level::Privileged && may_make_groups() {
        assert!(scene.is_counted, "{name}: there are no control groups, although they can be made here");
    }
    let mut wrong = Vec::new();
    for attack in table::attacks() {
        let (what, expected) = (attack.what, attack.expected[level as usize]);
        if !expected.is_tried() {
            continue;
        }
        let outcome = attack.run(&scene).await;
        eprintln!("{name}: {what}: {outcome}");
        let is_open = open::is_open(what, level, identity);
        if is_open && !matches!(outcome, Outcome::Allowed(_) | Outcome::Absent(_)) {
            wrong.push(format!("{what}: is «{outcome}» now: take it off the list of what is open"));
        }
        if !is_open && !expected.is_met_by(&outcome, scene.is_counted) {
            wrong.push(format!("{what}: should be «{expected}» and is «{outcome}»"));
        }
        if let Err(trouble) = scene.others_are_well().await {
            wrong.push(format!("{what}: {trouble}"));
        }
    }
    let trouble = scene.stop().await;
    assert!(wrong.is_empty() && trouble.is_empty(), "{name}:\n{}\n{}", wrong.join("\n"), trouble.join("\n"));
}

macro_rules! runs {
    ($($test:ident: $level:ident as $identity:ident;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            holds(Level::$level, Identity::$identity).await;
        })*
    };
}

runs! {
    privileged: Privileged as Root;
    user_namespace: UserNamespace as Ordinary;
    user_namespace_as_root: UserNamespace as Root;
    shared_proc: SharedProc as Ordinary;
    shared_proc_as_root: SharedProc as Root;
    landlock: Landlock as Ordinary;
    landlock_as_root: Landlock as Root;
    // Without a sandbox the attempts succeed, which shows that the sandbox is the reason for their failure at other
    // levels.
    off: Off as Root;
}

/// A text with other content between the markers of this name.
fn with_section(text: &str, name: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = text.find(&begin).expect("the marker is there") + begin.len();
    let stop = text.find(&end).expect("the marker is there");
    format!("{}{content}{}", &text[..start], &text[stop..])
}

#[test]
fn the_tables_of_the_documentation_are_those_that_are_tested() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/isolation.md");
    let text = fs::read_to_string(&path).expect("the document is there");
    let wanted = with_section(&text, "attacks", &(table::markdown() + &open::markdown()));
    let wanted = with_section(&wanted, "calls", &calls::markdown());
    if std::env::var_os("LEVAIN_WRITE_REFERENCE").is_some() {
        fs::write(&path, wanted).expect("the document can be written");
    } else {
        assert_eq!(text, wanted, "run this test with LEVAIN_WRITE_REFERENCE=1 to write the table anew");
    }
}
