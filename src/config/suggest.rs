//! Messages about unknown names: the nearest known one, and all that are allowed there.

use super::schema::{KEYS, Key, SECTIONS};
use strsim::levenshtein;

/// Describes an unknown key; `section` is a known one or empty.
pub(super) fn key(section: &str, name: &str) -> String {
    // A key in the wrong section is one step away from the same key in the right one.
    let distance = |key: &Key| levenshtein(name, key.name) + usize::from(key.section != section);
    let nearest = nearest(KEYS.iter().map(|key| (distance(key), key.path())), name);
    if section.is_empty() {
        return describe(&format!("key {name} outside of a section"), nearest, sections());
    }
    let siblings = KEYS.iter().filter(|key| key.section == section).map(|key| key.name.to_owned());
    describe(&format!("key {section}.{name}"), nearest, siblings.collect())
}

/// Describes an unknown section.
pub(super) fn section(name: &str) -> String {
    let candidates = SECTIONS.iter().map(|(section, _)| (levenshtein(name, section), format!("[{section}]")));
    describe(&format!("section [{name}]"), nearest(candidates, name), sections())
}

/// Describes an unknown variable whose name begins with a section.
pub(super) fn variable(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    let variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let nearest = nearest(variables.iter().map(|it| (levenshtein(&upper, it), it.clone())), name);
    let section = upper.splitn(3, '_').take(2).collect::<Vec<_>>().join("_") + "_";
    describe("variable", nearest, variables.into_iter().filter(|it| it.starts_with(&section)).collect())
}

fn sections() -> Vec<String> {
    SECTIONS.iter().map(|(section, _)| format!("[{section}]")).collect()
}

fn describe(what: &str, nearest: Option<String>, allowed: Vec<String>) -> String {
    let nearest = nearest.map(|it| format!("did you mean {it}? ")).unwrap_or_default();
    format!("unknown {what} ({nearest}allowed: {})", allowed.join(", "))
}

/// Returns the known name that a misspelt one may stand for. `dryRun` and `dry-run` are near to `dry_run`.
pub(crate) fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let plain =
        |it: &str| it.chars().filter(char::is_ascii_alphanumeric).map(|it| it.to_ascii_lowercase()).collect::<String>();
    let wanted = plain(name);
    nearest(known.map(|it| (levenshtein(&wanted, &plain(it)), it.to_owned())), &wanted)
}

/// Returns the nearest candidate, if it is near enough.
fn nearest(candidates: impl Iterator<Item = (usize, String)>, name: &str) -> Option<String> {
    let (distance, candidate) = candidates.min_by_key(|(distance, _)| *distance)?;
    (distance <= (name.len() / 4).max(2)).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_spelled_as_other_systems_do() {
        let of = |name| meant(name, ["dry_run", "error_rate_max", "version"].into_iter());
        for (name, expected) in
            [("dryRun", "dry_run"), ("errorRateMax", "error_rate_max"), ("dry-run", "dry_run"), ("verison", "version")]
        {
            assert_eq!(of(name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(of("environment"), None);
    }

    #[test]
    fn a_name_is_suggested_only_when_it_is_near() {
        assert!(key("daemon", "sockett").contains("(did you mean daemon.socket? allowed: data_dir, socket,"));
        assert!(key("daemon", "starts_max").contains("did you mean workers.starts_max?"));
        assert!(key("", "socket").contains("did you mean daemon.socket?"));
        assert!(!key("daemon", "colour_of_the_sky").contains("did you mean"));
        assert!(section("worker").contains("did you mean [workers]?"));
        assert!(variable("LEVAIN_workers_starts_max").contains("did you mean LEVAIN_WORKERS_STARTS_MAX?"));
    }
}
