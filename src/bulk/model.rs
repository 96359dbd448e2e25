//! The law of a bulk load: its rows equal those that the product's algorithm leaves in tables in memory when each unit
//! is written separately, in order; and a unit that would give two restaurants one Google id is rejected.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::claims::{Claimants, settle};
use super::ids::Ids;
use super::refusals::{Refusal, RefusalLog};
use super::rows::{MentionMerge, Merging, Numbered, PartLimits, RowSink, merge_connections, merge_entities};
use super::runs::{ConnectionRuns, EntityRuns, MentionRuns, TableRuns, rows_of};
use super::spill::{SpillDirectory, SpillError, SpoolWriter};
use crate::batch::simulation::{Drawn, Tables, as_of, at, draft, drawn, stored_form};
use crate::record::{EntityKey, EntityType, Mention, Place, Table};
use crate::store::{Connections, Entities, Mentions, StoredTable};
use crate::unit::{PlaceObservation, SharedUnit, Unit};

/// Places of restaurants in a unit, with ids that other units claim, too.
#[derive(Debug, Clone)]
struct Claim {
    restaurant: u8,
    google: Option<u8>,
    day: i64,
    address: Option<u8>,
    stars: Option<u8>,
}

fn claim() -> impl Strategy<Value = Claim> {
    let maybe = |max| proptest::option::of(0..max);
    (0_u8..4, proptest::option::weighted(0.7, 0_u8..3), 0_i64..4, maybe(2_u8), maybe(2_u8))
        .prop_map(|(restaurant, google, day, address, stars)| Claim { restaurant, google, day, address, stars })
}

fn unit(said: &[Drawn], claims: &[Claim]) -> SharedUnit {
    let mut unit = draft(said, &Tables::default());
    for claim in claims {
        let mut place = PlaceObservation::new(at(claim.day));
        if let Some(google) = claim.google {
            // Some names are prefixes of others.
            place = place.google_place_id("g".repeat(google as usize + 1));
        }
        if let Some(address) = claim.address {
            place = place.address("a".repeat(address as usize));
        }
        if let Some(stars) = claim.stars {
            place = place.metadata(serde_json::json!({"stars": f64::from(stars) * 1e17, "a": [null, -0.0, 1e300]}));
        }
        unit.restaurant(format!("r{}", claim.restaurant)).place(place);
    }
    unit.validate(1_000).unwrap();
    unit.prepare().share()
}

/// Why a unit cannot be written after those before it, derived from the contract without hashes or ranks.
fn refusal(unit: Unit<'_>, tables: &Tables) -> Option<Refusal> {
    let mut places: BTreeMap<String, Arc<Place>> = BTreeMap::new();
    for (key, (_, facts)) in &tables.entities {
        places.extend(facts.place.clone().map(|place| (key.name.to_string(), place)));
    }
    let before = places.clone();
    let names: Vec<String> = (0..unit.block().entities.len())
        .map(|entity| match unit.block().entities[entity] {
            crate::unit::EntityRecord::Key(_, name) => unit.block().text(name).to_owned(),
            crate::unit::EntityRecord::Id(_) => unreachable!("all are named by their keys"),
        })
        .collect();
    for (entity, name) in names.iter().enumerate() {
        let Some(place) = unit.place_of(entity) else { continue };
        let wins = places.get(name).is_none_or(|own| place.precedence(own).is_gt());
        if wins {
            places.insert(name.clone(), Arc::clone(place));
        }
    }
    let changed = places.iter().filter(|(name, place)| before.get(*name) != Some(place));
    let taken = changed.filter_map(|(name, place)| {
        let google = place.google_place_id.as_ref()?;
        let others =
            places.iter().filter(|(other, place)| *other != name && place.google_place_id.as_ref() == Some(google));
        (others.count() > 0).then_some(google)
    });
    let google = taken.min()?;
    let says =
        |entity: &usize| unit.place_of(*entity).is_some_and(|place| place.google_place_id.as_ref() == Some(google));
    let row = (0..names.len()).find(says)?;
    Some(Refusal::PlaceTaken { row, google_place_id: google.clone() })
}

/// The tables made of a load's final rows, and the connection of the last mention.
#[derive(Default)]
struct Loaded {
    tables: Tables,
    last_connection: uuid::Uuid,
}

/// The connections of a restaurant have its id's time, and so have their mentions: they are neighbours.
fn assert_same_time(id: uuid::Uuid, other: uuid::Uuid) {
    assert_eq!(id.get_timestamp(), other.get_timestamp(), "{id} and {other}");
}

