use super::*;
use std::fs;

fn load_text(text: &str) -> Result<Effective, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.toml");
    fs::write(&path, text).expect("a file");
    let loaded = load_from(Some(&path), [], &[]).map_err(|error| error.to_string());
    loaded.map_err(|text| text.replace(&format!("{}/", folder.path().display()), ""))
}

fn load_variable(name: &str, value: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.toml");
    fs::write(&path, "[workers]\nstarts_max = 3\n").expect("a file");
    let variables = [(name.to_owned(), value.to_owned())];
    load_from(Some(&path), variables, &[]).map(|it| it.config).map_err(|error| error.to_string())
}

#[test]
fn the_shipped_file_lists_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let text = fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("LEVAIN_WRITE_REFERENCE").is_some() {
        fs::write(&path, reference_toml()).expect("config.toml can be written");
    } else {
        assert_eq!(text, reference_toml(), "run this test with LEVAIN_WRITE_REFERENCE=1 to write config.toml anew");
    }
    let effective = load_from(Some(&path), [], &[]).expect("the shipped file is valid");
    assert_eq!(effective.config, Config::default());
}

#[test]
fn flags_come_before_variables_before_the_file_before_defaults() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.toml");
    fs::write(&path, "[workers]\nstarts_max = 3\n[daemon]\nlog_level = \"warn\"\nsocket = \"/file\"\n").expect("a file");
    let variables = [("LEVAIN_DAEMON_LOG_LEVEL", "error"), ("LEVAIN_SOCKET", "/variable"), ("LEVAIN_BUN", "/bun")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let flags = [("daemon.socket", "/flag".to_owned())];
    let effective = load_from(Some(&path), variables, &flags).expect("all of it is valid");
    let config = &effective.config;
    assert_eq!((config.workers.starts_max, config.daemon.log_level.as_str()), (3, "error"));
    assert_eq!(config.socket_path(), Path::new("/flag"));
    assert_eq!(effective.origin("workers.starts_max"), &Origin::File(path, 2));
    assert_eq!(effective.origin("daemon.log_level"), &Origin::Environment("LEVAIN_DAEMON_LOG_LEVEL".into()));
    assert_eq!(effective.origin("daemon.socket"), &Origin::Flag("daemon.socket"));
    assert_eq!(effective.origin("daemon.data_dir"), &Origin::Default);
    assert!(effective.render().contains("starts_max = 3 "), "{}", effective.render());
}

#[test]
fn every_mistake_is_named_with_its_line_and_what_is_allowed() {
    let error = load_text("[daemon]\nsockett = \"x\"\n[workers]\n\nstarts_max = \"many\"\nqueue_timeout_ms = 0\n[nope]\n")
        .expect_err("nothing in it is right");
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    assert!(error.contains("c.toml:2: unknown key daemon.sockett; there are data_dir, socket,"), "{error}");
    assert!(error.contains(r#"c.toml:5: workers.starts_max = "many": expected a whole number from 0 to 1024"#), "{error}");
    assert!(error.contains("c.toml:6: workers.queue_timeout_ms = 0: expected a whole number from 1 to 3600000"), "{error}");
    assert!(error.contains("c.toml:7: unknown section [nope]; there are daemon,"), "{error}");
}

#[test]
fn text_that_is_no_toml_is_shown_with_its_place() {
    let error = load_text("[daemon]\nsocket = \n").expect_err("a value is missing");
    assert!(error.starts_with("c.toml: ") && error.contains("line 2"), "{error}");
    let missing = load_from(Some(Path::new("/no/such/file")), [], &[]).expect_err("there is no file").to_string();
    assert!(missing.contains("/no/such/file"), "{missing}");
}

#[test]
fn variables_are_read_by_the_type_of_their_key() {
    assert_eq!(load_variable("LEVAIN_DAEMON_ALLOWED_UIDS", "1000, 1001").expect("a list").daemon.allowed_uids, [1000, 1001]);
    assert_eq!(load_variable("LEVAIN_VERSIONING_VERIFY", "syntax").expect("a choice").versioning.verify, Verify::Syntax);
    let error = load_variable("LEVAIN_VERSIONING_VERIFY", "maybe").expect_err("no choice");
    assert_eq!(error, r#"LEVAIN_VERSIONING_VERIFY: versioning.verify = "maybe": expected "load" or "syntax""#);
    let error = load_variable("LEVAIN_WORKERS_STARTS", "1").expect_err("no key");
    assert!(error.starts_with("LEVAIN_WORKERS_STARTS: unknown key workers.starts;"), "{error}");
    assert!(load_variable("LEVAIN_ELSEWHERE", "1").is_ok(), "other variables are none of our business");
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let error = load_text("[functions]\nwarm_workers = 11\n").expect_err("more than may run");
    assert!(error.starts_with("c.toml:2: functions.warm_workers = 11: expected at most"), "{error}");
}

#[test]
fn a_change_is_live_or_waits_for_the_next_start() {
    let mut new = Config::default();
    new.workers.starts_max = 5;
    new.daemon.socket = "/elsewhere".into();
    let changes = diff(&Config::default(), &new);
    assert_eq!((changes.live, changes.restart), (vec!["workers.starts_max".into()], vec!["daemon.socket".into()]));
}

#[test]
fn every_key_has_its_own_variable() {
    let variables: std::collections::BTreeSet<_> = KEYS.iter().map(Key::variable).collect();
    assert_eq!(variables.len(), KEYS.len());
    assert!(variables.contains("LEVAIN_LIMITS_FRAME_BYTES_MAX"));
}
