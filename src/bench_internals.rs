//! What the bench `engine_cpu` needs of the engine's inside (feature `internals`). No promise to
//! anybody: names and meanings change with the engine.
//!
//! The steps of an epoch as plain calls, and an engine that hands its epochs to nobody: everything
//! but the statements themselves is what the engine does. What this leaves out is sending, waiting
//! and decoding answers, which need a server.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::batch::{
    ConnectionPlan, EntityPlan, EntityWrite, Epoch, MentionNode, StoredConnection, StoredEntity, StoredMention,
};
use crate::config::Config;
use crate::engine::Engine;
use crate::error::StartError;
use crate::outcome::{Committed, Disposition, Outcome};
use crate::record::{ConnectionMetrics, EntityName, Table, Timestamp};
use crate::store::{
    ConnectionColumns, ConnectionKeyColumns, EntityColumns, EntityKeyColumns, EpochObserver, Parameters, Statement,
    Written, copied_connections, copied_mentions,
};
use crate::unit::{Unit, UnitOfWork};

/// Valid units, as batchers get them.
#[derive(Debug)]
pub struct PreparedUnits(Vec<Arc<Unit>>);

impl PreparedUnits {
    /// What happens to units in their callers' tasks.
    ///
    /// # Panics
    /// When a unit breaks a rule.
    pub fn new(units: Vec<UnitOfWork>) -> Self {
        let prepare = |unit: UnitOfWork| {
            unit.validate(usize::MAX).expect("the bench's units are valid");
            Arc::new(unit.prepare())
        };
        Self(units.into_iter().map(prepare).collect())
    }
}

/// Units as one epoch.
#[derive(Debug)]
pub struct CoalescedEpoch(Epoch);

/// What the database would say to an epoch whose entities and connections it knows.
#[derive(Debug, Clone)]
pub struct Answers {
    entities: Vec<(u32, StoredEntity)>,
    connections: Vec<StoredConnection>,
    /// Of each connection, if its mentions are known too.
    mentions: Option<Vec<Vec<(u32, StoredMention)>>>,
}

impl CoalescedEpoch {
    /// What the batchers and the coordinator do.
    pub fn new(units: &PreparedUnits) -> Self {
        Self(Epoch::from_units(units.0.clone()))
    }

    /// Answers of a database that has the entities and connections of this epoch, and perhaps its
    /// mentions.
    ///
    /// # Panics
    /// When the plans contradict themselves.
    pub fn answers(&self, with_mentions: bool, as_of: Timestamp) -> Answers {
        let plan = resolve_entities(&self.0, Vec::new());
        let rows = self.0.entities.rows();
        let writes = plan.to_insert_or_lock(&self.0.entities);
        let stored = |slot: usize, name: &EntityName| {
            let EntityName::Key(key) = name else { panic!("the bench names its entities by key") };
            let write = writes.iter().find(|write| write.key == *key).expect("all are new");
            let facts = (!rows[slot].1.is_empty()).then(|| write.facts.clone());
            StoredEntity { id: write.id, key: key.clone(), facts }
        };
        let entities = rows.iter().enumerate().map(|(slot, (name, _))| (slot as u32, stored(slot, name))).collect();
        let plan = ConnectionPlan::resolve(&self.0, &plan, &std::iter::empty().collect());
        let owned = |metrics: ConnectionMetrics<'_>| {
            let top = serde_json::to_string(&metrics.top_mentions).expect("texts, numbers and times are JSON");
            ConnectionMetrics { top_mentions: serde_json::from_str(&top).expect("it was written above"), ..metrics }
        };
        let writes = plan.new_rows(as_of).into_iter();
        let connections: Vec<_> = writes
            .map(|write| StoredConnection {
                id: write.id,
                facts: write.facts.into_owned(),
                metrics: owned(write.metrics),
            })
            .collect();
        let known = |connection| {
            let mentions = plan.mentions_of(connection);
            let stored =
                mentions.map(|(index, node)| (index, StoredMention { id: node.id, mention: (*node.mention).clone() }));
            stored.collect()
        };
        let mentions = with_mentions.then(|| (0..connections.len() as u32).map(known).collect());
        Answers { entities, connections, mentions }
    }

    /// Everything that a transaction does with this epoch in the engine's own process: plans, rows,
    /// columns, and if wanted their encoding. Without answers all rows are new. Gives the bytes that
    /// would be sent.
    ///
    /// # Panics
    /// When the answers are not those of this epoch.
    pub fn write(&self, answers: Option<Answers>, as_of: Timestamp, encode: bool) -> usize {
        let mut sent = Sent { encode, bytes: BytesMut::new() };
        std::hint::black_box(write(&self.0, answers, as_of, &mut sent));
        sent.bytes.len()
    }
}

