//! Units whose outcome could not be established.

use std::fmt;
use std::sync::Arc;

use crate::error::StoreError;

/// Why the outcome of a unit is unknown. [`Outcome`](crate::Outcome) has an example.
///
/// ```
/// fn log(why: &graphsink::Unavailable) {
///     println!("no outcome after {} tries: {}; submit the unit again", why.attempts, why.cause);
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Unavailable {
    /// Whether a commit was sent whose answer never came. If false, nothing was written.
    pub commit_under_way: bool,
    /// Number of attempted transactions.
    pub attempts: u32,
    /// The last obstacle.
    pub cause: UnavailableCause,
}

/// Why there is no outcome.
///
/// ```
/// use graphsink::UnavailableCause;
///
/// assert_eq!(UnavailableCause::ShutDown.to_string(), "the engine was shut down first");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum UnavailableCause {
    /// The database could not be used until the deadline.
    Database(Arc<StoreError>),
    /// The engine was shut down before the unit's turn.
    ShutDown,
    /// The engine failed: its actors died more often than it may restart them.
    EngineFailed,
}

impl fmt::Display for UnavailableCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(_) => f.write_str("the database could not be used until the deadline"),
            Self::ShutDown => f.write_str("the engine was shut down first"),
            Self::EngineFailed => f.write_str("the engine failed, start another"),
        }
    }
}

impl Unavailable {
    /// The SQLSTATE, where PostgreSQL itself stood in the way last.
    ///
    /// ```no_run
    /// # async fn run(receipt: graphsink::Receipt) {
    /// if let graphsink::Outcome::Unavailable(why) = receipt.await {
    ///     eprintln!("{why} ({})", why.sqlstate().unwrap_or("the server said nothing"));
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match &self.cause {
            UnavailableCause::Database(error) => error.sqlstate(),
            UnavailableCause::ShutDown | UnavailableCause::EngineFailed => None,
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.commit_under_way { "a commit was under way" } else { "nothing was written" };
        write!(f, "no outcome after {} attempts, {state}: {}; trying again is always safe", self.attempts, self.cause)
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            UnavailableCause::Database(error) => Some(&**error),
            UnavailableCause::ShutDown | UnavailableCause::EngineFailed => None,
        }
    }
}
