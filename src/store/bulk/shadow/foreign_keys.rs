//! Foreign keys among the three tables: created on shadow tables and checked before these take the place of the others.
//!
//! 1. As soon as both of its tables are built, a foreign key is created as not valid, which reads no row. Not sooner:
//!    while rows are copied its triggers would queue an event for each, and the lock on both tables waits for indexes.
//!    It also waits for a check under way on one of the two.
//! 2. Each of a table's keys is checked by a transaction, one after the other, because their locks on the table conflict.
//!    On the table to which they refer they conflict with nothing that a load does: sessions check the keys of two
//!    tables at once.
//!
//! Keys that have the same triggers on one table are created oldest first, as before. Those to and from other tables, and
//! later ones that follow them in this order, are left to the last transaction: other programs use these tables.

use futures::future::try_join_all;

use super::super::definition::{Definitions, ForeignKey};
use super::super::plan::{BuildStep, BuildWhat, Step};
use super::super::transaction::step_failed;
use super::ShadowTables;
use super::turns::Priority;
use crate::error::BulkStoreError;
use crate::record::Table;

/// Foreign keys that are not created yet, oldest first.
#[derive(Debug)]
pub(super) struct PendingForeignKeys {
    pub(super) keys: Vec<ForeignKey>,
    built: Vec<Table>,
}

impl PendingForeignKeys {
    pub(super) fn new(definitions: &Definitions) -> Self {
        Self { keys: definitions.foreign_keys.clone(), built: Vec::new() }
    }

    /// Takes those that can be created once this table is built as well.
    fn take(&mut self, built: Table) -> Vec<ForeignKey> {
        self.built.push(built);
        let (mut ready, mut waiting) = (Vec::new(), Vec::<ForeignKey>::new());
        for key in self.keys.drain(..) {
            let is_built = key.ends().is_some_and(|ends| ends.iter().all(|table| self.built.contains(table)));
            let follows = waiting.iter().any(|older| key.must_follow(older));
            if is_built && !follows { ready.push(key) } else { waiting.push(key) }
        }
        self.keys = waiting;
        ready
    }
}

/// The number of foreign keys that are checked when all tables are built.
pub(super) fn checks(definitions: &Definitions) -> usize {
    let mut pending = PendingForeignKeys::new(definitions);
    let taken = Table::ALL.into_iter().flat_map(|table| pending.take(table));
    taken.filter(|key| key.is_valid).count()
}

impl ShadowTables {
    /// Creates and checks foreign keys that waited for the indexes of this table.
    pub(super) async fn add_foreign_keys(
        &self,
        built: Table,
        progress: &(impl Fn(BuildStep<'_>) + Sync),
    ) -> Result<(), BulkStoreError> {
        let created = &self.create_foreign_keys(built).await?;
        let check = async |table| {
            let is_of_table = |key: &&ForeignKey| key.is_valid && key.ends().is_some_and(|[from, _]| from == table);
            for key in created.iter().filter(is_of_table) {
                let (name, sql) = (key.name.clone(), key.check(&self.names.qualified(table)));
                self.step(Step { what: BuildWhat::ForeignKey, table: None, name, sql }, progress).await?;
            }
            Ok(())
        };
        try_join_all(Table::ALL.map(check)).await.map(drop)
    }

    /// In a transaction that ends before the checks, since its locks exclude these. Returns the keys.
    async fn create_foreign_keys(&self, built: Table) -> Result<Vec<ForeignKey>, BulkStoreError> {
        // Held to the end, for the order of the keys.
        let mut pending = self.pending.lock().await;
        let keys = pending.take(built);
        if keys.is_empty() {
            return Ok(keys);
        }
        let mut locked = Table::ALL.to_vec();
        locked.retain(|table| keys.iter().filter_map(ForeignKey::ends).flatten().any(|end| end == *table));
        let locked: Vec<String> = locked.into_iter().map(|table| self.names.qualified(table)).collect();
        let lock = format!("lock table {} in share row exclusive mode", locked.join(", "));
        let create = keys.iter().filter_map(|key| key.make_elsewhere(|table| self.names.qualified(table)));
        let sql = std::iter::once(lock).chain(create).collect::<Vec<_>>().join("; ");

        let mut lease = self.begin(Priority::ForeignKeys).await?;
        let created = async {
            lease.session.run(&sql).await?;
            lease.end().await
        };
        created.await.map_err(|error| step_failed("creating foreign keys", error))?;
        Ok(keys)
    }
}
