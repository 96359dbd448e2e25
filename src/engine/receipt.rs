//! The promise of an outcome.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::channel::oneshot;

use crate::outcome::{Outcome, Told, Unavailable, UnavailableCause};

/// A future that resolves to the [`Outcome`] of an accepted unit. It may be awaited on any runtime, or dropped: the
/// unit is written all the same. The ids of some hundred units that were committed together are kept until the last of
/// their receipts has resolved or is dropped, so do not keep a receipt that is not awaited.
///
/// ```no_run
/// # async fn run(engine: graphsink::Engine, unit: graphsink::UnitOfWork) -> Result<(), graphsink::SubmitError> {
/// let receipt = engine.submit(unit).await?;
/// let number = receipt.number();
/// println!("unit {number} was {}", receipt.await.as_str());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the outcome is told where the receipt is awaited; drop it explicitly if the outcome does not matter"]
pub struct Receipt {
    number: u64,
    outcome: oneshot::Receiver<Told>,
}

impl Receipt {
    pub(crate) const fn new(number: u64, outcome: oneshot::Receiver<Told>) -> Self {
        Self { number, outcome }
    }

    /// The unit's number, ascending in the order of acceptance, unique within the engine.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine, unit: graphsink::UnitOfWork) -> Result<(), graphsink::SubmitError> {
    /// let receipt = engine.submit(unit).await?;
    /// println!("accepted as unit {}", receipt.number());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }
}

impl Future for Receipt {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(context));
        Poll::Ready(outcome.map_or_else(|_| never_told(), Outcome::from))
    }
}

/// A fallback: the engine settles every unit before it ends.
fn never_told() -> Outcome {
    let cause = UnavailableCause::EngineFailed;
    Outcome::Unavailable(Unavailable { commit_under_way: true, attempts: 0, cause })
}
