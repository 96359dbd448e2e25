//! Loads into shadow tables: the tables afterwards are what they were, and whatever ends such a load leaves nothing.

mod carried;

use std::pin::pin;
use std::task::{Context, Poll};

use super::shadow::ShadowTables;
use super::*;

/// The shadow table of entities.
const FIND_ENTITIES: &str =
    "select oid::regclass::text from pg_class where relname ~ '^graphsink_bulk_entities_[0-9a-f]*$'";

/// A moment of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Opened,
    Copied,
    Built,
    Replaced,
}

const MOMENTS: [Moment; 4] = [Moment::Opened, Moment::Copied, Moment::Built, Moment::Replaced];

impl Database {
    /// Fills and builds shadow tables.
    async fn fill(&self, shadow: &ShadowTables) -> Result<(), BulkStoreError> {
        self.copy_beside(shadow).await?;
        let builds = Table::ALL.map(|table| shadow.build(table, &|_| {}));
        futures::future::try_join_all(builds).await.map(drop)
    }

    async fn copy_beside(&self, shadow: &ShadowTables) -> Result<(), BulkStoreError> {
        copy_beside(shadow, self.all_rows().await).await
    }

    async fn all_rows(&self) -> Vec<(Table, AllRows)> {
        let mut all = Vec::new();
        for table in Table::ALL {
            all.push((table, self.rows(table).await.collect().await));
        }
        all
    }

    /// A whole load.
    async fn load_beside(&self) -> Result<(), BulkStoreError> {
        let mut load = self.begin().await?;
        let shadow = load.shadow_tables().await?.expect("nothing is against it");
        self.fill(&shadow).await?;
        load.replace_tables(shadow, |_| {}, &|_| {}).await?;
        load.commit().await
    }

    /// Panics unless the tables are as before once the load's sessions have ended, and the next load removes all else.
    async fn assert_next_load_cleans_up(&self, what: &str, before: &[String]) {
        self.until_rolled_back().await;
        self.assert_empty().await;
        within(self.begin()).await.unwrap().roll_back().await;
        self.assert_as_before(what, before).await;
    }
}

#[tokio::test]
async fn after_a_load_the_catalog_equals_that_of_the_migrations() {
    for migrations in [Migrations::tables_only(), Migrations::all()] {
        let only_migrated = Database::new(shared().await, migrations).await.catalog().await;
        let database = Database::with_source(shared().await, migrations).await;
        database.load_beside().await.unwrap();
        catalog::assert_same_catalog("a load", &only_migrated, &database.catalog().await);
        database.assert_loaded().await;
        for table in Table::ALL {
            let (visible, pages) = exactness::visible(&database, table).await;
            assert!(visible == pages && pages > 0, "{table}: {visible} of {pages} pages need no vacuum");
            let known = format!("select count(*) from pg_stats where schemaname = 'public' and tablename = '{table}'");
            let known: i64 = database.client.query_one(&known, &[]).await.unwrap().get(0);
            assert!(known > 5, "{table} was not analyzed");
        }
        database.assert_whole("an engine", &only_migrated).await;
        // And once more, on tables that have been shadow tables.
        database.run("truncate entities, connections, mentions; delete from graphsink_attempts").await;
        database.load_beside().await.unwrap();
        database.assert_whole("again", &only_migrated).await;
    }
}

#[tokio::test]
async fn a_role_without_further_sessions_loads_in_place() {
    let server = EmbeddedServer::temporary().await.unwrap();
    let (database, _) = beginning::owned(&server).await;
    database
        .run("grant execute on all functions in schema public to loader; alter role loader connection limit 2")
        .await;
    let (_, host) = database.url.split_once('@').unwrap();
    let config = Config::builder(format!("postgresql://loader:x@{host}")).build().unwrap();
    let mut load = BulkTransaction::begin(&config, TransactionSettings::default()).await.unwrap();
    assert_eq!(load.reasons_against_shadow_tables().await.unwrap().1, Vec::<String>::new());
    assert!(load.shadow_tables().await.unwrap().is_none());
    load.roll_back().await;
    database.run("alter role loader connection limit 3").await;
    let mut load = BulkTransaction::begin(&config, TransactionSettings::default()).await.unwrap();
    assert!(load.shadow_tables().await.unwrap().is_some());
}

