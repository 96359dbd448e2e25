//! Ids of names are remembered from one transaction to the next. No change of the tables between transactions, or
//! within one, makes a difference: an engine that remembers names leaves the same database as one that looks all of
//! them up.

use std::time::Duration;

use graphsink::{
    Config, Disposition, Engine, EntityKey, EntityMerge, EntityType, Mention, MergeOutcome, Migrations, Outcome,
    SourceType, Stats, UnitOfWork,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space};
use crate::model::{self, Ids, Record};
use crate::proxy::{Action, At, Fault, Proxy};
use crate::sorted_sets;
use crate::support::{Database, as_of, commit, outcome, seed, within};

/// A mention of a dish with an attribute and a category, at a restaurant. No fact is stated about the four entities
/// except that they exist.
fn mention(number: usize, source: &str) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let [restaurant, dish] = [unit.restaurant(format!("r{number}")).handle(), unit.dish(format!("d{number}")).handle()];
    let [category, attribute] = [unit.dish(format!("c{number}")).handle(), unit.dish_attribute("hot").handle()];
    let connection = unit.connection(restaurant, dish).category(category).dish_attribute(attribute).handle();
    unit.mention(connection, Mention::new(SourceType::Post, source, "https://example.org", "food", as_of()));
    unit
}

fn known(stats: &Stats) -> (u64, u64) {
    (stats.known_names_hits, stats.known_names_misses)
}

/// The id of a name in the database.
async fn id(client: &Client, name: &str) -> Option<Uuid> {
    let query = "select entity_id from entities where name = $1";
    client.query_opt(query, &[&name]).await.unwrap().map(|row| row.get(0))
}

async fn engine(config: graphsink::ConfigBuilder) -> Engine {
    Engine::start(config.in_flight_commits(1).build().unwrap()).await.unwrap()
}

/// Deletes an entity and the rows that refer to it.
pub(super) fn delete(name: &str) -> String {
    format!(
        "with gone as (select entity_id from entities where name = '{name}'),
              of_it as (select connection_id from connections
                        where restaurant_id in (table gone) or dish_or_category_id in (table gone)
                           or dish_attributes && array(table gone))
         delete from mentions where connection_id in (table of_it);
         with gone as (select entity_id from entities where name = '{name}')
         delete from connections
         where restaurant_id in (table gone) or dish_or_category_id in (table gone) or dish_attributes && array(table gone);
         update connections set categories = array_remove(categories, e.entity_id)
         from entities e where e.name = '{name}' and categories @> array[e.entity_id];
         update entities r set restaurant_attributes = array_remove(r.restaurant_attributes, e.entity_id)
         from entities e where e.name = '{name}' and r.restaurant_attributes @> array[e.entity_id];
         delete from entities where name = '{name}'"
    )
}

fn swap(one: &str, other: &str) -> String {
    format!(
        "update entities set name = '~' where name = '{one}';
         update entities set name = '{one}' where name = '{other}';
         update entities set name = '{other}' where name = '~'"
    )
}

/// Replaces all entities by rows with other ids.
const RELOAD: &str = "create temp table kept on commit drop as table entities;
    truncate entities cascade;
    insert into entities (entity_id, name, type) select gen_random_uuid(), name, type from kept";

const SWITCH: &str = "alter table entities disable trigger graphsink_entity_deleted";
const SWITCH_BACK: &str = "alter table entities enable always trigger graphsink_entity_deleted";

