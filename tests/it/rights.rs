//! The rights of the engine's role: `migrations/rights.sql` suffices for everything that an engine does, and each right
//! in it is needed.

use std::time::Duration;

use graphsink::resolve::{Query, Resolver, ResolverSettings};
use graphsink::{
    Config, ConfigBuilder, Engine, EntityKey, EntityMerge, EntityType, Mention, MergeOutcome, Outcome,
    PlaceObservation, SourceType, StartError, UnavailableCause, UnitOfWork,
};
use tokio_postgres::Client;

use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space};
use crate::model::{self, Ids};
use crate::sorted_sets;
use crate::support::{Database, as_of, outcome, seed, within};

const RIGHTS: &str = include_str!("../../migrations/rights.sql");
const MERGE_RIGHTS: &str = include_str!("../../migrations/merge_rights.sql");
const RESOLVER_RIGHTS: &str = include_str!("../../migrations/resolver_rights.sql");

/// A database whose tables belong to the role that ran the migrations, and a role with the listed rights.
struct Rights {
    database: Database,
    admin: Client,
    role: String,
    schema: &'static str,
}

impl Rights {
    async fn granted(schema: &'static str) -> Self {
        let database = Database::empty().await.with_schema(schema);
        graphsink::Migrations::all().run(&database.config().build().unwrap()).await.unwrap();
        let admin = database.client().await;
        let role = format!("{} \"role\" drop", database.name);
        let rights = Self { database, admin, role, schema };
        // Default rights of every role must not make up for a missing one.
        let strict = rights.filled(
            "drop role if exists :\"role\"; create role :\"role\" login password 'app';
             revoke all on database :\"DBNAME\" from public;
             revoke all on schema public from public;
             revoke execute on function :\"schema\".graphsink_is_sorted_set(uuid[]) from public;
             revoke execute on function :\"schema\".graphsink_is_sorted_large_set(uuid[]) from public",
        );
        rights.admin.batch_execute(&strict).await.unwrap();
        rights.admin.batch_execute(&rights.filled(RIGHTS)).await.unwrap();
        rights
    }

    /// Replaces psql's variables as psql does.
    fn filled(&self, sql: &str) -> String {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        sql.replace(":\"role\"", &quoted(&self.role))
            .replace(":\"schema\"", &quoted(self.schema))
            .replace(":\"DBNAME\"", &quoted(&self.database.name))
    }

    /// Settings of an engine that connects as this role.
    fn config(&self) -> ConfigBuilder {
        let url = &self.database.url;
        let url = if url.contains("://") {
            let encoded = self.role.replace(' ', "%20").replace('"', "%22");
            format!("{url}?user={encoded}&password=app")
        } else {
            format!("{url} user='{}' password=app", self.role)
        };
        let config = Config::builder(url).schema(self.schema).as_of(graphsink::AsOf::Fixed(as_of()));
        config.dead_letters(true)
    }

    /// The statements of a script, each with the statement that revokes the right.
    fn grants(&self, script: &str) -> Vec<(String, String)> {
        let script: String = script.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join(" ");
        let statements: Vec<String> =
            script.split(';').map(|grant| grant.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let statements = statements.into_iter().filter(|grant| !grant.is_empty());
        statements
            .map(|grant| {
                let revoke = grant.replacen("grant ", "revoke ", 1).replacen(" to ", " from ", 1);
                (self.filled(&grant), self.filled(&revoke))
            })
            .collect()
    }

    /// The same, with one statement for each column of those that name columns.
    fn columns(&self, script: &str) -> Vec<(String, String)> {
        let mut columns = Vec::new();
        for (grant, _) in self.grants(script) {
            let Some((verb, rest)) =
                grant.split_once(" (").filter(|(verb, _)| ["grant insert", "grant update"].contains(verb))
            else {
                continue;
            };
            let (names, table) = rest.split_once(") on ").unwrap();
            // Only the fence writes this column, in a test of its own.
            let names = names.split(", ").filter(|name| *name != "fenced");
            columns.extend(names.flat_map(|name| self.grants(&format!("{verb} ({name}) on {table}"))));
        }
        columns
    }
}

/// A restaurant with every kind of fact and a mention. With another number the unit changes all of them.
fn unit(name: &str, number: i32) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let at = as_of() - chrono::TimeDelta::days(40) + chrono::TimeDelta::days(number.into());
    let place = PlaceObservation::new(at).google_place_id(format!("{name} {number}")).address(format!("{number}"));
    let restaurant = unit.restaurant(name).alias(format!("{number}")).place(place).handle();
    let dish = unit.dish(format!("dish of {name}")).handle();
    let (hot, new) = (unit.dish_attribute("hot").handle(), unit.dish_attribute("new").handle());
    let connection = unit.connection(restaurant, dish).dish_attribute(hot).dish_attribute(new).handle();
    let mention =
        Mention::new(SourceType::Post, "p", "https://example.org", "food", at).observed_at(at).upvotes(number);
    unit.mention(connection, mention);
    unit
}

