//! The tables of the simulation, the actions of other programs on them, and their invariants.

use super::*;

pub(crate) type MentionKey = (Uuid, SourceType, Arc<str>);
pub(super) type Rejected = Vec<(usize, Rejection)>;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tables {
    pub(crate) entities: BTreeMap<EntityKey, (Uuid, EntityFacts<Uuid>)>,
    pub(crate) connections: BTreeMap<ConnectionKey<Uuid>, (Uuid, ConnectionFacts<Uuid>, StoredMetrics)>,
    pub(crate) mentions: BTreeMap<MentionKey, (Uuid, Mention)>,
    /// Connections, and mentions, that are in the indexes for long histories.
    pub(crate) indexed: BTreeSet<Uuid>,
    /// Changes with every event that may invalidate an id.
    pub(super) generation: u64,
}

/// `top_mentions` keeps no source ids.
pub(crate) fn stored_form(metrics: &ConnectionMetrics<'_>) -> StoredMetrics {
    let top_mentions = serde_json::from_str(&serde_json::to_string(&metrics.top_mentions).unwrap()).unwrap();
    ConnectionMetrics { top_mentions, ..*metrics }
}

impl Tables {
    pub(super) fn id(&self, entity_type: EntityType, name: &str) -> Option<Uuid> {
        self.entities.get(&EntityKey { entity_type, name: name.into() }).map(|(id, _)| *id)
    }

    pub(super) fn entity_by_id(&self, id: Uuid) -> Option<StoredEntity> {
        let (key, (id, facts)) = self.entities.iter().find(|(_, row)| row.0 == id)?;
        Some(StoredEntity { id: *id, key: key.clone(), facts: Some(facts.clone()) })
    }

    pub(super) fn mentions_of(&self, connection: Uuid) -> impl Iterator<Item = (Uuid, &Mention)> {
        self.mentions.iter().filter(move |(key, _)| key.0 == connection).map(|(_, (id, mention))| (*id, mention))
    }

    /// The mentions that a question finds: by the index for long histories, or all of them.
    pub(super) fn found(&self, connection: Uuid, history_indexed: bool) -> impl Iterator<Item = (Uuid, &Mention)> {
        self.mentions_of(connection).filter(move |(id, _)| !history_indexed || self.indexed.contains(id))
    }

    /// The state left by an engine without long histories: a connection and all of its mentions indexed, or some
    /// mentions of a connection that is not.
    pub(super) fn index_as_of_old(&mut self, whole: bool) {
        let Some((connection, ..)) = self.connections.values().next().cloned() else { return };
        let mentions: Vec<Uuid> = self.mentions_of(connection).map(|(id, _)| id).collect();
        if whole {
            self.indexed.insert(connection);
        }
        self.indexed.extend(mentions.iter().step_by(if whole { 1 } else { 2 }));
    }

    /// One transaction of one unit, with no other writer.
    pub(crate) fn write_alone(&mut self, unit: crate::unit::SharedUnit) -> Vec<Committed> {
        let (committed, _) = self.write(&Epoch::from_units(vec![unit]), no_race).unwrap();
        committed
    }

    /// One transaction. `race` has the commits of others after its lookups.
    pub(super) fn write(
        &mut self,
        epoch: &Epoch,
        race: impl FnOnce(&mut Self),
    ) -> Result<(Vec<Committed>, Self), Rejected> {
        self.write_with(epoch, race, &Remembers::default())
    }

    /// The same, by an engine that remembers names, and may expect repeats.
    pub(super) fn write_with(
        &mut self,
        epoch: &Epoch,
        race: impl FnOnce(&mut Self),
        remembers: &Remembers,
    ) -> Result<(Vec<Committed>, Self), Rejected> {
        let Remembers { known, novelty, expects_repeats } = remembers.clone();
        let memory = Memory { known, novelty, expects_repeats, ..Memory::new(std::mem::take(self), race) };
        let written = memory.write(epoch);
        let Memory { tables, before, .. } = memory;
        *self = tables.into_inner();
        let (written, before) = (written?, before.into_inner());
        self.check_dispositions(&before, &written);
        if let Some(known) = &remembers.known {
            known.remember(&written.learned);
        }
        Ok((epoch.committed(&written.rows).map(Committed::from).collect(), before))
    }

