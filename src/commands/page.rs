//! Pages of a list: how many rows one answer has, and where the next one goes on.
//!
//! A cursor names the last row of a page by the list's sort key, so that rows that are added meanwhile neither come
//! twice nor push others out. It is opaque to clients.

use super::Context;
use crate::error::Error;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

/// Maximum rows of one answer.
pub(super) const PAGE_MAX: u32 = 1_000;

/// Maximum bytes of one answer, which its last row may exceed; half a frame if that is less.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Page that a request asks for.
#[derive(Debug)]
pub(super) struct Page<K> {
    list: &'static str,
    /// Key of the last row before the page.
    pub(super) after: Option<K>,
    /// Maximum rows of the page.
    pub(super) limit: u32,
    bytes_max: usize,
}

/// Page fields of a request.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) limit: Option<u32>,
    pub(super) offset: Option<u32>,
    pub(super) cursor: Option<&'a str>,
}

impl<K: Serialize + DeserializeOwned> Page<K> {
    /// Creates a page. `list` tells the cursors of one list from those of another.
    pub(super) fn new(
        context: &Context,
        list: &'static str,
        asked: &Asked<'_>,
        (default, max): (u32, u32),
    ) -> Result<Self, Error> {
        let limit = asked.limit.unwrap_or(default);
        if !(1..=max).contains(&limit) {
            return Err(Error::invalid(format!("limit is {limit}: it must be from 1 to {max}")));
        }
        if asked.cursor.is_some() && asked.offset.is_some() {
            return Err(Error::invalid("give `cursor` or `offset`, not both"));
        }
        let after = asked.cursor.map(|it| read(list, it)).transpose()?;
        let bytes_max = PAGE_BYTES_MAX.min(context.config.load().limits.frame_bytes_max as usize / 2);
        Ok(Self { list, after, limit, bytes_max })
    }

    /// Takes the rows that fit, out of those behind [`Self::after`], and returns the cursor of the next page if there
    /// are more.
    pub(super) fn fill<R, T: Serialize>(
        &self,
        rows: impl IntoIterator<Item = R>,
        key: impl Fn(&R) -> K,
        make: impl Fn(R) -> T,
    ) -> (Vec<T>, Option<String>) {
        let (mut made, mut bytes, mut last) = (Vec::new(), 0, None);
        for row in rows {
            if made.len() == self.limit as usize || bytes >= self.bytes_max {
                return (made, last.map(|it| self.cursor(&it)));
            }
            let (at, row) = (key(&row), make(row));
            bytes += serde_json::to_vec(&row).map_or(0, |it| it.len());
            made.push(row);
            last = Some(at);
        }
        (made, None)
    }

    /// Cursor of the rows after this key.
    pub(super) fn cursor(&self, key: &K) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&(self.list, key)).unwrap_or_default())
    }
}

fn read<K: DeserializeOwned>(list: &str, cursor: &str) -> Result<K, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let read = bytes.and_then(|it| serde_json::from_slice::<(String, K)>(&it).ok());
    match read {
        Some((of, key)) if of == list => Ok(key),
        _ => Err(Error::invalid(
            "`cursor` is not the `next_cursor` of an earlier page of this list: leave it out for the first one",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: u32, bytes_max: usize) -> Page<u32> {
        Page { list: "numbers", after: None, limit, bytes_max }
    }

    #[test]
    fn a_page_ends_at_its_limit_or_when_it_has_enough_bytes() {
        let rows = || 1..=5_u32;
        for (page, expected) in [(page(2, 100), 2), (page(5, 100), 5), (page(5, 3), 3)] {
            let (made, next) = page.fill(rows(), |it| *it, |it| it);
            assert_eq!(made, (1..=expected).collect::<Vec<_>>());
            assert_eq!(next.is_some(), expected < 5);
            assert!(next.is_none_or(|it| read::<u32>("numbers", &it).is_ok_and(|it| it == expected)));
        }
        let (none, next) = page(2, 0).fill([] as [u32; 0], |it| *it, |it| it);
        assert!(none.is_empty() && next.is_none());
    }

    #[test]
    fn a_cursor_is_for_its_list_alone() {
        let cursor = page(1, 1).cursor(&7);
        assert_eq!(read::<u32>("numbers", &cursor).ok(), Some(7));
        for bad in [cursor.as_str(), "", "x", "%", &cursor[1..]] {
            assert!(read::<String>("numbers", bad).is_err() && read::<u32>("words", bad).is_err(), "{bad}");
        }
    }
}
