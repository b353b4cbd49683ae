//! Manifests: which version each alias of some functions sends its calls to, as one document.

use crate::model::{AliasName, DeploymentId, DeploymentKind, Digest, EnvironmentName, Timestamp, VersionLabel};
use crate::protocol::field::{object, object_or_none, objects};
use serde::{Deserialize, Serialize};

requests! {
    /// EXPORT_MANIFEST.
    ExportManifestRequest {
        /// Id or name of the one function it is about; all functions when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function_id: Option<String>,
        /// The manifest that this deployment left, instead of the present state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<DeploymentId>")]
        deployment_id: Option<String>,
    }
}

messages! {
    /// APPLY_MANIFEST.
    ApplyManifestRequest {
        /// The state to restore.
        #[serde(deserialize_with = "object")]
        manifest: Manifest,
        /// Say what would change, change nothing.
        #[serde(default)]
        dry_run: bool,
        /// Why, for the audit trail; `manifest of <time>` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// What EXPORT_MANIFEST answers, and what lies in `data/deployments`.
    Manifest {
        /// The form of this document: 1.
        #[schemars(range(min = 1, max = 1))]
        manifest: u32,
        /// When it was made.
        created_at: Timestamp,
        /// The deployment that left it; absent where it was exported.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_none")]
        deployment: Option<ManifestDeployment>,
        /// The functions it is about, by name.
        #[serde(deserialize_with = "objects")]
        functions: Vec<ManifestFunction>,
    }
    /// The deployment that left a manifest; nothing is made of it.
    ManifestDeployment {
        /// Its id.
        deployment_id: String,
        /// The function's name.
        function: String,
        /// The label.
        version: String,
        /// The alias it was about.
        alias: String,
        /// What kind of act it was.
        kind: DeploymentKind,
        /// The label the alias pointed at before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous_version: Option<String>,
        /// Who asked.
        actor: String,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// A function in a manifest.
    ManifestFunction {
        /// Its name.
        name: String,
        /// Its aliases by name; `ROLLBACK`, which follows `LIVE`, is not among them.
        #[serde(deserialize_with = "objects")]
        aliases: Vec<ManifestAlias>,
    }
    /// An alias in a manifest.
    ManifestAlias {
        /// Its name.
        name: String,
        /// The environment it runs in.
        #[schemars(with = "EnvironmentName")]
        environment: String,
        /// The label it points at.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The number of that version; the digest tells which one is meant.
        number: u32,
        /// What the code of that version hashes to.
        digest: Digest,
        /// The second version, which has a share of its calls.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_none")]
        split: Option<ManifestSplit>,
        /// What keeps a caller with one of the two: `header:<name>` or `cookie:<name>`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sticky: Option<String>,
        /// What it is for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
    }
    /// The second version of an alias in a manifest.
    ManifestSplit {
        /// The label.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// What its code hashes to.
        digest: Digest,
        /// Its share in percent.
        weight: u32,
    }
    /// APPLY_MANIFEST.
    ApplyManifestResponse {
        /// Whether nothing was changed because only that was asked for.
        dry_run: bool,
        /// What was changed, or would be: by function and alias.
        changes: Vec<ManifestChange>,
        /// Aliases that were as the manifest says already.
        unchanged: u32,
        /// Aliases of its functions that the manifest does not name; they stay as they are.
        others: Vec<ManifestOther>,
    }
    /// An alias that a manifest changes.
    ManifestChange {
        /// The function's name.
        function: String,
        /// The alias.
        #[schemars(with = "AliasName")]
        alias: String,
        /// Where it sent its calls before: `v1`, or `v1 90 %, v2 10 %`; absent where the alias is made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// Where it sends them then.
        to: String,
        /// The deployments that did it; none in a dry run.
        deployments: Vec<String>,
    }
    /// An alias that a manifest does not name.
    ManifestOther {
        /// The function's name.
        function: String,
        /// The alias.
        #[schemars(with = "AliasName")]
        alias: String,
        /// The version it points at.
        #[schemars(with = "VersionLabel")]
        version: String,
    }
}
