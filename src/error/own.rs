//! The engine's own tables, columns and constraints, by the names that the server's errors give.

use tokio_postgres::error::DbError;

/// The tables that the engine writes.
const OWN_TABLES: [&str; 7] = [
    "entities",
    "connections",
    "mentions",
    "entity_redirects",
    "connection_redirects",
    "graphsink_attempts",
    "graphsink_dead_letters",
];

/// The columns of the three tables that the engine writes. `store/table/` has what it writes there.
pub(crate) const OWN_COLUMNS: [(&str, &[&str]); 3] = [
    (
        "entities",
        &[
            "entity_id",
            "type",
            "name",
            "aliases",
            "restaurant_attributes",
            "latitude",
            "longitude",
            "address",
            "google_place_id",
            "restaurant_metadata",
            "place_observed_at",
            "last_updated",
        ],
    ),
    (
        "connections",
        &[
            "connection_id",
            "restaurant_id",
            "dish_or_category_id",
            "dish_attributes",
            "categories",
            "is_menu_item",
            "mention_count",
            "total_upvotes",
            "source_diversity",
            "recent_mention_count",
            "last_mentioned_at",
            "activity_level",
            "top_mentions",
            "history_indexed",
            "last_updated",
        ],
    ),
    (
        "mentions",
        &[
            "mention_id",
            "connection_id",
            "source_type",
            "source_id",
            "thread_id",
            "source_url",
            "subreddit",
            "content_excerpt",
            "author",
            "upvotes",
            "created_at",
            "observed_at",
            "history_indexed",
            "processed_at",
        ],
    ),
];

/// The constraints of the three tables that the migrations make. Which of them a row breaks is a matter of its values.
const CONSTRAINTS: [&str; 20] = [
    "connections_counts_not_negative",
    "connections_dish_attributes_count",
    "connections_dish_attributes_sorted",
    "connections_dish_or_category_id_fkey",
    "connections_key",
    "connections_pkey",
    "connections_restaurant_id_fkey",
    "entities_attributes_only_on_restaurants",
    "entities_google_place_id_key",
    "entities_latitude_range",
    "entities_location_whole",
    "entities_longitude_range",
    "entities_name_not_blank",
    "entities_name_type_key",
    "entities_pkey",
    "entities_place_only_on_restaurants",
    "mentions_connection_id_fkey",
    "mentions_key",
    "mentions_observed_not_before_created",
    "mentions_pkey",
];

/// Whether a constraint is one that the migrations make.
pub(crate) fn is_own_constraint(name: &str) -> bool {
    CONSTRAINTS.contains(&name)
}

/// Whether the error is about a table or a column that the engine does not write, for example one that a trigger
/// writes. Then no unit is at fault.
pub(super) fn is_about_foreign(error: &DbError) -> bool {
    let Some(table) = error.table() else { return false };
    if !OWN_TABLES.contains(&table) {
        return true;
    }
    // Not null violations name their column.
    error.code().code() == "23502" && error.column().is_some_and(|column| is_foreign(table, column))
}

/// Whether a column of one of the three tables is not one of the engine's.
fn is_foreign(table: &str, column: &str) -> bool {
    let of_table = OWN_COLUMNS.into_iter().find(|(name, _)| *name == table);
    of_table.is_some_and(|(_, columns)| !columns.contains(&column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constraint_of_the_migrations_is_a_known_own_one() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/tables");
        let mut found = Vec::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for before in ["constraint ", "unique index "] {
                let names = text.split(before).skip(1).filter_map(|rest| rest.split_whitespace().next());
                found.extend(names.filter(|name| name.contains('_')).map(str::to_owned));
            }
        }
        let is_not_listed = |name: &String| name.starts_with("graphsink_") || name.contains("redirects");
        found.retain(|name| !is_not_listed(name));
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, CONSTRAINTS);
    }
}
