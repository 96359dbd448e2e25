-- Units that the database rejected, with the reason: see store/dead_letter.rs. Written only by engines
-- that are told to (`ConfigBuilder::dead_letters`).
--
-- `unit` is the whole unit (the format is in unit/document.rs); its id is a hash of it, so that the
-- same unit rejected again is the same dead letter.
create table graphsink_dead_letters (
    dead_letter_id    uuid        not null,
    unit              jsonb       not null,
    reason            text        not null,
    sqlstate          text        not null,
    table_name        text,
    column_name       text,
    constraint_name   text,
    row_table         text,
    row_index         integer,
    message           text        not null,
    detail            text,
    first_rejected_at timestamptz not null default now(),
    last_rejected_at  timestamptz not null default now(),
    constraint graphsink_dead_letters_pkey primary key (dead_letter_id)
);

-- The order in which they are submitted again.
create index graphsink_dead_letters_by_age_idx on graphsink_dead_letters (first_rejected_at, dead_letter_id);
