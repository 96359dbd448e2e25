//! One connection: reads messages, and passes them on or not.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::conversation::{Conversation, Verdict, error_response};
use super::fault::Action;
use super::{Control, Shared};

const CANCEL_REQUEST: i32 = 80_877_102;
const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Passing,
    /// No message reaches the client.
    Swallowing,
    /// No message is passed on.
    Stalled,
    /// Only the client is still connected.
    HalfOpen,
    Cut,
}

pub(super) struct Session {
    shared: Arc<Shared>,
    born: Control,
    mode: watch::Sender<Mode>,
    conversation: Mutex<Conversation>,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        // The login is counted before anything can end it.
        let conversation = Mutex::new(Conversation::new(Arc::clone(&shared)));
        let born = *shared.control.borrow();
        Self { shared, born, mode: watch::Sender::default(), conversation }
    }

    fn conversation(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn run(self, mut client: TcpStream, server: impl AsyncRead + AsyncWrite) {
        client.set_nodelay(true).expect("a connected socket");
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let (born, shared) = (self.born, Arc::clone(&self.shared));
        let mode = tokio::select! {
            mode = self.ended() => mode,
            () = self.pass(&mut client, &mut from_server, &mut to_server) => Mode::Cut,
        };
        // A fault that did not happen here is free for other connections.
        drop(self);
        if mode == Mode::HalfOpen {
            drop((from_server, to_server));
            let mut sink = tokio::io::sink();
            tokio::select! {
                _ = tokio::io::copy(&mut client, &mut sink) => {}
                () = shared.until(|control| control.cuts > born.cuts) => {}
            }
            return;
        }
        drop(client);
        // The server finishes the messages that it got. Errors of a server that is gone are ignored.
        drop(to_server.shutdown().await);
        drop(tokio::io::copy(&mut from_server, &mut tokio::io::sink()).await);
    }

    /// Resolves when the connection is to end, with the way it ends.
    async fn ended(&self) -> Mode {
        let (born, mut mode) = (self.born, self.mode.subscribe());
        tokio::select! {
            mode = mode.wait_for(|mode| matches!(mode, Mode::Cut | Mode::HalfOpen)) => *mode.expect("held by self"),
            () = self.shared.until(|control| control.cuts > born.cuts) => Mode::Cut,
            () = self.shared.until(|control| control.half_opens > born.half_opens) => Mode::HalfOpen,
        }
    }

    /// Passes messages in both directions, until the server ends the connection.
    async fn pass(
        &self,
        client: &mut TcpStream,
        from_server: &mut (impl AsyncRead + Unpin),
        to_server: &mut (impl AsyncWrite + Unpin),
    ) {
        let (mut from_client, mut to_client) = client.split();
        if self.start_up(&mut from_client, &mut to_client, to_server).await.is_err() {
            return;
        }
        let requests = async {
            // Ends when the client is gone: the server notices, and may finish.
            drop(self.pass_requests(&mut from_client, to_server).await);
            drop(to_server.shutdown().await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = requests => {}
            () = self.pass_answers(from_server, &mut to_client) => {}
        }
    }

    /// The messages before the protocol proper, which have no type.
    async fn start_up(
        &self,
        from_client: &mut (impl AsyncRead + Unpin),
        to_client: &mut (impl AsyncWrite + Unpin),
        to_server: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        loop {
            let length = from_client.read_i32().await?;
            let mut packet = length.to_be_bytes().to_vec();
            packet.resize(length.clamp(8, 65_536) as usize, 0);
            from_client.read_exact(&mut packet[4..]).await?;
            self.gate(false).await;
            match i32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]) {
                SSL_REQUEST | GSS_REQUEST => to_client.write_all(b"N").await?,
                code => {
                    let login_error = self.shared.control.borrow().login_error;
                    if let Some(login_error) = login_error {
                        to_client.write_all(&error_response("FATAL", login_error)).await?;
                        return Err(io::ErrorKind::ConnectionRefused.into());
                    }
                    self.shared.state().counts.cancel_requests += usize::from(code == CANCEL_REQUEST);
                    return to_server.write_all(&packet).await;
                }
            }
        }
    }

    async fn pass_requests(
        &self,
        client: &mut (impl AsyncRead + Unpin),
        server: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        // Whether the server has the beginning of a statement and not its end.
        let mut is_within_statement = false;
        loop {
            let message = read(client).await?;
            self.gate(is_within_statement).await;
            is_within_statement = !matches!(message[0], b'Q' | b'S');
            // Before the fault is counted, after which a test may release the held message.
            let releases = self.releases();
            let verdict = self.conversation().request(&message);
            match verdict {
                Verdict::Pass => self.write(server, &message).await?,
                Verdict::Discard => {}
                Verdict::Replace(other) | Verdict::ReplaceAndCut(other) => self.write(server, &other).await?,
                Verdict::Precede(other) => {
                    self.write(server, &other).await?;
                    self.write(server, &message).await?;
                }
                Verdict::Suffer(action) => {
                    if self.suffer(action, releases).await || action == Action::Swallow {
                        self.write(server, &message).await?;
                    }
                    self.cut_after(action);
                }
            }
        }
    }

    /// Goes on when the client is gone: the server must be able to send its answers.
    async fn pass_answers(&self, server: &mut (impl AsyncRead + Unpin), client: &mut (impl AsyncWrite + Unpin)) {
        while let Ok(message) = read(server).await {
            self.gate(false).await;
            let releases = self.releases();
            let verdict = self.conversation().answer(&message);
            match verdict {
                Verdict::Pass => self.tell(client, &message).await,
                Verdict::Discard => {}
                Verdict::Replace(other) | Verdict::Precede(other) => self.tell(client, &other).await,
                Verdict::ReplaceAndCut(other) => {
                    self.tell(client, &other).await;
                    self.mode.send_replace(Mode::Cut);
                }
                Verdict::Suffer(action) => {
                    if self.suffer(action, releases).await {
                        self.tell(client, &message).await;
                    }
                    self.cut_after(action);
                }
            }
            if message[0] == b'Z' {
                self.conversation().logged_in();
            }
        }
    }

    /// Carries a fault out; returns whether the message is passed on after that.
    async fn suffer(&self, action: Action, releases: usize) -> bool {
        let enter = |mode| {
            self.mode.send_replace(mode);
            false
        };
        match action {
            Action::Delay(delay) => {
                tokio::time::sleep(delay).await;
                true
            }
            Action::Hold => {
                self.shared.until(|control| control.releases > releases).await;
                true
            }
            Action::PassAndCut => true,
            Action::Cut => enter(Mode::Cut),
            Action::Swallow => enter(Mode::Swallowing),
            Action::Stall => enter(Mode::Stalled),
            Action::HalfOpen => enter(Mode::HalfOpen),
            Action::Error { .. } | Action::Mangle | Action::SecretAbort => {
                unreachable!("these are verdicts of their own")
            }
        }
    }

    fn releases(&self) -> usize {
        self.shared.control.borrow().releases
    }

    fn cut_after(&self, action: Action) {
        if action == Action::PassAndCut {
            self.mode.send_replace(Mode::Cut);
        }
    }

    /// Waits while messages are held back. The rest of a statement is not held back by a stall that began at the answer
    /// to an earlier one ([`Action::is_between_statements`]).
    async fn gate(&self, is_within_statement: bool) {
        let mut mode = self.mode.subscribe();
        let passing = mode.wait_for(|mode| match mode {
            Mode::Passing | Mode::Swallowing => true,
            Mode::Stalled => is_within_statement,
            Mode::HalfOpen | Mode::Cut => false,
        });
        passing.await.expect("held by self");
        self.shared.until(|control| !control.stall).await;
        let delay = self.shared.control.borrow().delay;
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
    }

    /// Errors of a receiver that is gone or does not read are ignored.
    async fn tell(&self, client: &mut (impl AsyncWrite + Unpin), message: &[u8]) {
        if *self.mode.borrow() != Mode::Swallowing {
            drop(self.write(client, message).await);
        }
    }

    async fn write(&self, to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
        if !self.shared.control.borrow().trickle {
            return to.write_all(message).await;
        }
        for byte in message {
            to.write_all(&[*byte]).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

impl Shared {
    async fn until(&self, reached: impl FnMut(&Control) -> bool) {
        self.control.subscribe().wait_for(reached).await.expect("held by self");
    }
}

/// A message with its type and length.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message).await?;
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]) as usize;
    message.resize(length + 1, 0);
    from.read_exact(&mut message[5..]).await?;
    Ok(message)
}