/// A lookup that is left out touches no table: a lock on the tables would block every lookup.
#[tokio::test(flavor = "multi_thread")]
async fn known_names_are_not_looked_up() {
    let database = Database::migrated().await;
    let settings =
        || database.config().lock_timeout(Duration::from_millis(100)).outcome_deadline(Duration::from_secs(1));
    let [remembers, asks] = [engine(settings()).await, engine(settings().known_names_max(0)).await];
    let client = database.client().await;
    for engine in [&remembers, &asks] {
        commit(engine, mention(1, "first")).await;
    }
    assert_eq!((known(&remembers.stats()), known(&asks.stats())), ((0, 4), (0, 0)));
    client.batch_execute("begin; lock table entity_redirects").await.unwrap();
    let committed = commit(&remembers, mention(1, "second")).await;
    assert!(committed.entities.iter().all(|row| row.disposition == Disposition::Unchanged));
    assert_eq!(committed.entities[0].id, id(&client, "r1").await.unwrap());
    assert_eq!(known(&remembers.stats()), (4, 4));
    assert!(matches!(outcome(&asks, mention(1, "third")).await, Outcome::Unavailable(_)), "a lookup waits");
    client.batch_execute("rollback").await.unwrap();

    // For a fact that is not known to be stored the row is read once, and for a place always.
    let more = |source: &str| {
        let mut more = mention(1, source);
        let patio = more.restaurant_attribute("patio").handle();
        more.restaurant("r1").alias("R1").attribute(patio);
        more.restaurant("r2");
        more
    };
    commit(&remembers, more("fourth")).await;
    assert_eq!(known(&remembers.stats()), (4 + 3, 4 + 3));
    client.batch_execute("begin; lock table entity_redirects").await.unwrap();
    let committed = commit(&remembers, more("fifth")).await;
    assert!(committed.entities.iter().all(|row| row.disposition == Disposition::Unchanged));
    assert_eq!(known(&remembers.stats()), (4 + 3 + 6, 4 + 3));
    client.batch_execute("rollback").await.unwrap();
    let mut placed = more("sixth");
    placed.restaurant("r2").place(graphsink::PlaceObservation::new(as_of()).address("12 Oak St"));
    commit(&remembers, placed).await;
    assert_eq!(known(&remembers.stats()), (4 + 3 + 6 + 5, 4 + 3 + 1));
    let mut other = mention(1, "seventh");
    other.restaurant("r1").alias("Another");
    commit(&remembers, other).await;
    assert_eq!(known(&remembers.stats()), (4 + 3 + 6 + 5 + 3, 4 + 3 + 1 + 1));
    let aliases: Vec<String> =
        client.query_one("select aliases from entities where name = 'r1'", &[]).await.unwrap().get(0);
    assert_eq!(aliases, ["Another", "R1"]);
    assert_group_by(&client, as_of()).await;
}

/// Changes by other programs between two epochs. Each is a transaction; `true` if ids may be wrong afterwards.
fn deeds() -> Vec<(String, bool)> {
    let roll_back = |sql: &str| format!("savepoint s; {sql}; rollback to savepoint s");
    let replicated = |sql: &str| format!("set local session_replication_role = replica; {sql}");
    vec![
        (delete("r1"), true),
        (delete("hot"), true),
        (replicated(&delete("c2")), true),
        (swap("r1", "r2"), true),
        (swap("d1", "c3"), true),
        ("update entities set name = 'gone' where name = 'd2'".to_owned(), true),
        ("update entities set type = 'restaurant_attribute' where name = 'lonely'".to_owned(), true),
        ("update entities set entity_id = gen_random_uuid() where name = 'lonely'".to_owned(), true),
        (replicated(&swap("r1", "r3")), true),
        ("truncate entities cascade".to_owned(), true),
        (replicated("truncate entities cascade"), true),
        (RELOAD.to_owned(), true),
        (roll_back(&delete("r2")), false),
        (roll_back("truncate entities cascade"), false),
        (format!("{}; {}", roll_back(&swap("r1", "r2")), delete("d3")), true),
        (format!("{}; {}", delete("d3"), roll_back(&delete("r3"))), true),
        (format!("{SWITCH}; {}; {SWITCH_BACK}", delete("r2")), true),
        (
            "update entities set aliases = '{said}' where name = 'r1'; delete from entities where false".to_owned(),
            false,
        ),
        ("update graphsink_generation set generation = generation".to_owned(), true),
        ("delete from graphsink_generation; insert into graphsink_generation values (true, 1)".to_owned(), true),
    ]
}

