//! A proxy between the engine and the server that knows enough of PostgreSQL's protocol to fail at a chosen message.
//!
//! It reads whole messages in both directions, follows transactions from `begin` to `commit` or `rollback`, and fails
//! where a [`Fault`] says so. Faults are armed for future transactions, in order: the next epoch's transaction takes
//! the first of them, and so on. A plan that is drawn from a seed therefore depends on the seed alone, not on timing. A
//! fault whose transaction ended before its place goes back to the head of the line; one whose transaction was
//! committed without reaching its place is given up.
//!
//! "Cut" means that the client's connection ends at once, while the server finishes the messages that it got, as in a
//! network failure: a `commit` takes place if it was passed on.
//!
//! It speaks no TLS, and refuses it to clients that ask. It uses nothing of the crate and nothing of the other tests,
//! so that any program can include it.

mod conversation;
mod fault;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use fault::{Action, At, Fault};
use session::Session;

/// The proxy. Dropping it ends it and every connection through it.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// A proxy in front of the server of a connection string.
    pub async fn start(url: &str) -> Self {
        let upstream = url.parse().expect("a connection string");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (control, happened) = (watch::Sender::default(), watch::Sender::default());
        let shared = Arc::new(Shared { upstream, control, happened, state: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { shared, address, accepting }
    }

    /// A connection string of the same server that leads through the proxy.
    pub fn url_of(&self, url: &str) -> String {
        let config: tokio_postgres::Config = url.parse().expect("a connection string");
        let mut text = format!("host=127.0.0.1 port={}", self.address.port());
        let password = config.get_password().map(String::from_utf8_lossy);
        for (word, value) in [
            ("user", config.get_user()),
            ("password", password.as_deref()),
            ("dbname", config.get_dbname()),
            ("application_name", config.get_application_name()),
        ] {
            if let Some(value) = value {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                write!(text, " {word}='{value}'").expect("a string takes it");
            }
        }
        text
    }

    /// Arms a fault for the next transaction of an epoch that has none.
    pub fn on_next(&self, fault: Fault) {
        self.plan([Some(fault)]);
    }

    /// Arms a fault, or none, for each of the next transactions of epochs.
    pub fn plan(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.shared.state().of_epochs.extend(faults);
    }

    /// The same for transactions of the fence.
    pub fn plan_fences(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.shared.state().of_fences.extend(faults);
    }

    /// Forgets the armed faults; returns their number.
    pub fn disarm(&self) -> usize {
        let mut state = self.shared.state();
        let (of_epochs, of_fences) = (std::mem::take(&mut state.of_epochs), std::mem::take(&mut state.of_fences));
        of_epochs.into_iter().chain(of_fences).flatten().count()
    }

    /// Resolves when this many faults have happened since the start.
    pub async fn faults_happened(&self, count: usize) {
        let mut happened = self.shared.happened.subscribe();
        happened.wait_for(|happened| *happened >= count).await.expect("the proxy holds the sender");
    }

    /// Cuts every connection now.
    pub fn cut_all(&self) {
        self.shared.control.send_modify(|control| control.cuts += 1);
    }

    /// Closes the server's side of every connection now; the client's stays open and silent.
    pub fn half_open_all(&self) {
        self.shared.control.send_modify(|control| control.half_opens += 1);
    }

    /// Passes held messages on.
    pub fn release(&self) {
        self.shared.control.send_modify(|control| control.releases += 1);
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.shared.control.send_modify(|control| control.refuse = refuse);
    }

    /// Whether every login is answered with a fatal error of this code, as by a server without a free session or by a
    /// pooler without a server.
    pub fn fail_logins(&self, code: Option<&'static str>) {
        self.shared.control.send_modify(|control| control.login_error = code);
    }

    /// Whether nothing is passed on, of old connections and new ones. Delayed messages are passed on afterwards.
    pub fn stall(&self, stall: bool) {
        self.shared.control.send_modify(|control| control.stall = stall);
    }

    /// Whether messages are sent byte by byte.
    pub fn trickle(&self, trickle: bool) {
        self.shared.control.send_modify(|control| control.trickle = trickle);
    }

    /// The delay of each message, in both directions.
    pub fn set_delay(&self, delay: Option<Duration>) {
        self.shared.control.send_modify(|control| control.delay = delay);
    }

    /// Logins that are under way.
    pub fn logins(&self) -> usize {
        self.shared.state().logins
    }

    /// The events so far.
    pub fn counts(&self) -> Counts {
        self.shared.state().counts.clone()
    }
}

/// The observations and actions of a proxy.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub connections: usize,
    pub refused: usize,
    pub cancel_requests: usize,
    /// Transactions of epochs and of refreshes that began.
    pub transactions: usize,
    /// Transactions of the fence that began.
    pub fences: usize,
    /// `commit`s that the server answered with `COMMIT`.
    pub commits: usize,
    /// `commit`s that the server answered with `ROLLBACK`: the client sent them in failed transactions.
    pub commits_rolled_back: usize,
    /// Faults that happened, by name.
    pub faults: BTreeMap<String, usize>,
    /// Faults that were given up because their transaction did not reach their place.
    pub missed: usize,
}

