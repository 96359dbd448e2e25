//! Parses connection strings.

use tokio_postgres::config::{Host, SslMode};

#[cfg(feature = "tls")]
use super::certificates;
use super::mode::{MakeTls, Mode, Tls};
use super::parameters::{Parameters, not_a_connection_string};
use crate::connection_string;
use crate::error::ConfigError;

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
        // The driver requires a name for a TLS session; an address is accepted as one.
        for address in postgres.get_hostaddrs().to_vec() {
            postgres.host(address.to_string());
        }
    }
    let hosts = postgres.get_hosts();
    if hosts.iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@'))) {
        // The text after the first `@` is taken as the host and would be displayed as such.
        return Err(ConfigError::new("database_url", "has an `@` in its user or password: write it `%40`"));
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

fn check_feature(mode: Mode, is_on: bool) -> Result<(), ConfigError> {
    match mode {
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull if !is_on => Err(ConfigError::new(
            "sslmode",
            "asks for TLS, and graphsink was built without it: enable its feature `tls`",
        )),
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
    certificates::build(mode, parameters, std::env::home_dir().as_deref()).map(MakeTls::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requiring_tls_is_an_error_in_a_build_without_it() {
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
    fn errors_name_unknown_parameters_but_no_password() {
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
    fn sslmode_and_certificates_are_taken_from_the_environment() {
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
    fn sslmode_allow_tries_without_encryption_first() {
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
    fn unix_sockets_are_never_encrypted_and_hostaddr_is_verified_as_a_name() {
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
}
