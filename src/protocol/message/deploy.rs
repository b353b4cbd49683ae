//! Messages of DEPLOY_FUNCTION.

use super::{PlanStep, is_false};
use crate::{
    model::{
        AliasName, DeployOutcome, Digest, EnvironmentName, FunctionId, Percent, PreviewName, Timestamp, VersionLabel,
    },
    protocol::field::Body,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

requests! {
    /// DEPLOY_FUNCTION. At most one of `bundle_path`, `bundle`, `files` and `archive` is given; without any, the
    /// existing version with that label is activated again.
    DeployRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Label of the version; `v<number>` when absent.
        #[schemars(with = "Option<VersionLabel>")]
        version?: String,
        /// Absolute path of a file, folder or archive on the daemon's machine.
        #[schemars(regex(pattern = "^/"))]
        bundle_path?: String,
        /// Source text of a bundle with one file.
        bundle?: Body,
        /// Files of a bundle, by relative path.
        files?: BTreeMap<String, Body>,
        /// A tar, tar.gz or zip archive of the files. The daemon detects the format from the content.
        archive?: Body,
        /// File to import, for a bundle with several files; a file named `bundle` or `index` is found without it. For a
        /// project, the file to build.
        entry?: String,
        /// Whether the daemon builds a bundle from the code. When absent, it builds code that has packages or no file
        /// that can be imported as it is.
        build?: bool,
        /// Whether the build's log is sent in partial frames while the build runs.
        #[serde(default, skip_serializing_if = "is_false")]
        follow: bool,
        /// Alias to point at the version, created if needed; `LIVE` when absent.
        #[schemars(with = "Option<AliasName>")]
        alias?: String,
        /// Preview to create or move, instead of an alias. Its alias is `preview-<name>` in the environment `preview`.
        #[schemars(with = "Option<PreviewName>")]
        preview?: String,
        /// Lifetime of the preview from now on, such as `24h`; `0` keeps it until it is deleted. When absent, the
        /// configured lifetime applies.
        #[schemars(regex(pattern = "^(0|[0-9]{1,3}[smhd])$"))]
        ttl?: String,
        /// Whether the alias moves to the version; true when absent.
        activate?: bool,
        /// Share of the alias's invocations for the version, in percent; the version becomes the alias's second one.
        /// When absent, the version gets all of them.
        #[schemars(with = "Option<Percent>")]
        weight?: u32,
        /// Number of workers to start before the alias moves. The check of the bundle starts at least one.
        warm?: u32,
        /// Free text kept with the version.
        description?: String,
        /// Free labels kept with the version.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
        tags: Vec<String>,
        /// Git commit that the version is built from.
        git_commit?: String,
        /// Git branch that the version is built from.
        git_branch?: String,
        /// Reason, for the audit trail.
        reason?: String,
        /// Whether the function is created with the default settings if none has this name.
        #[serde(default, skip_serializing_if = "is_false")]
        create: bool,
        /// Whether this is a dry run: everything is checked, nothing is kept, and the answer holds the plan.
        #[serde(default)]
        dry_run: bool,
        /// Key chosen by the client, new for each deployment. A repeated request with the same key is not carried out
        /// again; it gets the first answer.
        #[schemars(regex(pattern = "^[ -~]{1,255}$"))]
        idempotency_key?: String,
    }
}

messages! {
    /// DEPLOY_FUNCTION, ROLLBACK, SET_ALIAS and DECIDE_DEPLOYMENT.
    DeployResponse {
        /// Id of the deployment; empty in a dry run.
        deployment_id: String,
        /// Id of the function.
        function_id: FunctionId,
        /// Name of the function.
        #[serde(default)]
        function: String,
        /// Label of the version.
        version: VersionLabel,
        /// Number of the version.
        number: u32,
        /// Alias that the deployment concerns.
        alias: AliasName,
        /// Environment that the alias runs in.
        environment: EnvironmentName,
        /// `deployed`; `pending_approval` if it waits for approval; `rejected` if approval was refused; `built` if the
        /// alias was not to move; `checked` in a dry run.
        status: DeployOutcome,
        /// Share of the alias's invocations that the version got, in percent; absent if it got all of them.
        weight?: u32,
        /// Label of the version that the alias pointed at before.
        previous_version: Option<VersionLabel>,
        /// Share of `previous_version` as the second version of a traffic split that this deployment ended, in percent.
        previous_weight?: u32,
        /// Whether a new version was published; false if an existing one was activated again.
        published: bool,
        /// Whether the code is that of an existing version, which was used. That version keeps its description and
        /// tags.
        #[serde(default, skip_serializing_if = "is_false")]
        reused: bool,
        /// Whether the alias sent its traffic there already, so that nothing moved.
        #[serde(default, skip_serializing_if = "is_false")]
        unchanged: bool,
        /// Whether the deployment created the function, or would create it.
        #[serde(default, skip_serializing_if = "is_false")]
        new_function: bool,
        /// SHA-256 digest of the bundle.
        digest: Digest,
        /// Size of the bundle in bytes.
        size: u64,
        /// Duration of the command, in milliseconds.
        duration_ms: f64,
        /// URL of the alias, by path; absent if HTTP is off.
        url?: String,
        /// URL of the alias under its own host name, for a preview, or if `http.functions_domain` is set; absent if its
        /// names do not form a host name.
        host_url?: String,
        /// When the preview expires; absent if it does not.
        expires_at?: Timestamp,
        /// Steps that would happen; only in a dry run.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        plan: Vec<PlanStep>,
    }
    /// The partial frames of a DEPLOY_FUNCTION with `follow`.
    DeployProgress {
        /// Next line of the build's log.
        line: String,
    }
}
