//! User numbers for workers: each worker has its own, so that none can signal, trace or read another.

use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    path::Path,
    sync::Arc,
};

/// Numbers that no distribution, container manager or directory service assigns (<https://systemd.io/UIDS-GIDS/>): from
/// 1,879,048,192 to the greatest that is not a negative number.
const UNUSED: Range<u32> = 0x7000_0000..0x7fff_0000;

/// Numbers of one daemon. Several daemons take different ones, unless the hashes of their folders collide.
const COUNT: u32 = 1 << 16;

/// Numbers for such use in a user namespace of the usual size: systemd's dynamic users.
const DYNAMIC: Range<u32> = 61_184..65_520;

/// The user numbers of one daemon.
#[derive(Debug)]
pub(super) struct Users {
    numbers: Range<u32>,
    taken: Mutex<BTreeSet<u32>>,
}

/// A number that is reserved while this value lives.
#[derive(Debug)]
pub(super) struct User {
    number: u32,
    users: Arc<Users>,
}

impl User {
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.users.taken.lock().remove(&self.number);
    }
}

impl Users {
    /// Finds numbers that exist in this process's user namespace, for users and for groups.
    pub(super) fn find(folder: &Path) -> Option<Arc<Self>> {
        let maps = ["uid_map", "gid_map"].map(|name| fs::read_to_string(format!("/proc/self/{name}")).ok());
        let [Some(users), Some(groups)] = maps else { return None };
        let wanted = [preferred(folder), DYNAMIC];
        let numbers = wanted.into_iter().find(|it| is_mapped(&users, it) && is_mapped(&groups, it))?;
        Some(Arc::new(Self { numbers, taken: Mutex::default() }))
    }

    /// Whether a number belongs to this daemon's workers.
    pub(super) fn contain(&self, number: u32) -> bool {
        self.numbers.contains(&number)
    }

    /// Takes a free number; `None` if every number is taken.
    pub(super) fn take(self: &Arc<Self>) -> Option<User> {
        let mut taken = self.taken.lock();
        let number = self.numbers.clone().find(|number| !taken.contains(number))?;
        taken.insert(number);
        Some(User { number, users: Arc::clone(self) })
    }
}

/// Whether this process may set identities in user namespaces and give away files: it is root and has `CAP_CHOWN`,
/// `CAP_SETGID` and `CAP_SETUID`.
pub(super) fn can_be_given() -> bool {
    const WANTED: u64 = 1 | 1 << 6 | 1 << 7;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|it| u64::from_str_radix(it.trim(), 16).ok())
        .is_some_and(|set| set & WANTED == WANTED && nix::unistd::geteuid().is_root())
}

fn preferred(folder: &Path) -> Range<u32> {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    let block = (hasher.finish() % u64::from((UNUSED.end - UNUSED.start) / COUNT)) as u32;
    let start = UNUSED.start + block * COUNT;
    start..start + COUNT
}

/// Whether one line of a map covers all of these numbers: first number inside, first outside, count.
fn is_mapped(map: &str, numbers: &Range<u32>) -> bool {
    map.lines().any(|line| {
        let fields: Vec<u64> = line.split_whitespace().map_while(|it| it.parse().ok()).collect();
        let [first, _, count] = fields[..] else { return false };
        first <= numbers.start.into() && u64::from(numbers.end) <= first + count
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_free_again_when_it_is_dropped() {
        let users = Arc::new(Users { numbers: 10..12, taken: Mutex::default() });
        let (first, second) = (users.take().expect("a number"), users.take().expect("a number"));
        assert_eq!((first.number(), second.number()), (10, 11));
        assert!(users.take().is_none());
        drop(first);
        assert_eq!(users.take().expect("a number").number(), 10);
    }

    #[test]
    fn a_namespace_has_what_one_line_of_its_map_covers() {
        let numbers = preferred(Path::new("/var/lib/levain"));
        assert!(UNUSED.contains(&numbers.start) && numbers.end <= UNUSED.end);
        assert!(is_mapped("         0          0 4294967295\n", &numbers));
        assert!(!is_mapped("         0     100000      65536\n", &numbers));
        assert!(is_mapped("         0     100000      65536\n", &DYNAMIC));
        assert!(!is_mapped("         0       1000          1\n         1     100000      1000\n", &DYNAMIC));
    }
}
