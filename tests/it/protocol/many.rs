//! Many concurrent requests: every answer belongs to its request.

use super::wire::{INVOKE, Language, SUCCESS, Wire, frame};
use crate::harness::TestDaemon;
use levain::{
    model::SettingsPatch,
    protocol::{
        field::Body,
        message::{InvokeRequest, UpdateRequest},
    },
};
use serde_json::json;
use std::collections::BTreeSet;
use tokio::task::JoinSet;

const CLIENTS: usize = 64;
const CALLS: usize = 8;

/// Deploys `echo` with as many workers as a small machine can carry.
async fn echo() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    daemon.deploy_sample("echo").await.unwrap();
    let settings = SettingsPatch { max_concurrent_executions: Some(4), ..SettingsPatch::default() };
    daemon.client().call(&UpdateRequest { function_id: "echo".into(), settings }).await.unwrap();
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_gets_its_own_answers() {
    let daemon = echo().await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let connection = daemon.connect().await;
        clients.spawn(async move {
            for call in 0..CALLS {
                // Bodies differ in length too, so that a mixed-up buffer shows.
                let body = format!("client {client} call {call} ").repeat(1 + client * call).into_bytes();
                let request = InvokeRequest {
                    function_id: "echo".into(),
                    body: Some(Body::from(body.clone())),
                    ..InvokeRequest::default()
                };
                let answer = connection.call(&request).await.unwrap();
                assert!(answer.success && answer.body.0 == body, "client {client} call {call}: {answer:?}");
            }
        });
    }
    clients.join_all().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_requests() {
    let daemon = echo().await;
    let mut wire = Wire::connect(&daemon.socket());
    for language in [Language::Json, Language::MessagePack] {
        let body = |id: u64| format!("body of {id} ").repeat(id as usize).into_bytes();
        let request = |id| json!({ "function_id": "echo", "body": language.bytes(&body(id)) });
        let frames: Vec<u8> = (1..=16).flat_map(|id| frame(id, INVOKE, &language.write(&request(id)))).collect();
        wire.send(&frames);
        let mut ids = BTreeSet::new();
        for _ in 0..16 {
            let answer = wire.answer();
            let (spoken, value) = answer.read();
            assert_eq!((answer.status, spoken), (SUCCESS, language), "{value}");
            assert_eq!(language.unbytes(&value["body"]), body(answer.id));
            ids.insert(answer.id);
        }
        assert_eq!(ids, (1..=16).collect());
    }
    daemon.stop().await;
}
