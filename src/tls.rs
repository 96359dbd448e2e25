//! Encryption of the way to the server, with libpq's words for it.
//!
//! tokio-postgres knows the modes `disable`, `prefer` and `require`, and leaves certificates to whoever makes the TLS
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
//! A connection string holds a password, and whoever misplaced a quote may have put it anywhere: no error quotes any part.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Host, SslMode};

use crate::connection_string::{self, Place, place};
use crate::error::ConfigError;

/// What makes TLS sessions for the pool, for migrations and for cancel requests.
#[cfg(feature = "tls")]
pub(crate) type MakeTls = tokio_postgres_rustls::MakeRustlsConnect;
/// Without the feature `tls` nothing does.
#[cfg(not(feature = "tls"))]
pub(crate) type MakeTls = tokio_postgres::NoTls;

/// What a connection string asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
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
    mode: Mode,
    make: MakeTls,
}

/// Not derived: a private key may be in it.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.mode, f)
    }
}

impl Tls {
    /// A copy for one connection, or for whatever makes many.
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

/// Parses a connection string, completes it from the environment, and reads the certificates that it names.
pub(crate) fn parse(connection_string: &str) -> Result<(tokio_postgres::Config, Tls), ConfigError> {
    parse_in(connection_string, &connection_string::of_process)
}

fn parse_in(
    connection_string: &str,
    environment: connection_string::Environment<'_>,
) -> Result<(tokio_postgres::Config, Tls), ConfigError> {
    let (rest, mut parameters) = Parameters::take_out_of(connection_string)?;
    parameters.complete(environment);
    let rest = connection_string::with_default_port(rest, environment);
    // The parser's own message may quote the string.
    let mut postgres: tokio_postgres::Config = rest.parse().map_err(|_| not_a_connection_string())?;
    connection_string::complete(&mut postgres, parameters.passfile.as_deref(), environment)?;
    if postgres.get_hosts().is_empty() {
        // The driver wants a name for a TLS session; an address is one.
        for address in postgres.get_hostaddrs().to_vec() {
            postgres.host(address.to_string());
        }
    }
    let hosts = postgres.get_hosts();
    if hosts.iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@'))) {
        // What follows the first one is taken for the host and would be shown as such.
        return Err(error("database_url", "has an `@` in its user or password: write it `%40`"));
    }
    let mode = if !hosts.is_empty() && hosts.iter().all(|host| !matches!(host, Host::Tcp(_))) {
        Mode::Disable
    } else {
        parameters.mode()?
    };
    check_feature(mode, cfg!(feature = "tls"))?;
    let make = make_tls(mode, &parameters)?;
    postgres.ssl_mode(match mode {
        Mode::Disable | Mode::Allow => SslMode::Disable,
        Mode::Prefer => SslMode::Prefer,
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
    });
    Ok((postgres, Tls { mode, make }))
}

fn not_a_connection_string() -> ConfigError {
    error(
        "database_url",
        "is not a PostgreSQL connection string: write it like `postgresql://user@host:5432/database`, special characters as `%` and their code",
    )
}

fn error(setting: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError { setting, reason: reason.into() }
}

fn check_feature(mode: Mode, is_on: bool) -> Result<(), ConfigError> {
    match mode {
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull if !is_on => {
            Err(error("sslmode", "asks for TLS, and graphsink was built without it: enable its feature `tls`"))
        }
        _ => Ok(()),
    }
}

#[cfg(not(feature = "tls"))]
#[allow(clippy::unnecessary_wraps)]
fn make_tls(_: Mode, _: &Parameters) -> Result<MakeTls, ConfigError> {
    Ok(tokio_postgres::NoTls)
}

#[cfg(feature = "tls")]
fn make_tls(mode: Mode, parameters: &Parameters) -> Result<MakeTls, ConfigError> {
    rustls_config::build(mode, parameters, std::env::home_dir().as_deref()).map(MakeTls::new)
}

// ---- the connection string ---------------------------------------------------------------------

/// The parameters about TLS, as given.
#[derive(Default)]
struct Parameters {
    mode: Option<String>,
    root: Option<String>,
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    certificate: Option<String>,
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    key: Option<String>,
    /// Not about TLS, but as unknown to the driver.
    passfile: Option<String>,
}

