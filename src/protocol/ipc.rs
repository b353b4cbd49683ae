//! Commands: the byte of each one, and decoding a payload into a request.
//!
//! [`COMMANDS`] is the only table of commands; dispatch and the documentation are generated from it.

use super::{field, message::*};
use crate::error::{Error, ErrorCode};
use bytes::Bytes;
use schemars::{Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use std::borrow::Cow;

/// Status: the command succeeded, and the answer is complete.
pub const SUCCESS: u8 = 0x00;
/// Status: the command failed; the payload is an [`Error`].
pub const ERROR: u8 = 0x01;
/// Status: a part of the answer; more frames with this id follow.
pub const PARTIAL: u8 = 0x02;

/// Capacity for the fields of most payloads, without their body, in bytes.
const FIELDS_BYTES: usize = 768;

/// Encoding of a payload. An answer uses the encoding of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A JSON object; bodies are base64 strings.
    Json,
    /// A MessagePack map with field names as keys; bodies are `bin`.
    MessagePack,
}

impl Encoding {
    /// Detects the encoding from the payload's first byte. An empty payload counts as an empty JSON object.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        match payload.first() {
            None | Some(b'{') => Self::Json,
            Some(_) => Self::MessagePack,
        }
    }

    /// Writes a payload.
    pub fn write<T: Serialize>(self, value: &T) -> Result<Vec<u8>, Error> {
        self.write_with_room(value, 0)
    }

    /// Writes a payload that holds a body of about `body_bytes`. The buffer has that capacity from the start, so it
    /// does not grow.
    pub fn write_with_room<T: Serialize>(self, value: &T, body_bytes: usize) -> Result<Vec<u8>, Error> {
        match self {
            Self::Json => {
                // Base64 encodes three bytes as four.
                let mut payload = Vec::with_capacity(FIELDS_BYTES + body_bytes / 3 * 4);
                serde_json::to_writer(&mut payload, value).map_err(Error::internal)?;
                Ok(payload)
            }
            Self::MessagePack => {
                let mut payload = Vec::with_capacity(FIELDS_BYTES + body_bytes);
                rmp_serde::encode::write_named(&mut payload, value).map_err(Error::internal)?;
                Ok(payload)
            }
        }
    }

    /// Reads a payload. Large bodies in it share its memory.
    pub fn read_shared<T: DeserializeOwned>(self, payload: &Bytes) -> Result<T, Error> {
        field::sharing(payload, |payload| self.read(payload))
    }

    /// Reads a payload.
    pub fn read<T: DeserializeOwned>(self, payload: &[u8]) -> Result<T, Error> {
        let payload = if payload.is_empty() { b"{}" } else { payload };
        match self {
            Self::Json => serde_json::from_slice(payload).map_err(|error| {
                unreadable::<T>(&error.to_string(), &mut serde_json::Deserializer::from_slice(payload))
            }),
            Self::MessagePack => read_message_pack(payload),
        }
    }
}

/// Deepest nesting of a payload, unknown fields included. A deeper payload would need more stack than a thread has.
const MESSAGE_PACK_DEPTH_MAX: usize = 64;

fn read_message_pack<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Error> {
    if !matches!(payload[0], 0x80..=0x8f | 0xde | 0xdf) {
        return Err(Error::invalid("payload: expected a JSON object or a MessagePack map"));
    }
    let begin = || {
        let mut reader = rmp_serde::Deserializer::from_read_ref(payload);
        reader.set_max_depth(MESSAGE_PACK_DEPTH_MAX);
        reader
    };
    let mut reader = begin();
    let value = T::deserialize(&mut reader).map_err(|error| {
        let what = match &error {
            // rmp-serde would show the marker byte, and a small number is part of its marker.
            rmp_serde::decode::Error::TypeMismatch(_) => "invalid type".to_owned(),
            error => error.to_string(),
        };
        unreadable::<T>(&what, &mut begin())
    })?;
    match IgnoredAny::deserialize(&mut reader) {
        // The map was the last value in the payload.
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err(Error::invalid("payload: bytes follow the MessagePack map")),
    }
}

