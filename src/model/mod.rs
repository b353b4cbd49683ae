//! Plain data types for the things Levain talks about: no I/O, no clock, no lock.
//!
//! Values from clients are parsed once, at the edge, into the newtypes of [`name`] and [`id`]; further in, an invalid
//! name or identity cannot exist.

pub mod audit;
pub mod deployment;
pub mod dotenv;
pub mod environment;
pub mod function;
mod headers;
pub mod hex;
mod host;
pub mod id;
pub mod invocation;
pub mod name;
pub mod policy;
pub mod rollout;
mod schema;
pub mod secret;
pub mod settings;
pub(crate) mod text;
pub mod time;
pub mod token;
pub mod traffic;
pub mod variable;
pub mod version;
pub(crate) mod words;

pub use audit::{SecretAction, SecretAudit};
pub use deployment::{Decision, DeployOutcome, Deployment, DeploymentKind, DeploymentStatus};
pub use environment::EnvironmentError;
pub use function::{Function, FunctionStatus};
pub use headers::remove_named_by_connection;
pub use host::is_host;
pub use id::{DeploymentId, FunctionId, InvocationId, RolloutId, TokenId, VersionId, WorkerId};
pub use invocation::{BodyBroken, ColdStart, IncomingBody, Invocation, RequestBody, Timing};
pub use name::{AliasName, EnvironmentName, FunctionName, NameError, PreviewName, TokenName, VersionLabel};
pub use policy::{Breach, Policy, PolicyAction, PolicyCounts};
pub use rollout::{Rollout, RolloutStatus};
pub use secret::SecretText;
pub use settings::{Auth, Network, Setting, SettingValues, Settings, SettingsPatch};
pub use time::Timestamp;
pub use token::{Scope, SecretHash, Token, TokenSecret};
pub use traffic::{Percent, PercentError, Split, Sticky, StickyError};
pub use variable::{Sealed, Variable, VariableKey, VariablePlace, VariableValue};
pub use version::{Digest, Version, VersionSource};
