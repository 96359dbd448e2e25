-- Whether a mention has entries in the indexes for long histories, and whether a connection's mentions are looked up there:
-- see store/history_indexes.rs, which makes those indexes.
--
-- Where a connection says so, all of its mentions do. The other way round it does not matter: histories of other
-- connections are read by mentions_key. So the default is right for all rows that are there, and for those of engines
-- that know nothing of these columns; a short history's connection loses it with its next version.

alter table connections add column history_indexed boolean not null default true;
alter table mentions add column history_indexed boolean not null default true;

-- A mention may move to a connection of a long history: in merges by engines that know nothing of these columns, and by
-- hand. Who moves one need not have the right to this column.
create function graphsink_index_moved_mention() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
    begin
        execute format('update %I.mentions set history_indexed = true where mention_id = $1', tg_table_schema)
            using new.mention_id;
        return null;
    end $$;
revoke execute on function graphsink_index_moved_mention() from public;

create trigger graphsink_index_moved after update of connection_id on mentions
    for each row when (not new.history_indexed) execute function graphsink_index_moved_mention();