/// Uses each function of an engine once, except for the fence. `name` is unique to the call. Fails with the first
/// error.
async fn everything(config: ConfigBuilder, name: &str) -> Result<(), String> {
    let engine = match within(Engine::start(config.build().unwrap())).await {
        Ok(engine) => engine,
        Err(StartError::Store(error)) => return Err(error.to_string()),
        Err(error) => panic!("{error:?}"),
    };
    let work = async {
        for number in [1, 2] {
            let said = outcome(&engine, unit(name, number)).await;
            let connection = said.committed().map(|unit| unit.connections[0].id);
            committed(said)?;
            let mut by_id = UnitOfWork::new();
            let _ = by_id.existing_connection(connection.expect("the unit is committed")).handle();
            committed(outcome(&engine, by_id).await)?;
        }
        // This many rows are copied.
        let mut many = UnitOfWork::new();
        let restaurant = many.restaurant(name).handle();
        for number in 0..150 {
            let dish = many.dish(format!("{name} {number}")).handle();
            let connection = many.connection(restaurant, dish).handle();
            let id = format!("{name} copied {number}");
            many.mention(connection, Mention::new(SourceType::Post, id, "https://example.org", "s", as_of()));
        }
        committed(outcome(&engine, many).await)?;
        // A history becomes long.
        let mut long = UnitOfWork::new();
        let (restaurant, dish) = (long.restaurant(name).handle(), long.dish(format!("{name} 0")).handle());
        let connection = long.connection(restaurant, dish).handle();
        for number in 0..40 {
            let id = format!("{name} more {number}");
            long.mention(connection, Mention::new(SourceType::Post, id, "https://example.org", "s", as_of()));
        }
        committed(outcome(&engine, long).await)?;
        within(engine.refresh_activity(as_of() + chrono::TimeDelta::days(40)))
            .await
            .map_err(|error| error.to_string())?;
        // A claimed Google id: twice the same dead letter, then once more from the table.
        for _ in 0..2 {
            let mut taken = UnitOfWork::new();
            let place = PlaceObservation::new(as_of()).google_place_id(format!("{name} 2"));
            let _ = taken.restaurant(format!("not {name}")).place(place).handle();
            match outcome(&engine, taken).await {
                Outcome::Rejected(rejection) if rejection.dead_letter.is_some() => {}
                Outcome::Rejected(_) => return Err("no dead letter".to_owned()),
                other => return committed(other),
            }
        }
        let mut gives_up = UnitOfWork::new();
        let place = PlaceObservation::new(as_of()).google_place_id(format!("{name} 3"));
        let _ = gives_up.restaurant(name).place(place).handle();
        committed(outcome(&engine, gives_up).await)?;
        let report = within(engine.resubmit_dead_letters()).await.map_err(|error| error.to_string())?;
        if report.committed > 0 { Ok(()) } else { Err(format!("{report:?}")) }
    };
    let done = work.await;
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    done
}

