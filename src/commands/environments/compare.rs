//! COMPARE_ENVIRONMENTS: how far one environment is ahead of another, function by function.

use super::{find, records};
use crate::{
    commands::{Caller, Command, Context, promotion::Standing},
    error::Error,
    model::{EnvironmentName, Variable, VariableValue},
    protocol::message::{
        CompareEnvironmentsRequest, CompareEnvironmentsResponse, ComparedFunction, ComparedSide, ComparedState,
        ComparedVariable, SplitInfo,
    },
    router::{Alias, Entry},
};
use std::{collections::BTreeSet, sync::Arc};

impl Command for CompareEnvironmentsRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<CompareEnvironmentsResponse, Error> {
        let sides: [EnvironmentName; 2] = [self.from.parse()?, self.to.parse()?];
        let records = records(context).await?;
        for environment in &sides {
            find(&records, environment)?;
        }
        let entries = match &self.function_id {
            Some(function) => vec![context.router.function(function)?],
            None => context.router.functions().to_vec(),
        };
        let functions = entries.iter().filter_map(|entry| {
            let compared = function(entry, &sides);
            let variables = variables(context, entry, &sides);
            // A function that the request names is always answered.
            let is_there = compared.from.is_some() || compared.to.is_some() || compared.note.is_some();
            (is_there || self.function_id.is_some()).then_some(ComparedFunction { variables, ..compared })
        });
        let functions = functions.collect();
        let [from, to] = sides.map(|it| it.to_string());
        Ok(CompareEnvironmentsResponse { from, to, functions })
    }
}

/// Variables of a function that differ between two environments, inherited ones included: their names, and the
/// generations of secrets. Values of secrets are not compared: the answer must not reveal whether they are equal.
fn variables(context: &Context, entry: &Entry, environments: &[EnvironmentName; 2]) -> Vec<ComparedVariable> {
    let snapshot = context.variables.snapshot();
    let [from, to] = environments.each_ref().map(|it| snapshot.resolve(entry.function.id, it));
    let keys: BTreeSet<_> = from.keys().chain(to.keys()).collect();
    let compared = keys.into_iter().filter_map(|key| {
        let [from, to] = [&from, &to].map(|it| it.get(key).map(|it| &it.found));
        let is_same = match (from.map(|it| &it.value), to.map(|it| &it.value)) {
            (Some(VariableValue::Plain(from)), Some(VariableValue::Plain(to))) => from == to,
            // Both are inherited from the same place, or they are not.
            _ => from.map(|it| it.revision) == to.map(|it| it.revision),
        };
        let generation = |it: &Arc<Variable>| match &it.value {
            VariableValue::Secret(sealed) => sealed.generation,
            VariableValue::Plain(_) => 0,
        };
        (!is_same).then(|| ComparedVariable {
            name: key.to_string(),
            secret: [from, to].into_iter().flatten().any(|it| matches!(it.value, VariableValue::Secret(_))),
            from: from.map(generation),
            to: to.map(generation),
        })
    });
    compared.collect()
}

fn function(entry: &Entry, environments: &[EnvironmentName; 2]) -> ComparedFunction {
    let standing = environments.each_ref().map(|it| Standing::of(entry, it));
    let note = standing.iter().zip(environments).find_map(|(it, environment)| it.unclear(environment));
    let [from, to] = standing.map(|it| it.alias().and_then(|alias| side(entry, alias)));
    ComparedFunction {
        function: entry.function.name.to_string(),
        function_id: entry.function.id.to_string(),
        state: state(from.as_ref(), to.as_ref(), note.is_some()),
        from,
        to,
        note,
        variables: Vec::new(),
    }
}

fn side(entry: &Entry, alias: &Alias) -> Option<ComparedSide> {
    let version = entry.version(alias.version)?;
    Some(ComparedSide {
        alias: alias.name.to_string(),
        version: version.label.clone(),
        number: version.number,
        digest: version.digest,
        split: alias.split.and_then(|it| Some(SplitInfo::new(entry.version(it.version_id)?, it))),
    })
}

fn state(from: Option<&ComparedSide>, to: Option<&ComparedSide>, is_unclear: bool) -> ComparedState {
    match (from, to) {
        _ if is_unclear => ComparedState::Unclear,
        (Some(from), Some(to)) if from.digest == to.digest && from.split == to.split => ComparedState::InSync,
        (Some(from), Some(to)) if from.number > to.number => ComparedState::Ahead,
        (Some(from), Some(to)) if from.number < to.number => ComparedState::Behind,
        // Both have the same version, but one of them gives a share to another.
        (Some(_), Some(_)) => ComparedState::Unclear,
        (Some(_), None) => ComparedState::OnlyFrom,
        (None, Some(_)) => ComparedState::OnlyTo,
        (None, None) => ComparedState::InSync,
    }
}
