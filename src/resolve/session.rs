//! The resolver's SQL, and sessions on which it is prepared.
//!
//! Values are always parameters; the only inserted texts are the quoted names of two schemas.
//!
//! **Plans are pinned** (`Database::new`), like the engine's (`store/statement.rs`), and for the same reason, but with
//! bitmap scans, which every GIN index needs. This allows a plan that the engine excludes by disabling them: an
//! equality of names could be looked up through the trigram index. So names are compared by row comparisons from both
//! sides, which mean equality, and which only the unique index on (name, type) can serve; elsewhere the type is
//! compared as text, so that no index on it is read beside the selective one.

use bb8::ManageConnection;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use crate::error::StoreError;
use crate::store::{Connector, Prepared};

/// Ordering by the id's text equals ordering by id, but cannot use the primary key. Entities that have the name itself
/// as an alias come first, so that they are among the answers however many share the author's text.
///
/// `limit 1` stops before redirects are searched if the entity exists. If a merge removed the entity of this name, the
/// result is the surviving one.
const KNOWN: &str = "
    select k.ord, e.entity_id, k.original = e.name or k.original = any(e.aliases), a.entity_id, a.name, a.address,
           a.known, nullif(e.name, k.name), a.by_name
    from unnest($1::text[], $2::text[], $3::text[]) with ordinality as k(type, name, original, ord)
    left join lateral (
        select e.entity_id, e.name, e.aliases from {schema}.entities e
        where (e.name, e.type) >= (k.name, k.type::{schema}.entity_type)
          and (e.name, e.type) <= (k.name, k.type::{schema}.entity_type)
        union all
        select e.entity_id, e.name, e.aliases
        from {schema}.entity_redirects r join {schema}.entities e on e.entity_id = r.into_id
        where (r.name, r.type) >= (k.name, k.type::{schema}.entity_type)
          and (r.name, r.type) <= (k.name, k.type::{schema}.entity_type)
        limit 1) as e on true
    left join lateral (
        select a.entity_id, a.name, a.address, k.original = a.name or k.original = any(a.aliases) as known,
               k.name = any(a.aliases) as by_name
        from {schema}.entities a
        where $4 and e.entity_id is null and a.aliases && array[k.name, k.original] and a.type::text = k.type
        order by by_name desc, a.name
        limit $5) as a on true
    where e.entity_id is not null or a.entity_id is not null";

/// A name that is shorter than a third, or longer than three times, is not similar.
const SIMILAR: &str = "
    select p.ord, s.entity_id, s.name, s.address
    from unnest($1::int4[], $2::text[], $3::text[], $4::text[]) as p(ord, type, name, pattern)
    cross join lateral (
        select e.entity_id, e.name, e.address
        from {schema}.entities e
        where e.name ~~* p.pattern and e.type::text = p.type
          and octet_length(e.name) * 3 >= octet_length(p.name) and octet_length(e.name) <= octet_length(p.name) * 3
          and {trigrams}.similarity(e.name, p.name) >= $5
        order by {trigrams}.similarity(e.name, p.name) desc, e.name
        limit $6) as s";

/// Names that begin, or reversed begin, with given letters. Names of a very different length are not misspellings.
///
/// Sorted by similarity as above, but cheaper conditions exclude most of them first.
const RANGE: &str = "
    select p.ord, s.entity_id, s.name, s.address
    from unnest($1::int4[], $2::text[], $3::text[], $4::text[], $5::text[]) as p(ord, type, name, low, high)
    cross join lateral (
        select e.entity_id, e.name, e.address
        from {schema}.entities e
        where {column} >= p.low and {column} < p.high and e.type::text = p.type
          and octet_length(e.name) between octet_length(p.name) - 4 and octet_length(p.name) + 4
          and {trigrams}.similarity(e.name, p.name) >= $6
        order by {trigrams}.similarity(e.name, p.name) desc, e.name
        limit $7) as s";

