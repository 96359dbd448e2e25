//! Merges of entities, as an engine's caller asks for them.

use std::sync::Arc;

use tracing::Instrument;

use super::handle::Engine;
use crate::merge::{EntityMerge, MergeOutcome};
use crate::outcome::{Unavailable, UnavailableCause};

impl Engine {
    /// Makes one entity of two, for each of `merges`, in their order: what is known of `from` becomes known of `into` by
    /// the merge rules, its name becomes an alias, everything that named it names `into`, and connections that thereby
    /// are one become one, with one set of mentions and the figures of that. `from` is no row any more; units that name
    /// it by its id or by its key, then or later, say what they say of `into`, and so do ids of connections that are no
    /// more. Merging two again does nothing.
    ///
    /// A merge is whole or not at all, and each has an outcome of its own, in the order of `merges`; a hundred at most
    /// share a transaction. While one is under way all engines on these tables wait, so merge a few large entities at a
    /// time. It takes the read indexes ([`Migrations::all`](crate::Migrations::all)) to find connections fast, and the
    /// rights of `migrations/merge_rights.sql`. Ids in columns that the engine does not know are not followed.
    ///
    /// Once begun, the merges are carried out also when the future is dropped; [`shutdown`](Self::shutdown) waits for
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
            // The engine ended in the midst of it.
            Err(_) => shut_down(count, true),
        }
    }
}
