//! What DEPLOY_FUNCTION says and answers.

use super::{PlanStep, is_false};
use crate::{
    model::{AliasName, Digest, EnvironmentName, FunctionId, Percent, PreviewName, Timestamp, VersionLabel},
    protocol::field::Body,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

requests! {
    /// DEPLOY_FUNCTION. At most one of `bundle_path`, `bundle`, `files` and `archive`; none re-activates the label.
    DeployRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The label; `v<number>` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<VersionLabel>")]
        version: Option<String>,
        /// A file, folder or archive on the daemon's machine, absolute.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = "^/"))]
        bundle_path: Option<String>,
        /// The text of a one-file bundle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle: Option<Body>,
        /// The files of a bundle by their relative path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        files: Option<BTreeMap<String, Body>>,
        /// A tar, tar.gz or zip of the files, told apart by its content.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        archive: Option<Body>,
        /// The file to import, for several files; `bundle` and `index` are found by themselves. Of a project, the file to
        /// build.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entry: Option<String>,
        /// Whether a bundle is built from the code; when absent, if it has packages or no file to import as it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        build: Option<bool>,
        /// Send what a build says in partial frames while it runs.
        #[serde(default, skip_serializing_if = "is_false")]
        follow: bool,
        /// The alias to point at the version, made if need be; `LIVE` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        alias: Option<String>,
        /// The preview to make or to move, instead of an alias: `preview-<name>` in the environment `preview`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<PreviewName>")]
        preview: Option<String>,
        /// How long the preview stays from now on, such as `24h`; `0`: until it is deleted; as the configuration says when
        /// absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = "^(0|[0-9]{1,3}[smhd])$"))]
        ttl: Option<String>,
        /// Whether the alias is moved; true when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        activate: Option<bool>,
        /// The share of the alias's calls in percent that the version gets, as its second one; all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Percent>")]
        weight: Option<u32>,
        /// Workers to start before the alias moves; at least one is started by the check of the bundle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warm: Option<u32>,
        /// Free text kept with the version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// Free labels kept with the version.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
        tags: Vec<String>,
        /// The commit it was built from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        git_commit: Option<String>,
        /// The branch it was built from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        git_branch: Option<String>,
        /// Why, for the audit trail.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Whether the function is made, with the default settings, if there is none of this name.
        #[serde(default, skip_serializing_if = "is_false")]
        create: bool,
        /// Check everything, keep nothing, and say what would happen.
        #[serde(default)]
        dry_run: bool,
        /// A key of the client's own, new for each deployment: the same request with the same key is carried out once, and
        /// answered alike again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = "^[ -~]{1,255}$"))]
        idempotency_key: Option<String>,
    }
}

messages! {
    /// DEPLOY_FUNCTION, ROLLBACK, SET_ALIAS and DECIDE_DEPLOYMENT.
    DeployResponse {
        /// The deployment; empty in a dry run.
        deployment_id: String,
        /// The function's id.
        #[schemars(with = "FunctionId")]
        function_id: String,
        /// The label.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The number.
        number: u32,
        /// The alias it was about.
        #[schemars(with = "AliasName")]
        alias: String,
        /// The environment that alias runs in.
        #[schemars(with = "EnvironmentName")]
        environment: String,
        /// `deployed`, `pending_approval` when somebody has to approve it first, `rejected` when it was, `built` when the
        /// alias was not moved, or `checked` in a dry run.
        #[schemars(regex(pattern = "^(deployed|pending_approval|rejected|built|checked)$"))]
        status: String,
        /// The share of the alias's calls that the version got, in percent; all of them when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
        /// The label the alias pointed at before.
        #[schemars(with = "Option<VersionLabel>")]
        previous_version: Option<String>,
        /// The share that `previous_version` had as the alias's second version, in percent, where that has ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous_weight: Option<u32>,
        /// Whether a new version was published; false when an existing one was re-activated.
        published: bool,
        /// Whether the code that was sent is that of a version that is published already, which keeps what it says of
        /// itself.
        #[serde(default, skip_serializing_if = "is_false")]
        reused: bool,
        /// Whether the alias sent its calls there already, so that nothing moved.
        #[serde(default, skip_serializing_if = "is_false")]
        unchanged: bool,
        /// Whether the function was made with it, or would be.
        #[serde(default, skip_serializing_if = "is_false")]
        new_function: bool,
        /// The bundle's digest.
        digest: Digest,
        /// Bytes of the bundle.
        size: u64,
        /// How long the command took.
        duration_ms: f64,
        /// Where the preview is over HTTP, by path; absent where HTTP is off, and for what is no preview.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// Where it is by a host name of its own; absent where the names do not make one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_url: Option<String>,
        /// When it goes by itself; absent where it does not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
        /// What would happen, step by step; only in a dry run.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        plan: Vec<PlanStep>,
    }
    /// The partial frames of a DEPLOY_FUNCTION that is followed.
    DeployProgress {
        /// The next line of the build's log.
        line: String,
    }
}
