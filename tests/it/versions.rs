//! GET_FUNCTION_VERSIONS, TAG_VERSION and GET_DEPLOYMENTS.

use crate::harness::{TestDaemon, is_refused};
use levain::{
    error::ErrorCode,
    model::DeploymentStatus,
    protocol::message::{
        DeploymentsRequest, RollbackRequest, TagVersionRequest, VersionInfo, VersionRef, VersionsRequest,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn versions_come_newest_first_with_where_they_are_used() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    assert!(daemon.versions("f").await.is_empty());
    for label in ["a", "b", "c"] {
        daemon
            .redeploy_text("f", Some(label), &format!("export default () => new Response({label:?});"))
            .await
            .unwrap();
    }
    let versions = daemon.versions("f").await;
    let rows: Vec<_> = versions.iter().map(|it| (it.version.as_str(), it.number, it.aliases.join(","))).collect();
    assert_eq!(rows, [("c", 3, "LIVE".into()), ("b", 2, "ROLLBACK".into()), ("a", 1, String::new())]);
    assert!(versions.iter().all(|it| !it.bun_version.is_empty() && it.size > 0));
    assert!(versions[0].created_at >= versions[2].created_at && versions[0].digest != versions[1].digest);
    let by_id =
        VersionsRequest { function_id: daemon.info("f").await.function_id.to_string(), ..VersionsRequest::default() };
    assert_eq!(daemon.call(&by_id).await.unwrap().versions, versions);
    let unknown = VersionsRequest { function_id: "nobody".into(), ..VersionsRequest::default() };
    assert!(is_refused(&daemon.call(&unknown).await, ErrorCode::FunctionNotFound));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_come_newest_first_and_in_pages() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    for label in ["a", "b"] {
        daemon
            .redeploy_text("f", Some(label), &format!("export default () => new Response({label:?});"))
            .await
            .unwrap();
    }
    for _ in 0..3 {
        let rollback = RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() };
        daemon.call(&rollback).await.unwrap();
    }
    let all = daemon.deployments("f").await;
    let labels: Vec<_> = all.iter().map(|it| it.version.as_str()).collect();
    assert_eq!(labels, ["a", "b", "a", "b", "a"]);
    assert_eq!(all.iter().map(|it| it.is_active).collect::<Vec<_>>(), [true, false, false, false, false]);
    let page = DeploymentsRequest {
        function_id: "f".into(),
        limit: Some(2),
        offset: Some(1),
        ..DeploymentsRequest::default()
    };
    assert_eq!(daemon.call(&page).await.unwrap().deployments, all[1..3]);
    let none = DeploymentsRequest { offset: Some(9), ..page };
    assert!(daemon.call(&none).await.unwrap().deployments.is_empty());
    daemon.redeploy_text("f", Some("c"), "throw 1; export default () => {};").await.unwrap_err();
    let of = |alias: &str, status| DeploymentsRequest {
        function_id: "f".into(),
        alias: Some(alias.into()),
        status,
        ..DeploymentsRequest::default()
    };
    let failed = daemon.call(&of("LIVE", Some(DeploymentStatus::Failed))).await.unwrap().deployments;
    assert_eq!(failed.iter().map(|it| it.version.as_str()).collect::<Vec<_>>(), ["c"]);
    assert_eq!(daemon.call(&of("LIVE", None)).await.unwrap().deployments.len(), 6);
    assert_eq!(daemon.call(&of("STAGING", None)).await.unwrap().deployments, []);
    assert!(is_refused(&daemon.call(&of("a b", None)).await, ErrorCode::InvalidRequest));
    let unknown = DeploymentsRequest { function_id: "nobody".into(), ..DeploymentsRequest::default() };
    assert!(is_refused(&daemon.call(&unknown).await, ErrorCode::FunctionNotFound));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_the_description_of_a_version_change_and_nothing_else_does() {
    let mut daemon = TestDaemon::start().await;
    daemon.deploy_text("f", "export default () => new Response('one');").await;
    let before = daemon.versions("f").await.remove(0);
    let tag = |add: &[&str], remove: &[&str], description: Option<&str>| TagVersionRequest {
        function_id: "f".into(),
        version: VersionRef::Label("LIVE".into()),
        add: add.iter().map(|it| (*it).to_owned()).collect(),
        remove: remove.iter().map(|it| (*it).to_owned()).collect(),
        description: description.map(Into::into),
    };
    daemon.call(&tag(&["stable", "blue"], &[], Some("the first"))).await.unwrap();
    let tagged = daemon.call(&tag(&["stable", "green"], &["blue", "red"], None)).await.unwrap();
    assert_eq!((tagged.tags.join(" ").as_str(), tagged.description.as_deref()), ("stable green", Some("the first")));
    daemon.restart().await;
    let after = daemon.versions("f").await.remove(0);
    assert_eq!(after, VersionInfo { tags: tagged.tags, description: tagged.description, ..before });
    let bare = daemon.call(&tag(&[], &["stable", "green"], Some(""))).await.unwrap();
    assert_eq!((bare.tags.len(), bare.description), (0, None));
    let many: Vec<String> = (0..33).map(|it| format!("tag-{it}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for bad in [tag(&[], &[], None), tag(&[""], &[], None), tag(&many, &[], None)] {
        assert!(is_refused(&daemon.call(&bad).await, ErrorCode::InvalidRequest), "{bad:?}");
    }
    let unknown = TagVersionRequest { version: VersionRef::Number(9), ..tag(&["a"], &[], None) };
    assert!(is_refused(&daemon.call(&unknown).await, ErrorCode::VersionNotFound));
    daemon.stop().await;
}