fn committed(outcome: Outcome) -> Result<(), String> {
    match outcome {
        Outcome::Committed(_) => Ok(()),
        Outcome::Rejected(rejection) => Err(rejection.to_string()),
        Outcome::Unavailable(unavailable) => match unavailable.cause {
            UnavailableCause::Database(error) => Err(error.to_string()),
            other => Err(other.to_string()),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listed_rights_suffice_for_a_whole_load() {
    let rights = Rights::granted("we\"ird; drop").await;
    let engine = Engine::start(rights.config().max_batch_rows(50).build().unwrap()).await.unwrap();
    let records = generate::sample(seed("a load with few rights"), Space::tiny(as_of()), 300);
    let mut receipts = Vec::new();
    for records in records.chunks(3) {
        receipts.push(engine.submit(model::unit(records, &Ids::default())).await.unwrap());
    }
    for receipt in receipts {
        let outcome = within(receipt).await;
        assert!(outcome.committed().is_some(), "{outcome:?}");
    }
    let later = as_of() + chrono::TimeDelta::days(20);
    within(engine.refresh_activity(later)).await.unwrap();
    let stats = engine.stats();
    assert_eq!((stats.units_committed, stats.rows_in_flight, stats.failed_attempts), (100, 0, 0), "{stats:?}");
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    assert_same(&model::graph(&records, later), &database::read(&rights.admin).await);
    assert_group_by(&rights.admin, later).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_suffice_after_a_migration_that_replaces_a_function() {
    let rights = Rights::granted("evidence").await;
    let earlier = format!(
        "set search_path = evidence; {}; alter default privileges revoke execute on functions from public;
         delete from graphsink_schema_history where version >= 7",
        sorted_sets::TAKE_BACK
    );
    rights.admin.batch_execute(&earlier).await.unwrap();
    everything(rights.config(), "before").await.unwrap();
    let owner = rights.database.config().build().unwrap();
    assert_eq!(graphsink::Migrations::all().run(&owner).await.unwrap().applied.len(), 2);
    everything(rights.config(), "after").await.unwrap();
}

/// Merges two restaurants that share a dish and a mention of it. `name` is unique to the call.
async fn merge(config: ConfigBuilder, name: &str) -> Result<(), String> {
    let engine = within(Engine::start(config.build().unwrap())).await.unwrap();
    let work = async {
        let names = ["from", "into"].map(|which| format!("{name}, {which}"));
        for (name, number) in names.iter().zip([1, 2]) {
            let mut unit = UnitOfWork::new();
            let (restaurant, dish) = (unit.restaurant(name.as_str()).handle(), unit.dish("pie").handle());
            let connection = unit.connection(restaurant, dish).handle();
            for source in ["shared", name] {
                let mention = Mention::new(SourceType::Post, source, "https://example.org", "food", as_of());
                unit.mention(connection, mention.upvotes(number));
            }
            committed(outcome(&engine, unit).await)?;
        }
        let [from, into] = names.map(|name| EntityKey::new(EntityType::Restaurant, name));
        match within(engine.merge(vec![EntityMerge::new(from, into)])).await.remove(0) {
            MergeOutcome::Merged { .. } => Ok(()),
            MergeOutcome::Unavailable(unavailable) => committed(Outcome::Unavailable(unavailable)),
            other => panic!("{other:?}"),
        }
    };
    let done = work.await;
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    done
}

/// Revokes a right, sees an engine fail without it, and grants it again.
async fn assert_needed(rights: &Rights, grant: &(String, String), name: &str) {
    assert_needed_to(everything, rights, grant, name).await;
}

async fn assert_needed_to(
    work: impl AsyncFn(ConfigBuilder, &str) -> Result<(), String>,
    rights: &Rights,
    (grant, revoke): &(String, String),
    name: &str,
) {
    rights.admin.batch_execute(revoke).await.unwrap();
    // A missing right is retried until the deadline; each unit is tried once however short the deadline is.
    let without = work(rights.config().outcome_deadline(Duration::from_millis(50)), name).await;
    rights.admin.batch_execute(grant).await.unwrap();
    let said = without.expect_err(grant);
    // A rejected unit is reported as rejected also when it cannot be kept; the log has the reason.
    let named = said.contains("permission denied") && said.contains("42501");
    assert!(named || said == "no dead letter", "without {grant}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listed_right_is_needed() {
    let rights = Rights::granted("evidence").await;
    assert_eq!(everything(rights.config(), "with all").await, Ok(()));
    let grants = rights.grants(RIGHTS);
    assert_eq!(grants.len(), 23, "{grants:?}");
    for (number, grant) in grants.iter().enumerate() {
        assert_needed(&rights, grant, &format!("without {number}")).await;
    }
    assert_eq!(everything(rights.config(), "with all again").await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listed_column_right_is_needed() {
    let rights = Rights::granted("evidence").await;
    let columns = rights.columns(RIGHTS);
    assert_eq!(columns.len(), 89, "{columns:?}");
    for (number, column) in columns.iter().enumerate() {
        assert_needed(&rights, column, &format!("without {number}")).await;
    }
    assert_eq!(everything(rights.config(), "with all").await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn merges_need_each_of_their_additional_rights() {
    let rights = Rights::granted("evidence").await;
    let hasty = || rights.config().outcome_deadline(Duration::from_millis(50));
    let denied = merge(hasty(), "without any").await.unwrap_err();
    assert!(denied.contains("permission denied"), "{denied}");
    rights.admin.batch_execute(&rights.filled(MERGE_RIGHTS)).await.unwrap();
    assert_eq!(merge(rights.config(), "with all").await, Ok(()));
    let grants = rights.grants(MERGE_RIGHTS);
    let columns = rights.columns(MERGE_RIGHTS);
    assert_eq!((grants.len(), columns.len()), (11, 14), "{grants:?} {columns:?}");
    for (number, grant) in grants.iter().chain(&columns).enumerate() {
        assert_needed_to(merge, &rights, grant, &format!("without {number}")).await;
    }
    assert_eq!(merge(rights.config(), "with all again").await, Ok(()));
    assert_group_by(&rights.admin, as_of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_is_found_with_the_listed_rights() {
    let rights = Rights::granted("evidence").await;
    // The session ends during its commit, before the commit is durable.
    let dying = "create function die() returns trigger language plpgsql as $$
                 begin perform pg_sleep(600); return null; end $$;
                 create constraint trigger die after insert on evidence.mentions deferrable initially deferred
                 for each row execute function die()";
    rights.admin.batch_execute(dying).await.unwrap();
    let engine = Engine::start(rights.config().build().unwrap()).await.unwrap();
    let receipt = engine.submit(unit("franklin", 1)).await.unwrap();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
               where usename = $1 and query = 'commit' and wait_event = 'PgSleep'";
    within(async {
        while rights.admin.execute(end, &[&rights.role]).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    rights.admin.batch_execute("drop trigger die on evidence.mentions").await.unwrap();
    assert_eq!(committed(within(receipt).await), Ok(()));
    let mentions: i64 = rights.admin.query_one("select count(*) from mentions", &[]).await.unwrap().get(0);
    let fences: i64 =
        rights.admin.query_one("select count(*) from graphsink_attempts where fenced", &[]).await.unwrap().get(0);
    assert_eq!((mentions, fences), (1, 1));
    assert_group_by(&rights.admin, as_of()).await;
}

/// With the rights of an engine and `pg_trgm`, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_finds_names_with_the_listed_rights() {
    let rights = Rights::granted("evidence").await;
    let engine = Engine::start(rights.config().build().unwrap()).await.unwrap();
    let mut unit = UnitOfWork::new();
    let place = PlaceObservation::new(as_of()).address("12 Oak St");
    unit.restaurant("franklin barbecue").alias("Franklin's").place(place).handle();
    committed(outcome(&engine, unit).await).unwrap();
    let names = ["franklin barbecue", "Franklin's", "franklin barbeque", "frnklin barbecue", "Franklin, Barbecue"]
        .map(|name| Query::new(EntityType::Restaurant, name));
    let neighbour = Query::new(EntityType::Restaurant, "franklin").address("12 Oak Street");
    let queries: Vec<Query> = names.into_iter().chain([neighbour]).collect();
    // Connects anew each time: statements are prepared with the rights of that moment.
    let find = async || -> Result<Vec<_>, String> {
        let settings = ResolverSettings::default().cache_entries(0);
        let resolver = Resolver::attach(&engine, settings).await.map_err(|error| error.to_string())?;
        resolver.find(&queries).await.map_err(|error| error.to_string())
    };
    let trigrams = RESOLVER_RIGHTS.replace(":\"trigrams\"", "public");
    let mut needed = rights.grants(&trigrams);
    assert_eq!(needed.len(), 1, "{needed:?}");
    rights.admin.batch_execute(&needed[0].0).await.unwrap();
    let found = find().await.unwrap();
    assert!(found.iter().all(Option::is_some), "{found:?}");
    needed.extend(rights.grants("grant select on :\"schema\".entities to :\"role\""));
    for (grant, revoke) in needed {
        rights.admin.batch_execute(&revoke).await.unwrap();
        let without = find().await.expect_err(&grant);
        assert!(without.contains("42501"), "without {grant}: {without}");
        rights.admin.batch_execute(&grant).await.unwrap();
    }
    assert_eq!(find().await, Ok(found));
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
}
