//! Each column of each table gets its own value, whichever way a row takes, and is read as what it was.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::*;
use crate::batch::{ConnectionWrite, EntityWrite, MentionRow};
use crate::config::Config;
use crate::record::{
    ActivityLevel, ConnectionFacts, ConnectionKey, ConnectionMetrics, Coordinate, EntityFacts, EntityKey, EntityType,
    Mention, Place, SourceType,
};
use crate::server::EmbeddedServer;
use crate::store::{Migrations, statement};
use crate::unit::{SharedUnit, UnitOfWork};

/// A server, and a session in its only database, which has the tables.
async fn tables() -> (EmbeddedServer, Client) {
    let server = EmbeddedServer::temporary().await.unwrap();
    let config = Config::builder(server.url("postgres")).build().unwrap();
    Migrations::all().run(&config).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&server.url("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    // Rows are written by themselves here.
    client.batch_execute("set session_replication_role = replica; set timezone = 'utc'").await.unwrap();
    (server, client)
}

/// The row of an id, without what the engine leaves to the server.
async fn stored(client: &Client, table: &str, id: &str) -> Json {
    let sql = format!("select to_jsonb(t) from {table} t where to_jsonb(t)->>'{}' = $1", id_column(table));
    let mut row: Json = client.query_one(&sql, &[&id]).await.unwrap().get(0);
    for own in ["last_updated", "created_at", "processed_at", "general_praise_upvotes"] {
        if table != "mentions" || own != "created_at" {
            row.as_object_mut().unwrap().remove(own);
        }
    }
    row
}

fn id_column(table: &str) -> &'static str {
    match table {
        "entities" => Entities::COLUMNS[0].name,
        "connections" => Connections::COLUMNS[0].name,
        _ => Mentions::COLUMNS[0].name,
    }
}

async fn unnest<'a, T: Table>(
    client: &Client,
    statement: &statement::Statement,
    purpose: Purpose,
    rows: &'a [T::Row<'a>],
) {
    let prepared = client.prepare_typed(&statement.text("public"), &statement.parameters).await.unwrap();
    let arrays = Arrays::new::<T>(purpose, rows);
    client.query(&prepared, &arrays.parameters()).await.unwrap();
}

struct Rows<'a, T: Table>(std::slice::Iter<'a, T::Row<'a>>);

impl<T: Table> NextRow<T> for Rows<'_, T> {
    fn encode_next(&mut self, encoder: &mut CopyPieces<T>) -> ControlFlow<(), Option<bytes::Bytes>> {
        self.0.next().map_or(ControlFlow::Break(()), |row| ControlFlow::Continue(encoder.push(row)))
    }
}

async fn copied<'a, T: Table>(client: &Client, rows: &'a [T::Row<'a>]) {
    let sink = client.copy_in(&copy::<T>(Purpose::Insert).replace("{schema}", "public")).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    for piece in copy_pieces::<T, _>(rows.len(), Rows(rows.iter())) {
        futures::SinkExt::feed(&mut sink, piece).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), rows.len() as u64);
}

/// As a bulk load does it: row by row, with all columns.
async fn copied_whole<'a, T: Table>(client: &Client, rows: &'a [T::Row<'a>]) {
    let sink = client.copy_in(&copy::<T>(Purpose::Whole).replace("{schema}", "public")).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    let mut pieces = CopyPieces::<T>::of_whole_rows();
    for row in rows {
        if let Some(piece) = pieces.push(row) {
            futures::SinkExt::feed(&mut sink, piece).await.unwrap();
        }
    }
    futures::SinkExt::feed(&mut sink, pieces.finish()).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), rows.len() as u64);
}

fn id(number: u8) -> Uuid {
    Uuid::from_bytes([number; 16])
}

fn text(id: Uuid) -> String {
    id.to_string()
}

fn mention() -> Mention {
    let mut mention =
        Mention::new(SourceType::Comment, "source", "url", "subreddit", "2024-01-02T03:04:05Z".parse().unwrap())
            .thread("thread")
            .excerpt("excerpt")
            .author("author")
            .upvotes(-17);
    mention.observed_at = "2024-02-03T04:05:06.789Z".parse().unwrap();
    mention
}

