//! Reads the whole logical database and compares it with the model, row by row.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;

use graphsink::EntityType;
use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::model::{
    ConnectionKey, ConnectionRow, EntityKey, EntityRow, Graph, Ids, MentionKey, MentionRow, Metrics, PlaceRow, Time,
    TopRow,
};

/// The maximum number of differences in a report.
const DIFFERENCES_SHOWN: usize = 30;
/// The relative error that a stored score may have.
const SCORE_TOLERANCE: f64 = 1e-9;

/// Makes several statements see one state of the database.
const SNAPSHOT: &str = "begin isolation level repeatable read read only";

/// The columns of `top_mentions`' objects, sorted.
const TOP_KEYS: [&str; 6] = ["content_excerpt", "created_at", "mention_id", "score", "source_url", "upvotes"];

/// The whole logical database. Panics at anything that natural keys cannot express, such as an array that is not sorted
/// by id, or an id that leads nowhere.
pub async fn read(client: &Client) -> Graph {
    client.batch_execute(SNAPSHOT).await.unwrap();
    let graph = read_snapshot(client).await;
    client.batch_execute("commit").await.unwrap();
    graph
}

#[allow(clippy::too_many_lines)]
async fn read_snapshot(client: &Client) -> Graph {
    let mut graph = Graph::default();
    let entities = entity_keys(client).await;
    let name = |id: &Uuid, entity_type: EntityType| -> String {
        let key = entities.get(id).unwrap_or_else(|| panic!("no entity has the id {id}"));
        assert_eq!(key.entity_type, entity_type, "{key:?} is at a place of another type");
        key.name.clone()
    };
    let names = |ids: Vec<Uuid>, entity_type: EntityType| -> BTreeSet<String> {
        assert!(ids.is_sorted_by(|left, right| left < right), "not sorted by id or not unique: {ids:?}");
        ids.iter().map(|id| name(id, entity_type)).collect()
    };

    let rows = client
        .query(
            "select entity_id, aliases, restaurant_attributes, latitude::text, longitude::text, address,
                    google_place_id, restaurant_metadata, place_observed_at, restaurant_quality_score::text
             from entities",
            &[],
        )
        .await
        .unwrap();
    for row in rows {
        let key = entities[&row.get::<_, Uuid>(0)].clone();
        let place = row.get::<_, Option<Time>>(8).map(|observed_at| PlaceRow {
            latitude: row.get(3),
            longitude: row.get(4),
            address: row.get(5),
            google_place_id: row.get(6),
            metadata: row.get(7),
            observed_at,
        });
        if place.is_none() {
            let empty = (3..=6).all(|column| row.get::<_, Option<String>>(column).is_none());
            assert!(empty && row.get::<_, Option<Value>>(7).is_none(), "{key:?} has a place that was not observed");
        }
        assert_eq!(row.get::<_, Option<String>>(9), None, "{key:?}: graphsink never writes quality scores");
        let restaurant_attributes = names(row.get(2), EntityType::RestaurantAttribute);
        graph.entities.insert(key, EntityRow { aliases: row.get(1), restaurant_attributes, place });
    }

    let connections = connection_keys(client, &entities).await;
    let mut mention_keys: HashMap<Uuid, MentionKey> = HashMap::new();
    let rows = client
        .query(
            "select mention_id, connection_id, source_type::text, source_id, thread_id, source_url, subreddit,
                    content_excerpt, author, upvotes, created_at, observed_at
             from mentions",
            &[],
        )
        .await
        .unwrap();
    for row in rows {
        let key = MentionKey {
            connection: connections[&row.get::<_, Uuid>(1)].clone(),
            source_type: row.get::<_, &str>(2).parse().unwrap(),
            source_id: row.get(3),
        };
        mention_keys.insert(row.get(0), key.clone());
        let mention = MentionRow {
            thread_id: row.get(4),
            source_url: row.get(5),
            subreddit: row.get(6),
            content_excerpt: row.get(7),
            author: row.get(8),
            upvotes: row.get(9),
            created_at: row.get(10),
            observed_at: row.get(11),
        };
        assert!(graph.mentions.insert(key.clone(), mention).is_none(), "two mentions are {key:?}");
    }

    let rows = client
        .query(
            "select connection_id, categories, is_menu_item, mention_count, total_upvotes, source_diversity,
                    recent_mention_count, last_mentioned_at, activity_level::text, top_mentions,
                    dish_quality_score::text
             from connections",
            &[],
        )
        .await
        .unwrap();
    for row in rows {
        let key = connections[&row.get::<_, Uuid>(0)].clone();
        assert_eq!(row.get::<_, Option<String>>(10), None, "{key:?}: graphsink never writes quality scores");
        let top_mentions = row.get::<_, Value>(9);
        let top_mentions =
            top_mentions.as_array().expect("an array").iter().map(|top| top_row(top, &key, &mention_keys));
        let metrics = Metrics {
            mention_count: row.get::<_, i32>(3).into(),
            total_upvotes: row.get(4),
            source_diversity: row.get::<_, i32>(5).into(),
            recent_mention_count: row.get::<_, i32>(6).into(),
            last_mentioned_at: row.get(7),
            activity_level: row.get(8),
            top_mentions: top_mentions.collect(),
        };
        let categories = names(row.get(1), EntityType::DishOrCategory);
        graph.connections.insert(key, ConnectionRow { categories, is_menu_item: row.get(2), metrics });
    }
    graph
}

