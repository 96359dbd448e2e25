//! The requirements of a load: a missing one is named at the beginning.

use std::os::unix::fs::{MetadataExt, chown};

use super::*;
use crate::error::StartError;

/// An obstacle, a part of its message, and the statement that removes it.
const OBSTACLES: [(&str, &str, &str); 22] = [
    (
        "create trigger inserted before insert on mentions for each row execute function nothing()",
        "the trigger inserted on mentions fires on insert or truncate (disable it",
        "alter table mentions disable trigger inserted",
    ),
    (
        "create trigger always_inserted after insert on entities execute function nothing();
         alter table entities enable always trigger always_inserted",
        "the trigger always_inserted on entities",
        "drop trigger always_inserted on entities",
    ),
    (
        "create constraint trigger later after insert on connections deferrable initially deferred
         for each row execute function nothing()",
        "the trigger later on connections",
        "drop trigger later on connections",
    ),
    (
        "create trigger truncated before truncate on mentions execute function nothing()",
        "the trigger truncated on mentions",
        "drop trigger truncated on mentions",
    ),
    (
        "create rule copies as on insert to mentions do also insert into other(id) values (new.mention_id)",
        "the rule copies on mentions",
        "drop rule copies on mentions",
    ),
    ("create table child () inherits (mentions)", "mentions is partitioned or part of", "drop table child"),
    (
        "create table parent (mention_id uuid not null); alter table mentions inherit parent",
        "mentions is partitioned or part of",
        "alter table mentions no inherit parent; drop table parent",
    ),
    (
        "set allow_system_table_mods = on;
         update pg_index set indisvalid = false where indexrelid = 'entities_google_place_id_key'::regclass",
        "the index entities_google_place_id_key is not valid",
        "update pg_index set indisvalid = true where indexrelid = 'entities_google_place_id_key'::regclass",
    ),
    (
        "create index spaced on mentions (author) tablespace bulk_space",
        "the index spaced lies in the tablespace bulk_space",
        "drop index spaced",
    ),
    (
        "create table theirs (id uuid constraint refers references entities)",
        "the foreign key refers of public.theirs: its table belongs to another role",
        "drop table theirs",
    ),
    (
        "create schema apart; create table apart.theirs (id uuid constraint refers references entities);
         grant usage on schema apart to loader; alter table apart.theirs owner to loader;
         revoke usage on schema apart from loader",
        "the foreign key refers of apart.theirs: this role may not use the schema of the other table",
        "drop schema apart cascade",
    ),
    (
        "create schema apart; create table apart.named (name text primary key); insert into apart.named values ('x');
         grant references on apart.named to loader;
         alter table mentions add column named text default 'x' constraint refers references apart.named",
        "the foreign key refers of public.mentions: this role may not use the schema of the other table",
        "alter table mentions drop column named; drop schema apart cascade",
    ),
    (
        "create table partitions (id uuid constraint refers references entities) partition by list (id);
         alter table partitions owner to loader;
         create table one_part partition of partitions default; alter table one_part owner to loader",
        "the foreign key refers of public.partitions: its table is partitioned",
        "drop table partitions",
    ),
    (
        "create table named (name text primary key); insert into named values ('x');
         alter table mentions add column named text default 'x' constraint refers references named",
        "the foreign key refers of public.mentions: this role may not refer to the other table",
        "grant references on named to loader",
    ),
    (
        "alter table mentions disable trigger all",
        "mentions: its triggers are switched off, or fire always",
        "alter table mentions enable trigger all; alter table mentions disable trigger inserted",
    ),
    (
        "alter table mentions add constraint later_key unique (mention_id, source_id) deferrable;
         alter table mentions disable trigger all",
        "the key later_key cannot be made again as it is",
        "alter table mentions drop constraint later_key;
         alter table mentions enable trigger all; alter table mentions disable trigger inserted",
    ),
    (
        "create view grouped as select entity_id, name from entities group by entity_id",
        "view grouped depends on constraint entities_pkey",
        "drop view grouped",
    ),
    (
        "create function known(n uuid) returns void begin atomic
            insert into connection_redirects(from_id, into_id)
                select mention_id, connection_id from mentions group by mention_id;
         end",
        "depends on constraint mentions_pkey",
        "drop function known",
    ),
    (
        "alter index connections_key depends on extension pg_trgm",
        "extension pg_trgm depends on index connections_key",
        "alter index connections_key no depends on extension pg_trgm",
    ),
    (
        "alter table entities owner to loader; alter table entities force row level security;
         alter table entities enable row level security",
        "row-level security of entities is in force",
        "alter table entities disable row level security",
    ),
    (
        "revoke truncate, references on entities from loader",
        "the right to truncate on entities, references on entities",
        "grant all on entities to loader",
    ),
    (
        "revoke create on schema public from loader",
        "the right to create in schema public",
        "grant create on schema public to loader",
    ),
];

