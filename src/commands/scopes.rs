//! Which scope each command needs, and which function it is about: the one table that checks and documentation share.

use crate::{model::Scope, protocol::ipc::Request};

/// What a token must allow for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs<'a> {
    /// The scope.
    pub scope: Scope,
    /// The functions.
    pub about: About<'a>,
}

/// The functions that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About<'a> {
    /// The one of this id or name; a qualifier may follow after a colon.
    Function(&'a str),
    /// Several, one that is not there yet, or none in particular: not for a token that is for one function.
    All,
}

use About::{All, Function};

fn one_or_all(function_id: Option<&String>) -> About<'_> {
    function_id.map_or(All, |it| Function(it))
}

macro_rules! needs {
    ($($variant:ident($request:pat) $scope:ident $about:expr;)*) => {
        /// What a token must allow for this request. A command that is missing here does not compile.
        #[must_use]
        pub fn needs(request: &Request) -> Needs<'_> {
            match request {
                $(Request::$variant($request) => Needs { scope: Scope::$scope, about: $about },)*
            }
        }

        /// The scope that each command needs, by the name of its request.
        pub const SCOPES: &[(&str, Scope)] = &[$((stringify!($variant), Scope::$scope)),*];
    };
}

needs! {
    Invoke(it) Invoke Function(&it.function_id);

    GetLogs(it) Read Function(&it.function_id);
    GetMetrics(it) Read Function(&it.function_id);
    Versions(it) Read Function(&it.function_id);
    List(_) Read All;
    Get(it) Read Function(&it.function_id);
    Deployments(it) Read Function(&it.function_id);
    Status(_) Read All;
    Aliases(it) Read Function(&it.function_id);
    Compare(it) Read Function(&it.function_id);
    // A manifest that a deployment has left may tell of other functions.
    ExportManifest(it) Read if it.deployment_id.is_some() { All } else { one_or_all(it.function_id.as_ref()) };

    Register(_) Deploy All;
    Deploy(it) Deploy Function(&it.function_id);
    DeleteVersion(it) Deploy Function(&it.function_id);
    Warmup(it) Deploy Function(&it.function_id);
    Rollback(it) Deploy Function(&it.function_id);
    SetAlias(it) Deploy Function(&it.function_id);
    DeleteAlias(it) Deploy Function(&it.function_id);
    SetTraffic(it) Deploy Function(&it.function_id);
    TagVersion(it) Deploy Function(&it.function_id);
    ApplyManifest(_) Deploy All;
    Cleanup(it) Deploy one_or_all(it.function_id.as_ref());

    // Settings are what keeps a function within bounds: among them who may call it, and what it reaches.
    Update(it) Admin Function(&it.function_id);
    Delete(it) Admin Function(&it.function_id);
    CreateToken(_) Admin All;
    ListTokens(_) Admin All;
    RevokeToken(_) Admin All;
}
