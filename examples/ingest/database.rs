//! The database of the graph: one named by the user, or one of an embedded server that keeps its data between runs.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use graphsink::Config;
use graphsink::server::{EmbeddedServer, ServerError};
use serde::Serialize;
use tokio_postgres::config::Host;

use crate::AnyError;
use crate::args::Args;

/// The embedded server's database.
const DATABASE: &str = "graphsink";
/// The schema that psql uses by default.
const PUBLIC: &str = "public";
/// Time limit for checking whether the graph is empty.
const LOOK: Duration = Duration::from_secs(2);
/// Number of connections in the summary.
const STRONGEST: i64 = 10;

/// A database that can be reached.
#[derive(Debug)]
pub(crate) struct Database {
    url: String,
    /// The same, parsed and completed.
    config: Config,
    schema: String,
    embedded: Option<EmbeddedServer>,
    /// Options to repeat for the same database.
    options: String,
}

/// A connection with its names.
#[derive(Debug, Serialize)]
pub(crate) struct Strong {
    pub(crate) restaurant: String,
    pub(crate) dish: String,
    pub(crate) dish_attributes: Vec<String>,
    pub(crate) mentions: i32,
    pub(crate) threads: i32,
    pub(crate) total_upvotes: i64,
    pub(crate) activity_level: String,
    pub(crate) best_score: Option<f64>,
}

impl Database {
    /// Starts the embedded server, unless the options name a database.
    pub(crate) async fn open(args: &Args) -> Result<Self, AnyError> {
        let mut options = String::new();
        if args.schema != PUBLIC {
            options = format!(" --schema {}", shell_word(&args.schema));
        }
        let schema = args.schema.clone();
        if let Some(url) = args.database_url() {
            let config = Config::builder(url.as_str()).build()?;
            let database = Self { url, config, schema, embedded: None, options };
            eprintln!("database: {}", database.place());
            return Ok(database);
        }
        let (server, directory) = start(args).await?;
        options += &directory;
        eprintln!("database: PostgreSQL {} in {}", server.version(), server.directory().display());
        match server.create_database(DATABASE).await {
            Ok(()) => {}
            // There is a database of that name.
            Err(error) if error.sqlstate() == Some("42P04") => {}
            Err(error) => return Err(error.into()),
        }
        let url = server.url(DATABASE);
        let config = Config::builder(url.as_str()).build()?;
        Ok(Self { url, config, schema, embedded: Some(server), options })
    }

    /// Stops the embedded server; its data stay.
    pub(crate) async fn close(&mut self) -> Result<(), AnyError> {
        if let Some(server) = &mut self.embedded {
            server.stop().await?;
        }
        Ok(())
    }

    /// The connection string. It may contain a password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A shell command for looking at the graph, without a password.
    pub(crate) fn psql_hint(&self) -> String {
        if self.embedded.is_none() {
            return format!("psql \"{}\"", self.place());
        }
        // Cargo sets this variable for programs that it runs.
        let program = if env::var_os("CARGO").is_some() {
            let release = if cfg!(debug_assertions) { "" } else { "--release " };
            format!("cargo run {release}--example ingest --")
        } else {
            env::args().next().unwrap_or_else(|| "ingest".to_owned())
        };
        format!("{program} --psql{}", self.options)
    }

    /// Runs psql in the foreground and returns its exit status.
    pub(crate) fn run_psql(&self) -> Result<ExitCode, AnyError> {
        let mut psql = Command::new(self.psql_program());
        psql.arg(self.place());
        if let Some(password) = self.config.postgres().get_password() {
            // Other users can read a program's arguments, but not its environment.
            psql.env("PGPASSWORD", String::from_utf8_lossy(password).as_ref());
        }
        if self.schema != PUBLIC {
            // The server's option parser splits at blanks, unless a backslash stands before them.
            let quoted = format!("\"{}\"", self.schema.replace('"', "\"\""));
            let path = quoted.replace('\\', "\\\\").replace(' ', "\\ ");
            psql.env("PGOPTIONS", format!("-c search_path={path},public"));
        }
        let status = psql.status().map_err(|error| format!("psql cannot be run: {error}"))?;
        Ok(ExitCode::from(status.code().map_or(1, |code| code as u8)))
    }

    fn psql_program(&self) -> String {
        // The server knows the psql of its own version: `program 'url'`.
        let command = self.embedded.as_ref().map(|server| server.psql_command(DATABASE));
        let program = command.as_deref().and_then(|command| command.split_once(" '")).map(|(program, _)| program);
        program.unwrap_or("psql").to_owned()
    }

