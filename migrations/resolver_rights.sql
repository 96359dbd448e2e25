-- What a role needs beyond migrations/rights.sql when it resolves names: the functions of the extension pg_trgm. They lie
-- in `public` unless the extension was created elsewhere (psql's \dx tells).
--
--   psql -v role=evidence_writer -v trigrams=public -f migrations/resolver_rights.sql DATABASE_URL
--
-- Everything else that a resolver reads is in `entities` and `entity_redirects`. One that only reads needs this, `usage` on
-- the tables' schema and `select` on these two.

grant usage on schema :"trigrams" to :"role";