/// The ids of everything that has one in the database.
pub async fn ids(client: &Client) -> Ids {
    client.batch_execute(SNAPSHOT).await.unwrap();
    let entities = entity_keys(client).await;
    let connections = connection_keys(client, &entities).await;
    client.batch_execute("commit").await.unwrap();
    Ids {
        entities: entities.into_iter().map(|(id, key)| (key, id)).collect(),
        connections: connections.into_iter().map(|(id, key)| (key, id)).collect(),
    }
}

async fn entity_keys(client: &Client) -> HashMap<Uuid, EntityKey> {
    let rows = client.query("select entity_id, type::text, name from entities", &[]).await.unwrap();
    let key =
        |row: &tokio_postgres::Row| EntityKey { entity_type: row.get::<_, &str>(1).parse().unwrap(), name: row.get(2) };
    rows.iter().map(|row| (row.get(0), key(row))).collect()
}

async fn connection_keys(client: &Client, entities: &HashMap<Uuid, EntityKey>) -> HashMap<Uuid, ConnectionKey> {
    let rows = client
        .query("select connection_id, restaurant_id, dish_or_category_id, dish_attributes from connections", &[])
        .await
        .unwrap();
    let name = |id: Uuid, expected: EntityType| {
        assert_eq!(entities[&id].entity_type, expected);
        entities[&id].name.clone()
    };
    let key = |row: &tokio_postgres::Row| ConnectionKey {
        restaurant: name(row.get(1), EntityType::Restaurant),
        dish: name(row.get(2), EntityType::DishOrCategory),
        dish_attributes: row.get::<_, Vec<Uuid>>(3).into_iter().map(|id| name(id, EntityType::DishAttribute)).collect(),
    };
    rows.iter().map(|row| (row.get(0), key(row))).collect()
}

fn top_row(top: &Value, connection: &ConnectionKey, mentions: &HashMap<Uuid, MentionKey>) -> TopRow {
    let mut keys: Vec<&str> = top.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, TOP_KEYS, "{connection:?}");
    let text = |key: &str| top[key].as_str().unwrap_or_else(|| panic!("{key} is not a text in {top}"));
    let mention = &mentions[&text("mention_id").parse::<Uuid>().unwrap()];
    assert_eq!(mention.connection, *connection, "a top mention of another connection");
    TopRow {
        source_type: mention.source_type,
        source_id: mention.source_id.clone(),
        score: top["score"].as_f64().expect("a number"),
        upvotes: top["upvotes"].as_i64().expect("an integer").try_into().unwrap(),
        content_excerpt: text("content_excerpt").to_owned(),
        source_url: text("source_url").to_owned(),
        created_at: text("created_at").parse().expect("an RFC 3339 time"),
    }
}

/// Panics with a readable list of differences.
#[track_caller]
pub fn assert_same(model: &Graph, database: &Graph) {
    let differences = differences(model, database);
    assert!(differences.is_empty(), "{}", report("the database differs from the model", &differences));
}

/// One line for each column that differs.
pub fn differences(model: &Graph, database: &Graph) -> Vec<String> {
    let mut lines = Vec::new();
    compare("entity", &model.entities, &database.entities, entity_fields, &mut lines);
    compare("connection", &model.connections, &database.connections, connection_fields, &mut lines);
    compare("mention", &model.mentions, &database.mentions, mention_fields, &mut lines);
    for (key, row) in &model.connections {
        let stored = database.connections.get(key).map_or(&[][..], |row| &row.metrics.top_mentions);
        for (top, stored) in row.metrics.top_mentions.iter().zip(stored) {
            if (top.score - stored.score).abs() > SCORE_TOLERANCE * top.score.abs() {
                let scores = (top.score, stored.score);
                lines.push(format!("connection {key:?}: score of {}: {scores:?} (model, database)", top.source_id));
            }
        }
    }
    lines
}