/// Starts an engine that commits nowhere: each epoch is planned and encoded as for empty tables, and
/// told that it was committed. The settings' URL is parsed and never used.
///
/// # Errors
/// When the thread or the runtime cannot be started.
pub async fn start_without_database(mut config: Config) -> Result<Engine, StartError> {
    config.without_database = true;
    Engine::start(config).await
}

/// The commit of such an engine.
pub(crate) fn commit_nowhere(epoch: &Epoch, as_of: Timestamp, observer: &mut dyn EpochObserver) {
    let units: Vec<usize> = (0..epoch.units().len()).collect();
    observer.attempted(uuid::Uuid::nil(), &units);
    let mut sent = Sent { encode: true, bytes: BytesMut::new() };
    let mut written = write(epoch, None, as_of, &mut sent);
    observer.begin_commit(&units);
    observer.committed(epoch, &written, Duration::ZERO);
    for (unit, committed) in units.into_iter().zip(written.units.drain(..)) {
        observer.settled(unit, Outcome::Committed(committed));
    }
}

/// What would go to the server.
struct Sent {
    encode: bool,
    bytes: BytesMut,
}

impl Sent {
    fn parameters(&mut self, statement: Statement, parameters: &Parameters<'_>) {
        if self.encode {
            for (parameter, parameter_type) in parameters.iter().zip(&statement.parameter_types()) {
                let null = parameter.to_sql_checked(parameter_type, &mut self.bytes);
                null.expect("parameters have the types of their statement");
            }
        }
    }

    fn copy(&mut self, pieces: impl FnOnce() -> Vec<Bytes>) {
        if self.encode {
            for piece in pieces() {
                self.bytes.extend_from_slice(&piece);
            }
        }
    }
}

fn resolve_entities(epoch: &Epoch, stored: Vec<(u32, StoredEntity)>) -> EntityPlan {
    let plan = EntityPlan::resolve(epoch, stored.into_iter().collect(), std::iter::empty().collect());
    plan.expect("the bench names nothing by id, so nothing is refused")
}

