//! Tests of the command line: how arguments are parsed, and which combinations are refused.

use super::*;
use crate::model::{Auth, Network};
use clap::error::ErrorKind;

fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["levain"].iter().chain(line))
}

fn refused(line: &[&str]) -> ErrorKind {
    parse(line).expect_err("the line is refused").kind()
}

#[test]
fn the_command_tree_is_sound() {
    command().debug_assert();
}

#[test]
fn the_help_lists_every_exit_code() {
    let help = exit_code_help();
    for code in ErrorCode::ALL {
        assert!(help.contains(code.as_str()), "{code} is missing");
    }
    assert!(help.contains("10  no daemon answers") && help.contains(" 2  wrong usage"), "{help}");
}

#[test]
fn global_options_may_stand_on_either_side_of_the_command() {
    for line in [["--json", "--socket", "/s", "list"], ["list", "--json", "--socket", "/s"]] {
        let cli = parse(&line).expect("valid");
        assert!(cli.global.json && cli.global.socket.as_deref() == Some("/s".as_ref()), "{line:?}");
    }
}

#[test]
fn headers_are_split_at_the_first_colon_and_checked() {
    let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
    assert_eq!(parse_header("Host: a:80"), pair("Host", "a:80"));
    assert_eq!(parse_header("x-empty:"), pair("x-empty", ""));
    for bad in ["no colon", ": value", "a b: c", "x: a\nb"] {
        assert!(parse_header(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn query_parameters_keep_everything_after_the_first_equals_sign() {
    let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
    assert_eq!(parse_query("a=b=c"), pair("a", "b=c"));
    assert_eq!(parse_query("a="), pair("a", ""));
    assert!(parse_query("a").is_err() && parse_query("=b").is_err());
}

#[test]
fn settings_are_known_keys_with_valid_values() {
    let patch = |texts: &[&str]| {
        let assignments = texts.iter().map(|it| parse_assignment(it).expect(it)).collect();
        SettingsArgs::default().patch(assignments)
    };
    let expected = SettingsPatch { memory_mb: Some(512), warm_workers: Some(2), ..SettingsPatch::default() };
    assert_eq!(patch(&["memory-mb=512", "warm_workers = 2"]), Some(expected));
    assert_eq!(patch(&[]), None);
    let expected = SettingsPatch { network: Some(Network::Off), auth: Some(Auth::Token), ..SettingsPatch::default() };
    assert_eq!(patch(&["network=on", "auth=token", "network=off"]), Some(expected));
    let error = parse_assignment("memory=1").expect_err("no such setting");
    assert!(error.contains("`memory`") && error.contains("memory_mb, timeout_seconds"), "{error}");
    for bad in ["memory_mb=-1", "memory_mb=31", "memory_mb"] {
        assert!(parse_assignment(bad).is_err(), "{bad}");
    }
    assert!(parse_assignment("auth=secret").expect_err("no such word").contains("`public` or `token`"));
    for (setting, value) in Settings::default().values() {
        let text = format!("{}={}", setting.key, value.to_string().trim_matches('"'));
        let json = serde_json::to_value(patch(&[&text])).expect("plain data");
        assert_eq!(json, serde_json::json!({ setting.key: value }), "a setting must land in its own place");
    }
}

#[test]
fn seconds_may_have_a_fraction_and_a_unit() {
    assert_eq!(parse_seconds("0.5"), Ok(std::time::Duration::from_millis(500)));
    assert_eq!(parse_seconds("30s"), Ok(std::time::Duration::from_secs(30)));
    for bad in ["0", "-1", "NaN", "1e9", "x"] {
        assert!(parse_seconds(bad).is_err(), "{bad}");
    }
}

#[test]
fn versions_takes_a_name_or_an_action() {
    assert!(parse(&["versions", "hello"]).is_ok());
    assert!(parse(&["versions", "delete", "hello", "v1", "--yes"]).is_ok());
    assert!(parse(&["versions"]).is_ok(), "of all functions");
    assert!(parse(&["versions", "show", "hello", "3"]).is_ok());
    assert_eq!(refused(&["versions", "delete", "hello"]), ErrorKind::MissingRequiredArgument);
}

#[test]
fn a_deploy_needs_a_path_or_a_published_version() {
    assert!(parse(&["deploy", "hello", "./hello.ts", "--tag", "a", "--tag", "b"]).is_ok());
    assert!(parse(&["deploy", "hello", "-"]).is_ok());
    assert!(parse(&["deploy", "hello", "--version", "v1"]).is_ok());
    assert_eq!(refused(&["deploy", "hello"]), ErrorKind::MissingRequiredArgument);
}

#[test]
fn an_alias_is_set_listed_and_deleted() {
    assert!(parse(&["alias", "set", "hello", "STAGING", "v2", "--environment", "staging", "--reason", "a"]).is_ok());
    assert!(parse(&["alias", "list", "hello"]).is_ok());
    assert!(parse(&["alias", "delete", "hello", "STAGING", "--yes"]).is_ok());
    assert_eq!(refused(&["alias", "set", "hello", "STAGING"]), ErrorKind::MissingRequiredArgument);
}

#[test]
fn a_policy_and_a_rollout_are_read_at_once() {
    let limits = ["--error-rate", "5", "--p99", "200ms", "--crashes", "3", "--window", "60s", "--min-requests", "50"];
    let set = [&["policy", "set", "hello", "--alias", "A", "--warn", "--cooldown", "5m"][..], &limits].concat();
    assert!(parse(&set).is_ok());
    assert_eq!(refused(&["policy", "set", "hello", "--error-rate", "101"]), ErrorKind::ValueValidation);
    assert!(parse(&["policy", "show", "hello"]).is_ok() && parse(&["policy", "remove", "hello"]).is_ok());
    assert!(parse(&["rollout", "start", "hello", "v2", "--plan", "10% 5m, 100%"]).is_ok());
    assert_eq!(refused(&["rollout", "start", "hello", "v2", "--plan", "10% 5m"]), ErrorKind::ValueValidation);
    assert_eq!(refused(&["rollout", "start", "hello", "v2"]), ErrorKind::MissingRequiredArgument);
    assert!(parse(&["rollout", "abort", "hello", "--reason", "a"]).is_ok());
}

#[test]
fn a_share_is_of_an_alias_that_moves() {
    assert!(parse(&["deploy", "hello", "./hello.ts", "--weight", "10"]).is_ok());
    assert_eq!(refused(&["deploy", "hello", "./hello.ts", "--weight", "101"]), ErrorKind::ValueValidation);
    let contradiction = ["deploy", "hello", "./hello.ts", "--weight", "10", "--no-activate"];
    assert_eq!(refused(&contradiction), ErrorKind::ArgumentConflict);
}

#[test]
fn a_decision_names_a_deployment_and_a_rejection_its_reason() {
    assert!(parse(&["environments", "protect", "production"]).is_ok() && parse(&["environments", "ls"]).is_ok());
    assert!(parse(&["approvals"]).is_ok() && parse(&["approvals", "hello"]).is_ok());
    assert!(parse(&["approve", "hello"]).is_ok() && parse(&["approve", "hello", "--reason", "fine"]).is_ok());
    assert!(parse(&["reject", "hello", "--reason", "no"]).is_ok());
    for line in [["approve"].as_slice(), &["reject", "hello"], &["environments", "protect"]] {
        assert_eq!(refused(line), ErrorKind::MissingRequiredArgument, "{line:?}");
    }
}

#[test]
fn a_token_needs_a_scope_that_there_is() {
    let line = ["token", "create", "ci", "--scope", "deploy,read", "--scope", "invoke", "--expires", "30d"];
    assert!(parse(&line).is_ok());
    assert_eq!(refused(&["token", "create", "ci"]), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused(&["token", "create", "ci", "--scope", "root"]), ErrorKind::InvalidValue);
    assert_eq!(refused(&["token", "create", "ci", "--scope", "read", "--expires", "soon"]), ErrorKind::ValueValidation);
    assert!(parse(&["token", "list", "--all"]).is_ok() && parse(&["token", "revoke", "ci", "--yes"]).is_ok());
}

#[test]
fn a_rollback_takes_its_version_in_one_way() {
    assert!(parse(&["rollback", "hello", "--alias", "STAGING", "--to", "v1"]).is_ok());
    assert!(parse(&["rollback", "hello", "v1"]).is_ok());
    assert_eq!(refused(&["rollback", "hello", "v1", "--to", "v2"]), ErrorKind::ArgumentConflict);
}

#[test]
fn a_bench_is_bounded_by_time_or_by_number() {
    assert!(parse(&["bench", "hello", "-c", "4", "--in-flight", "2", "--duration", "0.5"]).is_ok());
    assert_eq!(refused(&["bench", "hello", "--duration", "1", "--requests", "5"]), ErrorKind::ArgumentConflict);
    assert_eq!(refused(&["bench", "hello", "--connections", "0"]), ErrorKind::ValueValidation);
}

#[test]
fn data_that_begins_with_a_dash_needs_the_equals_form_and_a_lone_dash_does_not() {
    assert!(parse(&["invoke", "hello", "--data", "-"]).is_ok());
    assert!(parse(&["invoke", "hello", "--data=-5"]).is_ok());
}
