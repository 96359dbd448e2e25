//! Resolves names to entities, for whole batches, with one consistent snapshot of the database.
//!
//! # The model
//!
//! A [`Resolver`] takes a batch of [`Query`]s and returns a [`Resolution`] for each. Three tiers are searched one after
//! the other, each for the whole batch at once; the number of round trips does not depend on the number of names. The
//! type is always part of the match: "italian" the dish attribute is never "italian" the restaurant attribute.
//!
//! | tier | finds | confidence |
//! |---|---|---|
//! | [`Exact`](Tier::Exact) | the entity of that type and name | 1: the key *is* the entity, whatever the evidence |
//! | [`Alias`](Tier::Alias) | entities of that type with the name, or the author's text, among their aliases | 0.97, by the text alone 0.96, moved by evidence |
//! | [`Fuzzy`](Tier::Fuzzy) | entities whose *name* has a trigram similarity of at least 0.3, and restaurants at the same house number and street | soft TF-IDF with Jaro-Winkler, or Levenshtein, moved by evidence |
//!
//! The confidence decides ([`ResolverSettings`]): above 0.85 the existing entity, below 0.7 a new one, and between them
//! [`GreyZone`] decides. An alias that several entities share equally is never accepted automatically: it is in the
//! grey zone too. An alias that evidence refutes does not end the search: the fuzzy tier is searched as well. A text
//! that authors of the batch use for an entity of the database counts as its alias in the other queries, and unknown
//! names that match each other become one new entity. [`Resolution::put`] writes the decision into a
//! [`UnitOfWork`](crate::UnitOfWork), as any other caller would.
//!
//! [`Resolver::find`] only searches: it decides nothing, adds nothing, and answers from a confidence of 0.6 on.
//!
//! ```no_run
//! use graphsink::resolve::{Query, Resolver, ResolverSettings};
//! use graphsink::{Config, Engine, EntityType, UnitOfWork};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::start(Config::builder("postgresql://localhost/evidence").build()?).await?;
//! let resolver = Resolver::attach(&engine, ResolverSettings::default()).await?;
//!
//! let place = Query::new(EntityType::Restaurant, "franklin bbq").original("Franklin's").city("Austin");
//! let dish = Query::new(EntityType::DishOrCategory, "brisket");
//! let answers = resolver.resolve(&[place, dish]).await?;
//! let mut unit = UnitOfWork::new();
//! if let (Some(place), Some(dish)) = (answers[0].put(&mut unit), answers[1].put(&mut unit)) {
//!     unit.connection(place, dish);
//! }
//! engine.submit(unit).await?.await.into_result()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Whole inputs
//!
//! A file should leave the same database in any order, and when it is loaded again. [`Names`] takes the names of all
//! its units, decides each of them once, and [`ResolvedNames::apply`] puts the decisions into the units:
//!
//! ```no_run
//! use graphsink::resolve::{Names, Resolver, ResolverSettings, Tier};
//! use graphsink::{Engine, UnitOfWork};
//!
//! # async fn run(engine: Engine, units: impl Fn() -> Vec<UnitOfWork>) -> Result<(), Box<dyn std::error::Error>> {
//! let settings = ResolverSettings::default().deepest(Tier::Alias);
//! let mut names = Names::new(Resolver::attach(&engine, settings).await?);
//! for unit in units() {
//!     names.add(&unit);
//! }
//! let names = names.resolve().await?;
//! for mut unit in units() {
//!     names.apply(&mut unit);
//!     engine.submit(unit).await?;
//! }
//! println!("{:?}, {} to look at", names.counts(), names.flagged().len());
//! # Ok(())
//! # }
//! ```
//!
//! A name that is resolved to another entity becomes one of its aliases, so that it is found again. A flagged name is
//! written as a separate entity: nothing of the input is lost, and a review can merge it later.
//!
//! # What holds
//!
//! - **One snapshot.** All answers of a batch were true at one moment, of committed rows only. Cached answers from
//!   earlier batches were true at an earlier moment, no longer ago than the time to live.
//! - **Writers never wait.** Lookups take no locks.
//! - **After the attached engine reported a commit, no answer is from before it.** Other processes' writes are seen
//!   within the time to live.
//! - **Resolving does not reserve.** Two resolvers that find nothing for one name both decide to create it. The engine
//!   creates one entity, because the key is the entity, and both units are committed. If they choose *different*
//!   spellings at the same moment there are two entities, because nothing in the database forbids them; later batches
//!   find both, and choose the likelier.
//! - **The order of a batch does not matter**, nor how often a name is in it.
//! - **Among equally good entities the one with the smallest name is chosen**, in code-point order. Ids, which differ
//!   from database to database, decide nothing.
//! - **A whole input ([`Names`]) is decided only by the known entities and its own names**, in any order and on any
//!   server: no sample, no index that finds what is probably similar, no time budget. The cost: names without a match
//!   by name or alias are compared with all entities of their type, which are read twice, page by page (some seconds
//!   for a million). When the input is loaded again, everything is found by name or alias.
//!
//! # What the fuzzy tier does not find
//!
//! Names that share less than [`similarity_min`](ResolverSettings::similarity_min) of their trigrams, and no house, are
//! never compared. Single names and batches are answered in bounded time, so [`Resolver::resolve`] may also miss:
//!
//! - **Misspelt aliases.** Aliases are compared exactly: an array has no trigram index, and a separate index on each
//!   alias would slow every writer. The author's text for a resolved name becomes an alias of the entity, so it has to
//!   be judged only once. (The loader and [`Names`] also add the name as an alias; [`Resolution::put`] can add one
//!   alias.)
//! - **Names with several errors, in another case and in another order of words**, if these are common. A name with one
//!   typing error is found by its correct beginning or end (of at least two letters, if not more than 2,000 names share
//!   it). All others are searched by their rare pieces of three or four letters, in about a millisecond a name and no
//!   longer: in a large database a name that is misspelt in its rare part is not found that way, unless an address
//!   finds it. `benches/resolve` prints the share of found names.
//!
//! Confidences depend on the frequency of words: for single names in a sample that is renewed every ten minutes, for
//! [`Names`] in all entities of these types.
//!
//! Scores are computed in the caller's task, some tens of microseconds for each name that reaches the fuzzy tier. A
//! batch is looked up by a handful of statements, each of which has to end within `statement_timeout`: beyond some
//! thousands of names, a larger batch is not cheaper per name. [`Names`] accepts inputs of any length, and looks up a
//! thousand names at a time.

mod batch_aliases;
mod cache;
mod corpus;
mod deciding;
mod error;
mod found;
mod halves;
mod in_batch;
mod lookup;
mod names;
mod place;
mod probes;
mod query;
mod range;
mod ranking;
mod resolved;
mod resolver;
mod scan;
mod score;
mod session;
mod settings;
mod text;
mod trigrams;

pub use error::ResolveError;
pub use names::Names;
pub use query::{Candidate, Decision, Query, Resolution, Tier};
pub use resolved::{FlaggedCandidate, FlaggedName, NameCounts, ResolvedNames};
pub use resolver::Resolver;
pub use settings::{GreyZone, ResolverSettings};
