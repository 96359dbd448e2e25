//! Parameters of connection strings that the driver does not know, and values from the environment, both read as by
//! libpq and psql.
//!
//! The driver refuses a string with any unknown parameter, and its message may quote a password. So each parameter is
//! checked here first ([`place`]): some are handled here, some can be ignored without harm, and for the others an error
//! names the parameter and its replacement.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use tokio_postgres::config::Host;

use crate::error::ConfigError;

/// Where a parameter belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// With the parameters about TLS.
    Tls,
    /// With the driver, under this name.
    Driver(&'static str),
    /// Nowhere: it requests only what is the case anyway.
    Ignored,
    /// With the password file.
    PasswordFile,
}

/// The parameters of tokio-postgres, by libpq's name and its own.
#[rustfmt::skip]
const DRIVER: [(&str, &str); 19] = [
    ("application_name", "application_name"), ("channel_binding", "channel_binding"),
    ("connect_timeout", "connect_timeout"), ("dbname", "dbname"), ("host", "host"), ("hostaddr", "hostaddr"),
    ("keepalives", "keepalives"), ("keepalives_count", "keepalives_retries"), ("keepalives_idle", "keepalives_idle"),
    ("keepalives_interval", "keepalives_interval"), ("keepalives_retries", "keepalives_retries"),
    ("load_balance_hosts", "load_balance_hosts"), ("options", "options"), ("password", "password"), ("port", "port"),
    ("sslnegotiation", "sslnegotiation"), ("target_session_attrs", "target_session_attrs"),
    ("tcp_user_timeout", "tcp_user_timeout"), ("user", "user"),
];

/// Parameters of libpq about features that do not exist here: Kerberos, compression of TLS, the name of the server in a
/// handshake, fixed names and encodings. Connections work as if they had not been given.
const IGNORED: [&str; 7] =
    ["fallback_application_name", "gssdelegation", "gsslib", "krbsrvname", "sslcertmode", "sslcompression", "sslsni"];

/// Parameters of other programs or of libpq, and their replacements.
const INSTEAD: [(&str, &str); 15] = [
    ("schema", "leave it out and set `schema` (`ConfigBuilder::schema`, GRAPHSINK_SCHEMA)"),
    ("currentSchema", "leave it out and set `schema` (`ConfigBuilder::schema`, GRAPHSINK_SCHEMA)"),
    ("search_path", "leave it out and set `schema` (`ConfigBuilder::schema`, GRAPHSINK_SCHEMA)"),
    ("pgbouncer", "leave it out, and set `prepared_statements` to false"),
    ("prepareThreshold", "leave it out, or set `prepared_statements` to false"),
    ("statement_cache_size", "leave it out, or set `prepared_statements` to false"),
    ("connection_limit", "leave it out and set `in_flight_commits`"),
    ("pool_timeout", "leave it out and set `connect_timeout_seconds`"),
    ("statement_timeout", "leave it out and set `statement_timeout_seconds`"),
    ("ssl", "write sslmode instead"),
    ("sslaccept", "write sslmode=verify-full or sslmode=require instead"),
    ("service", "write host, port, user and dbname instead: service files are not read"),
    ("sslcrl", "leave it out: revocation of certificates is not checked here"),
    ("sslpassword", "leave it out and name a key without a password in sslkey"),
    ("requirepeer", "leave it out: the peer of a Unix socket is not checked here"),
];

/// Where a parameter belongs; an error if it requests something unsupported. `may_name` says whether the error may
/// contain the name: not if it may be part of a password.
pub(crate) fn place(name: &str, value: &str, may_name: bool) -> Result<Place, ConfigError> {
    if ["sslmode", "sslrootcert", "sslcert", "sslkey"].contains(&name) {
        return Ok(Place::Tls);
    }
    if let Some((_, own)) = DRIVER.iter().find(|(libpq, _)| *libpq == name) {
        return Ok(Place::Driver(own));
    }
    if name == "passfile" {
        return Ok(Place::PasswordFile);
    }
    let is_harmless = match name {
        "gssencmode" => matches!(value, "" | "disable" | "prefer"),
        // Values that the driver and rustls always use.
        "client_encoding" => matches!(value.to_ascii_lowercase().as_str(), "" | "utf8" | "utf-8" | "unicode" | "auto"),
        "ssl_min_protocol_version" => matches!(value, "" | "TLSv1" | "TLSv1.1" | "TLSv1.2"),
        _ => IGNORED.contains(&name),
    };
    if is_harmless {
        return Ok(Place::Ignored);
    }
    Err(error(refusal(name, may_name)))
}

