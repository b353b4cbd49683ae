//! Origins of values, and the messages for every kind of mistake.

use super::*;
use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt, path::Path};

fn load_text(text: &str) -> Result<Effective, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.toml");
    fs::write(&path, text).expect("a file");
    let loaded = load_from(Some(&path), [], &[]).map_err(|error| error.to_string());
    loaded.map_err(|text| text.replace(&format!("{}/", folder.path().display()), ""))
}

fn load_variable(name: &str, value: impl Into<OsString>) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.toml");
    fs::write(&path, "[workers]\nstarts_max = 3\n").expect("a file");
    let variables = [(name.to_owned(), value.into())];
    load_from(Some(&path), variables, &[]).map(|it| it.config).map_err(|error| error.to_string())
}

#[test]
fn the_shipped_file_lists_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let text = fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("LEVAIN_WRITE_REFERENCE").is_some() {
        fs::write(&path, reference_toml()).expect("config.toml can be written");
    } else {
        assert_eq!(text, reference_toml(), "run this test with LEVAIN_WRITE_REFERENCE=1 to rewrite config.toml");
    }
    let effective = load_from(Some(&path), [], &[]).expect("the shipped file is valid");
    let defaults = Config::default().absolute().expect("the working directory is there");
    assert_eq!(effective.config, defaults);
}

#[test]
fn relative_paths_become_absolute_and_words_stay() {
    let here = std::env::current_dir().expect("a working directory");
    let here = here.to_str().expect("it is UTF-8");
    let text = "[daemon]\ndata_dir = \"a/b\"\nsocket = \"s\"\n[runtime]\nbun = \"/bin/bun\"\n\
        [http]\naccess_log = \"log\"\ntls_key = \"k\"\ntls_certificate = \"c\"\n[secrets]\nmaster_key_file = \"m\"\n";
    let loaded = load_text(text).expect("it is valid");
    let config = &loaded.config;
    assert_eq!(config.data_dir(), Path::new(&format!("{here}/a/b")));
    assert_eq!(config.socket_path(), Path::new(&format!("{here}/s")));
    assert_eq!(config.runtime.bun, "/bin/bun");
    let (http, secrets) = (&config.http, &config.secrets);
    let paths = [&http.access_log, &http.tls_key, &http.tls_certificate, &secrets.master_key_file];
    assert_eq!(paths.map(String::as_str), ["log", "k", "c", "m"].map(|it| format!("{here}/{it}")));
    assert!(loaded.render().contains(&format!("data_dir = \"{here}/a/b\"")), "{}", loaded.render());
    for word in ["off", "stdout", "stderr", ""] {
        let loaded = load_text(&format!("[http]\naccess_log = \"{word}\"\n")).expect("it is valid");
        assert_eq!(loaded.config.http.access_log, word);
    }
    let defaults = load_text("").expect("it is valid").config;
    assert_eq!(defaults.data_dir(), Path::new(&format!("{here}/data")));
    assert_eq!(defaults.daemon.socket, "", "the socket's path follows from the data directory");
    assert_eq!(defaults.clone().absolute().expect("nothing is relative"), defaults);
}

#[test]
fn flags_come_before_variables_before_the_file_before_defaults() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.toml");
    fs::write(&path, "[workers]\nstarts_max = 3\n[daemon]\nlog_level = \"warn\"\nsocket = \"/file\"\n")
        .expect("a file");
    let variables = [("LEVAIN_DAEMON_LOG_LEVEL", "error"), ("LEVAIN_SOCKET", "/variable"), ("LEVAIN_BUN", "/bun")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.into()));
    let flags = [("daemon.socket", "/flag".to_owned())];
    let effective = load_from(Some(&path), variables, &flags).expect("all of it is valid");
    let config = &effective.config;
    assert_eq!((config.workers.starts_max, config.daemon.log_level.as_str()), (3, "error"));
    assert_eq!(config.socket_path(), Path::new("/flag"));
    assert_eq!(effective.origin("workers.starts_max"), &ValueOrigin::File(path, 2));
    assert_eq!(effective.origin("daemon.log_level"), &ValueOrigin::Environment("LEVAIN_DAEMON_LOG_LEVEL".into()));
    assert_eq!(effective.origin("daemon.socket"), &ValueOrigin::Flag("daemon.socket"));
    assert_eq!(effective.origin("daemon.data_dir"), &ValueOrigin::Default);
    assert!(effective.render().contains("starts_max = 3 "), "{}", effective.render());
}

