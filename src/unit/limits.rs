//! How much a unit can say. [`UnitOfWork::validate`](crate::UnitOfWork::validate) refuses more, and
//! [`InvalidUnit`](crate::InvalidUnit) says of what. How many rows a unit may have is a setting:
//! [`ConfigBuilder::max_unit_rows`](crate::ConfigBuilder::max_unit_rows).

/// Characters of a name or an alias.
///
/// ```
/// use graphsink::UnitOfWork;
/// use graphsink::limits::NAME_CHARS_MAX;
///
/// let mut unit = UnitOfWork::new();
/// unit.dish("x".repeat(NAME_CHARS_MAX + 1)).handle();
/// assert!(unit.validate(10_000).is_err());
/// ```
pub const NAME_CHARS_MAX: usize = 255;
/// Characters of an address.
pub const ADDRESS_CHARS_MAX: usize = 500;
/// Characters of a source id, a thread id and Google's place id.
pub const SOURCE_ID_CHARS_MAX: usize = 255;
/// Characters of a URL.
pub const URL_CHARS_MAX: usize = 500;
/// Characters of a subreddit.
pub const SUBREDDIT_CHARS_MAX: usize = 100;
/// Characters of an author.
pub const AUTHOR_CHARS_MAX: usize = 255;
/// Dish attributes of one connection: the unique index holds no more.
pub const DISH_ATTRIBUTES_MAX: usize = 100;
/// Bytes of a unit in memory: far below what one message to PostgreSQL can carry (1 GiB).
pub const UNIT_BYTES_MAX: usize = 256 << 20;
/// Depth of nesting in metadata; the object itself is the first level.
pub const METADATA_DEPTH_MAX: usize = 64;
