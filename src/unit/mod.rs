//! Units of work: the rows that a caller wants to be written atomically.
//!
//! [`UnitOfWork`] collects rows and returns handles by which later rows refer to earlier ones. Nothing is checked while
//! it is built; [`UnitOfWork::validate`] checks every rule at once, in the caller's task, before the engine accepts
//! anything. [`Unit`] is the engine's form. Both store their rows in one block.
//!
//! Not checked here: whether an id exists, which only the database knows.

mod blank;
mod block;
mod document;
mod draft;
mod invalid;
mod labels;
pub mod limits;
mod names;
mod prepared;
mod row;
mod validate;

pub(crate) use blank::is_blank;
pub(crate) use block::{Block, ConnectionRecordName, EntityRecord, MentionRecord, Texts};
pub(crate) use document::UnitDocument;
pub use draft::{
    ConnectionBuilder, ConnectionHandle, ConnectionRef, EntityBuilder, EntityHandle, EntityRef, MentionHandle,
    PlaceObservation, UnitOfWork,
};
pub use invalid::{Field, InvalidUnit};
pub(crate) use labels::Labels;
pub(crate) use names::{AsItIs, NameHash, name_of_bytes, name_of_text};
pub(crate) use prepared::{FactHash, PreparedUnit, PreparedUnits, SharedUnit, TypedUse, Unit};
pub use row::Row;
