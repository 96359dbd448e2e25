//! Units generated from drawn values, and their expected outcomes.

use super::*;
use crate::unit::{ConnectionHandle, EntityHandle};

/// One statement of a unit. `by_id`: by the id, if the row exists by then.
#[derive(Debug, Clone)]
pub(crate) enum Drawn {
    Restaurant {
        name: u8,
        by_id: bool,
        alias: Option<u8>,
        attribute: Option<u8>,
        place: Option<(u8, bool, i64)>,
    },
    Dish {
        name: u8,
        by_id: bool,
        alias: Option<u8>,
    },
    Connection {
        of: (u8, u8, Option<u8>),
        by_id: bool,
        ends_by_id: bool,
        category: Option<u8>,
        menu: bool,
    },
    Mention {
        of: (u8, u8, Option<u8>),
        by_id: bool,
        source: u8,
        thread: u8,
        upvotes: i32,
        created: i64,
        observed: i64,
    },
    /// Slightly more than half the mentions of a short history.
    Mentions {
        of: (u8, u8, Option<u8>),
        from: u8,
        thread: u8,
        observed: i64,
    },
}

pub(crate) fn drawn() -> impl Strategy<Value = Drawn> {
    let of = || (0_u8..2, 0_u8..3, proptest::option::weighted(0.3, 0_u8..2));
    let place = (0_u8..3, any::<bool>(), 0_i64..3);
    prop_oneof![
        1 => (0_u8..3, any::<bool>(), any::<Option<bool>>(), proptest::option::of(0_u8..3), proptest::option::of(place))
            .prop_map(|(name, by_id, alias, attribute, place)| {
                Drawn::Restaurant { name, by_id, alias: alias.map(u8::from), attribute, place }
            }),
        1 => (0_u8..3, any::<bool>(), proptest::option::of(0_u8..3))
            .prop_map(|(name, by_id, alias)| Drawn::Dish { name, by_id, alias }),
        1 => (of(), any::<bool>(), any::<bool>(), proptest::option::of(0_u8..3), any::<bool>())
            .prop_map(|(of, by_id, ends_by_id, category, menu)| Drawn::Connection { of, by_id, ends_by_id, category, menu }),
        3 => (of(), any::<bool>(), 0_u8..8, 0_u8..4, -2_i32..6, 0_i64..61, 0_i64..3).prop_map(
            |(of, by_id, source, thread, upvotes, created, observed)| {
                Drawn::Mention { of, by_id, source, thread, upvotes, created, observed }
            }
        ),
        1 => (of(), 0_u8..3, 0_u8..9, 0_i64..3)
            .prop_map(|(of, from, thread, observed)| Drawn::Mentions { of, from, thread, observed }),
    ]
}

/// The name of an entity.
pub(super) fn name(entity_type: EntityType, number: u8) -> String {
    let letter = match entity_type {
        EntityType::Restaurant => 'r',
        EntityType::DishOrCategory => 'd',
        EntityType::DishAttribute => 'a',
        EntityType::RestaurantAttribute => 'p',
    };
    format!("{letter}{number}")
}

/// A unit with these statements, for rows as named in the tables.
pub(super) fn unit(said: &[Drawn], tables: &Tables) -> crate::unit::SharedUnit {
    let unit = draft(said, tables);
    unit.validate(1_000).unwrap();
    unit.prepare().share()
}

/// The same as a draft, to be extended.
pub(crate) fn draft(said: &[Drawn], tables: &Tables) -> UnitOfWork {
    let mut speaker = Speaker { unit: UnitOfWork::new(), tables };
    for said in said {
        speaker.say(said);
    }
    speaker.unit
}

/// The numbers of a connection's restaurant, dish and attribute.
type Ends = (u8, u8, Option<u8>);

struct Speaker<'a> {
    unit: UnitOfWork,
    tables: &'a Tables,
}

