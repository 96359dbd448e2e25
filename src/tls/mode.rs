//! Modes, and the connection methods of each.

use std::fmt;

use tokio_postgres::config::SslMode;

/// The factory of TLS sessions for the pool, for migrations and for cancel requests.
#[cfg(feature = "tls")]
pub(crate) type MakeTls = tokio_postgres_rustls::MakeRustlsConnect;
/// Without the feature `tls` there are no TLS sessions.
#[cfg(not(feature = "tls"))]
pub(crate) type MakeTls = tokio_postgres::NoTls;

/// The mode of a connection string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The prepared connection method.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(super) mode: Mode,
    pub(super) make: MakeTls,
}

/// Not derived: it may contain a private key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.mode, f)
    }
}

impl Tls {
    /// A copy for one connection, or for a factory of many.
    #[cfg_attr(not(feature = "tls"), allow(clippy::clone_on_copy))]
    pub(crate) fn make(&self) -> MakeTls {
        self.make.clone()
    }

    /// The connection methods, one after the other: the next is used if the server refused the previous one. Only
    /// `allow` has more than one: it encrypts only if a plain connection is refused.
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
