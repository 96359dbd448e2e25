//! Bulk loads on real servers. The rows are those of a schema that an engine has written. The catalog afterwards is
//! compared with the catalog before, and with that of a database that was only migrated.

mod additions;
mod beginning;
mod exactness;
mod faults;
mod shadow_tables;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use graphsink_testing::catalog;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use self::catalog::PATIENCE;
use super::super::table::{Connections, Entities, Mentions, load};
use super::*;
use crate::error::BulkStoreError;
use crate::record::{Mention, SourceType, Table};
use crate::server::EmbeddedServer;
use crate::{AsOf, Config, ConfigBuilder, Engine, Migrations, Outcome, PlaceObservation, UnitOfWork};

/// A server for tests that do not damage it.
async fn shared() -> &'static EmbeddedServer {
    static SERVER: OnceCell<EmbeddedServer> = OnceCell::const_new();
    SERVER.get_or_init(|| async { EmbeddedServer::temporary().await.unwrap() }).await
}

/// A database with migrated tables: empty ones in `public`, full ones in `source`.
struct Database {
    url: String,
    client: Client,
}

impl Database {
    async fn new(server: &EmbeddedServer, migrations: Migrations) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let name = format!("bulk_{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        server.create_database(&name).await.unwrap();
        let url = server.url(&name);
        migrations.run(&Config::builder(&url).build().unwrap()).await.unwrap();
        let client = connect(&url).await;
        Self { url, client }
    }

    /// The same with rows to load.
    async fn with_source(server: &EmbeddedServer, migrations: Migrations) -> Self {
        let database = Self::new(server, migrations).await;
        let source = database.config().schema("source").build().unwrap();
        Migrations::tables_only().run(&source).await.unwrap();
        write_with_engine(source, 0..120).await;
        database
    }

    fn config(&self) -> ConfigBuilder {
        Config::builder(&self.url)
            .as_of(AsOf::Fixed("2024-03-12T12:00:00Z".parse().unwrap()))
            .connect_timeout(Duration::from_secs(2))
            .lock_timeout(Duration::from_millis(1_500))
    }

    async fn begin(&self) -> Result<BulkTransaction, BulkStoreError> {
        BulkTransaction::begin(&self.config().build().unwrap(), TransactionSettings::default()).await
    }

    async fn catalog(&self) -> Vec<String> {
        catalog::dump(&self.client, "public").await
    }

