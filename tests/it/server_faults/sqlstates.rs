//! Every class of SQLSTATE on a real server: a trigger raises a chosen code a number of times, and then no more.

use std::time::Duration;

use graphsink::{Engine, Mention, Outcome, Rejection, SourceType, UnitOfWork};
use tokio_postgres::Client;

use super::{assert_at_rest, config, until, until_so};
use crate::database::{self, assert_group_by, assert_same};
use crate::model::{self, ConnectionKey, MentionSpec, Record};
use crate::support::{Database, as_of, commit, within};

/// A trigger that fails every statement that writes mentions with `code`, the first `times` times. Its counter is a
/// sequence: a table's row would be rolled back together with the failure that it counted.
pub(super) async fn install(client: &Client) {
    client
        .batch_execute(
            "create table fault (code text not null, times bigint not null);
             create sequence fault_count;
             create function fault() returns trigger language plpgsql as $$
             declare due record;
             begin
                 select code, times into due from public.fault;
                 if found and nextval('public.fault_count') <= due.times then
                     raise exception 'raised by a test' using errcode = due.code;
                 end if;
                 return null;
             end $$;
             create trigger fault before insert or update on mentions for each statement execute function fault()",
        )
        .await
        .unwrap();
}

/// Makes the next statements that write mentions fail with this code.
pub(super) async fn raise(client: &Client, code: &str, times: i64) {
    client
        .batch_execute(&format!(
            "begin; delete from fault; select setval('fault_count', 1, false);
             insert into fault values ('{code}', {times}); commit"
        ))
        .await
        .unwrap();
}

/// How often the trigger fired since the last [`raise`].
async fn asked(client: &Client) -> i64 {
    let query = "select case when is_called then last_value else 0 end from fault_count";
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// The record of a mention in a restaurant of its own.
pub(super) fn record(restaurant: &str, excerpt: &str) -> Record {
    let connection = ConnectionKey {
        restaurant: restaurant.to_owned(),
        dish: "brisket".to_owned(),
        dish_attributes: std::iter::empty().collect(),
    };
    Record::Mention(MentionSpec {
        connection,
        connection_by_id: false,
        source_type: SourceType::Comment,
        source_id: "t1".to_owned(),
        thread_id: "thread".to_owned(),
        source_url: "https://example.org".to_owned(),
        subreddit: "austinfood".to_owned(),
        content_excerpt: excerpt.to_owned(),
        author: None,
        upvotes: 3,
        created_at: as_of() - chrono::TimeDelta::days(1),
        observed_at: as_of(),
    })
}

pub(super) fn unit(record: &Record) -> UnitOfWork {
    model::unit([record], &model::Ids::default())
}

/// A row that another session holds, and a unit that waits for it in the only lane of an engine: meanwhile all other
/// submitted units gather in one epoch.
pub(super) struct Gate {
    holder: Client,
}

impl Gate {
    /// Closes the gate; the receipt is that of the waiting unit.
    pub(super) async fn close(database: &Database, engine: &Engine) -> (Self, graphsink::Receipt) {
        let mut gate = UnitOfWork::new();
        gate.restaurant("gate");
        commit(engine, gate).await;
        let holder = database.client().await;
        holder.batch_execute("begin; select from entities where name = 'gate' for update").await.unwrap();
        let waiting = engine.submit(model::unit([&Self::record()], &model::Ids::default())).await.unwrap();
        // The lane counts as taken until the engine has noted the end of the epoch before, a moment after that was
        // reported. Until then this unit's epoch is open, and the next submitted units would be in it.
        until(
            &holder,
            "select exists (select from pg_stat_activity
                            where datname = current_database() and wait_event_type = 'Lock')",
        )
        .await;
        (Self { holder }, waiting)
    }

    pub(super) async fn open(self) {
        self.holder.batch_execute("commit").await.unwrap();
    }

    /// The rows of the gate itself.
    pub(super) fn record() -> Record {
        Record::Entity(model::EntitySpec {
            key: model::key(graphsink::EntityType::Restaurant, "gate"),
            by_id: false,
            aliases: vec!["opened".to_owned()],
            attributes: Vec::new(),
            place: None,
        })
    }
}

