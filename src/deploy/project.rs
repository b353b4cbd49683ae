//! Decides whether a source is built, and which of its files is the entry. Pure.
//!
//! | requested | files present | action |
//! |---|---|---|
//! | no build | any | use the files as the bundle |
//! | a build | any | build |
//! | no preference | a `bundle` file, or `entry` names one | use the files as the bundle |
//! | no preference | a `package.json` with dependencies or workspaces | build |
//! | no preference | no `entry`, and the file found is in `src` or only `package.json` names it | build |
//! | no preference | any others | use the files as the bundle |

use super::{
    SourceError,
    entry::Candidates,
    names::{BUNDLED_NAME, LOCKFILES, is_bundled, is_code},
};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Fields of a `package.json` that name the file to build, best first; `exports` takes precedence over them.
const ENTRY_FIELDS: [&str; 2] = ["module", "main"];

/// Conditions of `exports` that apply to a function's code, best first.
const CONDITIONS: [&str; 6] = ["bun", "worker", "import", "module", "node", "default"];

/// Deepest nesting of conditions in `exports`.
const CONDITIONS_DEPTH_MAX: usize = 8;

/// Code that has to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// File to build.
    pub entry: String,
    /// Lockfile of the packages to install, if there are any.
    pub lockfile: Option<String>,
    /// Packages for development only, which are not installed.
    pub development: BTreeSet<String>,
    /// Whether all packages come from a registry, so that the `package.json` and lockfile alone determine them.
    pub is_from_registry: bool,
    /// Whether the project has workspaces: packages of its own in folders.
    pub has_workspaces: bool,
}

/// Requested treatment of a source.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// File to import or to build.
    pub entry: Option<String>,
    /// Whether to build; `None` decides by the files.
    pub build: Option<bool>,
}

/// The relevant part of a `package.json`.
#[derive(Debug)]
struct PackageJson(Map<String, Value>);

impl PackageJson {
    fn read(text: &[u8]) -> Result<Self, SourceError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        if text.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(text) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(SourceError::Package("it is not a JSON object".into())),
            Err(error) => Err(SourceError::Package(error.to_string())),
        }
    }

    fn packages<'a>(&'a self, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.0.get(field).and_then(Value::as_object).into_iter().flatten()
    }

    /// Returns the packages to install.
    fn dependencies(&self) -> impl Iterator<Item = (&String, &Value)> {
        ["dependencies", "optionalDependencies", "peerDependencies"].into_iter().flat_map(|it| self.packages(it))
    }

    fn has_workspaces(&self) -> bool {
        self.0.get("workspaces").is_some_and(|it| !it.is_null())
    }

    fn is_from_registry(&self) -> bool {
        let is_version = |value: &Value| {
            let version = value.as_str().unwrap_or("file:");
            version.starts_with("npm:") || !version.contains([':', '/'])
        };
        let plain = ["patchedDependencies", "overrides", "resolutions", "catalog", "catalogs"];
        self.dependencies().all(|(_, version)| is_version(version)) && plain.iter().all(|it| !self.0.contains_key(*it))
    }

    /// Returns the files it names as the entry, best first.
    fn entries(&self) -> Vec<&str> {
        let mut found = Vec::new();
        if let Some(exports) = self.0.get("exports") {
            targets(exports.get(".").unwrap_or(exports), 0, &mut found);
        }
        found.extend(ENTRY_FIELDS.iter().filter_map(|it| self.0.get(*it)?.as_str()));
        found.into_iter().map(|it| it.trim_start_matches("./")).collect()
    }
}

fn targets<'a>(exports: &'a Value, depth: usize, found: &mut Vec<&'a str>) {
    match exports {
        Value::String(target) => found.push(target),
        Value::Object(conditions) if depth < CONDITIONS_DEPTH_MAX => {
            let met = CONDITIONS.iter().filter_map(|it| conditions.get(*it));
            met.for_each(|it| targets(it, depth + 1, found));
        }
        _ => {}
    }
}

/// Use of a source.
#[derive(Debug)]
pub(super) struct SourcePlan {
    /// File to import or to build.
    pub(super) entry: String,
    /// Project to build; `None` if the files are the bundle.
    pub(super) project: Option<Project>,
}

