//! Tests of version 2 where it has no controllers: real groups for the moves, plain files for the rest.

use super::super::{CgroupPaths, Cgroups, ControlGroup, GroupLimits, Support, tests::*};
use super::*;
use std::{process::Command, sync::Arc};

/// A folder that looks like a delegated group.
fn fake_group(controllers: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (file, text) in [("cgroup.controllers", controllers), ("cgroup.subtree_control", ""), ("cgroup.procs", "")] {
        fs::write(folder.path().join(file), text).expect("a file");
    }
    folder
}

fn read(group: &Path, file: &str) -> String {
    fs::read_to_string(group.join(file)).expect("a file")
}

/// A group of version 2 of this test's own, if this machine allows one.
fn real_group(name: &str) -> Option<RealGroup> {
    let places = CgroupPaths::parse(
        &fs::read_to_string("/proc/self/mountinfo").expect("procfs"),
        &fs::read_to_string("/proc/self/cgroup").expect("procfs"),
    );
    let path = places.v2?.directory.join(format!("{name}-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&path) {
        say(&format!("not tested: cannot make {}: {error}", path.display()));
        return None;
    }
    Some(RealGroup(path))
}

struct RealGroup(PathBuf);

impl Drop for RealGroup {
    fn drop(&mut self) {
        remove::remove_all(&self.0, "");
        fs::remove_dir(&self.0).expect("an empty group");
    }
}

#[test]
fn the_leaf_is_the_daemons_own_doing() {
    assert_eq!(base(Path::new("/sys/fs/cgroup/a.service")), Path::new("/sys/fs/cgroup/a.service"));
    assert_eq!(base(Path::new("/sys/fs/cgroup/a.service/levain-daemon")), Path::new("/sys/fs/cgroup/a.service"));
}

#[test]
fn controllers_are_handed_down_once() {
    let group = fake_group("cpuset cpu io memory pids\n");
    let all = Controllers::ALL;
    // A plain file keeps the writes one over the other.
    assert_eq!(hand_down(group.path(), all).expect("all of them"), all);
    assert_eq!(read(group.path(), "cgroup.subtree_control"), "+cpusry");
    fs::write(group.path().join("cgroup.subtree_control"), "cpu memory pids\n").expect("a file");
    assert_eq!(hand_down(group.path(), all).expect("all of them"), all);
    assert_eq!(read(group.path(), "cgroup.subtree_control"), "cpu memory pids\n");
}

#[test]
fn a_group_that_cannot_be_used_says_why() {
    let place = |group: &tempfile::TempDir| V2Place { directory: group.path().into(), is_root: false };
    let group = fake_group("io\n");
    let error = find(&place(&group), "t", Controllers::ALL).expect_err("no controllers").to_string();
    assert!(error.contains("has none of the controllers memory, pids and cpu; start the daemon"), "{error}");
    // A group that is made among plain files has no files in it.
    let group = fake_group("memory\n");
    let error = find(&place(&group), "t", Controllers::ALL).expect_err("no files").to_string();
    assert!(error.contains("cannot make control groups in") && error.contains("Delegate=yes"), "{error}");
    assert!(!group.path().join("t.probe").exists());
    // Not the root of the machine, and shared with another process.
    for (file, text) in [("cgroup.type", "domain\n"), ("cgroup.procs", "1\n")] {
        fs::write(group.path().join(file), text).expect("a file");
    }
    let error = find(&place(&group), "t", Controllers::ALL).expect_err("another's process").to_string();
    assert!(error.starts_with("process 1 (") && error.contains("systemd-run --scope -p Delegate=yes"), "{error}");
    fs::remove_file(group.path().join("cgroup.controllers")).expect("a file");
    let error = find(&place(&group), "t", Controllers::ALL).expect_err("nothing");
    assert!(matches!(error, Unavailable::NotWritable { .. }), "{error}");
}

#[test]
fn a_daemon_moves_what_it_has_started_and_nothing_else() {
    let Some(group) = real_group("levain-test-move") else { return };
    let base = &group.0;
    let mut ours = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let procs = base.join("cgroup.procs");
    write(&procs, &ours.id().to_string()).expect("an entry");
    // A process whose parent has ended.
    let script = "sleep 1000 >/dev/null 2>&1 & echo $!";
    let output = Command::new("sh").args(["-c", script]).output().expect("a shell").stdout;
    let stranger = String::from_utf8(output).expect("text").trim().to_owned();
    write(&procs, &stranger).expect("an entry");

    let error = move_to_leaf(base, false).expect_err("a stranger").to_string();
    assert!(error.starts_with(&format!("process {stranger} (sleep) shares the control group")), "{error}");
    assert_eq!(remove::processes(base).expect("a group").len(), 2);
    assert!(!base.join(DAEMON_LEAF).exists());

    move_to_leaf(base, true).expect("all of them move");
    assert_eq!(remove::processes(base).expect("a group"), []);
    assert_eq!(remove::processes(&base.join(DAEMON_LEAF)).expect("the leaf").len(), 2);

    write(&procs, &ours.id().to_string()).expect("an entry");
    move_to_leaf(base, false).expect("the strangers are in the leaf");
    assert_eq!(remove::processes(base).expect("a group"), []);
    move_to_leaf(base, false).expect("nothing to do");

    drop(group);
    ours.wait().expect("it was killed");
}

#[test]
fn a_group_is_killed_in_one_write() {
    let Some(group) = real_group("levain-test-kill") else { return };
    let tree = Tree { base: group.0.clone(), controllers: Controllers::default(), has_swap: false };
    let cgroups = Cgroups::new(CgroupVersion::V2, vec![tree], "t").expect("a thread");
    let worker = cgroups.group("w", &LIMITS).expect("a group");
    let mut shell = run_in(&worker, "setsid sleep 1000 & exec sleep 1000");
    until("both are in it", || processes_of(&worker).len() == 2);
    worker.kill();
    shell.wait().expect("its end");
    until("both are dead", || processes_of(&worker).is_empty());
    drop(worker);
    until("it is gone", || names(&group.0, "t.").is_empty());
}

#[test]
fn limits_go_into_the_files_of_version_2() {
    // The group exists already, so that it has its files.
    let made = tempfile::tempdir().expect("a folder");
    let files = ["memory.max", "memory.swap.max", "memory.oom.group", "memory.current", "memory.events", "pids.max"];
    for file in files.into_iter().chain(["cpu.weight"]) {
        fs::write(made.path().join(file), "").expect("a file");
    }
    let controllers = Controllers::ALL;
    let tree = Tree { base: made.path().into(), controllers, has_swap: true };
    let limits = GroupLimits { memory_max: 1 << 30, processes_max: 64 };
    let cgroups = Cgroups::new(CgroupVersion::V2, vec![], "t").expect("a thread");
    let support = Support { version: CgroupVersion::V2, controllers };
    assert_eq!(support.to_string(), "cgroup v2 (memory, pids, cpu)");
    let mut group = ControlGroup::empty(CgroupVersion::V2, Arc::clone(&cgroups.remover));
    group.add_directory(&tree, made.path().into(), &limits).expect("its limits");
    group.set_low_priority(true).expect("a write");
    let expected = ["1073741824", "0", "1", "", "", "64"];
    assert_eq!(files.map(|file| read(made.path(), file)), expected);
    assert_eq!(read(made.path(), "cpu.weight"), "12");
    group.set_memory_max(2 << 30).expect("a write");
    group.set_low_priority(false).expect("a write");
    assert_eq!((read(made.path(), "memory.max"), read(made.path(), "cpu.weight")), ("2147483648".into(), "100".into()));
    fs::write(made.path().join("memory.current"), "4096\n").expect("a file");
    fs::write(made.path().join("memory.events"), "low 0\nmax 9\noom 2\noom_kill 3\noom_group_kill 1\n")
        .expect("a file");
    assert_eq!((group.memory_bytes(), group.out_of_memory_kills()), (Some(4096), 3));
    // Otherwise the remover would wait for the files to go.
    drop(made);
}
