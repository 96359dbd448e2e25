//! Tables that take everything and keep nothing.

use std::hint::black_box;
use std::time::Duration;

use uuid::Uuid;

use super::StoreError;
use super::commit::EpochObserver;
use super::table::{Arrays, Connections, Entities, Mentions, Purpose, copy_rows};
use super::transaction::EntityKeys;
use crate::batch::{
    Clock, ConnectionWrite, EntityWrite, Epoch, Found, GraphTables, HistoryAnswers, HistoryQuestions, LockRound,
    Lookup, MentionRow, PlaceIds, RereadAnswers, RereadQuestions, StoredConnection, StoredEntity, WriteError,
    write_epoch,
};
use crate::config::AsOf;
use crate::outcome::Outcome;
use crate::record::{ConnectionKey, EntityKey};

/// Empty tables that encode what they are given and forget it.
pub(super) struct Blackhole;

impl Blackhole {
    /// Writes an epoch, and tells each unit that it is committed or refused.
    pub(super) async fn commit(epoch: &Epoch, as_of: AsOf, observer: &mut dyn EpochObserver) {
        let units: Vec<usize> = (0..epoch.units().len()).collect();
        observer.attempted(Uuid::nil(), &units);
        let written = write_epoch(&Self, epoch, Clock { as_of: as_of.now(), score_tolerance: 0.0 }).await;
        match written {
            Ok(written) => {
                observer.begin_commit(&units);
                observer.committed(epoch, &written, Duration::ZERO);
                for (unit, committed) in units.into_iter().zip(written.units) {
                    observer.settled(unit, Outcome::Committed(committed));
                }
            }
            Err(WriteError::Rejected(rejected)) => {
                for (unit, rejection) in rejected {
                    observer.settled(unit, Outcome::Rejected(rejection));
                }
            }
            Err(WriteError::Tables(error)) => unreachable!("nothing fails here: {error}"),
        }
    }
}

impl GraphTables for Blackhole {
    type Error = StoreError;

    fn is_race(_: &StoreError) -> bool {
        false
    }

    async fn look_up(&self, lookup: &Lookup<'_>) -> Result<Found, StoreError> {
        black_box(EntityKeys::new(&lookup.entities_by_key));
        Ok(Found::default())
    }

    async fn insert_or_lock_entities(&self, writes: &[EntityWrite]) -> Result<Vec<Uuid>, StoreError> {
        black_box(Arrays::new::<Entities>(Purpose::Insert, writes));
        Ok(writes.iter().map(|write| write.id).collect())
    }

    async fn read_entities(&self, _: &[EntityKey]) -> Result<Vec<StoredEntity>, StoreError> {
        Ok(Vec::new())
    }

    async fn lock_place_ids(&self, _: PlaceIds) -> Result<(), StoreError> {
        Ok(())
    }

    async fn give_up_place_ids(&self, _: &[Uuid]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn update_entities(&self, writes: &[EntityWrite]) -> Result<(), StoreError> {
        black_box(Arrays::new::<Entities>(Purpose::Update, writes));
        Ok(())
    }

    async fn lock_connections(
        &self,
        _: &[(u32, &ConnectionKey<Uuid>)],
        _: LockRound,
    ) -> Result<Vec<(u32, StoredConnection)>, StoreError> {
        Ok(Vec::new())
    }

    async fn insert_connections(&self, rows: &[ConnectionWrite<'_>]) -> Result<(), StoreError> {
        black_box(copy_rows::<Connections>(rows));
        Ok(())
    }

    async fn read_history(&self, _: &HistoryQuestions<'_>) -> Result<HistoryAnswers, StoreError> {
        Ok(HistoryAnswers::default())
    }

    async fn insert_mentions(&self, rows: &[MentionRow<'_>]) -> Result<(), StoreError> {
        black_box(copy_rows::<Mentions>(rows));
        Ok(())
    }

    async fn update_mentions(&self, _: &[MentionRow<'_>]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn index_histories(&self, _: &[Uuid]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn reread(&self, _: &RereadQuestions) -> Result<RereadAnswers, StoreError> {
        Ok(RereadAnswers::default())
    }

    async fn update_connections(&self, _: &[ConnectionWrite<'_>]) -> Result<(), StoreError> {
        Ok(())
    }
}
