//! Settings from a file and the environment.

use super::table::{ConfigBuilder, KEYS};
use crate::error::ConfigError;

impl ConfigBuilder {
    /// Reads settings from a TOML file (if one is named) and then from the environment: `GRAPHSINK_MAX_BATCH_ROWS` and
    /// so on, and `DATABASE_URL`. The environment wins.
    ///
    /// ```no_run
    /// use graphsink::ConfigBuilder;
    ///
    /// # fn run() -> Result<(), graphsink::ConfigError> {
    /// let config = ConfigBuilder::load(Some("graphsink.toml".as_ref()))?.build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn load(file: Option<&std::path::Path>) -> Result<Self, ConfigError> {
        use figment::providers::{Env, Format, Serialized, Toml};
        let mut figment = figment::Figment::new();
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        if let Ok(url) = std::env::var("DATABASE_URL") {
            figment = figment.merge(Serialized::default("database_url", url));
        }
        // Only known settings: programs and tests have their own variables with this prefix.
        figment.merge(Env::prefixed("GRAPHSINK_").only(KEYS)).extract().map_err(|error| ConfigError {
            setting: "file or environment",
            // Only the place and the kind are reported: the value may be a connection string.
            reason: format!("cannot be read: {}", error.path.join(".")) + &kind(&error.kind),
        })
    }
}

fn kind(kind: &figment::error::Kind) -> String {
    use figment::error::Kind;
    match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => format!(" expects {expected}"),
        Kind::UnknownField(field, _) => format!("unknown setting {field}, known are {}", KEYS.join(", ")),
        Kind::Message(message) => format!(" {message}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::AsOf;

    fn file(text: &str) -> Result<ConfigBuilder, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        ConfigBuilder::load(Some(file.path()))
    }

    #[test]
    fn settings_are_read_from_a_file_and_errors_of_unknown_ones_show_no_value() {
        let text = "database_url = 'postgresql://user:s3cret@localhost/db'\nschema = 'evidence'\n\
            max_batch_rows = 77\noutcome_deadline_seconds = 1.5\nas_of = '2024-01-10T14:20:00Z'";
        let config = file(text).unwrap().database_url("postgresql://localhost/db").build().unwrap();
        assert_eq!((config.schema(), config.max_batch_rows), ("evidence", 77));
        assert_eq!(config.outcome_deadline, Duration::from_millis(1500));
        assert_eq!(config.as_of, AsOf::Fixed("2024-01-10T14:20:00Z".parse().unwrap()));
        for wrong in ["max_batch_row = 1", "max_batch_rows = 's3cret'", "database_url = ['s3cret']"] {
            let error = file(wrong).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    /// A value other than the default, as it is told and as it is written in a file.
    fn another(setting: &str, default: &str) -> (String, String) {
        let (told, written) = match (setting, default) {
            ("as_of", _) => ("2024-01-10T14:20:00Z", "'2024-01-10T14:20:00Z'"),
            ("schema", _) => ("evidence", "'evidence'"),
            (_, "true") => ("false", "false"),
            (_, "false") => ("true", "true"),
            (_, number) => {
                let more = (number.parse::<f64>().unwrap() + 1.0).to_string();
                return (more.clone(), more);
            }
        };
        (told.to_owned(), written.to_owned())
    }

    #[test]
    fn every_setting_is_read_and_shown_by_its_name() {
        let defaults = ConfigBuilder::default().database_url("postgresql:///x").build().unwrap().settings();
        assert_eq!(defaults.iter().map(|(setting, _)| *setting).collect::<Vec<_>>(), KEYS[1..]);
        for (index, (setting, default)) in defaults.iter().enumerate() {
            let (told, written) = another(setting, default);
            let config = file(&format!("database_url = 'postgresql:///x'\n{setting} = {written}")).unwrap();
            assert_eq!(config.build().unwrap().settings()[index], (*setting, told));
        }
    }
}
