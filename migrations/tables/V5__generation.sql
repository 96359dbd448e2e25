-- Whether what an engine remembers of entities, their ids and what is said of them, still holds: see
-- batch/known_names.rs.
--
-- One row, which changes with every transaction that deletes entities, gives any another name, type or id, or takes
-- an alias or an attribute away. Being a row it changes exactly when that transaction is committed, for everyone at
-- once, and not at all when it is rolled back. Engines only read it.

create table graphsink_generation (
    only_row   boolean not null default true,
    generation bigint  not null,
    constraint graphsink_generation_pkey primary key (only_row),
    constraint graphsink_generation_only_row check (only_row)
);
insert into graphsink_generation (generation) values (1);

-- Once in each transaction is enough: otherwise a transaction of many statements would leave as many versions of the
-- row, each of which the next one passes by. The note goes with the savepoint that it was made in, as the row's
-- version does. Who deletes entities need not have rights on the table.
create function graphsink_advance_generation() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
    declare
        this text := pg_current_xact_id()::text || ' ' || tg_relid::text;
    begin
        if current_setting('graphsink.generation_advanced', true) is distinct from this then
            execute format('update %I.graphsink_generation set generation = generation + 1', tg_table_schema);
            perform set_config('graphsink.generation_advanced', this, true);
        end if;
        return null;
    end $$;
revoke execute on function graphsink_advance_generation() from public;

-- No engine's own update of an entity is among them, or epochs would wait for each other: they only add to rows, but
-- for an alias that is the entity's name.
--
-- Row by row: statements that touch no row leave the generation, what a `before` trigger makes of a row is seen, and
-- logical replication fires no other triggers. Always: replication, and who restores or repairs tables with
-- session_replication_role = replica, fires no ordinary ones.
create trigger graphsink_entity_deleted after delete on entities
    for each row execute function graphsink_advance_generation();
create trigger graphsink_entity_changed after update on entities
    for each row when (
        (old.entity_id, old.name, old.type) is distinct from (new.entity_id, new.name, new.type)
        or old.aliases <> new.aliases
           and not array_remove(old.aliases, old.name::text collate "C") <@ new.aliases
        or old.restaurant_attributes <> new.restaurant_attributes
           and not old.restaurant_attributes <@ new.restaurant_attributes)
    execute function graphsink_advance_generation();
create trigger graphsink_entities_truncated after truncate on entities
    for each statement execute function graphsink_advance_generation();
alter table entities enable always trigger graphsink_entity_deleted;
alter table entities enable always trigger graphsink_entity_changed;
alter table entities enable always trigger graphsink_entities_truncated;