impl RowSink<Entities> for Loaded {
    type Error = SpillError;

    fn push<'a>(&mut self, row: &'a <Entities as StoredTable>::Row<'a>) -> Result<(), SpillError> {
        let last = self.tables.entities.values().map(|row| row.0).max();
        assert!(last < Some(row.id), "in the order of the ids");
        let before = self.tables.entities.insert(row.key.clone(), (row.id, row.facts.clone()));
        assert_eq!(before, None, "each once");
        Ok(())
    }
}

impl RowSink<Mentions> for Loaded {
    type Error = SpillError;

    fn push<'a>(&mut self, row: &'a <Mentions as StoredTable>::Row<'a>) -> Result<(), SpillError> {
        assert!(self.last_connection <= row.connection, "in the order of their connections");
        self.last_connection = row.connection;
        assert_same_time(row.id, row.connection);
        let mention = row.texts.mention(row.record);
        let key = (row.connection, mention.source_type, mention.source_id.into());
        let before = self.tables.mentions.insert(key, (row.id, Mention::from(mention)));
        assert_eq!(before, None, "each once");
        self.tables.indexed.extend(row.history_indexed.then_some(row.id));
        Ok(())
    }
}

impl RowSink<Connections> for Loaded {
    type Error = SpillError;

    fn push<'a>(&mut self, row: &'a <Connections as StoredTable>::Row<'a>) -> Result<(), SpillError> {
        let last = self.tables.connections.values().map(|row| row.0).max();
        assert!(last < Some(row.id), "in the order of the ids");
        assert_same_time(row.id, row.key.restaurant);
        let new = (row.id, row.facts.clone().into_owned(), stored_form(&row.metrics));
        let before = self.tables.connections.insert(row.key.clone(), new);
        assert_eq!(before, None, "each once");
        self.tables.indexed.extend(row.history_indexed.then_some(row.id));
        Ok(())
    }
}

/// The memory of each part of a load.
#[derive(Debug, Clone, Copy)]
struct Memory {
    sorting: usize,
    merging: usize,
    block: usize,
    claimants: usize,
    part: PartLimits,
}

fn memory() -> impl Strategy<Value = Memory> {
    let limits = (0_usize..400, 1_usize..60, 0_usize..6).prop_map(|(text_bytes, mentions, threads)| PartLimits {
        text_bytes,
        mentions,
        threads,
    });
    let claimants = prop_oneof![Just(0), Just(70), Just(1 << 10)];
    (prop_oneof![Just(0), 0_usize..4_000, Just(1 << 20)], 0_usize..2_000, 1_usize..300, claimants, limits)
        .prop_map(|(sorting, merging, block, claimants, part)| Memory { sorting, merging, block, claimants, part })
}

/// The result of a load: its tables, the rejected units, and its ids.
fn load(units: &[SharedUnit], memory: Memory) -> (Tables, Vec<(u64, Refusal)>, Ids) {
    let parent = tempfile::tempdir().unwrap();
    let directory = SpillDirectory::create(parent.path(), memory.block).unwrap();
    let mut entities = EntityRuns::new(&directory, memory.sorting);
    let mut connections = ConnectionRuns::new(&directory, memory.sorting);
    let mut mentions = MentionRuns::new(&directory, memory.sorting);
    let mut claimants = Claimants::new(memory.claimants);
    for (number, unit) in (0..).zip(units) {
        let numbered = Numbered { number, unit: unit.get(), is_contingent: claimants.may_refuse(unit.get()) };
        entities.absorb(numbered).unwrap();
        connections.absorb(numbered).unwrap();
        mentions.absorb(numbered).unwrap();
    }
    let mut entities = entities.finish().unwrap();
    let mut log = RefusalLog::new(&directory, memory.sorting);
    let refused =
        settle(entities.claims, &mut entities.entities, &directory, memory.merging, |unit, why| log.push(unit, &why))
            .unwrap();
    let refused_rows = rows_of(&refused, entities.sizes.take()).unwrap();
    let ids = Ids::of_load(as_of());
    let merging = Merging { ids, refused: &refused, as_of: as_of() };
    let mut loaded = Loaded::default();
    merge_entities(entities.entities.into_merged(memory.merging).unwrap(), merging, &mut loaded).unwrap();
    let mentions = mentions.finish().unwrap().0.into_merged(memory.merging).unwrap();
    let writer = SpoolWriter::create(&directory).unwrap();
    let figures = writer.spool();
    MentionMerge::new(merging, writer, &directory, memory.part).run(mentions, &mut loaded).unwrap();
    let connections = connections.finish().unwrap().0.into_merged(memory.merging).unwrap();
    merge_connections(connections, figures.into_reader(), merging, &mut loaded).unwrap();
    let mut refusals = log.finish().unwrap().into_reader(memory.merging).unwrap();
    let refusals: Vec<(u64, Refusal)> = std::iter::from_fn(|| refusals.next().unwrap()).collect();
    for (table, rows) in Table::ALL.into_iter().zip(refused_rows) {
        let of_refused = refusals.iter().map(|(number, _)| units[*number as usize].get().names(table).len() as u64);
        assert_eq!(rows, of_refused.sum::<u64>(), "{table}");
    }
    drop(directory);
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    (loaded.tables, refusals, ids)
}

