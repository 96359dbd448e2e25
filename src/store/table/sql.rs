//! Parts of statements that are generated from a table's columns. `{schema}` stands for the quoted name of the schema.

use tokio_postgres::types::Type;

use super::{Column, Purpose, Table, Value};

/// The types of the arrays that a statement takes.
pub(in crate::store) fn types<T: Table>(purpose: Purpose) -> Vec<Type> {
    Column::<T>::of(purpose).map(|(_, column)| column.value.array_type()).collect()
}

/// The columns and their types, by PostgreSQL's internal names.
pub(in crate::store) fn stored_types<T: Table>() -> impl Iterator<Item = (&'static str, &'static str)> {
    T::COLUMNS.iter().map(|column| (column.name, column.value.stored_type()))
}

/// `insert into .. select .. from unnest(..)`, to be continued.
pub(in crate::store) fn insert<T: Table>() -> String {
    let columns = written::<T>(Purpose::Insert);
    let values = list::<T>(Purpose::Insert, |_, column| column.value.of_element(&format!("k.{}", column.name)));
    format!(
        "insert into {{schema}}.{} as t ({columns}) select {values} from {}",
        T::NAME,
        arrays::<T>(Purpose::Insert, true)
    )
}

/// `update .. from unnest(..)`, which also sets `also`.
pub(in crate::store) fn update<T: Table>(also: &str) -> String {
    let id = T::COLUMNS[0].name;
    let changes = Column::<T>::of(Purpose::Update).skip(1).map(|(_, column)| {
        let (name, value) = (column.name, column.value.of_element(&format!("k.{}", column.name)));
        if column.is_kept_where_null {
            format!("{name} = coalesce({value}, t.{name}), ")
        } else {
            format!("{name} = {value}, ")
        }
    });
    let (changes, arrays) = (changes.collect::<String>(), arrays::<T>(Purpose::Update, false));
    format!("update {{schema}}.{} t set {changes}{also} from {arrays} where t.{id} = k.{id}", T::NAME)
}

/// `copy .. from stdin`.
pub(in crate::store) fn copy<T: Table>(purpose: Purpose) -> String {
    format!("copy {{schema}}.{} ({}) from stdin binary", T::NAME, written::<T>(purpose))
}

/// The same for rows with all of their columns. Frozen rows need no vacuum, but the table must have been created or
/// truncated by the same transaction.
pub(in crate::store) fn load<T: Table>(frozen: bool) -> String {
    let freeze = if frozen { ", freeze" } else { "" };
    format!("copy {{schema}}.{} ({}) from stdin (format binary{freeze})", T::NAME, written::<T>(Purpose::Whole))
}

/// Columns of `alias` in the form in which they are read, without some.
pub(in crate::store) fn select<T: Table>(alias: &str, without: &[&str]) -> Vec<String> {
    let columns = T::COLUMNS.iter().filter(|column| !without.contains(&column.name));
    columns.map(|column| column.value.read(&format!("{alias}.{}", column.name))).collect()
}

/// Unconverted columns of `alias`, without some.
pub(in crate::store) fn names<T: Table>(alias: &str, without: &[&str]) -> Vec<String> {
    let columns = T::COLUMNS.iter().filter(|column| !without.contains(&column.name));
    columns.map(|column| format!("{alias}.{}", column.name)).collect()
}

fn written<T: Table>(purpose: Purpose) -> String {
    list::<T>(purpose, |_, column| column.name.to_owned())
}

fn arrays<T: Table>(purpose: Purpose, with_ordinality: bool) -> String {
    let arrays = list::<T>(purpose, |number, column| format!("${number}::{}", element_name(&column.value)));
    let names = written::<T>(purpose);
    if with_ordinality {
        format!("unnest({arrays}) with ordinality as k({names}, ord)")
    } else {
        format!("unnest({arrays}) as k({names})")
    }
}

fn element_name<T: Table>(value: &Value<T>) -> String {
    // "_uuid" is the array of "uuid".
    format!("{}[]", value.array_type().name().trim_start_matches('_'))
}

/// A part for each column, with the number of its parameter.
fn list<T: Table>(purpose: Purpose, part: impl Fn(usize, &Column<T>) -> String) -> String {
    let columns = Column::<T>::of(purpose).zip(1..);
    columns.map(|((_, column), number)| part(number, column)).collect::<Vec<_>>().join(", ")
}

impl<T: Table> Value<T> {
    /// The type in the table. For `varchar` the column may also be `text`.
    const fn stored_type(&self) -> &'static str {
        match self {
            Self::Id(_) => "uuid",
            Self::Label(name, _) => name,
            Self::Text(_) => "varchar",
            Self::Bool(_) => "bool",
            Self::Int4(_) => "int4",
            Self::Int8(_) => "int8",
            Self::Time(_) => "timestamptz",
            Self::Degrees(_) => "numeric",
            Self::Ids(_) => "_uuid",
            Self::Texts(_) => "_text",
            Self::Json(_) => "jsonb",
        }
    }

    /// The column's value, converted from an array's element.
    fn of_element(&self, element: &str) -> String {
        match self {
            Self::Label(name, _) => format!("{element}::{{schema}}.{name}"),
            Self::Degrees(_) => format!("{element}::numeric / 100000000"),
            // Most are empty, and are sent as null, which need not be parsed.
            Self::Ids(_) => format!("coalesce({element}::uuid[], array[]::uuid[])"),
            Self::Texts(_) => format!("coalesce({element}::text[], array[]::text[])"),
            Self::Id(_)
            | Self::Text(_)
            | Self::Bool(_)
            | Self::Int4(_)
            | Self::Int8(_)
            | Self::Time(_)
            | Self::Json(_) => element.to_owned(),
        }
    }

    /// The column in the form in which it is read.
    fn read(&self, column: &str) -> String {
        match self {
            // As text, so that no type has to be looked up.
            Self::Label(..) => format!("{column}::text"),
            Self::Degrees(_) => format!("({column} * 100000000)::bigint"),
            _ => column.to_owned(),
        }
    }
}
