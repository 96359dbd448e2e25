//! Objects of other programs on the tables: shadow tables get the same ones, or the rows are written in place.

use super::*;

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

/// Foreign keys among the three tables. One refers to a column with an older key to which it cannot refer.
const KEYS_AMONG_TABLES: &str = r#"
    alter table mentions drop constraint mentions_connection_id_fkey;
    alter table connections drop constraint connections_pkey;
    alter table connections add constraint later unique (connection_id) deferrable;
    alter table connections add constraint connections_pkey primary key (connection_id);
    alter table mentions add constraint mentions_connection_id_fkey
        foreign key (connection_id) references connections (connection_id) on delete restrict;
    comment on constraint mentions_connection_id_fkey on mentions is 'it''s new';
    alter table mentions add column "about ""it) REFERENCES entities(" uuid, add column type entity_type;
    alter table entities add constraint of_both unique (entity_id, type);
    alter table mentions add constraint "about ""it"
        foreign key ("about ""it) REFERENCES entities(", type) references entities (entity_id, type)
        match full on update cascade on delete set null deferrable initially deferred;
    comment on constraint "about ""it" on mentions is 'a key';
    alter table entities add column parent uuid references entities on delete cascade;
    alter table entities add column latest uuid;
    alter table entities add constraint known foreign key (latest) references mentions not valid;
    comment on constraint known on entities is 'unchecked';
"#;

/// Foreign keys of which one from another table is the oldest to entities.
const KEYS_IN_ORDER: &str = "
    alter table connections drop constraint connections_restaurant_id_fkey,
        drop constraint connections_dish_or_category_id_fkey;
    create table votes (entity uuid constraint of_votes references entities on delete cascade);
    alter table connections add constraint to_restaurant foreign key (restaurant_id) references entities,
        add constraint to_dish foreign key (dish_or_category_id) references entities;
    alter table mentions add column reader uuid, add constraint read foreign key (reader) references connections not valid;
";

/// A whole load. Returns the foreign keys that were checked beside the empty tables, and those that were when these were
/// replaced, sorted.
async fn load_telling(database: &Database) -> [Vec<String>; 2] {
    let told = std::sync::Mutex::new(Vec::new());
    let tell = |step: BuildStep<'_>| {
        if step.what == BuildWhat::ForeignKey {
            told.lock().unwrap().push(step.name.to_owned());
        }
    };
    let take = || {
        let mut names = std::mem::take(&mut *told.lock().unwrap());
        names.sort_unstable();
        names
    };
    let mut load = database.begin().await.unwrap();
    let shadow = load.shadow_tables().await.unwrap().expect("nothing is against it");
    database.copy_beside(&shadow).await.unwrap();
    futures::future::try_join_all(Table::ALL.map(|table| shadow.build(table, &tell))).await.unwrap();
    let beside = take();
    load.replace_tables(shadow, |_| {}, &tell).await.unwrap();
    load.commit().await.unwrap();
    [beside, take()]
}

#[tokio::test]
async fn foreign_keys_among_the_tables_are_checked_before_these_are_replaced_and_keep_their_properties() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    database.run(KEYS_AMONG_TABLES).await;
    let before = database.catalog().await;
    let keys = [
        "\"about \"\"it\"",
        "connections_dish_or_category_id_fkey",
        "connections_restaurant_id_fkey",
        "entities_parent_fkey",
        "mentions_connection_id_fkey",
    ];
    assert_eq!(load_telling(&database).await, [keys.map(str::to_owned).to_vec(), vec![]]);
    database.assert_whole("keys", &before).await;
}

#[tokio::test]
async fn foreign_keys_are_created_in_their_order_on_each_table() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    database.run(KEYS_IN_ORDER).await;
    let before = database.catalog().await;
    let [beside, replaced] = load_telling(&database).await;
    assert_eq!(
        (&*beside, &*replaced),
        (
            &["mentions_connection_id_fkey".to_owned()][..],
            &["of_votes".to_owned(), "to_dish".to_owned(), "to_restaurant".to_owned(),][..]
        )
    );
    database.assert_whole("in order", &before).await;
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