impl Parameters {
    /// What is not given is what the environment says.
    fn complete(&mut self, environment: connection_string::Environment<'_>) {
        for (variable, name) in [
            ("PGSSLMODE", "sslmode"),
            ("PGSSLROOTCERT", "sslrootcert"),
            ("PGSSLCERT", "sslcert"),
            ("PGSSLKEY", "sslkey"),
        ] {
            let slot = self.slot(name).expect("each of these has one");
            if slot.is_none() {
                *slot = environment(variable).and_then(|value| value.into_string().ok());
            }
        }
    }

    /// Takes them out of a connection string of either form, and gives the rest, which tokio-postgres knows; without what can
    /// be left out. An error names a parameter that is neither. The two grammars are tokio-postgres's own, so that both
    /// find the same parameters.
    fn take_out_of(connection_string: &str) -> Result<(String, Self), ConfigError> {
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| connection_string.starts_with(scheme));
        let mut parameters = Self::default();
        let rest = if is_url {
            parameters.take_out_of_url(connection_string)?
        } else {
            parameters.take_out_of_pairs(connection_string)?
        };
        Ok((rest.ok_or_else(not_a_connection_string)?, parameters))
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "sslmode" => Some(&mut self.mode),
            "sslrootcert" => Some(&mut self.root),
            "sslcert" => Some(&mut self.certificate),
            "sslkey" => Some(&mut self.key),
            "passfile" => Some(&mut self.passfile),
            _ => None,
        }
    }

    /// `postgresql://user:password@host/db?name=value&name=value`, percent-encoded. Nothing where it is no such URL.
    fn take_out_of_url(&mut self, url: &str) -> Result<Option<String>, ConfigError> {
        let credentials_end = url.find('@').map_or(0, |at| at + 1);
        // An `@` in a parameter would make everything before it user and password, unnoticed, TLS parameters included.
        let credentials = &url[..credentials_end];
        if credentials.contains('?')
            && ["sslmode=", "sslrootcert=", "sslcert=", "sslkey="].iter().any(|name| credentials.contains(name))
        {
            return Ok(None);
        }
        let Some(query) = url[credentials_end..].find('?').map(|at| credentials_end + at) else {
            return Ok(Some(url.to_owned()));
        };
        // What is before another `@` may be the rest of a password.
        let may_name = !url[credentials_end..].contains('@');
        let decode = |text| percent_decode_str(text).decode_utf8().map(Cow::into_owned).ok();
        let mut rest = Vec::new();
        for pair in url[query + 1..].split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(decoded)) = (decode(name), decode(value)) else { return Ok(None) };
            if name.is_empty() {
                continue;
            }
            match place(&name, &decoded, may_name)? {
                Place::Tls | Place::PasswordFile => {
                    *self.slot(&name).expect("each of these has one") = Some(decoded);
                }
                Place::Driver(name) => rest.push(format!("{name}={value}")),
                Place::Ignored => {}
            }
        }
        let rest = rest.join("&");
        Ok(Some(if rest.is_empty() { url[..query].to_owned() } else { format!("{}?{rest}", &url[..query]) }))
    }

    /// `name=value name='quoted \' value'`. Nothing where it is no such list.
    fn take_out_of_pairs(&mut self, text: &str) -> Result<Option<String>, ConfigError> {
        let mut rest = String::new();
        let mut left = text.trim_start();
        // A password with a blank in it that is not quoted goes on as if it were a name.
        let mut may_name = true;
        while !left.is_empty() {
            let Some((name, raw, value, after)) = first_pair(left) else { return Ok(None) };
            match place(name, &value, may_name)? {
                Place::Tls | Place::PasswordFile => *self.slot(name).expect("each of these has one") = Some(value),
                Place::Driver(own) => {
                    may_name &= own != "password" || raw.starts_with('\'');
                    rest.extend([own, "=", raw, " "]);
                }
                Place::Ignored => {}
            }
            left = after.trim_start();
        }
        Ok(Some(rest))
    }

    fn mode(&self) -> Result<Mode, ConfigError> {
        let system = self.root() == Some("system");
        let mode = match self.mode.as_deref().filter(|mode| !mode.is_empty()) {
            None if system => Mode::VerifyFull,
            None | Some("prefer") => Mode::Prefer,
            Some("disable") => Mode::Disable,
            Some("require") => Mode::Require,
            Some("verify-ca") => Mode::VerifyCa,
            Some("verify-full") => Mode::VerifyFull,
            Some("allow") => Mode::Allow,
            Some(_) => {
                let known = "must be one of disable, allow, prefer, require, verify-ca, verify-full";
                return Err(error("sslmode", known));
            }
        };
        if system && mode != Mode::VerifyFull {
            // Anybody can get a certificate for a name of their own from those authorities.
            return Err(error("sslmode", "must be verify-full with sslrootcert=system"));
        }
        Ok(mode)
    }

    fn root(&self) -> Option<&str> {
        self.root.as_deref().filter(|root| !root.is_empty())
    }
}

