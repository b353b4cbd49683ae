//! Chooses which of an alias's two versions answers an invocation.

use super::entry::{Alias, Entry, shown};
use crate::{
    error::{Error, ErrorCode},
    model::{FunctionId, Split, Sticky, VersionId},
    protocol::field::Fields,
};
use http::HeaderMap;
use serde_json::json;
use sha2::{Digest, Sha256};

/// Request header in which a caller names the version that must answer, by label or number.
pub const PIN_HEADER: &str = "x-levain-version";

/// Headers of an invocation, from any protocol.
pub trait CallHeaders {
    /// Returns the first value of a header; names are compared case-insensitively.
    fn first(&self, name: &str) -> Option<&str>;

    /// Returns the result of `find` for the first cookie, over all headers, for which it returns one.
    fn find_cookie<'a>(&'a self, find: &dyn Fn(&'a str) -> Option<&'a str>) -> Option<&'a str>;
}

impl CallHeaders for Fields {
    fn first(&self, name: &str) -> Option<&str> {
        self.get(name)
    }

    fn find_cookie<'a>(&'a self, find: &dyn Fn(&'a str) -> Option<&'a str>) -> Option<&'a str> {
        self.all("cookie").flat_map(|it| it.split(';')).find_map(find)
    }
}

impl CallHeaders for HeaderMap {
    fn first(&self, name: &str) -> Option<&str> {
        self.get(name)?.to_str().ok()
    }

    fn find_cookie<'a>(&'a self, find: &dyn Fn(&'a str) -> Option<&'a str>) -> Option<&'a str> {
        let values = self.get_all(http::header::COOKIE).iter().filter_map(|it| it.to_str().ok());
        values.flat_map(|it| it.split(';')).find_map(find)
    }
}

/// Returns the version for an invocation without [`PIN_HEADER`].
///
/// An identified caller stays with its version while the share grows: its point depends only on the function and the
/// caller. All other invocations are drawn at random.
pub(super) fn choose<H: CallHeaders>(
    function: FunctionId,
    alias: &Alias,
    split: &Split,
    headers: Option<&H>,
) -> VersionId {
    let caller = alias.sticky.as_ref().zip(headers).and_then(|(sticky, headers)| caller(sticky, headers));
    let point = caller.map_or_else(fastrand::f64, |caller| point_of(function, caller));
    if split.weight.covers(point) { split.version_id } else { alias.version }
}

/// Returns the value that identifies this caller.
fn caller<'a, H: CallHeaders>(sticky: &Sticky, headers: &'a H) -> Option<&'a str> {
    let value = match sticky {
        Sticky::Header(name) => headers.first(name),
        Sticky::Cookie(name) => headers.find_cookie(&|pair| {
            let (key, value) = pair.split_once('=')?;
            (key.trim() == name).then_some(value)
        }),
    };
    value.map(str::trim).filter(|it| !it.is_empty())
}

/// Returns a caller's point in the range 0.0 to 1.0. It differs between functions; otherwise the same people would be
/// the first to see every new version.
fn point_of(function: FunctionId, caller: &str) -> f64 {
    let hash = Sha256::new().chain_update(function.to_bytes()).chain_update(caller).finalize();
    let mut leading = [0; 4];
    leading.copy_from_slice(&hash[..4]);
    f64::from(u32::from_be_bytes(leading)) / (f64::from(u32::MAX) + 1.0)
}

/// Returns the target of an alias that has this label or number.
pub(super) fn pinned(entry: &Entry, alias: &Alias, name: &str) -> Result<VersionId, Error> {
    let mut targets = alias.targets().filter_map(|(id, _)| entry.version(id));
    targets.find(|version| version.is_called(name)).map(|it| it.id).ok_or_else(|| not_among(entry, alias, name))
}

fn not_among(entry: &Entry, alias: &Alias, name: &str) -> Error {
    let targets: Vec<&str> =
        alias.targets().filter_map(|(id, _)| entry.version(id)).map(|it| it.label.as_str()).collect();
    let (function, shown) = (&entry.function.name, shown(name));
    let message = format!(
        "{PIN_HEADER} asks for `{shown}`, and {} of `{function}` sends calls to {} only; call `{function}:{shown}` for \
         any other version",
        alias.name,
        targets.join(" and "),
    );
    Error::new(ErrorCode::VersionNotFound, message).with_details(json!({ "versions": targets }))
}

/// Returns the error for an invocation that names one version in its qualifier and another in its header.
pub(super) fn contradicts(entry: &Entry, name: &str) -> Error {
    let (function, shown) = (&entry.function.name, shown(name));
    Error::invalid(format!(
        "{PIN_HEADER} asks for `{shown}`, and the qualifier for another version of `{function}`: leave one of them out"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Fields {
        Fields(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn callers_are_told_apart_by_a_header_or_a_cookie() {
        let fields = headers(&[("X-User", " ann "), ("Cookie", "a=1; sid=42"), ("cookie", "late=7;empty=")]);
        let found = |sticky: &str| caller(&sticky.parse().expect("a sticky"), &fields);
        assert_eq!(found("header:x-user"), Some("ann"));
        assert_eq!(found("cookie:sid"), Some("42"));
        assert_eq!(found("cookie:late"), Some("7"));
        assert_eq!(found("cookie:SID"), None, "cookie names are case-sensitive");
        assert_eq!(found("cookie:empty"), None);
        assert_eq!(found("header:x-other"), None);
    }

    #[test]
    fn callers_spread_evenly_and_differently_for_each_function() {
        let (one, other) = (FunctionId::new(), FunctionId::new());
        let callers: Vec<String> = (0..10_000).map(|it| format!("user-{it}")).collect();
        let first = |function| callers.iter().filter(|it| point_of(function, it) < 0.1).collect::<Vec<_>>();
        for function in [one, other] {
            // Four standard deviations of 10,000 draws with 10 % each.
            assert!((880..=1_120).contains(&first(function).len()), "{}", first(function).len());
        }
        let both = first(one).into_iter().filter(|it| point_of(other, it) < 0.1).count();
        assert!(both < 160, "{both} callers of two functions are among the first tenth of both");
    }
}
