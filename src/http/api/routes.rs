//! Routes: which method and path runs which command.

use super::{
    CREATED,
    answers::{AnswerForm, AnswerTo, Deployed, DeploymentRows, Invoked, RolledBack},
};
use crate::{
    error::Error,
    protocol::{
        ipc::{COMMANDS, CommandRequest, CommandRow},
        message::*,
    },
};
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// One method on one path.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    /// Path; each placeholder in braces is a field of the command.
    pub(super) path: &'static str,
    pub(super) command: &'static CommandRow,
    /// Status of a successful answer.
    pub(super) status: StatusCode,
    /// Fields with values that the path implies.
    pub(super) with: &'static [(&'static str, bool)],
    pub(super) form: RequestForm,
    /// Form of the answer, if it differs from the command's own.
    pub(super) answer: Option<AnswerForm>,
}

/// Form of a request, and of an answer that is a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestForm {
    /// The command's own form.
    Own,
    /// `name` names the function, which is created if need be. The request may be a form with files.
    Deploy,
    /// `body` is any JSON; a text is sent as it is.
    Invoke,
    /// The answer is a file.
    Download,
}

impl RequestForm {
    pub(super) fn makes_functions(self) -> bool {
        self == Self::Deploy
    }
}

/// A route to the command with this request. The macro below calls it by the name of the method.
const fn route<R: CommandRequest>(method: &'static str, path: &'static str) -> Route {
    // The table is in the order of the bytes, which begin with 1.
    let command = &COMMANDS[R::COMMAND as usize - 1];
    Route { method, path, command, status: StatusCode::OK, with: &[], form: RequestForm::Own, answer: None }
}

macro_rules! methods {
    ($($name:ident $method:literal)*) => {
        $(const fn $name<R: CommandRequest>(path: &'static str) -> Route {
            route::<R>($method, path)
        })*
    };
}

methods! { get "GET" post "POST" put "PUT" patch "PATCH" delete "DELETE" }

impl Route {
    const fn created(self) -> Self {
        Self { status: CREATED, ..self }
    }

    const fn takes(self, form: RequestForm) -> Self {
        Self { form, ..self }
    }

    /// Gives the answer the form `F`.
    const fn answers<R: CommandRequest, F: AnswerTo<R>>(self) -> Self {
        Self { answer: Some(AnswerForm::of::<R, F>()), ..self }
    }

    const fn with(self, with: &'static [(&'static str, bool)]) -> Self {
        Self { with, ..self }
    }
}