/// The pair that `text` begins with: its name, its value as it was written and as it is meant, and what follows.
fn first_pair(text: &str) -> Option<(&str, &str, String, &str)> {
    let name_ends = text.find(|c: char| c.is_whitespace() || c == '=').filter(|at| *at > 0)?;
    let written = text[name_ends..].trim_start().strip_prefix('=')?.trim_start();
    let (value, after) = first_value(written)?;
    Some((&text[..name_ends], &written[..written.len() - after.len()], value, after))
}

/// The value that `text` begins with, and what follows it.
fn first_value(text: &str) -> Option<(String, &str)> {
    let quoted = text.strip_prefix('\'');
    let mut characters = quoted.unwrap_or(text).chars();
    let mut value = String::new();
    loop {
        let left = characters.as_str();
        match characters.next() {
            Some('\'') if quoted.is_some() => return Some((value, characters.as_str())),
            None if quoted.is_some() => return None,
            None => break (!value.is_empty()).then_some((value, left)),
            Some(c) if quoted.is_none() && c.is_whitespace() => break (!value.is_empty()).then_some((value, left)),
            Some('\\') => value.extend(characters.next()),
            Some(c) => value.push(c),
        }
    }
}

// ---- certificates ------------------------------------------------------------------------------

#[cfg(feature = "tls")]
mod rustls_config {
    use std::path::Path;
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::client::verify_server_cert_signed_by_trust_anchor;
    use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::pem::{self, PemObject};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
    use rustls::server::ParsedCertificate;
    use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

    use super::{ConfigError, Mode, Parameters, error};

