//! Tests with real processes.

use super::*;
use nix::sys::resource::getrlimit;
use std::future::Future;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

/// A launch of `/bin/sh -c script`, with the other ends of its stdin and of its stdout and stderr together.
fn shell(script: &str) -> (LaunchSpec, io::PipeWriter, PipeReader) {
    let (stdin, input) = io::pipe().expect("a pipe");
    let (output, stdout) = io::pipe().expect("a pipe");
    let spec = LaunchSpec {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("GREETING".into(), "hello".into())],
        working_dir: "/".into(),
        stdin: stdin.into(),
        stderr: stdout.try_clone().expect("a descriptor").into(),
        stdout: stdout.into(),
        limits: vec![],
        confinement: Confinement::default(),
    };
    (spec, input, output)
}

async fn output_of(script: &str) -> (ExitStatus, String) {
    let launcher = Launcher::start().expect("a launcher");
    let (spec, _input, mut output) = shell(script);
    let process = launcher.launch(spec).await.expect("a shell");
    let status = process.wait().await.expect("its status");
    let mut text = String::new();
    output.read_to_string(&mut text).expect("its output");
    (status, text)
}

async fn error_of(change: impl FnOnce(&mut LaunchSpec)) -> String {
    let launcher = Launcher::start().expect("a launcher");
    let (mut spec, _input, _output) = shell("exit 0");
    change(&mut spec);
    let error = launcher.launch(spec).await.expect_err("it cannot start").to_string();
    until("the failed child is reaped", || !failed_child_is_left());
    error
}

/// Whether a child of this process ended before it became a program and is not reaped: it has its creator's name.
fn failed_child_is_left() -> bool {
    let us = std::process::id().to_string();
    let stats = std::fs::read_dir("/proc").expect("procfs").flatten();
    let mut stats = stats.filter_map(|it| std::fs::read_to_string(it.path().join("stat")).ok());
    stats.any(|stat| stat.contains("(levain-launch) Z") && stat.split(' ').nth(3) == Some(us.as_str()))
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the process runs; a zombie, which waits for its parent, does not.
fn runs(pid: u32) -> bool {
    state(pid).is_some_and(|state| !"ZX".contains(state))
}

/// State of a process; `None` if there is not even a zombie.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn first_line(output: PipeReader) -> String {
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).expect("a line");
    line.trim_end().into()
}

#[tokio::test]
async fn the_status_tells_how_a_process_ended() {
    assert_eq!(output_of("exit 0").await.0.code(), Some(0));
    assert_eq!(output_of("exit 42").await.0.code(), Some(42));
    for signal in [libc::SIGTERM, libc::SIGPIPE, 40] {
        assert_eq!(output_of(&format!("kill -{signal} $$")).await.0.signal(), Some(signal));
    }
}

#[tokio::test]
async fn waiting_again_gives_the_same_status() {
    let launcher = Launcher::start().expect("a launcher");
    let (spec, _input, _output) = shell("exit 7");
    let process = launcher.launch(spec).await.expect("a shell");
    let (first, second) = tokio::join!(process.wait(), process.wait());
    let third = process.wait().await;
    for status in [first, second, third] {
        assert_eq!(status.expect("a status").code(), Some(7));
    }
    process.kill_tree();
}

#[tokio::test]
async fn a_process_has_only_what_its_spec_names() {
    let (_, text) = output_of("/usr/bin/env").await;
    // The shell adds some of its own.
    let mut variables: Vec<_> = text
        .lines()
        .filter(|it| !["_", "PWD", "OLDPWD", "SHLVL"].contains(&it.split('=').next().unwrap_or(it)))
        .collect();
    variables.sort_unstable();
    assert_eq!(variables, ["GREETING=hello", "PATH=/usr/bin:/bin"]);

    // A file that a careless library opened without close-on-exec.
    let leak = nix::unistd::dup(std::fs::File::open("/dev/null").expect("a file")).expect("a descriptor");
    let (_, text) = output_of("exec /bin/ls /proc/self/fd").await;
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "3 is the folder ls reads");
    drop(leak);

    let (_, text) = output_of("/bin/cat /proc/self/status").await;
    let field =
        |name: &str| text.lines().find_map(|it| it.strip_prefix(name)).map(str::trim).expect("a field").to_owned();
    assert_eq!(field("SigBlk:"), "0000000000000000");
    assert_eq!(field("SigIgn:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");

    let (_, text) = output_of("echo $$; cut -d' ' -f5,6 /proc/$$/stat").await;
    let numbers: Vec<_> = text.split_whitespace().collect();
    assert_eq!((numbers[0], numbers[0]), (numbers[1], numbers[2]), "its own group and session");
}