/// Every route. A literal path goes before one with a placeholder in the same position.
pub(super) static ROUTES: &[Route] = &[
    get::<StatusRequest>("/api/status"),
    get::<ListRequest>("/api/functions"),
    post::<RegisterRequest>("/api/functions").created(),
    post::<DeployRequest>("/api/functions/deploy")
        .created()
        .takes(RequestForm::Deploy)
        .answers::<DeployRequest, Deployed>(),
    get::<GetRequest>("/api/functions/{function_id}"),
    patch::<UpdateRequest>("/api/functions/{function_id}"),
    delete::<DeleteRequest>("/api/functions/{function_id}"),
    post::<DeployRequest>("/api/functions/{function_id}/deploy")
        .created()
        .takes(RequestForm::Deploy)
        .answers::<DeployRequest, Deployed>(),
    post::<RollbackRequest>("/api/functions/{function_id}/rollback").answers::<RollbackRequest, RolledBack>(),
    get::<DeploymentsRequest>("/api/functions/{function_id}/deployments")
        .answers::<DeploymentsRequest, DeploymentRows>(),
    post::<InvokeRequest>("/api/functions/{function_id}/invoke")
        .takes(RequestForm::Invoke)
        .answers::<InvokeRequest, Invoked>(),
    post::<WarmupRequest>("/api/functions/{function_id}/warmup"),
    post::<CleanupRequest>("/api/functions/{function_id}/cleanup"),
    get::<LogsRequest>("/api/functions/{function_id}/logs").with(&[("follow", false)]),
    get::<MetricsRequest>("/api/functions/{function_id}/metrics"),
    get::<VersionsRequest>("/api/functions/{function_id}/versions"),
    get::<VersionRequest>("/api/functions/{function_id}/versions/{version}"),
    patch::<TagVersionRequest>("/api/functions/{function_id}/versions/{version}"),
    delete::<DeleteVersionRequest>("/api/functions/{function_id}/versions/{version}"),
    get::<CompareRequest>("/api/functions/{function_id}/compare"),
    get::<AliasesRequest>("/api/functions/{function_id}/aliases"),
    put::<SetAliasRequest>("/api/functions/{function_id}/aliases/{name}"),
    delete::<DeleteAliasRequest>("/api/functions/{function_id}/aliases/{name}"),
    put::<SetTrafficRequest>("/api/functions/{function_id}/traffic"),
    get::<SetPolicyRequest>("/api/functions/{function_id}/policy").with(&[("show", true)]),
    put::<SetPolicyRequest>("/api/functions/{function_id}/policy"),
    get::<RolloutsRequest>("/api/functions/{function_id}/rollouts"),
    post::<StartRolloutRequest>("/api/functions/{function_id}/rollouts").created(),
    post::<ControlRolloutRequest>("/api/functions/{function_id}/rollouts/{action}"),
    post::<PromoteRequest>("/api/functions/{function_id}/promote"),
    get::<PreviewsRequest>("/api/functions/{function_id}/previews"),
    delete::<DeletePreviewRequest>("/api/functions/{function_id}/previews/{name}"),
    get::<ExportManifestRequest>("/api/functions/{function_id}/manifest"),
    get::<DeploymentsRequest>("/api/deployments").answers::<DeploymentsRequest, DeploymentRows>(),
    post::<DecideRequest>("/api/deployments/{deployment_id}/approve").with(&[("approve", true)]),
    post::<DecideRequest>("/api/deployments/{deployment_id}/reject").with(&[("approve", false)]),
    get::<ExportManifestRequest>("/api/deployments/{deployment_id}/manifest"),
    get::<ExportManifestRequest>("/api/manifest"),
    post::<ApplyManifestRequest>("/api/manifest"),
    get::<BackupRequest>("/api/backup").takes(RequestForm::Download),
    post::<CleanupRequest>("/api/cleanup"),
    get::<LogsRequest>("/api/logs").with(&[("follow", false)]),
    get::<EnvironmentsRequest>("/api/environments"),
    post::<CreateEnvironmentRequest>("/api/environments").created(),
    get::<CompareEnvironmentsRequest>("/api/environments/compare"),
    get::<EnvironmentRequest>("/api/environments/{name}"),
    put::<SetEnvironmentRequest>("/api/environments/{name}"),
    delete::<DeleteEnvironmentRequest>("/api/environments/{name}"),
    post::<PromoteAllRequest>("/api/promote"),
    get::<PreviewsRequest>("/api/previews"),
    post::<CleanupPreviewsRequest>("/api/cleanup/previews"),
    delete::<DeletePreviewRequest>("/api/previews/{name}"),
    get::<ListVariablesRequest>("/api/functions/{function_id}/env"),
    post::<SetVariablesRequest>("/api/functions/{function_id}/env"),
    delete::<DeleteVariablesRequest>("/api/functions/{function_id}/env/{key}"),
    get::<SecretGenerationsRequest>("/api/functions/{function_id}/env/{key}/generations"),
    get::<ListVariablesRequest>("/api/env"),
    post::<SetVariablesRequest>("/api/env"),
    delete::<DeleteVariablesRequest>("/api/env/{key}"),
    get::<SecretGenerationsRequest>("/api/env/{key}/generations"),
    get::<SecretAuditRequest>("/api/secrets/audit"),
    post::<RotateMasterKeyRequest>("/api/secrets/rotate-master-key"),
    get::<ListTokensRequest>("/api/tokens"),
    post::<CreateTokenRequest>("/api/tokens").created(),
    delete::<RevokeTokenRequest>("/api/tokens/{token_id}"),
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
    let is_escape = |after: &str| after.as_bytes().get(..2).is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit));
    let is_valid = text.split('%').skip(1).all(is_escape);
    let decoded = percent_decode_str(text).decode_utf8().ok().filter(|_| is_valid);
    let start = || text.chars().take(80).collect::<String>();
    decoded.map(Cow::into_owned).ok_or_else(|| Error::invalid(format!("`{}` is not valid percent-encoding", start())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_command_has_a_path_and_every_path_a_command() {
        let routed: HashSet<u8> = ROUTES.iter().map(|it| it.command.byte).collect();
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
            let CommandRow { name, does, .. } = route.command;
            table += &format!("| `{} {}` | `{name}` | {does} |\n", route.method, route.path);
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
            Found::Route(route, fields) => format!("{} {}", route.command.name, Value::Object(fields)),
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