fn refusal(name: &str, may_name: bool) -> String {
    let instead = INSTEAD.iter().find(|(other, _)| *other == name).map(|(_, instead)| *instead);
    let is_libpqs = ["gssencmode", "client_encoding", "ssl_min_protocol_version"].contains(&name);
    let looks_like_one = (2..=32).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
    match instead {
        Some(instead) => format!("has the parameter `{name}`, which is not supported: {instead}"),
        None if is_libpqs => {
            format!("has the parameter `{name}` with a value that is not supported: leave it out")
        }
        None if may_name && looks_like_one => {
            format!("has the parameter `{name}`, which is not known: leave it out, or write it as libpq does")
        }
        None => "has a parameter that is not known: leave it out, and write special characters of a password as `%` and their code"
            .to_owned(),
    }
}

fn error(reason: impl Into<String>) -> ConfigError {
    ConfigError { setting: "database_url", reason: reason.into() }
}

/// Looks up an environment variable.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process.
pub(crate) fn of_process(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn text(environment: Environment<'_>, name: &str) -> Option<String> {
    environment(name)?.into_string().ok()
}

/// Fills in the values missing from a connection string, as libpq does: from `PGHOST`, `PGHOSTADDR`, `PGPORT`,
/// `PGUSER`, `PGDATABASE`, `PGAPPNAME`, `PGOPTIONS` and `PGPASSWORD`, then the password from a password file, and last
/// libpq's defaults for the host. (`PGSSLMODE` and similar variables are read in `tls`; the default user and database
/// are the driver's.)
pub(crate) fn complete(
    postgres: &mut tokio_postgres::Config,
    passfile: Option<&str>,
    environment: Environment<'_>,
) -> Result<(), ConfigError> {
    let of = |name: &str| text(environment, name);
    if postgres.get_user().is_none()
        && let Some(user) = of("PGUSER")
    {
        postgres.user(user);
    }
    if postgres.get_dbname().is_none()
        && let Some(database) = of("PGDATABASE")
    {
        postgres.dbname(database);
    }
    if postgres.get_application_name().is_none()
        && let Some(application) = of("PGAPPNAME")
    {
        postgres.application_name(application);
    }
    if postgres.get_options().is_none()
        && let Some(options) = of("PGOPTIONS")
    {
        postgres.options(options);
    }
    complete_hosts(postgres, environment)?;
    if postgres.get_password().is_none()
        && let Some(password) = of("PGPASSWORD").or_else(|| password_from_file(postgres, passfile, environment))
    {
        postgres.password(password);
    }
    Ok(())
}

/// Fills in ports and hosts.
fn complete_hosts(postgres: &mut tokio_postgres::Config, environment: Environment<'_>) -> Result<(), ConfigError> {
    let of = |name: &str| text(environment, name);
    let is_silent = postgres.get_hosts().is_empty() && postgres.get_hostaddrs().is_empty();
    if postgres.get_ports().is_empty()
        && let Some(ports) = of("PGPORT")
    {
        for port in ports.split(',') {
            let port = if port.is_empty() { "5432" } else { port };
            let port = port.parse().map_err(|_| ConfigError {
                setting: "PGPORT",
                reason: "is not a port: write a number from 1 to 65535".to_owned(),
            })?;
            postgres.port(port);
        }
    }
    if !is_silent {
        return Ok(());
    }
    for address in of("PGHOSTADDR").iter().flat_map(|addresses| addresses.split(',')) {
        let address = address.parse().map_err(|_| ConfigError {
            setting: "PGHOSTADDR",
            reason: "is not an IP address: write a host's name into PGHOST".to_owned(),
        })?;
        postgres.hostaddr(address);
    }
    match of("PGHOST") {
        Some(hosts) => {
            for host in hosts.split(',') {
                postgres.host(host);
            }
        }
        None if postgres.get_hostaddrs().is_empty() => {
            let host = default_host(postgres.get_ports());
            postgres.host(host);
        }
        None => {}
    }
    Ok(())
}

/// A URL whose hosts without a port get that of `PGPORT`. The driver uses 5432 for them, and afterwards it is no longer
/// visible that the URL had no port.
pub(crate) fn with_default_port(url: String, environment: Environment<'_>) -> String {
    let Some(ports) = text(environment, "PGPORT") else { return url };
    let Some(scheme_ends) = url.find("://").map(|at| at + 3) else { return url };
    let hosts_begin = url.find('@').map_or(scheme_ends, |at| at + 1);
    let hosts_end = url[hosts_begin..].find(['/', '?']).map_or(url.len(), |at| hosts_begin + at);
    let hosts = &url[hosts_begin..hosts_end];
    if hosts.is_empty() {
        return url;
    }
    let ports: Vec<&str> = ports.split(',').collect();
    let completed = hosts.split(',').enumerate().map(|(index, host)| {
        // The colons of an address in brackets come before the port.
        let has_port = host.rsplit_once(']').map_or(host, |(_, after)| after).contains(':');
        let port = ports.get(index).unwrap_or(&ports[0]);
        if has_port || port.is_empty() { host.to_owned() } else { format!("{host}:{port}") }
    });
    let completed = completed.collect::<Vec<_>>().join(",");
    format!("{}{completed}{}", &url[..hosts_begin], &url[hosts_end..])
}

/// Usual folders of sockets: the first one with a socket for the port is used, or this machine by TCP.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

fn default_host(ports: &[u16]) -> &'static str {
    let socket = format!(".s.PGSQL.{}", ports.first().copied().unwrap_or(5432));
    let found = SOCKET_DIRECTORIES.into_iter().find(|directory| Path::new(directory).join(&socket).exists());
    found.unwrap_or("localhost")
}

