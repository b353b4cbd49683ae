//! LIST_PREVIEWS, DELETE_PREVIEW, CLEANUP_PREVIEWS, and the expiry of previews.
//!
//! A preview is an alias `preview-<name>` in the environment `preview`, created by a deployment that names it. Each
//! deployment begins its lifetime anew. It is deleted like any alias, by a command or by its keeper. Its deadline is
//! a column of its row, so a restart forgets nothing, and the row of the audit trail is written with its deletion.

use super::{
    Caller, Command, Context, HttpPlace, aliases,
    page::{Asked, PAGE_MAX, Page},
};
use crate::{
    error::{Error, ErrorCode},
    model::{AliasName, EnvironmentName, FunctionId, PreviewName, Timestamp, time::parse_age},
    protocol::message::{
        CleanupPreviewsRequest, DeletePreviewRequest, DeployRequest, PreviewInfo, PreviewsRequest, PreviewsResponse,
        RemovedPreviewsResponse,
    },
    router::Entry,
    store::{AliasRecord, FunctionState, Removal},
};
use std::{sync::Arc, time::Duration};

/// Longest lifetime of a preview: ten years.
const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Maximum bytes of a label of a host name (RFC 1035, section 2.3.4).
const HOST_LABEL_BYTES_MAX: usize = 63;

/// Separator between the qualifier and the function in a host name.
pub const HOST_SEPARATOR: &str = "--";

/// Preview of a deployment: its alias, the environment of that, and its lifetime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Preview {
    pub(super) alias: AliasName,
    /// The environment with the alias's name, if one was created for variables of its own; otherwise `preview`.
    pub(super) environment: EnvironmentName,
    pub(super) lifetime: Duration,
}

impl Preview {
    /// Returns the preview that a deployment is for, if any.
    pub(super) async fn of(context: &Arc<Context>, request: &DeployRequest) -> Result<Option<Self>, Error> {
        let Some(name) = &request.preview else {
            return match request.ttl {
                Some(_) => Err(Error::invalid("`ttl` is for a preview: give `preview` as well, or leave it out")),
                None => Ok(None),
            };
        };
        if request.alias.is_some() || request.weight.is_some() || request.activate == Some(false) {
            return Err(Error::invalid(
                "a preview has an alias of its own, with all its calls: leave out `alias`, `weight` and `activate`",
            ));
        }
        let name: PreviewName = name.parse()?;
        let lifetime = match request.ttl.as_deref() {
            None => context.config.load().previews.ttl(),
            Some(text) => lifetime(text)?,
        };
        let alias = AliasName::of_preview(&name);
        let environments = context.blocking(|context| Ok(context.store.environments()?)).await?;
        let own = environments.into_iter().map(|it| it.name).find(|it| it.as_str() == alias.as_str());
        Ok(Some(Self { alias, environment: own.unwrap_or_else(EnvironmentName::preview), lifetime }))
    }

    /// Refuses a preview if the function already has the maximum.
    pub(super) fn check_room(&self, context: &Context, entry: &Entry) -> Result<(), Error> {
        let max = context.config.load().previews.per_function_max;
        let others = entry.aliases.iter().filter(|it| it.name != self.alias && it.name.preview().is_some()).count();
        if others < max as usize {
            return Ok(());
        }
        let name = &entry.function.name;
        let message = format!(
            "`{name}` has {others} previews already (previews.per_function_max): delete one with `levain preview delete`"
        );
        Err(Error::new(ErrorCode::Conflict, message))
    }
}

/// Parses a lifetime: `24h`, or `0` for no end.
fn lifetime(text: &str) -> Result<Duration, Error> {
    let millis = if text == "0" { Some(0) } else { parse_age(text).filter(|it| *it > 0) };
    let lifetime = millis.and_then(|it| u64::try_from(it).ok()).map(Duration::from_millis);
    lifetime.filter(|it| *it <= TTL_MAX).ok_or_else(|| {
        Error::invalid(format!("ttl is `{text}`: it is a time such as 90s, 15m, 24h or 7d, at most 3650d, or 0"))
    })
}

