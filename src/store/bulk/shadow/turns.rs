//! Which step gets a session next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::record::Table;

/// The order of steps that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    Copy,
    Build(Table),
    ForeignKeys,
}

impl Priority {
    /// Higher ones come first. Connections have the most indexes, and entities the smallest. Foreign keys wait until
    /// no step to build is left, because others wait for these: at the end all sessions have one.
    const fn rank(self) -> u8 {
        match self {
            Self::Copy => 4,
            Self::Build(Table::Connections) => 3,
            Self::Build(Table::Mentions) => 2,
            Self::Build(Table::Entities) => 1,
            Self::ForeignKeys => 0,
        }
    }
}

/// Lends items to those that wait for one, by priority, and then in the order of their asking.
#[derive(Debug)]
pub(super) struct Turns<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    free: Vec<T>,
    waiting: BinaryHeap<Waiting<T>>,
    asked: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    turn: (u8, Reverse<u64>),
    sender: oneshot::Sender<T>,
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.turn == other.turn
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.turn.cmp(&other.turn)
    }
}

impl<T> Turns<T> {
    pub(super) fn new(free: Vec<T>) -> Self {
        Self(Mutex::new(State { free, waiting: BinaryHeap::new(), asked: 0 }))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an item. One that is not given back is lost: if all are, this waits for ever.
    pub(super) async fn take(&self, priority: Priority) -> T {
        let receiver = {
            let mut state = self.state();
            if let Some(item) = state.free.pop() {
                return item;
            }
            let (sender, receiver) = oneshot::channel();
            let turn = (priority.rank(), Reverse(state.asked));
            state.asked += 1;
            state.waiting.push(Waiting { turn, sender });
            receiver
        };
        match receiver.await {
            Ok(item) => item,
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives an item to the next that waits, or keeps it.
    pub(super) fn give(&self, mut item: T) {
        let mut state = self.state();
        while let Some(next) = state.waiting.pop() {
            // A future that was dropped no longer waits.
            match next.sender.send(item) {
                Ok(()) => return,
                Err(back) => item = back,
            }
        }
        state.free.push(item);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn an_item_goes_to_the_first_of_the_highest_priority_that_still_waits() {
        let turns = Turns::new(vec!["item"]);
        let item = turns.take(Priority::Build(Table::Entities)).now_or_never().unwrap();
        let asked = [
            Priority::ForeignKeys,
            Priority::Build(Table::Entities),
            Priority::Build(Table::Connections),
            Priority::Copy,
            Priority::Copy,
            Priority::Build(Table::Mentions),
        ];
        let mut waiting: Vec<_> = asked.iter().map(|priority| Some(Box::pin(turns.take(*priority)))).collect();
        for wait in waiting.iter_mut().flatten() {
            assert!(wait.now_or_never().is_none(), "there is none");
        }
        // The second copy is given up.
        waiting[4] = None;
        turns.give(item);
        for expected in [3, 2, 5, 1, 0] {
            let ready = waiting.iter_mut().position(|wait| {
                wait.as_mut().is_some_and(|wait| {
                    wait.now_or_never().is_some_and(|item| {
                        turns.give(item);
                        true
                    })
                })
            });
            assert_eq!(ready, Some(expected));
            waiting[expected] = None;
        }
        assert_eq!(turns.take(Priority::Copy).now_or_never(), Some("item"));
    }
}
