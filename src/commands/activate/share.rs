//! Check whether an alias can give a version a share of its invocations.

use super::Act;
use crate::{
    error::{Error, ErrorCode},
    model::VersionId,
    router::Entry,
};

impl Act {
    /// Refuses a share that the alias cannot give to the version, or to a new one if `version` is `None`.
    pub(in crate::commands) fn check_share(&self, entry: &Entry, version: Option<VersionId>) -> Result<(), Error> {
        let (function, name) = (&entry.function.name, &self.alias);
        let Some(alias) = self.weight.and(entry.alias(name.as_str())) else {
            let code = if name.is_live() { ErrorCode::FunctionNotDeployed } else { ErrorCode::AliasNotFound };
            let message = format!("{name} of `{function}` has no calls to share: point it at a version first");
            return if self.weight.is_none() { Ok(()) } else { Err(Error::new(code, message)) };
        };
        let label = |id| entry.version(id).map(|it| it.label.to_string()).unwrap_or_default();
        if version == Some(alias.version) {
            let message =
                format!("{name} points at `{}` already: give a share to another version", label(alias.version));
            return Err(Error::new(ErrorCode::Conflict, message));
        }
        match alias.split {
            Some(split) if Some(split.version_id) != version => {
                let (first, second) = (label(alias.version), label(split.version_id));
                let message = format!(
                    "{name} is split between `{first}` and `{second}` ({}) already: end that first, with `levain \
                     traffic clear {function}` or `levain traffic promote {function}`",
                    split.weight
                );
                Err(Error::new(ErrorCode::Conflict, message))
            }
            _ => Ok(()),
        }
    }
}