fn compare<K: Ord + Debug, R>(
    noun: &str,
    model: &BTreeMap<K, R>,
    database: &BTreeMap<K, R>,
    fields: impl Fn(&R) -> Vec<(&'static str, String)>,
    lines: &mut Vec<String>,
) {
    let keys: BTreeSet<&K> = model.keys().chain(database.keys()).collect();
    for key in keys {
        match (model.get(key), database.get(key)) {
            (Some(row), Some(stored)) => {
                for ((field, value), (_, stored)) in fields(row).into_iter().zip(fields(stored)) {
                    if value != stored {
                        lines.push(format!("{noun} {key:?}: {field}\n      model    {value}\n      database {stored}"));
                    }
                }
            }
            (Some(_), None) => lines.push(format!("{noun} {key:?}: missing in the database")),
            (None, Some(_)) => lines.push(format!("{noun} {key:?}: only in the database")),
            (None, None) => unreachable!("the key is from one of the two"),
        }
    }
}

fn show(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn entity_fields(row: &EntityRow) -> Vec<(&'static str, String)> {
    let EntityRow { aliases, restaurant_attributes, place } = row;
    let place = place.as_ref().map(|place| {
        let PlaceRow { latitude, longitude, address, google_place_id, metadata, observed_at } = place;
        (latitude, longitude, address, google_place_id, metadata, observed_at)
    });
    vec![("aliases", show(aliases)), ("restaurant_attributes", show(restaurant_attributes)), ("place", show(&place))]
}

fn connection_fields(row: &ConnectionRow) -> Vec<(&'static str, String)> {
    let ConnectionRow { categories, is_menu_item, metrics } = row;
    let top = |top: &TopRow| {
        let TopRow { source_type, source_id, score: _, upvotes, content_excerpt, source_url, created_at } = top;
        show(&(source_type, source_id, upvotes, content_excerpt, source_url, created_at))
    };
    vec![
        ("categories", show(categories)),
        ("is_menu_item", show(is_menu_item)),
        ("mention_count", show(&metrics.mention_count)),
        ("total_upvotes", show(&metrics.total_upvotes)),
        ("source_diversity", show(&metrics.source_diversity)),
        ("recent_mention_count", show(&metrics.recent_mention_count)),
        ("last_mentioned_at", show(&metrics.last_mentioned_at)),
        ("activity_level", show(&metrics.activity_level)),
        ("top_mentions", metrics.top_mentions.iter().map(top).collect::<Vec<_>>().join("\n               ")),
    ]
}

fn mention_fields(row: &MentionRow) -> Vec<(&'static str, String)> {
    let MentionRow { thread_id, source_url, subreddit, content_excerpt, author, upvotes, created_at, observed_at } =
        row;
    vec![
        ("thread_id", show(thread_id)),
        ("source_url", show(source_url)),
        ("subreddit", show(subreddit)),
        ("content_excerpt", show(content_excerpt)),
        ("author", show(author)),
        ("upvotes", show(upvotes)),
        ("created_at", show(created_at)),
        ("observed_at", show(observed_at)),
    ]
}

/// Every metric of every connection against a `GROUP BY` over the mention rows, in one statement
/// and therefore one snapshot.
const GROUP_BY: &str = r#"
with counted as (
    select connection_id,
           count(*)::int as mention_count,
           sum(upvotes)::bigint as total_upvotes,
           count(distinct thread_id)::int as source_diversity,
           (count(*) filter (where created_at between $1::timestamptz - interval '720 hours' and $1))::int as recent,
           max(created_at) as last_mentioned_at
    from mentions
    group by connection_id
),
scored as (
    select m.*, m.upvotes * exp(extract(epoch from m.created_at - $1::timestamptz)::float8 / 86400 / 60) as score
    from mentions m
),
ranked as (
    select scored.*,
           row_number() over (
               partition by connection_id
               order by score desc, created_at desc, source_id collate "C", source_type
           ) as place
    from scored
),
best as (
    select connection_id,
           count(*) as mentions,
           bool_and(created_at between $1::timestamptz - interval '720 hours' and $1) as all_recent,
           array_agg(mention_id::text order by place) as ids,
           array_agg(score order by place) as scores,
           array_agg(row(upvotes, content_excerpt, source_url, created_at)::text order by place) as facts
    from ranked
    where place <= 5
    group by connection_id
),
stored as (
    select c.connection_id,
           coalesce(array_agg(top ->> 'mention_id' order by place) filter (where top is not null), '{}') as ids,
           coalesce(array_agg((top ->> 'score')::float8 order by place) filter (where top is not null), '{}') as scores,
           coalesce(array_agg(row((top ->> 'upvotes')::int, top ->> 'content_excerpt', top ->> 'source_url',
                                  (top ->> 'created_at')::timestamptz)::text order by place)
                    filter (where top is not null), '{}') as facts,
           coalesce(bool_and((select array_agg(key order by key) from jsonb_object_keys(top) as key)
                    = array['content_excerpt', 'created_at', 'mention_id', 'score', 'source_url', 'upvotes'])
                    filter (where top is not null), true) as well_formed
    from connections c
    left join lateral jsonb_array_elements(c.top_mentions) with ordinality as element (top, place) on true
    group by c.connection_id
),
expected as (
    select c.*,
           coalesce(counted.mention_count, 0) as x_mention_count,
           coalesce(counted.total_upvotes, 0) as x_total_upvotes,
           coalesce(counted.source_diversity, 0) as x_source_diversity,
           coalesce(counted.recent, 0) as x_recent,
           counted.last_mentioned_at as x_last_mentioned_at,
           case when best.mentions >= 3 and best.all_recent then 'trending'
                when counted.last_mentioned_at between $1::timestamptz - interval '168 hours' and $1 then 'active'
                else 'normal' end as x_activity_level,
           coalesce(best.ids, '{}') as x_ids,
           coalesce(best.scores, '{}') as x_scores,
           coalesce(best.facts, '{}') as x_facts,
           stored.ids as s_ids, stored.scores as s_scores, stored.facts as s_facts, stored.well_formed
    from connections c
    join stored using (connection_id)
    left join counted using (connection_id)
    left join best using (connection_id)
),
differing as (
    select connection_id, concat_ws('; ',
        case when mention_count <> x_mention_count
             then format('mention_count %s, should be %s', mention_count, x_mention_count) end,
        case when total_upvotes <> x_total_upvotes
             then format('total_upvotes %s, should be %s', total_upvotes, x_total_upvotes) end,
        case when source_diversity <> x_source_diversity
             then format('source_diversity %s, should be %s', source_diversity, x_source_diversity) end,
        case when recent_mention_count <> x_recent
             then format('recent_mention_count %s, should be %s', recent_mention_count, x_recent) end,
        case when last_mentioned_at is distinct from x_last_mentioned_at
             then format('last_mentioned_at %s, should be %s', last_mentioned_at, x_last_mentioned_at) end,
        case when activity_level::text <> x_activity_level
             then format('activity_level %s, should be %s', activity_level, x_activity_level) end,
        case when s_ids <> x_ids then format('top_mentions %s, should be %s', s_ids, x_ids)
             when s_facts <> x_facts then format('top_mentions %s, should be %s', s_facts, x_facts)
             when exists (select from unnest(s_scores, x_scores) as score (stored, expected)
                          where abs(stored - expected) > 1e-9 * abs(expected))
             then format('scores %s, should be %s', s_scores, x_scores) end,
        case when history_indexed and exists (select from mentions m where m.connection_id = expected.connection_id
                                                                    and not m.history_indexed)
             then 'some of a long history is not indexed' end,
        case when not well_formed then format('top_mentions of other keys: %s', top_mentions) end) as difference
    from expected
)
select connection_id, difference from differing where difference <> '' order by connection_id
"#;

/// The connections whose metrics differ from a `GROUP BY` over their mentions.
pub async fn check_group_by(client: &Client, as_of: Time) -> Vec<String> {
    let rows = client.query(GROUP_BY, &[&as_of]).await.unwrap();
    rows.iter().map(|row| format!("connection {}: {}", row.get::<_, Uuid>(0), row.get::<_, &str>(1))).collect()
}

pub async fn assert_group_by(client: &Client, as_of: Time) {
    let differences = check_group_by(client, as_of).await;
    assert!(differences.is_empty(), "{}", report("metrics differ from GROUP BY", &differences));
}

pub fn report(title: &str, differences: &[String]) -> String {
    let shown: Vec<&str> = differences.iter().take(DIFFERENCES_SHOWN).map(String::as_str).collect();
    format!("{title} ({} differences):\n  - {}", differences.len(), shown.join("\n  - "))
}