/// A database whose tables belong to a role without superuser rights, and that role's settings.
pub(super) async fn owned(server: &EmbeddedServer) -> (Database, Config) {
    let database = Database::with_source(server, Migrations::tables_only()).await;
    database.run("set allow_in_place_tablespaces = on").await;
    database.run("create tablespace bulk_space location ''").await;
    database
        .run(
            "create role loader login password 'x'; revoke create on schema public from public;
             create extension if not exists pg_trgm;
             grant create on schema public to loader; grant usage on schema source to loader;
             create function nothing() returns trigger language plpgsql as 'begin return new; end';
             create table other (id uuid)",
        )
        .await;
    for table in ["entities", "connections", "mentions", "graphsink_attempts"] {
        database.run(&format!("alter table {table} owner to loader")).await;
    }
    for table in ["graphsink_generation", "entity_redirects", "connection_redirects"] {
        database.run(&format!("grant all on {table} to loader")).await;
    }
    let (_, host) = database.url.split_once('@').unwrap();
    let config = Config::builder(format!("postgresql://loader:x@{host}")).build().unwrap();
    (database, config)
}

#[tokio::test]
async fn obstacles_of_a_load_are_named_at_the_beginning() {
    let server = EmbeddedServer::temporary().await.unwrap();
    let (database, config) = owned(&server).await;
    let refused = async |what: &str| match BulkTransaction::begin(&config, TransactionSettings::default()).await {
        Ok(_) => panic!("the load began despite: {what}"),
        Err(error) => error.to_string(),
    };
    for (add, said, remove) in OBSTACLES {
        database.run(add).await;
        let before = database.catalog().await;
        let text = refused(add).await;
        assert!(text.contains(said), "{said}: {text}");
        database.until_rolled_back().await;
        catalog::assert_same_catalog(said, &before, &database.catalog().await);
        database.run(remove).await;
        let load = BulkTransaction::begin(&config, TransactionSettings::default()).await;
        load.unwrap_or_else(|error| panic!("{said}: {error}")).roll_back().await;
    }
    // All obstacles at once: each is named.
    for (add, _, _) in &OBSTACLES[1..5] {
        database.run(add).await;
    }
    let text = refused("all at once").await;
    assert!(OBSTACLES[1..5].iter().all(|(_, said, _)| text.contains(said)), "{text}");
    for (_, _, remove) in &OBSTACLES[1..5] {
        database.run(remove).await;
    }
}

#[tokio::test]
async fn a_role_that_owns_only_the_tables_can_load_them() {
    let server = EmbeddedServer::temporary().await.unwrap();
    let (database, config) = owned(&server).await;
    let before = database.catalog().await;
    let mut load = BulkTransaction::begin(&config, TransactionSettings::default()).await.unwrap();
    load.prepare_tables(|_| {}).await.unwrap();
    database.copy(&mut load).await.unwrap();
    load.build(|_| {}).await.unwrap();
    load.commit().await.unwrap();
    catalog::assert_same_catalog("an owner", &before, &database.catalog().await);
    database.assert_loaded().await;
}

