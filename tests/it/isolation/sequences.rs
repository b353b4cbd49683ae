//! Attempts that take more than one invocation, or an observer outside.

use super::{
    calls,
    outcome::{Level, Outcome},
    scene::{Scene, marked, named},
};
use crate::harness::{get, repetitions, until};
use levain::{
    error::ErrorCode,
    model::{Network, SettingsPatch},
    protocol::message::{LogsRequest, UpdateRequest},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

/// Settings of a function without a network; all others have their defaults.
fn offline_settings() -> SettingsPatch {
    SettingsPatch { network: Some(Network::Off), ..SettingsPatch::default() }
}

/// Time limit for a change: long where it must come, and short where nothing brings it about.
fn patience(scene: &Scene) -> Duration {
    if scene.level == Level::Off { Duration::from_millis(500) } else { Duration::from_secs(20) }
}

/// Whether a condition comes true in time.
async fn soon(patience: Duration, condition: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < patience {
        if condition() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// Checks that a preparing invocation has done its part.
async fn prepared(attempt: impl Future<Output = Outcome>) -> Result<(), Outcome> {
    match attempt.await {
        Outcome::Done => Ok(()),
        other => Err(other),
    }
}

/// A name for the attacker's processes, unique to this scene; the kernel keeps 15 bytes.
fn name_for(what: &str, scene: &Scene) -> String {
    format!("{what}-{}", scene.number)
}

/// Processes that a function leaves behind end with its worker.
pub async fn orphans(scene: &Scene) -> Outcome {
    let mark = name_for("levain-orphan", scene);
    let query = [("mark", mark.clone())];
    // The worker stops after this invocation.
    if let Err(outcome) = prepared(scene.attack("processes.orphans", &query)).await {
        return outcome;
    }
    if soon(patience(scene), || marked(&mark).is_empty()).await {
        return Outcome::Blocked("none is left".into());
    }
    let left = marked(&mark);
    for pid in &left {
        let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
    }
    Outcome::Allowed(format!("{} are left", left.len()))
}

/// The number of unreaped processes is bounded, and they end with the worker.
pub async fn zombies(scene: &Scene) -> Outcome {
    let mark = name_for("zombie", scene);
    // More than a worker may have.
    let query = [("count", repetitions(300, 3_000).to_string()), ("mark", mark.clone())];
    let outcome = scene.attack("processes.zombies", &query).await;
    match soon(patience(scene), || named(&mark).is_empty()).await {
        true => outcome,
        false => Outcome::Allowed(format!("{} of the worker's processes stay", named(&mark).len())),
    }
}

/// A lock on a file of the machine is visible wherever the file is.
pub async fn locks(scene: &Scene) -> Outcome {
    let name = "locks";
    scene.deploy_another(name, SettingsPatch::default()).await.expect("a good bundle");
    if let Err(outcome) = prepared(scene.attack_from(name, "files.lock", &[])).await {
        return outcome;
    }
    let outcome = scene.attack("files.isLocked", &[]).await;
    scene.delete(name).await;
    outcome
}

/// Tries every number of a present or future system call.
pub async fn walk(scene: &Scene) -> Outcome {
    match calls::expected(scene.level) {
        Some(expected) => scene.attack("kernel.walk", &[("expected", expected)]).await,
        None => Outcome::Absent("there is no filter for this kind of processor".into()),
    }
}

/// A function that goes on after its answer is ended when it is deleted.
pub async fn goes_on(scene: &Scene) -> Outcome {
    let name = "goes-on";
    scene.deploy_another(name, SettingsPatch::default()).await.expect("a good bundle");
    let mark = name_for("goes", scene);
    if let Err(outcome) = prepared(scene.attack_from(name, "resources.goOn", &[("mark", mark.clone())])).await {
        return outcome;
    }
    until("it goes on", || async {
        let request = LogsRequest { function_id: name.into(), ..LogsRequest::default() };
        let logs = scene.client.call(&request).await.unwrap().logs;
        logs.iter().any(|line| line.message.contains("still here")).then_some(())
    })
    .await;
    assert!(!named(&mark).is_empty(), "the worker is known by its name");
    scene.delete(name).await;
    // Without a sandbox, too.
    match soon(Duration::from_secs(20), || named(&mark).is_empty()).await {
        true => Outcome::Blocked("it is gone".into()),
        false => Outcome::Allowed("it is still there".into()),
    }
}

/// An endless loop is ended at its deadline.
pub async fn spins(scene: &Scene) -> Outcome {
    let mut request = get("attacker", "/?attack=resources.spin");
    request.timeout_ms = Some(500);
    match scene.client.call(&request).await {
        Ok(answer) => Outcome::of(&answer),
        Err(error) => Outcome::Broken(error.to_string()),
    }
}

/// A call that the filter answers with a kill counts as refused.
pub async fn call32(scene: &Scene) -> Outcome {
    match scene.attack("kernel.call32", &[]).await {
        Outcome::Ended(ErrorCode::WorkerCrashed, detail) if detail.contains("SIGSYS") => Outcome::Blocked(detail),
        other => other,
    }
}

/// Starts as many processes as allowed; fewer where there is no limit.
pub async fn fork_bomb(scene: &Scene) -> Outcome {
    let max = match scene.level {
        Level::Off => "50",
        Level::Landlock if !scene.is_counted => "400",
        _ => "2000",
    };
    match scene.attack("processes.forkBomb", &[("max", max.into())]).await {
        // Bun ends when it cannot start another thread.
        Outcome::Ended(ErrorCode::WorkerCrashed, _) => Outcome::Blocked("the worker did not survive it".into()),
        other => other,
    }
}

/// A function without a network tries the loopback of the machine.
pub async fn offline(scene: &Scene) -> Outcome {
    offline_attack(scene, "offline", "sockets.tcp", &port(scene)).await
}

/// The loopback of a function without a network still works.
pub async fn offline_loopback(scene: &Scene) -> Outcome {
    offline_attack(scene, "offline-loopback", "sockets.ownLoopback", &[]).await
}

async fn offline_attack(scene: &Scene, name: &str, attack: &str, query: &[(&str, String)]) -> Outcome {
    match scene.deploy_another(name, offline_settings()).await {
        Ok(()) => scene.attack_from(name, attack, query).await,
        Err(error) => Outcome::Refused(error.code, error.message),
    }
}

/// A function loses its network while one of its workers waits for further invocations.
pub async fn turned_off(scene: &Scene) -> Outcome {
    let (name, settings) = ("turned-off", SettingsPatch::default());
    scene.deploy_another(name, settings).await.expect("a good bundle");
    let before = scene.attack_from(name, "sockets.tcp", &port(scene)).await;
    assert!(matches!(before, Outcome::Allowed(_)), "{before}");
    let request = UpdateRequest { function_id: name.into(), settings: offline_settings() };
    if let Err(error) = scene.client.call(&request).await {
        return Outcome::Broken(error.to_string());
    }
    // Workers are replaced; the new one starts first.
    let asked = Instant::now();
    loop {
        let outcome = scene.attack_from(name, "sockets.tcp", &port(scene)).await;
        if !matches!(outcome, Outcome::Allowed(_)) || asked.elapsed() > patience(scene) {
            return outcome;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn port(scene: &Scene) -> [(&'static str, String); 1] {
    [("port", scene.surroundings.port.to_string())]
}

/// Looks for somebody whom it can kill among all numbers that a process of the machine can have.
pub async fn kill_all(scene: &Scene) -> Outcome {
    let max = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    scene.attack("processes.killAll", &[("max", max.trim().to_owned())]).await
}

/// Writes to the SysRq trigger, which can end processes or the machine.
pub async fn sysrq(scene: &Scene) -> Outcome {
    const TRIGGER: &str = "/proc/sysrq-trigger";
    match Path::new(TRIGGER).exists() {
        true => scene.attack("files.openForWriting", &[("path", TRIGGER.to_owned())]).await,
        false => Outcome::Absent("this kernel has no such thing".into()),
    }
}

/// Changes the priority of a user instead of a process: of all processes that run as the daemon.
pub async fn priority_of_user(scene: &Scene) -> Outcome {
    // Without a user of its own, the attack would hit half of the machine.
    let Some(uid) = scene.uid else { return Outcome::Absent("not tried on processes of others".into()) };
    let nice = || nice(scene.surroundings.process());
    let before = nice();
    if let Err(outcome) = prepared(scene.attack("processes.priorityOfUser", &[])).await {
        return outcome;
    }
    match nice() {
        after if after == before => Outcome::Blocked("nobody else has changed".into()),
        after => Outcome::Allowed(format!("processes of user {uid} went from {before} to {after}")),
    }
}

/// Priority of a process, read from its status line.
fn nice(pid: u32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The 19th field; the count begins at the state, which is the third and follows the name.
    stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
}
