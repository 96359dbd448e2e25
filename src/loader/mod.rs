//! The loader's input: JSON lines in, units of work out.
//!
//! [`Line`] is one line of the format, [`Units`] reads any number of inputs and combines the lines that share a unit,
//! [`Sample`] generates such lines. Everything here is plain and synchronous: a program hands the units to an engine in
//! its own way, as `examples/ingest` does.
//!
//! ```no_run
//! use graphsink::loader::{Input, Units};
//!
//! # async fn run(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
//! for unit in Units::new([Input::from_arg("mentions.jsonl.gz")]) {
//!     let unit = unit?;
//!     match unit.content {
//!         Ok(content) => drop(engine.submit(content).await?),
//!         Err(errors) => errors.iter().for_each(|error| eprintln!("{}: {error}", unit.origin.input)),
//!     }
//! }
//! engine.flush().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The format
//!
//! One JSON object per line, UTF-8:
//!
//! ```json
//! {"temp_id": "m1", "unit": "t3_xyz",
//!  "restaurant": {"normalized_name": "franklin bbq", "original_text": "Franklin's", "temp_id": "r1",
//!                 "place": {"latitude": 30.27, "longitude": -97.73, "address": "900 E 11th St",
//!                           "google_place_id": "ChIJ", "metadata": {}, "observed_at": "2024-01-11T00:00:00Z"}},
//!  "restaurant_attributes": ["patio"],
//!  "dish_or_category": {"normalized_name": "brisket", "original_text": "the brisket", "temp_id": "d1"},
//!  "dish_attributes": [{"attribute": "smoky", "type": "descriptive"}],
//!  "categories": ["bbq"],
//!  "is_menu_item": true, "general_praise": false,
//!  "source": {"type": "comment", "id": "t1_abc", "thread_id": "t3_xyz", "url": "https://example.org/t1_abc",
//!             "subreddit": "austinfood", "author": "someone", "excerpt": "the brisket", "upvotes": 67,
//!             "created_at": "2024-01-10T14:20:00Z", "observed_at": "2024-01-11T00:00:00Z"}}
//! ```
//!
//! - Required are `restaurant.normalized_name` and `source.type`, `id`, `url`, `subreddit` and
//!   `created_at`. Everything else may be absent. `null` and absent mean the same, also within a
//!   list: `["patio", null]` is `["patio"]`.
//! - Unknown fields and blank lines are ignored. A known field of the wrong type, or one that occurs
//!   twice in an object, makes the line a bad line. So does invalid UTF-8.
//! - Times are RFC 3339 with an offset. They are truncated to microseconds; second 60 is the next second, as in
//!   PostgreSQL.
//! - `upvotes` is a 32-bit integer, written as an integer: `1.0` and `1e2` are not accepted.
//! - Defaults: no `original_text`, no alias; `thread_id` is the source's own id; `excerpt` is empty;
//!   `upvotes` 0; `observed_at` is `created_at`; the place's `observed_at` is the source's;
//!   `is_menu_item` true.
//!
//! # What a line becomes
//!
//! The restaurant (its `original_text` an alias), its attributes, the dish (alias likewise), the dish attributes, the
//! categories (entities of the type `dish_or_category`), the connection and the mention. A line without a dish (or
//! whose dish has no `normalized_name`) writes its entities only. Three labels appear in
//! [`Committed::temp_ids`](crate::Committed::temp_ids): the restaurant's, the dish's, and the line's own for the
//! mention. If two rows of a unit have one label, the later one counts.
//!
//! # What becomes a unit
//!
//! Each line is a unit, unless consecutive lines of one input have the same `"unit"`: then they are one unit, written
//! whole or not at all. Blank lines do not interrupt a unit. **A bad line makes its whole unit bad**: a part of a unit
//! is not what the author of the input meant to be atomic. A line too malformed to name its unit belongs to the unit of
//! the lines around it, if those on both sides have the same unit; otherwise it stands alone.

mod diagnosis;
mod group;
mod input;
mod line;
mod raw;
mod reason;
mod sample;
mod units;

pub use group::{SourceLine, UNIT_LINES_BYTES_MAX};
pub use input::{Input, LINE_BYTES_MAX, Progress, ReadError};
pub use line::{Added, Line};
pub use reason::{LineError, LineReason};
pub use sample::Sample;
pub use units::{InputUnit, Origin, UNIT_ROWS_MAX, Units};
