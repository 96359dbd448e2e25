//! The columns of `entities`.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value as JsonValue;
use uuid::Uuid;

use super::Value::{Degrees, Id, Ids, Json, Label, Text, Texts, Time};
use super::encode::write_json;
use super::time::StoredTime;
use super::{Cells, Column, CopyPieces, NextRow, Role, Table};
use crate::batch::EntityWrite;
use crate::error::StoreError;
use crate::record::{Coordinate, EntityFacts, EntityKey, Place, canonical};

/// See [`Table`].
#[derive(Debug)]
pub(crate) enum Entities {}

impl Table for Entities {
    const NAME: &'static str = "entities";
    type Row<'a> = EntityWrite;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("entity_id", Role::Fixed, Id(|row| row.id)),
        Column::new("type", Role::Fixed, Label("entity_type", |row| row.key.entity_type.as_str())),
        Column::new("name", Role::Fixed, Text(|row| Some(&row.key.name))),
        Column::new("aliases", Role::Changing, Texts(|row| &row.facts.aliases)),
        Column::new("restaurant_attributes", Role::Changing, Ids(|row| &row.facts.restaurant_attributes)),
        Column::new("latitude", Role::Changing, Degrees(|row| Some(row.place()?.location?.0.units()))),
        Column::new("longitude", Role::Changing, Degrees(|row| Some(row.place()?.location?.1.units()))),
        Column::new("address", Role::Changing, Text(|row| row.place()?.address.as_deref())),
        // It is a lock of its own, taken after all row locks and in its own order.
        Column::new("google_place_id", Role::Late, Text(|row| row.google_place_id())),
        Column::new(
            "restaurant_metadata",
            Role::Changing,
            Json(|row, buffer| {
                let metadata = row.place().and_then(|place| place.metadata.as_ref());
                metadata.inspect(|metadata| write_json(buffer, metadata)).is_some()
            }),
        ),
        Column::new("place_observed_at", Role::Changing, Time(|row| Some(row.place()?.observed_at))),
    ];
}

/// The columns before an entity's facts.
pub(in crate::store) const ID_AND_KEY: &[&str] = &["entity_id", "type", "name"];

impl NextRow<Entities> for std::slice::Iter<'_, EntityWrite> {
    fn encode_next(&mut self, encoder: &mut CopyPieces<Entities>) -> ControlFlow<(), Option<Bytes>> {
        self.next().map_or(ControlFlow::Break(()), |row| ControlFlow::Continue(encoder.push(row)))
    }
}

/// Reads the columns after [`ID_AND_KEY`].
pub(in crate::store) fn read_facts(cells: &mut Cells<'_>) -> Result<EntityFacts<Uuid>, tokio_postgres::Error> {
    let aliases = cells.set::<&str, Arc<str>>()?;
    let restaurant_attributes = cells.set::<Uuid, _>()?;
    let (latitude, longitude): (Option<i64>, Option<i64>) = (cells.next()?, cells.next()?);
    let address = cells.next()?;
    let google_place_id = cells.next()?;
    let metadata: Option<JsonValue> = cells.next()?;
    let observed_at: Option<StoredTime> = cells.next()?;
    let place = observed_at.map(|StoredTime(observed_at)| {
        let mut metadata = metadata;
        metadata.iter_mut().for_each(canonical);
        let location = latitude.map(Coordinate::from_units).zip(longitude.map(Coordinate::from_units));
        Arc::new(Place { location, address, google_place_id, metadata, observed_at })
    });
    Ok(EntityFacts { aliases, restaurant_attributes, place })
}

/// Reads an entity's type and name.
pub(in crate::store) fn read_key(cells: &mut Cells<'_>) -> Result<EntityKey, StoreError> {
    let entity_type = cells.next::<&str>()?.parse()?;
    Ok(EntityKey { entity_type, name: cells.next::<&str>()?.into() })
}
