//! A resolver with an engine, beside other asynchronous work.
//!
//! Comments arrive on a channel. The resolver decides what they are about, submits a unit for each and continues; when
//! a receipt resolves it learns the ids of new entities, and from then on names those by id. Another task does its own
//! work meanwhile. At the end the program checks its own count against the database.
//!
//! `cargo run --release --example resolver_process`, on an embedded server, or on `DATABASE_URL` in its own schema that
//! is dropped at the end.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use graphsink::server::EmbeddedServer;
use graphsink::{
    Config, Engine, EntityRef, EntityType, Mention, Migrations, Outcome, SourceType, Timestamp, UnitOfWork,
};
use tokio::sync::mpsc;
use tokio::time;
use tokio_postgres::NoTls;
use uuid::Uuid;

type AnyError = Box<dyn Error + Send + Sync>;

const COMMENTS: usize = 600;

/// Spellings and their meanings: a real resolver has a model for this part.
const SPELLINGS: [(&str, &str); 7] = [
    ("Franklin's", "franklin bbq"),
    ("Franklin Barbecue", "franklin bbq"),
    ("FRANKLIN BBQ", "franklin bbq"),
    ("Ramen Tatsu-Ya", "ramen tatsuya"),
    ("tatsuya", "ramen tatsuya"),
    ("Veracruz", "veracruz all natural"),
    ("Veracruz All Natural", "veracruz all natural"),
];
const DISHES: [&str; 5] = ["brisket", "ramen", "migas taco", "pulled pork", "banana pudding"];

/// A comment as it arrives.
struct Comment {
    id: String,
    restaurant: &'static str,
    dish: &'static str,
    upvotes: i32,
    written: Timestamp,
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let (url, server) = match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => (url, None),
        _ => {
            let server = EmbeddedServer::temporary().await?;
            (server.url("postgres"), Some(server))
        }
    };
    let schema = format!("graphsink_resolver_{}", std::process::id());
    let config = Config::builder(&url).schema(&schema).build()?;
    Migrations::all().run(&config).await?;
    let engine = Engine::start(config).await?;

    let (comments, incoming) = mpsc::channel(64);
    let listener = tokio::spawn(listen(comments));
    let dashboard = tokio::spawn(dashboard(engine.clone()));
    let mut resolver = Resolver { engine: engine.clone(), ids: HashMap::new(), expected: BTreeMap::new(), by_id: 0 };
    resolver.run(incoming).await?;
    listener.await?;
    dashboard.abort();
    engine.shutdown(Duration::from_secs(10)).await;

    println!("{COMMENTS} comments written; {} of {} names were given by id", resolver.by_id, 2 * COMMENTS);
    let checked = check(&url, &schema, &resolver.expected).await;
    if let Some(mut server) = server {
        server.stop().await?;
    }
    checked
}