async fn write_all(engine: &Engine, source: &str) {
    for number in 1..4 {
        commit(engine, mention(number, source)).await;
    }
    let mut unit = UnitOfWork::new();
    let patio = unit.restaurant_attribute("patio").handle();
    unit.restaurant("r1").alias("said").attribute(patio);
    unit.dish("lonely");
    commit(engine, unit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_tables_between_two_epochs_are_seen() {
    let databases = [Database::migrated().await, Database::migrated().await];
    let engines = [engine(databases[0].config()).await, engine(databases[1].config().known_names_max(0)).await];
    let clients = [databases[0].client().await, databases[1].client().await];
    for (number, (deed, counts)) in deeds().iter().enumerate() {
        for engine in &engines {
            write_all(engine, &format!("before {number}")).await;
            // Once more, so that all names are known.
            write_all(engine, &format!("until {number}")).await;
        }
        let before = known(&engines[0].stats());
        for (client, engine) in clients.iter().zip(&engines) {
            client
                .batch_execute(&format!("begin; {deed}; commit"))
                .await
                .unwrap_or_else(|error| panic!("{deed}: {error:?}"));
            write_all(engine, &format!("after {number}")).await;
            assert_group_by(client, as_of()).await;
        }
        let after = known(&engines[0].stats());
        let (hits, misses) = (after.0 - before.0, after.1 - before.1);
        // Of the repeated unit only the attribute is known by then, because facts about the restaurant are stated that
        // are not.
        assert_eq!((hits, misses), if *counts { (2, 13) } else { (15, 0) }, "after {deed}");
        assert_same(&database::read(&clients[1]).await, &database::read(&clients[0]).await);
        for name in ["r1", "r2", "r3", "d1", "hot"] {
            let mut unit = UnitOfWork::new();
            match name {
                "hot" => unit.dish_attribute(name).handle(),
                "d1" => unit.dish(name).handle(),
                _ => unit.restaurant(name).handle(),
            };
            assert_eq!(Some(commit(&engines[0], unit).await.entities[0].id), id(&clients[0], name).await, "{deed}");
        }
    }
    let stats = engines[0].stats();
    assert_eq!(stats.failed_attempts, 0, "{stats:?}");
}

/// Triggers that are missing, do not always fire, or may change rows: no id is remembered while this lasts.
#[tokio::test(flavor = "multi_thread")]
async fn no_name_is_remembered_without_the_triggers() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let engine = engine(database.config()).await;
    let renames = "create function rename() returns trigger language plpgsql as $$ begin
                       if new.name = 'r1' and new.aliases <> '{}' then new.name := 'renamed'; end if; return new; end $$;
                   create trigger rename before update on entities for each row execute function rename()";
    let definition = "select pg_get_triggerdef(oid) from pg_trigger where tgname = 'graphsink_entity_changed'";
    let definition: String = client.query_one(definition, &[]).await.unwrap().get(0);
    let remade = format!("{definition}; alter table entities enable always trigger graphsink_entity_changed");
    for (off, on, deed) in [
        (SWITCH, SWITCH_BACK, delete("d1")),
        ("alter table entities enable trigger graphsink_entity_deleted", SWITCH_BACK, delete("d1")),
        ("drop trigger graphsink_entity_changed on entities", &remade, swap("r1", "r2")),
        (
            renames,
            "drop trigger rename on entities",
            "update entities set aliases = '{r}' where name = 'r1'".to_owned(),
        ),
        ("delete from graphsink_generation", "insert into graphsink_generation values (true, 1)", swap("d1", "d2")),
    ] {
        for source in ["1", "2"] {
            write_all(&engine, source).await;
        }
        client.batch_execute(off).await.unwrap();
        let before = known(&engine.stats());
        for source in ["3", "4"] {
            write_all(&engine, source).await;
        }
        client.batch_execute(&deed).await.unwrap();
        for number in 1..3 {
            let committed = commit(&engine, mention(number, "5")).await;
            assert_eq!(Some(committed.entities[0].id), id(&client, &format!("r{number}")).await, "{off}");
            assert_eq!(Some(committed.entities[1].id), id(&client, &format!("d{number}")).await, "{off}");
        }
        assert_eq!(known(&engine.stats()), (before.0, before.1 + 30 + 8), "{off}");
        client.batch_execute(on).await.unwrap();
        for source in ["6", "7"] {
            write_all(&engine, source).await;
        }
        assert!(known(&engine.stats()).0 >= before.0 + 15, "{on}");
    }
}

fn named(entity_type: EntityType, name: &str) -> EntityKey {
    EntityKey::new(entity_type, name)
}

/// Merges by this engine and by another one, and inserts by other programs.
#[tokio::test(flavor = "multi_thread")]
async fn known_names_of_merged_entities_lead_to_the_survivor() {
    let database = Database::migrated().await;
    let (own, other) = (engine(database.config()).await, engine(database.config()).await);
    let client = database.client().await;
    let mut number = 0;
    for (merging, writing) in [(&own, &own), (&other, &own), (&own, &other)] {
        for entity_type in [EntityType::Restaurant, EntityType::DishOrCategory] {
            let letter = if entity_type == EntityType::Restaurant { 'r' } else { 'd' };
            let [from, into] = [number, number + 1].map(|number| format!("{letter}{number}"));
            for engine in [&own, &other, &own, &other] {
                for number in [number, number + 1] {
                    commit(engine, mention(number, "before")).await;
                }
            }
            let merge = EntityMerge::new(named(entity_type, &from), named(entity_type, &into));
            let merged = within(merging.merge(vec![merge])).await.remove(0);
            let MergeOutcome::Merged { into: target, .. } = merged else { panic!("{merged:?}") };
            let place = usize::from(letter == 'd');
            for source in ["after", "later"] {
                let committed = commit(writing, mention(number, source)).await;
                assert_eq!(committed.entities[place].id, target);
                let committed = commit(writing, mention(number + 1, source)).await;
                assert_eq!(committed.entities[place].id, target);
            }
            // A row with the merged entity's name takes precedence over its redirect.
            let again = Uuid::now_v7();
            let insert = "insert into entities (entity_id, name, type) values ($1, $2, $3::text::entity_type)";
            client.execute(insert, &[&again, &from, &entity_type.as_str()]).await.unwrap();
            let committed = commit(writing, mention(number, "at last")).await;
            assert_eq!(committed.entities[place].id, again);
            assert_group_by(&client, as_of()).await;
            number += 2;
        }
    }
    let hits = [&own, &other].map(|engine| engine.stats().known_names_hits);
    assert!(hits.iter().all(|hits| *hits > 40), "{hits:?}");
}

/// Random records, with random changes by other programs on random names in between.
#[tokio::test(flavor = "multi_thread")]
async fn any_changes_between_epochs_leave_the_database_of_lookups() {
    let seed = seed("deeds between epochs");
    let mut random = StdRng::seed_from_u64(seed);
    let databases = [Database::migrated().await, Database::migrated().await];
    // So few that names are also evicted.
    let engines = [
        engine(databases[0].config().known_names_max(random.random_range(2..30))).await,
        engine(databases[1].config().known_names_max(0)).await,
    ];
    let clients = [databases[0].client().await, databases[1].client().await];
    let records = generate::sample(seed, Space::tiny(as_of()), 400);
    for records in records.chunks(4) {
        let (deed, at) = (random.random_range(0..12), random.random_range(0..12));
        let mut refused = Vec::new();
        for (engine, client) in engines.iter().zip(&clients) {
            let outcome = outcome(engine, model::unit(records, &Ids::default())).await;
            refused.push((outcome.committed().is_some(), do_one_of_many(client, engine, deed, at).await));
        }
        assert_eq!(refused[0], refused[1], "deed {deed}");
        let graphs = [database::read(&clients[0]).await, database::read(&clients[1]).await];
        assert_same(&graphs[1], &graphs[0]);
    }
    let stats = [engines[0].stats(), engines[1].stats()];
    assert_eq!(stats[0].units_committed, stats[1].units_committed);
    println!("{} hits, {} misses", stats[0].known_names_hits, stats[0].known_names_misses);
    assert!(stats[0].known_names_hits > 0);
}

/// Returns the SQLSTATE if the server refused the change: the new name may exist.
async fn do_one_of_many(client: &Client, engine: &Engine, deed: u32, at: i64) -> Option<String> {
    let names = "select name, type::text from entities order by type, name offset $1 limit 2";
    let rows = client.query(names, &[&at]).await.unwrap();
    let [one, other] = &rows[..] else { return None };
    let quoted = |name: &str| name.replace('\'', "''");
    let [one, other] = [one, other].map(|row| (quoted(row.get(0)), row.get::<_, String>(1)));
    let sql = match deed {
        0 | 1 => delete(&one.0),
        2 if one.1 == other.1 => swap(&one.0, &other.0),
        3 => format!("update entities set name = name || '!' where name = '{}'", one.0),
        4 => format!("set local session_replication_role = replica; {}", delete(&one.0)),
        5 => format!("savepoint s; {}; rollback to s", delete(&one.0)),
        6 if at == 0 => "truncate entities cascade".to_owned(),
        7 if one.1 == other.1 => {
            let entity_type = one.1.parse().unwrap();
            let merge = EntityMerge::new(named(entity_type, &one.0), named(entity_type, &other.0));
            within(engine.merge(vec![merge])).await;
            return None;
        }
        8 => format!("update entities set aliases = aliases[2:] where name = '{}'", one.0),
        9 => format!("update entities set restaurant_attributes = '{{}}' where name = '{}'", one.0),
        _ => return None,
    };
    let refused = client.batch_execute(&format!("begin; {sql}; commit")).await.err()?;
    client.batch_execute("rollback").await.unwrap();
    Some(refused.code().unwrap().code().to_owned())
}

/// Epochs must not lock the generation, so none of their changes may advance it.
#[tokio::test(flavor = "multi_thread")]
async fn writes_of_an_engine_do_not_advance_the_generation() {
    let database = Database::migrated().await;
    let (engine, client) = (engine(database.config()).await, database.client().await);
    for records in generate::sample(seed("generation"), Space::tiny(as_of()), 300).chunks(5) {
        let _ = outcome(&engine, model::unit(records, &Ids::default())).await;
    }
    // An alias that became the name is dropped with the next change.
    let said = |alias: &str| {
        let mut unit = UnitOfWork::new();
        unit.dish("pie").alias("tart").alias(alias);
        unit
    };
    commit(&engine, said("cake")).await;
    let rename = "update entities set name = 'tart' where name = 'pie' and type = 'dish_or_category'";
    client.batch_execute(rename).await.unwrap();
    let generation =
        async || -> i64 { client.query_one("select generation from graphsink_generation", &[]).await.unwrap().get(0) };
    assert_eq!(generation().await, 2);
    let mut unit = UnitOfWork::new();
    unit.dish("tart").alias("torte");
    commit(&engine, unit).await;
    let aliases = "select aliases from entities where name = 'tart'";
    let aliases: Vec<String> = client.query_one(aliases, &[]).await.unwrap().get(0);
    assert_eq!((aliases, generation().await), (vec!["cake".to_owned(), "torte".to_owned()], 2));
}

/// Changes by another program while a transaction is held at one of its messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_during_a_transaction_are_seen_or_wait_for_it() {
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.url).await;
    let config = Config::builder(proxy.url_of(&database.url)).as_of(graphsink::AsOf::Fixed(as_of()));
    let engine = engine(config).await;
    let (client, other) = (database.client().await, database.client().await);
    client.batch_execute("set lock_timeout = '100ms'").await.unwrap();
    let (mut waited, mut done) = (0, 0);
    for number in 0..64 {
        commit(&engine, mention(number, "1")).await;
        commit(&engine, mention(number, "2")).await;
        // Four rounds for each message, so that each change meets each part of the transaction.
        let place = At::Request(number / 4);
        proxy.on_next(Fault::at(place, Action::Hold));
        let receipt = engine.submit(mention(number, "3")).await.unwrap();
        within(proxy.faults_happened(number + 1)).await;
        let [restaurant, dish] = ["r", "d"].map(|letter| format!("{letter}{number}"));
        let deed = match number % 4 {
            0 => delete(&restaurant),
            1 => delete(&dish),
            2 => format!("update entities set name = 'once {dish}' where name = '{dish}'"),
            _ => format!("set local session_replication_role = replica; {}", swap(&restaurant, "r0")),
        };
        let deed = format!("begin; {deed}; commit");
        let first = client.batch_execute(&deed).await;
        if first.is_err() {
            client.batch_execute("rollback").await.unwrap();
        }
        proxy.release();
        let outcome = within(receipt).await;
        assert!(outcome.committed().is_some(), "{number}: {outcome:?}");
        match first {
            Ok(()) => done += 1,
            Err(error) => {
                assert_eq!(
                    error.code().map(tokio_postgres::error::SqlState::code),
                    Some("55P03"),
                    "{number}: {error:?}"
                );
                waited += 1;
                other.batch_execute(&deed).await.unwrap();
            }
        }
        let committed = commit(&engine, mention(number, "4")).await;
        for (row, name) in committed.entities.iter().zip([&restaurant, &dish]) {
            assert_eq!(Some(row.id), id(&client, name).await, "{number}");
        }
        database::read(&client).await;
        assert_group_by(&client, as_of()).await;
    }
    let stats = engine.stats();
    println!("{done} changes came first, {waited} waited; {} failed attempts", stats.failed_attempts);
    assert!(done > 5 && waited > 5, "{done} {waited}");
    assert!(stats.failed_attempts > 0, "no change met a foreign key: {stats:?}");
    assert_eq!(stats.units_rejected, 0);
    database.assert_no_deadlocks().await;
}

