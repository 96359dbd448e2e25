//! The server of the bench, fresh tables for each measurement, and checks of the written rows.

use std::sync::Arc;
use std::time::Duration;

use graphsink::server::EmbeddedServer;
use graphsink::{Config, ConfigBuilder, Migrations};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::contestant::{Figures, Result};
use crate::rows::Entities;
use crate::workload::Workload;

/// Not `public`, so that dropping it does not drop the extension.
pub const SCHEMA: &str = "bench";

/// The settings of each session of [`Database::connect`]. The schema is [`SCHEMA`].
pub const SESSION: &str = "
    set search_path = bench, public; set plan_cache_mode = force_generic_plan; set jit = off;
    set enable_seqscan = off; set enable_bitmapscan = off; set enable_hashjoin = off; set enable_mergejoin = off";

/// The first migrations made the contract's tables, and beside them only these two indexes (and book-keeping).
const CONTRACT_TABLES: &str = include_str!("../../migrations/tables/V1__tables.sql");
const WITHOUT_OWN_INDEXES: &str =
    "drop index mentions_of_connection_by_time_idx; drop index mentions_of_connection_by_thread_idx";
const TRIGRAMS: &str = "create extension if not exists pg_trgm with schema public";
const CONTRACT_READ_INDEXES: &str = include_str!("../../migrations/read_indexes/V1__read_indexes.sql");

/// The indexes of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tables {
    /// Keys and foreign keys.
    Lean,
    /// The read indexes as well.
    Full,
}

impl Tables {
    pub const BOTH: [Self; 2] = [Self::Lean, Self::Full];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::Full => "full",
        }
    }
}

/// The origin of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// The three tables with their primary, unique and foreign keys and checks, and the contract's read indexes,
    /// without graphsink's own objects. All contestants except graphsink are compared on these.
    Contract,
    /// The tables of graphsink's migrations.
    Graphsink,
}

/// A durable server of its own: fsync on, with defaults except for those that `ServerBuilder` changes.
#[derive(Debug, Clone)]
pub struct Database {
    server: Arc<EmbeddedServer>,
    name: String,
}

