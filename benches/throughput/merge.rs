//! The merges of `on conflict do update` that the pipelines of this bench share: columns, each with the expression that
//! it is set to. Figures are added up, as described in `unnest`.

/// For an entity that has aliases or attributes.
pub(crate) const DESCRIBED: [(&str, &str); 3] = [
    (
        "aliases",
        "(select coalesce(array_agg(distinct a collate \"C\"), '{}') from unnest(entities.aliases || excluded.aliases) as a)",
    ),
    (
        "restaurant_attributes",
        "(select coalesce(array_agg(distinct a), '{}')
          from unnest(entities.restaurant_attributes || excluded.restaurant_attributes) as a)",
    ),
    ("last_updated", "now()"),
];

/// The condition under which an entity changes at all.
pub(crate) const DESCRIBED_CHANGES: &str = "not (entities.aliases @> excluded.aliases
    and entities.restaurant_attributes @> excluded.restaurant_attributes)";

/// For a connection.
pub(crate) const CONNECTION: [(&str, &str); 10] = [
    (
        "categories",
        "case when connections.categories @> excluded.categories then connections.categories
              else (select array_agg(distinct a) from unnest(connections.categories || excluded.categories) as a) end",
    ),
    ("is_menu_item", "connections.is_menu_item or excluded.is_menu_item"),
    ("mention_count", "connections.mention_count + excluded.mention_count"),
    ("total_upvotes", "connections.total_upvotes + excluded.total_upvotes"),
    ("source_diversity", "connections.source_diversity + excluded.source_diversity"),
    ("recent_mention_count", "connections.recent_mention_count + excluded.recent_mention_count"),
    ("last_mentioned_at", "greatest(connections.last_mentioned_at, excluded.last_mentioned_at)"),
    (
        "activity_level",
        "(case when greatest(connections.last_mentioned_at, excluded.last_mentioned_at) >= now() - interval '7 days'
               then 'active' else 'normal' end)::activity_level",
    ),
    (
        "top_mentions",
        "(select jsonb_agg(t.value order by t.score desc)
          from (select t.value, (t.value ->> 'score')::float8 as score
                from jsonb_array_elements(connections.top_mentions || excluded.top_mentions) as t(value)
                order by score desc limit 5) as t)",
    ),
    ("last_updated", "now()"),
];

/// `set` with its assignments.
pub(crate) fn set(merges: &[(&str, &str)]) -> String {
    let merges: Vec<String> = merges.iter().map(|(column, value)| format!("{column} = {value}")).collect();
    format!("set {}", merges.join(", "))
}