/// An engine of the version before does not read the generation, and writes while its row and its triggers are created.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_are_migrated_while_an_engine_of_the_version_before_writes() {
    let database = Database::migrated().await;
    let client = database.client().await;
    // Such an engine does not read the generation. (Its session is prepared before the table is dropped.)
    let old = engine(database.config().known_names_max(0)).await;
    commit(&old, mention(0, "before")).await;
    client.batch_execute(sorted_sets::TAKE_BACK).await.unwrap();
    client
        .batch_execute(
            "drop function graphsink_advance_generation cascade; drop table graphsink_generation;
             alter table connections reset (fillfactor); alter table entities reset (fillfactor);
             alter table connections alter constraint connections_restaurant_id_fkey not deferrable;
             alter table connections alter constraint connections_dish_or_category_id_fkey not deferrable;
             alter table mentions alter constraint mentions_connection_id_fkey not deferrable;
             delete from graphsink_schema_history where version >= 5",
        )
        .await
        .unwrap();
    commit(&old, mention(1, "before")).await;
    let config = database.config().build().unwrap();
    let started = Engine::start(config.clone()).await;
    assert!(matches!(started, Err(graphsink::StartError::NotMigrated { table: "graphsink_generation", .. })));
    let migrating = tokio::spawn(async move { Migrations::all().run(&config).await });
    let mut written = 0;
    while written < 20 || !migrating.is_finished() {
        commit(&old, mention(written % 5, &format!("while {written}"))).await;
        written += 1;
    }
    assert_eq!(within(migrating).await.unwrap().unwrap().applied.len(), 4);
    let new = engine(database.config()).await;
    for source in ["1", "2"] {
        commit(&new, mention(1, source)).await;
    }
    assert_eq!(known(&new.stats()), (4, 4));
    // Its merges advance the generation for the others.
    let merge = EntityMerge::new(named(EntityType::Restaurant, "r1"), named(EntityType::Restaurant, "r2"));
    let merged = within(old.merge(vec![merge])).await.remove(0);
    let MergeOutcome::Merged { into, .. } = merged else { panic!("{merged:?}") };
    assert_eq!(commit(&new, mention(1, "3")).await.entities[0].id, into);
    assert_eq!(old.stats().failed_attempts + new.stats().failed_attempts, 0);
    assert_group_by(&client, as_of()).await;
}