/// `Transaction::write_epoch`, with answers that are there already.
fn write(epoch: &Epoch, answers: Option<Answers>, as_of: Timestamp, sent: &mut Sent) -> Written {
    let mut keys = EntityKeyColumns::default();
    for (name, facts) in epoch.entities.rows() {
        if let EntityName::Key(key) = name {
            keys.push(key, !facts.is_empty());
        }
    }
    sent.parameters(Statement::EntitiesByKey, &keys.parameters());
    let Answers { entities: stored_entities, connections: stored, mentions: known } =
        answers.unwrap_or(Answers { entities: Vec::new(), connections: Vec::new(), mentions: None });
    let mut entities = resolve_entities(epoch, stored_entities);
    let writes = entities.to_insert_or_lock(&epoch.entities);
    if !writes.is_empty() {
        sent.parameters(Statement::InsertOrLockEntities, &EntityColumns::new(&writes).insert());
        let inserted: Vec<Uuid> = writes.iter().map(|write: &EntityWrite| write.id).collect();
        entities.inserted_or_locked(&writes, &inserted).expect("no row vanishes");
        let updates = entities.remaining_updates(&epoch.entities, &writes);
        sent.parameters(Statement::UpdateEntities, &EntityColumns::new(&updates.writes).update());
    }
    let mut connections = ConnectionPlan::resolve(epoch, &entities, &std::iter::empty().collect());
    let keys = ConnectionKeyColumns::new(connections.connections());
    sent.parameters(Statement::LockConnections, &keys.parameters());
    for (connection, stored) in (0_u32..).zip(stored) {
        connections.set_stored(connection, stored);
    }
    let existing = connections.existing().expect("no row vanishes");
    sent.copy(|| copied_connections(&connections.new_rows(as_of), connections.connections()));
    for (mention, stored) in known.into_iter().flatten().flatten() {
        connections.set_stored_mention(mention, stored);
    }
    let no_threads = std::iter::empty().collect();
    let advance = |connection: &u32| connections.advance(*connection, 0, &no_threads, as_of, 0.0);
    let changed: Vec<_> = existing.iter().filter_map(advance).collect();
    let columns = ConnectionColumns::new(&changed, connections.connections());
    sent.parameters(Statement::UpdateConnections, &columns.update());
    let new: Vec<&MentionNode> = connections.mentions_to(Disposition::Inserted).collect();
    sent.copy(|| copied_mentions(&new, connections.connections()));
    let changed: Vec<u32> = changed.iter().map(|write| write.node).collect();
    connections.mark_updated(changed);

    let (connection_rows, mention_rows) = connections.committed();
    let (of_connections, of_mentions) = connections.dispositions();
    let dispositions = entities
        .dispositions()
        .map(|disposition| (Table::Entities, disposition))
        .chain(of_connections.map(|disposition| (Table::Connections, disposition)))
        .chain(of_mentions.map(|disposition| (Table::Mentions, disposition)))
        .collect();
    let units: Vec<Committed> = epoch.committed(&entities.committed(), &connection_rows, &mention_rows);
    Written { units, dispositions }
}

#[cfg(test)]
mod tests {
    use Disposition::{Inserted, Unchanged, Updated};

    use super::*;
    use crate::record::{Mention, SourceType};

    fn unit(restaurant: &str, mention: &str) -> UnitOfWork {
        let mut unit = UnitOfWork::new();
        let restaurant = unit.restaurant(restaurant).alias("alias").handle();
        let dish = unit.dish("pie").handle();
        let connection = unit.connection(restaurant, dish).handle();
        let written_at = "2024-01-01T00:00:00Z".parse().unwrap();
        unit.mention(connection, Mention::new(SourceType::Post, mention, "https://example.org", "s", written_at));
        unit
    }

    /// What the bench calls new, existing and repeated is that.
    #[test]
    fn answers_lead_to_what_they_stand_for() {
        let as_of = "2024-02-01T00:00:00Z".parse().unwrap();
        let epoch = CoalescedEpoch::new(&PreparedUnits::new(vec![unit("a", "1"), unit("b", "2"), unit("a", "3")]));
        let dispositions = |answers| {
            let mut sent = Sent { encode: true, bytes: BytesMut::new() };
            let written = write(&epoch.0, answers, as_of, &mut sent);
            Table::ALL.map(|table| {
                let of_table = written.dispositions.iter().filter(|(of, _)| *of == table);
                of_table.map(|(_, disposition)| *disposition).collect::<Vec<_>>()
            })
        };
        assert_eq!(dispositions(None), [vec![Inserted; 3], vec![Inserted; 2], vec![Inserted; 3]]);
        let existing = epoch.answers(false, as_of);
        assert_eq!(dispositions(Some(existing)), [vec![Unchanged; 3], vec![Updated; 2], vec![Inserted; 3]]);
        let repeated = epoch.answers(true, as_of);
        assert_eq!(dispositions(Some(repeated)), [vec![Unchanged; 3], vec![Unchanged; 2], vec![Unchanged; 3]]);
    }
}
