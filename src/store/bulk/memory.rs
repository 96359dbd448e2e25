//! The memory and the number of processes that the server may use to build indexes.
//!
//! Memory: a `maintenance_work_mem` that was configured, in a file, for the database or for the role, is kept.
//! PostgreSQL's own default (64 MB), which is for very small servers, is raised to the size of the shared buffers:
//! nearly every server has this setting configured for its size. It is never more than a bound, and never less than the
//! default. Each of two sessions that build at the same time has half of the bound. All processes of one build share it, and it also bounds the check of a foreign key.
//!
//! Processes: `max_parallel_maintenance_workers` is not changed in place; two sessions that build at the same time have
//! half of it each. Its default is two. A server does not report its
//! number of cores, and more processes than cores do harm. On two cores, all indexes of 1,000,000 mentions, 700,000
//! connections and 200,000 entities (PostgreSQL 15, everything in memory; one to three runs each) took 14.8 s with one
//! process besides the session's own, 15.2 to 16.1 with two, 17.6 and 17.9 with four, and 21.8 with none. PostgreSQL
//! itself starts none if each would have less than 32 MB. At that size the memory made no difference (64 MB or 512 MB
//! with one: 14.8 s), nor did the order of the tables (15.2 and 15.6 s).

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::error::StoreError;

const KIB: i64 = 1 << 10;

/// The setting in kilobytes, whether it has its default, and the shared buffers in kilobytes.
const FIND: &str = "
    select s.setting::int8, s.source = 'default',
           (select b.setting::int8 * pg_catalog.current_setting('block_size')::int8 / 1024
            from pg_catalog.pg_settings b where b.name = 'shared_buffers')
    from pg_catalog.pg_settings s where s.name = 'maintenance_work_mem'";

const SET: &str = "select pg_catalog.set_config('maintenance_work_mem', $1, true)";

/// Sets the memory for this transaction. The bound is in bytes.
pub(super) async fn provide(client: &Client, memory_max: u64) -> Result<(), StoreError> {
    let row = client.query_typed_one(FIND, &[]).await?;
    let (setting, is_default, shared_buffers) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let bound = i64::try_from(memory_max).unwrap_or(i64::MAX) / KIB;
    let memory = if is_default { better(setting, shared_buffers, bound) } else { setting };
    tracing::debug!(memory_kib = memory, "memory of the server for building indexes");
    client.query_typed_one(SET, &[(&memory.to_string(), Type::TEXT)]).await?;
    Ok(())
}

/// The value that replaces the default.
fn better(default: i64, shared_buffers: i64, bound: i64) -> i64 {
    shared_buffers.min(bound).max(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_grows_with_the_server_up_to_the_bound() {
        assert_eq!(better(64, 512, 1_000), 512);
        assert_eq!(better(64, 5_000, 1_000), 1_000);
        assert_eq!(better(64, 16, 1_000), 64, "never less");
        assert_eq!(better(64, 5_000, 32), 64);
    }
}