/// Deletes without a trace, as a superuser: no trigger and no foreign key fires.
pub(super) async fn lose(client: &Client, deed: &str) {
    let triggers = |fire: bool| {
        format!(
            "set local allow_system_table_mods = on;
             update pg_class set relhastriggers = {fire} where oid = 'entities'::regclass"
        )
    };
    for step in ["begin", &triggers(false), "commit", deed, "begin", &triggers(true), "commit"] {
        client.batch_execute(step).await.unwrap();
    }
}

/// A server that lost confirmed commits, such as a standby that lagged behind when it was promoted, has ended all
/// sessions.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_forgets_names_learned_before_it() {
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.url).await;
    let config = Config::builder(proxy.url_of(&database.url)).as_of(graphsink::AsOf::Fixed(as_of()));
    let engine = engine(config).await;
    for source in ["1", "2"] {
        commit(&engine, mention(1, source)).await;
    }
    assert_eq!(known(&engine.stats()), (4, 4));
    let client = database.client().await;
    lose(&client, "update connections set categories = '{}'; delete from entities where name = 'c1'").await;
    proxy.cut_all();
    let committed = commit(&engine, mention(1, "3")).await;
    assert_eq!(Some(committed.entities[2].id), id(&client, "c1").await);
    assert_eq!(known(&engine.stats()), (4, 8));
    database::read(&client).await;
}

