//! Control groups of this machine, with real processes in them. Without any, the tests say so and pass.
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

use super::*;
use nix::{sys::signal::kill, unistd::Pid};
use std::{
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const MIB: u64 = 1 << 20;

pub(super) const LIMITS: GroupLimits = GroupLimits { memory_max: 256 * MIB, processes_max: 64 };

pub(super) fn say(text: &str) {
    eprintln!("{text}");
}

/// The groups of a daemon that only this test has, if there can be any.
fn cgroups(test: &str) -> Option<Cgroups> {
    match Cgroups::find(&name(test), Controllers::ALL) {
        Ok(cgroups) => Some(cgroups),
        Err(error) => {
            say(&format!("not tested: {error}"));
            None
        }
    }
}

fn name(test: &str) -> String {
    format!("levain-test-{test}-{}", std::process::id())
}

pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A shell that enters the group before it runs the script.
fn shell_in(group: &ControlGroup, script: &str) -> Command {
    let enter: String = group.directories().map(|it| format!("echo 0 > {}/cgroup.procs && ", it.display())).collect();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{enter}{{ {script}; }}")]);
    command
}

pub(super) fn run_in(group: &ControlGroup, script: &str) -> Child {
    shell_in(group, script).spawn().expect("a shell")
}

fn output_in(group: &ControlGroup, script: &str) -> Output {
    shell_in(group, script).stdin(Stdio::null()).output().expect("a shell")
}

/// The processes of the group, if they are the same in each of its hierarchies.
pub(super) fn processes_of(group: &ControlGroup) -> Vec<Pid> {
    let lists = group.directories().map(|it| {
        let mut list = remove::processes(it).expect("a group");
        list.sort();
        list
    });
    let mut lists: Vec<_> = lists.collect();
    lists.dedup();
    lists.pop().filter(|_| lists.is_empty()).unwrap_or_default()
}

/// Names in `base` that begin with `prefix`.
pub(super) fn names(base: &Path, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(base).expect("a group").flatten();
    entries.filter_map(|it| it.file_name().into_string().ok()).filter(|it| it.starts_with(prefix)).collect()
}

/// Number of directories of the test's daemon, in all hierarchies.
fn left(cgroups: &[PathBuf], test: &str) -> usize {
    cgroups.iter().map(|base| names(base, &name(test)).len()).sum()
}

fn bases(cgroups: &Cgroups) -> Vec<PathBuf> {
    cgroups.trees.iter().map(|tree| tree.base.clone()).collect()
}

#[test]
fn memory_is_counted_and_limited() {
    let Some(cgroups) = cgroups("memory") else { return };
    if !cgroups.describe().controllers.memory {
        return say("not tested: no memory controller");
    }
    let group = cgroups.group("w", &GroupLimits { memory_max: 48 * MIB, ..LIMITS }).expect("a group");
    // `tail` keeps everything that may be the last line.
    let output = output_in(&group, "head -c 16M /dev/zero | tail | wc -c");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), (16 * MIB).to_string());
    assert_eq!(group.out_of_memory_kills(), 0);
    output_in(&group, "x=x; while :; do x=$x$x; done");
    let kills = group.out_of_memory_kills();
    assert!(kills > 0);

    group.set_memory_max(400 * MIB).expect("more");
    let output = output_in(&group, "head -c 100M /dev/zero | tail | wc -c");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), (100 * MIB).to_string());
    assert_eq!(group.out_of_memory_kills(), kills);

    let mut holder = shell_in(&group, "x=$(head -c 30M /dev/zero | tr '\\0' x); echo; read end");
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a shell");
    until("it is counted", || group.memory_bytes().is_some_and(|it| it > 30 * MIB));
    assert!(group.memory_bytes().is_some_and(|it| it < 400 * MIB));
    group.set_memory_max(200 * MIB).expect("less");
    group.set_memory_max(u64::MAX).expect("no limit");
    group.set_memory_max(200 * MIB).expect("less again");
    drop(holder.stdin.take());
    holder.wait().expect("its end");
}

