-- The rights that an engine needs, and no others. For psql:
--
--   create role evidence_writer login password '..';
--   psql -v role=evidence_writer -v schema=public -f migrations/rights.sql DATABASE_URL
--
-- Run it as the owner of the tables, the role that ran the migrations, after every migration. The engine's role
-- then owns nothing, creates nothing, and deletes nothing but its own book-keeping; it can change no key, no creation
-- time and no quality score. An engine that merges entities needs those of merge_rights.sql as well.
-- tests/it/rights.rs runs a load with these rights, and shows that it needs each of them.

-- Where they were taken from PUBLIC, which has these three by default.
grant connect on database :"DBNAME" to :"role";
grant execute on function :"schema".graphsink_is_sorted_set(uuid[]) to :"role";
grant execute on function :"schema".graphsink_is_sorted_large_set(uuid[]) to :"role";

grant usage on schema :"schema" to :"role";

grant select on :"schema".entities to :"role";
grant insert (entity_id, type, name, aliases, restaurant_attributes, latitude, longitude, address, restaurant_metadata,
              place_observed_at) on :"schema".entities to :"role";
grant update (aliases, restaurant_attributes, latitude, longitude, address, google_place_id, restaurant_metadata,
              place_observed_at, last_updated) on :"schema".entities to :"role";

grant select on :"schema".connections to :"role";
grant insert (connection_id, restaurant_id, dish_or_category_id, dish_attributes, categories, is_menu_item,
              mention_count, total_upvotes, source_diversity, recent_mention_count, last_mentioned_at, activity_level,
              top_mentions, history_indexed) on :"schema".connections to :"role";
grant update (categories, is_menu_item, mention_count, total_upvotes, source_diversity, recent_mention_count,
              last_mentioned_at, activity_level, top_mentions, history_indexed, last_updated)
    on :"schema".connections to :"role";

grant select on :"schema".mentions to :"role";
grant insert (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit, content_excerpt,
              author, upvotes, created_at, observed_at, history_indexed) on :"schema".mentions to :"role";
grant update (thread_id, source_url, subreddit, content_excerpt, author, upvotes, created_at, observed_at, processed_at,
              history_indexed) on :"schema".mentions to :"role";

-- Where merged entities and connections went.
grant select on :"schema".entity_redirects to :"role";
grant select on :"schema".connection_redirects to :"role";

-- Whether ids of names that are remembered still hold.
grant select on :"schema".graphsink_generation to :"role";

-- The fence.
grant select on :"schema".graphsink_attempts to :"role";
grant insert (attempt, fenced) on :"schema".graphsink_attempts to :"role";
grant delete on :"schema".graphsink_attempts to :"role";

-- Only for engines that keep dead letters.
grant select on :"schema".graphsink_dead_letters to :"role";
grant insert (dead_letter_id, unit, reason, sqlstate, table_name, column_name, constraint_name, row_table, row_index,
              message, detail) on :"schema".graphsink_dead_letters to :"role";
grant update (reason, sqlstate, table_name, column_name, constraint_name, row_table, row_index, message, detail,
              last_rejected_at) on :"schema".graphsink_dead_letters to :"role";
grant delete on :"schema".graphsink_dead_letters to :"role";
