//! Known holes: attempts that should be stopped and are not yet.
//!
//! The table states the goal. An entry here keeps a known hole from failing the tests, and is listed below the table in
//! the document; once the hole is closed, the tests demand the removal of its entry.

use super::{
    outcome::Level::{self, Landlock, Off},
    scene::Identity::{self, Ordinary, Root},
    table,
};

struct Hole {
    /// Names of the attempts in the table.
    what: &'static [&'static str],
    levels: &'static [Level],
    daemons: &'static [Identity],
    why: &'static str,
}

const HOLES: &[Hole] = &[
    Hole { what: &["becomes root"], levels: &[Landlock], daemons: &[Root], why: "it is root, without capabilities" },
    Hole {
        what: &["connects to it, its network having been turned off while it ran"],
        levels: &[Off],
        daemons: &[Root],
        why: "its new workers do not start without a sandbox, and so the old one stays",
    },
];

/// Whether an attempt is known to succeed where it should fail.
pub fn is_open(what: &str, level: Level, identity: Identity) -> bool {
    let is_it = |hole: &&Hole| hole.what.contains(&what) && hole.levels.contains(&level);
    HOLES.iter().filter(is_it).any(|hole| hole.daemons.contains(&identity))
}

/// Formats the list for the document, below the table.
pub fn markdown() -> String {
    if HOLES.is_empty() {
        return String::new();
    }
    let mut text = "\nNot as the table says yet:\n\n".to_owned();
    for Hole { what, levels, daemons, why } in HOLES {
        let levels: Vec<_> = levels.iter().map(|level| format!("`{}`", level.name())).collect();
        let who = match daemons {
            [Root] => ", the daemon being root",
            [Ordinary] => ", the daemon being an ordinary user",
            _ => "",
        };
        text += &format!(
            "- **possible** at {}{who}: it {}. This is so because {why}.\n",
            levels.join(", "),
            what.join("; ")
        );
    }
    text
}

#[test]
fn what_is_open_is_in_the_table() {
    let attacks = table::attacks();
    for name in HOLES.iter().flat_map(|hole| hole.what) {
        assert!(attacks.iter().any(|attack| attack.what == *name), "{name}");
    }
}
