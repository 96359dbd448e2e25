//! Where epochs are written.

use std::time::Instant;

use super::blackhole::Blackhole;
use super::commit::EpochObserver;
use super::postgres::Store;
use crate::batch::Epoch;

/// Where epochs are written.
#[derive(Debug)]
pub(crate) enum Destination {
    Database(Store),
    /// Nowhere.
    Blackhole(Blackhole),
}

impl Destination {
    /// Commits an epoch, without its bad units, and reports the outcome of each unit to `observer`.
    pub(crate) async fn commit(&self, epoch: Epoch, deadline: Instant, observer: &mut dyn EpochObserver) {
        match self {
            Self::Database(store) => store.commit(epoch, deadline, observer).await,
            Self::Blackhole(blackhole) => blackhole.commit(epoch, observer).await,
        }
    }
}
