//! Merges under faults: cuts at the commit, a killed process, locks of other programs, a shutdown.

use std::env;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use graphsink::{
    Config, ConfigBuilder, Engine, EntityMerge, Mention, MergeOutcome, Outcome, SourceType, UnavailableCause,
    UnitOfWork,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;
use uuid::Uuid;

use super::{dangling, merge_one, restaurant};
use crate::bulk::until;
use crate::database::assert_group_by;
use crate::proxy::{Fault, Proxy};
use crate::support::{Database, as_of, commit, connect, seed, within};

/// Mentions of one dish at a restaurant: some from sources of its own, one from a source that all restaurants share.
fn unit(name: &str) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let (restaurant, dish) = (unit.restaurant(name).handle(), unit.dish("pie").handle());
    let connection = unit.connection(restaurant, dish).handle();
    for source in ["shared".to_owned(), format!("1 of {name}"), format!("2 of {name}")] {
        unit.mention(connection, Mention::new(SourceType::Post, source, "https://example.org", "food", as_of()));
    }
    unit
}

/// Two restaurants of no other test; returns the merge of them.
async fn pair(engine: &Engine, number: usize) -> EntityMerge {
    let (from, into) = (format!("from {number}"), format!("into {number}"));
    commit(engine, unit(&from)).await;
    commit(engine, unit(&into)).await;
    EntityMerge::new(restaurant(&from), restaurant(&into))
}

/// The numbers of pairs that were merged completely, and of those that are unchanged.
async fn assert_pairs(client: &Client, merged: i64, unmerged: i64) {
    let query = "select (select count(*) from entities where type = 'restaurant'), (select count(*) from mentions),
                        (select count(*) from entity_redirects), (select count(*) from connection_redirects)";
    let row = client.query_one(query, &[]).await.unwrap();
    let counts: [i64; 4] = [0, 1, 2, 3].map(|column| row.get(column));
    assert_eq!(counts, [merged + 2 * unmerged, 5 * merged + 6 * unmerged, merged, merged]);
    assert_group_by(client, as_of()).await;
    assert_eq!(dangling(client).await, Vec::<String>::new());
}

/// The merge waits for another program's transaction that has deleted an entity; no unit does.
#[tokio::test(flavor = "multi_thread")]
async fn units_do_not_wait_for_a_merge_that_waits_for_a_deletion() {
    let database = Database::migrated().await;
    // Longer than the test: sessions behind the merge would wait for the end of the deletion.
    let patient = Duration::from_mins(10);
    let config = database.config().lock_timeout(patient).statement_timeout(patient).build().unwrap();
    let engine = Engine::start(config).await.unwrap();
    let merge = pair(&engine, 1).await;
    commit(&engine, unused_dish()).await;
    let (mut other, client) = (database.client().await, database.client().await);
    let deletion = other.transaction().await.unwrap();
    assert_eq!(deletion.execute("delete from entities where name = 'unused'", &[]).await.unwrap(), 1);
    let merging = tokio::spawn({
        let engine = engine.clone();
        async move { engine.merge(vec![merge]).await.remove(0) }
    });
    until(
        &client,
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')",
    )
    .await;
    for number in 0..5 {
        commit(&engine, unit(&format!("meanwhile {number}"))).await;
    }
    assert!(!merging.is_finished());
    deletion.commit().await.unwrap();
    assert!(matches!(within(merging).await.unwrap(), MergeOutcome::Merged { .. }));
    within(engine.shutdown(Duration::from_secs(20))).await;
    assert_group_by(&client, as_of()).await;
}

fn unused_dish() -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    unit.dish("unused").handle();
    unit
}

/// Whether a session waits for the merges' lock.
const WAITS_FOR_MERGES: &str = "select exists (select from pg_locks where locktype = 'advisory' and not granted
    and database = (select oid from pg_database where datname = current_database()))";
