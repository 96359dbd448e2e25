//! The state of one connection's conversation, and the verdict on each message.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shared;
use super::fault::{Action, At, Fault};

/// The verdict on a message.
pub(super) enum Verdict {
    Pass,
    Discard,
    /// Send this in its place.
    Replace(Vec<u8>),
    /// Send this first.
    Precede(Vec<u8>),
    /// Send this in its place and cut.
    ReplaceAndCut(Vec<u8>),
    Suffer(Action),
}

/// A severity and a SQLSTATE.
type Error = (&'static str, &'static str);

/// A request for which the server owes a `ReadyForQuery`.
#[derive(Debug, Clone, Copy)]
struct Request {
    kind: Kind,
    /// The message that the client gets in place of the answer.
    error: Option<Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Begin,
    Commit,
    Rollback,
    /// A whole transaction.
    Whole,
    /// A request of the proxy: its answer is dropped.
    Secret,
    Other,
}

#[derive(Debug, Default)]
struct Transaction {
    of_fence: bool,
    fault: Option<Fault>,
    requests: usize,
    answers: usize,
}

pub(super) struct Conversation {
    shared: Arc<Shared>,
    /// Whether the client has not yet been told that its login succeeded.
    is_login: bool,
    transaction: Option<Transaction>,
    requests: VecDeque<Request>,
    /// The answer to a request of which the client has sent a part.
    error: Option<Error>,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.logged_in();
        self.transaction_ended();
    }
}