    /// What a mode and its files mean for rustls.
    pub(super) fn build(mode: Mode, parameters: &Parameters, home: Option<&Path>) -> Result<ClientConfig, ConfigError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|_| error("sslmode", "asks for a version of TLS that is not built in"))?;
        let builder = match trust(mode, parameters, home)? {
            Trust::Host(roots) => builder.with_root_certificates(roots),
            trust => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(WithoutHostName { trust, provider }))
            }
        };
        let mut config = match client_certificate(parameters).filter(|_| mode != Mode::Disable) {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let (certificates, key) = files?;
                builder
                    .with_client_auth_cert(certificates, key)
                    .map_err(|_| error("sslcert", "does not fit the private key in sslkey, or is of an unknown kind"))?
            }
        };
        // As libpq does; servers demand it where `sslnegotiation` is `direct`.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(config)
    }

    /// Which servers are believed.
    #[derive(Debug)]
    enum Trust {
        Anybody,
        Authority(RootCertStore),
        /// And the certificate must be for the host.
        Host(RootCertStore),
    }

    fn trust(mode: Mode, parameters: &Parameters, home: Option<&Path>) -> Result<Trust, ConfigError> {
        let default = || home.map(|home| home.join(".postgresql/root.crt")).filter(|file| file.exists());
        let roots = || match parameters.root() {
            Some("system") => system_roots().map(Some),
            Some(file) => roots_of(Path::new(file)).map(Some),
            None => default().map(|file| roots_of(&file)).transpose(),
        };
        let needed = |roots: Option<RootCertStore>| {
            roots.ok_or_else(|| {
                error(
                    "sslrootcert",
                    "is missing and there is no ~/.postgresql/root.crt: name the file with the certificate of the \
                     authority that signed the server's, or `system` for the authorities that this machine trusts",
                )
            })
        };
        match mode {
            Mode::Disable | Mode::Allow | Mode::Prefer => Ok(Trust::Anybody),
            Mode::Require => Ok(roots()?.map_or(Trust::Anybody, Trust::Authority)),
            Mode::VerifyCa => Ok(Trust::Authority(needed(roots()?)?)),
            Mode::VerifyFull => Ok(Trust::Host(needed(roots()?)?)),
        }
    }

    fn system_roots() -> Result<RootCertStore, ConfigError> {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            return Err(error(
                "sslrootcert",
                "is `system`, and this machine trusts no authorities: install their certificates",
            ));
        }
        Ok(roots)
    }

    fn roots_of(file: &Path) -> Result<RootCertStore, ConfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(file, "sslrootcert")? {
            roots
                .add(certificate)
                .map_err(|_| error("sslrootcert", "holds a certificate that cannot be an authority's"))?;
        }
        Ok(roots)
    }

    type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

    fn client_certificate(parameters: &Parameters) -> Option<Result<ClientCertificate, ConfigError>> {
        let given = |file: &'_ Option<String>| file.clone().filter(|file| !file.is_empty());
        match (given(&parameters.certificate), given(&parameters.key)) {
            (None, None) => None,
            (Some(_), None) => Some(Err(error("sslkey", "is missing: sslcert needs it"))),
            (None, Some(_)) => Some(Err(error("sslcert", "is missing: sslkey needs it"))),
            (Some(certificate), Some(key)) => {
                Some(certificates(Path::new(&certificate), "sslcert").and_then(|chain| {
                    let key = PrivateKeyDer::from_pem_file(&key).map_err(|wrong| unreadable("sslkey", &wrong))?;
                    Ok((chain, key))
                }))
            }
        }
    }

    fn certificates(file: &Path, setting: &'static str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .map_err(|wrong| unreadable(setting, &wrong))?;
        if certificates.is_empty() {
            return Err(unreadable(setting, &pem::Error::NoItemsFound));
        }
        Ok(certificates)
    }

    fn unreadable(setting: &'static str, wrong: &pem::Error) -> ConfigError {
        match wrong {
            pem::Error::Io(wrong) => error(setting, format!("names a file that cannot be read: {}", wrong.kind())),
            pem::Error::NoItemsFound => error(setting, "names a file that holds none in PEM form"),
            _ => error(setting, "names a file that is no PEM"),
        }
    }

    /// Checks a server's certificate without its host name, or only that the server has its key.
    ///
    /// The key is proved in any case: channel binding, which ties the password's exchange to the certificate, is worth
    /// nothing if a stranger can show somebody else's certificate.
    #[derive(Debug)]
    struct WithoutHostName {
        trust: Trust,
        provider: Arc<CryptoProvider>,
    }

    impl ServerCertVerifier for WithoutHostName {
        fn verify_server_cert(
            &self,
            certificate: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            if let Trust::Authority(roots) | Trust::Host(roots) = &self.trust {
                let algorithms = self.provider.signature_verification_algorithms.all;
                let certificate = ParsedCertificate::try_from(certificate)?;
                verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
            }
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left for tokio-postgres, and the four parameters.
    fn taken(text: &str) -> Option<(String, [Option<String>; 4])> {
        let (rest, parameters) = Parameters::take_out_of(text).ok()?;
        Some((rest, [parameters.mode, parameters.root, parameters.certificate, parameters.key]))
    }

    fn some(values: [&str; 4]) -> [Option<String>; 4] {
        values.map(|value| Some(value.to_owned()).filter(|value| !value.is_empty()))
    }

    #[test]
    fn urls_lose_the_parameters_about_tls_and_nothing_else() {
        for (url, rest, parameters) in [
            ("postgresql://h/d", "postgresql://h/d", ["", "", "", ""]),
            ("postgres://u:p@h:1/d?sslmode=verify-ca", "postgres://u:p@h:1/d", ["verify-ca", "", "", ""]),
            (
                "postgresql://h/d?options=-c%20a%3D1&sslmode=verify-full&sslrootcert=%2Fa%20b%26c%40d&connect_timeout=3",
                "postgresql://h/d?options=-c%20a%3D1&connect_timeout=3",
                ["verify-full", "/a b&c@d", "", ""],
            ),
            (
                "postgresql:///d?host=h&sslcert=/c&ssl%6bey=/k&sslmode=prefer&sslmode=require",
                "postgresql:///d?host=h",
                ["require", "", "/c", "/k"],
            ),
            // What is in a password stays in it: it ends at the first `@`.
            ("postgresql://u:a?b&c=/d@h/d?sslmode=require", "postgresql://u:a?b&c=/d@h/d", ["require", "", "", ""]),
            ("postgresql://u:p%3Fsslmode%3Ddisable@h", "postgresql://u:p%3Fsslmode%3Ddisable@h", ["", "", "", ""]),
            (
                "postgresql://h?gssencmode=disable&sslmode=require&krbsrvname=x&keepalives_count=3&",
                "postgresql://h?keepalives_retries=3",
                ["require", "", "", ""],
            ),
        ] {
            assert_eq!(taken(url), Some((rest.to_owned(), some(parameters))), "{url}");
        }
    }

    #[test]
    fn an_at_sign_in_a_parameter_does_not_hide_those_before_it() {
        for url in
            ["postgresql://h/d?sslmode=verify-full&sslrootcert=/home/me@work/root.crt", "postgresql://u:p?sslkey=x@h"]
        {
            assert_eq!(taken(url), None, "{url}");
        }
    }

    #[test]
    fn pairs_lose_the_parameters_about_tls_and_nothing_else() {
        for (text, rest, parameters) in [
            ("", "", ["", "", "", ""]),
            ("host=h sslmode=require dbname=d", "host=h dbname=d ", ["require", "", "", ""]),
            (
                "  host = h\n sslrootcert = '/a b\\'c\\\\d' sslcert=/x\\ y  sslkey='/k'",
                "host=h ",
                ["", "/a b'c\\d", "/x y", "/k"],
            ),
            // What is in a password stays in it.
            ("password='a sslmode=disable' user=u", "password='a sslmode=disable' user=u ", ["", "", "", ""]),
            ("password=a\\ sslmode=disable host=h", "password=a\\ sslmode=disable host=h ", ["", "", "", ""]),
            ("sslmode='' host='h'", "host='h' ", ["", "", "", ""]),
        ] {
            let (found, values) = taken(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                (found.as_str(), values.map(Option::unwrap_or_default)),
                (rest, parameters.map(str::to_owned)),
                "{text}"
            );
            // tokio-postgres reads the rest as it read the whole.
            assert!(found.parse::<tokio_postgres::Config>().is_ok(), "{text}");
        }
        for broken in ["host", "host=", "=h", "host=h =x sslmode=verify-full", "password='a", "sslmode=", "sslmode = "]
        {
            assert_eq!(taken(broken), None, "{broken}");
        }
    }

    fn mode_of(text: &str) -> Result<Mode, &'static str> {
        Parameters::take_out_of(text).and_then(|(_, parameters)| parameters.mode()).map_err(|error| error.setting)
    }

    #[test]
    fn modes_are_those_of_libpq() {
        for (text, mode) in [
            ("", Ok(Mode::Prefer)),
            ("sslmode=''", Ok(Mode::Prefer)),
            ("sslmode=disable", Ok(Mode::Disable)),
            ("sslmode=prefer", Ok(Mode::Prefer)),
            ("sslmode=require", Ok(Mode::Require)),
            ("sslmode=verify-ca", Ok(Mode::VerifyCa)),
            ("sslmode=verify-full", Ok(Mode::VerifyFull)),
            ("sslrootcert=system", Ok(Mode::VerifyFull)),
            ("sslrootcert=system sslmode=verify-full", Ok(Mode::VerifyFull)),
            ("sslrootcert=system sslmode=require", Err("sslmode")),
            ("sslrootcert=system sslmode=prefer", Err("sslmode")),
            ("sslmode=allow", Ok(Mode::Allow)),
            ("sslmode=Require", Err("sslmode")),
        ] {
            assert_eq!(mode_of(text), mode, "{text}");
        }
    }

    #[test]
    fn what_asks_for_tls_is_an_error_in_a_build_without_it() {
        for (mode, needs) in [
            (Mode::Disable, false),
            (Mode::Allow, false),
            (Mode::Prefer, false),
            (Mode::Require, true),
            (Mode::VerifyCa, true),
            (Mode::VerifyFull, true),
        ] {
            assert!(check_feature(mode, true).is_ok(), "{mode:?}");
            match check_feature(mode, false) {
                Ok(()) => assert!(!needs, "{mode:?}"),
                Err(error) => {
                    assert!(needs, "{mode:?}");
                    assert_eq!(error.setting, "sslmode");
                    assert!(error.reason.contains("enable its feature `tls`"), "{error}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_parameter_is_named_and_no_password_is() {
        for (text, part) in [
            ("postgresql://u:s3cret@h/d?pgbouncer=true", "`pgbouncer`"),
            ("postgresql://u:s3cret@h/d?schema=x", "`schema`"),
            ("host=h password='s3cret' unheard=1", "`unheard`"),
            ("postgresql://u:p@s3?cret=1@h/d", "is not known"),
            ("host=h password=s3 cret=1", "is not known"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("cret"), "{text}: {error}");
        }
    }

    #[test]
    fn the_environment_says_how_to_encrypt() {
        let environment = |name: &str| (name == "PGSSLMODE").then(|| "disable".into());
        assert_eq!(parse_in("host=h", &environment).unwrap().1.mode, Mode::Disable);
        assert_eq!(parse_in("host=h sslmode=prefer", &environment).unwrap().1.mode, Mode::Prefer);
    }

    #[test]
    fn a_url_takes_its_port_from_the_environment_unless_it_has_one() {
        let environment = |name: &str| (name == "PGPORT").then(|| "6543".into());
        let ports = |text: &str| parse_in(text, &environment).unwrap().0.get_ports().to_vec();
        assert_eq!(
            (ports("postgresql://h/d"), ports("postgresql://h:1/d"), ports("host=h")),
            (vec![6543], vec![1], vec![6543])
        );
    }

    #[test]
    fn where_encryption_is_allowed_the_plain_way_comes_first() {
        let (postgres, tls) = parse("host=h sslmode=allow").unwrap();
        let ways: Vec<SslMode> = tls.ways(&postgres).iter().map(tokio_postgres::Config::get_ssl_mode).collect();
        assert_eq!(ways.first(), Some(&SslMode::Disable));
        assert_eq!(ways.get(1).copied(), cfg!(feature = "tls").then_some(SslMode::Require));
        let (postgres, tls) = parse("host=h").unwrap();
        assert_eq!(tls.ways(&postgres).len(), 1);
    }

    #[test]
    fn the_tail_of_a_password_is_not_taken_for_a_host() {
        let error = parse("postgresql://user:s3@cret@localhost/db").unwrap_err();
        assert!(error.reason.contains("%40") && !error.reason.contains("cret"), "{error}");
    }

    #[test]
    fn unix_sockets_are_never_encrypted_and_an_address_is_a_name() {
        for (text, mode) in [
            ("host=/run/postgresql sslmode=verify-full", Mode::Disable),
            ("host=/run/postgresql,h sslmode=prefer", Mode::Prefer),
            ("host=h", Mode::Prefer),
        ] {
            assert_eq!(parse(text).unwrap().1.mode, mode, "{text}");
        }
        let (postgres, _) = parse("hostaddr=127.0.0.1,::1").unwrap();
        assert_eq!(postgres.get_hosts(), [Host::Tcp("127.0.0.1".to_owned()), Host::Tcp("::1".to_owned())]);
    }

    #[cfg(feature = "tls")]
    mod files {
        use std::path::{Path, PathBuf};

        use rcgen::{CertificateParams, KeyPair};

        use super::*;

        /// A directory with `root.crt`, its key and other things; the root is also where libpq looks for one.
        fn files() -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().to_owned();
            let file = move |name: &str| path.join(name);
            let key = KeyPair::generate().unwrap();
            let root = CertificateParams::default().self_signed(&key).unwrap().pem();
            std::fs::create_dir(file(".postgresql")).unwrap();
            for (name, content) in [
                (".postgresql/root.crt", root.as_str()),
                ("root.crt", &root),
                ("root.key", &key.serialize_pem()),
                ("other.key", &KeyPair::generate().unwrap().serialize_pem()),
                ("garbage.crt", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
                ("empty.crt", ""),
                ("nonsense.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            ] {
                std::fs::write(file(name), content).unwrap();
            }
            (directory, file)
        }

        fn build(
            mode: Mode,
            root: Option<PathBuf>,
            certificate: Option<PathBuf>,
            key: Option<PathBuf>,
            home: Option<&Path>,
        ) -> Result<(), String> {
            let text = |path: Option<PathBuf>| path.map(|path| path.to_str().unwrap().to_owned());
            let parameters = Parameters {
                mode: None,
                root: text(root),
                certificate: text(certificate),
                key: text(key),
                passfile: None,
            };
            rustls_config::build(mode, &parameters, home).map(drop).map_err(|error| error.to_string())
        }

        #[test]
        fn a_root_certificate_is_needed_for_checks_and_has_a_default() {
            let (_directory, file) = files();
            let none = || file("nobody");
            let home = || file("");
            for (mode, root, home, expected) in [
                (
                    Mode::VerifyFull,
                    None,
                    none(),
                    Some("setting sslrootcert: is missing and there is no ~/.postgresql/root.crt"),
                ),
                (Mode::VerifyCa, None, none(), Some("setting sslrootcert: is missing")),
                (Mode::Require, None, none(), None),
                (Mode::VerifyFull, None, home(), None),
                (Mode::VerifyFull, Some("root.crt"), none(), None),
                (
                    Mode::VerifyCa,
                    Some("missing.crt"),
                    home(),
                    Some("setting sslrootcert: names a file that cannot be read: entity not found"),
                ),
                (Mode::VerifyCa, Some("garbage.crt"), home(), Some("setting sslrootcert: names a file that is no PEM")),
                (
                    Mode::VerifyCa,
                    Some("empty.crt"),
                    home(),
                    Some("setting sslrootcert: names a file that holds none in PEM form"),
                ),
                (
                    Mode::VerifyCa,
                    Some("root.key"),
                    home(),
                    Some("setting sslrootcert: names a file that holds none in PEM form"),
                ),
                (
                    Mode::VerifyCa,
                    Some("nonsense.crt"),
                    home(),
                    Some("setting sslrootcert: holds a certificate that cannot be an authority's"),
                ),
                // With a root, `require` checks; a wrong one is not passed over.
                (
                    Mode::Require,
                    Some("missing.crt"),
                    none(),
                    Some("setting sslrootcert: names a file that cannot be read"),
                ),
                (Mode::Prefer, Some("missing.crt"), none(), None),
                (Mode::Disable, Some("missing.crt"), none(), None),
            ] {
                let built = build(mode, root.map(&file), None, None, Some(&home));
                match expected {
                    None => assert_eq!(built, Ok(()), "{mode:?} {root:?}"),
                    Some(message) => {
                        assert!(built.clone().unwrap_err().starts_with(message), "{mode:?} {root:?} {built:?}");
                    }
                }
            }
        }

        #[test]
        fn a_client_certificate_comes_with_its_key() {
            let (_directory, file) = files();
            for (certificate, key, expected) in [
                (Some("root.crt"), Some("root.key"), None),
                (Some("root.crt"), None, Some("setting sslkey: is missing: sslcert needs it")),
                (None, Some("root.key"), Some("setting sslcert: is missing: sslkey needs it")),
                (Some("root.crt"), Some("other.key"), Some("setting sslcert: does not fit the private key in sslkey")),
                (Some("root.crt"), Some("root.crt"), Some("setting sslkey: names a file that holds none in PEM form")),
                (Some("root.crt"), Some("missing.key"), Some("setting sslkey: names a file that cannot be read")),
            ] {
                let built = build(Mode::Require, None, certificate.map(&file), key.map(&file), None);
                match expected {
                    None => assert_eq!(built, Ok(())),
                    Some(message) => {
                        assert!(built.clone().unwrap_err().starts_with(message), "{certificate:?} {key:?} {built:?}");
                    }
                }
            }
        }

        #[test]
        fn what_is_ready_for_use_shows_no_key() {
            let (_directory, file) = files();
            let text = format!("host=h sslmode=require sslcert={0}/root.crt sslkey={0}/root.key", file("").display());
            let (_, tls) = parse(&text).unwrap();
            assert_eq!(format!("{tls:?}"), "Require");
        }
    }
}
