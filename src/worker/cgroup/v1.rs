//! Control groups of version 1: each controller in a hierarchy of its own, or some of them together.

use super::{CgroupVersion, Controllers, Tree, Unavailable, make_probe, place::V1Place};

/// Finds the hierarchies with wanted controllers in which this process can make groups below its own.
///
/// The daemon stays where it is: a group of this version may hold processes and groups at the same time.
pub(super) fn find(places: &[V1Place], name: &str, wanted: Controllers) -> Result<Vec<Tree>, Unavailable> {
    let mut trees = Vec::new();
    let mut failure = Unavailable::NotMounted;
    for place in places {
        let controllers = wanted.among(place.controllers.iter().map(String::as_str));
        if controllers.is_empty() {
            continue;
        }
        match make_probe(&place.directory, name, CgroupVersion::V1, controllers) {
            Ok(tree) => trees.push(tree),
            Err(source) => failure = Unavailable::NotWritable { group: place.directory.clone(), source },
        }
    }
    if trees.is_empty() { Err(failure) } else { Ok(trees) }
}
