//! Sentence about the outcome, or the expected outcome, of a deployment, a rollback, a promotion, a moved alias,
//! changed shares or a decision.

use super::error::CliError;
use super::interrupt::Done;
use super::print::{DIM, GREEN, Out, styled};
use super::session::Session;
use super::text;
use crate::model::{AliasName, DeployOutcome, Timestamp, VersionLabel};
use crate::protocol::ipc::CommandRequest;
use crate::protocol::message::DeployResponse;

/// Sends a request that Ctrl-C cancels until it commits, and prints the outcome.
pub(super) async fn call<R>(session: &Session, request: &R) -> Result<(), CliError>
where
    R: CommandRequest<Response = DeployResponse>,
{
    show(&session.out, &session.call_cancellable(request).await?)
}

/// Prints the outcome.
pub(super) fn show(out: &Out, done: &Done<DeployResponse>) -> Result<(), CliError> {
    out.response(&done.response, |it| text(it, done.was_interrupted))
}

fn text(response: &DeployResponse, was_interrupted: bool) -> String {
    let DeployResponse { function: name, number, status, size, .. } = response;
    let took = text::duration_ms(response.duration_ms);
    let digest = &response.digest.to_string()[..12];
    let what = sentence(response);
    // A dry run has nothing to commit.
    let late = match was_interrupted && *status != DeployOutcome::Checked {
        true => ": the deployment was committed before the interruption",
        false => "",
    };
    let mut text = format!("{} {name}: {what}{late}\n", styled(GREEN, "ok"));
    for step in &response.plan {
        text.push_str(&format!("   {}\n", text::harmless(&step.detail).replace('\n', " ")));
    }
    for url in response.host_url.iter().chain(&response.url).filter(|_| *status == DeployOutcome::Deployed) {
        text.push_str(&format!("   {url}\n"));
    }
    if let Some(at) = response.expires_at {
        text.push_str(&format!("   it expires in {}\n", text::left(Some(at), Timestamp::now())));
    }
    if *status == DeployOutcome::PendingApproval {
        text.push_str(&format!("   levain approve {}\n", response.deployment_id));
    }
    if response.reused {
        let version = &response.version;
        text.push_str(&format!(
            "   the code is already published as {version}, which keeps its description, tags and commit\n"
        ));
    }
    text + &styled(DIM, format!("   version {number}, {} {digest}, took {took}", text::size(*size)))
}

fn sentence(response: &DeployResponse) -> String {
    let DeployResponse { alias, version, status, weight, .. } = response;
    match (status, weight) {
        (DeployOutcome::Checked, _) => {
            format!("{version} passes all checks; nothing was kept or moved. This would happen:")
        }
        (DeployOutcome::Built, _) => format!("{version} is published; {alias} stays where it is"),
        (DeployOutcome::PendingApproval, _) => {
            let environment = &response.environment;
            format!("{version} waits for approval, {environment} is protected; {alias} stays where it is")
        }
        (DeployOutcome::Rejected, _) => format!("{version} is rejected; {alias} stays where it is"),
        (_, Some(weight)) => shares(response, *weight),
        _ => format!("{}{}", points(alias, version), before(response)),
    }
}

fn points(alias: &AliasName, version: &VersionLabel) -> String {
    if alias == AliasName::LIVE { format!("{version} is live") } else { format!("{alias} points at {version}") }
}

/// The previous state, if it differs.
fn before(response: &DeployResponse) -> String {
    let previous = response.previous_version.as_ref().filter(|it| **it != response.version);
    match (previous, response.previous_weight) {
        _ if response.unchanged => " already".into(),
        (Some(second), Some(weight)) => format!(" with all calls ({second} had {weight} %)"),
        (Some(previous), None) => format!(" (was {previous})"),
        (None, _) => String::new(),
    }
}

