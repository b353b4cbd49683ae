//! A deployment sent as a form (`multipart/form-data`, RFC 7578), as `curl -F` and browsers send it.
//!
//! Parts named like fields are fields, in any order; `archive`, `bundle` and `files` are code. The size of all parts
//! together is bounded by the limit on bundles, and large parts go to disk as they arrive.

use super::{
    super::upload::Upload,
    openapi::{self, Kind},
    routes,
};
use crate::{
    config::LimitsConfig,
    deploy::{Scratch, Spool, stored_name},
    error::{Error, ErrorCode},
    model::IncomingBody,
    protocol::{field::Body, message::DeployRequest},
};
use bytes::Bytes;
use futures_util::stream;
use http::header;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, future::poll_fn, io, path::Path};

/// Most bytes of a form besides its code.
const FIELDS_BYTES_MAX: u64 = 1024 * 1024;

/// Command whose fields a form has.
const COMMAND: &str = "DEPLOY_FUNCTION";

/// Code sent in a form.
#[derive(Debug, Default)]
pub(super) struct Code {
    archive: Option<Bytes>,
    /// Text of a one-file bundle, and the name to store it under if its file name shows that it is not plain
    /// JavaScript.
    bundle: Option<(Option<String>, Bytes)>,
    files: BTreeMap<String, Body>,
}

impl Code {
    /// Moves the code into the request.
    pub(super) fn put_into(self, request: &mut DeployRequest) {
        request.archive = self.archive.map(Body);
        let mut files = self.files;
        match self.bundle {
            // Next to `files` the bundle stays a bundle, which the command refuses.
            Some((Some(name), bytes)) if files.is_empty() => {
                files.insert(name, Body(bytes));
            }
            other => request.bundle = other.map(|it| Body(it.1)),
        }
        request.files = Some(files).filter(|it| !it.is_empty());
    }
}

/// Returns the most bytes that a form may have.
pub(super) fn bytes_max(limits: &LimitsConfig) -> u64 {
    u64::from(limits.bundle_bytes_max) + FIELDS_BYTES_MAX
}

/// Reads a form with this content type, and returns its fields and its code.
pub(super) async fn read(
    content_type: &str,
    upload: &Upload,
    scratch: &Scratch,
    limits: &LimitsConfig,
) -> Result<(Map<String, Value>, Code), Error> {
    let boundary = multer::parse_boundary(content_type)
        .map_err(|_| Error::invalid("a form is `multipart/form-data` with a boundary"))?;
    let Some(_place) = scratch.upload() else {
        return Err(Error::new(ErrorCode::Overloaded, "too many uploads are in progress; try again soon"));
    };
    let chunks = stream::unfold((), |()| async {
        let chunk = poll_fn(|context| upload.poll_chunk(context)).await?;
        Some((chunk.map_err(|_| io::Error::other("the body broke off")), ()))
    });
    let mut form = multer::Multipart::new(chunks, boundary);
    // Shared by everything that stays in memory.
    let mut room = FIELDS_BYTES_MAX;
    let (mut fields, mut code) = (Map::new(), Code::default());
    while let Some(part) = form.next_field().await.map_err(invalid)? {
        let name = part.name().unwrap_or_default().to_owned();
        let file = file_name(&part);
        take(&mut room, name.len() + file.as_ref().map_or(0, String::len))?;
        match name.as_str() {
            "" => return Err(Error::invalid("a part of the form has no name")),
            "archive" => {
                if code.archive.replace(spooled(part, scratch).await?).is_some() {
                    return Err(twice(&name));
                }
            }
            "bundle" => {
                let stored = file.and_then(|it| stored_name(Path::new(&it))).filter(|it| it != "bundle.js");
                if code.bundle.replace((stored, spooled(part, scratch).await?)).is_some() {
                    return Err(twice(&name));
                }
            }
            "files" => {
                let file = file.ok_or_else(|| Error::invalid("a part `files` has no file name"))?;
                if code.files.len() == limits.bundle_files_max as usize {
                    return Err(Error::invalid(format!(
                        "the form has more than {} files (limits.bundle_files_max)",
                        code.files.len()
                    )));
                }
                if code.files.insert(file.clone(), Body(spooled(part, scratch).await?)).is_some() {
                    return Err(twice(&file));
                }
            }
            "tag" | "tags" => {
                let tag = text(part, &mut room).await?;
                if let Value::Array(tags) = fields.entry("tags").or_insert_with(|| Value::Array(Vec::new())) {
                    tags.push(tag.into());
                }
            }
            _ => {
                let value = value(&name, text(part, &mut room).await?)?;
                if fields.insert(name.clone(), value).is_some() {
                    return Err(twice(&name));
                }
            }
        }
    }
    Ok((fields, code))
}

