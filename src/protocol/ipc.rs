//! Commands: the byte of each one, and decoding a payload into a request.
//!
//! [`for_each_command`] holds the only table of commands; dispatch and the documentation are generated from it.

pub use super::encoding::Encoding;

use super::{encoding::read_fields, field, message::*};
use crate::error::{Error, ErrorCode};
use bytes::Bytes;
use schemars::{Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Status: the command succeeded, and the answer is complete.
pub const SUCCESS: u8 = 0x00;
/// Status: the command failed; the payload is an [`Error`].
pub const ERROR: u8 = 0x01;
/// Status: a part of the answer; more frames with this id follow.
pub const PARTIAL: u8 = 0x02;

/// A row of the command table.
#[derive(Debug, Clone, Copy)]
pub struct CommandRow {
    /// Command byte of the frame.
    pub byte: u8,
    /// Name in the documentation.
    pub name: &'static str,
    /// Summary of the command in one line, for the documentation.
    pub does: &'static str,
    /// Name of its variant of [`Request`].
    pub variant: &'static str,
    /// JSON Schema of the request.
    pub request: fn(&mut SchemaGenerator) -> Schema,
    /// JSON Schema of a successful answer.
    pub response: fn(&mut SchemaGenerator) -> Schema,
}

/// Passes the table of commands to a macro, which makes one item for each.
macro_rules! for_each_command {
    ($make:ident) => {
        $make! {
            0x01 "INVOKE" Invoke(InvokeRequest) -> InvokeResponse: "invokes a function";
            0x02 "GET_LOGS" GetLogs(LogsRequest) -> LogsResponse: "reads or follows a function's logs";
            0x03 "GET_METRICS" GetMetrics(MetricsRequest) -> MetricsResponse: "returns invocation counts and durations of a function and its versions";
            0x04 "REGISTER_FUNCTION" Register(RegisterRequest) -> RegisterResponse: "registers a function";
            0x05 "DEPLOY_FUNCTION" Deploy(DeployRequest) -> DeployResponse: "publishes a version and points LIVE, or another alias, at it";
            0x06 "DELETE_FUNCTION" Delete(DeleteRequest) -> DeleteResponse: "deletes a function: stops its workers and frees its name; bundles are kept";
            0x07 "DELETE_VERSION" DeleteVersion(DeleteVersionRequest) -> DeleteVersionResponse: "deletes a version that is not in use";
            0x08 "GET_FUNCTION_VERSIONS" Versions(VersionsRequest) -> VersionsResponse: "lists a function's versions, newest first";
            0x09 "WARMUP_FUNCTION" Warmup(WarmupRequest) -> WarmupResponse: "starts workers ahead of traffic";
            0x0A "LIST_FUNCTIONS" List(ListRequest) -> ListResponse: "lists the functions by name";
            0x0B "GET_FUNCTION" Get(GetRequest) -> FunctionInfo: "returns a function with its settings, aliases and workers";
            0x0C "UPDATE_FUNCTION" Update(UpdateRequest) -> FunctionInfo: "changes settings; they apply to running workers at once";
            0x0D "ROLLBACK" Rollback(RollbackRequest) -> DeployResponse: "points LIVE, or another alias, back at an earlier version";
            0x0E "GET_DEPLOYMENTS" Deployments(DeploymentsRequest) -> DeploymentsResponse: "lists the deployments of a function, or of all functions with one status, newest first";
            0x0F "STATUS" Status(StatusRequest) -> StatusResponse: "returns the state of the daemon: versions, uptime, workers, memory, disk";
            0x10 "SET_ALIAS" SetAlias(SetAliasRequest) -> DeployResponse: "points an alias at a version after the version has loaded; creates the alias if needed";
            0x11 "LIST_ALIASES" Aliases(AliasesRequest) -> AliasesResponse: "lists a function's aliases by name";
            0x12 "DELETE_ALIAS" DeleteAlias(DeleteAliasRequest) -> DeleteAliasResponse: "deletes an alias other than LIVE and ROLLBACK";
            0x13 "SET_TRAFFIC" SetTraffic(SetTrafficRequest) -> DeployResponse: "splits an alias's traffic between two versions";
            0x14 "SET_POLICY" SetPolicy(SetPolicyRequest) -> PolicyResponse: "sets or shows the policy that rolls an alias back automatically, with the alias's current counts";
            0x15 "START_ROLLOUT" StartRollout(StartRolloutRequest) -> RolloutDetails: "moves an alias's traffic to a version step by step";
            0x16 "CONTROL_ROLLOUT" ControlRollout(ControlRolloutRequest) -> RolloutDetails: "pauses, resumes or aborts a rollout";
            0x17 "LIST_ROLLOUTS" Rollouts(RolloutsRequest) -> RolloutsResponse: "lists a function's rollouts, newest first";
            0x18 "CLEANUP" Cleanup(CleanupRequest) -> CleanupResponse: "deletes old versions that are not in use, or lists them in a dry run";
            0x19 "COMPARE_VERSIONS" Compare(CompareRequest) -> CompareResponse: "compares two versions: facts, settings, files line by line";
            0x1A "EXPORT_MANIFEST" ExportManifest(ExportManifestRequest) -> Manifest: "exports the versions that each alias sends traffic to, as one document";
            0x1B "APPLY_MANIFEST" ApplyManifest(ApplyManifestRequest) -> ApplyManifestResponse: "points the aliases of a manifest at its versions, all or none";
            0x1C "SET_ENVIRONMENT" SetEnvironment(SetEnvironmentRequest) -> EnvironmentInfo: "changes an environment's protection and the parent it inherits variables from";
            0x1D "LIST_ENVIRONMENTS" Environments(EnvironmentsRequest) -> EnvironmentsResponse: "lists the environments by name";
            0x1E "DECIDE_DEPLOYMENT" Decide(DecideRequest) -> DeployResponse: "approves or rejects a deployment that waits for approval";
            0x1F "TAG_VERSION" TagVersion(TagVersionRequest) -> VersionInfo: "changes a version's tags and description, never its code";
            0x20 "CREATE_TOKEN" CreateToken(CreateTokenRequest) -> CreateTokenResponse: "creates a token for HTTP; its secret is shown only in this answer";
            0x21 "LIST_TOKENS" ListTokens(ListTokensRequest) -> ListTokensResponse: "lists the tokens, without their secrets";
            0x22 "REVOKE_TOKEN" RevokeToken(RevokeTokenRequest) -> TokenInfo: "revokes a token at once; this cannot be undone";
            0x23 "CREATE_ENVIRONMENT" CreateEnvironment(CreateEnvironmentRequest) -> EnvironmentInfo: "creates an environment";
            0x24 "GET_ENVIRONMENT" GetEnvironment(EnvironmentRequest) -> EnvironmentDetails: "returns an environment with the aliases that run in it";
            0x25 "DELETE_ENVIRONMENT" DeleteEnvironment(DeleteEnvironmentRequest) -> EnvironmentInfo: "deletes an environment that is not in use";
            0x26 "COMPARE_ENVIRONMENTS" CompareEnvironments(CompareEnvironmentsRequest) -> CompareEnvironmentsResponse: "compares the versions of each function in two environments";
            0x27 "PROMOTE" Promote(PromoteRequest) -> DeployResponse: "promotes a function's version from one environment to another";
            0x28 "PROMOTE_ALL" PromoteAll(PromoteAllRequest) -> PromoteAllResponse: "promotes every function whose version differs between two environments, all or none";
            0x29 "LIST_PREVIEWS" Previews(PreviewsRequest) -> PreviewsResponse: "lists previews by function and name";
            0x2A "DELETE_PREVIEW" DeletePreview(DeletePreviewRequest) -> RemovedPreviewsResponse: "deletes a preview of one function, or of every function that has it";
            0x2B "CLEANUP_PREVIEWS" CleanupPreviews(CleanupPreviewsRequest) -> RemovedPreviewsResponse: "deletes previews that have expired or are old";
            0x2C "BACKUP" Backup(BackupRequest) -> BackupResponse: "sends a backup of the node as one file, in parts";
            0x2D "SET_VARIABLES" SetVariables(SetVariablesRequest) -> ChangeVariablesResponse: "sets variables and secrets, all or none; running workers are replaced without a failed invocation";
            0x2E "LIST_VARIABLES" ListVariables(ListVariablesRequest) -> ListVariablesResponse: "lists variables, or the variables that apply to a function in an environment; never the values of secrets";
            0x2F "DELETE_VARIABLES" DeleteVariables(DeleteVariablesRequest) -> ChangeVariablesResponse: "deletes variables, and secrets with all their generations";
            0x30 "SECRET_GENERATIONS" SecretGenerations(SecretGenerationsRequest) -> SecretGenerationsResponse: "lists the kept generations of a secret, newest first";
            0x31 "SECRET_AUDIT" SecretAudit(SecretAuditRequest) -> SecretAuditResponse: "lists the audit trail of secrets, newest first";
            0x32 "ROTATE_MASTER_KEY" RotateMasterKey(RotateMasterKeyRequest) -> RotateMasterKeyResponse: "encrypts the data keys of all secrets with another master key";
            0x33 "CANCEL" Cancel(CancelRequest) -> CancelResponse: "cancels a command of the same connection that has not committed yet";
            0x34 "GET_VERSION" GetVersion(VersionRequest) -> VersionInfo: "returns one version of a function";
        }
    };
}
pub(crate) use for_each_command;

macro_rules! declare {
    ($($byte:tt $name:literal $variant:ident($request:ty) -> $response:ty: $does:literal;)*) => {
        /// All commands, ordered by their byte.
        pub const COMMANDS: &[CommandRow] = &[$(CommandRow {
            byte: $byte,
            name: $name,
            does: $does,
            variant: stringify!($variant),
            request: SchemaGenerator::subschema_for::<$request>,
            response: SchemaGenerator::subschema_for::<$response>,
        }),*];

        /// A decoded request.
        #[derive(Debug, Clone)]
        pub enum Request {
            $(#[doc = $does] $variant($request),)*
        }

        impl Request {
            /// Returns the command's name in the documentation.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// Reads the request of a command. Large bodies in it share the payload's memory.
            pub fn decode_shared(command: u8, payload: &Bytes) -> Result<Self, Error> {
                field::sharing(payload, |payload| Self::decode(command, payload))
            }

            /// Reads the request of a command.
            pub fn decode(command: u8, payload: &[u8]) -> Result<Self, Error> {
                let encoding = Encoding::of(payload);
                if command == InvokeRequest::COMMAND {
                    return encoding.read_directly(payload).map(Self::Invoke);
                }
                match command {
                    $($byte => encoding.read(payload).map(Self::$variant),)*
                    _ => Err(unknown_command(command)),
                }
            }

            /// Reads the request of a command from a JSON object.
            pub fn of_fields(command: u8, fields: &Value) -> Result<Self, Error> {
                match command {
                    $($byte => read_fields(fields).map(Self::$variant),)*
                    _ => Err(unknown_command(command)),
                }
            }
        }

        $(
            impl CommandRequest for $request {
                const COMMAND: u8 = $byte;
                type Response = $response;

                directly!($byte);
            }

            impl From<$request> for Request {
                fn from(request: $request) -> Self {
                    Self::$variant(request)
                }
            }
        )*
    };
}

/// A request type, with its command byte and the type of its answer.
pub trait CommandRequest: Serialize + DeserializeOwned + Into<Request> {
    /// The command byte.
    const COMMAND: u8;
    /// Type of a successful answer.
    type Response: Serialize + DeserializeOwned + Send + 'static;

    /// Writes the request.
    fn write(&self, encoding: Encoding) -> Result<Vec<u8>, Error> {
        encoding.write(self)
    }

    /// Reads the answer. Large bodies in it share the payload's memory.
    fn read_response(payload: &Bytes) -> Result<Self::Response, Error> {
        Encoding::of(payload).read_shared(payload)
    }
}

/// Gives invocations code of their own.
macro_rules! directly {
    (0x01) => {
        fn write(&self, encoding: Encoding) -> Result<Vec<u8>, Error> {
            encoding.write_directly(self, self.body.as_ref().map_or(0, |body| body.0.len()))
        }

        fn read_response(payload: &Bytes) -> Result<Self::Response, Error> {
            field::sharing(payload, |payload| Encoding::of(payload).read_directly(payload))
        }
    };
    ($other:tt) => {};
}

for_each_command!(declare);

fn unknown_command(command: u8) -> Error {
    let last = COMMANDS.last().map_or(0, |row| row.byte);
    let message = format!("no command has the byte 0x{command:02x}; commands are 0x01 to 0x{last:02x}");
    Error::new(ErrorCode::UnknownCommand, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_without_gaps() {
        for (index, row) in COMMANDS.iter().enumerate() {
            assert_eq!(usize::from(row.byte), index + 1, "{}", row.name);
        }
    }

    #[test]
    fn both_encodings_give_the_same_request() {
        let request = RegisterRequest { name: "hello".into(), ..RegisterRequest::default() };
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let payload = encoding.write(&request).expect("plain data");
            assert_eq!(Encoding::of(&payload), encoding);
            match Request::decode(0x04, &payload) {
                Ok(Request::Register(back)) => assert_eq!(back, request),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn unknown_commands_and_malformed_payloads_are_told_apart() {
        let code = |command, payload: &[u8]| Request::decode(command, payload).map_err(|error| error.code);
        assert!(matches!(code(0xEE, b"{}"), Err(ErrorCode::UnknownCommand)));
        assert!(matches!(code(0x04, b"{"), Err(ErrorCode::InvalidRequest)));
        assert!(matches!(code(0x04, b"\xc1"), Err(ErrorCode::InvalidRequest)));
        assert!(matches!(code(0x04, b"{}"), Err(ErrorCode::InvalidRequest)), "name is required");
        assert!(code(0x0F, b"").is_ok(), "an empty payload is an empty object");
        assert!(code(0x0F, b"\x80").is_ok(), "an empty map");
        assert!(matches!(code(0x0F, b"\x80\x80"), Err(ErrorCode::InvalidRequest)), "two maps");
        assert!(matches!(code(0x0F, b"\x90"), Err(ErrorCode::InvalidRequest)), "fields without names");
        assert!(code(0x0F, br#"{"later": true}"#).is_ok(), "unknown fields are ignored");
    }
}