/// Builds the error for a payload that cannot be read. The message names the field and leaves out its value, which may
/// be a secret. The field is found by reading the payload a second time.
fn unreadable<'de, T: Deserialize<'de>>(what: &str, again: impl Deserializer<'de>) -> Error {
    let path = serde_path_to_error::deserialize::<_, T>(again).err().map(|error| error.path().to_string());
    let field =
        path.filter(|it| it != ".").map(|it| format!("`{}`: ", it.chars().take(FIELD_CHARS_MAX).collect::<String>()));
    Error::invalid(format!("payload: {}{}", field.unwrap_or_default(), without_value(what)))
}

/// Longest part of a field's path that a message shows, in characters.
const FIELD_CHARS_MAX: usize = 200;

/// Removes the value from serde's message, such as ``invalid type: string "hunter22", expected a boolean``.
fn without_value(what: &str) -> Cow<'_, str> {
    let begins = ["invalid type: ", "invalid value: ", "unknown variant "];
    let Some(begin) = begins.into_iter().find(|begin| what.starts_with(begin)) else { return what.into() };
    // A value may contain `, expected`, but the expectation does not, so the last one counts.
    let (said, expected) = what.rsplit_once(", expected ").unwrap_or((what, "something else"));
    let kind = said[begin.len().min(said.len())..].split(['`', '"']).next().unwrap_or_default();
    format!("{}, expected {expected}", format!("{begin}{kind}").trim_end()).into()
}

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

macro_rules! commands {
    ($($byte:literal $name:literal $variant:ident($request:ty) -> $response:ty: $does:literal;)*) => {
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
                match command {
                    $($byte => encoding.read(payload).map(Self::$variant),)*
                    _ => Err(unknown_command(command)),
                }
            }
        }

        $(
            impl Call for $request {
                const COMMAND: u8 = $byte;
                type Response = $response;
            }
        )*
    };
}

/// A request type, with its command byte and the type of its answer.
pub trait Call: Serialize {
    /// The command byte.
    const COMMAND: u8;
    /// Type of a successful answer.
    type Response: Serialize + DeserializeOwned;
}

commands! {
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
}

fn unknown_command(command: u8) -> Error {
    let last = COMMANDS.last().map_or(0, |row| row.byte);
    let message = format!("no command has the byte 0x{command:02x}; commands are 0x01 to 0x{last:02x}");
    Error::new(ErrorCode::UnknownCommand, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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

    #[test]
    fn what_is_wrong_with_a_payload_is_said_without_what_stood_there() {
        let said = |payload: &[u8]| Request::decode(0x2D, payload).expect_err("the request is invalid").message;
        let cases = [
            (json!({"key": "N", "value": 123_456_789}), "payload: `value`: invalid type: integer, expected a string"),
            (json!({"value": [1.5]}), "payload: `value`: invalid type: sequence, expected a string"),
            (
                json!({"is_secret": "a\", expected `b"}),
                "payload: `is_secret`: invalid type: string, expected a boolean",
            ),
            (json!({"variables": "S=hunter22"}), "payload: `variables`: invalid type: string, expected a sequence"),
            (
                json!({"variables": [{"key": "A"}, {"key": "A", "value": true}]}),
                "payload: `variables[1].value`: invalid type: boolean, expected a string",
            ),
            (
                json!({"variables": [{"key": "A", "from_generation": -123_456_789}]}),
                "payload: `variables[0].from_generation`: invalid value: integer, expected u32",
            ),
            (json!({"variables": [{}]}), "payload: `variables[0]`: missing field `key`"),
        ];
        for (request, expected) in cases {
            let (json, packed) = (serde_json::to_vec(&request), rmp_serde::to_vec_named(&request));
            let said_of_json = said(&json.expect("plain data"));
            assert_eq!(said_of_json.split(" at line ").next(), Some(expected));
            // The MessagePack reader does not always name the expected type.
            let said_of_packed = said(&packed.expect("plain data"));
            let place = &expected[..expected.rfind("`: ").expect("it names a field") + 3];
            assert!(said_of_packed.starts_with(place) && !said_of_packed.contains("hunter22"), "{said_of_packed}");
            assert!(!said_of_packed.contains("123456789"), "{said_of_packed}");
        }
        // An unknown enum word is reported without its text, too.
        let said =
            Request::decode(0x02, br#"{"function_id": "f", "level": "hunter22"}"#).expect_err("no level").message;
        assert!(said.starts_with("payload: `level`: ") && !said.contains("hunter22"), "{said}");
    }
}