#[test]
fn memory_with_swap_is_limited_alike() {
    let Some(cgroups) = cgroups("swap") else { return };
    if cgroups.version != CgroupVersion::V1 || !cgroups.trees.iter().any(|it| it.has_swap) {
        return say("not tested: swap is not accounted for, or with version 2");
    }
    let group = cgroups.group("w", &LIMITS).expect("a group");
    let file = |file: &str| {
        let directory = group.directories().find(|it| it.join(file).exists()).expect("a directory");
        fs::read_to_string(directory.join(file)).expect("a file").trim().to_owned()
    };
    for max in [256 * MIB, 512 * MIB, 128 * MIB] {
        group.set_memory_max(max).expect("a limit");
        assert_eq!(file("memory.limit_in_bytes"), max.to_string());
        assert_eq!(file("memory.memsw.limit_in_bytes"), max.to_string());
    }
}

#[test]
fn processes_are_limited() {
    let Some(cgroups) = cgroups("pids") else { return };
    if !cgroups.describe().controllers.pids {
        return say("not tested: no pids controller");
    }
    let group = cgroups.group("w", &GroupLimits { processes_max: 8, ..LIMITS }).expect("a group");
    // A shell that cannot fork ends. Each of them tries to double.
    let mut bomb = shell_in(&group, "b() { b | b & }; b; b; sleep 1000 & sleep 1000 & wait");
    let mut bomb = bomb.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("a shell");
    until("it forks", || processes_of(&group).len() > 1 || bomb.try_wait().expect("its state").is_some());
    for _ in 0..200 {
        assert!(processes_of(&group).len() <= 8);
    }
    group.kill();
    bomb.wait().expect("its end");
    until("the bomb is over", || processes_of(&group).is_empty());
    drop(cgroups.group("w", &GroupLimits { processes_max: u64::MAX, ..LIMITS }).expect("as many as there can be"));
}

#[test]
fn everything_in_a_group_is_killed_and_the_group_goes() {
    let Some(cgroups) = cgroups("kill") else { return };
    let group = cgroups.group("w", &LIMITS).expect("a group");
    let mut shell = run_in(&group, "setsid sleep 1000 & sleep 1000 & exec sleep 1000");
    until("all are in it", || processes_of(&group).len() == 3);
    let processes = processes_of(&group);
    assert!(processes.contains(&Pid::from_raw(shell.id() as i32)));
    group.kill();
    shell.wait().expect("its end");
    until("all are dead", || processes_of(&group).is_empty());
    drop(group);

    // A drop alone does the same, whether or not the process is reaped.
    let group = cgroups.group("w", &LIMITS).expect("a group of the same slot");
    let mut shell = run_in(&group, "sleep 1000");
    until("it is in it", || processes_of(&group).len() == 2);
    drop(group);
    let bases = bases(&cgroups);
    until("the groups are gone", || left(&bases, "kill") == 0);
    assert!(!shell.wait().expect("its end").success());
}

#[test]
fn low_priority_is_set_and_taken_back() {
    let Some(cgroups) = cgroups("priority") else { return };
    let Some(tree) = cgroups.trees.iter().find(|tree| tree.controllers.cpu) else {
        return say("not tested: no cpu controller");
    };
    let state = |group: &ControlGroup| {
        let own = group.directories().find(|it| it.starts_with(&tree.base) && it.join("cpu.stat").exists());
        let own = own.expect("a directory");
        let read = |file| fs::read_to_string(own.join(file));
        let weight = read("cpu.shares").or_else(|_| read("cpu.weight")).expect("a weight");
        weight.trim().parse::<u32>().expect("a number")
    };
    let group = cgroups.group("w", &LIMITS).expect("a group");
    let normal = state(&group);
    group.set_low_priority(true).expect("a write");
    assert_eq!(state(&group), normal / 8);
    group.set_low_priority(false).expect("a write");
    assert_eq!(state(&group), normal);
}

