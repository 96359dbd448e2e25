//! Faults, and their places.

use std::time::Duration;

use rand::Rng;

/// The place in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// At `begin` of the next transaction of any kind: the proxy cannot tell its kind yet.
    Begin,
    /// At the client's n-th message after `begin`, from 0; at `commit` if that comes first.
    Request(usize),
    /// At the server's n-th message after its answer to `begin`; at the answer to `commit` if that comes first.
    Answer(usize),
    /// At `commit`, which the server has not received.
    Commit,
    /// At the server's answer to `commit`, which the client has not received.
    CommitAnswer,
}

/// The fault at that place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The message is not passed on, and the connection is cut.
    Cut,
    /// The message is passed on, and then the connection is cut.
    PassAndCut,
    /// The message is passed on after this time, whether or not the client is still connected.
    Delay(Duration),
    /// The message is passed on when [`Proxy::release`] is called, whether or not the client is still connected.
    Hold,
    /// The message is passed on if it is the client's; the client receives no further message.
    Swallow,
    /// No further message is passed on, in either direction; both sides stay connected.
    Stall,
    /// No further message is passed on; the server's side is closed, the client's stays open.
    HalfOpen,
    /// The client gets this error in place of the answer. A severity other than `ERROR` also cuts the connection. In
    /// place of `commit` the server gets `rollback`.
    Error { severity: &'static str, code: &'static str },
    /// In place of the server's message the client gets one that is out of place there.
    Mangle,
    /// The server's transaction is made to fail unknown to the client, before the message's statement is passed on.
    SecretAbort,
}

impl Action {
    /// Whether the fault comes between two statements, and not between the messages of one. Messages of a statement
    /// travel together, and a server waits for the rest of a statement without limit.
    pub(super) const fn is_between_statements(self) -> bool {
        matches!(self, Self::Hold | Self::Stall | Self::SecretAbort)
    }
}

/// A fault that happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub at: At,
    pub action: Action,
}

impl Fault {
    pub const CUT_BEFORE_COMMIT: Self = Self { at: At::Commit, action: Action::Cut };
    pub const CUT_AFTER_COMMIT: Self = Self { at: At::Commit, action: Action::PassAndCut };
    pub const CUT_AFTER_ANSWER: Self = Self { at: At::CommitAnswer, action: Action::Cut };
    pub const HOLD_COMMIT: Self = Self { at: At::Commit, action: Action::Hold };
    pub const SWALLOW_ANSWER: Self = Self { at: At::CommitAnswer, action: Action::Swallow };

    pub const fn at(at: At, action: Action) -> Self {
        Self { at, action }
    }

    /// A cut at any message of a transaction.
    pub fn random_cut(random: &mut impl Rng) -> Self {
        let at = match random.random_range(0..4) {
            0 => At::Request(random.random_range(0..50)),
            1 => At::Answer(random.random_range(0..50)),
            2 => At::Commit,
            _ => At::CommitAnswer,
        };
        Self { at, action: if random.random() { Action::Cut } else { Action::PassAndCut } }
    }

    /// Any fault at any message of a transaction. Connections that fall silent are rarer than cuts, because each costs
    /// the client a timeout; delays last up to `delay_max`.
    pub fn random(random: &mut impl Rng, delay_max: Duration) -> Self {
        let Self { at, action: cut } = Self::random_cut(random);
        let of_commit = matches!(at, At::Commit | At::CommitAnswer);
        let action = match random.random_range(0..20) {
            0 => Action::Swallow,
            1 => Action::Stall,
            2 => Action::HalfOpen,
            3..7 => Action::Delay(delay_max.mul_f64(random.random())),
            7 => Action::Error { severity: "FATAL", code: "57P01" },
            8 => Action::Error { severity: "FATAL", code: "08P01" },
            9 if !of_commit => Action::Error { severity: "ERROR", code: "40001" },
            10 if !matches!(at, At::Answer(_)) && !of_commit => Action::SecretAbort,
            _ => cut,
        };
        Self { at, action }
    }

    /// The kind of the fault, without its numbers.
    pub(super) fn name(self) -> String {
        let at = match self.at {
            At::Begin => "begin",
            At::Request(_) => "request",
            At::Answer(_) => "answer",
            At::Commit => "commit",
            At::CommitAnswer => "commit answer",
        };
        let action = match self.action {
            Action::Cut => "cut",
            Action::PassAndCut => "pass and cut",
            Action::Delay(_) => "delay",
            Action::Hold => "hold",
            Action::Swallow => "swallow",
            Action::Stall => "stall",
            Action::HalfOpen => "half open",
            Action::Error { code, .. } => code,
            Action::Mangle => "mangle",
            Action::SecretAbort => "secret abort",
        };
        format!("{at}: {action}")
    }
}