/// Represents the source of comments: a queue, a socket, a crawler.
async fn listen(comments: mpsc::Sender<Comment>) {
    let start: Timestamp = "2025-05-01T12:00:00Z".parse().expect("a time");
    for number in 0..COMMENTS {
        let comment = Comment {
            id: format!("t1_{number}"),
            restaurant: SPELLINGS[number * 5 % SPELLINGS.len()].0,
            dish: DISHES[number * 7 / 3 % DISHES.len()],
            upvotes: (number * 37 % 101) as i32 - 10,
            written: start + Duration::from_secs(60 * number as u64),
        };
        if comments.send(comment).await.is_err() {
            return;
        }
        if number % 20 == 0 {
            time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Represents the rest of the process, which the engine must not delay.
async fn dashboard(engine: Engine) {
    let mut period = time::interval(Duration::from_millis(50));
    loop {
        period.tick().await;
        let stats = engine.stats();
        println!("dashboard: {:>4} committed, {:>3} rows in flight", stats.units_committed, stats.rows_in_flight);
    }
}

struct Resolver {
    engine: Engine,
    /// Entities whose ids are known from a receipt.
    ids: HashMap<(EntityType, &'static str), Uuid>,
    /// The expected content of the database at the end: mentions and upvotes of each connection.
    expected: BTreeMap<(&'static str, &'static str), (i32, i64)>,
    by_id: usize,
}

impl Resolver {
    async fn run(&mut self, mut incoming: mpsc::Receiver<Comment>) -> Result<(), AnyError> {
        let mut receipts = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some((names, outcome)) = receipts.next() => self.learn(names, outcome)?,
                Some(comment) = incoming.recv() => {
                    let names = self.resolve(&comment);
                    // Waits while the engine is full, so the channel fills and the listener waits too.
                    let receipt = self.engine.submit(self.unit(&comment, names)).await?;
                    receipts.push(async move { (names, receipt.await) });
                }
                else => return Ok(()),
            }
        }
    }

    /// Decides what a comment is about.
    fn resolve(&mut self, comment: &Comment) -> (&'static str, &'static str) {
        let meant = SPELLINGS.iter().find(|(spelling, _)| *spelling == comment.restaurant);
        let names = (meant.map_or(comment.restaurant, |(_, name)| name), comment.dish);
        let (mentions, upvotes) = self.expected.entry(names).or_default();
        *mentions += 1;
        *upvotes += i64::from(comment.upvotes);
        self.by_id += usize::from(self.ids.contains_key(&(EntityType::Restaurant, names.0)));
        self.by_id += usize::from(self.ids.contains_key(&(EntityType::DishOrCategory, names.1)));
        names
    }

    fn unit(&self, comment: &Comment, (restaurant, dish): (&'static str, &'static str)) -> UnitOfWork {
        let mut unit = UnitOfWork::new();
        let known = match self.ids.get(&(EntityType::Restaurant, restaurant)) {
            Some(id) => unit.existing_entity(*id),
            None => unit.restaurant(restaurant).temp_id("restaurant"),
        };
        let restaurant = known.alias(comment.restaurant).handle();
        let dish: EntityRef = match self.ids.get(&(EntityType::DishOrCategory, dish)) {
            Some(id) => (*id).into(),
            None => unit.dish(dish).temp_id("dish").handle().into(),
        };
        let connection = unit.connection(restaurant, dish).handle();
        let link = format!("https://forum.example/{}", comment.id);
        let mention = Mention::new(SourceType::Comment, comment.id.as_str(), link, "austinfood", comment.written);
        unit.mention(connection, mention.upvotes(comment.upvotes));
        unit
    }

    /// Learns the ids of entities that were named by name.
    fn learn(&mut self, (restaurant, dish): (&'static str, &'static str), outcome: Outcome) -> Result<(), AnyError> {
        let committed = outcome.into_result()?;
        let ids = committed.temp_ids();
        let named = [("restaurant", EntityType::Restaurant, restaurant), ("dish", EntityType::DishOrCategory, dish)];
        for (label, entity_type, name) in named {
            if let Some(id) = ids.get(label) {
                self.ids.insert((entity_type, name), *id);
            }
        }
        Ok(())
    }
}

/// Compares the database with the resolver's count, shows it, and drops the schema.
async fn check(
    url: &str,
    schema: &str,
    expected: &BTreeMap<(&'static str, &'static str), (i32, i64)>,
) -> Result<(), AnyError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(&format!("set search_path to {schema}")).await?;
    let rows = client
        .query(
            "select r.name, d.name, c.mention_count, c.total_upvotes, c.activity_level::text, r.aliases
             from connections c
             join entities r on r.entity_id = c.restaurant_id
             join entities d on d.entity_id = c.dish_or_category_id
             order by c.total_upvotes desc",
            &[],
        )
        .await?;
    let mut found = BTreeMap::new();
    let mut aliases = BTreeMap::new();
    for row in &rows {
        let (restaurant, dish): (&str, &str) = (row.get(0), row.get(1));
        let (mentions, upvotes): (i32, i64) = (row.get(2), row.get(3));
        let activity: &str = row.get(4);
        println!("{restaurant:<22} {dish:<16} {mentions:>4} mentions {upvotes:>6} upvotes  {activity}");
        found.insert((restaurant, dish), (mentions, upvotes));
        aliases.insert(restaurant, row.get::<_, Vec<&str>>(5));
    }
    for (restaurant, aliases) in aliases {
        println!("{restaurant} is also called {}", aliases.join(", "));
    }
    client.batch_execute(&format!("drop schema {schema} cascade")).await?;
    if found != *expected {
        return Err(format!("the database has {found:?}, the resolver counted {expected:?}").into());
    }
    println!("the database agrees with the resolver's counts");
    Ok(())
}