    /// Deletes an entity, and the rows that name it.
    pub(super) fn delete(&mut self, entity_type: EntityType, name: &str) {
        let Some((gone, _)) = self.entities.remove(&EntityKey::new(entity_type, name)) else { return };
        self.generation += 1;
        self.connections.retain(|key, _| {
            key.restaurant != gone && key.dish != gone && key.dish_attributes.iter().all(|own| *own != gone)
        });
        for (_, facts, _) in self.connections.values_mut() {
            facts.categories.remove(&gone);
        }
        for (_, facts) in self.entities.values_mut() {
            facts.restaurant_attributes.remove(&gone);
        }
        let connections: HashSet<Uuid> = self.connections.values().map(|row| row.0).collect();
        self.mentions.retain(|key, _| connections.contains(&key.0));
    }

    /// Removes all facts about an entity.
    pub(super) fn take_back(&mut self, entity_type: EntityType, name: &str) {
        if let Some((_, facts)) = self.entities.get_mut(&EntityKey::new(entity_type, name)) {
            *facts = EntityFacts { place: facts.place.take(), ..EntityFacts::default() };
            self.generation += 1;
        }
    }

    /// Swaps the names of two entities, or renames one to the name of another that does not exist.
    pub(super) fn swap(&mut self, entity_type: EntityType, names: [&str; 2]) {
        let keys = names.map(|name| EntityKey::new(entity_type, name));
        let rows = keys.each_ref().map(|key| self.entities.remove(key));
        self.generation += u64::from(rows.iter().any(Option::is_some));
        for (mut row, key) in rows.into_iter().zip(keys.into_iter().rev()) {
            // An id that a restaurant with the other name has would be refused to one that states it again; no law is
            // about that.
            if let Some(place) = row.as_mut().and_then(|row| row.1.place.as_mut()) {
                Arc::make_mut(place).google_place_id = None;
            }
            self.entities.extend(row.map(|row| (key, row)));
        }
    }

    /// Checks the number of rows of each kind that the epoch inserted, updated and left, determined from the tables.
    pub(super) fn check_dispositions(&self, before: &Self, written: &Written) {
        fn changed<K: Ord, V: PartialEq>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> (usize, usize) {
            let updated =
                after.iter().filter(|(key, row)| before.get(key).is_some_and(|before| before != *row)).count();
            (after.len() - before.len(), updated)
        }
        let told = |table: Table| {
            let of = |disposition| written.dispositions.iter().filter(|own| **own == (table, disposition)).count();
            (of(Disposition::Inserted), of(Disposition::Updated))
        };
        assert_eq!(told(Table::Entities), changed(&before.entities, &self.entities));
        assert_eq!(told(Table::Connections), changed(&before.connections, &self.connections));
        assert_eq!(told(Table::Mentions), changed(&before.mentions, &self.mentions));
    }

    /// The tables with names in place of ids.
    pub(crate) fn natural(&self) -> Vec<String> {
        let names: HashMap<Uuid, &EntityKey> = self.entities.iter().map(|(key, row)| (row.0, key)).collect();
        let all = |ids: &crate::record::SortedSet<Uuid>| {
            let mut sorted: Vec<_> = ids.iter().map(|id| &*names[id].name).collect();
            sorted.sort_unstable();
            format!("{sorted:?}")
        };
        let mut lines = Vec::new();
        for (key, (_, facts)) in &self.entities {
            let attributes = all(&facts.restaurant_attributes);
            lines.push(format!("{key:?}: {:?} {attributes} {:?}", facts.aliases, facts.place));
        }
        for (key, (id, facts, metrics)) in &self.connections {
            let name =
                format!("{} {} {}", names[&key.restaurant].name, names[&key.dish].name, all(&key.dish_attributes));
            let ConnectionMetrics { top_mentions, .. } = metrics;
            let tops: Vec<_> = top_mentions.iter().map(|top| (top.upvotes, top.created_at, top.score)).collect();
            let figures = ConnectionMetrics { top_mentions: Vec::new(), ..metrics.clone() };
            lines.push(format!("{name}: {} {} {figures:?} {tops:?}", all(&facts.categories), facts.is_menu_item));
            lines.extend(self.mentions_of(*id).map(|(_, mention)| format!("{name}: {mention:?}")));
        }
        lines.sort();
        lines
    }

    pub(crate) fn check_figures(&self) {
        for (id, _, metrics) in self.connections.values() {
            let whole = stored_form(&ConnectionMetrics::from_mentions(self.mentions_of(*id), as_of()));
            assert_eq!(*metrics, whole);
            let indexed = self.indexed.contains(id);
            let all = self.mentions_of(*id).all(|(mention, _)| self.indexed.contains(&mention));
            assert!(all || !indexed, "a long history is indexed whole");
            assert!(indexed || !is_long(metrics.mention_count as usize), "a long history is indexed");
        }
        let connections: HashSet<Uuid> = self.connections.values().map(|row| row.0).collect();
        assert!(self.mentions.keys().all(|key| connections.contains(&key.0)), "every mention has its connection");
    }
}
