//! Merges of entities: the engine's public operation.

use std::sync::Arc;

use tracing::Instrument;

use super::handle::Engine;
use crate::merge::{EntityMerge, MergeOutcome};
use crate::outcome::{Unavailable, UnavailableCause};

impl Engine {
    /// Makes one entity of two, for each of `merges`, in their order. All facts about `from` are added to `into` by the
    /// merge rules, and its name becomes an alias. Rows that named `from` name `into`. Connections that thereby get the
    /// same key become one, with one set of mentions and the figures of that set.
    ///
    /// The row of `from` is deleted. Units that name it by its id or by its key, then or later, are applied to `into`;
    /// likewise, ids of removed connections resolve to the surviving ones. Merging the same two again does nothing.
    ///
    /// Each merge is atomic and has its own outcome, in the order of `merges`; up to a hundred share a transaction.
    /// During a merge all engines on these tables wait, so merge a few large entities at a time. It requires the read
    /// indexes ([`Migrations::all`](crate::Migrations::all)) to find connections fast, and the rights of
    /// `migrations/merge_rights.sql`. Ids in columns unknown to the engine are not updated.
    ///
    /// Once begun, the merges are carried out even if the future is dropped; [`shutdown`](Self::shutdown) waits for
    /// them until its deadline.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// use graphsink::{EntityKey, EntityMerge, EntityType, MergeOutcome};
    ///
    /// let restaurant = |name: &str| EntityKey::new(EntityType::Restaurant, name);
    /// let merges = vec![EntityMerge::new(restaurant("franklins"), restaurant("franklin bbq"))];
    /// for outcome in engine.merge(merges).await {
    ///     match outcome {
    ///         MergeOutcome::Merged { into, .. } | MergeOutcome::AlreadyMerged { into } => println!("both are {into}"),
    ///         MergeOutcome::Rejected(why) => println!("not merged: {why}"),
    ///         MergeOutcome::Unavailable(why) => println!("merge them again: {why}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn merge(&self, merges: Vec<EntityMerge>) -> Vec<MergeOutcome> {
        let shut_down = |merges: usize, commit_under_way| {
            let unavailable = Unavailable { commit_under_way, attempts: 0, cause: UnavailableCause::ShutDown };
            vec![MergeOutcome::Unavailable(unavailable); merges]
        };
        let (count, shared) = (merges.len(), Arc::clone(&self.inner.shared));
        let work = async move {
            let closed = Arc::clone(&shared.merging).lock_owned().await;
            if *closed {
                return shut_down(merges.len(), false);
            }
            shared.store.merge(&merges, shared.outcome_deadline, &|| shared.listeners.unknown()).await
        };
        match self.inner.shared.runtime.spawn(work.in_current_span()).await {
            Ok(outcomes) => outcomes,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The engine ended during the merge.
            Err(_) => shut_down(count, true),
        }
    }
}