#[tokio::test]
async fn tables_can_be_read_until_they_are_replaced() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let before = database.catalog().await;
    let reader = connect(&database.url).await;
    let reads = "begin; select from mentions, connections, entities";
    reader.batch_execute(reads).await.unwrap();
    let mut load = database.begin().await.unwrap();
    let shadow = load.shadow_tables().await.unwrap().unwrap();
    database.fill(&shadow).await.unwrap();
    database.assert_empty().await;
    let (mut waits, released) = (0, std::cell::Cell::new(false));
    let replacing = async {
        let waits_for = |_: &str| {
            waits += 1;
            released.set(true);
        };
        load.replace_tables(shadow, waits_for, &|_| {}).await.unwrap();
        load.commit().await.unwrap();
    };
    let releasing = async {
        while !released.get() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        reader.batch_execute("select from mentions; commit").await.unwrap();
    };
    futures::join!(replacing, releasing);
    assert!(waits > 0);
    database.assert_whole("read", &before).await;
}

/// A view can be created while the load holds its first lock.
#[tokio::test]
async fn an_object_created_during_the_load_ends_it_and_is_named() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let before = database.catalog().await;
    let mut load = database.begin().await.unwrap();
    let shadow = load.shadow_tables().await.unwrap().unwrap();
    database.fill(&shadow).await.unwrap();
    database.run("create view late as select name from entities").await;
    match load.replace_tables(shadow, |_| {}, &|_| {}).await {
        Err(BulkStoreError::Altered { differences }) => {
            assert!(differences[0].contains("view late depends on table entities"), "{differences:?}");
        }
        other => panic!("{other:?}"),
    }
    load.roll_back().await;
    database.run("drop view late").await;
    database.assert_as_before("a view", &before).await;
}

/// A right that is granted meanwhile is kept.
#[tokio::test]
async fn a_right_granted_during_the_load_is_kept() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let mut load = database.begin().await.unwrap();
    let shadow = load.shadow_tables().await.unwrap().unwrap();
    database.fill(&shadow).await.unwrap();
    database.run("grant select on entities to public").await;
    let before = database.catalog().await;
    let before: Vec<_> = before.into_iter().filter(|line| !line.contains("graphsink_bulk_")).collect();
    load.replace_tables(shadow, |_| {}, &|_| {}).await.unwrap();
    load.commit().await.unwrap();
    database.assert_whole("granted", &before).await;
}

type AllRows = Vec<Result<Bytes, Infallible>>;

async fn copy_beside(shadow: &ShadowTables, rows: Vec<(Table, AllRows)>) -> Result<(), BulkStoreError> {
    let copies = rows.into_iter().map(|(table, rows)| async move {
        match shadow.copy(table, futures::stream::iter(rows)).await {
            Ok(_) => Ok(()),
            Err(CopyError::Store(error)) => Err(error),
            Err(CopyError::Rows(never)) => match never {},
        }
    });
    futures::future::try_join_all(copies).await.map(drop)
}

/// Runs a load up to a moment, and then `fault`.
async fn load_with_fault(
    database: &Database,
    at: Moment,
    fault: impl AsyncFnOnce(),
) -> Result<BulkTransaction, BulkStoreError> {
    let mut fault = Some(fault);
    let mut fault_if = async |now: Moment| {
        if at == now {
            fault.take().unwrap()().await;
        }
    };
    let rows = database.all_rows().await;
    let mut load = database.begin().await?;
    let shadow = load.shadow_tables().await?.expect("nothing is against it");
    fault_if(Moment::Opened).await;
    copy_beside(&shadow, rows).await?;
    fault_if(Moment::Copied).await;
    futures::future::try_join_all(Table::ALL.map(|table| shadow.build(table, &|_| {}))).await?;
    fault_if(Moment::Built).await;
    load.replace_tables(shadow, |_| {}, &|_| {}).await?;
    fault_if(Moment::Replaced).await;
    Ok(load)
}

