-- The rights that an engine needs beyond those of rights.sql to merge entities (`Engine::merge`). For psql, as there:
--
--   psql -v role=evidence_writer -v schema=public -f migrations/merge_rights.sql DATABASE_URL
--
-- A merge deletes entities, connections and mentions that are one with others, and gives connections other keys.

grant delete on :"schema".entities to :"role";
-- To wait for other programs that delete entities before epochs wait for the merge.
grant update (generation) on :"schema".graphsink_generation to :"role";
grant update (restaurant_id, dish_or_category_id, dish_attributes) on :"schema".connections to :"role";
grant delete on :"schema".connections to :"role";
grant update (connection_id) on :"schema".mentions to :"role";
grant delete on :"schema".mentions to :"role";

grant insert (from_id, type, name, into_id) on :"schema".entity_redirects to :"role";
grant update (name, into_id) on :"schema".entity_redirects to :"role";
grant insert (from_id, into_id) on :"schema".connection_redirects to :"role";
grant update (into_id) on :"schema".connection_redirects to :"role";
grant usage on sequence :"schema".graphsink_merge_generation to :"role";