#[tokio::test]
async fn only_roles_with_the_rights_of_the_owner_may_load() {
    let server = EmbeddedServer::temporary().await.unwrap();
    let (database, _) = owned(&server).await;
    database
        .run(
            "create role member login password 'x' in role loader; create role stranger login password 'x';
             create role apart login noinherit password 'x' in role loader",
        )
        .await;
    let (_, host) = database.url.split_once('@').unwrap();
    let begin = async |role: &str| {
        let config = Config::builder(format!("postgresql://{role}:x@{host}")).build().unwrap();
        BulkTransaction::begin(&config, TransactionSettings::default()).await
    };
    begin("member").await.unwrap().roll_back().await;
    for role in ["stranger", "apart"] {
        match begin(role).await {
            Err(BulkStoreError::NotOwner { table: Table::Entities, owner }) => assert_eq!(owner, "loader"),
            other => panic!("{role}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn tables_with_rows_are_not_loaded() {
    let database = Database::new(shared().await, Migrations::tables_only()).await;
    database.run("insert into entities(entity_id, name, type) values (gen_random_uuid(), 'x', 'restaurant')").await;
    match database.begin().await {
        Err(BulkStoreError::NotEmpty { tables }) => assert_eq!(tables, [Table::Entities]),
        other => panic!("{other:?}"),
    }
    database.until_rolled_back().await;
    // The error comes at once, and without a lock that writers would wait for.
    let other = connect(&database.url).await;
    for held in [
        "insert into entities(entity_id, name, type) values (gen_random_uuid(), 'y', 'restaurant')",
        "lock table entities, connections, mentions in exclusive mode",
    ] {
        other.batch_execute(&format!("begin; {held}")).await.unwrap();
        // Longer than the test waits for anything.
        let config = database.config().lock_timeout(PATIENCE * 2).build().unwrap();
        let begun = within(BulkTransaction::begin(&config, TransactionSettings::default())).await;
        assert!(matches!(begun, Err(BulkStoreError::NotEmpty { .. })), "{held}: {begun:?}");
        other.batch_execute("rollback").await.unwrap();
    }
    // A redirect to a missing entity is no row of the tables.
    database
        .run(
            "delete from entities; insert into entity_redirects(from_id, type, name, into_id)
                  values (gen_random_uuid(), 'restaurant', 'x', gen_random_uuid())",
        )
        .await;
    database.begin().await.unwrap().roll_back().await;
}

#[tokio::test]
async fn tables_that_an_engine_refuses_are_not_loaded() {
    let database = Database::new(shared().await, Migrations::tables_only()).await;
    database.run("alter table mentions add column note text not null").await;
    let begun = database.begin().await;
    assert!(matches!(begun, Err(BulkStoreError::Start(StartError::Unfit { .. }))), "{begun:?}");
    database.run("drop table mentions").await;
    let begun = database.begin().await;
    assert!(matches!(begun, Err(BulkStoreError::Start(StartError::NotMigrated { .. }))), "{begun:?}");
}

#[tokio::test]
async fn a_standby_is_distinguished_from_a_server_that_takes_writes() {
    let mut server = EmbeddedServer::temporary().await.unwrap();
    let database = Database::new(&server, Migrations::tables_only()).await;
    server.stop().await.unwrap();
    let data = server.directory().join("data");
    let signal = data.join("standby.signal");
    std::fs::write(&signal, "").unwrap();
    let owner = std::fs::metadata(&data).unwrap();
    chown(&signal, Some(owner.uid()), Some(owner.gid())).unwrap();
    let config = database.config().build().unwrap();
    let standby = async {
        let start = Instant::now();
        let client = loop {
            match tokio_postgres::connect(&database.url, NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    break client;
                }
                Err(_) if start.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        };
        let begun = BulkTransaction::begin(&config, TransactionSettings::default()).await;
        client.query_one("select pg_promote()", &[]).await.unwrap();
        begun
    };
    let (restarted, begun) = within(futures::future::join(server.restart(), standby)).await;
    restarted.unwrap();
    assert!(matches!(begun, Err(BulkStoreError::Standby)), "{begun:?}");
}

/// A pooler may pass on sessions that other clients have used.
#[tokio::test]
async fn prepared_statements_left_on_the_session_are_no_obstacle() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let before = database.catalog().await;
    for keeps_statements in [true, false] {
        let config = database.config().prepared_statements(keeps_statements).build().unwrap();
        let session = session::LoadSessions::new(&config).open().await.unwrap();
        // The names that the driver may choose next.
        let leave = "do $$ begin for n in 0..50000 loop execute format('prepare s%s as select 1', n); end loop; end $$";
        session.client().batch_execute(leave).await.unwrap();
        let settings = TransactionSettings::default();
        let mut load = BulkTransaction::begin_on(session, &config, settings).await.unwrap();
        load.prepare_tables(|_| {}).await.unwrap();
        database.copy(&mut load).await.unwrap();
        load.build(|_| {}).await.unwrap();
        load.commit().await.unwrap();
        database.assert_whole("names", &before).await;
        database.run("truncate entities, connections, mentions; delete from graphsink_attempts").await;
    }
}