/// Reads a field that is not code.
async fn text(mut part: multer::Field<'_>, room: &mut u64) -> Result<String, Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = part.chunk().await.map_err(invalid)? {
        take(room, piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    String::from_utf8(bytes).map_err(|_| Error::invalid("a field of the form is not UTF-8 text"))
}

fn take(room: &mut u64, bytes: usize) -> Result<(), Error> {
    let left = room.checked_sub(bytes as u64);
    *room = left.ok_or_else(|| {
        let message = format!("the fields of the form have more than {FIELDS_BYTES_MAX} bytes together");
        Error::new(ErrorCode::PayloadTooLarge, message)
    })?;
    Ok(())
}

async fn spooled(mut part: multer::Field<'_>, scratch: &Scratch) -> Result<Bytes, Error> {
    let mut spool = Spool::new(scratch);
    while let Some(piece) = part.chunk().await.map_err(invalid)? {
        spool.write(&piece).await.map_err(unwritable)?;
    }
    spool.finish().await.map_err(unwritable)
}

fn unwritable(error: io::Error) -> Error {
    Error::internal(format!("the upload cannot be written: {error}"))
}

fn value(name: &str, text: String) -> Result<Value, Error> {
    match (openapi::kind(COMMAND, name), text.as_str()) {
        (Some(Kind::Number), _) => {
            let number =
                text.parse::<u64>().map_err(|_| Error::invalid(format!("{name} is not a whole number: `{text}`")));
            number.map(Value::from)
        }
        (Some(Kind::Truth), "true") => Ok(Value::Bool(true)),
        (Some(Kind::Truth), "false") => Ok(Value::Bool(false)),
        (Some(Kind::Truth), _) => Err(Error::invalid(format!("{name} is `true` or `false`, not `{text}`"))),
        (Some(Kind::Text | Kind::Other) | None, _) => Ok(Value::String(text)),
    }
}

/// Returns the file name of a part. The extended form, which may have any character (RFC 8187), goes before the plain
/// one.
fn file_name(part: &multer::Field<'_>) -> Option<String> {
    let disposition = part.headers().get(header::CONTENT_DISPOSITION).and_then(|it| it.to_str().ok());
    let extended = disposition.and_then(extended_file_name);
    extended.or_else(|| part.file_name().map(str::to_owned))
}

/// Returns the value of `filename*=UTF-8''…`.
fn extended_file_name(disposition: &str) -> Option<String> {
    let mut is_quoted = false;
    let parameters = disposition.split(|it| {
        is_quoted ^= it == '"';
        it == ';' && !is_quoted
    });
    let value = parameters
        .filter_map(|it| it.split_once('='))
        .find_map(|(name, value)| name.trim().eq_ignore_ascii_case("filename*").then(|| value.trim()))?;
    let (charset, rest) = value.split_once('\'')?;
    let encoded = rest.split_once('\'')?.1;
    charset.eq_ignore_ascii_case("utf-8").then(|| routes::decode(encoded).ok()).flatten()
}

fn twice(name: &str) -> Error {
    Error::invalid(format!("`{name}` is given twice in the form"))
}

fn invalid(error: multer::Error) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("the form cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::extended_file_name;

    #[test]
    fn a_file_name_may_have_any_character() {
        let cases = [
            ("form-data; name=files; filename*=UTF-8''h%C3%A4llo%20a.ts", Some("hällo a.ts")),
            ("form-data; name=files; filename=\"a.ts\"; FILENAME*=utf-8'de'b.ts", Some("b.ts")),
            ("form-data; name=files; filename=\"a; filename*=UTF-8''b.ts\"", None),
            ("form-data; name=files; filename*=ISO-8859-1''b.ts", None),
            ("form-data; name=files; filename*=UTF-8''%zz", None),
            ("form-data; name=files; filename*=b.ts", None),
        ];
        for (disposition, expected) in cases {
            assert_eq!(extended_file_name(disposition).as_deref(), expected, "{disposition}");
        }
    }
}
