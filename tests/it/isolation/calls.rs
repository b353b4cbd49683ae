//! The table of system calls: its form in the document, and the expected result of a walk over all numbers at a level.

use super::outcome::Level;
use levain::worker::{
    launch::landlock_version,
    sandbox::system_calls::{CallGroup, CallVerdict, GROUPS, Processor},
};

/// Number of call numbers in a walk: far more than any kernel has.
const NUMBERS: usize = 1024;

/// From Linux 6.14 on, these calls bypass filters. They end an untraced process with `SIGILL`.
const UNFILTERED: [&str; 2] = ["uprobe", "uretprobe"];

/// Returns a letter for each number: **A**llowed, allowed in **P**art, **R**efused, **H**idden, or **N**ot made. A
/// number without a call is hidden as well. `None` if there are no filters for this processor.
pub fn expected(level: Level) -> Option<String> {
    let processor = Processor::here()?;
    let among_others = level == Level::Landlock;
    let letter = |group: &CallGroup| match group.verdict {
        CallVerdict::RefusedAmongOthers if among_others => 'R',
        CallVerdict::RefusedWithoutTruncateRule if among_others && landlock_version() < 3 => 'R',
        CallVerdict::Allowed | CallVerdict::RefusedAmongOthers | CallVerdict::RefusedWithoutTruncateRule => 'A',
        CallVerdict::Partly => 'P',
        CallVerdict::Refused => 'R',
        CallVerdict::Hidden => 'H',
    };
    let mut letters = vec!['H'; NUMBERS];
    for group in GROUPS {
        for call in group.calls {
            let Some(number) = call.number(processor) else { continue };
            letters[number as usize] = if UNFILTERED.contains(&call.name) { 'N' } else { letter(group) };
        }
    }
    Some(letters.into_iter().collect())
}

/// Formats the table for the document.
pub fn markdown() -> String {
    let mut text = "| | what it is about, and why | calls |\n|---|---|---|\n".to_owned();
    for CallGroup { verdict, reason, calls } in GROUPS {
        let names: Vec<_> = calls.iter().map(|call| format!("`{}`", call.name)).collect();
        text += &format!("| {} | {reason} | {} |\n", name(*verdict), names.join(", "));
    }
    text
}

fn name(verdict: CallVerdict) -> &'static str {
    match verdict {
        CallVerdict::Allowed => "allowed",
        CallVerdict::Partly => "in part",
        CallVerdict::RefusedAmongOthers => "refused at `landlock`",
        CallVerdict::RefusedWithoutTruncateRule => "refused at `landlock` before Linux 6.2",
        CallVerdict::Refused => "refused",
        CallVerdict::Hidden => "hidden",
    }
}
