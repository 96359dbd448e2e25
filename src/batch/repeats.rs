//! Repeated mentions: connections about which an epoch says nothing new are neither locked nor written.
//!
//! Where threads are delivered again, most connections are stored as an epoch states them. If that was so of late
//! ([`Repeats`]), an epoch first reads its mentions and their connections without a lock. A connection is *settled* if
//! all of the epoch's mentions of it are stored and none of them is newer, if the stated facts are stored, and if the
//! figures still hold ([`StandingFigures::hold`]). All others are locked and read as usual; what was read of them
//! before is not used.
//!
//! Properties:
//! - Facts only grow and observations only become newer, so a connection that says everything at one moment says it
//!   later. No merge takes place meanwhile, because the epoch has its share of the merges' lock.
//! - Another program that deletes a settled connection need not wait for the epoch, as if the epoch had been before it.
//! - A connection and its mentions are read by one statement. Recent mentions are counted by a later one, which may
//!   also count those of a writer that has updated the figures itself.
//! - A wrong guess costs time alone: one more round trip, or two, and connections that are read twice. Only the first
//!   attempt of a whole epoch makes one.
//! - Of the best mentions only the first one's score is read: what another program did to the rest is found when the
//!   connection changes.

use uuid::Uuid;

use super::balance::Balance;
use super::connection_nodes::{ConnectionNode, Nodes, Presence, is_long};
use super::rows::StoredConnection;
use super::tables::{HistoryQuestions, RecentQuestion};
use super::write::Clock;
use crate::hash::HashMap;
use crate::outcome::Disposition;
use crate::record::{ConnectionFacts, ConnectionKey, MentionRef, StandingFigures, Timestamp};

/// A connection with more mentions in an epoch is locked in any case: the look without a lock is one for each mention,
/// the other one for all of them.
const MENTIONS_MAX: usize = 2;

/// Whether epochs repeat what is stored, by the last connections. Shared by all lanes of an engine.
#[derive(Debug, Default)]
pub(crate) struct Repeats(Balance);

/// The connections of an epoch that are looked for if repeats are expected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Repeated {
    /// Those that were settled, or would have been.
    pub(crate) settled: u32,
    /// Those that were changed or not stored, or would not have been settled.
    pub(crate) others: u32,
}

impl Repeats {
    /// Limit of the balance: a thousand connections change the expectation, whatever was before.
    const MAX: i32 = 1_000;

    /// Whether most connections of the next epoch are expected to be settled.
    pub(crate) fn are_expected(&self) -> bool {
        self.0.get() > 0
    }

    /// Takes note of a committed epoch. To read a connection in vain costs twice what is saved by settling one.
    pub(crate) fn observe(&self, Repeated { settled, others }: Repeated) {
        let change = i64::from(settled) - 2 * i64::from(others);
        self.0.add(change, -Self::MAX, Self::MAX);
    }
}

/// A mention of the epoch that may be stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RepeatQuestion<'a> {
    /// The positions in the plan.
    pub(crate) mention: u32,
    pub(crate) connection: u32,
    pub(crate) key: &'a ConnectionKey<Uuid>,
    /// The epoch's observation.
    pub(crate) own: MentionRef<'a>,
}

/// Stored mentions that are not older than the epoch's, and their connections.
#[derive(Debug, Default)]
pub(crate) struct RepeatAnswers {
    /// The id of each, with its position in the plan.
    pub(crate) mentions: Vec<(u32, Uuid)>,
    /// Some of them twice.
    pub(crate) connections: Vec<SeenConnection>,
}

/// A stored connection that was read without a lock.
#[derive(Debug, Clone)]
pub(crate) struct SeenConnection {
    /// Its position in the plan.
    pub(crate) place: u32,
    pub(crate) id: Uuid,
    pub(crate) facts: ConnectionFacts<Uuid>,
    pub(crate) figures: StandingFigures,
    /// Whether its history is looked up in the indexes for long histories.
    pub(crate) history_indexed: bool,
}

/// Connections that are stored as the epoch states them, whose figures are still to be judged.
#[derive(Debug)]
pub(super) struct RepeatedConnections {
    connections: Vec<SeenConnection>,
    /// The ids of stored mentions, by position in the plan.
    mentions: Vec<Option<Uuid>>,
}