/// Decides about a source with these files and this `package.json`.
pub(super) fn plan(
    names: &BTreeSet<&str>,
    package: Option<&[u8]>,
    wanted: &SourceOptions,
    is_left_out: &dyn Fn(&str) -> bool,
) -> Result<SourcePlan, SourceError> {
    let is_finished = match &wanted.entry {
        Some(entry) => is_bundled(entry),
        None => names.iter().any(|it| is_code(it) && it.rsplit_once('.').is_some_and(|it| it.0 == BUNDLED_NAME)),
    };
    let can_build = wanted.build.unwrap_or(!is_finished);
    let manifest = package.filter(|_| can_build).map(PackageJson::read).transpose()?;
    let has_packages = manifest.as_ref().is_some_and(|it| it.dependencies().next().is_some() || it.has_workspaces());
    let must_build = can_build && (wanted.build.is_some() || has_packages);
    let named = manifest.iter().flat_map(PackageJson::entries).find(|it| is_code(it) && names.contains(it));
    let entry = match &wanted.entry {
        Some(entry) if is_left_out(entry) => return Err(SourceError::LeftOut(entry.clone())),
        Some(entry) => entry.clone(),
        None => Candidates { names, named, must_build, is_left_out }.entry()?,
    };
    if !is_code(&entry) {
        return Err(SourceError::Extension(entry));
    }
    let is_hidden = wanted.entry.is_none() && names.len() > 1 && (entry.contains('/') || named == Some(&*entry));
    let is_built = must_build || (can_build && is_hidden);
    if !is_built {
        return Ok(SourcePlan { entry, project: None });
    }
    if !names.contains(entry.as_str()) {
        return Err(SourceError::EntryMissing(entry));
    }
    let lockfile = LOCKFILES.iter().find(|it| names.contains(**it)).map(|it| (*it).to_owned());
    if has_packages && lockfile.is_none() {
        return Err(SourceError::NoLockfile);
    }
    let project = Project {
        entry: entry.clone(),
        lockfile: lockfile.filter(|_| has_packages),
        development: manifest.iter().flat_map(|it| it.packages("devDependencies")).map(|it| it.0.clone()).collect(),
        is_from_registry: manifest.as_ref().is_none_or(PackageJson::is_from_registry),
        has_workspaces: manifest.as_ref().is_some_and(PackageJson::has_workspaces),
    };
    Ok(SourcePlan { entry, project: Some(project) })
}

#[cfg(test)]
mod tests {
    use super::{super::names::PACKAGE_FILE, *};

    fn plan_of(names: &[&str], package: &str, wanted: &SourceOptions) -> Result<Option<Project>, SourceError> {
        let mut names: BTreeSet<&str> = names.iter().copied().collect();
        let package = Some(package).filter(|it| !it.is_empty());
        names.extend(package.map(|_| PACKAGE_FILE));
        plan(&names, package.map(str::as_bytes), wanted, &|_| false).map(|it| it.project)
    }

    /// Returns the file that is built without a preference; `None` if nothing is built.
    fn auto(names: &[&str], package: &str) -> Option<String> {
        plan_of(names, package, &SourceOptions::default()).expect("a plan").map(|it| it.entry)
    }

    const PACKAGES: &str = r#"{"dependencies":{"zod":"^4.0.0"}}"#;

