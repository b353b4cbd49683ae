//! Manifests: one document with the versions that each alias of some functions sends its traffic to.

use crate::model::{AliasName, DeploymentId, DeploymentKind, Digest, EnvironmentName, Timestamp, VersionLabel};
use crate::protocol::field::{object, object_or_none, objects};
use serde::{Deserialize, Serialize};

requests! {
    /// EXPORT_MANIFEST.
    ExportManifestRequest {
        /// The function's id or name; all functions when absent.
        function_id?: String,
        /// Id of a deployment, to export the manifest that it left instead of the current state.
        #[schemars(with = "Option<DeploymentId>")]
        deployment_id?: String,
    }
}

messages! {
    /// APPLY_MANIFEST.
    ApplyManifestRequest {
        /// Manifest with the state to restore.
        #[serde(deserialize_with = "object")]
        manifest: Manifest,
        /// Whether this is a dry run: the answer lists the changes, and nothing changes.
        #[serde(default)]
        dry_run: bool,
        /// Reason, for the audit trail; `manifest of <time>` when absent.
        reason?: String,
    }
    /// A manifest: the answer of EXPORT_MANIFEST, and the content of the files in `data/deployments`.
    Manifest {
        /// Format of this document: 1.
        #[schemars(range(min = 1, max = 1))]
        manifest: u32,
        /// When the manifest was created.
        created_at: Timestamp,
        /// Deployment that left the manifest; absent if it was exported.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_none")]
        deployment: Option<ManifestDeployment>,
        /// Functions in the manifest, sorted by name.
        #[serde(deserialize_with = "objects")]
        functions: Vec<ManifestFunction>,
    }
    /// The deployment that left a manifest. Applying a manifest ignores it.
    ManifestDeployment {
        /// Id of the deployment.
        deployment_id: String,
        /// Name of the function.
        function: String,
        /// Label of the version.
        version: String,
        /// Alias that the deployment concerns.
        alias: String,
        /// Kind of the deployment.
        kind: DeploymentKind,
        /// Label of the version that the alias pointed at before.
        previous_version?: String,
        /// Actor who requested it.
        actor: String,
        /// Reason that the actor gave.
        reason?: String,
    }
    /// A function in a manifest.
    ManifestFunction {
        /// Name of the function.
        name: String,
        /// Aliases of the function, sorted by name, without `ROLLBACK`, which follows `LIVE`.
        #[serde(deserialize_with = "objects")]
        aliases: Vec<ManifestAlias>,
    }
    /// An alias in a manifest.
    ManifestAlias {
        /// Name of the alias.
        name: String,
        /// The environment that the alias runs in.
        #[schemars(with = "EnvironmentName")]
        environment: String,
        /// Label of the version that the alias points at.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// Number of that version. The version is identified by its digest.
        number: u32,
        /// SHA-256 digest of that version's bundle.
        digest: Digest,
        /// The alias's second version and its share of the invocations; absent without a traffic split.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_none")]
        split: Option<ManifestSplit>,
        /// The header or cookie that keeps a caller on one of two versions: `header:<name>` or `cookie:<name>`.
        sticky?: String,
        /// Purpose of the alias, as free text.
        description?: String,
    }
    /// The second version of an alias in a manifest.
    ManifestSplit {
        /// Label of the version.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// SHA-256 digest of the version's bundle.
        digest: Digest,
        /// Share of the alias's invocations, in percent.
        weight: u32,
    }
    /// APPLY_MANIFEST.
    ApplyManifestResponse {
        /// Whether this was a dry run, which changes nothing.
        dry_run: bool,
        /// Aliases that were changed, or would be, sorted by function and alias.
        changes: Vec<ManifestChange>,
        /// Number of aliases that were as in the manifest already.
        unchanged: u32,
        /// Aliases of its functions that are not in the manifest; they do not change.
        others: Vec<ManifestOther>,
    }
    /// An alias that a manifest changes.
    ManifestChange {
        /// Name of the function.
        function: String,
        /// Name of the alias.
        #[schemars(with = "AliasName")]
        alias: String,
        /// Versions before the change: `v1`, or `v1 90 %, v2 10 %`; absent for a new alias.
        from?: String,
        /// Versions after the change.
        to: String,
        /// Ids of the deployments that made the change; empty in a dry run.
        deployments: Vec<String>,
    }
    /// An alias that is not in the manifest.
    ManifestOther {
        /// Name of the function.
        function: String,
        /// Name of the alias.
        #[schemars(with = "AliasName")]
        alias: String,
        /// Label of the version that the alias points at.
        #[schemars(with = "VersionLabel")]
        version: String,
    }
}
