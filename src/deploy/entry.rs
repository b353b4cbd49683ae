//! Finds the entry of a source: the file that is imported, or built. Pure.
//!
//! The first of these that exists is the entry:
//!
//! | order | file |
//! |---|---|
//! | 1 | the `entry` of the request, which this module does not see |
//! | 2 | `bundle`, unless the source is built in any case |
//! | 3 | `index`; before it the file that `package.json` names, if the source is built in any case |
//! | 4 | the file that `package.json` names |
//! | 5 | `src/index` |
//! | 6 | `function`, `handler`, `main`, `app`, `server` or `worker` |
//! | 7 | one of these in `src` |
//! | 8 | the only file, or the only file of code at the top |
//!
//! All but the file that `package.json` names may have any extension of code; with several, the first in the list of
//! [`EXTENSIONS`] counts for `bundle` and `index`. In each of the steps 6 to 8, several files are refused. A file that
//! the ignore rules leave out is not replaced by a file whose name says less.

use super::{
    SourceError,
    names::{BUNDLED_NAME, EXTENSIONS, is_code},
};
use std::collections::BTreeSet;

/// Names of an entry beside `bundle` and `index`, without extension.
const NAMES: [&str; 6] = ["function", "handler", "main", "app", "server", "worker"];

/// Endings, before the extension, of files that accompany the code: declarations, tests, settings of tools.
const COMPANIONS: [&str; 9] = [".d", ".test", "_test", ".spec", "_spec", ".bench", ".stories", ".config", ".setup"];

/// Files of a source, as far as the entry depends on them.
pub(super) struct Candidates<'a> {
    /// Paths of the files, without installed packages.
    pub(super) names: &'a BTreeSet<&'a str>,
    /// File that `package.json` names, if it exists.
    pub(super) named: Option<&'a str>,
    /// Whether the source is built in any case.
    pub(super) must_build: bool,
    /// Whether the ignore rules leave out a file.
    pub(super) is_left_out: &'a dyn Fn(&str) -> bool,
}

impl Candidates<'_> {
    /// Returns the entry.
    pub(super) fn entry(&self) -> Result<String, SourceError> {
        let single = |name: &str| with_extensions(name).find(|it| self.names.contains(it.as_str()));
        let (index, named) = (|| single("index"), || self.named.map(Into::into));
        let known = match self.must_build {
            true => named().or_else(index).or_else(|| single("src/index")).or_else(|| single(BUNDLED_NAME)),
            false => single(BUNDLED_NAME).or_else(index).or_else(named).or_else(|| single("src/index")),
        };
        let at_top = || NAMES.iter().copied().flat_map(with_extensions);
        let in_source = || at_top().map(|it| format!("src/{it}"));
        if let Some(entry) = known {
            return Ok(entry);
        }
        if let Some(entry) = self.only(at_top())?.map_or_else(|| self.only(in_source()), |it| Ok(Some(it)))? {
            return Ok(entry);
        }
        self.refuse_left_out([BUNDLED_NAME, "index"].into_iter().flat_map(with_extensions))?;
        if self.names.is_empty() {
            return Err(SourceError::Empty);
        }
        let is_alone = self.names.len() == 1;
        let code = self.names.iter().filter(|it| is_alone || (!it.contains('/') && is_code(it) && !is_companion(it)));
        if let Some(entry) = self.only(code.map(|it| (*it).to_owned()))? {
            return Ok(entry);
        }
        self.refuse_left_out(with_extensions("src/index").chain(at_top()).chain(in_source()))?;
        Err(SourceError::NoEntry)
    }

    /// Refuses the source if the ignore rules leave out one of these files.
    fn refuse_left_out(&self, mut files: impl Iterator<Item = String>) -> Result<(), SourceError> {
        files.find(|it| (self.is_left_out)(it)).map_or(Ok(()), |it| Err(SourceError::LeftOut(it)))
    }

    /// Returns the one of these files that exists; several are refused.
    fn only(&self, files: impl Iterator<Item = String>) -> Result<Option<String>, SourceError> {
        let mut found: Vec<String> = files.filter(|it| self.names.contains(it.as_str())).collect();
        if found.len() > 1 { Err(SourceError::SeveralEntries(found)) } else { Ok(found.pop()) }
    }
}

fn with_extensions(name: &str) -> impl Iterator<Item = String> {
    EXTENSIONS.iter().map(move |it| format!("{name}.{it}"))
}