impl Speaker<'_> {
    fn say(&mut self, said: &Drawn) {
        match *said {
            Drawn::Restaurant { name, by_id, alias, attribute, place } => {
                self.restaurant(name, by_id, alias, attribute, place);
            }
            Drawn::Dish { name, by_id, alias } => {
                let own = self.entity(EntityType::DishOrCategory, name, by_id);
                if let Some(alias) = alias {
                    self.unit.again(own).alias(self::name(EntityType::DishOrCategory, alias));
                }
            }
            Drawn::Connection { of, by_id, ends_by_id, category, menu } => {
                let category = category.map(|name| self.entity(EntityType::DishOrCategory, name, by_id));
                let own = match self.existing(of).filter(|_| by_id) {
                    Some(id) => self.unit.existing_connection(id).handle(),
                    None => self.connection(of, ends_by_id),
                };
                self.unit.say_more(own).menu_item(menu).categories(category).handle();
            }
            Drawn::Mention { of, by_id, source, thread, upvotes, created, observed } => {
                let source_type = if source % 2 == 0 { SourceType::Post } else { SourceType::Comment };
                let mention = Mention::new(source_type, format!("s{}", source / 2), "u", "s", at(created))
                    .thread(format!("t{thread}"))
                    .upvotes(upvotes)
                    .observed_at(at(70 + observed));
                if let Some(id) = self.existing(of).filter(|_| by_id) {
                    self.unit.mention(id, mention);
                } else {
                    let own = self.connection(of, by_id);
                    self.unit.mention(own, mention);
                }
            }
            Drawn::Mentions { of, from, thread, observed } => {
                let own = self.connection(of, false);
                for number in 0..18 {
                    let source = format!("m{}", from * 10 + number);
                    let mention = Mention::new(SourceType::Post, source, "u", "s", at((number * 7 + thread).into()))
                        .thread(format!("t{}", (number + thread) % 11))
                        .observed_at(at(200 + observed));
                    self.unit.mention(own, mention);
                }
            }
        }
    }

    fn restaurant(
        &mut self,
        name: u8,
        by_id: bool,
        alias: Option<u8>,
        attribute: Option<u8>,
        place: Option<(u8, bool, i64)>,
    ) {
        let attribute = attribute.map(|name| self.entity(EntityType::RestaurantAttribute, name, by_id));
        let own = self.entity(EntityType::Restaurant, name, by_id);
        // One of the aliases is the restaurant's own name.
        let alias = alias.map(|alias| self::name(EntityType::Restaurant, alias));
        let builder = self.unit.again(own).aliases(alias).attributes(attribute);
        if let Some((number, google, day)) = place {
            let mut place = PlaceObservation::new(at(day)).address(number.to_string());
            if google {
                place = place.google_place_id(format!("{} {number}", 9 - name));
            }
            builder.place(place);
        }
    }

    fn entity(&mut self, entity_type: EntityType, number: u8, by_id: bool) -> EntityHandle {
        let name = name(entity_type, number);
        match self.tables.id(entity_type, &name) {
            Some(id) if by_id => self.unit.existing_entity(id).handle(),
            _ => self.unit.entity(entity_type, name).handle(),
        }
    }

    /// The id of a connection that exists by then.
    fn existing(&self, (at, of, attribute): Ends) -> Option<Uuid> {
        let id = |entity_type, number| self.tables.id(entity_type, &name(entity_type, number));
        let attributes = attribute.map(|number| id(EntityType::DishAttribute, number));
        let key = ConnectionKey {
            restaurant: id(EntityType::Restaurant, at)?,
            dish: id(EntityType::DishOrCategory, of)?,
            dish_attributes: attributes.into_iter().collect::<Option<Vec<_>>>()?.into_iter().collect(),
        };
        self.tables.connections.get(&key).map(|row| row.0)
    }

    fn connection(&mut self, (at, of, attribute): Ends, by_id: bool) -> ConnectionHandle {
        let at = self.entity(EntityType::Restaurant, at, by_id);
        let served = self.entity(EntityType::DishOrCategory, of, by_id);
        let attribute = attribute.map(|number| self.entity(EntityType::DishAttribute, number, by_id));
        self.unit.connection(at, served).menu_item(false).dish_attributes(attribute).handle()
    }
}

/// Checks that the ids in a unit's outcome lead to the rows that it named.
pub(super) fn check_ids(unit: crate::unit::Unit<'_>, committed: &Committed, tables: &Tables) {
    for (entity, CommittedRow { id, .. }) in unit.block().entities.iter().zip(&committed.entities) {
        match entity {
            EntityRecord::Key(entity_type, name) => {
                assert_eq!(tables.entities[&EntityKey::new(*entity_type, unit.block().text(*name))].0, *id);
            }
            EntityRecord::Id(named) => assert_eq!(named, id),
        }
    }
    for (connection, CommittedRow { id, .. }) in unit.block().connections.iter().zip(&committed.connections) {
        assert!(tables.connections.values().any(|row| row.0 == *id));
        if let ConnectionRecordName::Id(named) = connection.name {
            assert_eq!(named, *id);
        }
    }
    for (place, CommittedRow { id, .. }) in committed.mentions.iter().enumerate() {
        let mention = unit.block().mention(place);
        let row = tables.mentions.iter().find(|(_, row)| row.0 == *id).unwrap();
        assert_eq!((row.0.1, &*row.0.2), (mention.source_type, mention.source_id));
        let is_won = mention.precedence(&(&row.1.1).into()).is_le();
        assert!(is_won, "the row is this observation, or one that wins against it");
    }
    let given = (committed.entities.len(), committed.connections.len(), committed.mentions.len());
    let named = Table::ALL.map(|table| unit.block().rows_of(table));
    assert_eq!([given.0, given.1, given.2], named);
}