    /// The rows of a table of `source`, each as a piece.
    async fn rows(&self, table: Table) -> BoxStream<'static, Result<Bytes, Infallible>> {
        let columns = columns(table);
        let sql = format!("copy (select {columns} from source.{table}) to stdout (format binary)");
        // Each message is a row, the first one behind the header; the last one is the trailer.
        let rows: Vec<Bytes> = self.client.copy_out(&sql).await.unwrap().try_collect().await.unwrap();
        futures::stream::iter(rows.into_iter().map(Ok)).boxed()
    }

    /// Copies all tables.
    async fn copy(&self, load: &mut BulkTransaction) -> Result<(), CopyError<Infallible>> {
        for table in Table::ALL {
            let rows = self.rows(table).await;
            let expected: i64 =
                self.client.query_one(&format!("select count(*) from source.{table}"), &[]).await.unwrap().get(0);
            assert_eq!(load.copy(table, rows).await?, expected as u64);
        }
        Ok(())
    }

    /// A whole load.
    async fn load(&self) -> Result<(), BulkStoreError> {
        let mut load = self.begin().await?;
        load.prepare_tables(|_| {}).await?;
        match self.copy(&mut load).await {
            Ok(()) => {}
            Err(CopyError::Store(error)) => return Err(error),
            Err(CopyError::Rows(never)) => match never {},
        }
        load.build(|_| {}).await?;
        load.commit().await
    }

    /// Panics unless the loaded rows equal those of `source`.
    async fn assert_loaded(&self) {
        for table in Table::ALL {
            let columns = columns(table);
            let rows = |schema: &str| format!("select to_jsonb(x) from (select {columns} from {schema}.{table}) x");
            let (loaded, source) = (rows("public"), rows("source"));
            let compare = format!(
                "select (select count(*) from ({loaded} except {source}) x) + (select count(*) from ({source} except {loaded}) x),
                        (select count(*) from {table})"
            );
            let compared = self.client.query_one(&compare, &[]).await.unwrap();
            assert_eq!(compared.get::<_, i64>(0), 0, "{table} differ");
            assert!(compared.get::<_, i64>(1) > 0, "{table} are empty");
        }
        let attempts = self.client.query_one("select count(*) from graphsink_attempts where not fenced", &[]).await;
        assert_eq!(attempts.unwrap().get::<_, i64>(0), 0, "the attempt's row is deleted with the answer");
    }

    async fn assert_empty(&self) {
        for table in Table::ALL {
            let exists = format!("select exists (select from {table})");
            assert!(!self.client.query_one(&exists, &[]).await.unwrap().get::<_, bool>(0), "{table} has rows");
        }
    }

    /// Panics unless all is loaded, the catalog is unchanged, and an engine can write.
    async fn assert_whole(&self, what: &str, before: &[String]) {
        catalog::assert_same_catalog(what, before, &self.catalog().await);
        self.assert_loaded().await;
        self.assert_engine_writes().await;
    }

    /// Panics unless all is as before once the load's session has ended, and an engine can write. Leaves empty tables.
    async fn assert_as_before(&self, what: &str, before: &[String]) {
        self.until_rolled_back().await;
        catalog::assert_same_catalog(what, before, &self.catalog().await);
        self.assert_empty().await;
        self.assert_engine_writes().await;
        self.run("truncate entities, connections, mentions; delete from graphsink_attempts").await;
    }

    /// Panics unless an engine can write, after a load or in place of one.
    async fn assert_engine_writes(&self) {
        write_with_engine(self.config().build().unwrap(), 1_000..1_010).await;
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    /// Waits until no session of a load is left. Its transaction is rolled back by then.
    async fn until_rolled_back(&self) {
        catalog::until_gone(&self.client).await;
    }

    async fn until(&self, query: &str) {
        catalog::until(&self.client, query).await;
    }
}

/// The columns that a load writes, in order.
fn columns(table: Table) -> String {
    let copy = match table {
        Table::Entities => load::<Entities>(false),
        Table::Connections => load::<Connections>(false),
        Table::Mentions => load::<Mentions>(false),
    };
    copy[copy.find('(').unwrap() + 1..copy.find(')').unwrap()].to_owned()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// Waits with a time limit.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("the future ends within the time limit")
}

/// Units that share rows, with places and some long histories.
async fn write_with_engine(config: Config, numbers: std::ops::Range<u32>) {
    let engine = Engine::start(config).await.unwrap();
    let mut receipts = Vec::new();
    for number in numbers {
        let mut unit = UnitOfWork::new();
        let created_at =
            "2024-03-01T00:00:00Z".parse::<crate::Timestamp>().unwrap() + Duration::from_secs(number.into());
        let place = PlaceObservation::new(created_at)
            .location(30.0 + f64::from(number) / 1e4, -97.5)
            .address(format!("{number} Oak St"))
            .google_place_id(format!("google {number}"));
        let name = format!("restaurant {number}");
        let restaurant = unit.restaurant(&name).alias(format!("alias {number}")).place(place).handle();
        let dish = unit.dish(format!("dish {}", number % 7)).handle();
        let attribute = unit.dish_attribute(format!("attribute {}", number % 3)).handle();
        let connection = unit.connection(restaurant, dish).dish_attribute(attribute).handle();
        let mentions = if number % 50 == 0 { 40 } else { 2 };
        for mention in 0..mentions {
            let id = format!("{number} {mention}");
            let mention = Mention::new(SourceType::Post, &*id, "https://x.y/z", "food", created_at).upvotes(mention);
            unit.mention(connection, &mention);
        }
        receipts.push(engine.submit(unit).await.unwrap());
    }
    for receipt in receipts {
        let outcome = within(receipt).await;
        assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    }
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
}
