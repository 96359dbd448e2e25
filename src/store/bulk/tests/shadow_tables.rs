//! Loads into shadow tables: the tables afterwards are what they were, and whatever ends such a load leaves nothing.

use super::shadow::ShadowTables;
use super::*;

/// A moment of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Opened,
    Copied,
    Built,
    Replaced,
}

const MOMENTS: [Moment; 4] = [Moment::Opened, Moment::Copied, Moment::Built, Moment::Replaced];

/// Objects on the tables that are carried over.
const CARRIED: &str = r#"
    alter table mentions add column words int generated always as (length(content_excerpt)) stored;
    alter table mentions add column reader text not null default 'none';
    alter table mentions add constraint words_are_few check (words < 1000000);
    comment on constraint words_are_few on mentions is 'a check';
    create table favourites (entity uuid references entities on delete cascade initially deferred,
                             connection uuid);
    alter table favourites add constraint "a ""key" foreign key (connection) references connections not valid;
    comment on constraint "a ""key" on favourites is 'kept';
    create index "an ""index" on mentions (lower(author), created_at desc nulls last, words)
        include (upvotes) with (fillfactor = 70) where upvotes > 0;
    comment on index "an ""index" is 'with \ and '' in it';
    alter index "an ""index" alter column 1 set statistics 500;
    create unique index mentions_id_again on mentions (mention_id);
    alter table mentions add constraint by_reader unique (reader, mention_id) include (words) with (fillfactor = 60)
        deferrable initially deferred;
    comment on constraint by_reader on mentions is 'a constraint';
    comment on index by_reader is 'and its index';
    create index mentions_brin on mentions using brin (created_at) with (pages_per_range = 4);
    create index connections_hash on connections using hash (restaurant_id);
    comment on index mentions_pkey is 'that of the migrations';
    alter table mentions cluster on mentions_key;
    alter table mentions replica identity using index mentions_key;
    alter index mentions_key set (fillfactor = 75);
    alter index entities_name_type_key rename to names;
    create function nothing() returns trigger language plpgsql as 'begin return new; end';
    create trigger touched before update or delete on mentions for each row when (old.upvotes > 1 or old.upvotes < -1)
        execute function nothing();
    comment on trigger touched on mentions is 'a trigger';
    create trigger inserted after insert on mentions for each row execute function nothing();
    alter table mentions disable trigger inserted;
    create trigger replicated before insert on mentions for each row execute function nothing();
    alter table mentions enable replica trigger replicated;
    create role "a reader";
    grant select (name), update (address) on entities to "a reader" with grant option;
    grant select on mentions to public;
    grant select, delete on mentions to "a reader";
    comment on table mentions is 'a table, 100 % ''quoted''';
    comment on column mentions.upvotes is 'a column';
    alter table mentions set (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.5);
    alter table mentions alter column content_excerpt set storage external;
    alter table mentions alter column author set default 'unknown';
"#;