/// Addresses of an alias over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// URL by path.
    pub(super) url: Option<String>,
    /// URL by a host name of its own.
    pub(super) host_url: Option<String>,
}

impl Place {
    pub(super) fn of(context: &Context, entry: &Entry, alias: &AliasName) -> Self {
        let Some(http) = context.http else { return Self::default() };
        let config = context.config.load();
        let function = entry.function.name.as_str();
        let (path, label) = match alias.is_live() {
            true => (function.to_owned(), function.to_owned()),
            false => (format!("{function}:{alias}"), format!("{alias}{HOST_SEPARATOR}{function}")),
        };
        let domain = match config.http.functions_domain.as_str() {
            // Browsers find `*.localhost` by themselves, so a preview has a host name anyway.
            "" => alias.preview().map(|_| "localhost"),
            domain => Some(domain),
        };
        let (scheme, port) = (HttpPlace::scheme(&config), http.address.port());
        let domain = domain.filter(|_| is_host_label(&label));
        let host_url = domain.map(|domain| format!("{scheme}://{label}.{domain}:{port}/"));
        Self { url: Some(format!("{}/functions/{path}", http.url(&config))), host_url }
    }
}

fn is_host_label(text: &str) -> bool {
    text.len() <= HOST_LABEL_BYTES_MAX
        && text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
        && !text.ends_with('-')
}

impl Command for PreviewsRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<PreviewsResponse, Error> {
        let asked = Asked { limit: self.limit, offset: None, cursor: self.cursor.as_deref() };
        let page = Page::<(String, AliasName)>::new(context, "previews", &asked, (PAGE_MAX, PAGE_MAX))?;
        let mut rows = Vec::new();
        for (entry, record) in records(context, self.function_id.as_deref(), None).await? {
            rows.extend(of(&record).filter_map(|alias| info(context, &entry, alias)));
        }
        let key = |it: &PreviewInfo| (it.function.clone(), it.alias.clone());
        rows.retain(|it| page.after.as_ref().is_none_or(|after| key(it) > *after));
        let (previews, next_cursor) = page.fill(rows, key, |it| it);
        Ok(PreviewsResponse { previews, next_cursor })
    }
}

/// The named function or all, as far as they have previews, or the named one; with their records on disk.
async fn records(
    context: &Arc<Context>,
    function: Option<&str>,
    alias: Option<&AliasName>,
) -> Result<Vec<(Arc<Entry>, FunctionState)>, Error> {
    let mut entries = match function {
        Some(function) => vec![context.router.function(function)?],
        None => context.router.functions().to_vec(),
    };
    entries.retain(|entry| {
        let is_meant = |name: &AliasName| alias.map_or_else(|| name.preview().is_some(), |alias| alias == name);
        entry.aliases.iter().any(|it| is_meant(&it.name))
    });
    let read = move |context: &Context| {
        let record = |entry: Arc<Entry>| match context.store.state(entry.function.id).map_err(Error::from) {
            Ok(record) => Some(Ok((entry, record))),
            // The function was deleted meanwhile.
            Err(error) if error.code == ErrorCode::FunctionNotFound => None,
            Err(error) => Some(Err(error)),
        };
        entries.into_iter().filter_map(record).collect()
    };
    context.blocking(read).await
}

fn of(record: &FunctionState) -> impl Iterator<Item = &AliasRecord> {
    record.aliases.iter().filter(|it| it.name.preview().is_some())
}

fn info(context: &Context, entry: &Entry, alias: &AliasRecord) -> Option<PreviewInfo> {
    let version = entry.version(alias.version_id)?;
    let Place { url, host_url } = Place::of(context, entry, &alias.name);
    Some(PreviewInfo {
        function: entry.function.name.to_string(),
        function_id: entry.function.id.to_string(),
        name: alias.name.preview()?.to_string(),
        alias: alias.name.clone(),
        environment: alias.environment.to_string(),
        version: version.label.clone(),
        number: version.number,
        url,
        host_url,
        expires_at: alias.expires_at,
        updated_at: alias.updated_at,
    })
}

