//! Scope of each command, and the function that it is about: the one table that checks and documentation share.

use crate::{model::Scope, protocol::ipc::Request};

/// Requirements of a request on its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs<'a> {
    /// Required scope.
    pub scope: Scope,
    /// Functions that the request is about.
    pub about: About<'a>,
}

/// Functions that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About<'a> {
    /// The function of this id or name; a qualifier may follow after a colon.
    Function(&'a str),
    /// Several functions, one that does not exist yet, or none in particular: not for a token that is for one function.
    All,
}

use About::{All, Function};

fn one_or_all(function_id: Option<&String>) -> About<'_> {
    function_id.map_or(All, |it| Function(it))
}

fn named(function_id: &str) -> About<'_> {
    if function_id.is_empty() { All } else { Function(function_id) }
}

macro_rules! needs {
    ($($variant:ident($request:pat) $scope:ident $(or $other:ident if $other_if:expr)?, $about:expr;)*) => {
        /// Returns what a token must allow for this request. A command that is missing here does not compile.
        #[must_use]
        pub fn needs(request: &Request) -> Needs<'_> {
            match request {
                $(Request::$variant($request) => {
                    #[allow(unused_mut, reason = "most commands need the same scope whatever they say")]
                    let mut scope = Scope::$scope;
                    $(if $other_if {
                        scope = Scope::$other;
                    })?
                    Needs { scope, about: $about }
                })*
            }
        }

        /// Scope of each command, by the name of its request, and the second scope that some of its requests need.
        pub const SCOPES: &[(&str, Scope, Option<Scope>)] =
            &[$((stringify!($variant), Scope::$scope, [$(Some(Scope::$other),)? None][0])),*];
    };
}

needs! {
    Invoke(it) Invoke, Function(&it.function_id);

    GetLogs(it) Read, named(&it.function_id);
    GetMetrics(it) Read, Function(&it.function_id);
    Versions(it) Read, Function(&it.function_id);
    List(_) Read, All;
    Get(it) Read, Function(&it.function_id);
    GetVersion(it) Read, Function(&it.function_id);
    Deployments(it) Read, named(&it.function_id);
    Rollouts(it) Read, Function(&it.function_id);
    Environments(_) Read, All;
    GetEnvironment(_) Read, All;
    CompareEnvironments(it) Read, one_or_all(it.function_id.as_ref());
    Previews(it) Read, one_or_all(it.function_id.as_ref());
    Status(_) Read, All;
    Cancel(_) Read, All;
    Aliases(it) Read, Function(&it.function_id);
    Compare(it) Read, Function(&it.function_id);
    // A manifest that a deployment has left may contain other functions.
    ExportManifest(it) Read, if it.deployment_id.is_some() { All } else { one_or_all(it.function_id.as_ref()) };

    ListVariables(it) Read, one_or_all(it.function_id.as_ref());
    SecretGenerations(it) Read, one_or_all(it.function_id.as_ref());

    Register(_) Deploy, All;
    // A path is read with the rights of the daemon, which reach the folder of its tokens, for one.
    Deploy(it) Deploy or Admin if it.bundle_path.is_some(), Function(&it.function_id);
    DeleteVersion(it) Deploy, Function(&it.function_id);
    Warmup(it) Deploy, Function(&it.function_id);
    Rollback(it) Deploy, Function(&it.function_id);
    SetAlias(it) Deploy, Function(&it.function_id);
    DeleteAlias(it) Deploy, Function(&it.function_id);
    SetTraffic(it) Deploy, Function(&it.function_id);
    Promote(it) Deploy, Function(&it.function_id);
    PromoteAll(_) Deploy, All;
    DeletePreview(it) Deploy, one_or_all(it.function_id.as_ref());
    CleanupPreviews(it) Deploy, one_or_all(it.function_id.as_ref());
    SetPolicy(it) Deploy or Read if it.show, Function(&it.function_id);
    StartRollout(it) Deploy, Function(&it.function_id);
    ControlRollout(it) Deploy, Function(&it.function_id);
    TagVersion(it) Deploy, Function(&it.function_id);
    ApplyManifest(_) Deploy, All;
    Cleanup(it) Deploy, one_or_all(it.function_id.as_ref());

    // A deployer cannot change what is for all functions. The store also refuses a deployer what a protected
    // environment finds.
    SetVariables(it) Deploy or Admin if it.function_id.is_none(), one_or_all(it.function_id.as_ref());
    DeleteVariables(it) Deploy or Admin if it.function_id.is_none(), one_or_all(it.function_id.as_ref());

    // Settings keep a function within bounds: among them who may invoke it, and what it reaches.
    Update(it) Admin, Function(&it.function_id);
    Delete(it) Admin, Function(&it.function_id);
    // A deployer does not approve.
    CreateEnvironment(_) Admin, All;
    SetEnvironment(_) Admin, All;
    DeleteEnvironment(_) Admin, All;
    Decide(_) Admin, All;
    CreateToken(_) Admin, All;
    ListTokens(_) Admin, All;
    RevokeToken(_) Admin, All;
    Backup(_) Admin, All;
    SecretAudit(_) Admin, All;
    RotateMasterKey(_) Admin, All;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{
        DeployRequest, DeploymentsRequest, ExportManifestRequest, LogsRequest, SetPolicyRequest,
    };

    #[test]
    fn what_a_request_says_may_need_more_or_less() {
        let deploy = |path: Option<&str>| {
            let bundle_path = path.map(str::to_owned);
            let request = DeployRequest { function_id: "f".into(), bundle_path, ..DeployRequest::default() };
            needs(&Request::Deploy(request)).scope
        };
        assert_eq!((deploy(None), deploy(Some("/var/lib/levain"))), (Scope::Deploy, Scope::Admin));
        let policy = |show| needs(&Request::SetPolicy(SetPolicyRequest { show, ..SetPolicyRequest::default() })).scope;
        assert_eq!((policy(false), policy(true)), (Scope::Deploy, Scope::Read));
    }

    #[test]
    fn what_names_no_function_is_about_all() {
        let requests = [
            Request::GetLogs(LogsRequest::default()),
            Request::Deployments(DeploymentsRequest::default()),
            Request::ExportManifest(ExportManifestRequest::default()),
            Request::ExportManifest(ExportManifestRequest {
                function_id: Some("f".into()),
                deployment_id: Some("deploy-1".into()),
            }),
        ];
        for request in requests {
            assert_eq!(needs(&request).about, All, "{request:?}");
        }
    }
}
