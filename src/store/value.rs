//! Conversion of values between the model and the columns.
//!
//! Types with a text form in the model (ids, names, digests, words such as a status) are stored as that text, and read
//! back through the parser for clients' input. Times are integers; lists and maps are JSON.

use super::StoreError;
use crate::model::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Error, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that serialises as one text.
pub(super) struct Text<T>(pub(super) T);

impl<T: Serialize> ToSql for Text<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match serde_json::to_value(&self.0) {
            Ok(serde_json::Value::String(text)) => Ok(ToSqlOutput::Owned(Value::Text(text))),
            Ok(serde_json::Value::Null) => Ok(ToSqlOutput::Owned(Value::Null)),
            Ok(other) => Err(Error::ToSqlConversionFailure(format!("`{other}` is not a text").into())),
            Err(cause) => Err(Error::ToSqlConversionFailure(cause.into())),
        }
    }
}

impl<T: DeserializeOwned> FromSql for Text<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = serde_json::Value::from(value.as_str()?);
        serde_json::from_value(text).map(Self).map_err(FromSqlError::other)
    }
}

/// A value stored as JSON.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let json = serde_json::to_string(&self.0).map_err(|cause| Error::ToSqlConversionFailure(cause.into()))?;
        Ok(ToSqlOutput::Owned(Value::Text(json)))
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}

/// A point in time, stored in milliseconds.
pub(super) struct Millis(pub(super) Timestamp);

impl ToSql for Millis {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(Value::Integer(self.0.as_millis())))
    }
}

impl FromSql for Millis {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Timestamp::from_millis).map(Self)
    }
}

/// A row whose errors name the table, the row and the column.
pub(super) struct Columns<'a> {
    pub(super) table: &'static str,
    pub(super) row: &'a Row<'a>,
}

impl Columns<'_> {
    /// Reads a column as its own type.
    pub(super) fn plain<T: FromSql>(&self, column: &'static str) -> Result<T, StoreError> {
        self.row.get(column).map_err(|cause| self.corrupt(column, cause))
    }

    /// Returns the error for a column whose value cannot be used.
    pub(super) fn corrupt(&self, column: &'static str, cause: Error) -> StoreError {
        let key = self.row.get_ref(0).map(|it| String::from_utf8_lossy(it.as_bytes().unwrap_or_default()).into());
        StoreError::Corrupt { table: self.table, key: key.unwrap_or_default(), column, cause }
    }

    /// Reads a column that holds a value's text form.
    pub(super) fn text<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        self.plain::<Text<T>>(column).map(|it| it.0)
    }

    /// Reads a nullable column that holds a value's text form.
    pub(super) fn text_or_null<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.plain::<Option<Text<T>>>(column).map(|it| it.map(|it| it.0))
    }

    /// Reads a nullable column that holds a number with a range of its own.
    pub(super) fn number_or_null<T: TryFrom<u32>>(&self, column: &'static str) -> Result<Option<T>, StoreError>
    where
        T::Error: std::error::Error + Send + Sync + 'static,
    {
        let number = self.plain::<Option<u32>>(column)?.map(T::try_from).transpose();
        number.map_err(|cause| self.corrupt(column, FromSqlError::other(cause).into()))
    }

    /// Reads a column that holds JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        self.plain::<Json<T>>(column).map(|it| it.0)
    }

    /// Reads a nullable column that holds JSON.
    pub(super) fn json_or_null<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.plain::<Option<Json<T>>>(column).map(|it| it.map(|it| it.0))
    }

    /// Reads a column that holds a time.
    pub(super) fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.plain::<Millis>(column).map(|it| it.0)
    }

    /// Reads a nullable column that holds a time.
    pub(super) fn time_or_null(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        self.plain::<Option<Millis>>(column).map(|it| it.map(|it| it.0))
    }
}