    /// The database as a libpq connection string without its password.
    fn place(&self) -> String {
        let config = self.config.postgres();
        let hosts = config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let ports: Vec<String> = config.get_ports().iter().map(ToString::to_string).collect();
        let words = [
            ("host", hosts.collect::<Vec<_>>().join(",")),
            ("port", ports.join(",")),
            ("dbname", config.get_dbname().unwrap_or_default().to_owned()),
            ("user", config.get_user().unwrap_or_default().to_owned()),
        ];
        let words = words.iter().filter(|(_, value)| !value.is_empty());
        words.map(|(name, value)| format!("{name}={}", conninfo_value(value))).collect::<Vec<_>>().join(" ")
    }

    /// Whether the graph is known to have no row. The check has a short time limit: a hint does not justify waiting for
    /// locks on the tables, or for a silent server.
    pub(crate) async fn is_known_to_be_empty(&self) -> bool {
        matches!(tokio::time::timeout(LOOK, self.is_empty()).await, Ok(Ok(true)))
    }

    async fn is_empty(&self) -> Result<bool, AnyError> {
        let schema = self.schema.replace('"', "\"\"");
        let has_rows = ["entities", "connections", "mentions"]
            .map(|table| format!(r#"exists (select from "{schema}".{table})"#))
            .join(" or ");
        let client = self.config.connect().await?;
        // Limits the work on the server too.
        client.batch_execute("set lock_timeout = '1s'; set statement_timeout = '1s'").await?;
        Ok(!client.query_one(&format!("select {has_rows}"), &[]).await?.get::<_, bool>(0))
    }

    /// The connections with the most upvotes. Unlike scores, each of which was computed at the `as_of` of its last
    /// write, upvotes do not depend on the time.
    pub(crate) async fn strongest(&self, schema: &str) -> Result<Vec<Strong>, AnyError> {
        let schema = schema.replace('"', "\"\"");
        let client = self.config.connect().await?;
        let rows = client
            .query(
                &format!(
                    r#"
                    select r.name, d.name,
                           array(select a.name::text from "{schema}".entities a
                                 where a.entity_id = any (c.dish_attributes) order by a.name collate "C"),
                           c.mention_count, c.source_diversity, c.total_upvotes, c.activity_level::text,
                           (c.top_mentions->0->>'score')::float8
                    from (select * from "{schema}".connections
                          order by total_upvotes desc, connection_id limit $1) c
                    join "{schema}".entities r on r.entity_id = c.restaurant_id
                    join "{schema}".entities d on d.entity_id = c.dish_or_category_id
                    order by c.total_upvotes desc, c.connection_id"#
                ),
                &[&STRONGEST],
            )
            .await?;
        let strong = rows.iter().map(|row| Strong {
            restaurant: row.get(0),
            dish: row.get(1),
            dish_attributes: row.get(2),
            mentions: row.get(3),
            threads: row.get(4),
            total_upvotes: row.get(5),
            activity_level: row.get(6),
            best_score: row.get(7),
        });
        Ok(strong.collect())
    }
}

/// Starts the server on the directory given by the options, or on the default one.
async fn start(args: &Args) -> Result<(EmbeddedServer, String), AnyError> {
    if let Some(directory) = &args.data_dir {
        let server = EmbeddedServer::builder().data_dir(directory).start().await?;
        return Ok((server, format!(" --data-dir {}", shell_word(&directory.display().to_string()))));
    }
    match EmbeddedServer::builder().data_dir(default_directory()).start().await {
        // PostgreSQL refuses to run as root, and root's own directories are closed to others.
        Err(ServerError::Unreachable { .. }) => {
            let server = EmbeddedServer::builder().data_dir("/var/tmp/graphsink-ingest").start().await?;
            Ok((server, String::new()))
        }
        started => Ok((started?, String::new())),
    }
}

/// Cargo's target directory, or the current one if the program was moved elsewhere.
fn default_directory() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let examples = program.ancestors().find(|path| path.ends_with("examples"));
    let target = examples.and_then(|examples| examples.ancestors().nth(2));
    target.map_or_else(PathBuf::new, PathBuf::from).join("graphsink-ingest")
}

fn conninfo_value(value: &str) -> String {
    if value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/,:".contains(&byte)) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn shell_word(word: &str) -> String {
    if word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte)) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