fn shares(response: &DeployResponse, weight: u32) -> String {
    let DeployResponse { alias, version, previous_version, .. } = response;
    let other = previous_version.as_ref().filter(|it| *it != version);
    let rest = match (other, weight) {
        (None, _) => String::new(),
        (Some(other), 100) => format!(", and none to {other}"),
        (Some(other), _) => format!(", and the rest to {other}"),
    };
    format!("{alias} sends {weight} % of its calls to {version}{rest}")
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::model::Digest;

    fn response() -> DeployResponse {
        DeployResponse {
            deployment_id: "deploy-1".into(),
            function_id: "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("an id"),
            function: "hello".into(),
            version: "v2".parse().expect("a name"),
            number: 2,
            alias: "LIVE".parse().expect("a name"),
            environment: "production".parse().expect("a name"),
            status: DeployOutcome::Deployed,
            weight: None,
            previous_version: Some("v1".parse().expect("a name")),
            previous_weight: None,
            published: true,
            reused: false,
            unchanged: false,
            new_function: false,
            digest: Digest([0xab; 32]),
            size: 2048,
            duration_ms: 41.2,
            url: None,
            host_url: None,
            expires_at: None,
            plan: Vec::new(),
        }
    }

    fn told(response: &DeployResponse) -> String {
        plain(&text(response, false))
    }

    #[test]
    fn the_text_says_what_is_live_and_what_was_before() {
        let expected = "ok hello: v2 is live (was v1)\n   version 2, 2.0 KiB abababababab, took 41.2 ms";
        assert_eq!(told(&response()), expected);
    }

    #[test]
    fn each_sentence_is_true_of_what_happened() {
        let first = DeployResponse { previous_version: None, ..response() };
        let promoted = DeployResponse { published: false, ..response() };
        let same = DeployResponse { unchanged: true, published: false, ..response() };
        let staging = DeployResponse { alias: "STAGING".parse().expect("a name"), ..response() };
        let share = |percent| DeployResponse { weight: Some(percent), ..response() };
        let cleared = DeployResponse { previous_weight: Some(10), ..response() };
        let cleared = DeployResponse {
            version: "v1".parse().expect("a name"),
            previous_version: Some("v2".parse().expect("a name")),
            published: false,
            ..cleared
        };
        let cases = [
            (first, "v2 is live"),
            (promoted, "v2 is live (was v1)"),
            (same, "v2 is live already"),
            (staging, "STAGING points at v2 (was v1)"),
            (share(10), "LIVE sends 10 % of its calls to v2, and the rest to v1"),
            (share(100), "LIVE sends 100 % of its calls to v2, and none to v1"),
            (cleared, "v1 is live with all calls (v2 had 10 %)"),
        ];
        for (response, expected) in cases {
            let told = told(&response);
            assert_eq!(told.lines().next(), Some(format!("ok hello: {expected}").as_str()), "{told}");
        }
    }

    #[test]
    fn an_interruption_that_came_too_late_is_told() {
        let told = plain(&text(&response(), true));
        assert!(told.contains("v2 is live (was v1): the deployment was committed before the interruption\n"), "{told}");
    }

    #[test]
    fn code_that_is_there_already_is_told() {
        let told = told(&DeployResponse { published: false, reused: true, ..response() });
        assert!(told.contains("the code is already published as v2, which keeps its description"), "{told}");
    }

    #[test]
    fn a_preview_has_both_of_its_addresses() {
        let (by_path, by_host) = ("http://127.0.0.1:1/functions/f:preview-a", "http://preview-a--f.localhost:1/");
        let alias = "preview-a".parse().expect("a name");
        let response =
            DeployResponse { alias, url: Some(by_path.into()), host_url: Some(by_host.into()), ..response() };
        let text = told(&response);
        assert!(text.contains(&format!("\n   {by_host}\n   {by_path}\n")), "{text}");
    }

    #[test]
    fn what_is_only_checked_or_built_does_not_claim_to_be_live() {
        for status in
            [DeployOutcome::Checked, DeployOutcome::Built, DeployOutcome::PendingApproval, DeployOutcome::Rejected]
        {
            let response = DeployResponse { status, ..response() };
            assert!(!told(&response).contains("is live"));
        }
    }

    #[test]
    fn what_waits_says_how_it_is_approved() {
        let text = told(&DeployResponse { status: DeployOutcome::PendingApproval, ..response() });
        assert!(text.contains("v2 waits for approval, production is protected") && !text.contains("was v1"), "{text}");
        assert!(text.contains("\n   levain approve deploy-1\n"), "{text}");
    }
}
