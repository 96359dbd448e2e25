//! A loaded database equals one that the migrations made, except for its rows.

use super::*;

/// Whether all pages of a table are marked as visible to all, and their number.
pub(super) async fn visible(database: &Database, table: Table) -> (i32, i32) {
    let pages = format!("select relallvisible, relpages from pg_class where oid = 'public.{table}'::regclass");
    let row = database.client.query_one(&pages, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn after_a_load_the_catalog_equals_that_of_the_migrations() {
    for migrations in [Migrations::tables_only(), Migrations::all()] {
        let only_migrated = Database::new(shared().await, migrations).await.catalog().await;
        let database = Database::with_source(shared().await, migrations).await;
        database.load().await.unwrap();
        catalog::assert_same_catalog("a load", &only_migrated, &database.catalog().await);
        database.assert_loaded().await;
        for table in Table::ALL {
            let (visible, pages) = visible(&database, table).await;
            assert!(visible == pages && pages > 0, "{table}: {visible} of {pages} pages need no vacuum");
            let known = format!("select count(*) from pg_stats where schemaname = 'public' and tablename = '{table}'");
            let known: i64 = database.client.query_one(&known, &[]).await.unwrap().get(0);
            assert!(known > 5, "{table} was not analyzed");
        }
        database.assert_engine_writes().await;
        catalog::assert_same_catalog("an engine", &only_migrated, &database.catalog().await);
    }
}

#[tokio::test]
async fn tables_of_a_quoted_schema_and_role_can_be_loaded() {
    let server = shared().await;
    let database = Database::with_source(server, Migrations::tables_only()).await;
    let role = format!("loader {}", uuid::Uuid::now_v7().simple());
    database
        .run(&format!(
            "create role \"{role}\" login password 'x'; alter role \"{role}\" set statement_timeout = '50ms';
             alter role \"{role}\" set idle_in_transaction_session_timeout = '50ms';
             alter role \"{role}\" set lock_timeout = '1ms'; alter role \"{role}\" set default_transaction_read_only = on;
             alter role \"{role}\" set default_transaction_isolation = 'serializable';
             alter role \"{role}\" set standard_conforming_strings = off;
             create schema \"a \"\"b\" authorization \"{role}\""
        ))
        .await;
    let url = server.url(database.url.rsplit('/').next().unwrap());
    let (_, host) = url.split_once('@').unwrap();
    let own = format!("postgresql://{}:x@{host}", role.replace(' ', "%20"));
    let config = |url: &str| Config::builder(url).schema("a \"b").build().unwrap();
    database.run(&format!("grant \"{role}\" to current_user; set role \"{role}\"; set statement_timeout = 0")).await;
    // The superuser creates the tables and gives them to the role.
    Migrations::all().run(&config(&database.url)).await.unwrap();
    database.run("reset role").await;
    database
        .run(&format!(
            "do $$ declare r record; begin
                for r in select c.oid::regclass as t from pg_class c join pg_namespace n on n.oid = c.relnamespace
                         where n.nspname = 'a \"b' and c.relkind = 'r' loop
                    execute format('alter table %s owner to \"{role}\"', r.t);
                end loop; end $$"
        ))
        .await;
    let before = catalog::dump(&database.client, "a \"b").await;
    let mut load = BulkTransaction::begin(&config(&own), TransactionSettings::default()).await.unwrap();
    // The load takes longer than the role's timeouts.
    tokio::time::sleep(Duration::from_millis(150)).await;
    load.prepare_tables(|_| {}).await.unwrap();
    database.copy(&mut load).await.unwrap();
    load.build(|_| {}).await.unwrap();
    load.commit().await.unwrap();
    catalog::assert_same_catalog("another role", &before, &catalog::dump(&database.client, "a \"b").await);
}

#[tokio::test]
async fn each_step_is_reported_before_it_begins() {
    let database = Database::with_source(shared().await, Migrations::all()).await;
    let mut load = database.begin().await.unwrap();
    load.prepare_tables(|_| {}).await.unwrap();
    database.copy(&mut load).await.unwrap();
    let mut told = Vec::new();
    load.build(|step| told.push((step.number, step.steps, step.what, step.table, step.name.to_owned()))).await.unwrap();
    load.roll_back().await;
    assert!(told.iter().enumerate().all(|(number, step)| (step.0, step.1) == (number, told.len())), "{told:?}");
    let of = |what| told.iter().filter(|step| step.2 == what).count();
    let count = "select count(*) from pg_indexes where schemaname = 'public' and tablename = any($1)";
    let tables = Table::ALL.map(Table::as_str);
    let indexes: i64 = database.client.query_one(count, &[&&tables[..]]).await.unwrap().get(0);
    assert_eq!((of(BuildWhat::Index), of(BuildWhat::Statistics), of(BuildWhat::ForeignKey)), (indexes as usize, 3, 3));
    assert!(told.iter().any(|step| step.4 == "mentions_pkey" && step.3 == Some(Table::Mentions)));
    database.assert_empty().await;
}

#[tokio::test]
async fn empty_input_leaves_empty_tables() {
    let database = Database::new(shared().await, Migrations::all()).await;
    let before = database.catalog().await;
    let mut load = database.begin().await.unwrap();
    load.prepare_tables(|_| {}).await.unwrap();
    for table in Table::ALL {
        assert_eq!(load.copy(table, futures::stream::empty::<Result<Bytes, Infallible>>()).await.unwrap(), 0);
    }
    load.build(|_| {}).await.unwrap();
    load.commit().await.unwrap();
    catalog::assert_same_catalog("nothing", &before, &database.catalog().await);
    database.assert_empty().await;
    database.assert_engine_writes().await;
}

#[tokio::test]
async fn rows_beyond_the_size_of_a_statement_go_into_the_next_one() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let settings = TransactionSettings { copy_bytes_max: 3_000, ..TransactionSettings::default() };
    let mut load = BulkTransaction::begin(&database.config().build().unwrap(), settings).await.unwrap();
    load.prepare_tables(|_| {}).await.unwrap();
    database.copy(&mut load).await.unwrap();
    load.build(|_| {}).await.unwrap();
    load.commit().await.unwrap();
    database.assert_loaded().await;
    for table in Table::ALL {
        let (visible, pages) = visible(&database, table).await;
        assert_eq!(visible, pages, "{table}");
    }
}

#[tokio::test]
async fn only_the_default_of_maintenance_work_mem_is_raised() {
    let database = Database::new(shared().await, Migrations::tables_only()).await;
    let memory = async || {
        let mut load = database.begin().await.unwrap();
        load.prepare_tables(|_| {}).await.unwrap();
        let show = "select current_setting('maintenance_work_mem'),
                           current_setting('maintenance_work_mem') = current_setting('shared_buffers')";
        let row = load.session.client().query_one(show, &[]).await.unwrap();
        load.roll_back().await;
        (row.get::<_, String>(0), row.get::<_, bool>(1))
    };
    let (grown, is_shared_buffers) = memory().await;
    assert!(is_shared_buffers, "{grown}");
    let name = database.client.query_one("select current_database()::text", &[]).await.unwrap();
    database.run(&format!("alter database {} set maintenance_work_mem = '33MB'", name.get::<_, &str>(0))).await;
    assert_eq!(memory().await.0, "33MB");
}