    #[test]
    fn what_runs_as_it_is_is_not_built() {
        assert_eq!(auto(&["index.ts", "lib.ts"], ""), None);
        assert_eq!(auto(&["main.ts"], ""), None);
        assert_eq!(auto(&["index.ts", "src/index.ts"], r#"{"type":"module","main":"src/index.ts"}"#), None);
        assert_eq!(auto(&["index.ts"], r#"{"dependencies":{},"devDependencies":{"a":"1"}}"#), None);
        assert_eq!(auto(&["bundle.js", "bun.lock"], PACKAGES), None);
        assert_eq!(auto(&["handler.ts", "b.ts"], ""), None);
        assert_eq!(auto(&["index.ts", "src/main.ts"], "{}"), None);
    }

    #[test]
    fn what_has_packages_or_hides_its_entry_is_built() {
        assert_eq!(auto(&["index.ts", "bun.lock"], PACKAGES).as_deref(), Some("index.ts"));
        assert_eq!(auto(&["src/index.ts", "src/lib.ts"], "").as_deref(), Some("src/index.ts"));
        assert_eq!(auto(&["src/main.ts", "src/lib.ts"], "").as_deref(), Some("src/main.ts"));
        assert_eq!(auto(&["app.ts", "src/main.ts"], r#"{"main":"src/main.ts"}"#).as_deref(), Some("src/main.ts"));
        assert_eq!(auto(&["worker.ts", "bun.lock"], PACKAGES).as_deref(), Some("worker.ts"));
        assert_eq!(auto(&["server.tsx", "a.ts"], r#"{"module":"./server.tsx"}"#).as_deref(), Some("server.tsx"));
        let exports =
            r#"{"exports":{".":{"types":"./t.ts","bun":"./src/b.ts","default":"./dist/b.js"}},"main":"a.ts"}"#;
        assert_eq!(auto(&["a.ts", "src/b.ts", "t.ts"], exports).as_deref(), Some("src/b.ts"));
        assert_eq!(auto(&["a.ts", "t.ts"], exports).as_deref(), Some("a.ts"), "a missing file is not built");
        assert_eq!(auto(&["src/index.ts"], r#"{"main":"dist/index.js"}"#).as_deref(), Some("src/index.ts"));
        let workspaces = r#"{"workspaces":["packages/*"]}"#;
        let project = plan_of(&["index.ts", "yarn.lock"], workspaces, &SourceOptions::default()).expect("a plan");
        assert!(project.is_some_and(|it| it.has_workspaces && it.lockfile.as_deref() == Some("yarn.lock")));
    }

    #[test]
    fn a_request_has_the_last_word() {
        let want = |entry: Option<&str>, build| SourceOptions { entry: entry.map(Into::into), build };
        let entry = |names: &[&str], package, wanted: &SourceOptions| {
            plan_of(names, package, wanted).map(|it| it.map(|project| project.entry))
        };
        let off = entry(&["src/index.ts"], PACKAGES, &want(None, Some(false))).expect("a plan");
        assert_eq!(off, None);
        for (names, wanted, expected) in [
            (&["index.ts"][..], want(None, Some(true)), "index.ts"),
            (&["only.ts"], want(None, Some(true)), "only.ts"),
            (&["bundle.js", "x.ts"], want(None, Some(true)), "bundle.js"),
            (&["index.ts", "src/main.ts"], want(Some("src/main.ts"), Some(true)), "src/main.ts"),
        ] {
            assert_eq!(entry(names, "", &wanted).expect("a plan").as_deref(), Some(expected));
        }
        assert!(matches!(entry(&["a.ts", "b.ts"], "", &want(None, Some(true))), Err(SourceError::SeveralEntries(_))));
        assert!(matches!(entry(&["a.ts"], "", &want(Some("b.ts"), Some(true))), Err(SourceError::EntryMissing(_))));
        assert!(matches!(entry(&["a.ts"], "", &want(Some("a.py"), Some(true))), Err(SourceError::Extension(_))));
        let named = entry(&["a.ts", "b.ts", "bun.lock"], PACKAGES, &want(Some("b.ts"), None)).expect("a plan");
        assert_eq!(named.as_deref(), Some("b.ts"));
    }

    #[test]
    fn packages_need_a_lockfile_and_a_package_file_that_can_be_read() {
        assert!(plan_of(&["a.ts"], " \n", &SourceOptions::default()).expect("it is empty").is_none());
        assert!(matches!(plan_of(&["index.ts"], PACKAGES, &SourceOptions::default()), Err(SourceError::NoLockfile)));
        assert!(matches!(plan_of(&["index.ts"], "{", &SourceOptions::default()), Err(SourceError::Package(_))));
        assert!(matches!(plan_of(&["index.ts"], "[]", &SourceOptions::default()), Err(SourceError::Package(_))));
        let off = SourceOptions { build: Some(false), ..SourceOptions::default() };
        assert!(plan_of(&["index.ts"], "{", &off).expect("nobody reads it").is_none());
    }

    #[test]
    fn only_versions_are_from_a_registry() {
        let is_from_registry = |version: &str, more: &str| {
            let package = format!(r#"{{"dependencies":{{"a":"{version}"}}{more}}}"#);
            let project = plan_of(&["index.ts", "bun.lock"], &package, &SourceOptions::default()).expect("a plan");
            project.expect("it is built").is_from_registry
        };
        for version in ["^1.0.0", "1.x || 2", "latest", "npm:b@1.2.0", "npm:@scope/b@1"] {
            assert!(is_from_registry(version, ""), "{version}");
        }
        for version in ["file:./b", "link:b", "workspace:*", "https://x/y.tgz", "owner/repo", "github:a/b"] {
            assert!(!is_from_registry(version, ""), "{version}");
        }
        assert!(!is_from_registry("1", r#","patchedDependencies":{"a@1":"patches/a.patch"}"#));
    }
}
