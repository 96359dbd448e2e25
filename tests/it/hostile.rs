//! What the engine accepts, PostgreSQL takes: units of hostile content (`tests/shared/spec.rs`),
//! many at once, on a real server.
//!
//! An accepted unit is committed, or it is rejected for what only the database knows and for that
//! alone: an id of nothing, an id of the wrong type, a Google id that another restaurant holds.
//! Which of them must be rejected is worked out beforehand. The database is then what the model
//! makes of the committed units, to the last character, so that the rejected ones left no trace.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use graphsink::{Outcome, RejectReason, Rejection, SourceType, SubmitError};
use proptest::strategy::{Strategy, ValueTree};

use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{runner, seed};
use crate::model::{
    self, ConnectionKey, ConnectionSpec, EntityKey, EntitySpec, Graph, Ids, MentionSpec, PlaceSpec, Record, Time,
    TopRow,
};
use crate::rules::{as_stored, broken};
use crate::spec::{self, ConnectionId, ConnectionName, EntityId, Name, Odds, On, Ref, UnitSpec, World};
use crate::support::{Database, as_of, commit, within};

/// Units that are under way together.
const AT_ONCE: usize = 40;

fn known_key(known: usize) -> EntityKey {
    model::key(World::type_of(known), &World::name_of(known))
}

/// The rows that exist before: see [`World`].
fn first_records() -> Vec<Record> {
    let mut records: Vec<Record> = (0..World::ENTITIES)
        .map(|known| {
            let (aliases, attributes) = (Vec::new(), Vec::new());
            Record::Entity(EntitySpec { key: known_key(known), by_id: false, aliases, attributes, place: None })
        })
        .collect();
    records.push(Record::Connection(said_of(known_connection())));
    records
}

fn known_connection() -> ConnectionKey {
    ConnectionKey { restaurant: World::name_of(0), dish: World::name_of(2), dish_attributes: BTreeSet::new() }
}

fn said_of(key: ConnectionKey) -> ConnectionSpec {
    ConnectionSpec { key, by_id: false, ends_by_id: false, categories: Vec::new(), is_menu_item: false }
}

fn key_of(unit: &UnitSpec, reference: Ref) -> EntityKey {
    let name = match reference {
        Ref::Row(row) => unit.entities[row].name.clone(),
        Ref::Id(id) => Name::Id(id),
        Ref::Foreign => unreachable!("refused"),
    };
    match name {
        Name::Key(entity_type, name) => model::key(entity_type, &name),
        Name::Id(EntityId::Known(known)) => known_key(known),
        Name::Id(_) => unreachable!("rejected"),
    }
}

/// What a committed unit says, for the model.
fn records(unit: &UnitSpec) -> Vec<Record> {
    let name_of = |reference: &Ref| key_of(unit, *reference).name;
    let mut records = Vec::new();
    for (used, _) in unit.uses() {
        let (aliases, attributes) = (Vec::new(), Vec::new());
        records.push(Record::Entity(EntitySpec {
            key: key_of(unit, used),
            by_id: false,
            aliases,
            attributes,
            place: None,
        }));
    }
    for (row, entity) in unit.entities.iter().enumerate() {
        let said = EntitySpec {
            key: key_of(unit, Ref::Row(row)),
            by_id: false,
            aliases: entity.aliases.clone(),
            attributes: entity.attributes.iter().map(name_of).collect(),
            place: None,
        };
        records.push(Record::Entity(said.clone()));
        for place in &entity.places {
            let place = PlaceSpec {
                location: place
                    .latitude
                    .zip(place.longitude)
                    .map(|(latitude, longitude)| (latitude.stored, longitude.stored)),
                address: place.address.clone(),
                google_place_id: place.google_place_id.clone(),
                metadata: place.metadata.clone(),
                observed_at: as_stored(place.observed_at),
            };
            records.push(Record::Entity(EntitySpec { place: Some(place), ..said.clone() }));
        }
    }
    let mut keys = Vec::new();
    for connection in &unit.connections {
        let key = match connection.name {
            ConnectionName::Key { restaurant, dish } => ConnectionKey {
                restaurant: name_of(&restaurant),
                dish: name_of(&dish),
                dish_attributes: connection.dish_attributes.iter().map(name_of).collect(),
            },
            ConnectionName::Id(_) => known_connection(),
        };
        let default = matches!(connection.name, ConnectionName::Key { .. });
        records.push(Record::Connection(ConnectionSpec {
            categories: connection.categories.iter().map(name_of).collect(),
            is_menu_item: connection.menu_item.unwrap_or(default),
            ..said_of(key.clone())
        }));
        keys.push(key);
    }
    for spec in &unit.mentions {
        let connection = match spec.on {
            On::Row(row) => keys[row].clone(),
            On::Id(_) => known_connection(),
            On::Foreign => unreachable!("refused"),
        };
        let mention = &spec.mention;
        records.push(Record::Mention(MentionSpec {
            connection,
            connection_by_id: false,
            source_type: mention.source_type,
            source_id: mention.source_id.to_string(),
            thread_id: mention.thread_id.to_string(),
            source_url: mention.source_url.clone(),
            subreddit: mention.subreddit.clone(),
            content_excerpt: mention.content_excerpt.clone(),
            author: mention.author.clone(),
            upvotes: mention.upvotes,
            created_at: as_stored(mention.created_at),
            observed_at: as_stored(mention.observed_at),
        }));
    }
    records
}