impl Command for DeletePreviewRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<RemovedPreviewsResponse, Error> {
        let name: PreviewName = self.name.parse()?;
        let alias = AliasName::of_preview(&name);
        let function = self.function_id.as_deref();
        let found = records(context, function, Some(&alias)).await?;
        let mut removed = Vec::new();
        for (entry, _) in found {
            let removal = Removal { actor: caller.actor.to_string(), reason: None, at: Timestamp::now() };
            removed.extend(remove(context, entry.function.id, &alias, removal, |_| true).await?);
        }
        if removed.is_empty() {
            let of = function.map(|it| format!(" of `{it}`")).unwrap_or_default();
            let message = format!("there is no preview `{name}`{of}; `levain preview list` lists the existing ones");
            return Err(Error::new(ErrorCode::AliasNotFound, message));
        }
        Ok(RemovedPreviewsResponse { removed, dry_run: false })
    }
}

impl Command for CleanupPreviewsRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<RemovedPreviewsResponse, Error> {
        let now = Timestamp::now();
        let age = self.older_than.as_deref().map(|text| {
            parse_age(text)
                .ok_or_else(|| Error::invalid(format!("older_than is `{text}`: it is an age such as 12h or 3d")))
        });
        let until = age.transpose()?.map(|age| Timestamp::from_millis(now.as_millis().saturating_sub(age)));
        let is_due =
            move |alias: &AliasRecord| has_expired(alias, now) || until.is_some_and(|it| alias.updated_at <= it);
        let mut removed = Vec::new();
        for (entry, record) in records(context, self.function_id.as_deref(), None).await? {
            for alias in of(&record).filter(|it| is_due(it)) {
                if self.dry_run {
                    removed.extend(info(context, &entry, alias));
                    continue;
                }
                let removal = Removal { actor: caller.actor.to_string(), reason: Some("cleanup".into()), at: now };
                removed.extend(remove(context, entry.function.id, &alias.name, removal, is_due).await?);
            }
        }
        Ok(RemovedPreviewsResponse { removed, dry_run: self.dry_run })
    }
}

pub(super) fn has_expired(alias: &AliasRecord, now: Timestamp) -> bool {
    alias.expires_at.is_some_and(|at| at <= now)
}

/// Deletes a preview if it still exists and is still due: a deployment may have begun its lifetime anew.
pub(super) async fn remove(
    context: &Arc<Context>,
    id: FunctionId,
    alias: &AliasName,
    removal: Removal,
    is_due: impl FnOnce(&AliasRecord) -> bool + Send + 'static,
) -> Result<Option<PreviewInfo>, Error> {
    let (owner, name) = (Arc::clone(context), alias.clone());
    context
        .to_its_end(async move {
            let (_changing, entry) = match owner.hold(id).await {
                Err(error) if error.code == ErrorCode::FunctionNotFound => return Ok(None),
                held => held?,
            };
            let record = owner.blocking(move |context| Ok(context.store.state(id)?)).await?;
            let found = record.aliases.into_iter().find(|it| it.name == name);
            let Some(alias) = found.filter(is_due) else { return Ok(None) };
            let info = info(&owner, &entry, &alias);
            aliases::remove(&owner, &entry, name, removal).await?;
            Ok(info)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_a_time_or_nothing() {
        assert_eq!(lifetime("24h").expect("a time"), Duration::from_secs(86_400));
        assert_eq!(lifetime("0").expect("for ever"), Duration::ZERO);
        for bad in ["", "24", "-1h", "0s", "1y", "4000d"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_label_is_one_label_of_dns() {
        assert!(is_host_label("preview-42--greet"));
        for bad in ["preview-42--Greet", "preview-42--a_b", "preview-42--a-", &"x".repeat(64)] {
            assert!(!is_host_label(bad), "{bad}");
        }
    }
}