fn unit_of(mention: &Mention) -> SharedUnit {
    let mut unit = UnitOfWork::new();
    let connection = unit.existing_connection(id(9)).handle();
    unit.mention(connection, mention);
    unit.prepare().share()
}

fn mention_row(number: u8, unit: &SharedUnit) -> [MentionRow<'_>; 1] {
    let block = unit.get().block();
    let (texts, record) = (block.texts, &block.mentions[0]);
    [MentionRow { id: id(number), connection: id(9), texts, record, history_indexed: false }]
}

#[tokio::test]
async fn each_column_of_a_mention_is_stored_under_its_name_and_read_back() {
    let (_server, client) = tables().await;
    let mention = mention();
    let expected = |id: Uuid, mention: &Mention| {
        json!({
            "mention_id": text(id), "connection_id": text(self::id(9)), "source_type": mention.source_type.as_str(),
            "source_id": &*mention.source_id, "thread_id": &*mention.thread_id, "source_url": mention.source_url,
            "subreddit": mention.subreddit, "content_excerpt": mention.content_excerpt, "author": mention.author,
            "upvotes": mention.upvotes, "created_at": "2024-01-02T03:04:05+00:00",
            "observed_at": "2024-02-03T04:05:06.789+00:00", "history_indexed": false,
        })
    };
    unnest::<Mentions>(&client, &statement::INSERT_MENTIONS, Purpose::Insert, &mention_row(1, &unit_of(&mention)))
        .await;
    assert_eq!(stored(&client, "mentions", &text(id(1))).await, expected(id(1), &mention));
    client.execute("delete from mentions", &[]).await.unwrap();
    copied::<Mentions>(&client, &mention_row(2, &unit_of(&mention))).await;
    assert_eq!(stored(&client, "mentions", &text(id(2))).await, expected(id(2), &mention));

    let newer = Mention {
        thread_id: "thread 2".into(),
        source_url: "url 2".into(),
        subreddit: "subreddit 2".into(),
        content_excerpt: "excerpt 2".into(),
        author: None,
        upvotes: 18,
        ..mention.clone()
    };
    unnest::<Mentions>(&client, &statement::UPDATE_MENTIONS, Purpose::Update, &mention_row(2, &unit_of(&newer))).await;
    assert_eq!(stored(&client, "mentions", &text(id(2))).await, expected(id(2), &newer));
    let sql = format!("select {} from mentions m", select::<Mentions>("m", MENTION_OF_CONNECTION).join(", "));
    let read = read_mention(&mut Cells::new(&client.query_one(&sql, &[]).await.unwrap(), 0)).unwrap();
    assert_eq!((read.id, read.mention), (id(2), newer));
}

