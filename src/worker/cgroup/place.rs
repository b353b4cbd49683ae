//! Finds this process among the control groups, from the contents of `/proc`. Pure.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
};

/// Directories of the groups that this process is in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CgroupPaths {
    /// One group for each mounted hierarchy of version 1.
    pub(super) v1: Vec<V1Place>,
    /// The group of version 2, if it is mounted.
    pub(super) v2: Option<V2Place>,
}

/// A group of version 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct V1Place {
    /// Names of the hierarchy's controllers.
    pub(super) controllers: Vec<String>,
    pub(super) directory: PathBuf,
}

/// A group of version 2.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct V2Place {
    pub(super) directory: PathBuf,
    /// Whether this is the root as far as this process can see: the machine's, or that of its container.
    pub(super) is_root: bool,
}

/// One line of `/proc/self/mountinfo`.
struct MountInfo<'a> {
    /// The group seen at `point`; not the root where a container gets a part of the hierarchy.
    root: PathBuf,
    point: PathBuf,
    is_read_only: bool,
    kind: &'a str,
    /// Comma-separated; names the controllers of a hierarchy of version 1.
    options: &'a str,
}

impl CgroupPaths {
    /// Parses `/proc/self/mountinfo` and `/proc/self/cgroup`. Malformed lines are skipped.
    pub(super) fn parse(mountinfo: &str, membership: &str) -> Self {
        let mounts: Vec<_> = mountinfo.lines().filter_map(MountInfo::parse).collect();
        let mut places = Self::default();
        for line in membership.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
            let names: Vec<String> = controllers.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
            let belongs = |mount: &&MountInfo<'_>| match names.first() {
                None => mount.kind == "cgroup2",
                Some(name) => mount.kind == "cgroup" && mount.options.split(',').any(|it| it == name),
            };
            // A hierarchy may be mounted more than once; in a container, one of the mounts is mostly read-only.
            let seen = mounts.iter().filter(belongs);
            let reachable = seen.filter_map(|mount| Some((mount.is_read_only, mount.directory(Path::new(group))?)));
            let Some((_, directory)) = reachable.min_by_key(|(is_read_only, _)| *is_read_only) else { continue };
            if names.is_empty() {
                places.v2 = Some(V2Place { directory, is_root: group == "/" });
            } else {
                places.v1.push(V1Place { controllers: names, directory });
            }
        }
        places
    }
}

impl<'a> MountInfo<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // Any number of optional fields precede the dash.
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point, flags) = (left.next()?, left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, _source, options) = (right.next()?, right.next()?, right.next()?);
        let is_read_only = flags.split(',').any(|it| it == "ro");
        Some(Self { root: unescaped(root), point: unescaped(point), is_read_only, kind, options })
    }

    /// Returns the directory of a group as seen through this mount.
    fn directory(&self, group: &Path) -> Option<PathBuf> {
        let below = group.strip_prefix(&self.root).ok()?;
        // A group outside the part that a container sees is given as `/../…`.
        if below.components().any(|it| it == Component::ParentDir) {
            return None;
        }
        Some(self.point.components().chain(below.components()).collect())
    }
}

/// Decodes a path, in which the kernel writes blanks and backslashes as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|it| std::str::from_utf8(it).ok());
        let escaped = digits.filter(|_| byte == b'\\').and_then(|it| u8::from_str_radix(it, 8).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v1(controllers: &[&str], directory: &str) -> V1Place {
        V1Place { controllers: controllers.iter().map(|it| (*it).to_owned()).collect(), directory: directory.into() }
    }

    #[test]
    fn hierarchies_of_version_1_are_found_whatever_they_are_called() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            39 31 0:36 / /my\\040groups/pids rw - cgroup none rw,pids\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            nonsense\n";
        let groups = "9:name=systemd:/\n8:pids:/\n4:memory:/a:b/c\n2:cpu,cpuacct:/\n1:blkio:/\n0::/\n";
        let places = CgroupPaths::parse(mounts, groups);
        assert_eq!(places.v2, None);
        let expected = [
            v1(&["name=systemd"], "/sys/fs/cgroup/systemd"),
            v1(&["pids"], "/my groups/pids"),
            v1(&["memory"], "/sys/fs/cgroup/memory/a:b/c"),
            v1(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct"),
        ];
        assert_eq!(places.v1, expected);
    }

    #[test]
    fn a_container_sees_a_part_of_the_hierarchy() {
        // The container's part is mounted, and the path is the machine's.
        let part = "9 8 0:1 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let directory = |groups| CgroupPaths::parse(part, groups).v1.pop().map(|it| it.directory);
        assert_eq!(directory("4:memory:/docker/abc\n"), Some("/sys/fs/cgroup/memory".into()));
        assert_eq!(directory("4:memory:/docker/abc/x\n"), Some("/sys/fs/cgroup/memory/x".into()));
        assert_eq!(directory("4:memory:/docker/abcd\n"), None);
        // A namespace of control groups: the path is relative to it, or cannot be reached at all.
        let whole = "9 8 0:1 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n10 8 0:1 / /rw rw - cgroup2 cgroup rw\n";
        let v2 = |groups| CgroupPaths::parse(whole, groups).v2;
        assert_eq!(v2("0::/\n"), Some(V2Place { directory: "/rw".into(), is_root: true }));
        assert_eq!(v2("0::/x\n"), Some(V2Place { directory: "/rw/x".into(), is_root: false }));
        assert_eq!(v2("0::/../other\n"), None);
    }
}
