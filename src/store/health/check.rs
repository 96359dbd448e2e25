//! Checks whether a database is suitable for the engine.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::shape::{Copying, inspect};
use crate::config::Config;
use crate::error::{StartError, StoreError};
use crate::store::session::{Patience, Session, answer};
use crate::store::statement;

/// Warns if ids of names are to be remembered and the tables cannot tell when they become invalid.
pub(in crate::store) async fn check_generation(session: &Session, patience: Patience) -> Result<(), StoreError> {
    let read = statement::READ_GENERATION.text(session.schema());
    let generation = answer(patience.silence(), session.client().query_typed_opt(&read, &[])).await??;
    if generation.is_none() {
        tracing::warn!(
            "names are not remembered from one transaction to the next: a trigger of the migrations is missing on \
             entities or does not always fire, or another one may change rows before they are written"
        );
    }
    Ok(())
}

/// Checks the shape of the tables; returns how rows are copied into them, if there are tables.
pub(in crate::store) async fn check_shape(client: &Client, schema: &str) -> Result<Option<Copying>, StartError> {
    inspect(client, schema).await.map_err(|error| match error {
        StoreError::Unfit(unfit) => StartError::Unfit { schema: schema.to_owned(), unfit },
        error => error.into(),
    })
}

/// Checks version, encoding, and that the tables exist.
pub(in crate::store) async fn check(client: &Client, config: &Config) -> Result<(), StartError> {
    let row = client
        .query_typed_one(
            "select current_setting('server_encoding'), current_setting('fsync'),
                    current_setting('synchronous_commit'), current_setting('full_page_writes'),
                    current_setting('server_version_num')::int4",
            &[],
        )
        .await
        .map_err(StoreError::from)?;
    let encoding: String = row.get(0);
    if encoding != "UTF8" {
        return Err(StartError::Encoding { encoding });
    }
    let version: i32 = row.get(4);
    if version < 140_000 {
        return Err(StartError::ServerTooOld { version: version / 10_000 });
    }
    for (column, setting) in [(1, "fsync"), (2, "synchronous_commit"), (3, "full_page_writes")] {
        if row.get::<_, &str>(column) == "off" {
            tracing::warn!(setting, "is off: the server may lose what it acknowledged when it crashes");
        }
    }
    let dead_letters = config.dead_letters.then_some("graphsink_dead_letters");
    let tables = [
        "entities",
        "connections",
        "mentions",
        "graphsink_attempts",
        "entity_redirects",
        "connection_redirects",
        "graphsink_generation",
    ];
    for table in tables.into_iter().chain(dead_letters) {
        let found: bool = client
            .query_typed_one(
                "select exists (select from pg_catalog.pg_class c
                                join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                                where n.nspname = $1 and c.relname = $2)",
                &[(&config.schema, Type::TEXT), (&table, Type::TEXT)],
            )
            .await
            .map_err(StoreError::from)?
            .get(0);
        if !found {
            return Err(StartError::NotMigrated { schema: config.schema.clone(), table });
        }
    }
    Ok(())
}