fn rejection(outcome: Outcome) -> Rejection {
    match outcome {
        Outcome::Rejected(rejection) => rejection,
        other => panic!("expected a rejection, got {other:?}"),
    }
}

/// Transient (same work again), too long (halves), reconnect, resource, unknown, and a foreign key that is checked
/// before another writer's parent exists: with each of these a unit is committed in the end, and its caller notices
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transient_sqlstates_are_retried_and_charged_to_no_unit() {
    let database = Database::migrated().await;
    let client = database.client().await;
    install(&client).await;
    let engine = database.engine().await;
    let mut records = Vec::new();
    for (codes, times) in [
        // Serialization failure, deadlock, lock timeout, idle-in-transaction timeout, object in use.
        (&["40001", "40P01", "55P03", "25P03", "55006"][..], 4),
        // Statement timeout. A single unit cannot be halved.
        (&["57014"], 3),
        // Connection failure, admin shutdown, crash shutdown, starting up, too many connections, read-only, unknown
        // statement, protocol violation as poolers report it.
        (&["08006", "57P01", "57P02", "57P03", "53300", "25006", "26000", "08P01"], 3),
        // Disk full, out of memory, I/O error.
        (&["53100", "53200", "58030"], 1),
        // Unknown codes, a cached plan whose result changed, and a check that may come too early: twice.
        (&["XX000", "ZZ999", "0A000", "23503"], 2),
        // The database's set-up is being changed.
        (&["42501", "42P01", "28P01"], 1),
    ] {
        for code in codes {
            raise(&client, code, times).await;
            let record = record(&format!("restaurant {code}"), "fine");
            let before = engine.stats().failed_attempts;
            let outcome = within(engine.submit(unit(&record)).await.unwrap()).await;
            assert!(outcome.committed().is_some(), "{code}: {outcome:?}");
            assert_eq!(engine.stats().failed_attempts - before, times as u64, "{code} failed that many attempts");
            assert_eq!(asked(&client).await, times + 1, "{code}: the next attempt succeeded");
            records.push(record);
        }
    }
    raise(&client, "00000", 0).await;
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    assert_at_rest(&[engine], &client).await;
}

/// Codes that one unit's rows can cause: the unit is rejected with the code once it failed alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlstates_of_bad_rows_reject_the_unit_that_fails_alone() {
    let database = Database::migrated().await;
    let client = database.client().await;
    install(&client).await;
    let engine = database.engine().await;
    for (codes, tries) in [
        // Data, constraints, triggers, limits, functions.
        (&["22001", "22003", "22P02", "23502", "23505", "23514", "23P01", "P0001", "54001", "38000", "428C9"][..], 1),
        // Retried first: the parent may be about to be committed, or the code is unknown.
        (&["23503", "XX000", "ZZ999"], 3),
    ] {
        for code in codes {
            raise(&client, code, 1_000).await;
            let outcome = within(engine.submit(unit(&record("never written", "bad"))).await.unwrap()).await;
            assert_eq!(rejection(outcome).sqlstate, *code);
            assert_eq!(asked(&client).await, tries, "{code}");
        }
    }
    raise(&client, "00000", 0).await;
    assert_same(&model::graph(&[], as_of()), &database::read(&client).await);
    assert_at_rest(&[engine], &client).await;
}

