//! Inheritance of variables between environments, and the rules that limit it.

use super::EnvironmentName;
use std::collections::{BTreeMap, BTreeSet};

/// Limit on the number of environments.
const ENVIRONMENTS_MAX: usize = 100;

/// Limit on the environments that one environment takes variables from, its parent's parents included.
pub const ANCESTORS_MAX: usize = 8;

/// Violation of a rule about environments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EnvironmentError {
    /// An environment has this name, or one that differs only in case.
    #[error("environment `{0}` already exists: choose another name")]
    Taken(EnvironmentName),
    #[error("`{0}` is a reserved name: choose another name")]
    Reserved(EnvironmentName),
    #[error("`{0}` begins with `-`, like a command-line option: choose another name")]
    Dash(EnvironmentName),
    #[error("there are {ENVIRONMENTS_MAX} environments already: delete an unused one")]
    TooMany,
    #[error("`{0}` would take variables from itself: choose another parent")]
    Cycle(EnvironmentName),
    #[error(
        "`{0}` would take variables from more than {ANCESTORS_MAX} environments: choose a parent nearer to the top"
    )]
    TooDeep(EnvironmentName),
    #[error(
        "`{environment}` would take variables and secrets from `{source_of}`, and whatever is deployed to `{environment}`, \
         which nobody approves, could read them: allow it (`--allow`) if that is meant"
    )]
    Exposed { environment: EnvironmentName, source_of: EnvironmentName },
    #[error("`{0}` is a built-in environment and stays: aliases find it by their names")]
    Fixed(EnvironmentName),
    #[error("environment `{name}` is in use by {}: move or delete that first", by.join(", "))]
    InUse { name: EnvironmentName, by: Vec<String> },
}

/// Names with another meaning wherever an environment or its alias is named.
const RESERVED: [&str; 5] = ["all", "compare", "live", "none", "rollback"];

/// Parent and protection of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentLink {
    /// Environment whose variables apply where this one sets none.
    pub parent: Option<EnvironmentName>,
    /// Whether new versions in it need approval.
    pub protected: bool,
}

/// Every environment, by name.
pub type EnvironmentLinks = BTreeMap<EnvironmentName, EnvironmentLink>;

/// Checks the name of a new environment against the existing ones.
pub fn check_new(links: &EnvironmentLinks, name: &EnvironmentName) -> Result<(), EnvironmentError> {
    if let Some(taken) = links.keys().find(|it| it.as_str().eq_ignore_ascii_case(name.as_str())) {
        return Err(EnvironmentError::Taken(taken.clone()));
    }
    if RESERVED.iter().any(|it| it.eq_ignore_ascii_case(name.as_str())) {
        return Err(EnvironmentError::Reserved(name.clone()));
    }
    // This is not a rule of the name's type because a node may have an older environment with such a name.
    if name.as_str().starts_with('-') {
        return Err(EnvironmentError::Dash(name.clone()));
    }
    if links.len() >= ENVIRONMENTS_MAX { Err(EnvironmentError::TooMany) } else { Ok(()) }
}

/// Returns the environments that one takes variables from, the nearest first. A cycle ends the list.
pub fn ancestors<'a>(links: &'a EnvironmentLinks, name: &EnvironmentName) -> Vec<&'a EnvironmentName> {
    let mut found: Vec<&EnvironmentName> = Vec::new();
    let mut next = links.get(name).and_then(|it| it.parent.as_ref());
    while let Some(parent) = next {
        let is_known = found.contains(&parent);
        found.push(parent);
        if is_known || parent == name {
            break;
        }
        next = links.get(parent).and_then(|it| it.parent.as_ref());
    }
    found
}

/// Returns a protected environment that sees variables set for `environment`, or for all environments if that is
/// absent: the environment itself, or one that takes variables from it.
#[must_use]
pub fn guarded<'a>(links: &'a EnvironmentLinks, environment: Option<&EnvironmentName>) -> Option<&'a EnvironmentName> {
    let finds = |name| environment.is_none_or(|it| it == name || ancestors(links, name).contains(&it));
    links.iter().find(|(name, link)| link.protected && finds(name)).map(|(name, _)| name)
}

/// Refuses cycles and chains of parents that are too long. Unless `allow` is set, also refuses a change by which an
/// unprotected environment takes variables from `production` or a protected environment.
pub fn check_change(before: &EnvironmentLinks, after: &EnvironmentLinks, allow: bool) -> Result<(), EnvironmentError> {
    for name in after.keys() {
        let line = ancestors(after, name);
        if line.contains(&name) {
            return Err(EnvironmentError::Cycle(name.clone()));
        }
        if line.len() > ANCESTORS_MAX {
            return Err(EnvironmentError::TooDeep(name.clone()));
        }
    }
    let known = exposures(before);
    match exposures(after).into_iter().find(|it| !allow && !known.contains(it)) {
        Some((environment, source_of)) => {
            Err(EnvironmentError::Exposed { environment: environment.clone(), source_of: source_of.clone() })
        }
        None => Ok(()),
    }
}

