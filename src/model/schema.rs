//! JSON Schemas of types with a text form of their own: how `GET /openapi.json` describes names, identities and times.
//!
//! The other types derive their schemas.

use super::{
    AliasName, DeploymentId, Digest, EnvironmentName, FunctionId, FunctionName, InvocationId, Percent, PreviewName,
    RolloutId, SecretText, Sticky, Timestamp, TokenId, TokenName, TokenSecret, VariableKey, VersionId, VersionLabel,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

macro_rules! described {
    ($($name:ident: $schema:expr;)*) => {
        $(impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let schema: fn(&SchemaGenerator) -> Schema = $schema;
                schema(generator)
            }
        })*
    };
}

described! {
    FunctionName: |_| word("A function's name.");
    AliasName: |_| word("An alias's name.");
    EnvironmentName: |_| word("An environment's name.");
    TokenName: |_| word("A token's name.");
    PreviewName: |_| json_schema!({
        "description": "A preview's name: lower-case letters, digits and single `-` between them.",
        "type": "string",
        "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$",
        "minLength": 1,
        "maxLength": 48,
    });
    SecretText: |_| json_schema!({
        "description": "A value. Answers never contain the value of a secret.",
        "type": "string",
    });
    VariableKey: |_| json_schema!({
        "description": "A variable's name: A-Z, a-z, 0-9 and _, not beginning with a digit.",
        "type": "string",
        "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,127}$",
    });
    VersionLabel: |_| json_schema!({
        "description": "A version's label: letters, digits, `.`, `_` and `-`, but not `.` or `..`.",
        "type": "string",
        "pattern": r"^([A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*|\.{3,})$",
        "minLength": 1,
        "maxLength": 64,
    });
    FunctionId: |_| id("func", "The identity of a function.");
    VersionId: |_| id("version", "The identity of a version.");
    DeploymentId: |_| id("deploy", "The identity of a deployment.");
    RolloutId: |_| id("rollout", "The identity of a rollout.");
    InvocationId: |_| id("exec", "The identity of an invocation.");
    TokenId: |_| id("token", "The identity of a token.");
    Digest: |_| json_schema!({
        "description": "SHA-256 as 64 hexadecimal digits.",
        "type": "string",
        "pattern": "^[0-9A-Fa-f]{64}$",
    });
    Percent: |_| json_schema!({
        "description": "A share in whole percent.",
        "type": "integer",
        "minimum": 0,
        "maximum": 100,
    });
    Sticky: |_| json_schema!({
        "description": "The part of a request that identifies its caller: `header:<name>` or `cookie:<name>`.",
        "type": "string",
        "pattern": "^(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$",
    });
    TokenSecret: |_| json_schema!({
        "description": "The secret of a token.",
        "type": "string",
        "pattern": "^lvn_[A-Za-z0-9_-]{43}$",
    });
    Timestamp: |generator| {
        let time = json_schema!({
            "description": "A time of RFC 3339. The daemon writes UTC with milliseconds.",
            "type": "string",
            "format": "date-time",
        });
        if generator.contract().is_serialize() {
            return time;
        }
        let age = json_schema!({
            "description": "An age: a time before now.",
            "type": "string",
            "pattern": "^[0-9]{1,9}[smhd]$",
        });
        json_schema!({ "description": "A time of RFC 3339, or an age such as `15m`.", "anyOf": [time, age] })
    };
}

fn word(description: &str) -> Schema {
    json_schema!({ "description": description, "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" })
}

fn id(prefix: &str, description: &str) -> Schema {
    let pattern = format!("^{prefix}-[0-9a-f]{{8}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{12}}$");
    json_schema!({ "description": description, "type": "string", "pattern": pattern })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that a type's parser and its schema agree about each text.
    fn agree<T: JsonSchema + std::str::FromStr>(texts: &[(&str, bool)]) {
        let schema = schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
        let options = jsonschema::options().should_validate_formats(true);
        let schema = options.build(schema.as_value()).expect("a schema");
        for &(text, is_good) in texts {
            assert_eq!(text.parse::<T>().is_ok(), is_good, "the parser on `{text}`");
            assert_eq!(schema.is_valid(&text.into()), is_good, "the schema on `{text}`");
        }
    }

    #[test]
    fn schemas_take_what_the_parsers_take() {
        let long = "a".repeat(65);
        agree::<FunctionName>(&[("a-B_9", true), ("", false), ("a b", false), (&long, false), ("ü", false)]);
        agree::<VersionLabel>(&[
            ("v1.2", true),
            (".", false),
            ("..", false),
            ("...", true),
            ("..a", true),
            ("", false),
        ]);
        let long = "a".repeat(49);
        agree::<PreviewName>(&[("pr-42", true), ("PR", false), ("a--b", false), ("-a", false), (&long, false)]);
        agree::<FunctionId>(&[("func-01933d5e-0000-7000-8000-000000000000", true), ("func-", false), ("x", false)]);
        agree::<Digest>(&[(&"aF".repeat(32), true), (&"g".repeat(64), false), ("", false)]);
        agree::<Sticky>(&[("header:X-User", true), ("cookie:a", true), ("header:", false), ("cookie:a;b", false)]);
        agree::<Timestamp>(&[("2026-01-27T10:00:00Z", true), ("15m", true), ("1y", false), ("-5m", false)]);
    }
}
