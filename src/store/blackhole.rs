//! Tables that accept everything and store nothing.

use std::hint::black_box;
use std::time::Duration;

use uuid::Uuid;

use super::commit::EpochObserver;
use super::table::{Arrays, Entities, Purpose, copy_pieces};
use super::transaction::EntityKeys;
use crate::batch::{
    Clock, ConnectionWrite, EntityWrite, Epoch, Found, FoundByKey, Generation, GraphTables, HistoryAnswers,
    HistoryQuestions, KeyLookup, KnownNames, LockRound, Lookup, MentionRow, MentionRows, Names, NewConnections,
    PlaceIds, Remembered, RepeatAnswers, RepeatQuestion, RereadAnswers, RereadQuestions, StoredConnection,
    StoredEntity, WriteError, write_epoch,
};
use crate::config::{AsOf, Config};
use crate::error::StoreError;
use crate::hash::HashMap;
use crate::outcome::Outcome;
use crate::record::ConnectionKey;

/// Empty tables that encode their rows and discard them. The engine still remembers ids of names, as it does with a
/// database.
#[derive(Debug)]
pub(crate) struct Blackhole {
    as_of: AsOf,
    known_names: KnownNames,
}

impl Blackhole {
    pub(crate) fn new(config: &Config) -> Self {
        Self { as_of: config.as_of, known_names: KnownNames::new(config.known_names_max) }
    }

    /// Writes an epoch, without its bad units, and reports each unit as committed or rejected.
    pub(super) async fn commit(&self, mut epoch: Epoch, observer: &mut dyn EpochObserver) {
        let mut units: Vec<usize> = (0..epoch.units().len()).collect();
        let written = loop {
            observer.attempted(Uuid::nil(), &units);
            let clock = Clock { as_of: self.as_of.now(), score_tolerance: 0.0 };
            let names = Names { known: Some(&self.known_names).filter(|known| known.is_on()), session: 0 };
            let remembered = Remembered { names, novelty: None, may_guess: false, expects_repeats: false };
            let rejected = match write_epoch(self, &epoch, remembered, clock).await {
                Ok(written) => break written,
                Err(WriteError::Rejected(rejected)) => rejected,
                Err(WriteError::Tables(error)) => unreachable!("nothing fails here: {error}"),
            };
            let mut refused = vec![false; units.len()];
            for (index, rejection) in rejected {
                refused[index] = true;
                observer.settled(units[index], Outcome::Rejected(rejection));
            }
            let good = |index: &usize| !refused[*index];
            let rest: Vec<_> = (0..units.len()).filter(good).collect();
            if rest.is_empty() {
                return;
            }
            epoch = Epoch::from_units(rest.iter().map(|index| epoch.shared_units()[*index].clone()).collect());
            units = rest.into_iter().map(|index| units[index]).collect();
        };
        if !observer.begin_commit(&units) {
            return observer.given_up(&units);
        }
        self.known_names.remember(&written.learned);
        observer.committed(&epoch, &written, Duration::ZERO);
        observer.settled_committed(&units, &mut epoch.committed(&written.rows));
    }
}

impl GraphTables for Blackhole {
    type Error = StoreError;

    fn is_race(_: &StoreError) -> bool {
        false
    }

    fn is_refusal(_: &StoreError) -> bool {
        false
    }

    async fn has_work(&self) {}

    async fn look_up(&self, lookup: &Lookup<'_>) -> Result<Found, StoreError> {
        black_box(EntityKeys::new(&lookup.entities_by_key));
        Ok(Found { generation: Some(Generation::new("")), ..Found::default() })
    }

    async fn look_up_names(&self, names: &[KeyLookup<'_>]) -> Result<HashMap<u32, FoundByKey>, StoreError> {
        black_box(EntityKeys::new(names));
        Ok(HashMap::default())
    }

    async fn insert_and_lock_entities(
        &self,
        new: &[EntityWrite],
        _: &[EntityWrite],
    ) -> Result<Vec<StoredEntity>, StoreError> {
        copy_pieces::<Entities, _>(new.len(), new.iter()).for_each(|piece| drop(black_box(piece)));
        Ok(Vec::new())
    }

    async fn look_up_raced(&self, _: &[KeyLookup<'_>]) -> Result<HashMap<u32, FoundByKey>, StoreError> {
        Ok(HashMap::default())
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

    async fn find_repeats(&self, _: &[RepeatQuestion<'_>]) -> Result<RepeatAnswers, StoreError> {
        Ok(RepeatAnswers::default())
    }

    async fn lock_connections(
        &self,
        _: &[(u32, &ConnectionKey<Uuid>)],
        _: bool,
        _: LockRound,
    ) -> Result<Vec<(u32, StoredConnection)>, StoreError> {
        Ok(Vec::new())
    }

    async fn insert_connections(&self, rows: NewConnections<'_>) -> Result<(), StoreError> {
        copy_pieces(rows.len(), rows).for_each(|piece| drop(black_box(piece)));
        Ok(())
    }

    async fn read_history(&self, _: &HistoryQuestions<'_>) -> Result<HistoryAnswers, StoreError> {
        Ok(HistoryAnswers::default())
    }

    async fn insert_mentions(&self, rows: MentionRows<'_>) -> Result<(), StoreError> {
        copy_pieces(rows.len(), rows).for_each(|piece| drop(black_box(piece)));
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use crate::config::Config;
    use crate::engine::Engine;
    use crate::unit::UnitOfWork;

    /// No row exists, so a unit that names a row by its id is rejected; its neighbours in the epoch are not.
    #[tokio::test]
    async fn units_that_name_missing_rows_are_rejected_alone() {
        let config = Config::builder("postgresql://localhost/nowhere").build().unwrap();
        let engine = Engine::start_blackhole(config).await.unwrap();
        let mut receipts = Vec::new();
        for number in 0..300 {
            let mut unit = UnitOfWork::new();
            unit.dish(format!("dish {number}"));
            match number % 3 {
                0 => drop(unit.existing_entity(Uuid::from_u128(7))),
                1 => drop(unit.existing_connection(Uuid::from_u128(7))),
                _ => {}
            }
            receipts.push((number, engine.submit(unit).await.unwrap()));
        }
        for (number, receipt) in receipts {
            let outcome = receipt.await;
            assert_eq!(outcome.committed().is_some(), number % 3 == 2, "{number}: {outcome:?}");
        }
    }
}
