//! Encryption of the way to the server, with libpq's words for it.
//!
//! tokio-postgres knows the modes `disable`, `prefer` and `require`, and leaves certificates to what makes the TLS
//! session. So the parameters about TLS are taken out of a connection string before it parses the rest, and what they ask
//! for is read and checked here, once, when the settings are.
//!
//! | `sslmode` | encrypted | the server's certificate |
//! |---|---|---|
//! | `disable` | no | |
//! | `allow` | if the server takes no plain connection | not checked |
//! | `prefer` (default) | if the server offers it | not checked |
//! | `require` | yes | chain checked if there is a root certificate (`sslrootcert` or the default file) |
//! | `verify-ca` | yes | chain checked |
//! | `verify-full` | yes | chain and host name checked |
//!
//! `sslrootcert` is a file, or `system` for the certificates of the machine; the default is `~/.postgresql/root.crt`.
//! `sslcert` and `sslkey` are the client's own.
//!
//! Differences to libpq: `prefer` does not fall back to plain text when a handshake fails; host names
//! are looked for in the certificate's alternative names only, never in its common name; a client certificate is only sent
//! if it is named. As there, nothing of this applies to Unix sockets.
//!
//! The TLS session is made by tokio-postgres-rustls, on rustls with `ring`: it is maintained, small, and makes channel
//! binding possible. It knows none of these modes; `postgres_rustls` neither, and asks for a newer compiler than this crate.
//!
//! A connection string holds a password, and a misplaced quote may have put it anywhere: no error quotes any part.

#[cfg(feature = "tls")]
mod certificates;
mod mode;
mod parameters;
mod parse;

pub(crate) use mode::{MakeTls, Tls};
pub(crate) use parse::parse;
