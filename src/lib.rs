//! graphsink writes an evidence graph (entities, connections, mentions) into PostgreSQL in bulk:
//! fast, exactly once, always consistent, from inside the process that decides what to write.
//!
//! # The model
//!
//! A [`UnitOfWork`] is what a caller wants written atomically: entities, connections between them,
//! mentions on those connections. [`Engine::submit`] takes it and gives a [`Receipt`], a future
//! that resolves to the unit's one [`Outcome`]: committed (durable and whole, with the id of every
//! row), rejected (nothing was written, and why) or unavailable (unknown until the deadline;
//! submitting it again is always safe).
//!
//! <div>
#![doc = include_str!("guide/picture.svg")]
//! </div>
//!
//! Units that arrive while a transaction is under way are committed together by the next one (an
//! *epoch*): a single unit goes at once, and under load batches grow by themselves. What one epoch
//! says of one row is merged before it is sent. When as many rows or bytes are in flight as the
//! settings allow, `submit` waits; nothing is thrown away.
//!
//! The engine needs no agreement on an order. Every record is an observation, and the
//! merge rules say what two observations of one thing become: sets unite, the newest place and the
//! newest observation of a mention win, and a connection's figures follow from its mentions. That is
//! why a unit may be submitted twice, by two processes, or again after a crash, without a trace.
//!
//! # What holds
//!
//! - **Order, batching, repetition and the number of writers do not matter.** Every merge rule is
//!   commutative, associative and idempotent, so the same records leave the same database.
//! - **The figures of a connection equal a `GROUP BY` over its mentions**, at every moment at which
//!   they are read.
//! - **Every accepted unit gets exactly one outcome, and it is the truth**, also when the answer to
//!   a commit was lost.
//! - **A unit that PostgreSQL refuses does not harm its neighbours.**
//! - **Memory is bounded** by what may be in flight, in rows and in bytes.
//!
//! # A first example
//!
//! ```no_run
//! use graphsink::{Config, Engine, Mention, Migrations, SourceType, UnitOfWork};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let config = Config::builder("postgresql://localhost/evidence").build()?;
//!     Migrations::all().run(&config).await?;
//!     let engine = Engine::start(config).await?;
//!
//!     let mut unit = UnitOfWork::new();
//!     let franklin = unit.restaurant("franklin bbq").alias("Franklin's").handle();
//!     let brisket = unit.dish("brisket").handle();
//!     let connection = unit.connection(franklin, brisket).handle();
//!     let written_at = "2024-01-10T14:20:00Z".parse()?;
//!     let mention = Mention::new(SourceType::Comment, "t1_abc", "https://example.org/t1_abc", "austinfood", written_at);
//!     unit.mention(connection, mention.upvotes(67));
//!
//!     let committed = engine.submit(unit).await?.await.into_result()?;
//!     println!("franklin bbq is {}", committed.entities[0].id);
//!     engine.shutdown(std::time::Duration::from_secs(30)).await;
//!     Ok(())
//! }
//! ```
//!
//! # Where to go next
//!
//! | you want to | read |
//! |---|---|
//! | put the engine into your program | [`guide::embedding`] |
//! | load a history into empty tables | [`guide::bulk_loading`] |
//! | make it faster | [`guide::tuning`] |
//! | know what happens when something fails | [`guide::failure_semantics`] |
//! | run it: probes, alerts, what to do when | [`guide::operating`] |
//! | create or upgrade the tables, or move from what you have | [`guide::migrating`] |
//! | give it as few rights as possible, and encrypt | [`guide::security`] |
//! | find out which entity a name means, or make one entity of two | [`guide::resolving`] |
//! | look a metric or a span up | [`telemetry`] |
//! | look a setting up | [`ConfigBuilder`] |
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `config-file` | `ConfigBuilder::load`: settings from a TOML file and the environment |
//! | `embedded-server` | `server::EmbeddedServer`: a private PostgreSQL for examples and tests (Unix) |
//! | `loader` | `loader`: the JSON-lines input format and a generator of sample input |
//! | `resolver` | `resolve`: which entity a name means: exact, alias and fuzzy, in bulk |
//! | `tls` | encrypted connections (rustls): see [`Config::builder`] |
//!
//! # What may grow
//!
//! Types that a program only reads are `#[non_exhaustive]`: errors, reasons, rejections, reports, health, statistics.
//! They may get new fields and variants in any version, so a `match` on them needs a last arm. Types that a program
//! writes ([`Mention`], [`PlaceObservation`], [`EntityKey`]) or has to decide as a whole ([`Outcome`], [`Disposition`],
//! [`EntityType`], [`Table`]) are not, nor are small values that programs compare or take apart ([`CommittedRow`],
//! [`Unavailable`], [`TableStats`]): there a change comes with a new major version.
//!
//! No public type holds one of actix, tokio-postgres or refinery. An error says its SQLSTATE and whether trying
//! again may help.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod actor;
mod batch;
mod bulk;
mod commits;
mod config;
mod connection_string;
mod engine;
mod error;
mod failpoint;
mod flight;
pub mod guide;
mod hash;
mod label;
#[cfg(feature = "loader")]
pub mod loader;
mod merge;
mod outcome;
mod record;
#[cfg(feature = "resolver")]
pub mod resolve;
#[cfg(all(feature = "embedded-server", unix))]
pub mod server;
mod stats;
mod store;
pub mod telemetry;
mod tls;
mod unit;

pub use bulk::{
    BulkEnd, BulkError, BulkLoad, BulkOutcomes, BulkPhase, BulkProgress, BulkRejections, BulkReport, BulkRows,
    BulkSettings, SpillError,
};
pub use config::{AsOf, Config, ConfigBuilder};
pub use engine::{
    ActorHealth, Backlog, DatabaseHealth, Engine, EngineStatus, Health, Receipt, ResubmitReport, ShutdownReport,
};
pub use error::{
    BulkObstacle, BulkStoreError, ConfigError, DriverError, StartError, StoreError, SubmitError, UnfitTable,
};
#[doc(hidden)]
pub use label::ActorKind;
pub use merge::{EntityMerge, MergeOutcome, MergeRejection};
pub use outcome::{
    Committed, CommittedRow, Disposition, NotCommitted, Outcome, RejectReason, Rejection, Unavailable, UnavailableCause,
};
pub use record::{EntityKey, EntityName, EntityType, Mention, SourceType, Table, Timestamp, UnknownLabel, truncate};
pub use stats::{Distribution, HotConnection, Latency, PoolStats, Stats, TableStats};
pub use store::{MigrationReport, Migrations, RefreshReport};
pub use unit::limits;
#[doc(hidden)]
pub use unit::limits::METADATA_DEPTH_MAX;
pub use unit::{
    ConnectionBuilder, ConnectionHandle, ConnectionRef, EntityBuilder, EntityHandle, EntityRef, Field, InvalidUnit,
    MentionHandle, PlaceObservation, Row, UnitOfWork,
};

/// The README's example, compiled with the documentation's own.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