#[test]
fn many_groups_leave_nothing() {
    let Some(cgroups) = cgroups("many") else { return };
    let bases = bases(&cgroups);
    let mut kept = Vec::new();
    for number in 0..200 {
        let group = cgroups.group("w", &LIMITS).expect("a group");
        if number % 20 == 0 {
            kept.push((run_in(&group, "exec sleep 1000"), group));
        }
    }
    // The last owner waits for the removal.
    drop(cgroups);
    assert!(left(&bases, "many") >= kept.len() * bases.len());
    let (mut shells, groups): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
    drop(groups);
    assert_eq!(left(&bases, "many"), 0);
    for shell in &mut shells {
        // Reaches a shell that was still on its way into its group, too.
        let _ = shell.kill();
        shell.wait().expect("its end");
    }
}

#[test]
fn what_a_killed_daemon_has_left_is_removed() {
    let Some(cgroups) = cgroups("orphans") else { return };
    let group = cgroups.group("w", &LIMITS).expect("a group");
    let mut shell = run_in(&group, "sleep 1000 & exec sleep 1000");
    until("both are in it", || processes_of(&group).len() == 2);
    let processes = processes_of(&group);
    let bases = bases(&cgroups);
    // Simulates a killed daemon: the group is not removed.
    std::mem::forget(group);
    std::mem::forget(cgroups);
    // Another daemon, whose name begins alike.
    let other = Cgroups::find(&format!("{}-2", name("orphans")), Controllers::ALL).expect("the same place");
    let others = other.group("w", &LIMITS).expect("a group");
    assert_eq!(left(&bases, "orphans"), 2 * bases.len());

    let reaper = thread::spawn(move || shell.wait());
    let next = Cgroups::find(&name("orphans"), Controllers::ALL).expect("the same place");
    assert_eq!(left(&bases, "orphans"), bases.len());
    assert_eq!(processes_of(&others), []);
    drop(others);
    reaper.join().expect("no panic").expect("its end");
    until("its processes are dead", || processes.iter().all(|it| kill(*it, None).is_err() || is_zombie(*it)));
    drop(next);
}

#[test]
fn what_daemons_have_left_that_never_come_back_is_removed_when_it_is_empty() {
    // Plain folders: the real groups may include those of other daemons.
    let base = tempfile::tempdir().expect("a folder");
    let others = ["levain-daemon", "levain-", "other.w.1", "x-levain-a.w.1", "levain-web.service", "levain-a.w.x"];
    let in_use = ["levain-a.busy.1/file"].into_iter().chain(others);
    for name in in_use.clone().chain(["levain-a.w.1", "levain-b.w.2"]) {
        fs::create_dir_all(base.path().join(name)).expect("a folder");
    }
    assert_eq!(remove::remove_forgotten(base.path(), remove::FORGOTTEN_AFTER), 0, "they are new");
    assert_eq!(remove::remove_forgotten(base.path(), Duration::ZERO), 2);
    for name in in_use {
        assert!(base.path().join(name).exists(), "{name}");
    }
}

