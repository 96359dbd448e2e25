//! Back-pressure: limits on rows and bytes in flight.
//!
//! Actor mailboxes impose no limit (actix accepts one more message from every sender), so the limit is here, in front
//! of them. Both semaphores are fair: a large unit waits its turn and is not overtaken.

use std::sync::Arc;

use tokio::sync::{Semaphore, TryAcquireError};

use crate::config::Config;
use crate::flight::Room;

#[derive(Debug)]
pub(crate) struct Admission {
    rows: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
}

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            rows: Arc::new(Semaphore::new(config.max_rows_in_flight)),
            bytes: Arc::new(Semaphore::new(config.max_bytes_in_flight)),
            bytes_max: config.max_bytes_in_flight,
        }
    }

    /// Permits for so many bytes, at most all: a unit larger than the limit is admitted alone.
    fn byte_permits(&self, bytes: usize) -> u32 {
        bytes.min(self.bytes_max) as u32
    }

    /// Waits for capacity; `None` if the engine is closed meanwhile. Dropping the future returns the permits acquired
    /// so far.
    pub(crate) async fn acquire(&self, rows: usize, bytes: usize) -> Option<Room> {
        // Always in this order: two units never hold what the other waits for.
        let rows = Arc::clone(&self.rows).acquire_many_owned(rows as u32).await.ok()?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(self.byte_permits(bytes)).await.ok()?;
        Some(Room { rows, bytes })
    }

    /// Takes capacity if it is available right now.
    pub(crate) fn try_acquire(&self, rows: usize, bytes: usize) -> Result<Room, TryAcquireError> {
        let rows = Arc::clone(&self.rows).try_acquire_many_owned(rows as u32)?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(self.byte_permits(bytes))?;
        Ok(Room { rows, bytes })
    }

    /// Admits no more units, including those that wait.
    pub(crate) fn close(&self) {
        self.rows.close();
        self.bytes.close();
    }
}