/// Whether a session waits for a row.
const WAITS_FOR_ROW: &str = "select exists (select from pg_stat_activity where datname = current_database()
    and wait_event_type = 'Lock' and wait_event in ('transactionid', 'tuple'))";

struct Rig {
    database: Database,
    proxy: Proxy,
    engine: Engine,
    client: Client,
}

/// An engine behind a proxy.
async fn rig(settings: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Rig {
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.url).await;
    let config = Config::builder(proxy.url_of(&database.url))
        .as_of(graphsink::AsOf::Fixed(as_of()))
        .statement_timeout(Duration::from_secs(2))
        .lock_timeout(Duration::from_millis(1500))
        .connect_timeout(Duration::from_secs(2));
    let engine = Engine::start(settings(config).build().unwrap()).await.unwrap();
    let client = database.client().await;
    Rig { database, proxy, engine, client }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_cut_off_anywhere_has_a_true_outcome() {
    let mut random = StdRng::seed_from_u64(seed("merges cut off"));
    let Rig { proxy, engine, client, .. } = rig(|config| config.outcome_deadline(Duration::from_secs(45))).await;
    let at_commit = [Fault::CUT_BEFORE_COMMIT, Fault::CUT_AFTER_COMMIT, Fault::CUT_AFTER_ANSWER];
    let faults: Vec<Fault> = at_commit.into_iter().chain((0..60).map(|_| Fault::random_cut(&mut random))).collect();
    for (number, fault) in faults.iter().enumerate() {
        let merge = pair(&engine, number).await;
        proxy.on_next(*fault);
        let outcome = within(engine.merge(vec![merge.clone()])).await.remove(0);
        // The outcome tells the first commit's work although the merge may have been tried twice: not "already merged".
        assert!(matches!(outcome, MergeOutcome::Merged { .. }), "{fault:?}: {outcome:?}");
        proxy.disarm();
        let again = within(engine.merge(vec![merge])).await.remove(0);
        assert!(matches!(again, MergeOutcome::AlreadyMerged { .. }), "{fault:?}: {again:?}");
        assert_eq!(again.survivor(), outcome.survivor());
    }
    assert_pairs(&client, faults.len() as i64, 0).await;
    let counts = proxy.counts();
    assert!(counts.fences >= 3 && counts.faults.values().sum::<usize>() > 20, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_whose_fate_cannot_be_asked_for_is_unknown_and_safe_to_repeat() {
    // The pool has one session, and gets no other.
    let Rig { proxy, engine, client, .. } =
        rig(|config| config.in_flight_commits(1).outcome_deadline(Duration::from_secs(1))).await;
    for (number, (fault, took_place)) in
        [(Fault::CUT_BEFORE_COMMIT, false), (Fault::CUT_AFTER_COMMIT, true)].into_iter().enumerate()
    {
        let merge = pair(&engine, number).await;
        proxy.refuse(true);
        proxy.on_next(fault);
        let outcome = within(engine.merge(vec![merge.clone()])).await.remove(0);
        let MergeOutcome::Unavailable(unavailable) = outcome else { panic!("{fault:?}: {outcome:?}") };
        assert!(unavailable.commit_under_way, "{unavailable}");
        assert!(matches!(unavailable.cause, UnavailableCause::Database(_)), "{unavailable}");
        proxy.refuse(false);
        let again = within(async {
            loop {
                match engine.merge(vec![merge.clone()]).await.remove(0) {
                    MergeOutcome::Unavailable(_) => {}
                    outcome => break outcome,
                }
            }
        })
        .await;
        assert_eq!(matches!(again, MergeOutcome::AlreadyMerged { .. }), took_place, "{fault:?}: {again:?}");
    }
    assert_pairs(&client, 2, 0).await;
}

/// A unit that names the entity to be merged holds the merge up; one that begins while a merge commits waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn merges_and_units_of_the_same_entity_wait_for_each_other() {
    let Rig { database, proxy, engine, client } = rig(|config| config.outcome_deadline(Duration::from_secs(45))).await;
    let other = database.engine().await;
    let merge = pair(&other, 1).await;
    commit(&engine, unit("warm up")).await;

    proxy.on_next(Fault::HOLD_COMMIT);
    let mut late = UnitOfWork::new();
    let (from, dish) = (late.restaurant("from 1").handle(), late.dish("only before").handle());
    let _ = late.connection(from, dish).handle();
    let receipt = engine.submit(late).await.unwrap();
    within(proxy.faults_happened(1)).await;
    let merging = tokio::spawn({
        let (other, merge) = (other.clone(), merge.clone());
        async move { other.merge(vec![merge]).await.remove(0) }
    });
    until(&client, WAITS_FOR_MERGES).await;
    proxy.release();
    assert!(within(receipt).await.committed().is_some());
    let into = within(merging).await.unwrap().survivor().expect("merged");
    let of_dish = "select c.restaurant_id from connections c join entities d on d.entity_id = c.dish_or_category_id
                   where d.name = $1";
    let restaurant_of = async |dish: &str| -> Uuid { client.query_one(of_dish, &[&dish]).await.unwrap().get(0) };
    assert_eq!(restaurant_of("only before").await, into);

    let merge = pair(&other, 2).await;
    proxy.on_next(Fault::HOLD_COMMIT);
    let merging = tokio::spawn({
        let (engine, merge) = (engine.clone(), merge.clone());
        async move { engine.merge(vec![merge]).await.remove(0) }
    });
    within(proxy.faults_happened(2)).await;
    let mut late = UnitOfWork::new();
    let (from, dish) = (late.restaurant("from 2").handle(), late.dish("only after").handle());
    let _ = late.connection(from, dish).handle();
    let receipt = other.submit(late).await.unwrap();
    until(&client, WAITS_FOR_MERGES).await;
    proxy.release();
    let into = within(merging).await.unwrap().survivor().expect("merged");
    let Outcome::Committed(committed) = within(receipt).await else { panic!("the unit waits and then commits") };
    assert_eq!(committed.entities[0].id, into);
    assert_eq!(restaurant_of("only after").await, into);
    assert_group_by(&client, as_of()).await;
    assert_eq!(dangling(&client).await, Vec::<String>::new());
}

/// Another program, which does not take the merges' lock, refers to the entity to be merged.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_another_program_adds_before_the_lock_are_merged_too() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let merge = pair(&engine, 1).await;
    let (client, program) = (database.client().await, database.client().await);
    let insert = "begin;
        insert into entities (entity_id, name, type) values (gen_random_uuid(), 'cake', 'dish_or_category');
        insert into connections (connection_id, restaurant_id, dish_or_category_id, is_menu_item)
            select gen_random_uuid(), r.entity_id, d.entity_id, true from entities r, entities d
            where r.name = 'from 1' and d.name = 'cake'";
    program.batch_execute(insert).await.unwrap();
    let merging = tokio::spawn({
        let engine = engine.clone();
        async move { engine.merge(vec![merge]).await.remove(0) }
    });
    until(&client, WAITS_FOR_ROW).await;
    program.batch_execute("commit").await.unwrap();
    let into = within(merging).await.unwrap().survivor().expect("merged");
    let rows = client.query("select restaurant_id from connections", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, Uuid>(0)).collect::<Vec<_>>(), [into, into]);
    assert_pairs(&client, 1, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_merges_until_its_deadline() {
    let database = Database::migrated().await;
    let client = database.client().await;
    for (number, (deadline, is_merged)) in
        [(Duration::from_secs(30), true), (Duration::from_millis(100), false)].into_iter().enumerate()
    {
        let engine = database.engine().await;
        let merge = pair(&engine, number).await;
        let program = database.client().await;
        let lock = format!("begin; select from entities where name = 'into {number}' for update");
        program.batch_execute(&lock).await.unwrap();
        let merging = tokio::spawn({
            let (engine, merge) = (engine.clone(), merge.clone());
            async move { engine.merge(vec![merge]).await.remove(0) }
        });
        until(&client, WAITS_FOR_ROW).await;
        let ending = tokio::spawn({
            let engine = engine.clone();
            async move { engine.shutdown(deadline).await }
        });
        if is_merged {
            program.batch_execute("rollback").await.unwrap();
            assert!(matches!(within(merging).await.unwrap(), MergeOutcome::Merged { .. }));
        } else {
            let outcome = within(merging).await.unwrap();
            let MergeOutcome::Unavailable(unavailable) = outcome else { panic!("{outcome:?}") };
            assert!(matches!(unavailable.cause, UnavailableCause::ShutDown), "{unavailable}");
            program.batch_execute("rollback").await.unwrap();
        }
        let _ = within(ending).await.unwrap();
        let closed = within(engine.merge(vec![merge])).await.remove(0);
        let MergeOutcome::Unavailable(unavailable) = closed else { panic!("{closed:?}") };
        assert!(matches!(unavailable.cause, UnavailableCause::ShutDown), "{unavailable}");
        // A session notices the death of its client when it next sends to it.
        drop(program);
        until(
            &client,
            "select not exists (select from pg_stat_activity where datname = current_database()
                                and backend_type = 'client backend' and pid <> pg_backend_pid())",
        )
        .await;
    }
    assert_pairs(&client, 1, 1).await;
}

/// The child's database; without it this process is not the child.
const CHILD_URL: &str = "GRAPHSINK_TEST_MERGES_URL";
const PAIRS: usize = 60;

/// Kills the child if the test ends first.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // The child may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn of_number(number: usize) -> EntityMerge {
    EntityMerge::new(restaurant(&format!("from {number}")), restaurant(&format!("into {number}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_while_it_merges_leaves_whole_merges() {
    const NAME: &str = "merges::faults::a_process_that_is_killed_while_it_merges_leaves_whole_merges";
    if let Ok(url) = env::var(CHILD_URL) {
        let config = Config::builder(url).as_of(graphsink::AsOf::Fixed(as_of())).build().unwrap();
        let engine = Engine::start(config).await.unwrap();
        for number in 0..PAIRS {
            within(engine.merge(vec![of_number(number)])).await.remove(0).survivor().expect("merged");
        }
        return;
    }
    let mut random = StdRng::seed_from_u64(seed("a process that merges is killed"));
    let database = Database::migrated().await;
    let engine = database.engine().await;
    for number in 0..PAIRS {
        pair(&engine, number).await;
    }
    let client = connect(&database.url).await;
    let merged =
        async || -> i64 { client.query_one("select count(*) from entity_redirects", &[]).await.unwrap().get(0) };
    let mut kills = 0;
    while merged().await < PAIRS as i64 * 2 / 3 {
        let before = merged().await;
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([NAME, "--exact", "--test-threads=1"]).env(CHILD_URL, &database.url);
        let child = Killed(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        within(async {
            while merged().await == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..30_000))).await;
        drop(child);
        kills += 1;
        assert_group_by(&client, as_of()).await;
    }
    let before = merged().await;
    let outcomes = within(engine.merge((0..PAIRS).map(of_number).collect())).await;
    // Sessions of killed processes may have committed in between.
    let already =
        outcomes.iter().filter(|outcome| matches!(outcome, MergeOutcome::AlreadyMerged { .. })).count() as i64;
    assert!(already >= before, "{already} of {before}");
    assert!(outcomes.iter().all(|outcome| outcome.survivor().is_some()), "{outcomes:?}");
    assert_pairs(&client, PAIRS as i64, 0).await;
    println!("{kills} kills, {before} merges before them");
    assert!(
        kills > 0
            && matches!(
                merge_one(&engine, restaurant("from 0"), restaurant("into 0")).await,
                MergeOutcome::AlreadyMerged { .. }
            )
    );
}