#[test]
fn what_daemons_have_left_in_groups_beside_is_removed_where_no_process_is_left() {
    // Plain folders with the one file that lists their processes.
    let parent = tempfile::tempdir().expect("a folder");
    let group = |path: &str, processes: &str| {
        fs::create_dir_all(parent.path().join(path)).expect("a folder");
        fs::write(parent.path().join(path).join("cgroup.procs"), processes).expect("a file");
    };
    group("", "");
    for (name, processes) in [("own", "1\n"), ("dead", ""), ("living", "17\n"), ("other", "")] {
        group(name, processes);
        for below in ["levain-a.w.1", "levain-b.w.2"] {
            fs::create_dir(parent.path().join(name).join(below)).expect("a folder");
        }
    }
    group("other/levain-a.busy.1", "18\n");
    fs::create_dir(parent.path().join("other/somebody.w.1")).expect("a folder");
    let own = parent.path().join("own");
    assert_eq!(remove::remove_beside(&own, remove::FORGOTTEN_AFTER), 0, "they are new");
    assert_eq!(remove::remove_beside(&own, Duration::ZERO), 4);
    let left = |name: &str| fs::read_dir(parent.path().join(name)).expect("a folder").count() - 1;
    assert_eq!((left("own"), left("dead"), left("living"), left("other")), (2, 0, 2, 2));

    // The root of a hierarchy: its siblings are not groups.
    fs::remove_file(parent.path().join("cgroup.procs")).expect("a file");
    group("dead/levain-a.w.1", "");
    fs::remove_file(parent.path().join("dead/levain-a.w.1/cgroup.procs")).expect("a file");
    assert_eq!(remove::remove_beside(&own, Duration::ZERO), 0);
}

/// Uses the groups of this machine, if a process may make a parent for two daemons' groups.
#[test]
fn a_start_removes_what_a_daemon_has_left_in_a_group_beside_its_own() {
    let Some(cgroups) = cgroups("beside") else { return };
    let (CgroupVersion::V1, Some(tree)) = (cgroups.version, cgroups.trees.first()) else {
        return say("not tested: version 2");
    };
    let parent = tree.base.join(format!("test-beside-{}", std::process::id()));
    let left = parent.join("dead/levain-gone.w.1");
    for group in [&parent, &parent.join("own"), &parent.join("dead"), &left] {
        fs::create_dir(group).expect("a group");
    }
    let mut alive = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let enter = |group: &Path| write(&group.join("cgroup.procs"), &alive.id().to_string()).expect("an entry");
    let remove = || remove::remove_beside(&parent.join("own"), Duration::ZERO);
    // The daemon is there, its worker's group is empty for now.
    enter(&parent.join("dead"));
    assert_eq!((remove(), left.exists()), (0, true));
    // The daemon is gone, and one of its processes lives on.
    enter(&left);
    assert_eq!((remove(), left.exists()), (0, true));
    enter(&parent.join("own"));
    assert_eq!((remove(), left.exists()), (1, false));
    alive.kill().expect("a signal");
    alive.wait().expect("its end");
    for group in [&parent.join("own"), &parent.join("dead"), &parent] {
        until("the group is empty", || fs::remove_dir(group).is_ok());
    }
}

fn is_zombie(process: Pid) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|it| it.contains(") Z "))
}

#[test]
fn a_group_that_cannot_be_made_leaves_nothing() {
    let Some(cgroups) = cgroups("failure") else { return };
    let bases = bases(&cgroups);
    cgroups.group("no/slot", &LIMITS).expect_err("no such folder");
    if let Some(last) = bases.last() {
        let blocked = last.join(format!("{}.w.2", name("failure")));
        fs::create_dir(&blocked).expect("a group");
        cgroups.group("w", &LIMITS).expect_err("it is there already");
        until("the others are gone", || left(&bases, "failure") == 1);
        fs::remove_dir(blocked).expect("still there");
    }
}

#[test]
fn what_was_found_reads_well() {
    let Some(cgroups) = cgroups("describe") else { return };
    let text = cgroups.describe().to_string();
    say(&format!("this machine: {text}"));
    assert!(text.starts_with("cgroup v") && text.ends_with(')'), "{text}");
    let support = Support {
        version: CgroupVersion::V1,
        controllers: Controllers::ALL.among(["cpu", "io", "memory"].into_iter()),
    };
    assert_eq!(support.to_string(), "cgroup v1 (memory, cpu)");
    // Unwanted controllers are not used.
    let wanted = Controllers { cpu: false, ..Controllers::ALL };
    let found = Cgroups::find(&name("describe"), wanted).expect("the same place").describe().controllers;
    assert_eq!(found, Controllers { cpu: false, ..cgroups.describe().controllers });
}