/// If an id leads nowhere nevertheless, its name is looked up before the missing row counts as a unit's fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_id_that_leads_nowhere_is_forgotten() {
    let database = Database::migrated().await;
    let (engine, client) = (engine(database.config()).await, database.client().await);
    commit(&engine, mention(1, "1")).await;
    lose(&client, "delete from mentions; delete from connections; delete from entities where name = 'd1'").await;
    let committed = commit(&engine, mention(1, "2")).await;
    assert_eq!(Some(committed.entities[1].id), id(&client, "d1").await);
    assert_eq!((engine.stats().failed_attempts, engine.stats().units_rejected), (1, 0));
    commit(&engine, mention(1, "3")).await;
    commit(&engine, mention(1, "4")).await;
    assert_eq!(engine.stats().failed_attempts, 1);
    assert_eq!(known(&engine.stats()), (4, 8), "the attempt that looked all names up remembered none");
    assert_group_by(&client, as_of()).await;
}

/// Records that name the same entities again and again are the usual case.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_with_known_names_leaves_the_graph_of_the_model_with_few_lookups() {
    let records: Vec<Record> = generate::sample(seed("a load with known names"), Space::tiny(as_of()), 600);
    let database = Database::migrated().await;
    let engine = database.small_engine(20, 2).await;
    let mut receipts = Vec::new();
    for records in records.chunks(3) {
        receipts.push(engine.submit(model::unit(records, &Ids::default())).await.unwrap());
    }
    for receipt in receipts {
        assert!(within(receipt).await.committed().is_some());
    }
    assert_same(&model::graph(&records, as_of()), &database::read(&database.client().await).await);
    let (hits, misses) = known(&engine.stats());
    println!("{hits} hits, {misses} misses");
    assert!(hits > misses, "{hits} {misses}");
}

