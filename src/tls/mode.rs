//! Modes, and how to connect in each.

use std::fmt;

use tokio_postgres::config::SslMode;

/// What makes TLS sessions for the pool, for migrations and for cancel requests.
#[cfg(feature = "tls")]
pub(crate) type MakeTls = tokio_postgres_rustls::MakeRustlsConnect;
/// Without the feature `tls` nothing does.
#[cfg(not(feature = "tls"))]
pub(crate) type MakeTls = tokio_postgres::NoTls;

/// What a connection string asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// How to connect, ready for use.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(super) mode: Mode,
    pub(super) make: MakeTls,
}

/// Not derived: a private key may be in it.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.mode, f)
    }
}

impl Tls {
    /// A copy for one connection, or for what makes many.
    #[cfg_attr(not(feature = "tls"), allow(clippy::clone_on_copy))]
    pub(crate) fn make(&self) -> MakeTls {
        self.make.clone()
    }

    /// The ways to connect, one after the other: the next is for where the server refused the one before. There is more
    /// than one for `allow` alone, which is encrypted only where a plain connection is refused.
    pub(crate) fn ways(&self, postgres: &tokio_postgres::Config) -> Vec<tokio_postgres::Config> {
        let mut ways = vec![postgres.clone()];
        if self.mode == Mode::Allow && cfg!(feature = "tls") {
            let mut encrypted = postgres.clone();
            encrypted.ssl_mode(SslMode::Require);
            ways.push(encrypted);
        }
        ways
    }
}
