-- The indexes that readers want. They cost more than half of the write speed, so whoever loads
-- history can load first and run this set afterwards (`Migrations::tables_only`).
--
-- The index on mentions (connection_id) is mentions_key of the first set, which begins with it.

create index entities_type_idx on entities (type);
create index entities_type_restaurant_quality_score_idx on entities (type, restaurant_quality_score desc);
create index entities_name_trgm_idx on entities using gin (name gin_trgm_ops);
create index entities_aliases_idx on entities using gin (aliases);
create index entities_restaurant_attributes_idx on entities using gin (restaurant_attributes)
    where type = 'restaurant';
create index entities_location_idx on entities using gist (point(longitude::float8, latitude::float8))
    where type = 'restaurant';
create index entities_address_trgm_idx on entities using gin (address gin_trgm_ops)
    where type = 'restaurant';

create index connections_dish_or_category_id_idx on connections (dish_or_category_id);
create index connections_categories_idx on connections using gin (categories);
create index connections_dish_attributes_idx on connections using gin (dish_attributes);
create index connections_mention_count_idx on connections (mention_count desc);
create index connections_total_upvotes_idx on connections (total_upvotes desc);
create index connections_last_mentioned_at_idx on connections (last_mentioned_at desc);
create index connections_activity_level_idx on connections (activity_level);
create index connections_dish_quality_score_idx on connections (dish_quality_score desc);
create index connections_restaurant_id_dish_quality_score_idx on connections (restaurant_id, dish_quality_score desc);
create index connections_dish_id_dish_quality_score_idx on connections (dish_or_category_id, dish_quality_score desc);

create index mentions_upvotes_idx on mentions (upvotes desc);
create index mentions_source_type_source_id_idx on mentions (source_type, source_id);
create index mentions_subreddit_idx on mentions (subreddit);
create index mentions_created_at_idx on mentions (created_at desc);
create index mentions_processed_at_idx on mentions (processed_at desc);