#[tokio::test]
async fn each_column_of_a_connection_is_stored_under_its_name_and_read_back() {
    let (_server, client) = tables().await;
    let key = |number| ConnectionKey {
        restaurant: id(number),
        dish: id(20),
        dish_attributes: [id(21), id(22)].into_iter().collect(),
    };
    let metrics = || ConnectionMetrics {
        mention_count: 31,
        total_upvotes: 32,
        source_diversity: 33,
        recent_mention_count: 34,
        last_mentioned_at: Some("2024-03-04T05:06:07Z".parse().unwrap()),
        activity_level: ActivityLevel::Trending,
        top_mentions: Vec::new(),
    };
    let facts = ConnectionFacts { categories: [id(23)].into_iter().collect(), is_menu_item: true };
    let expected = |number: u8| {
        json!({
            "connection_id": text(id(number)), "restaurant_id": text(id(number)), "dish_or_category_id": text(id(20)),
            "dish_attributes": [text(id(21)), text(id(22))], "categories": [text(id(23))], "is_menu_item": true,
            "mention_count": 31, "total_upvotes": 32, "source_diversity": 33, "recent_mention_count": 34,
            "last_mentioned_at": "2024-03-04T05:06:07+00:00", "activity_level": "trending", "top_mentions": [],
            "history_indexed": false,
        })
    };
    let without_own = |mut row: Json| {
        row.as_object_mut().unwrap().retain(|name, _| expected(1).get(name).is_some());
        row
    };
    let (first, second) = (key(1), key(2));
    let row = |number, key| [ConnectionWrite::of_merged(id(number), key, &facts, metrics(), false)];
    unnest::<Connections>(&client, &statement::INSERT_CONNECTIONS, Purpose::Insert, &row(1, &first)).await;
    assert_eq!(without_own(stored(&client, "connections", &text(id(1))).await), expected(1));
    copied::<Connections>(&client, &row(2, &second)).await;
    assert_eq!(without_own(stored(&client, "connections", &text(id(2))).await), expected(2));

    let facts = ConnectionFacts { categories: SortedSet::default(), is_menu_item: false };
    let metrics = ConnectionMetrics {
        mention_count: 41,
        total_upvotes: 42,
        source_diversity: 43,
        recent_mention_count: 44,
        last_mentioned_at: None,
        activity_level: ActivityLevel::Normal,
        top_mentions: Vec::new(),
    };
    let row = [ConnectionWrite::of_merged(id(2), &second, &facts, metrics.clone(), true)];
    unnest::<Connections>(&client, &statement::UPDATE_CONNECTIONS, Purpose::Update, &row).await;
    let sql = format!(
        "select {}, c.restaurant_id, c.dish_or_category_id, c.dish_attributes from connections c where connection_id = $1",
        select::<Connections>("c", CONNECTION_KEY).join(", ")
    );
    let row = client.query_one(&sql, &[&id(2)]).await.unwrap();
    let mut cells = Cells::new(&row, 0);
    let read = read_connection(&mut cells).unwrap();
    assert_eq!((read.id, read.facts, read.metrics, read.history_indexed), (id(2), facts, metrics, true));
    assert_eq!(read_connection_key(&mut cells).unwrap(), second);
}

#[allow(clippy::too_many_lines)]
#[tokio::test]
async fn each_column_of_an_entity_is_stored_under_its_name_and_read_back() {
    let (_server, client) = tables().await;
    let place = Place {
        location: Some((Coordinate::latitude(-12.345_678_91).unwrap(), Coordinate::longitude(123.000_000_07).unwrap())),
        address: Some("address".into()),
        google_place_id: Some("google".into()),
        metadata: Some(json!({"stars": 4})),
        observed_at: "2024-05-06T07:08:09Z".parse().unwrap(),
    };
    let facts = EntityFacts {
        aliases: ["an \"alias\"", "b,\\"].into_iter().map(Arc::from).collect(),
        restaurant_attributes: [id(51)].into_iter().collect(),
        place: Some(Arc::new(place)),
    };
    let expected = |number: u8, google: Option<&str>| {
        json!({
            "entity_id": text(id(number)), "type": "restaurant", "name": format!("name {number}"),
            "aliases": ["an \"alias\"", "b,\\"], "restaurant_attributes": [text(id(51))],
            "latitude": -12.345_678_91, "longitude": 123.000_000_07, "address": "address", "google_place_id": google,
            "restaurant_metadata": {"stars": 4}, "place_observed_at": "2024-05-06T07:08:09+00:00",
        })
    };
    let without_own = |mut row: Json| {
        row.as_object_mut().unwrap().retain(|name, _| expected(1, None).get(name).is_some());
        row
    };
    let row = |number: u8, facts: &EntityFacts<Uuid>| {
        let key = EntityKey { entity_type: EntityType::Restaurant, name: format!("name {number}").into() };
        [EntityWrite::of_stored(id(number), key, facts.clone())]
    };
    unnest::<Entities>(&client, &statement::INSERT_ENTITIES, Purpose::Insert, &row(1, &facts)).await;
    assert_eq!(without_own(stored(&client, "entities", &text(id(1))).await), expected(1, None));
    copied::<Entities>(&client, &row(2, &facts)).await;
    assert_eq!(without_own(stored(&client, "entities", &text(id(2))).await), expected(2, None));
    unnest::<Entities>(&client, &statement::UPDATE_ENTITIES, Purpose::Update, &row(2, &facts)).await;
    assert_eq!(without_own(stored(&client, "entities", &text(id(2))).await), expected(2, Some("google")));

    client.batch_execute("update entities set google_place_id = null").await.unwrap();
    copied_whole::<Entities>(&client, &row(5, &facts)).await;
    assert_eq!(without_own(stored(&client, "entities", &text(id(5))).await), expected(5, Some("google")));
    let many = (0..5_000_u32).map(|number| {
        let key = EntityKey { entity_type: EntityType::DishOrCategory, name: format!("dish {number}").into() };
        EntityWrite::of_stored(Uuid::from_u128(number.into()), key, EntityFacts::default())
    });
    copied_whole::<Entities>(&client, &many.collect::<Vec<_>>()).await;

    let read = async |number: u8| {
        let sql = format!(
            "select {}, e.type::text, e.name from entities e where entity_id = $1",
            select::<Entities>("e", NOT_FACTS).join(", ")
        );
        let row = client.query_one(&sql, &[&id(number)]).await.unwrap();
        let mut cells = Cells::new(&row, 0);
        (read_facts(&mut cells).unwrap(), read_entity_key(&mut cells).unwrap())
    };
    let key = |number: u8| EntityKey { entity_type: EntityType::Restaurant, name: format!("name {number}").into() };
    assert_eq!(read(5).await, (facts, key(5)));
    // Nothing at all is known of a third.
    let nothing = EntityFacts::default();
    for (number, by_copy) in [(3, false), (4, true)] {
        if by_copy {
            copied::<Entities>(&client, &row(number, &nothing)).await;
        } else {
            unnest::<Entities>(&client, &statement::INSERT_ENTITIES, Purpose::Insert, &row(number, &nothing)).await;
        }
        assert_eq!(read(number).await, (nothing.clone(), key(number)));
    }
}