// ---- what must become of a unit ----------------------------------------------------------------

/// Whether the unit names something that does not exist.
fn is_missing(unit: &UnitSpec) -> bool {
    let nothing = |used: &(Ref, _)| matches!(unit.id_of(used.0), Some(EntityId::Missing(_) | EntityId::OfConnection));
    unit.uses().iter().any(nothing) || unit.connection_ids().any(|id| id != ConnectionId::Known)
}

/// Whether the unit uses an entity that exists where another type belongs.
fn is_of_wrong_type(unit: &UnitSpec) -> bool {
    unit.uses().iter().any(|(used, expected)| match (unit.id_of(*used), expected) {
        (Some(EntityId::Known(known)), Some(expected)) => World::type_of(known) != *expected,
        _ => false,
    })
}

/// The Google ids that a unit gives to restaurants.
fn google_ids(unit: &UnitSpec) -> impl Iterator<Item = (&str, EntityKey)> {
    unit.entities.iter().enumerate().flat_map(|(row, entity)| {
        let ids = entity.places.iter().filter_map(|place| place.google_place_id.as_deref());
        let restaurant = match entity.name {
            Name::Id(EntityId::Missing(_) | EntityId::OfConnection) => None,
            _ => Some(key_of(unit, Ref::Row(row))),
        };
        ids.filter_map(move |id| Some((id, restaurant.clone()?)))
    })
}

struct Claims(BTreeMap<String, BTreeSet<EntityKey>>);

impl Claims {
    fn of<'a>(units: impl IntoIterator<Item = &'a UnitSpec>) -> Self {
        let mut claims: BTreeMap<String, BTreeSet<EntityKey>> = BTreeMap::new();
        for unit in units {
            for (id, restaurant) in google_ids(unit) {
                claims.entry(id.to_owned()).or_default().insert(restaurant);
            }
        }
        Self(claims)
    }

    /// Whether another restaurant may hold an id that the unit gives away.
    fn may_meet(&self, unit: &UnitSpec) -> bool {
        google_ids(unit).any(|(id, _)| self.0[id].len() > 1)
    }
}

/// Fails unless the outcome is one that this unit may have. Says whether it was committed.
fn judge(unit: &UnitSpec, claims: &Claims, outcome: &Outcome) -> bool {
    let (missing, wrong_type) = (is_missing(unit), is_of_wrong_type(unit));
    match outcome {
        Outcome::Committed(committed) => {
            assert!(!missing && !wrong_type, "committed, though it names what is not there: {unit:#?}");
            let rows = committed.entities.len() + committed.connections.len() + committed.mentions.len();
            assert_eq!(rows, crate::rules::rows(unit), "every row has an id");
            true
        }
        Outcome::Rejected(Rejection { reason, sqlstate, constraint, row, .. }) => {
            let rightly = match reason {
                RejectReason::MissingRow { .. } => missing && sqlstate == "23503" && row.is_some(),
                RejectReason::WrongEntityType { .. } => wrong_type && sqlstate == "23514" && row.is_some(),
                RejectReason::Database => {
                    let google = constraint.as_deref() == Some("entities_google_place_id_key");
                    sqlstate == "23505" && google && claims.may_meet(unit)
                }
                _ => false,
            };
            assert!(rightly, "rejected: {outcome:?}\nmissing {missing}, wrong type {wrong_type}: {unit:#?}");
            false
        }
        Outcome::Unavailable(unavailable) => panic!("{unavailable}: {unit:#?}"),
    }
}

// ---- best mentions of any time -----------------------------------------------------------------

/// The model's scores are doubles, which end within a century or so of `as_of`. Where mentions lie
/// beyond, the best are found by logarithms.
fn rank_by_logarithm(graph: &mut Graph, as_of: Time) {
    let century = TimeDelta::days(100 * 365);
    let mut of_connection: BTreeMap<&ConnectionKey, Vec<TopRow>> = BTreeMap::new();
    for (key, row) in &graph.mentions {
        of_connection.entry(&key.connection).or_default().push(TopRow {
            source_type: key.source_type,
            source_id: key.source_id.clone(),
            score: score(row.upvotes, row.created_at, as_of),
            upvotes: row.upvotes,
            content_excerpt: row.content_excerpt.clone(),
            source_url: row.source_url.clone(),
            created_at: row.created_at,
        });
    }
    for (key, mut tops) in of_connection {
        if tops.iter().all(|top| (top.created_at - as_of).abs() < century) {
            continue;
        }
        tops.sort_by(better);
        tops.truncate(5);
        let recent = |time: Time| time <= as_of && time >= as_of - TimeDelta::days(30);
        let metrics = &mut graph.connections.get_mut(key).unwrap().metrics;
        let active = metrics.last_mentioned_at.is_some_and(|last| last <= as_of && last >= as_of - TimeDelta::days(7));
        let trending = tops.len() >= 3 && tops.iter().all(|top| recent(top.created_at));
        let level = if trending {
            "trending"
        } else if active {
            "active"
        } else {
            "normal"
        };
        level.clone_into(&mut metrics.activity_level);
        metrics.top_mentions = tops;
    }
}

