//! Routes: which method and path runs which command.

use super::{CREATED, shape::Shape};
use crate::{error::Error, protocol::ipc::COMMANDS};
use http::{Method, StatusCode};
use serde_json::{Map, Value};

/// One method on one path.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    /// Path; each placeholder in braces is a field of the command.
    pub(super) path: &'static str,
    /// Name of the command.
    pub(super) command: &'static str,
    /// Status of a successful answer.
    pub(super) status: StatusCode,
    /// Fields with values that the path implies.
    pub(super) with: &'static [(&'static str, bool)],
    pub(super) shape: Shape,
}

const fn route(method: &'static str, path: &'static str, command: &'static str) -> Route {
    Route { method, path, command, status: StatusCode::OK, with: &[], shape: Shape::Own }
}

impl Route {
    const fn created(self) -> Self {
        Self { status: CREATED, ..self }
    }

    const fn shaped(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    const fn with(self, with: &'static [(&'static str, bool)]) -> Self {
        Self { with, ..self }
    }

    /// Returns the command's byte.
    pub(super) fn byte(&self) -> u8 {
        COMMANDS.iter().find(|it| it.name == self.command).map_or(0, |it| it.byte)
    }
}

/// Every route. A literal path goes before one with a placeholder in the same position.
pub(super) static ROUTES: &[Route] = &[
    route("GET", "/api/status", "STATUS"),
    route("GET", "/api/functions", "LIST_FUNCTIONS"),
    route("POST", "/api/functions", "REGISTER_FUNCTION").created(),
    route("POST", "/api/functions/deploy", "DEPLOY_FUNCTION").created().shaped(Shape::Deploy),
    route("GET", "/api/functions/{function_id}", "GET_FUNCTION"),
    route("PATCH", "/api/functions/{function_id}", "UPDATE_FUNCTION"),
    route("DELETE", "/api/functions/{function_id}", "DELETE_FUNCTION"),
    route("POST", "/api/functions/{function_id}/deploy", "DEPLOY_FUNCTION").created().shaped(Shape::Deploy),
    route("POST", "/api/functions/{function_id}/rollback", "ROLLBACK").shaped(Shape::Rollback),
    route("GET", "/api/functions/{function_id}/deployments", "GET_DEPLOYMENTS").shaped(Shape::Deployments),
    route("POST", "/api/functions/{function_id}/invoke", "INVOKE").shaped(Shape::Invoke),
    route("POST", "/api/functions/{function_id}/warmup", "WARMUP_FUNCTION"),
    route("POST", "/api/functions/{function_id}/cleanup", "CLEANUP"),
    route("GET", "/api/functions/{function_id}/logs", "GET_LOGS").with(&[("follow", false)]),
    route("GET", "/api/functions/{function_id}/metrics", "GET_METRICS"),
    route("GET", "/api/functions/{function_id}/versions", "GET_FUNCTION_VERSIONS"),
    route("PATCH", "/api/functions/{function_id}/versions/{version}", "TAG_VERSION"),
    route("DELETE", "/api/functions/{function_id}/versions/{version}", "DELETE_VERSION"),
    route("GET", "/api/functions/{function_id}/compare", "COMPARE_VERSIONS"),
    route("GET", "/api/functions/{function_id}/aliases", "LIST_ALIASES"),
    route("PUT", "/api/functions/{function_id}/aliases/{name}", "SET_ALIAS"),
    route("DELETE", "/api/functions/{function_id}/aliases/{name}", "DELETE_ALIAS"),
    route("PUT", "/api/functions/{function_id}/traffic", "SET_TRAFFIC"),
    route("GET", "/api/functions/{function_id}/policy", "SET_POLICY").with(&[("show", true)]),
    route("PUT", "/api/functions/{function_id}/policy", "SET_POLICY"),
    route("GET", "/api/functions/{function_id}/rollouts", "LIST_ROLLOUTS"),
    route("POST", "/api/functions/{function_id}/rollouts", "START_ROLLOUT").created(),
    route("POST", "/api/functions/{function_id}/rollouts/{action}", "CONTROL_ROLLOUT"),
    route("POST", "/api/functions/{function_id}/promote", "PROMOTE"),
    route("GET", "/api/functions/{function_id}/previews", "LIST_PREVIEWS"),
    route("DELETE", "/api/functions/{function_id}/previews/{name}", "DELETE_PREVIEW"),
    route("GET", "/api/functions/{function_id}/manifest", "EXPORT_MANIFEST"),
    route("GET", "/api/deployments", "GET_DEPLOYMENTS").shaped(Shape::Deployments),
    route("POST", "/api/deployments/{deployment_id}/approve", "DECIDE_DEPLOYMENT").with(&[("approve", true)]),
    route("POST", "/api/deployments/{deployment_id}/reject", "DECIDE_DEPLOYMENT").with(&[("approve", false)]),
    route("GET", "/api/deployments/{deployment_id}/manifest", "EXPORT_MANIFEST"),
    route("GET", "/api/manifest", "EXPORT_MANIFEST"),
    route("POST", "/api/manifest", "APPLY_MANIFEST"),
    route("GET", "/api/backup", "BACKUP").shaped(Shape::Download),
    route("POST", "/api/cleanup", "CLEANUP"),
    route("GET", "/api/environments", "LIST_ENVIRONMENTS"),
    route("POST", "/api/environments", "CREATE_ENVIRONMENT").created(),
    route("GET", "/api/environments/compare", "COMPARE_ENVIRONMENTS"),
    route("GET", "/api/environments/{name}", "GET_ENVIRONMENT"),
    route("PUT", "/api/environments/{name}", "SET_ENVIRONMENT"),
    route("DELETE", "/api/environments/{name}", "DELETE_ENVIRONMENT"),
    route("POST", "/api/promote", "PROMOTE_ALL"),
    route("GET", "/api/previews", "LIST_PREVIEWS"),
    route("POST", "/api/cleanup/previews", "CLEANUP_PREVIEWS"),
    route("DELETE", "/api/previews/{name}", "DELETE_PREVIEW"),
    route("GET", "/api/functions/{function_id}/env", "LIST_VARIABLES"),
    route("POST", "/api/functions/{function_id}/env", "SET_VARIABLES"),
    route("DELETE", "/api/functions/{function_id}/env/{key}", "DELETE_VARIABLES"),
    route("GET", "/api/functions/{function_id}/env/{key}/generations", "SECRET_GENERATIONS"),
    route("GET", "/api/env", "LIST_VARIABLES"),
    route("POST", "/api/env", "SET_VARIABLES"),
    route("DELETE", "/api/env/{key}", "DELETE_VARIABLES"),
    route("GET", "/api/env/{key}/generations", "SECRET_GENERATIONS"),
    route("GET", "/api/secrets/audit", "SECRET_AUDIT"),
    route("POST", "/api/secrets/rotate-master-key", "ROTATE_MASTER_KEY"),
    route("GET", "/api/tokens", "LIST_TOKENS"),
    route("POST", "/api/tokens", "CREATE_TOKEN").created(),
    route("DELETE", "/api/tokens/{token_id}", "REVOKE_TOKEN"),
];