// ---- the password file -------------------------------------------------------------------------

/// The password of the first line that matches a host of the configuration. The file is given by `passfile`, or
/// `PGPASSFILE`, or is `~/.pgpass`. As in libpq, a file that others may read is ignored with a warning, and a missing
/// one without.
fn password_from_file(
    postgres: &tokio_postgres::Config,
    passfile: Option<&str>,
    environment: Environment<'_>,
) -> Option<String> {
    let home = || environment("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
    let file = passfile.map(PathBuf::from).or_else(|| environment("PGPASSFILE").map(PathBuf::from)).or_else(home)?;
    let metadata = fs::metadata(&file).ok().filter(fs::Metadata::is_file)?;
    if is_open_to_others(&metadata) {
        tracing::warn!("the password file is ignored because others may read it: set its permissions to 0600");
        return None;
    }
    let lines = fs::read_to_string(&file).ok()?;
    let user = postgres.get_user()?;
    let database = postgres.get_dbname().unwrap_or(user);
    let ports = postgres.get_ports();
    postgres.get_hosts().iter().enumerate().find_map(|(index, host)| {
        let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432).to_string();
        let host = match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) if SOCKET_DIRECTORIES.iter().any(|directory| path == Path::new(directory)) => {
                "localhost".to_owned()
            }
            #[cfg(unix)]
            Host::Unix(path) => path.to_string_lossy().into_owned(),
        };
        password_in(&lines, [&host, &port, database, user])
    })
}

