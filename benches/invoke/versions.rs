//! Measures rollbacks under load, and the cost of an alias that divides its calls.

use crate::{
    Result,
    daemon::{Daemon, IpcCaller, get, sample},
    load,
    report::Report,
};
use levain::{
    client::Client,
    protocol::{
        field::Body,
        message::{DeployRequest, RollbackRequest, SetTrafficRequest, VersionRef},
    },
};
use std::{
    fs,
    time::{Duration, Instant},
};

const FUNCTION: &str = "versioned";
const CALLERS: usize = 16;

/// Number of rollbacks in one round, and the time between two of them.
const ROLLBACKS: usize = 10;
const PAUSE: Duration = Duration::from_millis(30);

/// Callers of a function with two versions.
pub(crate) struct Versions {
    callers: Vec<IpcCaller>,
    client: Client,
}

impl Versions {
    pub(crate) async fn start(daemon: &Daemon) -> Result<Self> {
        let path = sample("hello");
        daemon.deploy(FUNCTION, &path).await?;
        let client = daemon.connect().await?;
        let second = [fs::read(&path)?, b"\n// another version\n".to_vec()].concat();
        let bundle = Some(Body::from(second));
        let entry = Some("index.ts".into());
        let request = DeployRequest { function_id: FUNCTION.into(), bundle, entry, ..DeployRequest::default() };
        client.call(&request).await?;
        Ok(Self { callers: daemon.callers(&get(FUNCTION), CALLERS).await?, client })
    }

    pub(crate) async fn round(&mut self, slice: Duration, report: &mut Report) -> Result<()> {
        self.share("v2", 100).await?;
        report.add("versions.plain.rate", load::run(&mut self.callers, slice).await?.rate());
        self.share("v1", 50).await?;
        report.add("versions.split.rate", load::run(&mut self.callers, slice).await?.rate());
        self.share("v2", 100).await?;

        let Self { callers, client } = self;
        let time = (PAUSE + Duration::from_millis(10)) * ROLLBACKS as u32;
        let (load, mut took) = tokio::try_join!(load::run(callers, time), roll_back_and_forth(client))?;
        took.sort_unstable();
        report.add("versions.calls.p99", load.p99_us() / 1e3);
        report.add("versions.rollback.p50", took[ROLLBACKS / 2].as_secs_f64() * 1e3);
        report.add("versions.rollback.max", took[ROLLBACKS - 1].as_secs_f64() * 1e3);
        Ok(())
    }

    async fn share(&self, version: &str, weight: u32) -> Result<()> {
        let request = SetTrafficRequest {
            function_id: FUNCTION.into(),
            version: Some(VersionRef::Label(version.into())),
            weight: Some(weight),
            ..SetTrafficRequest::default()
        };
        self.client.call(&request).await?;
        Ok(())
    }
}

/// Measures each rollback from its command until the version gone back to answers a call that was sent after the
/// command's answer.
async fn roll_back_and_forth(client: &Client) -> Result<Vec<Duration>> {
    let request = RollbackRequest { function_id: FUNCTION.into(), ..RollbackRequest::default() };
    let mut took = Vec::new();
    for _ in 0..ROLLBACKS {
        let began = Instant::now();
        let target = client.call(&request).await?.version;
        let answer = client.call(&get(FUNCTION)).await?;
        took.push(began.elapsed());
        if answer.version != target {
            return Err(format!("{} answered after the rollback to {target}", answer.version).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(took)
}