/// Objects that keep the rows in place: how each is made, a part of the reason that is given, how it is removed.
const REASONS: [(&str, &str, &str); 24] = [
    (
        "create table others (id int); create function does_nothing() returns trigger language plpgsql as 'begin return new; end';
         create constraint trigger theirs after insert on others from mentions for each row execute function does_nothing()",
        "trigger theirs on table others depends on table mentions",
        "drop table others; drop function does_nothing",
    ),
    (
        "alter table mentions add column origin regclass default 'mentions'::regclass",
        "refers to its table as a whole",
        "alter table mentions alter column origin set default null",
    ),
    (
        "alter table entities add constraint whole check (entities is not null)",
        "refers to its table as a whole",
        "alter table entities drop constraint whole",
    ),
    ("comment on type mentions is 'a row'", "the row type of public.mentions", "comment on type mentions is null"),
    (
        "alter trigger graphsink_entity_deleted on entities depends on extension plpgsql",
        "the trigger graphsink_entity_deleted depends on an extension",
        "alter trigger graphsink_entity_deleted on entities no depends on extension plpgsql",
    ),
    (
        "create function watch() returns event_trigger language plpgsql as 'begin end';
         create event trigger watches on ddl_command_end execute function watch()",
        "there are event triggers",
        "drop event trigger watches; drop function watch",
    ),
    ("create view best as select name from entities", "view best depends on table entities", "drop view best"),
    (
        "create function first(e entities) returns text language sql as 'select e.name'",
        "depends on type entities",
        "drop function first",
    ),
    (
        "alter table mentions add column number int generated by default as identity",
        "sequence mentions_number_seq depends on table mentions",
        "alter table mentions alter column number drop identity; alter table mentions alter column number set default 0",
    ),
    ("create publication apart for table graphsink_attempts", "there are publications", "drop publication apart"),
    (
        "create rule no_deletion as on delete to connections do instead nothing",
        "public.connections has rules",
        "drop rule no_deletion on connections; vacuum connections",
    ),
    (
        "alter table entities enable row level security",
        "public.entities has row-level security",
        "alter table entities disable row level security",
    ),
    (
        "create statistics related (dependencies) on subreddit, source_type from mentions",
        "public.mentions has extended statistics",
        "drop statistics related",
    ),
    (
        "alter table entities replica identity full",
        "public.entities has a replica identity without an index",
        "alter table entities replica identity default",
    ),
    (
        "alter table mentions alter column subreddit set statistics 321",
        "the column subreddit of public.mentions has settings",
        "alter table mentions alter column subreddit set statistics -1",
    ),
    (
        "alter table mentions alter column subreddit set (n_distinct = 40)",
        "the column subreddit of public.mentions has settings",
        "alter table mentions alter column subreddit reset (n_distinct)",
    ),
    (
        "alter table mentions add constraint unchecked check (upvotes < 1000000) not valid",
        "the constraint unchecked of public.mentions is not valid",
        "alter table mentions drop constraint unchecked",
    ),
    (
        "revoke delete on mentions from current_user",
        "the owner of public.mentions lacks rights",
        "grant delete on mentions to current_user",
    ),
    (
        "alter table mentions set (autovacuum_enabled = false)",
        "public.mentions has settings of autovacuum",
        "alter table mentions reset (autovacuum_enabled)",
    ),
    (
        "alter table mentions set (toast.autovacuum_vacuum_threshold = 100)",
        "public.mentions has storage parameters for its long values",
        "alter table mentions reset (toast.autovacuum_vacuum_threshold)",
    ),
    ("alter table mentions set unlogged", "public.mentions is not permanent", "alter table mentions set logged"),
    (
        "alter table entities add constraint one_at_an_address exclude using btree (address with =)",
        "index one_at_an_address is created with its key",
        "alter table entities drop constraint one_at_an_address",
    ),
    (
        "alter default privileges grant select on tables to public",
        "there are default privileges",
        "alter default privileges revoke select on tables from public",
    ),
    (
        "create role other_owner; grant other_owner to current_user; alter table connections owner to other_owner",
        "public.connections belongs to another role",
        "alter table connections owner to current_user",
    ),
];

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
async fn objects_added_by_other_programs_are_carried_over() {
    let server = EmbeddedServer::temporary().await.unwrap();
    let database = Database::with_source(&server, Migrations::all()).await;
    database.run(CARRIED).await;
    let before = database.catalog().await;
    database.load_beside().await.unwrap();
    let own = "select bool_and(reader = 'none' and words = length(content_excerpt)) from mentions";
    assert!(database.client.query_one(own, &[]).await.unwrap().get::<_, bool>(0));
    database.assert_whole("a load with additions", &before).await;
}

#[tokio::test]
async fn objects_that_cannot_be_carried_over_keep_the_rows_in_place() {
    let server = EmbeddedServer::temporary().await.unwrap();
    let database = Database::with_source(&server, Migrations::all()).await;
    for (add, expected, remove) in REASONS {
        database.run(add).await;
        let mut load = database.begin().await.unwrap();
        let reasons = load.reasons_against_shadow_tables().await.unwrap().1;
        assert!(reasons.iter().any(|reason| reason.contains(expected)), "{expected}: {reasons:?}");
        assert!(load.shadow_tables().await.unwrap().is_none(), "{add}");
        load.roll_back().await;
        database.until_rolled_back().await;
        for statement in remove.split("; ") {
            database.run(statement).await;
        }
        let mut load = database.begin().await.unwrap();
        assert_eq!(load.reasons_against_shadow_tables().await.unwrap().1, Vec::<String>::new(), "{remove}");
        load.roll_back().await;
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
async fn each_step_is_reported_before_it_begins() {
    let database = Database::with_source(shared().await, Migrations::all()).await;
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
    assert_eq!((of(BuildWhat::Index), of(BuildWhat::Statistics)), (indexes as usize, 3));
    assert!(built.iter().any(|step| step.3 == "mentions_pkey"));
    load.replace_tables(shadow, |_| {}, &tell).await.unwrap();
    let checked = std::mem::take(&mut *told.lock().unwrap());
    assert!(checked.iter().all(|step| step.1 == 3 && step.2 == BuildWhat::ForeignKey) && checked.len() == 3);
    load.roll_back().await;
    database.assert_empty().await;
}