impl Counts {
    /// Faults that are no longer waited for.
    pub fn done(&self) -> usize {
        self.faults.values().sum::<usize>() + self.missed
    }
}

/// Settings for all connections.
#[derive(Debug, Clone, Copy, Default)]
struct Control {
    /// A connection ends when this exceeds its value at the connection's start.
    cuts: usize,
    half_opens: usize,
    releases: usize,
    refuse: bool,
    login_error: Option<&'static str>,
    stall: bool,
    trickle: bool,
    delay: Option<Duration>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    logins: usize,
    of_epochs: VecDeque<Option<Fault>>,
    of_fences: VecDeque<Option<Fault>>,
}

#[derive(Debug)]
struct Shared {
    upstream: tokio_postgres::Config,
    control: watch::Sender<Control>,
    happened: watch::Sender<usize>,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault of a transaction that begins.
    fn take(&self, of_fence: bool) -> Option<Fault> {
        let mut state = self.state();
        if of_fence {
            state.counts.fences += 1;
            return state.of_fences.pop_front().flatten();
        }
        state.counts.transactions += 1;
        state.of_epochs.pop_front().flatten()
    }

    /// The fault of the next transaction, if its place is `begin`.
    fn take_if_at_begin(&self) -> Option<Fault> {
        let mut state = self.state();
        let fault = state.of_epochs.front().copied().flatten().filter(|fault| fault.at == At::Begin)?;
        state.of_epochs.pop_front();
        Some(fault)
    }

    /// Notes that a fault happens.
    fn happened(&self, fault: Fault) {
        *self.state().counts.faults.entry(fault.name()).or_default() += 1;
        self.happened.send_modify(|happened| *happened += 1);
    }

    /// Gives a fault that did not happen to the next transaction.
    fn put_back(&self, fault: Fault, of_fence: bool) {
        let mut state = self.state();
        let faults = if of_fence { &mut state.of_fences } else { &mut state.of_epochs };
        faults.push_front(Some(fault));
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, which ends every connection.
    let mut sessions = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while sessions.try_join_next().is_some() {}
        let refuse = shared.control.borrow().refuse;
        let counts = &mut shared.state().counts;
        if refuse {
            counts.refused += 1;
        } else {
            counts.connections += 1;
            sessions.spawn(serve(client, Arc::clone(&shared)));
        }
    }
}

/// Connects a client with the server. If the server is down, the client's connection ends.
async fn serve(client: TcpStream, shared: Arc<Shared>) {
    use tokio_postgres::config::Host;
    let port = shared.upstream.get_ports().first().copied().unwrap_or(5432);
    let session = Session::new(Arc::clone(&shared));
    match shared.upstream.get_hosts().first().expect("a host in the connection string") {
        Host::Tcp(host) => {
            if let Ok(server) = TcpStream::connect((host.as_str(), port)).await {
                server.set_nodelay(true).expect("a connected socket");
                session.run(client, server).await;
            }
        }
        Host::Unix(folder) => {
            if let Ok(server) = UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await {
                session.run(client, server).await;
            }
        }
    }
}