fn check(units: &[(Vec<Drawn>, Vec<Claim>)], memory: Memory) -> TestCaseResult {
    let units: Vec<SharedUnit> = units.iter().map(|(said, claims)| unit(said, claims)).collect();
    let mut expected = Tables::default();
    let mut refused = Vec::new();
    for (number, unit) in (0..).zip(&units) {
        match refusal(unit.get(), &expected) {
            Some(refusal) => refused.push((number, refusal)),
            None => _ = expected.write_alone(unit.clone()),
        }
    }
    let (loaded, refusals, ids) = load(&units, memory);
    prop_assert_eq!(&refusals, &refused);
    prop_assert_eq!(loaded.natural(), expected.natural());
    loaded.check_figures();
    let is_long = |tables: &Tables| {
        let connections = tables.connections.iter().filter(|(_, row)| tables.indexed.contains(&row.0));
        connections.map(|(_, row)| row.2.mention_count).collect::<Vec<_>>().len()
    };
    prop_assert_eq!(is_long(&loaded), is_long(&expected));
    let mentions = loaded.mentions.iter().filter(|(_, row)| loaded.indexed.contains(&row.0));
    prop_assert!(
        mentions.into_iter().all(|(key, _)| loaded.indexed.contains(&key.0)),
        "no mention of a short history is indexed"
    );
    // A unit's ids are known without reading the tables.
    for (number, unit) in (0..).zip(&units) {
        if refusals.iter().any(|(refused, _)| *refused == number) {
            continue;
        }
        let is_there = |table: Table, id: uuid::Uuid| match table {
            Table::Entities => loaded.entities.values().any(|row| row.0 == id),
            Table::Connections => loaded.connections.values().any(|row| row.0 == id),
            Table::Mentions => loaded.mentions.values().any(|row| row.0 == id),
        };
        for table in Table::ALL {
            for row in 0..unit.get().names(table).len() {
                prop_assert!(is_there(table, ids.row(unit.get(), table, row)));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(384) })]

    #[test]
    fn a_bulk_load_leaves_the_tables_of_unit_by_unit_writes(
        units in vec((vec(drawn(), 0..5), vec(claim(), 0..2)), 1..14)
            .prop_map(|mut units: Vec<(Vec<Drawn>, Vec<Claim>)>| {
                units.retain(|(said, claims)| !said.is_empty() || !claims.is_empty());
                units
            }),
        repeated in vec(any::<prop::sample::Index>(), 0..4),
        memory in memory(),
    ) {
        let mut all = units.clone();
        if !units.is_empty() {
            all.extend(repeated.iter().map(|index| index.get(&units).clone()));
        }
        check(&all, memory)?;
    }

    /// Only claims: ids move from one restaurant to another and back.
    #[test]
    fn google_ids_change_owners_in_bulk_as_in_unit_by_unit_writes(
        units in vec(vec(claim(), 1..4), 1..24),
        memory in memory(),
    ) {
        let units: Vec<_> = units.into_iter().map(|claims| (Vec::new(), claims)).collect();
        check(&units, memory)?;
    }
}