/// Pairs of an unprotected environment and a guarded ancestor: a protected one, or `production`.
fn exposures(links: &EnvironmentLinks) -> BTreeSet<(&EnvironmentName, &EnvironmentName)> {
    let is_guarded = |name: &EnvironmentName| name.is_production() || links.get(name).is_some_and(|it| it.protected);
    let open = links.iter().filter(|(_, link)| !link.protected);
    open.flat_map(|(name, _)| ancestors(links, name).into_iter().map(move |above| (name, above)))
        .filter(|(_, above)| is_guarded(above))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> EnvironmentName {
        text.parse().expect("a name")
    }

    /// Parses `name`, `name<parent` and, for protected environments, `name!`.
    fn links(words: &str) -> EnvironmentLinks {
        let link = |word: &str| {
            let (own, parent) = word.split_once('<').map_or((word, None), |(own, parent)| (own, Some(name(parent))));
            (name(own.trim_end_matches('!')), EnvironmentLink { parent, protected: own.ends_with('!') })
        };
        words.split(' ').map(link).collect()
    }

    fn change(before: &str, after: &str, allow: bool) -> Result<(), String> {
        check_change(&links(before), &links(after), allow).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn parents_go_in_no_circle_and_not_too_far() {
        assert_eq!(change("a b c", "a<b b<c c", false), Ok(()));
        for circle in ["a<a b c", "a<b b<a c", "a<b b<c c<a"] {
            assert!(change("a b c", circle, true).is_err_and(|it| it.starts_with("Cycle")), "{circle}");
        }
        let line = |count: usize| (1..=count).map(|it| format!(" e{it}<e{}", it - 1)).collect::<String>();
        assert_eq!(change("e0", &format!("e0{}", line(ANCESTORS_MAX)), false), Ok(()));
        let outcome = change("e0", &format!("e0{}", line(ANCESTORS_MAX + 1)), true);
        assert!(outcome.is_err_and(|it| it.starts_with("TooDeep")));
    }

    #[test]
    fn what_nobody_guards_sees_no_guarded_variables_unless_that_is_allowed() {
        let all = "dev preview production staging vault!";
        for (after, is_open) in [
            ("dev<staging preview production staging vault!", true),
            ("dev preview<production production staging vault!", false),
            ("dev preview<vault production staging vault!", false),
            ("dev<staging preview production staging<production vault!", false),
            ("dev!<vault preview production staging vault!", true),
            ("dev preview production staging vault!<production", true),
        ] {
            assert_eq!(change(all, after, false).is_ok(), is_open, "{after}");
            assert_eq!(change(all, after, true), Ok(()), "{after}");
        }
        // The exposure passes through an existing parent.
        let (before, after) = ("preview<vault production vault!", "preview<vault production vault!<production");
        let outcome = change(before, after, false);
        assert!(outcome.is_err_and(|it| it.contains("preview") && it.contains("production")));
        // An exposure that already exists does not block unrelated changes.
        assert_eq!(change("preview<production production", "preview<production production x", false), Ok(()));
    }

    #[test]
    fn what_a_protected_environment_finds_is_guarded() {
        let links = links("base vault!<base under<vault dev");
        let by = |environment: Option<&str>| guarded(&links, environment.map(name).as_ref()).map(ToString::to_string);
        for (environment, is_guarded) in
            [(Some("vault"), true), (Some("base"), true), (None, true), (Some("under"), false), (Some("dev"), false)]
        {
            assert_eq!(by(environment).as_deref(), is_guarded.then_some("vault"), "{environment:?}");
        }
        assert_eq!(guarded(&self::links("base dev<base"), None), None);
    }

    #[test]
    fn names_are_told_apart_whatever_their_case() {
        let there = links("production staging");
        assert_eq!(check_new(&there, &name("qa")), Ok(()));
        assert_eq!(check_new(&there, &name("Staging")), Err(EnvironmentError::Taken(name("staging"))));
        assert_eq!(check_new(&there, &name("All")), Err(EnvironmentError::Reserved(name("All"))));
        assert_eq!(check_new(&there, &name("-x")), Err(EnvironmentError::Dash(name("-x"))));
        let many = (0..ENVIRONMENTS_MAX).map(|it| format!("e{it}")).collect::<Vec<_>>().join(" ");
        assert_eq!(check_new(&links(&many), &name("qa")), Err(EnvironmentError::TooMany));
    }
}