/// As the contract has it, ended where doubles end.
fn score(upvotes: i32, created_at: Time, as_of: Time) -> f64 {
    if upvotes == 0 {
        return 0.0;
    }
    let days = (as_of.timestamp_micros() - created_at.timestamp_micros()) as f64 / 86_400e6;
    (f64::from(upvotes) * (-days / 60.0).exp()).clamp(f64::MIN, f64::MAX)
}

fn better(left: &TopRow, right: &TopRow) -> Ordering {
    let sign = right.upvotes.signum().cmp(&left.upvotes.signum());
    // ln(left / right) of the scores: of the votes, and of the time between them.
    let votes = f64::from(left.upvotes.unsigned_abs()).ln() - f64::from(right.upvotes.unsigned_abs()).ln();
    let micros = left.created_at.timestamp_micros() - right.created_at.timestamp_micros();
    let logarithm = votes + micros as f64 / 86_400e6 / 60.0;
    let by_score = match left.upvotes.signum() {
        1 => logarithm.total_cmp(&0.0).reverse(),
        0 => Ordering::Equal,
        _ => logarithm.total_cmp(&0.0),
    };
    let kind = |top: &TopRow| u8::from(top.source_type == SourceType::Comment);
    sign.then(by_score)
        .then_with(|| right.created_at.cmp(&left.created_at))
        .then_with(|| left.source_id.cmp(&right.source_id))
        .then_with(|| kind(left).cmp(&kind(right)))
}

// ---- the law -----------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accepted_is_committed_as_given_or_rejected_for_what_only_the_database_knows() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let engine = database.engine().await;

    let first = first_records();
    let written = commit(&engine, model::unit(&first, &Ids::default())).await;
    let entities = written.entities.iter().map(|row| row.id).take(World::ENTITIES).collect();
    let world = World { entities, connection: written.connections[0].id };

    let seed = seed("hostile units");
    let mut runner = runner(seed, 300);
    let cases = runner.config().cases as usize;
    let mut draw = |odds: Odds, count: usize| -> Vec<UnitSpec> {
        let strategy = spec::unit(odds);
        (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
    };
    let near = Odds { invalid: 3, misleading: 15, all_times: false, as_of: as_of() };
    let near_units = draw(near, cases);
    // Times of any age: here the model's scores and those of SQL end, so these come last.
    let far_units = draw(Odds { all_times: true, ..near }, cases / 3 + 1);
    let claims = Claims::of(near_units.iter().chain(&far_units));

    let mut records_committed = first;
    let (mut committed, mut rejected, mut refused) = (0, 0, 0);
    for (units, far) in [(near_units, false), (far_units, true)] {
        for together in units.chunks(AT_ONCE) {
            let mut receipts = Vec::new();
            for unit in together {
                let rules = broken(unit, 10_000);
                match engine.submit(unit.build(&world)).await {
                    Ok(receipt) => {
                        assert!(rules.is_empty(), "accepted, though it breaks {rules:?}: {unit:#?}");
                        receipts.push((unit, receipt));
                    }
                    Err(SubmitError::Invalid(_)) => {
                        assert!(!rules.is_empty(), "refused, though it breaks no rule: {unit:#?}");
                        refused += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            for (unit, receipt) in receipts {
                if judge(unit, &claims, &within(receipt).await) {
                    records_committed.extend(records(unit));
                    committed += 1;
                } else {
                    rejected += 1;
                }
            }
        }
        let mut expected = model::graph(&records_committed, as_of());
        if far {
            rank_by_logarithm(&mut expected, as_of());
        }
        assert_same(&expected, &database::read(&client).await);
        if !far {
            assert_group_by(&client, as_of()).await;
        }
    }
    println!("{committed} committed, {rejected} rejected, {refused} refused");
    if cases >= 100 {
        assert!(committed > cases / 3 && rejected > 3 && refused > 3, "{:?}", (committed, rejected, refused));
    }
    let stats = engine.stats();
    assert_eq!((stats.rows_in_flight, stats.bytes_in_flight, stats.units_unavailable), (0, 0, 0));
    let _ = within(engine.shutdown(std::time::Duration::from_secs(20))).await;
    database.assert_no_deadlocks().await;
}