/// An error that no unit can have caused is charged to none, however long it lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlstates_of_server_faults_end_as_unavailable_at_the_deadline() {
    let database = Database::migrated().await;
    let client = database.client().await;
    install(&client).await;
    let config = config(&database.url).outcome_deadline(Duration::from_millis(500));
    let engine = Engine::start(config.build().unwrap()).await.unwrap();
    let mut records = Vec::new();
    for code in ["40P01", "57014", "08006", "25006", "53100", "58030", "42501", "42P01", "XX001", "21000", "25P02"] {
        raise(&client, code, 1_000_000).await;
        let record = record(&format!("restaurant {code}"), "fine");
        match within(engine.submit(unit(&record)).await.unwrap()).await {
            Outcome::Unavailable(unavailable) => {
                assert!(!unavailable.commit_under_way, "{code}: the attempt failed before its commit: {unavailable:?}");
                assert!(unavailable.attempts > 0, "{code}: {unavailable:?}");
                let said = std::error::Error::source(&unavailable).expect("the cause is named").to_string();
                assert!(said.contains(code), "{said}");
            }
            other => panic!("{code}: expected unavailable, got {other:?}"),
        }
        assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
        // The cause is removed, and the unit submitted again, until the circuit breaker has probed again.
        raise(&client, "00000", 0).await;
        let again = async {
            loop {
                match engine.submit(unit(&record)).await.unwrap().await {
                    Outcome::Committed(_) => break,
                    Outcome::Unavailable(_) => {}
                    Outcome::Rejected(rejection) => panic!("{code}: {rejection}"),
                }
            }
        };
        within(again).await;
        records.push(record);
    }
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    assert_at_rest(&[engine], &client).await;
}

/// A trigger that refuses rows by their content: "bad CODE" fails with that code, which is the fault of that unit
/// alone.
const REFUSE_BY_CONTENT: &str = "
    create function refuse() returns trigger language plpgsql as $$
    begin
        if new.content_excerpt like 'bad %' then
            raise exception 'refused by a test' using errcode = substr(new.content_excerpt, 5);
        end if;
        return new;
    end $$;
    create trigger refuse before insert or update on mentions for each row execute function refuse()";

