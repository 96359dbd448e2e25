//! The rejection of a unit or a merge, from the error that it caused alone.

use crate::error::StoreError;
use crate::outcome::{RejectReason, Rejection};
use crate::record::{Place, Table};
use crate::unit::{Row, Unit};

/// The rejection of a unit that failed alone.
pub(super) fn rejection(error: &StoreError, row: Option<Row>) -> Rejection {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let db = error.db();
    let constraint = db.and_then(|error| error.constraint());
    // A row that a trigger left out has no PostgreSQL error: the code is that of a change by a trigger.
    let (own_code, own_table) = match error {
        StoreError::LeftOut { table, .. } => ("27000", table.as_deref()),
        _ => ("XX000", None),
    };
    Rejection {
        reason: RejectReason::Database,
        sqlstate: error.sqlstate().unwrap_or(own_code).to_owned(),
        table: text(db.and_then(|error| error.table()).or(own_table)),
        column: text(db.and_then(|error| error.column())).or_else(|| column_of(constraint)),
        constraint: text(constraint),
        row,
        message: db.map_or_else(|| error.to_string(), |error| error.message().to_owned()),
        detail: text(db.and_then(|error| error.detail())),
        dead_letter: None,
    }
}

/// The column of a constraint; PostgreSQL names it only for some errors.
fn column_of(constraint: Option<&str>) -> Option<String> {
    match constraint? {
        "entities_google_place_id_key" => Some("google_place_id".to_owned()),
        "connections_restaurant_id_fkey" => Some("restaurant_id".to_owned()),
        "connections_dish_or_category_id_fkey" => Some("dish_or_category_id".to_owned()),
        _ => None,
    }
}

/// The row of the unit that an error is about: the only one of its table, or the one whose Google id the server's
/// detail quotes.
pub(super) fn blamed_row(error: &StoreError, unit: Unit<'_>) -> Option<Row> {
    let error = error.db()?;
    let only = |table, rows: usize| (rows == 1).then_some(Row { table, index: 0 });
    match error.table()? {
        "entities" if error.constraint() == Some("entities_google_place_id_key") => {
            let detail = error.detail().unwrap_or_default();
            let holds =
                |place: &Place| place.google_place_id.as_ref().is_some_and(|id| detail.contains(&format!("=({id})")));
            let mut entities = 0..unit.block().entities.len();
            let index = entities.find(|entity| unit.place_of(*entity).is_some_and(|place| holds(place)))?;
            Some(Row { table: Table::Entities, index })
        }
        "entities" => only(Table::Entities, unit.block().entities.len()),
        "connections" => only(Table::Connections, unit.block().connections.len()),
        "mentions" => only(Table::Mentions, unit.block().mentions.len()),
        _ => None,
    }
}