/// All restaurants at one house number, whatever the street: streets are compared by
/// [`Address`](super::place::Address).
const NEIGHBOURS: &str = "
    select p.ord, s.entity_id, s.name, s.address
    from unnest($1::int4[], $2::text[], $3::text[], $4::text[]) as p(ord, name, number, street)
    cross join lateral (
        select e.entity_id, e.name, e.address
        from {schema}.entities e
        where e.address ~>=~ (p.number || ' ') and e.address ~<~ (p.number || '!') and e.address ~~* p.street
          and e.type::text = 'restaurant'
        order by {trigrams}.similarity(e.name, p.name) desc, e.name
        limit $5) as s";

/// The next entities of some types ($3), in the order of their keys, after a given key.
const PAGE: &str = "
    select e.type::text, e.entity_id, e.name, e.address
    from {schema}.entities e
    where (e.name, e.type) > ($1, $2::text::{schema}.entity_type) and e.type::text = any($3)
    order by e.name, e.type
    limit $4";

/// A session with its statements.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    /// Prepared when they are first needed.
    pub(super) statements: Option<Statements>,
    /// True while statements are being prepared, and from before `begin` to the confirmed `commit`: a session that is
    /// dropped in between is not used again.
    pub(super) is_busy: bool,
}

/// The statements of one session.
#[derive(Debug)]
pub(super) struct Statements {
    /// Whether the session knows them by name.
    pub(super) named: bool,
    pub(super) known: Prepared,
    pub(super) page: Prepared,
    /// Absent if `pg_trgm` is.
    pub(super) fuzzy: Option<FuzzyStatements>,
}

/// The statements that need `pg_trgm`.
#[derive(Debug)]
pub(super) struct FuzzyStatements {
    pub(super) beginning: Prepared,
    pub(super) end: Prepared,
    pub(super) neighbours: Prepared,
    pub(super) similar: Prepared,
}

impl Statements {
    /// `schema` is a quoted identifier.
    pub(super) async fn prepare(client: &Client, schema: &str, named: bool) -> Result<Self, Error> {
        const TEXTS: Type = Type::TEXT_ARRAY;
        let find = "select quote_ident(n.nspname) from pg_catalog.pg_extension e
                    join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_trgm'";
        let trigrams: Option<String> =
            client.query_typed_opt(find, &[]).await?.map(|row| row.try_get(0)).transpose()?;
        let prepare = |text: String, types: Vec<Type>| Prepared::new(client, text, types, named);
        let of_known = vec![TEXTS, TEXTS, TEXTS, Type::BOOL, Type::INT8];
        let known = prepare(KNOWN.replace("{schema}", schema), of_known).await?;
        let of_page = vec![Type::TEXT, Type::TEXT, TEXTS, Type::INT8];
        let page = prepare(PAGE.replace("{schema}", schema), of_page).await?;
        let fuzzy = match trigrams {
            Some(trigrams) => {
                let text = |template: &str| template.replace("{schema}", schema).replace("{trigrams}", &trigrams);
                let range = |column: &str| {
                    let types = vec![Type::INT4_ARRAY, TEXTS, TEXTS, TEXTS, TEXTS, Type::FLOAT4, Type::INT8];
                    prepare(text(RANGE).replace("{column}", column), types)
                };
                let of_neighbours = vec![Type::INT4_ARRAY, TEXTS, TEXTS, TEXTS, Type::INT8];
                let of_similar = vec![Type::INT4_ARRAY, TEXTS, TEXTS, TEXTS, Type::FLOAT4, Type::INT8];
                Some(FuzzyStatements {
                    beginning: range("e.name").await?,
                    end: range("reverse(e.name)").await?,
                    neighbours: prepare(text(NEIGHBOURS), of_neighbours).await?,
                    similar: prepare(text(SIMILAR), of_similar).await?,
                })
            }
            None => None,
        };
        Ok(Self { named, known, page, fuzzy })
    }
}

/// Opens sessions for the pool.
#[derive(Debug, Clone)]
pub(super) struct Manager {
    pub(super) connector: Connector,
}

impl ManageConnection for Manager {
    type Connection = Session;
    type Error = StoreError;

    async fn connect(&self) -> Result<Session, StoreError> {
        let client = self.connector.connect().await?;
        Ok(Session { client, statements: None, is_busy: false })
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), StoreError> {
        self.connector.is_valid(&mut session.client).await
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.is_busy || self.connector.has_broken(&mut session.client)
    }
}
