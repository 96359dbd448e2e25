//! A load leaves the same database as an engine, and reports the same outcomes.

use std::collections::{BTreeMap, HashMap};

use graphsink::{
    BulkError, BulkLoad, BulkReport, Committed, EntityType, Migrations, Outcome, PlaceObservation, SubmitError,
    UnitOfWork,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use tokio_postgres::Client;
use uuid::Uuid;

use super::{TINY, catalog, close, config, left_in, load, settings};
use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space, runner, seed};
use crate::model::{self, Ids, Record};
use crate::rules::broken;
use crate::spec::{
    self, ConnectionId, ConnectionName, ConnectionSpec, EntityId, EntitySpec, Name, Odds, On, Ref, UnitSpec, World,
};
use crate::support::{Database, as_of, commit, within};

/// The outcome of a unit as its caller receives it.
#[derive(Debug)]
enum Told {
    Invalid(String),
    Outcome(Outcome),
}

/// The outcomes of an engine with one producer, unit by unit.
async fn by_engine(database: &Database, units: Vec<UnitOfWork>) -> Vec<Told> {
    let engine = database.engine().await;
    let mut told = Vec::new();
    for unit in units {
        told.push(match engine.submit(unit).await {
            Ok(receipt) => Told::Outcome(within(receipt).await),
            Err(SubmitError::Invalid(invalid)) => Told::Invalid(invalid.to_string()),
            Err(other) => panic!("{other}"),
        });
    }
    close(engine).await;
    told
}

/// The outcomes of a load.
async fn by_load(database: &Database, memory: usize, units: Vec<UnitOfWork>) -> (Vec<Told>, BulkReport) {
    let (directory, settings) = settings(memory);
    let load = BulkLoad::begin(config(database), settings).await.unwrap();
    let (mut told, mut places) = (Vec::new(), Vec::new());
    for unit in units {
        match within(load.submit(unit)).await {
            Ok(number) => {
                assert_eq!(number, places.len() as u64);
                places.push(told.len());
                // Repeats until the outcome is known.
                told.push(Told::Invalid(String::new()));
            }
            Err(BulkError::Invalid(invalid)) => told.push(Told::Invalid(invalid.to_string())),
            Err(other) => panic!("{other}"),
        }
    }
    let report = within(load.finish()).await.unwrap();
    let outcomes: Vec<_> = report.outcomes().unwrap().unwrap().map(Result::unwrap).collect();
    assert_eq!(outcomes.len() as u64, report.units);
    let rejected = outcomes.iter().filter_map(|(number, outcome)| match outcome {
        Outcome::Rejected(rejection) => Some((*number, rejection.clone())),
        _ => None,
    });
    let rejections: Vec<_> = report.rejections().unwrap().map(Result::unwrap).collect();
    assert_eq!(rejections, rejected.collect::<Vec<_>>());
    assert_eq!((report.rejected, report.committed), (rejections.len() as u64, report.units - report.rejected));
    for (number, (told_number, outcome)) in (0..).zip(outcomes) {
        assert_eq!(told_number, number, "each outcome once, in the order of submission");
        told[places[number as usize]] = Told::Outcome(outcome);
    }
    assert_eq!(left_in(&directory).len(), 2, "the directory of the outcomes and its lock remain");
    (told, report)
}

