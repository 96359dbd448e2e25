//! The builder of units.

mod connection;
mod entity;
mod handles;
mod mention;
mod place;
mod unit_of_work;

pub use connection::ConnectionBuilder;
pub use entity::EntityBuilder;
pub use handles::{ConnectionHandle, ConnectionRef, EntityHandle, EntityRef, MentionHandle};
pub use place::PlaceObservation;
pub use unit_of_work::UnitOfWork;
