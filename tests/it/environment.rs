//! libpq's environment variables complete the connection string.
//!
//! The environment belongs to the whole process, so the test runs itself once more in a process of its own.

use std::process::Command;

use graphsink::Config;

use crate::support::Database;

/// Marks the second process.
const CHILD: &str = "GRAPHSINK_TEST_ENVIRONMENT_CHILD";

#[tokio::test]
async fn a_connection_string_is_completed_by_the_environment() {
    if std::env::var_os(CHILD).is_some() {
        let client = Config::builder("postgresql:///").build().unwrap().connect().await.unwrap();
        let row =
            client.query_one("select current_database(), current_setting('application_name')", &[]).await.unwrap();
        println!("connected to {} as {}", row.get::<_, &str>(0), row.get::<_, &str>(1));
        return;
    }
    let database = Database::empty().await;
    let config = database.config().build().unwrap();
    let postgres = config.postgres();
    let directory = tempfile::tempdir().unwrap();
    let passwords = directory.path().join("passwords");
    let password = String::from_utf8(postgres.get_password().unwrap_or(b"unused").to_vec()).unwrap();
    std::fs::write(&passwords, format!("*:*:*:*:{}\n", password.replace('\\', "\\\\").replace(':', "\\:"))).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&passwords, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let host = match &postgres.get_hosts()[0] {
        tokio_postgres::config::Host::Tcp(host) => host.clone(),
        #[cfg(unix)]
        tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
    };
    let run = |passfile: &std::path::Path| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "environment::a_connection_string_is_completed_by_the_environment", "--nocapture"])
            .env(CHILD, "1")
            .env("PGHOST", &host)
            .env("PGPORT", postgres.get_ports().first().copied().unwrap_or(5432).to_string())
            .env("PGUSER", postgres.get_user().unwrap())
            .env("PGDATABASE", postgres.get_dbname().unwrap())
            .env("PGAPPNAME", "environment")
            .env("PGSSLMODE", "disable")
            .env("PGPASSFILE", passfile)
            .env_remove("PGPASSWORD")
            .output()
            .unwrap()
    };
    let child = run(&passwords);
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{said}");
    let expected = format!("connected to {} as environment", postgres.get_dbname().unwrap());
    assert!(said.contains(&expected), "{said}");
}