/// A row takes precedence over a redirect of its name, also for facts that were stated while the redirect led
/// elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn facts_stated_by_a_redirected_name_are_stated_again_for_a_row_of_that_name() {
    let database = Database::migrated().await;
    let (engine, client) = (engine(database.config()).await, database.client().await);
    let with_patio = |id: Option<Uuid>| {
        let mut unit = UnitOfWork::new();
        let patio = match id {
            Some(id) => unit.existing_entity(id).handle(),
            None => unit.restaurant_attribute("patio").handle(),
        };
        unit.restaurant("r1").attribute(patio);
        unit
    };
    let mut unit = UnitOfWork::new();
    unit.restaurant_attribute("terrace");
    commit(&engine, unit).await;
    let old = commit(&engine, with_patio(None)).await.entities[0].id;
    let merge = EntityMerge::new(
        named(EntityType::RestaurantAttribute, "patio"),
        named(EntityType::RestaurantAttribute, "terrace"),
    );
    within(engine.merge(vec![merge])).await;
    for _ in 0..2 {
        commit(&engine, with_patio(None)).await;
        commit(&engine, with_patio(Some(old))).await;
    }
    let insert = "insert into entities (entity_id, name, type) values ($1, 'patio', 'restaurant_attribute')";
    client.execute(insert, &[&old]).await.unwrap();
    let attributes = async || -> Vec<Uuid> {
        let query = "select restaurant_attributes from entities where name = 'r1'";
        client.query_one(query, &[]).await.unwrap().get(0)
    };
    for id in [None, Some(old)] {
        commit(&engine, with_patio(id)).await;
        assert!(attributes().await.contains(&old), "by {id:?}");
        let restore = "update entities set restaurant_attributes = array_remove(restaurant_attributes, $1)";
        if id.is_none() {
            client.execute(restore, &[&old]).await.unwrap();
        }
    }
}