#[tokio::test]
async fn tables_left_by_terminated_sessions_are_removed_by_the_next_load() {
    let database = Database::with_source(shared().await, Migrations::all()).await;
    let before = database.catalog().await;
    for moment in MOMENTS {
        let terminate = async || {
            let all = "select pg_terminate_backend(pid) from pg_stat_activity
                       where application_name = 'graphsink' and datname = current_database()";
            database.client.execute(all, &[]).await.unwrap();
        };
        let ended = match within(load_with_fault(&database, moment, terminate)).await {
            Ok(load) => load.commit().await,
            Err(error) => Err(error),
        };
        assert!(ended.as_ref().is_err_and(BulkStoreError::is_retryable), "{moment:?}: {ended:?}");
        database.assert_next_load_cleans_up(&format!("terminated {moment:?}"), &before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_left_by_a_server_crash_are_removed_by_the_next_load() {
    let mut server = EmbeddedServer::temporary().await.unwrap();
    let mut database = Database::with_source(&server, Migrations::all()).await;
    let before = database.catalog().await;
    for moment in MOMENTS {
        let server = &mut server;
        let crash = async || {
            server.crash().unwrap();
            server.restart().await.unwrap();
        };
        let source = Database { url: database.url.clone(), client: connect(&database.url).await };
        let ended = match within(load_with_fault(&source, moment, crash)).await {
            Ok(load) => load.commit().await,
            Err(error) => Err(error),
        };
        database.client = connect(&database.url).await;
        assert!(ended.is_err(), "{moment:?}");
        database.assert_next_load_cleans_up(&format!("crashed {moment:?}"), &before).await;
    }
    database.load_beside().await.unwrap();
    database.assert_whole("at last", &before).await;
}

#[tokio::test]
async fn a_load_that_is_rolled_back_or_refused_removes_its_tables() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    database
        .run(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
             create constraint trigger refuses after insert on graphsink_attempts deferrable initially deferred
                 for each row when (not new.fenced) execute function refuse();
             alter table graphsink_attempts disable trigger refuses",
        )
        .await;
    let before = database.catalog().await;
    for moment in MOMENTS {
        let mut load = database.begin().await.unwrap();
        let shadow = load.shadow_tables().await.unwrap().unwrap();
        if moment != Moment::Opened {
            database.copy_beside(&shadow).await.unwrap();
        }
        if moment == Moment::Replaced {
            futures::future::try_join_all(Table::ALL.map(|table| shadow.build(table, &|_| {}))).await.unwrap();
            load.replace_tables(shadow, |_| {}, &|_| {}).await.unwrap();
        } else {
            drop(shadow);
        }
        load.roll_back().await;
        database.assert_as_before(&format!("rolled back {moment:?}"), &before).await;
    }
    // A commit that the server refuses.
    database.run("alter table graphsink_attempts enable trigger refuses").await;
    let error = database.load_beside().await.unwrap_err();
    assert!(error.to_string().contains("committing"), "{error}");
    database.run("alter table graphsink_attempts disable trigger refuses").await;
    database.assert_as_before("refused", &before).await;
}

/// Polls a future this many times, at most to its end, and drops it: at once, while it waits, or when it would be polled
/// again. Returns whether it ended.
async fn poll_times(work: impl Future<Output = ()>, times: usize, at_once: bool) -> bool {
    let (mut work, mut polls) = (pin!(work), 0);
    std::future::poll_fn(|context: &mut Context<'_>| {
        if polls == times {
            return Poll::Ready(false);
        }
        polls += 1;
        match work.as_mut().poll(context) {
            Poll::Pending if at_once && polls == times => Poll::Ready(false),
            polled => polled.map(|()| true),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_rolled_back_at_any_await_removes_its_tables() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let before = database.catalog().await;
    let rows = database.all_rows().await;
    let (mut times, mut at_once) = (0, false);
    loop {
        let mut load = database.begin().await.unwrap();
        let work = async {
            let shadow = load.shadow_tables().await.unwrap().unwrap();
            copy_beside(&shadow, rows.clone()).await.unwrap();
            futures::future::try_join_all(Table::ALL.map(|table| shadow.build(table, &|_| {}))).await.unwrap();
            load.replace_tables(shadow, |_| {}, &|_| {}).await.unwrap();
        };
        let is_whole = poll_times(work, times, at_once).await;
        load.roll_back().await;
        database.until_rolled_back().await;
        catalog::assert_same_catalog(&format!("after {times} polls"), &before, &database.catalog().await);
        database.assert_empty().await;
        if is_whole {
            break;
        }
        // The tables are created within the first polls.
        times += usize::from(at_once) * (1 + times / 20);
        at_once = !at_once;
    }
    println!("rolled back up to {times} polls");
}

/// Another program holds a lock that the removal of a load's tables waits for, and the first attempt fails.
async fn assert_tables_are_removed_later(lock_timeout: Duration, is_cancelled: bool) {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let before = database.catalog().await;
    let config = database.config().lock_timeout(lock_timeout).connect_timeout(PATIENCE).build().unwrap();
    let mut load = BulkTransaction::begin(&config, TransactionSettings::default()).await.unwrap();
    let pid = load.server_process().await.unwrap();
    drop(load.shadow_tables().await.unwrap().unwrap());
    let shadow: String = database.client.query_one(FIND_ENTITIES, &[]).await.unwrap().get(0);
    let writer = connect(&database.url).await;
    writer.batch_execute(&format!("begin; lock table {shadow} in row exclusive mode")).await.unwrap();
    let writing = async {
        let begun = format!(
            "select xact_start::text from pg_stat_activity a join pg_locks l using (pid)
             where pid = {pid} and relation = '{shadow}'::regclass and not granted"
        );
        let start = Instant::now();
        let begun: String = loop {
            if let Some(row) = database.client.query_opt(&begun, &[]).await.unwrap() {
                break row.get(0);
            }
            assert!(start.elapsed() < PATIENCE, "the removal never waits");
        };
        if is_cancelled {
            database.client.execute("select pg_cancel_backend($1)", &[&pid]).await.unwrap();
        }
        let again =
            format!("select exists (select from pg_stat_activity where pid = {pid} and xact_start > '{begun}')");
        database.until(&again).await;
        writer.batch_execute("rollback").await.unwrap();
    };
    futures::join!(writing, load.roll_back());
    database.assert_as_before("removed later", &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_cancel_request_does_not_keep_a_load_from_removing_its_tables() {
    assert_tables_are_removed_later(PATIENCE, true).await;
}

/// As by a session of the load that was cancelled, on a machine that is slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_held_for_long_does_not_keep_a_load_from_removing_its_tables() {
    assert_tables_are_removed_later(Duration::from_millis(50), false).await;
}

#[tokio::test]
async fn tables_of_another_program_are_not_removed() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    database.run("create table graphsink_bulk_mentions (id int); insert into graphsink_bulk_mentions values (1)").await;
    database.load().await.unwrap();
    let left: i64 =
        database.client.query_one("select count(*) from graphsink_bulk_mentions", &[]).await.unwrap().get(0);
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_row_that_breaks_a_foreign_unique_index_ends_the_load_and_names_it() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    database.run("create unique index one_each on mentions (upvotes)").await;
    let before = database.catalog().await;
    let mut load = database.begin().await.unwrap();
    let shadow = load.shadow_tables().await.unwrap().unwrap();
    let error = database.fill(&shadow).await.unwrap_err();
    assert!(error.to_string().contains("one_each"), "{error}");
    drop(shadow);
    load.roll_back().await;
    catalog::assert_same_catalog("refused", &before, &database.catalog().await);
    database.assert_empty().await;
}

#[tokio::test]
async fn a_row_that_breaks_a_foreign_key_ends_the_load_and_names_it() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let before = database.catalog().await;
    for (table, key) in
        [(Table::Entities, "connections_restaurant_id_fkey"), (Table::Connections, "mentions_connection_id_fkey")]
    {
        let mut rows = database.all_rows().await;
        // All but the first, which has the header, and the trailer.
        let referred = &mut rows[table as usize].1;
        referred.drain(1..referred.len() - 1);
        let mut load = database.begin().await.unwrap();
        let shadow = load.shadow_tables().await.unwrap().unwrap();
        copy_beside(&shadow, rows).await.unwrap();
        let builds = Table::ALL.map(|table| shadow.build(table, &|_| {}));
        let error = futures::future::try_join_all(builds).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("checking the foreign key {key}")), "{text}");
        assert!(text.contains(&format!("constraint {key}")) && !error.is_retryable(), "{text}");
        drop(shadow);
        load.roll_back().await;
        database.assert_as_before(key, &before).await;
    }
}

/// Entities are locked by another program, so their indexes wait, and so do the foreign keys to them.
#[tokio::test]
async fn a_foreign_key_is_checked_when_its_own_tables_are_built() {
    let database = Database::with_source(shared().await, Migrations::all()).await;
    let before = database.catalog().await;
    let mut load = database.begin().await.unwrap();
    let shadow = load.shadow_tables().await.unwrap().unwrap();
    database.copy_beside(&shadow).await.unwrap();
    let entities: String = database.client.query_one(FIND_ENTITIES, &[]).await.unwrap().get(0);
    let writer = connect(&database.url).await;
    writer.batch_execute(&format!("begin; lock table {entities} in row exclusive mode")).await.unwrap();
    let releasing = async {
        let valid = "select exists (select from pg_constraint where conname = 'mentions_connection_id_fkey'
                                    and conrelid::regclass::text ~ '^graphsink_bulk' and convalidated)";
        database.until(valid).await;
        writer.batch_execute("rollback").await.unwrap();
    };
    let builds = futures::future::try_join_all(Table::ALL.map(|table| shadow.build(table, &|_| {})));
    futures::join!(releasing, async { builds.await.unwrap() });
    load.replace_tables(shadow, |_| {}, &|_| {}).await.unwrap();
    load.commit().await.unwrap();
    database.assert_whole("waited", &before).await;
}