#[cfg(unix)]
fn is_open_to_others(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open_to_others(_: &fs::Metadata) -> bool {
    false
}

/// `host:port:database:user:password`, where each field but the last may be `*` for any; `\` before `:` and `\`.
fn password_in(lines: &str, wanted: [&str; 4]) -> Option<String> {
    lines.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = vec![String::new()];
        let mut characters = line.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => fields.last_mut()?.extend(characters.next()),
                ':' if fields.len() < 5 => fields.push(String::new()),
                _ => fields.last_mut()?.push(character),
            }
        }
        let [host, port, database, user, password] = <[String; 5]>::try_from(fields).ok()?;
        let fits =
            [host, port, database, user].iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then_some(password)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(text: &str, environment: &[(&str, &str)]) -> tokio_postgres::Config {
        let mut postgres = text.parse().unwrap();
        let look_up = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        complete(&mut postgres, None, &look_up).unwrap();
        postgres
    }

    #[test]
    fn every_connection_parameter_is_supported_ignored_or_refused_by_name() {
        for (name, value, expected) in [
            ("sslmode", "allow", Place::Tls),
            ("host", "h", Place::Driver("host")),
            ("keepalives_count", "3", Place::Driver("keepalives_retries")),
            ("passfile", "/f", Place::PasswordFile),
            ("gssencmode", "disable", Place::Ignored),
            ("gssencmode", "prefer", Place::Ignored),
            ("krbsrvname", "postgres", Place::Ignored),
            ("client_encoding", "UTF8", Place::Ignored),
            ("ssl_min_protocol_version", "TLSv1.2", Place::Ignored),
        ] {
            assert_eq!(place(name, value, true), Ok(expected), "{name}");
        }
        for (name, value, part) in [
            ("gssencmode", "require", "`gssencmode`"),
            ("client_encoding", "latin1", "`client_encoding`"),
            ("ssl_min_protocol_version", "TLSv1.3", "`ssl_min_protocol_version`"),
            ("pgbouncer", "true", "`pgbouncer`, which is not supported: leave it out, and set `prepared_statements`"),
            ("schema", "x", "ConfigBuilder::schema"),
            ("unheard_of", "x", "`unheard_of`, which is not known"),
        ] {
            let error = place(name, value, true).unwrap_err().to_string();
            assert!(error.contains(part) && error.starts_with("setting database_url:"), "{error}");
        }
        for (name, may_name) in [("s3cret", true), ("secret", false), ("a%b", true)] {
            let error = place(name, "x", may_name).unwrap_err().to_string();
            assert!(!error.contains(name), "{error}");
        }
    }

    #[test]
    fn all_parameters_of_the_driver_are_known() {
        for (_, own) in DRIVER {
            let value = match own {
                "hostaddr" => "127.0.0.1",
                "channel_binding" => "prefer",
                "load_balance_hosts" => "random",
                "sslnegotiation" => "postgres",
                "target_session_attrs" => "any",
                _ => "1",
            };
            assert!(format!("{own}={value}").parse::<tokio_postgres::Config>().is_ok(), "{own}");
        }
    }

    #[test]
    fn the_environment_completes_the_connection_string() {
        let environment = [
            ("PGHOST", "db1,/run/x"),
            ("PGPORT", "6543,"),
            ("PGUSER", "app"),
            ("PGDATABASE", "evidence"),
            ("PGPASSWORD", "s3cret"),
            ("PGAPPNAME", "loader"),
            ("PGOPTIONS", "-c a=1"),
        ];
        let all = completed("", &environment);
        assert_eq!(all.get_hosts(), [Host::Tcp("db1".to_owned()), Host::Unix("/run/x".into())]);
        assert_eq!(
            (all.get_ports(), all.get_user(), all.get_dbname()),
            (&[6543, 5432][..], Some("app"), Some("evidence"))
        );
        assert_eq!((all.get_password(), all.get_application_name()), (Some(&b"s3cret"[..]), Some("loader")));
        assert_eq!(all.get_options(), Some("-c a=1"));
        let own = completed("host=h port=1 user=u dbname=d password=p application_name=a options=o", &environment);
        assert_eq!((own.get_hosts(), own.get_ports()), (&[Host::Tcp("h".to_owned())][..], &[1][..]));
        assert_eq!((own.get_user(), own.get_dbname(), own.get_password()), (Some("u"), Some("d"), Some(&b"p"[..])));
        assert_eq!((own.get_application_name(), own.get_options()), (Some("a"), Some("o")));
        let address = completed("dbname=d", &[("PGHOSTADDR", "127.0.0.1")]);
        assert!(address.get_hosts().is_empty() && address.get_hostaddrs().len() == 1);
        let nothing = completed("postgresql:///evidence", &[]);
        assert_eq!(nothing.get_hosts().len(), 1, "libpq's default");
        for (name, value) in [("PGPORT", "s3cret"), ("PGHOSTADDR", "s3cret")] {
            let look_up = |asked: &str| (asked == name).then(|| value.into());
            let error = complete(&mut tokio_postgres::Config::new(), None, &look_up).unwrap_err();
            assert!(error.setting == name && !error.reason.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn hosts_without_a_port_take_the_port_of_the_environment() {
        let with = |url: &str, port: &'static str| {
            with_default_port(url.to_owned(), &|name: &str| (name == "PGPORT").then(|| port.into()))
        };
        for (url, port, expected) in [
            ("postgresql://h/d", "6543", "postgresql://h:6543/d"),
            ("postgresql://u:p@h?sslnegotiation=direct", "6543", "postgresql://u:p@h:6543?sslnegotiation=direct"),
            ("postgresql://h:1,[::1],g/d", "6543,7,", "postgresql://h:1,[::1]:7,g/d"),
            ("postgresql://[::1]:2", "6543", "postgresql://[::1]:2"),
            ("postgresql:///d?host=h", "6543", "postgresql:///d?host=h"),
            ("host=h", "6543", "host=h"),
        ] {
            assert_eq!(with(url, port), expected, "{url}");
        }
        assert_eq!(with_default_port("postgresql://h/d".to_owned(), &|_| None), "postgresql://h/d");
    }

    #[test]
    fn a_password_file_is_read_as_libpq_reads_it() {
        let lines = "# h:1:d:u:no\nh:2:d:u:other port\nh:1:d:u:a\\:b\\\\c:d\n*:*:*:u:any\nshort:line\n";
        assert_eq!(password_in(lines, ["h", "1", "d", "u"]).as_deref(), Some("a:b\\c:d"));
        assert_eq!(password_in(lines, ["x", "1", "d", "u"]).as_deref(), Some("any"));
        assert_eq!(password_in(lines, ["h", "1", "d", "v"]), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_password_file_readable_by_other_users_is_ignored() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passwords");
        fs::write(&file, "localhost:5432:d:u:from the file\n").unwrap();
        let name = file.to_str().unwrap().to_owned();
        for (mode, expected) in [(0o600, Some(&b"from the file"[..])), (0o640, None), (0o604, None)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            for host in ["localhost", "/var/run/postgresql"] {
                let postgres = completed(&format!("host={host} user=u dbname=d"), &[("PGPASSFILE", &name)]);
                assert_eq!(postgres.get_password(), expected, "{mode:o} {host}");
            }
        }
    }
}