#[test]
fn a_newer_place_releases_its_old_google_id_for_other_restaurants() {
    let claim = |restaurant, google, day| vec![Claim { restaurant, google, day, address: None, stars: None }];
    let units =
        [claim(0, Some(0), 0), claim(1, Some(0), 0), claim(0, None, 1), claim(1, Some(0), 0), claim(2, Some(0), 3)];
    let units: Vec<_> = units.into_iter().map(|claims| unit(&[], &claims)).collect();
    let part = PartLimits::of_memory(1 << 20);
    let (loaded, refusals, _) =
        load(&units, Memory { sorting: 1 << 20, merging: 1 << 20, block: 1024, claimants: 1 << 10, part });
    assert_eq!(refusals.iter().map(|(unit, _)| *unit).collect::<Vec<_>>(), [1, 4]);
    let rejection = refusals[0].1.clone().into_rejection();
    assert_eq!((&*rejection.sqlstate, rejection.column.as_deref()), ("23505", Some("google_place_id")));
    assert_eq!(rejection.detail.as_deref(), Some("Key (google_place_id)=(g) already exists."));
    assert_eq!(rejection.row.unwrap().to_string(), "entity 0");
    let has = |name: &str| {
        let row = loaded.entities.get(&EntityKey::new(EntityType::Restaurant, name))?;
        row.1.place.as_ref()?.google_place_id.clone()
    };
    assert_eq!((has("r0"), has("r1")), (None, Some("g".to_owned())));
    assert!(
        !loaded.entities.contains_key(&EntityKey::new(EntityType::Restaurant, "r2")),
        "a refused unit leaves no row"
    );
}

/// Large mentions are held in memory one at a time. This holds for short histories too, whose rows are written by
/// another path.
#[test]
fn a_short_history_of_large_mentions_is_not_held_in_memory() {
    struct Rows(Vec<(usize, usize, bool)>);
    impl RowSink<Mentions> for Rows {
        type Error = SpillError;

        fn push<'a>(&mut self, row: &'a <Mentions as StoredTable>::Row<'a>) -> Result<(), SpillError> {
            let excerpt = row.texts.mention(row.record).content_excerpt.len();
            self.0.push((row.texts.buffer_bytes(), excerpt, row.history_indexed));
            Ok(())
        }
    }
    const EXCERPT: usize = 100 << 10;
    let excerpt = "x".repeat(EXCERPT);
    let parent = tempfile::tempdir().unwrap();
    let directory = SpillDirectory::create(parent.path(), 4096).unwrap();
    for count in [3_usize, 32, 33, 40] {
        let mut mentions = MentionRuns::new(&directory, 1 << 20);
        for number in 0..count {
            let mut draft = crate::unit::UnitOfWork::new();
            let (restaurant, dish) = (draft.restaurant("r").handle(), draft.dish("d").handle());
            let connection = draft.connection(restaurant, dish).handle();
            let mention = Mention::new(crate::record::SourceType::Post, number.to_string(), "u", "food", as_of());
            draft.mention(connection, mention.excerpt(&excerpt));
            let unit = draft.prepare().share();
            mentions.absorb(Numbered { number: number as u64, unit: unit.get(), is_contingent: false }).unwrap();
        }
        let refused = super::rows::UnitSet::default();
        let merging = Merging { ids: Ids::of_load(as_of()), refused: &refused, as_of: as_of() };
        let records = mentions.finish().unwrap().0.into_merged(1 << 20).unwrap();
        let mut rows = Rows(Vec::new());
        let part = PartLimits { text_bytes: EXCERPT, mentions: 4096, threads: 100 };
        let writer = SpoolWriter::create(&directory).unwrap();
        let mut figures = writer.spool().into_reader();
        MentionMerge::new(merging, writer, &directory, part).run(records, &mut rows).unwrap();
        assert_eq!(rows.0.len(), count);
        for (held, of_row, history_indexed) in rows.0 {
            assert_eq!((of_row, history_indexed), (EXCERPT, count > 32));
            assert!(held < 2 * EXCERPT, "{held} bytes");
        }
        let mut record = Vec::new();
        assert!(figures.next(&mut record).unwrap() && !figures.next(&mut record).unwrap());
    }
}

#[test]
fn figures_of_a_history_beyond_memory_cover_all_of_it() {
    let mentions = |from: u8| Drawn::Mentions { of: (0, 0, None), from, thread: from % 9, observed: 0 };
    let units: Vec<_> = (0..200_u8).map(|number| (vec![mentions(number % 24)], Vec::new())).collect();
    for (text_bytes, mentions, threads) in [(0, 1, 0), (200, 40, 3), (1 << 20, 4096, 1 << 10)] {
        let part = PartLimits { text_bytes, mentions, threads };
        check(&units, Memory { sorting: 2_000, merging: 500, block: 100, claimants: 0, part }).unwrap();
    }
}