/// The rows that the ids of a database stand for.
async fn keys(client: &Client) -> HashMap<Uuid, String> {
    let rows = client
        .query(
            "select entity_id, 'entity ' || type::text || ' ' || name from entities
             union all
             select c.connection_id, 'connection ' || r.name || '/' || d.name || '/'
                    || (select coalesce(string_agg(a.name, ',' order by a.name collate \"C\"), '') from entities a
                        where a.entity_id = any(c.dish_attributes))
             from connections c join entities r on r.entity_id = c.restaurant_id
             join entities d on d.entity_id = c.dish_or_category_id
             union all
             select m.mention_id, 'mention ' || m.source_type::text || ' ' || m.source_id from mentions m",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The rows in a unit's outcome, by content, and its temporary ids.
fn natural(committed: &Committed, keys: &HashMap<Uuid, String>) -> (Vec<String>, BTreeMap<String, String>) {
    let rows = committed.entities.iter().chain(&committed.connections).chain(&committed.mentions);
    let labels = committed.temp_ids();
    let labels = labels.iter().map(|(label, id)| ((*label).to_owned(), keys[id].clone()));
    (rows.map(|row| keys[&row.id].clone()).collect(), labels.collect())
}

/// Loads the same units both ways, and compares rows and outcomes. Returns the numbers of committed, rejected and
/// invalid units.
async fn compare(memory: usize, units: impl Fn() -> Vec<UnitOfWork>) -> [usize; 3] {
    let (online, bulk) = (Database::migrated().await, Database::migrated().await);
    let by_engine = by_engine(&online, units()).await;
    let (by_load, report) = by_load(&bulk, memory, units()).await;
    let (online, bulk) = (online.client().await, bulk.client().await);
    assert_same(&database::read(&online).await, &database::read(&bulk).await);
    let written = [report.entities, report.connections, report.mentions].map(|rows| rows.written as i64);
    assert_eq!(super::rows(&bulk).await, written);
    let (online, bulk) = (keys(&online).await, keys(&bulk).await);
    let mut counts = [0; 3];
    for (number, (engine, load)) in by_engine.iter().zip(&by_load).enumerate() {
        match (engine, load) {
            (Told::Outcome(Outcome::Committed(engine)), Told::Outcome(Outcome::Committed(load))) => {
                assert_eq!(natural(engine, &online), natural(load, &bulk), "unit {number}");
                counts[0] += 1;
            }
            (Told::Outcome(Outcome::Rejected(engine)), Told::Outcome(Outcome::Rejected(load))) => {
                assert_eq!(engine, load, "unit {number}");
                counts[1] += 1;
            }
            (Told::Invalid(engine), Told::Invalid(load)) => {
                assert_eq!(engine, load, "unit {number}");
                counts[2] += 1;
            }
            _ => panic!("unit {number}: the engine's outcome is {engine:?}, the load's {load:?}"),
        }
    }
    assert_eq!(by_engine.len(), by_load.len());
    counts
}

/// Records, grouped into units.
fn units_of(records: &[Record], sizes: &[usize]) -> Vec<UnitOfWork> {
    let (mut units, mut rest) = (Vec::new(), records);
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (own, others) = rest.split_at((*size).min(rest.len()));
        units.push(model::unit(own, &Ids::default()));
        rest = others;
    }
    units
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_leaves_the_graph_of_the_model_whatever_the_order_and_the_memory() {
    let seed = seed("bulk records");
    let mut random = StdRng::seed_from_u64(seed);
    let space = Space { sources: 60, ..Space::tiny(as_of()) };
    let records = generate::sample(seed, space, 900);
    for memory in [TINY, 1 << 20, 256 << 20] {
        let mut said: Vec<Record> = records.clone();
        said.extend((0..200).map(|_| records.choose(&mut random).unwrap().clone()));
        said.shuffle(&mut random);
        let database = Database::migrated().await;
        let client = database.client().await;
        let migrated = catalog::dump(&client, "public").await;
        let (directory, settings) = settings(memory);
        let report = load(&database, settings, units_of(&said, &[1, 3, 7, 2])).await.unwrap();
        assert_eq!(report.rejected, 0);
        println!("{memory} bytes of memory, {} spilled", report.spilled_bytes);
        assert!(memory > TINY || report.spilled_bytes > 100_000, "{}", report.spilled_bytes);
        let mut expected = model::graph(&said, as_of());
        assert_same(&expected, &database::read(&client).await);
        assert_group_by(&client, as_of()).await;
        catalog::assert_same_catalog("after a load", &migrated, &catalog::dump(&client, "public").await);
        drop(report);
        assert_eq!(left_in(&directory), Vec::<String>::new());

        // An engine continues in these tables, by names and by ids.
        let engine = database.small_engine(40, 2).await;
        let more = generate::sample(seed ^ 1, space, 300);
        let ids = database::ids(&client).await;
        for records in more.chunks(5) {
            commit(&engine, model::unit(records, &ids)).await;
        }
        close(engine).await;
        said.extend(more);
        expected = model::graph(&said, as_of());
        assert_same(&expected, &database::read(&client).await);
        assert_group_by(&client, as_of()).await;
    }
}

/// Replaces ids of the world in a unit by rows of the unit, which come first.
fn name_all(unit: &mut UnitSpec) {
    let new = |reference: &mut Ref| match *reference {
        Ref::Row(row) => *reference = Ref::Row(row + World::ENTITIES),
        Ref::Id(EntityId::Known(known)) => *reference = Ref::Row(known),
        Ref::Id(_) | Ref::Foreign => {}
    };
    for entity in &mut unit.entities {
        if let Name::Id(EntityId::Known(known)) = entity.name {
            entity.name = Name::Key(World::type_of(known), World::name_of(known));
        }
        entity.attributes.iter_mut().for_each(new);
    }
    let known = (0..World::ENTITIES).map(|known| {
        let name = Name::Key(World::type_of(known), World::name_of(known));
        EntitySpec { name, aliases: Vec::new(), attributes: Vec::new(), places: Vec::new(), temp_id: None }
    });
    unit.entities.splice(0..0, known);
    for connection in &mut unit.connections {
        match &mut connection.name {
            ConnectionName::Key { restaurant, dish } => [restaurant, dish].into_iter().for_each(new),
            ConnectionName::Id(ConnectionId::Known) => connection.name = known_connection(),
            ConnectionName::Id(_) => {}
        }
        connection.dish_attributes.iter_mut().chain(&mut connection.categories).for_each(new);
    }
    for mention in &mut unit.mentions {
        if let On::Id(ConnectionId::Known) = mention.on {
            mention.on = On::Row(unit.connections.len());
            let (dish_attributes, categories) = (Vec::new(), Vec::new());
            let name = known_connection();
            unit.connections.push(ConnectionSpec { name, dish_attributes, categories, menu_item: None });
        }
    }
}

fn known_connection() -> ConnectionName {
    ConnectionName::Key { restaurant: Ref::Row(0), dish: Ref::Row(2) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_units_have_the_outcomes_of_an_engine() {
    let mut runner = runner(seed("bulk hostile"), 240);
    let odds = Odds { invalid: 3, misleading: 15, all_times: true, as_of: as_of() };
    let strategy = spec::unit(odds);
    let cases = runner.config().cases as usize;
    let mut units: Vec<UnitSpec> = (0..cases).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    // There are no rows yet, so all ids are missing; most units get names in place of them.
    units.iter_mut().enumerate().filter(|(number, _)| number % 5 > 0).for_each(|(_, unit)| name_all(unit));
    let world = World::imagined();
    let counts = compare(TINY, || units.iter().map(|unit| unit.build(&world)).collect()).await;
    println!("committed, rejected, invalid: {counts:?}");
    assert_eq!(counts[2], units.iter().filter(|unit| !broken(unit, 10_000).is_empty()).count());
    assert!(cases < 200 || counts.iter().all(|count| *count > 5), "{counts:?}");
}

/// Observations of one restaurant: the age in days, and the id.
type Claim = (u8, i64, Option<u8>);

fn claims() -> impl Strategy<Value = Vec<Vec<Claim>>> {
    vec(vec((0..8_u8, 0..60_i64, proptest::option::weighted(0.8, 0..5_u8)), 1..4), 80)
}

fn unit_of_claims(claims: &[Claim]) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    for (restaurant, age, google) in claims {
        let mut place = PlaceObservation::new(as_of() - chrono::TimeDelta::days(*age));
        if let Some(google) = google {
            place = place.google_place_id(format!("google {google}"));
        }
        unit.restaurant(format!("restaurant {restaurant}")).place(place).temp_id(format!("r{restaurant}")).handle();
        unit.dish(format!("dish {restaurant}")).handle();
    }
    unit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn google_ids_change_owners_as_in_an_engine() {
    let mut runner = runner(seed("bulk claims"), 4);
    for memory in [TINY, 256 << 20, TINY, TINY] {
        let claims = claims().new_tree(&mut runner).unwrap().current();
        let counts = compare(memory, || claims.iter().map(|claims| unit_of_claims(claims)).collect()).await;
        println!("committed, rejected, invalid: {counts:?}");
        assert!(counts[0] > 5 && counts[1] > 5, "{counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_rejected_units_are_not_counted_as_received() {
    let database = Database::migrated().await;
    let (_directory, settings) = settings(TINY);
    let units = [(0, 0, Some(0)), (1, 0, Some(0)), (2, 0, Some(1))].map(|claim| unit_of_claims(&[claim]));
    let mut units = Vec::from(units);
    let mut of_nothing = UnitOfWork::new();
    of_nothing.existing_entity(Uuid::from_u128(7)).handle();
    units.push(of_nothing);
    let report = load(&database, settings, units).await.unwrap();
    assert_eq!((report.units, report.committed, report.rejected), (4, 2, 2));
    assert_eq!((report.entities.received, report.entities.written, report.entities.coalesced()), (4, 4, 0));
    let rejected: Vec<_> = report.rejections().unwrap().map(Result::unwrap).collect();
    let told: Vec<_> = rejected.iter().map(|(number, why)| (*number, &*why.sqlstate)).collect();
    assert_eq!(told, [(1, "23505"), (3, "23503")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_loaded_without_read_indexes_get_them_from_a_later_migration() {
    let database = Database::empty().await;
    let config = database.config().build().unwrap();
    Migrations::tables_only().run(&config).await.unwrap();
    let (_directory, settings) = settings(1 << 20);
    let mut unit = UnitOfWork::new();
    unit.entity(EntityType::Restaurant, "franklin bbq").handle();
    assert_eq!(load(&database, settings, [unit]).await.unwrap().committed, 1);
    Migrations::all().run(&config).await.unwrap();
    let other = Database::migrated().await;
    let dump = catalog::dump(&database.client().await, "public").await;
    catalog::assert_same_catalog("indexes later", &catalog::dump(&other.client().await, "public").await, &dump);
}
