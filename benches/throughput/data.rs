//! A file of the loader's format as the workload: real threads in place of generated ones.
//!
//! Each line is a unit of its own. Places are left out, because only the engine writes them; so are repeated mentions,
//! which the hand-written contestants would count twice.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use ::graphsink::loader::{Input, Units};
use ::graphsink::{Mention, Timestamp};
use serde::Deserialize;

use graphsink_benches::contestant::Result;
use graphsink_benches::workload::{Record, Workload};

#[derive(Deserialize)]
struct Line {
    restaurant: Named,
    restaurant_attributes: Option<Vec<Option<Arc<str>>>>,
    dish_or_category: Option<Named>,
    dish_attributes: Option<Vec<Option<Attribute>>>,
    categories: Option<Vec<Option<Arc<str>>>>,
    is_menu_item: Option<bool>,
    source: Source,
}

#[derive(Deserialize)]
struct Named {
    normalized_name: Option<Arc<str>>,
    original_text: Option<Arc<str>>,
    place: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Attribute {
    attribute: Option<Arc<str>>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "type")]
    of_type: String,
    id: Arc<str>,
    thread_id: Option<Arc<str>>,
    url: String,
    subreddit: String,
    author: Option<String>,
    excerpt: Option<String>,
    upvotes: Option<i32>,
    created_at: Timestamp,
    observed_at: Option<Timestamp>,
}

/// Reads a file, plain or compressed. Reports the records that were left out.
pub(crate) fn read(path: &Path, as_of: Timestamp) -> Result<Workload> {
    let mut records = Vec::new();
    let mut seen = HashSet::new();
    let (mut places, mut repeated) = (0, 0);
    for unit in Units::new([Input::from_arg(path)]) {
        let unit = unit?;
        if let Err(errors) = &unit.content {
            return Err(format!("{}: {} bad lines: {:?}", path.display(), errors.len(), errors.first()).into());
        }
        for source in &unit.origin.lines {
            let line: Line = serde_json::from_slice(&source.record)?;
            places += usize::from(line.restaurant.place.is_some());
            let record = line.record()?;
            let attributes: BTreeSet<_> = record.dish_attributes.iter().cloned().collect();
            let mention = (record.mention.source_type.as_str(), Arc::clone(&record.mention.source_id));
            if record.dish.is_some()
                && !seen.insert((Arc::clone(&record.restaurant), record.dish.clone(), attributes, mention))
            {
                repeated += 1;
                continue;
            }
            records.push(record);
        }
    }
    if records.is_empty() {
        return Err(format!("{} holds no lines", path.display()).into());
    }
    println!("{}: left out {places} places and {repeated} lines of repeated mentions", path.display());
    Ok(Workload { records, as_of })
}

impl Line {
    fn record(self) -> Result<Record> {
        let (restaurant, alias) = self.restaurant.name_and_alias();
        let (dish, dish_alias) = self.dish_or_category.map_or((None, None), Named::name_and_alias);
        let dish_attributes = self.dish_attributes.unwrap_or_default().into_iter().flatten();
        Ok(Record {
            restaurant: restaurant.ok_or("a restaurant without a name")?,
            alias,
            restaurant_attributes: self.restaurant_attributes.unwrap_or_default().into_iter().flatten().collect(),
            dish,
            dish_alias,
            dish_attributes: dish_attributes.filter_map(|attribute| attribute.attribute).collect(),
            categories: self.categories.unwrap_or_default().into_iter().flatten().collect(),
            is_menu_item: self.is_menu_item.unwrap_or(true),
            mention: self.source.mention()?,
        })
    }
}

impl Named {
    fn name_and_alias(self) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let alias = self.original_text.filter(|alias| self.normalized_name.as_ref() != Some(alias));
        let alias = alias.filter(|_| self.normalized_name.is_some());
        (self.normalized_name, alias)
    }
}

impl Source {
    fn mention(self) -> Result<Mention> {
        let source_type = self.of_type.parse().map_err(|_| "a source that is neither post nor comment")?;
        let created_at = ::graphsink::truncate(self.created_at);
        let thread = self.thread_id.unwrap_or_else(|| Arc::clone(&self.id));
        let mut mention = Mention::new(source_type, self.id, self.url, self.subreddit, created_at)
            .thread(thread)
            .excerpt(self.excerpt.unwrap_or_default())
            .upvotes(self.upvotes.unwrap_or_default());
        if let Some(author) = self.author {
            mention = mention.author(author);
        }
        if let Some(observed_at) = self.observed_at {
            mention = mention.observed_at(::graphsink::truncate(observed_at));
        }
        Ok(mention)
    }
}