/// Known names and looked-up names agree: no two names become one entity because a rename came in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_between_the_generation_and_the_lookup_never_joins_two_names() {
    let database = Database::migrated().await;
    let engines = [engine(database.config()).await, engine(database.config().known_names_max(0)).await];
    let client = database.client().await;
    for (number, engine) in engines.iter().enumerate() {
        for source in ["1", "2"] {
            let mut unit = mention(number, source);
            unit.dish_attribute(format!("mild{number}"));
            commit(engine, unit).await;
        }
        let mut unit = UnitOfWork::new();
        let [restaurant, dish] =
            [unit.restaurant(format!("r{number}")).handle(), unit.dish(format!("d{number}")).handle()];
        let [mild, smoky] = ["mild", "smoky"].map(|name| unit.dish_attribute(format!("{name}{number}")).handle());
        let connection = unit.connection(restaurant, dish).dish_attribute(mild).dish_attribute(smoky).handle();
        unit.mention(connection, Mention::new(SourceType::Post, "3", "https://example.org", "food", as_of()));
        // The lookup waits for the table; the generation is read before.
        client.batch_execute("begin; lock table entities").await.unwrap();
        let receipt = engine.submit(unit).await.unwrap();
        let waiting = "select from pg_locks where not granted and relation = 'entities'::regclass";
        while client.query(waiting, &[]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let rename = format!("update entities set name = 'smoky{number}' where name = 'mild{number}'; commit");
        client.batch_execute(&rename).await.unwrap();
        let outcome = within(receipt).await;
        let ids = &outcome.committed().expect("the unit is committed").entities;
        println!("{number}: {ids:?} {:?}", engine.stats().failed_attempts);
        assert_ne!(ids[2].id, ids[3].id, "two attributes of engine {number}");
    }
}