impl Conversation {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        // The server reports that it is ready once the client is logged in.
        let requests = VecDeque::from([Request { kind: Kind::Other, error: None }]);
        shared.state().logins += 1;
        Self { shared, is_login: true, transaction: None, requests, error: None }
    }

    /// The client has been told that its login succeeded, or never will be.
    pub(super) fn logged_in(&mut self) {
        self.shared.state().logins -= usize::from(std::mem::take(&mut self.is_login));
    }

    /// The verdict on a message of the client.
    pub(super) fn request(&mut self, message: &[u8]) -> Verdict {
        let kind = match message[0] {
            b'Q' => Kind::of(&message[5..]),
            _ => Kind::Other,
        };
        let action = match kind {
            Kind::Begin | Kind::Whole => {
                self.transaction_ended();
                self.transaction = (kind == Kind::Begin).then(Transaction::default);
                let fault = self.shared.take_if_at_begin();
                fault.map(|fault| self.happens(fault))
            }
            _ => self.fault_of_request(message, kind),
        };
        match action {
            Some(Action::SecretAbort) => self.requests.push_back(Request { kind: Kind::Secret, error: None }),
            Some(Action::Error { severity, code }) => self.error = Some((severity, code)),
            _ => {}
        }
        if matches!(message[0], b'Q' | b'S') {
            self.requests.push_back(Request { kind, error: self.error.take() });
        }
        match action {
            Some(Action::SecretAbort) => Verdict::Precede(query("select 1/0")),
            // A commit that is reported to the client as failed must fail.
            Some(Action::Error { .. }) if kind == Kind::Commit => Verdict::Replace(query("rollback")),
            Some(Action::Error { .. }) | None => Verdict::Pass,
            Some(action) => Verdict::Suffer(action),
        }
    }

    fn fault_of_request(&mut self, message: &[u8], kind: Kind) -> Option<Action> {
        let transaction = self.transaction.as_mut()?;
        if transaction.requests == 0 {
            // The fence names its column in a statement of its own, which is sent at once.
            transaction.of_fence = message[0] == b'P' && message.windows(6).any(|word| word == b"fenced");
            transaction.fault = self.shared.take(transaction.of_fence);
        }
        let number = transaction.requests;
        transaction.requests += 1;
        let fault = transaction.fault?;
        let commit = kind == Kind::Commit;
        let starts = matches!(message[0], b'P' | b'B' | b'Q');
        let due = match fault.at {
            _ if kind == Kind::Rollback => false,
            // Not before `commit`: no server loses a transaction after its last answer without an error.
            At::Request(at) if fault.action == Action::SecretAbort => number >= at && starts && !commit,
            At::Request(at) if fault.action.is_between_statements() => (number >= at && starts) || commit,
            At::Request(at) => number >= at || commit,
            At::Commit => commit,
            At::Begin | At::Answer(_) | At::CommitAnswer => false,
        };
        due.then(|| self.happens(fault))
    }

    /// The verdict on a message of the server.
    pub(super) fn answer(&mut self, message: &[u8]) -> Verdict {
        let (kind, ready) = (message[0], message[0] == b'Z');
        // Without a request, the message is the last one of the server.
        let Some(request) = self.requests.front().copied() else { return Verdict::Pass };
        if kind == b'G' {
            // During a `copy` the server ignores the client's `Sync`; the one after the data counts.
            self.error = request.error;
            self.requests.pop_front();
            return Verdict::Pass;
        }
        if kind == b'C' && request.kind == Kind::Commit && request.error.is_none() {
            let counts = &mut self.shared.state().counts;
            let committed = message[5..].starts_with(b"COMMIT");
            *(if committed { &mut counts.commits } else { &mut counts.commits_rolled_back }) += 1;
        }
        let action = self.fault_of_answer(request.kind);
        let error = match action {
            Some(Action::Error { severity, code }) => Some((severity, code)),
            _ => request.error,
        };
        self.requests[0].error = error;
        if ready {
            self.requests.pop_front();
            match request.kind {
                Kind::Commit => self.transaction_committed(),
                Kind::Rollback => self.transaction_ended(),
                _ => {}
            }
        }
        match (error, action) {
            (Some((severity, code)), _) if severity != "ERROR" => {
                Verdict::ReplaceAndCut(error_response(severity, code))
            }
            (Some((severity, code)), _) if ready => {
                Verdict::Replace([&error_response(severity, code)[..], message].concat())
            }
            (Some(_), _) => Verdict::Discard,
            // "No data" is sent only where a statement is described.
            (None, Some(Action::Mangle)) => Verdict::Replace(self::message(b'n', &[])),
            (None, Some(action)) => Verdict::Suffer(action),
            (None, None) if request.kind == Kind::Secret => Verdict::Discard,
            (None, None) => Verdict::Pass,
        }
    }

    fn fault_of_answer(&mut self, kind: Kind) -> Option<Action> {
        let transaction = self.transaction.as_mut()?;
        if matches!(kind, Kind::Begin | Kind::Rollback | Kind::Secret) {
            return None;
        }
        let number = transaction.answers;
        transaction.answers += 1;
        let fault = transaction.fault?;
        let commit = kind == Kind::Commit;
        let due = match fault.at {
            // No server reports a commit as failed that took place.
            _ if commit && matches!(fault.action, Action::Error { severity: "ERROR", .. }) => false,
            At::Answer(at) => number >= at || commit,
            At::CommitAnswer => commit,
            At::Begin | At::Request(_) | At::Commit => false,
        };
        due.then(|| self.happens(fault))
    }

    fn happens(&mut self, fault: Fault) -> Action {
        if let Some(transaction) = &mut self.transaction {
            transaction.fault = None;
        }
        self.shared.happened(fault);
        fault.action
    }

    fn transaction_committed(&mut self) {
        let transaction = self.transaction.take();
        self.shared.state().counts.missed += usize::from(transaction.is_some_and(|ended| ended.fault.is_some()));
    }

    fn transaction_ended(&mut self) {
        if let Some(Transaction { fault: Some(fault), of_fence, .. }) = self.transaction.take() {
            self.shared.put_back(fault, of_fence);
        }
    }
}

impl Kind {
    /// The meaning of a simple query.
    fn of(text: &[u8]) -> Self {
        match text.strip_suffix(b"\0").unwrap_or(text) {
            b"commit" => Self::Commit,
            b"rollback" => Self::Rollback,
            // A whole transaction in one message: it ends with the answer.
            text if text.ends_with(b"; commit") => Self::Whole,
            text if text.starts_with(b"begin") || text.windows(7).any(|words| words == b"; begin") => Self::Begin,
            _ => Self::Other,
        }
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

pub(super) fn error_response(severity: &str, code: &str) -> Vec<u8> {
    let body = format!("S{severity}\0V{severity}\0C{code}\0Mthe proxy says so\0\0");
    message(b'E', body.as_bytes())
}
