//! Query plans: no statement of the store walks through a table that grows.
//!
//! The statements are read from the text of the source files, so that a new one cannot be left out.

use super::*;
use std::collections::HashMap;
use std::fs;

/// Tables that stay small, whatever happens on a node.
const SMALL: [&str; 3] = ["environments", "secret_state", "schema_version"];

/// Statements that walk through a table on purpose, each with the reason: by their beginning, or whole with a `$` at
/// the end.
const ON_PURPOSE: &[(&str, &str)] = &[
    ("SELECT id FROM functions WHERE status <> 'deleted' ORDER BY name", "every function, at the start"),
    ("SELECT functions.id AS id, version FROM functions", "every version, at the start"),
    ("SELECT id, name, secret_hash", "every token, at the start"),
    (
        "SELECT v.key, v.function_id, v.environment, v.value AS plain, v.revision, v.actor, v.created_at, v.updated_at, \
      v.generation AS generation, g.sealed_at, g.value, g.wrapped_key FROM variables v LEFT JOIN secret_generations g \
      ON g.variable_id = v.id AND g.generation = v.generation$",
        "every variable, at the start",
    ),
    ("SELECT v.id, v.function_id, v.environment, v.key, v.generation IS", "every data key, for another master key"),
    ("SELECT id FROM functions WHERE is_provisional = 1", "a partial index has nothing else"),
    ("SELECT CASE WHEN EXISTS (SELECT 1 FROM secret_generations)", "ends at the first row"),
    (
        "SELECT id, function_id, version, number, alias, environment, kind, status, weight, previous_version, actor, \
      reason, build_log, created_at, finished_at, decided_by, decision, decided_at FROM function_deployments WHERE \
      status NOT IN",
        "at the start, from the latest back to its limit",
    ),
    ("SELECT action, at, actor", "at most secrets.audit_rows_max rows"),
    ("DELETE FROM secret_audit", "at most secrets.audit_rows_max rows"),
    ("DELETE FROM idempotency_keys WHERE (actor, key) IN", "at most versioning.idempotency_keys_max rows"),
];

/// Texts for the parts of a statement that are put in when it runs.
const PARTS: [(&str, &str); 6] = [
    ("{}", "id"),
    ("{changes}", ""),
    ("{places}", "?"),
    ("{status}", "status = 'failed' AND"),
    ("{or_never_published}", "OR last_version_number = 0"),
    ("{GOING_ON}", "status IN ('running', 'paused')"),
];

/// The string literals of a source file, without its tests, and those of its constants.
fn literals(source: &str) -> (Vec<String>, HashMap<String, String>) {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let (mut found, mut constants) = (Vec::new(), HashMap::new());
    let mut rest = source;
    while let Some(at) = rest.find(['"', '/']) {
        let (before, tail) = rest.split_at(at);
        if tail.starts_with("//") {
            rest = tail.find('\n').map_or("", |end| &tail[end..]);
            continue;
        }
        if !tail.starts_with('"') || before.ends_with('\'') {
            rest = &tail[1..];
            continue;
        }
        let mut end = 1;
        while !tail[end..].starts_with('"') {
            end += if tail[end..].starts_with('\\') { 2 } else { tail[end..].chars().next().map_or(1, char::len_utf8) };
        }
        // A backslash at the end of a line leaves out the line's end and the blanks that follow.
        let lines = tail[1..end].split("\\\n").map(str::trim_start);
        let text = lines.collect::<String>().replace("\\\"", "\"");
        let declared = before.rsplit_once("const ").and_then(|(_, it)| it.split_once(": &str ="));
        if let Some((name, _)) = declared.filter(|(_, value)| value.trim().is_empty()) {
            constants.insert(name.to_owned(), text.clone());
        }
        found.push(text);
        rest = &tail[end + 1..];
    }
    (found, constants)
}

/// Every statement of the store's source files, with its file.
fn statements() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store");
    let files = fs::read_dir(folder).expect("the sources are there").flatten().map(|it| it.path());
    let mut statements = Vec::new();
    for path in files.filter(|path| path.is_file()) {
        let (found, constants) = literals(&fs::read_to_string(&path).expect("it is text"));
        for mut sql in found {
            let is_sql = ["SELECT ", "UPDATE ", "DELETE ", "INSERT ", "WITH "].iter().any(|it| sql.starts_with(it));
            let is_continued = constants
                .iter()
                .any(|(name, text)| text.starts_with("SELECT ") && sql.starts_with(&format!("{{{name}}}")));
            if !is_sql && !is_continued {
                continue;
            }
            for (name, text) in &constants {
                sql = sql.replace(&format!("{{{name}}}"), text);
            }
            for (part, text) in PARTS {
                sql = sql.replace(part, text);
            }
            statements.push((path.file_name().expect("a file").to_string_lossy().into_owned(), sql));
        }
    }
    statements
}

/// Steps of a statement's plan that walk through a table that grows.
fn walks(connection: &Connection, sql: &str) -> Result<Vec<String>, rusqlite::Error> {
    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let steps = plan.raw_query().mapped(|row| row.get::<_, String>("detail")).collect::<Result<Vec<_>, _>>()?;
    let is_walk = |step: &String| {
        let table = step.strip_prefix("SCAN ").and_then(|it| it.split(' ').next());
        table.is_some_and(|it| it != "CONSTANT" && !it.starts_with('(') && !SMALL.contains(&it))
    };
    Ok(steps.into_iter().filter(is_walk).collect())
}

#[test]
fn no_statement_walks_through_a_table_that_grows() {
    let store = scratch();
    let connection = store.connection.lock();
    let statements = statements();
    assert!(statements.len() > 60, "only {} statements were found", statements.len());
    let (mut wrong, mut used) = (Vec::new(), HashSet::new());
    for (file, sql) in &statements {
        let found = walks(&connection, sql).unwrap_or_else(|error| panic!("{file}: {error}: {sql}"));
        let exception = ON_PURPOSE.iter().find(|(begin, _)| match begin.strip_suffix('$') {
            Some(whole) => sql == whole,
            None => sql.starts_with(begin),
        });
        match exception {
            Some((begin, _)) if !found.is_empty() => drop(used.insert(*begin)),
            _ if !found.is_empty() => wrong.push(format!("{file}: {found:?}: {sql}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "these statements walk through a table:\n{}", wrong.join("\n"));
    let idle: Vec<_> = ON_PURPOSE.iter().filter(|(begin, _)| !used.contains(begin)).collect();
    assert!(idle.is_empty(), "these exceptions are not needed: {idle:?}");
}
