//! SET_POLICY. The watch (`commands::keepers`) acts by the policies.

use super::{Caller, Command, Context, placement::movable_alias};
use crate::{
    error::Error,
    model::{AliasName, FunctionId, Timestamp},
    protocol::message::{PolicyResponse, PolicyVerdict, SetPolicyRequest},
};
use std::sync::Arc;

impl Command for SetPolicyRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<PolicyResponse, Error> {
        let name = movable_alias(self.alias.as_deref())?;
        let id = context.router.function(&self.function_id)?.function.id;
        if self.show && self.policy.is_some() {
            return Err(Error::invalid("give `policy`, or `show` to change nothing, not both"));
        }
        if !self.show {
            let (owner, name, actor) = (Arc::clone(context), name.clone(), Arc::clone(&caller.actor));
            let change = async move {
                let (_changing, entry) = owner.hold(id).await?;
                entry.served_alias(&name)?;
                let (function, is_set) = (&entry.function.name, self.policy.is_some());
                tracing::info!(%function, alias = %name, is_set, actor = &*actor, "policy changed");
                let set = move |context: &Context| {
                    context.store.set_policy(id, &name, self.policy.as_ref(), &actor, Timestamp::now())?;
                    context.refresh_aliases(id, None)
                };
                owner.blocking(set).await
            };
            context.to_its_end(change).await?;
        }
        show(context, id, name).await
    }
}

async fn show(context: &Arc<Context>, id: FunctionId, name: AliasName) -> Result<PolicyResponse, Error> {
    let wanted = name.clone();
    let went_back = context.blocking(move |context| Ok(context.store.last_auto_rollback(id, &wanted)?)).await?;
    let entry = context.router.by_id(id)?;
    let (alias, now) = (entry.served_alias(&name)?, Timestamp::now());
    let judged = entry.version(alias.under_judgement()).ok_or_else(|| entry.alias_not_found(name.as_str()))?;
    let guard = alias.guard.as_ref();
    let went_back = went_back.and_then(|it| {
        Some(PolicyVerdict {
            at: it.finished_at,
            version: it.previous?,
            went_back_to: Some(it.label.to_string()),
            reason: it.reason.unwrap_or_default(),
        })
    });
    let warned = guard.and_then(|it| it.warning()).map(|it| PolicyVerdict {
        at: it.at,
        version: it.version.clone(),
        went_back_to: None,
        reason: it.text.to_string(),
    });
    Ok(PolicyResponse {
        function_id: id,
        alias: name.clone(),
        policy: guard.map(|it| it.policy.clone()),
        version: judged.label.clone(),
        counts: guard.map(|it| it.counts()).unwrap_or_default(),
        rests_until: alias.rest_ends_at(now),
        last_verdict: went_back.into_iter().chain(warned).max_by_key(|it| it.at),
    })
}