/// Result of looking up a path.
pub(super) enum Found {
    /// A command, and the fields given by the path.
    Route(&'static Route, Map<String, Value>),
    /// The path exists for these other methods.
    OtherMethods(Vec<&'static str>),
    /// No route has this path.
    Nothing,
}

pub(super) fn find(method: &Method, path: &str) -> Found {
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut allowed = Vec::new();
    // A literal path excludes routes with placeholders that would also match it.
    let mut exact = None;
    for route in ROUTES {
        if exact.is_some_and(|it| it != route.path) {
            continue;
        }
        let Some(fields) = fields_of(route.path, path) else { continue };
        if route.path == path {
            exact = Some(route.path);
        }
        if route.method == method.as_str() {
            return Found::Route(route, fields);
        }
        allowed.push(route.method);
    }
    if allowed.is_empty() { Found::Nothing } else { Found::OtherMethods(allowed) }
}

/// Matches a path against a template. Returns the values of the placeholders if it fits.
fn fields_of(template: &str, path: &str) -> Option<Map<String, Value>> {
    let (mut templates, mut parts) = (template.split('/'), path.split('/'));
    let mut fields = Map::new();
    loop {
        match (templates.next(), parts.next()) {
            (None, None) => return Some(fields),
            (Some(template), Some(part)) => match template.strip_prefix('{').and_then(|it| it.strip_suffix('}')) {
                Some(field) => {
                    let value = decode(part).ok().filter(|it| !it.is_empty())?;
                    fields.insert(field.to_owned(), value.into());
                }
                None if template == part => {}
                None => return None,
            },
            _ => return None,
        }
    }
}

/// Decodes the `%XX` of a path or query.
pub(in crate::http) fn decode(text: &str) -> Result<String, Error> {
    let invalid =
        || Error::invalid(format!("`{}` is not valid percent-encoding", text.chars().take(80).collect::<String>()));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = after.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        let digits = digits.filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit())).ok_or_else(invalid)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| invalid())?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_command_has_a_path_and_every_path_a_command() {
        let routed: HashSet<u8> = ROUTES.iter().map(Route::byte).collect();
        assert!(!routed.contains(&0), "a command is misspelt");
        // An HTTP request is cancelled by closing its connection or resetting its stream.
        for command in COMMANDS.iter().filter(|it| it.name != "CANCEL") {
            assert!(routed.contains(&command.byte), "{} has no path", command.name);
        }
        let paths: HashSet<_> = ROUTES.iter().map(|it| (it.method, it.path)).collect();
        assert_eq!(paths.len(), ROUTES.len(), "a path is listed twice");
    }

    /// Keeps the table of `docs/http-api.md` equal to this one.
    #[test]
    fn the_table_of_the_documentation_is_this_reference() {
        let mut table = String::from("| method and path | command | |\n|---|---|---|\n");
        for route in ROUTES {
            let does = COMMANDS.iter().find(|it| it.name == route.command).map_or("", |it| it.does);
            table += &format!("| `{} {}` | `{}` | {does} |\n", route.method, route.path, route.command);
        }
        crate::reference_tests::keep("docs/http-api.md", &[("routes", &table)]);
    }

    /// `docs/http-api.md` shows each route by a `curl` that a test types.
    #[test]
    fn the_documentation_calls_every_route() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/http-api.md");
        let text = std::fs::read_to_string(path).expect("the document is there");
        let calls = text.lines().filter(|it| it.starts_with("curl "));
        let called = calls.filter_map(|line| {
            let path = line.split_once("127.0.0.1:8080")?.1;
            // A shell substitution is one segment of the path.
            let path = match (path.find("$("), path.find(')')) {
                (Some(begin), Some(end)) => format!("{}it{}", &path[..begin], &path[end + 1..]),
                _ => path.to_owned(),
            };
            let path = path.split(['?', ' ', '\'']).next()?;
            let named = line.split_once("-X ").and_then(|it| it.1.split(' ').next());
            let has_body = line.contains(" -d ") || line.contains(" -F ");
            let method = named.unwrap_or(if has_body { "POST" } else { "GET" });
            match find(&method.parse().ok()?, path) {
                Found::Route(route, _) => Some((route.method, route.path)),
                _ => None,
            }
        });
        let called: HashSet<_> = called.collect();
        let missing: Vec<_> = ROUTES.iter().map(|it| (it.method, it.path)).filter(|it| !called.contains(it)).collect();
        assert!(missing.is_empty(), "no curl in docs/http-api.md: {missing:?}");
    }

    #[test]
    fn what_is_written_out_goes_before_a_placeholder() {
        let found = |method: Method, path: &str| match find(&method, path) {
            Found::Route(route, fields) => format!("{} {}", route.command, Value::Object(fields)),
            Found::OtherMethods(allowed) => format!("{allowed:?}"),
            Found::Nothing => "nothing".into(),
        };
        assert_eq!(found(Method::POST, "/api/functions/deploy"), "DEPLOY_FUNCTION {}");
        assert_eq!(found(Method::GET, "/api/functions/deploy"), r#"["POST"]"#);
        assert_eq!(found(Method::GET, "/api/functions/a%20b/"), r#"GET_FUNCTION {"function_id":"a b"}"#);
        let fields = r#"DELETE_VERSION {"function_id":"f","version":"v1"}"#;
        assert_eq!(found(Method::DELETE, "/api/functions/f/versions/v1"), fields);
        assert_eq!(found(Method::GET, "/api/functions//versions"), "nothing");
        assert_eq!(found(Method::GET, "/api/nothing"), "nothing");
    }
}
