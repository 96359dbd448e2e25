-- The tables of the evidence graph, with every constraint that the engine relies on.
--
-- Runs with search_path set to the configured schema alone, so nothing here is qualified.
-- Text columns that take part in a key are collated "C": keys compare byte by byte, on every
-- server and after every upgrade of its C library (see ARCHITECTURE.md, "Collation").

create type entity_type as enum ('restaurant', 'dish_or_category', 'dish_attribute', 'restaurant_attribute');
create type mention_source as enum ('post', 'comment');
create type activity_level as enum ('trending', 'active', 'normal');

create table entities (
    entity_id                uuid          not null,
    name                     varchar(255)  collate "C" not null,
    type                     entity_type   not null,
    aliases                  text[]        not null default '{}',
    restaurant_attributes    uuid[]        not null default '{}',
    restaurant_quality_score numeric(10,4),
    latitude                 numeric(10,8),
    longitude                numeric(11,8),
    address                  varchar(500),
    google_place_id          varchar(255)  collate "C",
    restaurant_metadata      jsonb,
    place_observed_at        timestamptz,
    last_updated             timestamptz   not null default now(),
    created_at               timestamptz   not null default now(),
    constraint entities_pkey primary key (entity_id),
    -- The arbiter of store/statement.rs: an entity is its name and its type.
    constraint entities_name_type_key unique (name, type),
    constraint entities_name_not_blank check (btrim(name) <> ''),
    constraint entities_place_only_on_restaurants check (
        type = 'restaurant'
        or (latitude is null and longitude is null and address is null and google_place_id is null
            and restaurant_metadata is null and place_observed_at is null)),
    constraint entities_attributes_only_on_restaurants check (
        type = 'restaurant' or restaurant_attributes = '{}'),
    constraint entities_location_whole check ((latitude is null) = (longitude is null)),
    constraint entities_latitude_range check (latitude between -90 and 90),
    constraint entities_longitude_range check (longitude between -180 and 180)
);

create unique index entities_google_place_id_key on entities (google_place_id) where google_place_id is not null;

-- True when the array is strictly ascending, which is sorted and free of duplicates at once.
create function graphsink_is_sorted_set(ids uuid[]) returns boolean
    language sql immutable parallel safe
    return coalesce((
        select bool_and(ids[i] < ids[i + 1])
        from generate_series(1, cardinality(ids) - 1) as i), true);

create table connections (
    connection_id         uuid           not null,
    restaurant_id         uuid           not null,
    dish_or_category_id   uuid           not null,
    categories            uuid[]         not null default '{}',
    dish_attributes       uuid[]         not null default '{}',
    is_menu_item          boolean        not null,
    mention_count         integer        not null default 0,
    total_upvotes         bigint         not null default 0,
    source_diversity      integer        not null default 0,
    recent_mention_count  integer        not null default 0,
    last_mentioned_at     timestamptz,
    activity_level        activity_level not null default 'normal',
    top_mentions          jsonb          not null default '[]',
    dish_quality_score    numeric(10,4),
    last_updated          timestamptz    not null default now(),
    created_at            timestamptz    not null default now(),
    constraint connections_pkey primary key (connection_id),
    -- The arbiter of store/statement.rs and the lock order of every writer.
    constraint connections_key unique (restaurant_id, dish_or_category_id, dish_attributes),
    constraint connections_restaurant_id_fkey foreign key (restaurant_id) references entities (entity_id),
    constraint connections_dish_or_category_id_fkey foreign key (dish_or_category_id) references entities (entity_id),
    constraint connections_dish_attributes_sorted check (
        cardinality(dish_attributes) < 2 or graphsink_is_sorted_set(dish_attributes)),
    constraint connections_dish_attributes_count check (cardinality(dish_attributes) <= 100),
    constraint connections_counts_not_negative check (
        mention_count >= 0 and source_diversity >= 0 and recent_mention_count >= 0)
);

create table mentions (
    mention_id      uuid           not null,
    connection_id   uuid           not null,
    source_type     mention_source not null,
    source_id       varchar(255)   collate "C" not null,
    thread_id       varchar(255)   collate "C" not null,
    source_url      varchar(500)   not null,
    subreddit       varchar(100)   not null,
    content_excerpt text           not null default '',
    author          varchar(255),
    upvotes         integer        not null default 0,
    created_at      timestamptz    not null,
    observed_at     timestamptz    not null,
    processed_at    timestamptz    not null default now(),
    constraint mentions_pkey primary key (mention_id),
    constraint mentions_key unique (connection_id, source_type, source_id),
    constraint mentions_connection_id_fkey foreign key (connection_id) references connections (connection_id),
    constraint mentions_observed_not_before_created check (observed_at >= created_at)
);

-- Not read indexes: the write path needs them so that an epoch never reads a connection's whole
-- history. The first answers "how many in the last 30 days" and "which is the newest", the second
-- "does the connection have this thread".
--
-- Both are on expressions, to keep plans apart: no other index can serve the conditions that
-- store/statement.rs writes for each of them, so that the planner has no choice, and can make no
-- wrong one on tables without statistics. The first is on a one-to-one image of the id, the second
-- on a hash of both columns, which is also half the size. Readers find a connection's mentions by
-- mentions_key.
create index mentions_of_connection_by_time_idx on mentions (uuid_send(connection_id), created_at);
create index mentions_of_connection_by_thread_idx
    on mentions (hashtextextended(thread_id, uuid_hash_extended(connection_id, 0)));

-- One row for each transaction whose fate may still be asked for: see store/fence.rs.
create table graphsink_attempts (
    attempt uuid        not null,
    fenced  boolean     not null default false,
    at      timestamptz not null default now(),
    constraint graphsink_attempts_pkey primary key (attempt)
);
