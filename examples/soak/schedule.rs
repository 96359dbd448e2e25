//! The faults and their times: drawn up front, from the seed alone.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// All connections break.
    CutAll,
    /// A connection breaks instead of forwarding its commit.
    CutBeforeCommit,
    /// A connection breaks when its commit was forwarded.
    CutAfterCommit,
    /// A connection breaks when the answer to its commit is on its way back.
    CutCommitAnswer,
    /// The answer to a commit never arrives.
    SwallowAnswer,
    /// A commit is held back and reaches the server much later.
    HoldCommit,
    /// No message is passed on, and no connection breaks.
    Stall,
    /// All messages are delayed.
    Slow,
    /// All connections lose their server's end, and the client does not notice.
    HalfOpen,
    /// Messages are sent byte by byte.
    Trickle,
    /// New connections are closed at once, and the old ones are cut.
    Refuse,
    /// Any fault at any message of a transaction.
    AnyMessage,
    /// A commit gets no answer, and then a fault hits the question to the fence.
    Fence,
    /// Backends are terminated by an administrator.
    Terminate,
    /// Backends are terminated while they commit.
    TerminateInCommit,
    /// The server is killed with SIGKILL and started again.
    Crash,
    /// The server is stopped (fast shutdown) and started again.
    Restart,
    /// Another client takes all connections.
    Exhaust,
    /// Another client locks a table.
    LockTable,
    /// Another client locks rows in the reverse order.
    HostileRows,
    /// Writes are refused as on a read-only server.
    ReadOnly,
    /// The server raises a transient error.
    Raise,
    /// The same at a commit.
    RaiseAtCommit,
    /// The engines' role loses a privilege.
    Revoke,
    /// An actor panics.
    KillActor,
    /// An engine is shut down with a short deadline, and another takes its place.
    RestartEngine,
    /// Producers drop receipts.
    DropReceipts,
    /// Producers cancel calls of `submit`.
    CancelSubmits,
}

impl Kind {
    /// Each kind, its frequency in the deck, and its duration in milliseconds.
    const DECK: [(Self, usize, (u64, u64)); 28] = [
        (Self::CutAll, 2, (0, 1)),
        (Self::CutBeforeCommit, 2, (0, 1)),
        (Self::CutAfterCommit, 4, (0, 1)),
        (Self::CutCommitAnswer, 4, (0, 1)),
        (Self::SwallowAnswer, 2, (0, 1)),
        (Self::HoldCommit, 3, (300, 3_000)),
        (Self::Stall, 2, (100, 2_500)),
        (Self::Slow, 2, (200, 1_500)),
        (Self::HalfOpen, 1, (0, 1)),
        (Self::Trickle, 1, (200, 1_000)),
        (Self::Refuse, 1, (100, 1_500)),
        (Self::AnyMessage, 8, (50, 1_000)),
        (Self::Fence, 3, (50, 1_000)),
        (Self::Terminate, 3, (0, 1)),
        (Self::TerminateInCommit, 3, (300, 800)),
        (Self::Crash, 2, (0, 1_500)),
        (Self::Restart, 1, (0, 1)),
        (Self::Exhaust, 1, (300, 1_500)),
        (Self::LockTable, 2, (100, 1_500)),
        (Self::HostileRows, 3, (200, 1_000)),
        (Self::ReadOnly, 1, (100, 1_500)),
        (Self::Raise, 4, (100, 1_000)),
        (Self::RaiseAtCommit, 2, (100, 600)),
        (Self::Revoke, 1, (100, 1_500)),
        (Self::KillActor, 5, (0, 1)),
        (Self::RestartEngine, 2, (0, 400)),
        (Self::DropReceipts, 1, (500, 1_500)),
        (Self::CancelSubmits, 1, (500, 1_500)),
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::CutAll => "cut_all",
            Self::CutBeforeCommit => "cut_before_commit",
            Self::CutAfterCommit => "cut_after_commit",
            Self::CutCommitAnswer => "cut_commit_answer",
            Self::SwallowAnswer => "swallow_answer",
            Self::HoldCommit => "hold_commit",
            Self::Stall => "stall",
            Self::Slow => "slow",
            Self::HalfOpen => "half_open",
            Self::Trickle => "trickle",
            Self::Refuse => "refuse_connections",
            Self::AnyMessage => "any_message",
            Self::Fence => "fence",
            Self::Terminate => "terminate",
            Self::TerminateInCommit => "terminate_in_commit",
            Self::Crash => "crash",
            Self::Restart => "restart",
            Self::Exhaust => "exhaust_connections",
            Self::LockTable => "lock_table",
            Self::HostileRows => "hostile_rows",
            Self::ReadOnly => "read_only",
            Self::Raise => "raise",
            Self::RaiseAtCommit => "raise_at_commit",
            Self::Revoke => "revoke",
            Self::KillActor => "kill_actor",
            Self::RestartEngine => "restart_engine",
            Self::DropReceipts => "drop_receipts",
            Self::CancelSubmits => "cancel_submits",
        }
    }
}

/// One fault of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The time since the start, without checks.
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    pub(crate) lasts: Duration,
    /// Selects the details that the kind leaves open: engine, table, SQLSTATE, share.
    pub(crate) choice: u32,
}

impl Fault {
    /// One of `options`.
    pub(crate) fn choose<T: Copy>(&self, options: &[T]) -> T {
        options[self.choice as usize % options.len()]
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, kind, lasts, choice } = self;
        write!(f, "{:>9.3} s  {:<20} for {:>5} ms, choice {choice}", at.as_secs_f64(), kind.as_str(), lasts.as_millis())
    }
}

/// All faults of a run, in order of time.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) faults: Vec<Fault>,
}

impl Schedule {
    /// Times between faults are exponentially distributed; kinds are dealt from a shuffled deck, so that a short run
    /// sees most of them.
    pub(crate) fn draw(seed: u64, length: Duration, rate: f64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut deck = Vec::new();
        let mut faults = Vec::new();
        let mut at = 0.0;
        loop {
            at -= (1.0 - random.random::<f64>()).ln() / rate;
            if at >= length.as_secs_f64() {
                return Self { faults };
            }
            if deck.is_empty() {
                deck = Kind::DECK.iter().flat_map(|card| std::iter::repeat_n(card, card.1)).collect();
                deck.shuffle(&mut random);
            }
            let (kind, _, (shortest, longest)) = *deck.pop().expect("the deck was just filled");
            let at = Duration::from_micros((at * 1e6) as u64);
            let lasts = Duration::from_millis(random.random_range(shortest..longest));
            faults.push(Fault { at, kind, lasts, choice: random.random() });
        }
    }

    /// The faults between two times.
    pub(crate) fn between(&self, times: &Range<Duration>) -> Vec<Fault> {
        self.faults.iter().filter(|fault| times.contains(&fault.at)).copied().collect()
    }

    /// A hash that is equal for equal schedules (FNV-1a of the printed text).
    pub(crate) fn hash(&self) -> String {
        let text = self.to_string();
        let hash = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("{hash:016x}")
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        Ok(())
    }
}
