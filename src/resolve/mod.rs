//! Which entity is this name? Asked for whole batches, against one consistent picture of the database.
//!
//! # The model
//!
//! A [`Resolver`] takes a batch of [`Query`]s and gives a [`Resolution`] for each. Three tiers are asked one after the
//! other, each for the whole batch at once; the number of round trips does not depend on the number of names. The type is
//! always part of the match: "italian" the dish attribute is never "italian" the restaurant attribute.
//!
//! | tier | finds | confidence |
//! |---|---|---|
//! | [`Exact`](Tier::Exact) | the entity of that type and name | 1: the key *is* the entity, whatever the evidence |
//! | [`Alias`](Tier::Alias) | entities of that type with the name, or the author's text, among their aliases | 0.97, by the text alone 0.96, moved by evidence |
//! | [`Fuzzy`](Tier::Fuzzy) | entities whose *name* has a trigram similarity of at least 0.3, and restaurants at the same house number and street | soft TF-IDF with Jaro-Winkler, or Levenshtein, moved by evidence |
//!
//! The confidence decides ([`ResolverSettings`]): above 0.85 the existing entity, below 0.7 a new one, and between
//! them what [`GreyZone`] says. An alias that several entities share equally is never taken for granted: it is in the
//! grey zone too. An alias that evidence refutes ends no search: the fuzzy tier is asked as well.
//! What a query of the batch says authors call an entity of the database is heard as its alias by the others, and names that
//! are not known and that match each other become one new entity.
//! [`Resolution::put`] writes the decision into a [`UnitOfWork`](crate::UnitOfWork), like any other caller would.
//!
//! [`Resolver::find`] is for those who only search: it decides nothing, adds nothing, and answers from 0.6 on.
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
//! A file should leave the same database whatever its order, and again the second time. [`Names`] takes
//! the names of all its units, decides each of them once, and [`ResolvedNames::apply`] puts the decisions into the units:
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
//! A name that is taken for another entity becomes one of its aliases, so that it is found again. What is flagged is
//! written as an entity of its own: nothing of the input is lost, and a review can merge it later.
//!
//! # What holds
//!
//! - **One snapshot.** All that a batch's answers say was true at one moment, of committed rows only. What is
//!   remembered from earlier batches was true at an earlier one, no longer ago than the time to live.
//! - **No writer is held up.** Lookups take no locks.
//! - **After the attached engine told of a commit, no answer is from before it.** Other processes'
//!   writes are seen within the time to live.
//! - **Resolving does not reserve.** Two resolvers that find nothing for one name both decide to create it. The engine
//!   makes one entity of it, because the key is the entity, and both units are committed. If they chose *different*
//!   spellings at the same moment there are two entities, as nothing in the database forbids them; later batches find
//!   both, and take the likelier.
//! - **The order of a batch does not matter**, nor how often a name is in it.
//! - **Of equally good entities the one with the smallest name is taken**, in code-point order. Ids, which differ from database
//!   to database, decide nothing.
//! - **A whole input ([`Names`]) is decided by the known entities and its own names alone**, in any order and on any server: no
//!   sample, no index that finds what is probably similar, no time budget. The cost: what no name or alias leads to is compared
//!   with all entities of its type, which are read twice, page by page (some seconds for a million). Loaded again, the
//!   input finds everything by name or alias.
//!
//! # What the fuzzy tier does not find
//!
//! Names that share less than [`similarity_min`](ResolverSettings::similarity_min) of their trigrams, and no house, are never
//! compared. Single names and batches are answered in bounded time, so [`Resolver::resolve`] may miss more:
//!
//! - **Misspelt aliases.** Aliases are compared exactly: an array has no trigram index, and one of its own on each alias
//!   would cost every writer. What the author wrote of a name that was taken for an entity is an alias of it, so it has to
//!   be judged once only. (The loader and [`Names`] give it the name as well; [`Resolution::put`] has room for one alias.)
//! - **Names with several errors, in another case and in another order of words**, where they are common. A name with one
//!   typing error is found by its beginning or its end, which are right (from a beginning or an end of two letters on, as
//!   long as not more than 2,000 names share it). Anything else is looked for by its rare pieces of three or four
//!   letters, in about a millisecond a name and no longer: in a large database what is misspelt where it is rare is
//!   not found that way, unless an address finds it. `benches/resolve` prints the share that is found.
//!
//! Confidences depend on how common words are: of single names in a sample that is drawn anew every ten minutes, of
//! [`Names`] in all entities of these types.
//!
//! Scores are computed in the caller's task, some tens of microseconds for each name that the fuzzy tier is asked for. A batch is
//! looked up by a handful of statements, each of which has to end within `statement_timeout`: some thousands of names are as
//! cheap, for each, as more. [`Names`] takes inputs of any length, and looks a thousand up at a time.

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
