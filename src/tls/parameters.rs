//! The parameters about TLS in a connection string.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::mode::Mode;
use crate::connection_string::{self, Place, place};
use crate::error::ConfigError;

/// The parameters about TLS, as given.
#[derive(Default)]
pub(super) struct Parameters {
    pub(super) mode: Option<String>,
    pub(super) root: Option<String>,
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    pub(super) certificate: Option<String>,
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    pub(super) key: Option<String>,
    /// Not about TLS, but also unknown to the driver.
    pub(super) passfile: Option<String>,
}

impl Parameters {
    /// Fills in missing values from the environment.
    pub(super) fn complete(&mut self, environment: connection_string::Environment<'_>) {
        for (variable, name) in [
            ("PGSSLMODE", "sslmode"),
            ("PGSSLROOTCERT", "sslrootcert"),
            ("PGSSLCERT", "sslcert"),
            ("PGSSLKEY", "sslkey"),
        ] {
            let value = self.value_of(name).expect("each of these is kept");
            if value.is_none() {
                *value = environment(variable).and_then(|text| text.into_string().ok());
            }
        }
    }

    /// Removes them from a connection string of either form, and returns the rest, without ignored parameters, for
    /// tokio-postgres. An error names a parameter that belongs nowhere. The two grammars are tokio-postgres's own, so
    /// that both find the same parameters.
    pub(super) fn take_out_of(connection_string: &str) -> Result<(String, Self), ConfigError> {
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| connection_string.starts_with(scheme));
        let mut parameters = Self::default();
        let rest = if is_url {
            parameters.take_out_of_url(connection_string)?
        } else {
            parameters.take_out_of_pairs(connection_string)?
        };
        Ok((rest.ok_or_else(not_a_connection_string)?, parameters))
    }

    fn value_of(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "sslmode" => Some(&mut self.mode),
            "sslrootcert" => Some(&mut self.root),
            "sslcert" => Some(&mut self.certificate),
            "sslkey" => Some(&mut self.key),
            "passfile" => Some(&mut self.passfile),
            _ => None,
        }
    }

    /// `postgresql://user:password@host/db?name=value&name=value`, percent-encoded. `None` if it is not such a URL.
    fn take_out_of_url(&mut self, url: &str) -> Result<Option<String>, ConfigError> {
        let credentials_end = url.find('@').map_or(0, |at| at + 1);
        // An `@` in a parameter would silently make everything before it user and password, including TLS parameters.
        let credentials = &url[..credentials_end];
        if credentials.contains('?')
            && ["sslmode=", "sslrootcert=", "sslcert=", "sslkey="].iter().any(|name| credentials.contains(name))
        {
            return Ok(None);
        }
        let Some(query) = url[credentials_end..].find('?').map(|at| credentials_end + at) else {
            return Ok(Some(url.to_owned()));
        };
        // Text before another `@` may be the rest of a password.
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
                    *self.value_of(&name).expect("each of these is kept") = Some(decoded);
                }
                Place::Driver(name) => rest.push(format!("{name}={value}")),
                Place::Ignored => {}
            }
        }
        let rest = rest.join("&");
        Ok(Some(if rest.is_empty() { url[..query].to_owned() } else { format!("{}?{rest}", &url[..query]) }))
    }

    /// `name=value name='quoted \' value'`. `None` if it is not such a list.
    fn take_out_of_pairs(&mut self, text: &str) -> Result<Option<String>, ConfigError> {
        let mut rest = String::new();
        let mut left = text.trim_start();
        // The rest of an unquoted password with a blank in it looks like a name.
        let mut may_name = true;
        while !left.is_empty() {
            let Some((name, raw, value, after)) = first_pair(left) else { return Ok(None) };
            match place(name, &value, may_name)? {
                Place::Tls | Place::PasswordFile => *self.value_of(name).expect("each of these is kept") = Some(value),
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

    pub(super) fn mode(&self) -> Result<Mode, ConfigError> {
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
                return Err(ConfigError::new("sslmode", known));
            }
        };
        if system && mode != Mode::VerifyFull {
            // Those authorities issue a certificate to any owner of a name.
            return Err(ConfigError::new("sslmode", "must be verify-full with sslrootcert=system"));
        }
        Ok(mode)
    }

    pub(super) fn root(&self) -> Option<&str> {
        self.root.as_deref().filter(|root| !root.is_empty())
    }
}

/// The pair at the beginning of `text`: its name, its value as written and as meant, and the rest.
fn first_pair(text: &str) -> Option<(&str, &str, String, &str)> {
    let name_ends = text.find(|c: char| c.is_whitespace() || c == '=').filter(|at| *at > 0)?;
    let written = text[name_ends..].trim_start().strip_prefix('=')?.trim_start();
    let (value, after) = first_value(written)?;
    Some((&text[..name_ends], &written[..written.len() - after.len()], value, after))
}

/// The value at the beginning of `text`, and the rest.
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

pub(super) fn not_a_connection_string() -> ConfigError {
    ConfigError::new(
        "database_url",
        "is not a PostgreSQL connection string: write it like `postgresql://user@host:5432/database`, special characters as `%` and their code",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The string left for tokio-postgres, and the four parameters.
    fn taken(text: &str) -> Option<(String, [Option<String>; 4])> {
        let (rest, parameters) = Parameters::take_out_of(text).ok()?;
        Some((rest, [parameters.mode, parameters.root, parameters.certificate, parameters.key]))
    }

    fn some(values: [&str; 4]) -> [Option<String>; 4] {
        values.map(|value| Some(value.to_owned()).filter(|value| !value.is_empty()))
    }

    #[test]
    fn only_tls_parameters_are_taken_out_of_a_url() {
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
            // Text in a password is not a parameter: the password ends at the first `@`.
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
    fn an_at_sign_in_a_parameter_hides_no_earlier_parameter() {
        for url in
            ["postgresql://h/d?sslmode=verify-full&sslrootcert=/home/me@work/root.crt", "postgresql://u:p?sslkey=x@h"]
        {
            assert_eq!(taken(url), None, "{url}");
        }
    }

    #[test]
    fn only_tls_parameters_are_taken_out_of_key_value_pairs() {
        for (text, rest, parameters) in [
            ("", "", ["", "", "", ""]),
            ("host=h sslmode=require dbname=d", "host=h dbname=d ", ["require", "", "", ""]),
            (
                "  host = h\n sslrootcert = '/a b\\'c\\\\d' sslcert=/x\\ y  sslkey='/k'",
                "host=h ",
                ["", "/a b'c\\d", "/x y", "/k"],
            ),
            // Text in a quoted password is not a parameter.
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
            // tokio-postgres reads the rest as it would read the whole.
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
}