impl Nodes<'_> {
    /// The mentions of the connections that may be settled.
    pub(super) fn repeat_questions(&self) -> Vec<RepeatQuestion<'_>> {
        let connections = (0_u32..).zip(&self.connections);
        let existing = connections.filter(|(_, node)| self.looks_up(node) && node.may_be_settled());
        let questions = existing.flat_map(|(connection, node)| {
            self.mentions_of(node).map(move |(mention, own)| RepeatQuestion {
                mention,
                connection,
                key: &node.key,
                own: self.observation(own),
            })
        });
        questions.collect()
    }

    /// The connections about which nothing new is stated.
    pub(super) fn repeated(&self, answers: RepeatAnswers) -> RepeatedConnections {
        let RepeatAnswers { mentions: found, mut connections } = answers;
        let mut mentions = vec![None; self.mentions.len()];
        for (mention, id) in found {
            mentions[mention as usize] = Some(id);
        }
        connections.sort_by_key(|seen| seen.place);
        connections.dedup_by_key(|seen| seen.place);
        connections.retain(|seen| {
            let node = &self.connections[seen.place as usize];
            let becomes_long = is_long(seen.figures.mention_count.unsigned_abs() as usize) && !seen.history_indexed;
            let mut own = self.mentions_of(node);
            own.all(|(mention, _)| mentions[mention as usize].is_some())
                && seen.facts.contains_all(&node.said)
                && !becomes_long
        });
        RepeatedConnections { connections, mentions }
    }

    /// Counts the connections, once all is decided. `recent` are the numbers of recent mentions.
    pub(super) fn count_repeated(&self, recent: &HashMap<u32, i32>, clock: Clock) -> Repeated {
        let mut repeated = Repeated::default();
        for (place, node) in (0_u32..).zip(&self.connections) {
            let is_looked_for = node.presence == Presence::Settled || self.looks_up(node);
            if !is_looked_for || !node.may_be_settled() {
                continue;
            }
            let would_hold = |stored: &StoredConnection| {
                let recent = recent.get(&place).copied().unwrap_or(0);
                StandingFigures::of(&stored.metrics).hold(recent, clock.as_of, clock.score_tolerance)
            };
            let mut own = self.mentions_of(node);
            let would_be_settled = node.disposition == Disposition::Unchanged
                && own.all(|(_, mention)| mention.disposition == Disposition::Unchanged)
                && node.stored.as_deref().is_some_and(would_hold);
            if node.presence == Presence::Settled || would_be_settled {
                repeated.settled += 1;
            } else {
                repeated.others += 1;
            }
        }
        repeated
    }

    /// Settles those whose figures hold.
    pub(super) fn settle(&mut self, repeated: RepeatedConnections, recent: Vec<(u32, i32)>, clock: Clock) {
        let RepeatedConnections { connections, mentions } = repeated;
        let recent: HashMap<u32, i32> = recent.into_iter().collect();
        for SeenConnection { place, id, figures, .. } in connections {
            let recent = recent.get(&place).copied().unwrap_or(0);
            if !figures.hold(recent, clock.as_of, clock.score_tolerance) {
                continue;
            }
            let node = &mut self.connections[place as usize];
            (node.id, node.presence, node.disposition) = (id, Presence::Settled, Disposition::Unchanged);
            let own = node.mentions.start as usize..node.mentions.end as usize;
            for (mention, id) in self.mentions[own.clone()].iter_mut().zip(&mentions[own]) {
                mention.id = id.unwrap_or(mention.id);
                mention.disposition = Disposition::Unchanged;
            }
        }
    }
}

impl ConnectionNode {
    /// Whether its mentions in the epoch are few enough.
    fn may_be_settled(&self) -> bool {
        (1..=MENTIONS_MAX).contains(&self.mentions.len())
    }
}

impl RepeatedConnections {
    /// The counts that are needed for judging their figures.
    pub(super) fn questions(&self, as_of: Timestamp) -> HistoryQuestions<'static> {
        let may_have_recent = self.connections.iter().filter(|seen| seen.figures.may_have_recent(as_of));
        let recent = may_have_recent.map(|seen| RecentQuestion {
            place: seen.place,
            connection: seen.id,
            history_indexed: seen.history_indexed,
        });
        HistoryQuestions::new(recent.collect(), as_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_expected_while_two_thirds_are_settled() {
        let repeats = Repeats::default();
        let expected_after = |settled, others| {
            repeats.observe(Repeated { settled, others });
            repeats.are_expected()
        };
        assert!(!repeats.are_expected() && !expected_after(0, 0) && expected_after(1, 0));
        assert!(!expected_after(20, 20));
        assert!(!expected_after(10, 0) && expected_after(30, 5));
        // A small epoch between large ones decides nothing.
        assert!(expected_after(u32::MAX, 0) && expected_after(0, 499) && !expected_after(0, 1));
        assert!(!expected_after(0, u32::MAX) && expected_after(1_001, 0));
    }
}