#[test]
fn every_mistake_is_named_with_its_line_and_what_is_allowed() {
    let error =
        load_text("[daemon]\nsockett = \"x\"\n[workers]\n\nstarts_max = \"many\"\nqueue_timeout_ms = 0\n[nope]\n")
            .expect_err("nothing in it is right");
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    assert!(
        error.contains("c.toml:2: unknown key daemon.sockett (did you mean daemon.socket? allowed: data_dir, socket,"),
        "{error}"
    );
    assert!(
        error.contains(r#"c.toml:5: workers.starts_max = "many": expected a whole number from 0 to 1024"#),
        "{error}"
    );
    assert!(
        error.contains("c.toml:6: workers.queue_timeout_ms = 0: expected a whole number from 1 to 3600000"),
        "{error}"
    );
    assert!(error.contains("c.toml:7: unknown section [nope] (allowed: [daemon],"), "{error}");
}

#[test]
fn a_domain_is_a_name_and_nothing_else() {
    for good in ["", "localhost", "example.com", "fn.Example-1.com"] {
        let config = load_variable("LEVAIN_HTTP_FUNCTIONS_DOMAIN", good).expect(good);
        assert_eq!(config.http.functions_domain, good);
    }
    for bad in
        [".example.com", "*.example.com", "example.com:80", "https://example.com", "a..b", "127.0.0.1", "-a.b", "ü.b"]
    {
        let error = load_variable("LEVAIN_HTTP_FUNCTIONS_DOMAIN", bad).expect_err(bad);
        assert!(error.contains("http.functions_domain") && error.contains("expected a domain such as"), "{error}");
    }
}

#[test]
fn text_that_is_no_toml_is_shown_with_its_place() {
    let error = load_text("[daemon]\nsocket = \n").expect_err("a value is missing");
    assert!(error.starts_with("c.toml: ") && error.contains("line 2"), "{error}");
    let error = load_text("[daemon]\nsocket = \n[workers\n").expect_err("two mistakes");
    assert!(error.contains("line 2") && !error.ends_with('\n'), "the first one is shown: {error:?}");
    let error = load_text("[daemon]\nsocket = \"a\"\nsocket = \"b\"\n").expect_err("which one");
    assert!(error.contains("line 3") && error.contains("duplicate key"), "{error}");
    let missing = load_from(Some(Path::new("/no/such/file")), [], &[]).expect_err("there is no file").to_string();
    assert!(missing.contains("/no/such/file"), "{missing}");
}

#[test]
fn variables_are_read_by_the_type_of_their_key() {
    assert_eq!(
        load_variable("LEVAIN_DAEMON_ALLOWED_UIDS", "1000, 1001").expect("a list").daemon.allowed_uids,
        [1000, 1001]
    );
    assert_eq!(
        load_variable("LEVAIN_VERSIONING_VERIFY", "syntax").expect("a choice").versioning.verify,
        Verify::Syntax
    );
    let error = load_variable("LEVAIN_VERSIONING_VERIFY", "maybe").expect_err("no choice");
    assert_eq!(error, r#"LEVAIN_VERSIONING_VERIFY: versioning.verify = "maybe": expected "load" or "syntax""#);
    let error = load_variable("LEVAIN_WORKERS_STARTS", "1").expect_err("no key");
    assert!(
        error.starts_with("LEVAIN_WORKERS_STARTS: unknown variable (did you mean LEVAIN_WORKERS_STARTS_MAX? "),
        "{error}"
    );
    let error = load_variable("LEVAIN_workers_starts_max", "1").expect_err("names of variables are case-sensitive");
    assert!(error.contains("did you mean LEVAIN_WORKERS_STARTS_MAX?"), "{error}");
    let bytes = OsString::from_vec(b"/tmp/\xff".to_vec());
    let error = load_variable("LEVAIN_DATA_DIR", bytes).expect_err("no text");
    assert_eq!(error, r#"LEVAIN_DATA_DIR: daemon.data_dir = "/tmp/\xFF": expected text in UTF-8"#);
    assert!(load_variable("LEVAIN_ELSEWHERE", "1").is_ok(), "variables of other programs are ignored");
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let error = load_text("[functions]\nwarm_workers = 11\n").expect_err("more than may run");
    assert!(error.starts_with("c.toml:2: functions.warm_workers = 11: expected at most"), "{error}");
}

#[test]
fn nothing_is_compared_with_the_default_of_a_refused_value() {
    let error =
        load_text("[functions]\nwarm_workers = 20\nmax_concurrent_executions = 5000\n").expect_err("5000 is too many");
    assert_eq!(error, "c.toml:3: functions.max_concurrent_executions = 5000: expected a whole number from 1 to 1000");
}

#[test]
fn a_value_is_shown_as_it_is_written() {
    for (written, shown) in
        [("1.5", "1.5"), ("0xFFFFF", "0xFFFFF"), ("-1", "-1"), ("[1,\n 2]", "[1,  2]"), ("'many'", "'many'")]
    {
        let error = load_text(&format!("[workers]\nstarts_max = {written}\n")).expect_err("no number of starts");
        let expected = format!("c.toml:2: workers.starts_max = {shown}: expected a whole number from 0 to 1024");
        assert_eq!(error, expected);
    }
    let error = load_text(&format!("[daemon]\nlog_format = \"{}\"\n", "é".repeat(200))).expect_err("no format");
    assert!(error.contains("é...: expected \"auto\""), "{error}");
}

#[test]
fn what_is_no_section_is_told_from_what_is_unknown() {
    for text in ["workers = 3\n", "[[workers]]\nstarts_max = 1\n"] {
        assert_eq!(
            load_text(text).expect_err(text),
            "c.toml:1: workers is a section: write [workers] and its keys below"
        );
    }
    let error = load_text("socket = \"x\"\n").expect_err("no section");
    assert!(
        error.starts_with("c.toml:1: unknown key socket outside of a section (did you mean daemon.socket? "),
        "{error}"
    );
    let effective =
        load_text("daemon.socket = \"/a\"\nworkers = { starts_max = 9 }\n").expect("other ways to write it");
    assert_eq!((effective.config.daemon.socket.as_str(), effective.config.workers.starts_max), ("/a", 9));
}

#[test]
fn lines_are_right_behind_other_line_endings_and_a_byte_order_mark() {
    let error = load_text("\u{feff}# é\r\n[daemon]\r\nlog_format = \"é\"\r\n").expect_err("no format");
    assert_eq!(error, r#"c.toml:3: daemon.log_format = "é": expected "auto" or "text" or "json""#);
}

#[test]
fn a_misspelt_log_level_is_refused() {
    for level in ["info", "OFF", "warn,levain::scheduler=debug", "levain=trace", "[span{field=1}]=debug"] {
        assert!(load_variable("LEVAIN_DAEMON_LOG_LEVEL", level).is_ok(), "{level}");
    }
    for level in ["", "inof", "levain=loud", "info,", "info,levain"] {
        let error = load_variable("LEVAIN_DAEMON_LOG_LEVEL", level).expect_err(level);
        assert!(error.contains(": expected off, error, warn,"), "{error}");
    }
    assert_eq!(
        load_text("[daemon]\ndata_dir = ''\n").expect_err("nowhere"),
        "c.toml:2: daemon.data_dir = '': expected a path"
    );
}

#[test]
fn the_long_name_of_a_variable_wins_in_any_order() {
    let mut variables = [("LEVAIN_SOCKET", "/short"), ("LEVAIN_DAEMON_SOCKET", "/long")]
        .map(|(name, value)| (name.to_owned(), value.into()));
    for _ in 0..2 {
        variables.reverse();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("c.toml");
        fs::write(&path, "").expect("a file");
        let effective = load_from(Some(&path), variables.clone(), &[]).expect("both are valid");
        assert_eq!(effective.config.daemon.socket, "/long");
    }
}

#[test]
fn the_former_name_of_a_variable_is_accepted_with_a_notice() {
    let load = |names: &[&str]| {
        let variables = names.iter().map(|name| ((*name).to_owned(), format!("/{name}").into()));
        let effective = load_from(None, variables, &[]).expect("it is valid");
        (effective.config.secrets.master_key_file.clone(), effective.notices().join(""))
    };
    let (file, notice) = load(&["LEVAIN_MASTER_KEY_FILE"]);
    assert_eq!(file, "/LEVAIN_MASTER_KEY_FILE");
    assert!(notice.contains("is now called LEVAIN_SECRETS_MASTER_KEY_FILE"), "{notice}");
    let both = load(&["LEVAIN_SECRETS_MASTER_KEY_FILE", "LEVAIN_MASTER_KEY_FILE"]);
    assert_eq!(both, ("/LEVAIN_SECRETS_MASTER_KEY_FILE".into(), String::new()));
}

#[test]
fn rows_name_every_key_with_its_value_and_origin() {
    let rows = load_text("[workers]\nstarts_max = 3\n").expect("valid").rows();
    assert_eq!(rows.len(), KEYS.len());
    let data = std::path::absolute("data").expect("a working directory");
    let row = rows.iter().find(|row| row.key == "workers.starts_max").expect("the key");
    assert!(row.value == "3" && row.origin.ends_with("c.toml:2"), "{row:?}");
    assert_eq!(
        (rows[0].key.as_str(), rows[0].value.as_str(), rows[0].origin.as_str()),
        ("daemon.data_dir", format!("\"{}\"", data.display()).as_str(), "default")
    );
}

#[test]
fn a_reload_takes_over_live_keys_only() {
    let mut new = Config::default();
    new.workers.starts_max = 5;
    new.daemon.allowed_uids = vec![7];
    let applied = Config::default().reloaded(&new);
    assert_eq!((applied.workers.starts_max, applied.daemon.allowed_uids.len()), (5, 0));
    assert_eq!(diff(&applied, &new).restart, ["daemon.allowed_uids"]);
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