#[tokio::test]
async fn best_mentions_and_degrees_of_every_size_are_read_back_unchanged() {
    let (_server, client) = tables().await;
    let (mention, facts) = (mention(), ConnectionFacts::default());
    let of = "2024-02-01T00:00:00Z".parse().unwrap();
    let key = ConnectionKey { restaurant: id(1), dish: id(2), dish_attributes: SortedSet::default() };
    let metrics = ConnectionMetrics::from_mentions([(id(7), &mention)], of);
    let written: ConnectionMetrics<'static> = ConnectionMetrics {
        top_mentions: serde_json::from_value(serde_json::to_value(&metrics.top_mentions).unwrap()).unwrap(),
        ..metrics
    };
    let row = [ConnectionWrite::of_merged(id(3), &key, &facts, metrics, false)];
    copied::<Connections>(&client, &row).await;
    let sql = format!("select {} from connections c", select::<Connections>("c", CONNECTION_KEY).join(", "));
    let read = read_connection(&mut Cells::new(&client.query_one(&sql, &[]).await.unwrap(), 0)).unwrap();
    assert_eq!((read.metrics.top_mentions.len(), read.metrics), (1, written));
    assert!(matches!(row[0].facts, Cow::Borrowed(_)));

    for (number, degrees) in (10_u8..).zip([0.0, 0.000_000_01, -0.000_1, 1.0, -90.0, 89.999_999_99, 45.000_1]) {
        let location = Some((Coordinate::latitude(degrees).unwrap(), Coordinate::longitude(-degrees).unwrap()));
        let observed_at = of;
        let place = Place { location, address: None, google_place_id: None, metadata: None, observed_at };
        let facts = EntityFacts { place: Some(Arc::new(place)), ..EntityFacts::default() };
        let key = EntityKey { entity_type: EntityType::Restaurant, name: number.to_string().into() };
        copied::<Entities>(&client, &[EntityWrite::of_stored(id(number), key, facts)]).await;
        let sql =
            "select latitude::text, longitude::text, latitude = $2::text::numeric from entities where entity_id = $1";
        let row = client.query_one(sql, &[&id(number), &format!("{degrees:.8}")]).await.unwrap();
        assert!(row.get::<_, bool>(2), "{degrees}: {:?}", row.get::<_, &str>(0));
    }
}
