//! Tests of the command line: how arguments are parsed, and which combinations are refused.

use super::super::print;
use super::*;
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
    assert!(help.contains("11  `invoke --fail`"), "{help}");
    assert!(print::plain(&help).lines().all(|line| line.chars().count() <= WIDTH), "{help}");
}

#[test]
fn the_help_has_every_command_in_one_group_on_one_line() {
    let tree = Cli::command();
    let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let mut known: Vec<&str> = tree.get_subcommands().map(clap::Command::get_name).collect();
    grouped.sort_unstable();
    known.sort_unstable();
    assert_eq!(grouped, known);
    let help = print::plain(&command().render_help().to_string());
    assert!(help.contains("\nTraffic:\n  invoke") && !help.contains("Commands:"), "{help}");
    assert!(help.contains("Usage: levain [OPTIONS] <COMMAND>\n") && help.contains("Global options:"), "{help}");
    let groups = print::plain(&groups_help(&tree));
    assert!(groups.lines().all(|line| line.chars().count() <= WIDTH), "{groups}");
}

/// Notes are wrapped to the terminal, but the lines of examples are not: they must fit.
#[test]
fn the_examples_of_every_command_fit_a_terminal() {
    fn check(command: &clap::Command) {
        let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in notes.lines().filter(|line| line.starts_with("  ")) {
            assert!(line.chars().count() <= WIDTH, "{}: {line}", command.get_name());
        }
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn global_options_may_stand_on_either_side_of_the_command() {
    for line in [["--json", "--socket", "/s", "list"], ["list", "--json", "--socket", "/s"]] {
        let cli = parse(&line).expect("valid");
        assert!(cli.global.json && cli.global.socket.as_deref() == Some("/s".as_ref()), "{line:?}");
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
