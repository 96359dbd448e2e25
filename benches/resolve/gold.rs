//! Two restaurant guides, with the list of entries that are the same place.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use graphsink::resolve::{Query, Resolver, ResolverSettings};
use graphsink::{Config, Engine, EntityType, Migrations, PlaceObservation, UnitOfWork};
use serde::Deserialize;
use uuid::Uuid;

use crate::{Result, curve};

#[derive(Deserialize)]
struct Listing {
    key: String,
    source: String,
    name: String,
    addr: String,
    city: String,
    #[serde(rename = "type")]
    cuisine: String,
}

/// Precision, recall and F1 at one threshold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quality {
    pub(crate) threshold: f64,
    pub(crate) precision: f64,
    pub(crate) recall: f64,
    pub(crate) f1: f64,
}

pub(crate) async fn run(url: &str, data: &Path, file: Option<&Path>) -> Result<()> {
    let listings = std::fs::read_to_string(data.join("er_fodors_zagat_entities.jsonl"))?;
    let listings: Vec<Listing> = listings.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let gold = std::fs::read_to_string(data.join("er_fodors_zagat_gold.csv"))?;
    let gold: HashSet<(&str, &str)> = gold.lines().skip(1).filter_map(|line| line.split_once(',')).collect();
    let config = Config::builder(url).schema("gold").build()?;
    Migrations::all().run(&config).await?;
    let engine = Engine::start(config).await?;
    let keys = store(&engine, &listings).await?;
    let settings = ResolverSettings::default().find_from(0.0).cache_entries(0);
    let resolver = Resolver::attach(&engine, settings).await?;
    let asked: Vec<&Listing> = listings.iter().filter(|listing| listing.source == "zagats").collect();
    println!("\n{} entities, {} names, {} of them the same place", keys.len(), asked.len(), gold.len());
    let mut curves = Vec::new();
    for (title, with_evidence) in [("names alone", false), ("with address and city", true)] {
        let query = |listing: &&Listing| {
            let query = Query::new(EntityType::Restaurant, listing.name.as_str());
            if with_evidence { query.address(listing.addr.as_str()).city(listing.city.as_str()) } else { query }
        };
        let queries: Vec<Query> = asked.iter().map(query).collect();
        let found = resolver.find(&queries).await?;
        let pairs: Vec<(f64, bool, &Listing, &str)> = asked
            .iter()
            .zip(&found)
            .filter_map(|(listing, found)| {
                let found = found.as_ref()?;
                let key = keys[&found.id];
                Some((found.confidence, gold.contains(&(key, listing.key.as_str())), *listing, key))
            })
            .collect();
        let quality = curve(&pairs, gold.len());
        println!("\n{title}\nthreshold  precision  recall     F1");
        for at in quality.iter().filter(|at| ((at.threshold * 100.0).round() as u32).is_multiple_of(5)) {
            println!("{:>9.2}  {:>9.3}  {:>6.3}  {:>5.3}", at.threshold, at.precision, at.recall, at.f1);
        }
        for (confidence, _, listing, key) in pairs.iter().filter(|pair| pair.0 > 0.85 && !pair.1) {
            println!("wrong at 0.85: {} ({}) for {key}, {confidence:.2}", listing.name, listing.addr);
        }
        let right: HashSet<&str> =
            pairs.iter().filter(|pair| pair.0 > 0.85 && pair.1).map(|pair| pair.2.key.as_str()).collect();
        for (first, second) in gold.iter().filter(|(_, second)| !right.contains(second)) {
            let name =
                |key: &str| listings.iter().find(|listing| listing.key == key).map_or("", |listing| &listing.name);
            println!("missed at 0.85: {} | {}", name(first), name(second));
        }
        curves.push((title, quality));
    }
    scope(&engine, &resolver, &listings).await?;
    engine.shutdown(std::time::Duration::from_secs(10)).await;
    if let Some(file) = file {
        curve::draw(file, &curves)?;
        println!("\ndrawn to {}", file.display());
    }
    Ok(())
}

/// One guide. Its chains have one name in several cities; the database distinguishes them by adding the city to the
/// name.
async fn store<'a>(engine: &Engine, listings: &'a [Listing]) -> Result<HashMap<Uuid, &'a str>> {
    let mut names = HashSet::new();
    let mut keys = HashMap::new();
    for listing in listings.iter().filter(|listing| listing.source == "fodors") {
        let mut name = listing.name.clone();
        if !names.insert(name.clone()) {
            name = format!("{name} ({})", listing.city);
            names.insert(name.clone());
        }
        let place = PlaceObservation::new("2024-01-01T00:00:00Z".parse()?);
        let mut unit = UnitOfWork::new();
        unit.restaurant(name).place(place.address(format!("{}, {}", listing.addr, listing.city))).handle();
        let committed = engine.submit(unit).await?.await.into_result()?;
        keys.insert(committed.entities[0].id, listing.key.as_str());
    }
    Ok(keys)
}

/// The same word as attributes of two types: a query for one must never find the other.
async fn scope(engine: &Engine, resolver: &Resolver, listings: &[Listing]) -> Result<()> {
    let cuisines = listings.iter().map(|listing| listing.cuisine.as_str());
    let cuisines: HashSet<&str> = cuisines.filter(|cuisine| !cuisine.trim().is_empty()).collect();
    let mut unit = UnitOfWork::new();
    for cuisine in &cuisines {
        unit.dish_attribute(*cuisine).handle();
    }
    engine.submit(unit).await?.await.into_result()?;
    let ask = async |entity_type| -> Result<usize> {
        let queries: Vec<Query> = cuisines.iter().map(|cuisine| Query::new(entity_type, *cuisine)).collect();
        Ok(resolver.find(&queries).await?.iter().flatten().count())
    };
    let (own, other) = (ask(EntityType::DishAttribute).await?, ask(EntityType::RestaurantAttribute).await?);
    println!(
        "\nscope: of {} dish attributes {own} are found as such, {other} as restaurant attributes",
        cuisines.len()
    );
    Ok(())
}

fn curve(pairs: &[(f64, bool, &Listing, &str)], gold: usize) -> Vec<Quality> {
    (50..100)
        .map(|percent| {
            let threshold = f64::from(percent) / 100.0;
            let taken = pairs.iter().filter(|pair| pair.0 >= threshold);
            let (taken, right) = (taken.clone().count() as f64, taken.filter(|pair| pair.1).count() as f64);
            let (precision, recall) = (right / taken.max(1.0), right / gold as f64);
            let f1 = 2.0 * precision * recall / (precision + recall).max(f64::MIN_POSITIVE);
            Quality { threshold, precision, recall, f1 }
        })
        .collect()
}