#[tokio::test]
async fn it_starts_in_its_folder_with_its_limits() {
    let folder = tempfile::tempdir().expect("a folder");
    let launcher = Launcher::start().expect("a launcher");
    let (mut spec, _input, mut output) = shell("pwd; ulimit -c; ulimit -Hc; ulimit -n; ulimit -Hn");
    spec.working_dir = folder.path().into();
    spec.limits = vec![Limit { resource: Resource::RLIMIT_NOFILE, soft: 64, hard: u64::MAX }];
    let process = launcher.launch(spec).await.expect("a shell");
    process.wait().await.expect("a status");
    let mut text = String::new();
    output.read_to_string(&mut text).expect("its output");
    let own = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit").1;
    let own = if own == libc::RLIM_INFINITY { "unlimited".into() } else { own.to_string() };
    let folder = folder.path().to_str().expect("a plain path");
    assert_eq!(text.lines().collect::<Vec<_>>(), [folder, "0", "0", "64", &own]);
}

#[tokio::test]
async fn an_error_names_the_program_and_the_step() {
    let error = error_of(|it| it.program = "/nowhere/bun".into()).await;
    assert!(error.starts_with("cannot start /nowhere/bun: execve: No such file"), "{error}");
    let error = error_of(|it| it.program = "/etc/passwd".into()).await;
    assert!(error.starts_with("cannot start /etc/passwd: execve: Permission denied"), "{error}");
    let error = error_of(|it| it.working_dir = "/nowhere".into()).await;
    assert!(error.starts_with("cannot start /bin/sh: chdir /nowhere: No such file"), "{error}");
    let error = error_of(|it| it.args.push("a\0b".into())).await;
    assert_eq!(error, "cannot start /bin/sh: its argument contains a zero byte");
}

#[tokio::test]
async fn the_next_launch_works_after_a_failed_one() {
    let launcher = Launcher::start().expect("a launcher");
    let (mut spec, _input, _output) = shell("exit 0");
    spec.working_dir = "/nowhere".into();
    launcher.launch(spec).await.expect_err("no such folder");
    let (spec, _input, _output) = shell("exit 3");
    let process = launcher.launch(spec).await.expect("a shell");
    assert_eq!(process.wait().await.expect("a status").code(), Some(3));
}

#[tokio::test]
async fn a_dropped_process_is_killed_and_reaped() {
    let launcher = Launcher::start().expect("a launcher");
    let (spec, _input, output) = shell("echo up; exec sleep 1000");
    let process = launcher.launch(spec).await.expect("a shell");
    let pid = process.pid();
    assert_eq!(first_line(output), "up");
    drop(process);
    until("no zombie is left", || state(pid).is_none());
}

#[tokio::test]
async fn a_cancelled_launch_leaves_nothing() {
    let launcher = Launcher::start().expect("a launcher");
    let (spec, input, mut output) = shell("echo up; exec sleep 1000");
    {
        let launch = std::pin::pin!(launcher.launch(spec));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        // However far it gets, it is dropped with everything it has.
        let _ = launch.poll(&mut context);
    }
    drop(input);
    // The output ends once no process holds it any more, whether or not the process was started.
    let mut text = String::new();
    output.read_to_string(&mut text).expect("its output");
}

#[tokio::test]
async fn killing_takes_the_whole_group() {
    let launcher = Launcher::start().expect("a launcher");
    let (spec, _input, output) = shell("sleep 1000 & echo $!; wait");
    let process = launcher.launch(spec).await.expect("a shell");
    let grandchild: u32 = first_line(output).parse().expect("a pid");
    assert!(runs(grandchild));
    process.kill_tree();
    assert_eq!(process.wait().await.expect("a status").signal(), Some(libc::SIGKILL));
    until("the grandchild ends", || !runs(grandchild));
}

#[tokio::test]
async fn what_outlives_its_leader_is_killed_when_the_leader_is_reaped() {
    let launcher = Launcher::start().expect("a launcher");
    let (spec, _input, output) = shell("sleep 1000 & echo $!; exit 5");
    let process = launcher.launch(spec).await.expect("a shell");
    let grandchild: u32 = first_line(output).parse().expect("a pid");
    assert_eq!(process.wait().await.expect("a status").code(), Some(5));
    until("the grandchild ends", || !runs(grandchild));
}