/// `bad` units of all kinds among `units`, in one batch, and `transient` deadlocks raised while the batch is split.
async fn isolate(units: usize, bad: &[usize], transient: i64) {
    const CODES: [&str; 6] = ["P0001", "22003", "23514", "54001", "23505", "22P02"];
    let database = Database::migrated().await;
    let client = database.client().await;
    install(&client).await;
    client.batch_execute(REFUSE_BY_CONTENT).await.unwrap();
    let engine = database.small_engine(100_000, 1).await;
    let (gate, waiting) = Gate::close(&database, &engine).await;
    let code = |number: usize| CODES[bad.iter().position(|bad| *bad == number).unwrap_or(0) % CODES.len()];
    let records: Vec<Record> = (0..units)
        .map(|number| {
            let excerpt = if bad.contains(&number) { format!("bad {}", code(number)) } else { "good".to_owned() };
            record(&format!("restaurant {number}"), &excerpt)
        })
        .collect();
    let mut receipts = Vec::new();
    for record in &records {
        receipts.push(engine.submit(unit(record)).await.unwrap());
    }
    // Every second attempt from the second one on, so that they hit the halves; without bad units there is only one
    // attempt.
    let every = if bad.is_empty() { 1 } else { 2 };
    let strike = "create or replace function fault() returns trigger language plpgsql as $$
                  begin
                      if nextval('public.fault_count') in (select STRIDE * n from generate_series(1, TIMES) n) then
                          raise exception 'raised by a test' using errcode = '40P01';
                      end if;
                      return null;
                  end $$";
    let deadlocks = strike.replace("STRIDE", &every.to_string()).replace("TIMES", &transient.to_string());
    client.batch_execute(&deadlocks).await.unwrap();
    let before = engine.stats();
    gate.open().await;
    assert!(within(waiting).await.committed().is_some());
    let mut good = vec![Gate::record()];
    for (number, (receipt, record)) in receipts.into_iter().zip(records).enumerate() {
        let outcome = within(receipt).await;
        if bad.contains(&number) {
            let rejection = rejection(outcome);
            assert_eq!(rejection.sqlstate, code(number), "unit {number}");
        } else {
            assert!(outcome.committed().is_some(), "unit {number} is a neighbour: {outcome:?}");
            good.push(record);
        }
    }
    within(engine.flush()).await;
    let stats = engine.stats();
    let (failed, committed) = (stats.failed_attempts - before.failed_attempts, stats.epochs - before.epochs);
    // A tree of halves has at most log2(n) levels above each bad unit, and that unit.
    let levels = u64::from(units.next_power_of_two().ilog2()) + 1;
    let bound = bad.len() as u64 * levels + transient as u64;
    println!("{units} units, {} bad, {transient} transient: {failed} failed of at most {bound}", bad.len());
    assert!(failed <= bound, "{failed} attempts failed, {bound} at most");
    assert!(failed >= transient as u64 + u64::from(!bad.is_empty()), "the units were tried as a batch");
    // Each failure makes two groups of one, which bounds the commits, with the gate's among them.
    assert!(committed <= failed + 2, "{committed} commits");
    assert_same(&model::graph(&good, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    assert_at_rest(&[engine], &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_unit_costs_a_logarithm_of_attempts_at_any_position() {
    for bad in [0, 500, 999] {
        isolate(1_000, &[bad], 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_units_of_many_kinds_are_isolated_also_when_a_deadlock_comes_in_between() {
    isolate(300, &[0, 7, 8, 150, 298, 299], 5).await;
    // Every unit is bad: the tree is complete.
    isolate(16, &(0..16).collect::<Vec<_>>(), 3).await;
    // No unit is bad: the deadlocks alone cause no halves.
    isolate(100, &[], 4).await;
}

/// Rejections that the database raises and those that the engine finds by reading, in one batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_unit_returns_its_room_and_can_be_submitted_again() {
    let database = Database::migrated().await;
    let client = database.client().await;
    client.batch_execute(REFUSE_BY_CONTENT).await.unwrap();
    let config = database.config().max_unit_rows(8).max_rows_in_flight(8).build().unwrap();
    let engine = Engine::start(config).await.unwrap();
    let bad = record("restaurant", "bad P0001");
    for _ in 0..20 {
        let outcome = within(async { engine.submit(unit(&bad)).await.unwrap().await }).await;
        assert_eq!(rejection(outcome).sqlstate, "P0001");
    }
    until_so("room comes back", || engine.stats().rows_in_flight == 0).await;
    client.batch_execute("drop trigger refuse on mentions").await.unwrap();
    let outcome = within(engine.submit(unit(&bad)).await.unwrap()).await;
    assert!(outcome.committed().is_some(), "its cause is gone: {outcome:?}");
    assert_same(&model::graph(&[bad], as_of()), &database::read(&client).await);
    assert_at_rest(&[engine], &client).await;
}

/// Two units of one batch state the same mention: one is good, one is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_unit_is_not_rejected_for_a_bad_one_with_the_same_row() {
    let database = Database::migrated().await;
    let client = database.client().await;
    client.batch_execute(REFUSE_BY_CONTENT).await.unwrap();
    let engine = database.small_engine(100_000, 1).await;
    let (gate, waiting) = Gate::close(&database, &engine).await;
    let own = |excerpt: &str, days: i64| {
        let mut unit = UnitOfWork::new();
        let restaurant = unit.restaurant("franklin bbq").handle();
        let dish = unit.dish("brisket").handle();
        let connection = unit.connection(restaurant, dish).handle();
        let created_at = as_of() - chrono::TimeDelta::days(2);
        let observed_at = created_at + chrono::TimeDelta::days(days);
        let mention = Mention::new(SourceType::Post, "t1", "https://example.org", "food", created_at).excerpt(excerpt);
        unit.mention(connection, mention.observed_at(observed_at));
        unit
    };
    // The refused observation is newer: coalesced, it hides the good one.
    let good = engine.submit(own("good", 0)).await.unwrap();
    let bad = engine.submit(own("bad P0001", 1)).await.unwrap();
    let also_good = engine.submit(own("good too", 0)).await.unwrap();
    gate.open().await;
    for receipt in [waiting, good, also_good] {
        let outcome = within(receipt).await;
        assert!(outcome.committed().is_some(), "{outcome:?}");
    }
    assert_eq!(rejection(within(bad).await).sqlstate, "P0001");
    let excerpt: String = client.query_one("select content_excerpt from mentions", &[]).await.unwrap().get(0);
    assert_eq!(excerpt, "good too");
    assert_group_by(&client, as_of()).await;
    assert_at_rest(&[engine], &client).await;
}
