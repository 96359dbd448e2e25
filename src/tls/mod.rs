//! Encryption of the connection to the server, with libpq's parameters.
//!
//! tokio-postgres supports the modes `disable`, `prefer` and `require`, and leaves certificates to the implementation
//! of TLS sessions. So the parameters about TLS are removed from a connection string before tokio-postgres parses the
//! rest, and are read and checked here, once, when the settings are built.
//!
//! | `sslmode` | encrypted | the server's certificate |
//! |---|---|---|
//! | `disable` | no | |
//! | `allow` | if the server refuses a plain connection | not checked |
//! | `prefer` (default) | if the server offers it | not checked |
//! | `require` | yes | chain checked if there is a root certificate (`sslrootcert` or the default file) |
//! | `verify-ca` | yes | chain checked |
//! | `verify-full` | yes | chain and host name checked |
//!
//! `sslrootcert` is a file, or `system` for the authorities that the machine trusts; the default is
//! `~/.postgresql/root.crt`. `sslcert` and `sslkey` are the client's own.
//!
//! Differences from libpq: `prefer` does not fall back to plain text when a handshake fails; host names are searched
//! only in the certificate's alternative names, never in its common name; a client certificate is only sent if it is
//! named. As in libpq, none of this applies to Unix sockets.
//!
//! The TLS session is made by tokio-postgres-rustls, on rustls with `ring`: it is maintained, small, and makes channel
//! binding possible. It knows none of these modes; `postgres_rustls` neither, and asks for a newer compiler than this crate.
//!
//! A connection string contains a password, and a misplaced quote may have put it anywhere: no error quotes any part of
//! it.

#[cfg(feature = "tls")]
mod certificates;
mod mode;
mod parameters;
mod parse;

pub(crate) use mode::{MakeTls, Tls};
pub(crate) use parse::parse;
