//! Records of connections.

use uuid::Uuid;

use super::fields::{Fields, Malformed, PutFields};
use super::figures::FiguresReader;
use super::{Merging, Numbered, RowSink};
use crate::batch::{ConnectionWrite, is_long};
use crate::bulk::ids::connection_name;
use crate::bulk::spill::{Merged, SpillError, SpoolReader};
use crate::record::{ConnectionFacts, ConnectionKey, ConnectionMetrics, Table};
use crate::store::Connections;
use crate::unit::{ConnectionRecordName, NameHash};

/// Writes the record of one of a unit's connections, which is named by its key.
pub(in crate::bulk) fn put_connection(record: &mut Vec<u8>, numbered: Numbered<'_>, connection: usize) {
    let block = numbered.unit.block();
    let said = block.connections[connection];
    let ConnectionRecordName::Key { restaurant, dish } = said.name else {
        unreachable!("units that name rows by their ids were refused");
    };
    let entities = numbered.unit.names(Table::Entities);
    record.put_name(connection_name(numbered.unit, connection));
    record.put_number(numbered.if_needed(numbered.is_contingent));
    record.put_name(entities[restaurant.own()]);
    record.put_name(entities[dish.own()]);
    record.put_byte(u8::from(said.is_menu_item));
    record.put_names(block.dish_attributes_of(connection).map(|attribute| entities[attribute]));
    record.put_names(block.categories_of(connection).map(|category| entities[category]));
}

/// A connection with all facts read so far.
struct Connection {
    name: NameHash,
    key: ConnectionKey<Uuid>,
    facts: ConnectionFacts<Uuid>,
}

/// Makes final rows of sorted records, and of figures in the same order.
pub(in crate::bulk) fn merge_connections<S: RowSink<Connections>>(
    mut records: Merged,
    figures: SpoolReader,
    merging: Merging<'_>,
    rows: &mut S,
) -> Result<(), S::Error> {
    let mut figures = FiguresReader::new(figures)?;
    let mut current: Option<Connection> = None;
    while let Some(record) = records.next()? {
        let mut fields = Fields(record);
        let name = fields.name().map_err(SpillError::from)?;
        let number = fields.number().map_err(SpillError::from)?;
        if !merging.counts(number) {
            continue;
        }
        if current.as_ref().is_none_or(|current| current.name != name) {
            let next = Connection::begin(name, fields, merging).map_err(SpillError::from)?;
            if let Some(whole) = current.replace(next) {
                write(whole, &mut figures, merging, rows)?;
            }
        } else if let Some(current) = &mut current {
            current.take_in(fields, merging).map_err(SpillError::from)?;
        }
    }
    if let Some(last) = current {
        write(last, &mut figures, merging, rows)?;
    }
    figures.end()?;
    Ok(())
}

impl Connection {
    fn begin(name: NameHash, mut fields: Fields<'_>, merging: Merging<'_>) -> Result<Self, Malformed> {
        let ids = merging.ids;
        let all = fields;
        let (restaurant, dish) = (ids.id(fields.name()?), ids.id(fields.name()?));
        fields.byte()?;
        let dish_attributes = fields.names()?.map(|name| ids.id(name)).collect();
        let key = ConnectionKey { restaurant, dish, dish_attributes };
        let mut connection = Self { name, key, facts: ConnectionFacts::default() };
        connection.take_in(all, merging)?;
        Ok(connection)
    }

    /// Adds a record's facts; the key is the same in each record.
    fn take_in(&mut self, mut fields: Fields<'_>, merging: Merging<'_>) -> Result<(), Malformed> {
        fields.name()?;
        fields.name()?;
        self.facts.is_menu_item |= fields.byte()? != 0;
        drop(fields.names()?);
        for category in fields.names()? {
            self.facts.categories.insert(merging.ids.id(category));
        }
        Ok(())
    }
}

fn write<S: RowSink<Connections>>(
    connection: Connection,
    figures: &mut FiguresReader,
    merging: Merging<'_>,
    rows: &mut S,
) -> Result<(), S::Error> {
    let Connection { name, key, facts } = connection;
    let metrics = figures.of(name)?;
    let metrics =
        metrics.unwrap_or_else(|| ConnectionMetrics::from_mentions::<&crate::record::Mention>([], merging.as_of));
    let history_indexed = is_long(metrics.mention_count.unsigned_abs() as usize);
    rows.push(&ConnectionWrite::of_merged(merging.ids.id(name), &key, &facts, metrics, history_indexed))
}