#[tokio::test]
async fn all_processes_end_with_their_launcher() {
    let launcher = Launcher::start().expect("a launcher");
    let (spec, _input, _output) = shell("exec sleep 1000");
    let process = launcher.launch(spec).await.expect("a shell");
    drop(launcher);
    assert_eq!(process.wait().await.expect("a status").signal(), Some(libc::SIGKILL));
    let pid = process.pid();
    drop(process);
    assert_eq!(state(pid), None);
}

#[tokio::test]
async fn many_launches_at_once_leave_no_zombie() {
    let launcher = Launcher::start().expect("a launcher");
    let mut pids = Vec::new();
    for _ in 0..5 {
        let launches = (0..10).map(|_| async {
            let (spec, _input, _output) = shell("exit 0");
            launcher.launch(spec).await.expect("a shell")
        });
        let processes = futures_util::future::join_all(launches).await;
        pids.extend(processes.iter().map(LaunchedProcess::pid));
    }
    until("no zombie is left", || pids.iter().all(|pid| state(*pid).is_none()));
}

const HELPER: &str = "LEVAIN_TEST_LAUNCH_HELPER";

/// Not a test by itself: the process that the next test starts and kills.
#[tokio::test]
async fn helper_that_launches_and_hangs() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    let launcher = Launcher::start().expect("a launcher");
    let (spec, _input, _output) = shell("exec sleep 1000");
    let process = launcher.launch(spec).await.expect("a shell");
    std::io::Write::write_all(&mut io::stdout(), format!("\npid={}\n", process.pid()).as_bytes()).expect("stdout");
    std::future::pending::<()>().await;
}

#[test]
fn a_process_dies_with_a_daemon_that_is_killed() {
    let (_, module) = module_path!().split_once("::").expect("a module of the crate");
    let helper = format!("{module}::helper_that_launches_and_hangs");
    let mut daemon = Command::new(std::env::current_exe().expect("this binary"))
        .args([&helper, "--exact", "--nocapture"])
        .env(HELPER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary again");
    let output = BufReader::new(daemon.stdout.take().expect("a pipe"));
    let pid = output.lines().map_while(Result::ok).find_map(|it| it.strip_prefix("pid=")?.parse().ok());
    let alive = pid.is_some_and(runs);
    daemon.kill().expect("SIGKILL");
    daemon.wait().expect("its end");
    assert!(alive, "the helper has launched a process");
    until("the process ends", || !pid.is_some_and(runs));
}

#[test]
fn debug_output_hides_values() {
    let (spec, _input, _output) = shell("exit 0");
    let text = format!("{spec:?}");
    assert!(text.contains("GREETING") && !text.contains("hello"), "{text}");
    assert_eq!(spec.working_dir, Path::new("/"));
}

#[test]
fn private_memory_grows_with_what_is_written_to() {
    let gauge = MemoryGauge::open(std::process::id()).expect("this process");
    let before = gauge.private_bytes().expect("this process");
    let ballast = std::hint::black_box(vec![1_u8; 32 << 20]);
    let after = gauge.private_bytes().expect("this process");
    // Other tests run beside this one.
    assert!(after > before + (16 << 20), "{before} -> {after}");
    drop(ballast);
    assert_eq!(private_memory_bytes(u32::MAX), None);
}

/// Needs root, and a machine with user namespaces.
#[tokio::test]
async fn the_daemon_says_who_a_process_is_in_its_user_namespace() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let confinement = |outside| Confinement {
        namespaces: libc::CLONE_NEWUSER,
        user_map: Some(UserMap { inside: 1_000, outside }),
        identity: Some(1_000),
        ..Confinement::default()
    };
    let launcher = Launcher::start().expect("a launcher");
    let (mut spec, _input, output) =
        shell("echo $(cat /proc/self/uid_map /proc/self/gid_map) $(id -u) $(id -g) $(id -G)");
    spec.confinement = confinement(0x7000_0001);
    match launcher.launch(spec).await {
        Ok(_process) => assert_eq!(first_line(output), "1000 1879048193 1 1000 1879048193 1 1000 1000 1000"),
        Err(error) => return assert!(error.to_string().contains("clone"), "{error}"),
    }
    let error = error_of(|spec| spec.confinement = confinement(u32::MAX)).await;
    assert!(error.contains("map of its user namespace: Invalid argument"), "{error}");
}
