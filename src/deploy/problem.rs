//! Problems in code, as people read them.

use crate::protocol::worker::CodeProblem;

/// Formats a problem with its place, as compilers do. A problem without a file is in `entry`.
pub(super) fn line(entry: Option<&str>, problem: &CodeProblem) -> String {
    let CodeProblem { message, file, line, column, line_text } = problem;
    let place = match (file.as_deref().or(entry), line, column) {
        (Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}: "),
        (Some(file), Some(line), None) => format!("{file}:{line}: "),
        (Some(file), ..) => format!("{file}: "),
        (None, ..) => String::new(),
    };
    let code = line_text.as_deref().map_or(String::new(), |it| format!("\n  {}", it.trim()));
    format!("{place}{message}{code}")
}

/// Formats the first problem, and counts the others.
pub(super) fn summary(entry: Option<&str>, problems: &[CodeProblem]) -> String {
    let Some(first) = problems.first() else { return "Bun does not say why".into() };
    let more = match problems.len() {
        1 => String::new(),
        count => format!("\n  and {} more", count - 1),
    };
    line(entry, first) + &more
}