fn is_companion(path: &str) -> bool {
    let stem = path.rsplit_once('.').map_or(path, |it| it.0);
    COMPANIONS.iter().any(|it| stem.ends_with(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(names: &[&str]) -> Result<String, SourceError> {
        let names = names.iter().copied().collect();
        Candidates { names: &names, named: None, must_build: false, is_left_out: &|_| false }.entry()
    }

    fn several(names: &[&str]) -> Vec<String> {
        match entry(names) {
            Err(SourceError::SeveralEntries(files)) => files,
            other => panic!("{names:?}: {other:?}"),
        }
    }

    #[test]
    fn every_usual_name_is_found_with_every_extension_at_the_top_and_in_src() {
        for name in ["bundle", "index", "function", "handler", "main", "app", "server", "worker"] {
            for file in with_extensions(name) {
                assert_eq!(entry(&["a.ts", &file, "lib/index.ts", "x.json"]).expect("an entry"), file);
                let below = format!("src/{file}");
                if name != "bundle" {
                    assert_eq!(entry(&["README.md", "package.json", "src/a.ts", &below]).expect("an entry"), below);
                }
            }
        }
    }

    #[test]
    fn the_more_telling_name_comes_first() {
        let ranks = ["bundle.ts", "index.ts", "src/index.ts", "main.ts", "src/app.ts", "x.ts"];
        for first in 0..ranks.len() {
            assert_eq!(entry(&ranks[first..]).expect("an entry"), ranks[first]);
        }
        assert_eq!(entry(&["index.ts", "index.mjs"]).expect("an entry"), "index.mjs");
    }

    #[test]
    fn the_only_file_of_code_at_the_top_is_the_entry_whatever_its_name() {
        assert_eq!(entry(&["hello.ts", "README.md", "data.json", "lib/a.ts"]).expect("an entry"), "hello.ts");
        assert_eq!(entry(&["lib/a.test.ts"]).expect("the only file"), "lib/a.test.ts");
        for beside in ["hello.test.ts", "hello_test.js", "a.spec.tsx", "types.d.ts", "types.d.mts", "vite.config.ts"] {
            assert_eq!(entry(&["hello.ts", beside]).expect("an entry"), "hello.ts");
            assert!(matches!(entry(&["README.md", beside]), Err(SourceError::NoEntry)), "{beside}");
        }
        assert!(matches!(entry(&["README.md", "lib/index.ts"]), Err(SourceError::NoEntry)));
        assert!(matches!(entry(&[]), Err(SourceError::Empty)));
    }

    #[test]
    fn a_test_or_declaration_of_a_usual_name_is_no_entry() {
        assert_eq!(entry(&["index.test.ts", "index.d.ts", "main.ts", "main.test.ts"]).expect("an entry"), "main.ts");
        assert_eq!(entry(&["index.test.ts", "index.config.ts", "hello.ts"]).expect("an entry"), "hello.ts");
    }

    #[test]
    fn names_that_differ_only_in_case_are_different() {
        assert_eq!(entry(&["Handler.ts", "handler.ts"]).expect("an entry"), "handler.ts");
        assert_eq!(entry(&["Index.ts", "index.ts", "INDEX.TS"]).expect("an entry"), "index.ts");
        assert_eq!(entry(&["Main.ts", "README.md"]).expect("the only code"), "Main.ts");
        assert_eq!(several(&["Handler.ts", "HANDLER.ts"]), ["HANDLER.ts", "Handler.ts"]);
    }

    #[test]
    fn several_files_are_refused_by_name() {
        assert_eq!(several(&["app.ts", "server.js", "x.ts"]), ["app.ts", "server.js"]);
        assert_eq!(several(&["main.js", "main.ts"]), ["main.js", "main.ts"]);
        assert_eq!(several(&["src/app.ts", "src/worker.ts", "x.ts"]), ["src/app.ts", "src/worker.ts"]);
        assert_eq!(several(&["a.ts", "b.jsx", "c.test.ts", "lib/d.ts"]), ["a.ts", "b.jsx"]);
    }

    #[test]
    fn a_file_that_is_left_out_is_not_replaced_by_chance() {
        let found = |names: &[&str], left_out: &str| {
            let (names, is_left_out) = (names.iter().copied().collect(), |it: &str| it == left_out);
            Candidates { names: &names, named: None, must_build: false, is_left_out: &is_left_out }.entry()
        };
        let is_left_out = |names: &[&str], left_out: &str| matches!(found(names, left_out), Err(SourceError::LeftOut(name)) if name == left_out);
        assert!(is_left_out(&["hello.ts"], "index.js"));
        assert!(is_left_out(&["README.md", "lib/a.ts"], "src/main.js"));
        assert_eq!(found(&["hello.ts"], "main.js").expect("the only file"), "hello.ts");
        assert_eq!(found(&["hello.ts", "handler.ts"], "index.js").expect("a usual name"), "handler.ts");
    }
}
