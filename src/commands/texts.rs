//! Limits of the free texts in requests.

use crate::error::Error;

/// Maximum bytes of a free text that is kept with a version or deployment.
const TEXT_BYTES_MAX: usize = 4096;

/// Maximum tags of a version.
const TAGS_MAX: usize = 32;

/// Refuses a free text that is too long.
pub(super) fn check_text(name: &str, text: Option<&str>) -> Result<(), Error> {
    match text {
        Some(text) if text.len() > TEXT_BYTES_MAX => {
            Err(Error::invalid(format!("{name} is longer than {TEXT_BYTES_MAX} bytes")))
        }
        _ => Ok(()),
    }
}

/// Refuses too many tags, and empty or long ones.
pub(super) fn check_tags(tags: &[String]) -> Result<(), Error> {
    if tags.len() > TAGS_MAX || tags.iter().any(|it| it.is_empty() || it.len() > 128) {
        return Err(Error::invalid(format!("tags: at most {TAGS_MAX}, each of 1 to 128 bytes")));
    }
    Ok(())
}
