//! Tables that differ from those of the migrations, at the start and while the engine writes. A fault that is not a
//! unit's rejects no unit.

use graphsink::{Engine, Outcome, StartError};

use super::setup::mended;
use super::sqlstates::{record, unit};
use super::{assert_at_rest, config, engine, migrated, server};
use crate::database::{self, assert_group_by, assert_same};
use crate::model::{self, Record};
use crate::support::{as_of, commit, connect, outcome, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_altered_tables_is_refused_naming_the_differences() {
    let server = server(&[]).await;
    let url = migrated(&server, "altered").await;
    let client = connect(&url).await;
    for (alter, undo, expected) in [
        (
            "alter table mentions alter upvotes type bigint",
            "alter table mentions alter upvotes type int",
            "mentions.upvotes is of type int8 and has to be int4",
        ),
        (
            "alter table mentions add note text not null",
            "alter table mentions drop note",
            "mentions.note is not the engine's",
        ),
        (
            "alter table entities rename place_observed_at to seen",
            "alter table entities rename seen to place_observed_at",
            "entities.place_observed_at is missing",
        ),
        (
            "alter table entities drop constraint entities_name_type_key",
            "alter table entities add constraint entities_name_type_key unique (name, type)",
            "make entities_name_type_key again",
        ),
        (
            "alter table mentions alter source_id type varchar(255) collate \"POSIX\";
             alter table mentions alter thread_id type varchar(255) collate \"default\"",
            "alter table mentions alter source_id type varchar(255) collate \"C\";
             alter table mentions alter thread_id type varchar(255) collate \"C\"",
            "mentions.thread_id has another collation",
        ),
    ] {
        client.batch_execute(alter).await.unwrap();
        match within(Engine::start(config(&url).build().unwrap())).await {
            Err(error @ StartError::Unfit { .. }) => assert!(error.to_string().contains(expected), "{error}"),
            other => panic!("{alter}: {:?}", other.map(|_| "an engine")),
        }
        client.batch_execute(undo).await.unwrap();
    }
    // Harmless changes: more room, and columns that need no value.
    let harmless = "alter table mentions alter source_url type text, add note text, add noted_at timestamptz not null default now()";
    client.batch_execute(harmless).await.unwrap();
    let engine = engine(&url).await;
    let own = record("first", "fine");
    commit(&engine, unit(&own)).await;
    assert_same(&model::graph(&[own], as_of()), &database::read(&client).await);
    assert_at_rest(&[engine], &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_column_of_another_program_opens_the_circuit_and_rejects_no_unit() {
    mended(
        "foreign column",
        &["alter table mentions add note text not null default ''", "alter table mentions alter note drop default"],
        &["alter table mentions drop note"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_of_another_type_opens_the_circuit_and_rejects_no_unit() {
    mended(
        "another type",
        &["alter table mentions alter upvotes type bigint"],
        &["alter table mentions alter upvotes type int"],
    )
    .await;
}

/// A function that raises this, as a trigger; `deferred` until the commit.
fn raising(what: &str, deferred: bool) -> [String; 2] {
    let when = if deferred {
        "create constraint trigger fault after insert on mentions deferrable initially deferred for each row"
    } else {
        "create trigger fault after insert on mentions for each row"
    };
    [
        format!(
            "create or replace function fault() returns trigger language plpgsql security definer as $$ begin {what}; return null; end $$"
        ),
        format!("{when} execute function fault()"),
    ]
}

async fn raised_and_mended(name: &str, what: &str, deferred: bool) {
    let [function, trigger] = raising(what, deferred);
    mended(
        name,
        &["drop trigger if exists fault on mentions", &function, &trigger],
        &["drop trigger fault on mentions"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_the_server_opens_the_circuit_and_rejects_no_unit() {
    let wraparound = "raise exception 'database is not accepting commands' using errcode = '54000'";
    raised_and_mended("54000 in a statement", wraparound, false).await;
    raised_and_mended("54000 at the commit", wraparound, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_of_a_table_that_only_a_trigger_writes_opens_the_circuit() {
    let audit = "create table if not exists audit (number int primary key); insert into audit values (1)";
    raised_and_mended(
        "23505 elsewhere",
        &format!("{audit} on conflict do nothing; insert into audit values (1)"),
        false,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_that_cannot_be_published_open_the_circuit() {
    mended(
        "55000",
        &["alter table connections replica identity nothing", "create publication changes for table connections"],
        &["drop publication changes", "alter table connections replica identity default"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_row_level_security_rows_are_inserted() {
    let server = server(&[]).await;
    let url = migrated(&server, "policies").await;
    let client = connect(&url).await;
    let writer = super::setup::writer(&server, &client, "policies").await;
    let secure = |on: bool| {
        let tables = ["entities", "connections", "mentions"];
        let of_table = |table: &&str| {
            if on {
                format!(
                    "alter table {table} enable row level security; create policy all_rows on {table} using (true) with check (true);"
                )
            } else {
                format!("drop policy all_rows on {table}; alter table {table} disable row level security;")
            }
        };
        tables.iter().map(of_table).collect::<String>()
    };
    let mut records = Vec::new();
    // In force at the start, it costs no attempt. In force later, it rejects no unit.
    for round in ["before the start", "while it runs"] {
        if round == "before the start" {
            client.batch_execute(&secure(true)).await.unwrap();
        }
        let engine = engine(&writer).await;
        if round == "while it runs" {
            client.batch_execute(&secure(true)).await.unwrap();
        }
        let own = large(round);
        let receipts = commit(&engine, model::unit(own.iter(), &model::Ids::default())).await;
        assert_eq!(receipts.mentions.len(), 300);
        records.extend(own);
        assert_eq!(engine.stats().units_rejected, 0);
        if round == "before the start" {
            assert_eq!(engine.stats().failed_attempts, 0);
        }
        assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
        assert_at_rest(&[engine], &client).await;
        client.batch_execute(&secure(false)).await.unwrap();
    }
    assert_group_by(&client, as_of()).await;
}

/// More mentions than are inserted one by one, each on a connection of its own.
fn large(name: &str) -> Vec<Record> {
    (0..300).map(|number| record(&format!("{name} {number}"), "fine")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_a_trigger_suppresses_rejects_its_unit_alone() {
    let server = server(&[]).await;
    let url = migrated(&server, "left_out").await;
    let client = connect(&url).await;
    client
        .batch_execute(
            "create function skip() returns trigger language plpgsql as
                 $$ begin if new.content_excerpt like '%bad%' then return null; end if; return new; end $$;
             create trigger skip_some before insert on mentions for each row execute function skip()",
        )
        .await
        .unwrap();
    let engine = engine(&url).await;
    let good: Vec<Record> = (0..20).map(|number| record(&format!("good {number}"), "fine")).collect();
    let bad = record("bad", "bad");
    let mut receipts = Vec::new();
    for (number, own) in good.iter().enumerate() {
        if number == 10 {
            receipts.push((true, engine.submit(unit(&bad)).await.unwrap()));
        }
        receipts.push((false, engine.submit(unit(own)).await.unwrap()));
    }
    for (is_bad, receipt) in receipts {
        match (is_bad, within(receipt).await) {
            (true, Outcome::Rejected(why)) => {
                assert_eq!((&*why.sqlstate, why.table.as_deref()), ("27000", Some("mentions")));
                assert!(why.message.contains("skip_some"), "{why}");
            }
            (false, Outcome::Committed(_)) => {}
            (is_bad, other) => panic!("bad: {is_bad}, {other:?}"),
        }
    }
    assert_same(&model::graph(&good, as_of()), &database::read(&client).await);
    let again = outcome(&engine, unit(&bad)).await;
    assert!(matches!(again, Outcome::Rejected(_)), "{again:?}");
    assert_at_rest(&[engine], &client).await;
}

/// Another program stored infinite times. Units that touch such rows are committed, and the rows are unchanged where
/// they win.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn infinite_times_of_other_programs_are_read_and_kept() {
    let server = server(&[]).await;
    let url = migrated(&server, "infinity").await;
    let client = connect(&url).await;
    let engine = engine(&url).await;
    commit(&engine, unit(&record("first", "fine"))).await;
    client
        .batch_execute(
            "update mentions set created_at = '-infinity', observed_at = 'infinity';
             update connections set last_mentioned_at = 'infinity';
             update entities set place_observed_at = 'infinity' where type = 'restaurant'",
        )
        .await
        .unwrap();
    // The same mention again, which is older than the stored one; and the restaurant with a place and another name.
    commit(&engine, unit(&record("first", "newer words"))).await;
    let mut place = graphsink::UnitOfWork::new();
    let observed = graphsink::PlaceObservation::new(as_of()).address("12 Oak St");
    place.restaurant("first").alias("First!").place(observed).handle();
    commit(&engine, place).await;
    let row = client
        .query_one(
            "select m.content_excerpt, m.observed_at = 'infinity', c.mention_count, c.last_mentioned_at = 'infinity', e.aliases,
                    e.place_observed_at = 'infinity', e.address is null
             from mentions m join connections c using (connection_id) join entities e on e.entity_id = c.restaurant_id",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, bool>(1)), ("fine", true), "the stored one is newer");
    assert_eq!((row.get::<_, i32>(2), row.get::<_, bool>(3)), (1, true));
    assert_eq!(row.get::<_, Vec<&str>>(4), ["First!"]);
    assert!(row.get::<_, bool>(5) && row.get::<_, bool>(6), "the stored place is newer, and stays");
    assert_eq!(engine.stats().failed_attempts, 0);
    assert_at_rest(&[engine], &client).await;
}

/// A trigger rejects every row without naming a table: after a few units the circuit breaker opens, and no more are
/// rejected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_refusal_of_all_units_opens_the_circuit() {
    let server = server(&[]).await;
    let url = migrated(&server, "repeated").await;
    let client = connect(&url).await;
    let [function, trigger] = raising("raise exception 'nothing today'", false);
    client.batch_execute(&format!("{function}; {trigger}")).await.unwrap();
    let engine = engine(&url).await;
    let mut receipts = Vec::new();
    for number in 0..100 {
        let own = record(&format!("place {number}"), "fine");
        let receipt = engine.submit(unit(&own)).await.unwrap();
        receipts.push((own, receipt));
    }
    super::until_so("the line stops", || engine.stats().circuit_open).await;
    let outage = engine.health();
    println!("{outage:?}");
    client.batch_execute("drop trigger fault on mentions").await.unwrap();
    let (mut written, mut rejected) = (Vec::new(), 0);
    for (own, receipt) in receipts {
        match within(receipt).await {
            Outcome::Committed(_) => written.push(own),
            Outcome::Rejected(why) => {
                assert_eq!(why.sqlstate, "P0001");
                rejected += 1;
            }
            other @ Outcome::Unavailable(_) => panic!("{other:?}"),
        }
    }
    assert!((20..30).contains(&rejected), "{rejected} rejected");
    assert_same(&model::graph(&written, as_of()), &database::read(&client).await);
    assert_at_rest(&[engine], &client).await;
}

/// Many units fail for the same reason, but others are committed: the failing units are rejected, each with its error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_refusal_of_many_but_not_all_units_rejects_them() {
    let server = server(&[]).await;
    let url = migrated(&server, "own_reasons").await;
    let client = connect(&url).await;
    let [function, trigger] = raising("if new.content_excerpt = 'bad' then raise exception 'bad'; end if", false);
    client.batch_execute(&format!("{function}; {trigger}")).await.unwrap();
    let engine = engine(&url).await;
    // The rows that units share are known, so that one unit can overtake another.
    commit(&engine, unit(&record("known", "fine"))).await;
    let bad = async |number: usize| match outcome(&engine, unit(&record(&format!("place {number}"), "bad"))).await {
        Outcome::Rejected(why) => assert_eq!(why.sqlstate, "P0001"),
        other => panic!("{number}: {other:?}"),
    };
    for number in 0..20 {
        bad(number).await;
    }
    let good = async {
        super::until_so("the line stops", || engine.stats().circuit_open).await;
        commit(&engine, unit(&record("good", "fine"))).await;
    };
    futures::future::join(bad(20), good).await;
    for number in 21..60 {
        bad(number).await;
    }
    assert_at_rest(&[engine], &client).await;
}

/// Many units break a constraint of the migrations, with no good unit in between: each of them is rejected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_that_break_a_constraint_of_the_migrations_are_always_rejected() {
    let server = server(&[]).await;
    let url = migrated(&server, "own_constraint").await;
    let client = connect(&url).await;
    let engine = engine(&url).await;
    let claim = |number: usize| {
        let mut unit = graphsink::UnitOfWork::new();
        let place = graphsink::PlaceObservation::new(as_of()).google_place_id("the only one");
        unit.restaurant(format!("place {number}")).place(place).handle();
        unit
    };
    commit(&engine, claim(0)).await;
    let mut receipts = Vec::new();
    for number in 1..60 {
        receipts.push(engine.submit(claim(number)).await.unwrap());
    }
    for receipt in receipts {
        match within(receipt).await {
            Outcome::Rejected(why) => assert_eq!(why.constraint.as_deref(), Some("entities_google_place_id_key")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(engine.stats().circuit_openings, 0);
    assert_at_rest(&[engine], &client).await;
}

/// Triggers that suppress the insertion, update or deletion of rows of the other tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trigger_that_suppresses_rows_of_any_table_is_named_in_the_rejection() {
    let server = server(&[]).await;
    let url = migrated(&server, "left_out_anywhere").await;
    let client = connect(&url).await;
    client
        .batch_execute("create function skip() returns trigger language plpgsql as $$ begin return null; end $$")
        .await
        .unwrap();
    let engine = engine(&url).await;
    let known = record("known", "fine");
    commit(&engine, unit(&known)).await;
    for (table, event, own) in [
        ("entities", "insert", record("new", "fine")),
        ("connections", "insert", record("other", "fine")),
        ("connections", "update", newer("known")),
        ("mentions", "update", newer("known")),
    ] {
        let create = format!(
            "create trigger skip_all before {event} on {table} for each row when (pg_trigger_depth() = 0)
             execute function skip()"
        );
        client.batch_execute(&create).await.unwrap();
        match outcome(&engine, unit(&own)).await {
            Outcome::Rejected(why) => {
                assert_eq!((&*why.sqlstate, why.table.as_deref()), ("27000", Some(table)), "{event}");
                assert!(why.message.contains(&format!("{table}.skip_all")), "{why}");
            }
            other => panic!("{event} of {table}: {other:?}"),
        }
        client.batch_execute(&format!("drop trigger skip_all on {table}")).await.unwrap();
    }
    // In a merge the merged entity remains.
    client
        .batch_execute("create trigger skip_all before delete on entities for each row execute function skip()")
        .await
        .unwrap();
    let merge = graphsink::EntityMerge::new(key("brisket"), key("brisket too"));
    let mut other = graphsink::UnitOfWork::new();
    other.dish("brisket too").handle();
    commit(&engine, other).await;
    match &within(engine.merge(vec![merge])).await[..] {
        [graphsink::MergeOutcome::Rejected(graphsink::MergeRejection::Database(why))] => {
            assert!(why.message.contains("entities.skip_all"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert_at_rest(&[engine], &client).await;
}

fn key(dish: &str) -> graphsink::EntityKey {
    graphsink::EntityKey::new(graphsink::EntityType::DishOrCategory, dish)
}

/// The mention of [`record`], observed later and with an excerpt.
fn newer(restaurant: &str) -> Record {
    let Record::Mention(mut mention) = record(restaurant, "newer words") else { unreachable!("a mention") };
    mention.observed_at += std::time::Duration::from_hours(1);
    mention.upvotes += 5;
    Record::Mention(mention)
}
