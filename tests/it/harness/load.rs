//! Callers that keep a function busy, or call it at intervals.

use super::{TestDaemon, get, until};
use levain::{
    client::Client,
    protocol::message::{InvokeRequest, InvokeResponse},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// Pause of a caller, in which the processor is free for what the test is about.
const PAUSE: Duration = Duration::from_millis(1);

/// Callers of one function, each on its own connection; each calls again soon after it is answered.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: JoinSet<Vec<InvokeResponse>>,
}

impl Load {
    pub async fn start(daemon: &TestDaemon, name: &str, path: &str, callers: usize) -> Self {
        let mut clients = Vec::new();
        for _ in 0..callers {
            clients.push(daemon.connect().await);
        }
        Self::paced(clients, get(name, path), PAUSE).await
    }

    /// Starts callers with these clients, and with a pause after each answer.
    pub async fn paced(clients: Vec<Client>, request: InvokeRequest, pause: Duration) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut callers = JoinSet::new();
        for client in clients {
            let (stop, answered, request) = (Arc::clone(&stop), Arc::clone(&answered), request.clone());
            callers.spawn(async move {
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.call(&request).await.expect("an answer");
                    assert!(answer.success, "{answer:?}");
                    answers.push(answer);
                    answered.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                }
                answers
            });
        }
        Self { stop, answered, callers }
    }

    /// Waits for this many more answers.
    pub async fn until_answered(&self, count: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + count;
        let answered = || async { (self.answered.load(Ordering::Relaxed) >= wanted).then_some(()) };
        until("more are answered", answered).await;
    }

    /// Stops the callers. Every call must have succeeded.
    pub async fn stop(self) -> Vec<InvokeResponse> {
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await.into_iter().flatten().collect()
    }
}
