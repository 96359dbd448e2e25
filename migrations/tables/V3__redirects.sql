-- Where entities and connections went that a merge took: see store/merge/mod.rs. Who names one of them by its id, or an
-- entity by its key, means what it was merged into. A row of `entities` or `connections` always counts more than a
-- redirect.
--
-- Without foreign keys, so that `entities` can be truncated and its rows deleted as before: a redirect whose target is
-- gone leads nowhere, and counts as nothing. Targets are never redirects themselves: a merge turns those that led to what
-- it took.

create table entity_redirects (
    from_id   uuid         not null,
    type      entity_type  not null,
    -- The key that leads to the target; null once a later merge took another entity of the same key.
    name      varchar(255) collate "C",
    into_id   uuid         not null,
    merged_at timestamptz  not null default now(),
    constraint entity_redirects_pkey primary key (from_id),
    constraint entity_redirects_name_type_key unique (name, type)
);
create index entity_redirects_into_id_idx on entity_redirects (into_id);

create table connection_redirects (
    from_id   uuid        not null,
    into_id   uuid        not null,
    merged_at timestamptz not null default now(),
    constraint connection_redirects_pkey primary key (from_id)
);
create index connection_redirects_into_id_idx on connection_redirects (into_id);

-- Advanced by every merge, before it commits. Who remembers ids from one transaction to the next can tell by it whether
-- they still count, if it reads `last_value` after it joined the merges' lock (`Statement::RecordAttempt`).
create sequence graphsink_merge_generation;
