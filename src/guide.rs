//! How to use graphsink, page by page. Each page answers one question; start with [`embedding`].
//!
//! | page | question |
//! |---|---|
//! | [`embedding`] | how do I use the engine in my program? |
//! | [`bulk_loading`] | how do I load years of history into empty tables? |
//! | [`tuning`] | which settings matter, and how can I tell? |
//! | [`failure_semantics`] | what happens to my units when something fails? |
//! | [`operating`] | what do I monitor, and what do I do when an alert fires? |
//! | [`migrating`] | how are the tables created and changed, and how do I move to them? |
//! | [`security`] | which rights does it need, and which data may appear in logs? |
//! | [`resolving`] | which entity does a name mean, and how do two become one? |

#[doc = include_str!("guide/embedding.md")]
pub mod embedding {}

#[doc = include_str!("guide/bulk_loading.md")]
pub mod bulk_loading {}

#[doc = include_str!("guide/tuning.md")]
#[doc = crate::config::tuning_table!()]
pub mod tuning {}

#[doc = include_str!("guide/failure_semantics.md")]
pub mod failure_semantics {}

#[doc = include_str!("guide/operating.md")]
pub mod operating {}

#[doc = include_str!("guide/migrating.md")]
pub mod migrating {}

#[doc = include_str!("guide/security.md")]
pub mod security {}

#[doc = include_str!("guide/resolving.md")]
pub mod resolving {}
