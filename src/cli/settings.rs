//! Settings of functions, as arguments and as text.

use super::print::facts;
use super::text;
use crate::config::meant;
use crate::model::{Setting, SettingValues, Settings, SettingsPatch};
use clap::{Arg, ArgMatches, Args, FromArgMatches};
use serde_json::{Map, Value};

/// Settings as flags, one for each of [`Settings::ALL`].
#[derive(Debug, Clone, Default)]
pub(super) struct SettingsArgs(Map<String, Value>);

impl Args for SettingsArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(Settings::ALL.iter().map(|setting| {
            let name = match setting.values {
                SettingValues::Numbers(..) => "N".into(),
                SettingValues::Words(words) => words.join("|"),
            };
            Arg::new(setting.key)
                .long(setting.key.replace('_', "-"))
                .value_name(name)
                .value_parser(|text: &str| setting.parse(text))
                .help(setting.doc.trim_end_matches('.'))
                .help_heading("Settings")
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |it: &Setting| Some((it.key.to_owned(), matches.get_one::<Value>(it.key)?.clone()));
        Ok(Self(Settings::ALL.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl SettingsArgs {
    /// Returns the given settings, which these arguments override, or `None` if there are none.
    pub(super) fn patch(mut self, arguments: &[SettingArg]) -> Option<SettingsPatch> {
        let changes = arguments.iter().filter_map(|it| Some((it.key.to_owned(), it.value.clone()?)));
        self.0.extend(changes);
        (!self.0.is_empty()).then(|| serde_json::from_value(self.0.into()).expect("each value was parsed"))
    }
}

/// A setting to show, `KEY`, or to change, `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SettingArg {
    pub(super) key: &'static str,
    pub(super) value: Option<Value>,
}

/// Parses `KEY` or `KEY=VALUE`; `-` and `_` are equivalent in a key.
pub(super) fn parse_setting(text: &str) -> Result<SettingArg, String> {
    let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.trim())));
    let wanted = key.trim().replace('-', "_");
    let keys = || Settings::ALL.iter().map(|it| it.key);
    let setting = Settings::ALL.iter().find(|it| it.key == wanted).ok_or_else(|| {
        let nearest = meant(&wanted, keys()).map(|it| format!(": did you mean `{it}`?")).unwrap_or_default();
        format!("unknown setting `{wanted}`{nearest}; the settings are {}", keys().collect::<Vec<_>>().join(", "))
    })?;
    Ok(SettingArg { key: setting.key, value: value.map(|value| setting.parse(value)).transpose()? })
}

/// The settings, one per line.
pub(super) fn settings_text(settings: &Settings) -> String {
    facts(settings.values().map(|(setting, value)| (setting.key, text::setting(&value))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Auth, Network};

    #[test]
    fn settings_are_known_keys_with_valid_values() {
        let patch = |texts: &[&str]| {
            let arguments: Vec<_> = texts.iter().map(|it| parse_setting(it).expect(it)).collect();
            SettingsArgs::default().patch(&arguments)
        };
        let expected = SettingsPatch { memory_mb: Some(512), warm_workers: Some(2), ..SettingsPatch::default() };
        assert_eq!(patch(&["memory-mb=512", "warm_workers = 2"]), Some(expected));
        assert_eq!((patch(&[]), patch(&["queue-max"])), (None, None));
        let (network, auth) = (Some(Network::Off), Some(Auth::Token));
        let expected = SettingsPatch { network, auth, ..SettingsPatch::default() };
        assert_eq!(patch(&["network=on", "auth=token", "network=off"]), Some(expected));
        let error = parse_setting("memory=1").expect_err("no such setting");
        assert!(error.contains("`memory`") && error.contains("memory_mb, timeout_seconds"), "{error}");
        assert!(parse_setting("timeout_second").expect_err("near").contains("did you mean `timeout_seconds`?"));
        for bad in ["memory_mb=-1", "memory_mb=31"] {
            assert!(parse_setting(bad).is_err(), "{bad}");
        }
        assert!(parse_setting("auth=secret").expect_err("no such word").contains("`public` or `token`"));
        for (setting, value) in Settings::default().values() {
            let text = format!("{}={}", setting.key, value.to_string().trim_matches('"'));
            let json = serde_json::to_value(patch(&[&text])).expect("plain data");
            assert_eq!(json, serde_json::json!({ setting.key: value }), "a setting must land in its own place");
        }
    }
}