impl Database {
    pub async fn start(settings: &[(String, String)], log: Option<&std::path::Path>) -> Result<Self> {
        let mut server = EmbeddedServer::builder();
        for (name, value) in settings {
            server = server.setting(name, value);
        }
        if let Some(log) = log {
            server = server.log_to(log);
        }
        Ok(Self { server: Arc::new(server.start().await?), name: "postgres".to_owned() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn version(&self) -> &str {
        self.server.version()
    }

    /// For contestants that connect by themselves, and for other processes. It contains the password of a short-lived
    /// server.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// The server's first process.
    pub async fn postmaster(&self) -> Result<u32> {
        let directory: String = self.connect().await?.query_one("show data_directory", &[]).await?.get(0);
        let file = std::fs::read_to_string(std::path::Path::new(&directory).join("postmaster.pid"))?;
        Ok(file.lines().next().unwrap_or_default().parse()?)
    }

    /// Another database on the same server: a copy of this one, which must have no session.
    pub async fn copy(&self, name: &str) -> Result<Self> {
        let postgres = Self { server: Arc::clone(&self.server), name: "postgres".to_owned() };
        // By files: with WAL, the default, all data would be written twice.
        let sql = format!("create database {name} template {} strategy file_copy", self.name);
        postgres.connect().await?.batch_execute(&sql).await?;
        Ok(Self { name: name.to_owned(), ..postgres })
    }

    /// Another database on the same server, without tables.
    pub async fn create(&self, name: &str) -> Result<Self> {
        self.server.create_database(name).await?;
        Ok(Self { server: Arc::clone(&self.server), name: name.to_owned() })
    }

    /// Settings of an engine on the bench's tables, with defaults otherwise.
    pub fn config(&self) -> ConfigBuilder {
        Config::builder(self.server.url(&self.name)).schema(SCHEMA)
    }

    /// A session whose plans are pinned as the engine pins its own (index lookups, independent of statistics): on
    /// tables that were just empty no other writer would get good plans.
    pub async fn connect(&self) -> Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.server.url(&self.name), NoTls).await?;
        tokio::spawn(async move {
            // Statements of the client report the same error.
            drop(connection.await);
        });
        client.batch_execute(SESSION).await?;
        Ok(client)
    }

    /// Empty tables, with all earlier changes flushed.
    pub async fn reset(&self, tables: Tables, layout: Layout) -> Result<()> {
        let client = self.connect().await?;
        client
            .batch_execute(&format!("set client_min_messages = warning; drop schema if exists {SCHEMA} cascade"))
            .await?;
        self.make_tables(tables, layout).await?;
        self.settle().await
    }

    /// Creates empty tables in a database without any. [`Tables::Full`] after [`Tables::Lean`] adds the read indexes.
    pub async fn make_tables(&self, tables: Tables, layout: Layout) -> Result<()> {
        match layout {
            Layout::Graphsink => self.migrate(tables).await,
            Layout::Contract => self.make_contract_tables(tables).await,
        }
    }

    async fn make_contract_tables(&self, tables: Tables) -> Result<()> {
        let client = self.connect().await?;
        let exists = "select to_regclass('mentions') is not null";
        if !client.query_one(exists, &[]).await?.get::<_, bool>(0) {
            let create = format!("create schema {SCHEMA}; {CONTRACT_TABLES}; {WITHOUT_OWN_INDEXES}");
            client.batch_execute(&create).await?;
        }
        if tables == Tables::Full {
            client.batch_execute(&format!("{TRIGRAMS}; {CONTRACT_READ_INDEXES}")).await?;
        }
        Ok(())
    }

    async fn migrate(&self, tables: Tables) -> Result<()> {
        let migrations = match tables {
            Tables::Lean => Migrations::tables_only(),
            Tables::Full => Migrations::all(),
        };
        migrations.run(&self.config().build()?).await?;
        Ok(())
    }

    /// Flushes all earlier changes.
    pub async fn settle(&self) -> Result<()> {
        self.connect().await?.batch_execute("checkpoint").await?;
        // The kernel finishes the writes of the checkpoint soon after.
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(())
    }

    /// An error unless exactly the mentions of the first `sample` records were added, with ids from `since` on, and
    /// their connections agree.
    pub async fn check_added(&self, workload: &Workload, sample: usize, figures: Figures, since: Uuid) -> Result<()> {
        let client = self.connect().await?;
        let expected = crate::workload::mentions(&workload.records[..sample]) as i64;
        let all = figures == Figures::All;
        let row = client.query_one(WRONG_SINCE, &[&all, &workload.as_of, &since]).await?;
        let (added, wrong): (i64, i64) = (row.get(0), row.get(1));
        if added != expected {
            return Err(format!("expected {expected} new mentions, found {added}").into());
        }
        if wrong != 0 {
            return Err(format!("the figures of {wrong} connections differ from their mentions").into());
        }
        Ok(())
    }

    /// An error unless the tables have exactly the first `sample` records of the workload.
    pub async fn check(&self, workload: &Workload, sample: usize, figures: Figures) -> Result<()> {
        let records = &workload.records[..sample];
        let entities = Entities::of(records);
        let connections = crate::rows::connections(records, &entities, workload.as_of);
        let mentions = crate::workload::mentions(records);
        let expected = (entities.rows.len() as i64, connections.len() as i64, mentions as i64);
        let client = self.connect().await?;
        let free = "set enable_seqscan = on; set enable_hashjoin = on; set plan_cache_mode = force_custom_plan";
        client.batch_execute(free).await?;
        let count = "select (select count(*) from entities), (select count(*) from connections),
                            (select count(*) from mentions)";
        let row = client.query_one(count, &[]).await?;
        let found = (row.get(0), row.get(1), row.get(2));
        if found != expected {
            return Err(format!("expected {expected:?} entities, connections, mentions, found {found:?}").into());
        }
        let all = figures == Figures::All;
        let row = client.query_one(WRONG, &[&all, &workload.as_of]).await?;
        let (wrong, facts): (i64, i64) = (row.get(0), row.get(1));
        let attributes: usize = entities.rows.iter().map(|row| row.aliases.len() + row.attributes.len()).sum();
        let categories: usize = connections.iter().map(|row| row.categories.len() + row.dish_attributes.len()).sum();
        if wrong != 0 {
            return Err(format!("the figures of {wrong} connections differ from their mentions").into());
        }
        let menu_items = connections.iter().filter(|row| row.is_menu_item).count();
        let expected = attributes + categories + menu_items;
        if facts != expected as i64 {
            return Err(
                format!("expected {expected} aliases, attributes, categories and menu items, found {facts}").into()
            );
        }
        Ok(())
    }
}

/// The number of mentions with ids from `$3` on, and of their connections that are wrong.
const WRONG_SINCE: &str = "
    with added as materialized (select connection_id from mentions where mention_id >= $3),
    touched as materialized (select distinct connection_id from added)
    select (select count(*) from added), (select count(*) from touched t join connections c using (connection_id)
        cross join lateral (
            select count(*) as mentions, sum(upvotes) as upvotes, count(distinct thread_id) as threads,
                   count(*) filter (where created_at between $2::timestamptz - interval '30 days' and $2::timestamptz)
                       as recent,
                   max(created_at) as newest
            from mentions where connection_id = t.connection_id) m
        where c.mention_count is distinct from m.mentions or c.total_upvotes is distinct from m.upvotes
           or $1 and (c.source_diversity is distinct from m.threads or c.recent_mention_count is distinct from m.recent
                      or c.last_mentioned_at is distinct from m.newest))";

/// The number of wrong connections, and the total size of all sets, with menu items added.
const WRONG: &str = "
    select (select count(*) from connections c left join (
        select connection_id, count(*) as mentions, sum(upvotes) as upvotes, count(distinct thread_id) as threads,
               count(*) filter (where created_at between $2::timestamptz - interval '30 days' and $2::timestamptz) as recent,
               max(created_at) as newest,
               (array_agg(mention_id order by upvotes * exp(extract(epoch from created_at - $2::timestamptz)::float8 / 5184000) desc,
                                              created_at desc, source_id))[1:5] as best
        from mentions group by connection_id) m using (connection_id)
    where c.mention_count is distinct from m.mentions or c.total_upvotes is distinct from m.upvotes
       or $1 and (c.source_diversity is distinct from m.threads or c.recent_mention_count is distinct from m.recent
                  or c.last_mentioned_at is distinct from m.newest
                  or m.best is distinct from (select array_agg((t.value ->> 'mention_id')::uuid order by t.ordinality)
                                              from jsonb_array_elements(c.top_mentions) with ordinality as t))),
    (select sum(cardinality(aliases) + cardinality(restaurant_attributes)) from entities)::bigint
    + (select sum(cardinality(categories) + cardinality(dish_attributes) + is_menu_item::int) from connections)::bigint";
