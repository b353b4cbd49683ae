//! Functions with all that belongs to them, for the router.

use super::{AliasRecord, Store, StoreError, aliases, environments, functions, versions};
use crate::model::{EnvironmentName, Function, FunctionId, Version, VersionId};
use rusqlite::Connection;
use std::collections::HashSet;

/// A function with its versions and aliases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRecord {
    /// The function itself.
    pub function: Function,
    /// Versions, the newest number first.
    pub versions: Vec<Version>,
    /// Aliases by name.
    pub aliases: Vec<AliasRecord>,
    /// Versions approved for the environment of `LIVE`; `None` if that environment is not protected.
    pub approved: Option<HashSet<VersionId>>,
}

/// A function with its aliases: the part of a [`FunctionRecord`] whose size does not grow with the versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionState {
    /// The function itself.
    pub function: Function,
    /// Aliases by name.
    pub aliases: Vec<AliasRecord>,
    /// Versions approved for the environment of `LIVE`; `None` if that environment is not protected.
    pub approved: Option<HashSet<VersionId>>,
}

impl Store {
    /// Returns every function that is not deleted, by name, with its versions and aliases, as of one instant.
    pub fn catalogue(&self) -> Result<Vec<FunctionRecord>, StoreError> {
        self.read(|it| functions::all(it)?.into_iter().map(|function| complete(it, function)).collect())
    }

    /// Returns the entry of [`Self::catalogue`] for one function.
    pub fn record(&self, id: FunctionId) -> Result<FunctionRecord, StoreError> {
        self.read(|it| complete(it, functions::one(it, id)?))
    }

    /// Returns a function with its aliases, without reading its versions.
    pub fn state(&self, id: FunctionId) -> Result<FunctionState, StoreError> {
        self.read(|it| state(it, functions::one(it, id)?))
    }
}

fn complete(connection: &Connection, function: Function) -> Result<FunctionRecord, StoreError> {
    let versions = versions::all(connection, function.id)?;
    let FunctionState { function, aliases, approved } = state(connection, function)?;
    Ok(FunctionRecord { function, versions, aliases, approved })
}

fn state(connection: &Connection, function: Function) -> Result<FunctionState, StoreError> {
    let aliases = aliases::all(connection, function.id)?;
    let live = aliases.iter().find(|it| it.name.is_live()).map(|it| &it.environment);
    let environment = live.cloned().unwrap_or_else(EnvironmentName::production);
    let approved = environments::approved(connection, function.id, &environment)?;
    Ok(FunctionState { function, aliases, approved })
}