#[tokio::test]
async fn each_step_is_reported_before_it_begins() {
    let database = Database::with_source(shared().await, Migrations::all()).await;
    database.run("create table votes (entity uuid constraint of_votes references entities)").await;
    let mut load = database.begin().await.unwrap();
    let shadow = load.shadow_tables().await.unwrap().unwrap();
    database.copy_beside(&shadow).await.unwrap();
    let told = std::sync::Mutex::new(Vec::new());
    let tell = |step: BuildStep<'_>| {
        told.lock().unwrap().push((step.number, step.steps, step.what, step.name.to_owned()));
    };
    for table in Table::ALL {
        shadow.build(table, &tell).await.unwrap();
    }
    let built = std::mem::take(&mut *told.lock().unwrap());
    let mut numbers: Vec<usize> = built.iter().map(|step| step.0).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..built.len()) && built.iter().all(|step| step.1 == built.len()), "{built:?}");
    let count = "select count(*) from pg_indexes where schemaname = 'public' and tablename = any($1)";
    let tables = Table::ALL.map(Table::as_str);
    let indexes: i64 = database.client.query_one(count, &[&&tables[..]]).await.unwrap().get(0);
    let of = |what| built.iter().filter(|step| step.2 == what).count();
    assert_eq!((of(BuildWhat::Index), of(BuildWhat::Statistics), of(BuildWhat::ForeignKey)), (indexes as usize, 3, 3));
    assert!(built.iter().any(|step| step.3 == "mentions_pkey"));
    load.replace_tables(shadow, |_| {}, &tell).await.unwrap();
    let checked = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(checked, [(0, 1, BuildWhat::ForeignKey, "of_votes".to_owned())]);
    load.roll_back().await;
    database.assert_empty().await;
}
