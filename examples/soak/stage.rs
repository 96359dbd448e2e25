//! The server under test: its database, the roles on it, and the switches for errors on demand.

use std::time::Duration;

use graphsink::server::{EmbeddedServer, ServerError};
use graphsink::{AsOf, Config, ConfigBuilder, Migrations};
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio_postgres::{Client, NoTls};

use crate::AnyError;
use crate::model::Time;

const DATABASE: &str = "soak";
/// The engines' role: neither owner nor superuser, so that privileges can be revoked.
pub(crate) const ROLE: &str = "soak_engine";
/// The role of the clients that take all connections.
const GUEST: &str = "soak_guest";
/// The password of the two roles, on a server that only this machine can reach, through 127.0.0.1.
const PASSWORD: &str = "soak";
/// The number of connections for all roles but superusers.
pub(crate) const CONNECTIONS_MAX: usize = 40;

/// Statement triggers raise the errors that `soak_switch` has for their table; the one on attempts also at commit. A
/// sequence counts the raised errors beyond all rollbacks, so that a switch can have a number of errors. Bad units have
/// rows that a constraint refuses: only PostgreSQL detects their fault.
const SWITCHES: &str = "
    create table soak_switch (
        id bigint generated always as identity primary key,
        place text not null,
        sqlstate text,
        seconds float8 not null default 0,
        raised_max bigint
    );
    create sequence soak_raised;
    create function soak_raise() returns trigger language plpgsql security definer as $$
    declare switch public.soak_switch;
    begin
        for switch in select * from public.soak_switch where place = tg_argv[0] loop
            if switch.seconds > 0 then
                perform pg_catalog.pg_sleep(switch.seconds);
            end if;
            if switch.sqlstate is not null
               and (switch.raised_max is null or pg_catalog.nextval('public.soak_raised') <= switch.raised_max) then
                raise exception using errcode = switch.sqlstate, message = 'raised by the soak';
            end if;
        end loop;
        return null;
    end $$;
    create trigger soak_raise before insert or update on entities execute function soak_raise('entities');
    create trigger soak_raise before insert or update on connections execute function soak_raise('connections');
    create trigger soak_raise before insert or update on mentions execute function soak_raise('mentions');
    create trigger soak_raise before insert on graphsink_attempts execute function soak_raise('graphsink_attempts');
    create constraint trigger soak_raise_at_commit after insert on graphsink_attempts
        deferrable initially deferred for each row execute function soak_raise('commit');
    alter table entities add constraint soak_refused check (name not like 'refused %');";

/// The server and its database.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Locked for reading by users of the server, and for writing to take it down.
    server: RwLock<EmbeddedServer>,
    pub(crate) as_of: Time,
}

impl Stage {
    pub(crate) async fn open(as_of: Time) -> Result<Self, AnyError> {
        let server = EmbeddedServer::builder()
            .setting("deadlock_timeout", "200ms")
            .setting("max_connections", (CONNECTIONS_MAX + 12).to_string())
            .setting("superuser_reserved_connections", "12")
            .setting("shared_buffers", "64MB")
            // Logins are counted, and every error is logged with its SQLSTATE.
            .setting("log_connections", "on")
            .setting("log_line_prefix", "%m [%p] %e %u ")
            .start()
            .await?;
        server.create_database(DATABASE).await?;
        let stage = Self { server: RwLock::new(server), as_of };
        let up = stage.up().await;
        let owner = Config::builder(up.url(DATABASE)).build()?;
        Migrations::all().run(&owner).await?;
        let admin = stage.admin(&up).await?;
        admin.batch_execute(SWITCHES).await?;
        admin
            .batch_execute(&format!(
                "create role {ROLE} login password '{PASSWORD}';
                 create role {GUEST} login password '{PASSWORD}';
                 grant usage on schema public to {ROLE}"
            ))
            .await?;
        admin.batch_execute(&privileges("grant", "to", "entities, connections, mentions")).await?;
        admin.batch_execute(&privileges("grant", "to", "graphsink_attempts")).await?;
        admin
            .batch_execute(&format!(
                "grant delete on entities, connections, mentions to {ROLE};
                 grant select, insert, update on entity_redirects, connection_redirects to {ROLE};
                 grant select, update on graphsink_generation to {ROLE};
                 grant usage on sequence graphsink_merge_generation to {ROLE}"
            ))
            .await?;
        drop(up);
        Ok(stage)
    }

    /// The server, which is not taken down while this is held.
    pub(crate) async fn up(&self) -> RwLockReadGuard<'_, EmbeddedServer> {
        self.server.read().await
    }

    /// A superuser's session, directly on the server.
    pub(crate) async fn admin(&self, up: &EmbeddedServer) -> Result<Client, AnyError> {
        connect(&up.url(DATABASE)).await
    }

    /// The server's URL for the engines' role. It stays the same when the server is restarted.
    pub(crate) async fn url(&self) -> String {
        format!("postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{}/{DATABASE}", self.up().await.port())
    }

    /// Settings of the engines, which connect through the proxy. All timeouts are short, so that they expire now and
    /// then.
    pub(crate) fn config(&self, url: &str) -> ConfigBuilder {
        Config::builder(url)
            .as_of(AsOf::Fixed(self.as_of))
            .max_batch_rows(120)
            .max_unit_rows(200)
            .max_rows_in_flight(200)
            .in_flight_commits(3)
            .outcome_deadline(Duration::from_secs(3))
            .statement_timeout(Duration::from_millis(1_200))
            .lock_timeout(Duration::from_millis(600))
            .connect_timeout(Duration::from_millis(800))
    }

    /// Takes every free connection; returns them.
    pub(crate) async fn take_all_connections(&self, up: &EmbeddedServer) -> Vec<Client> {
        let url = format!("postgresql://{GUEST}:{PASSWORD}@127.0.0.1:{}/{DATABASE}", up.port());
        let mut taken = Vec::new();
        while taken.len() < CONNECTIONS_MAX
            && let Ok(client) = connect(&url).await
        {
            taken.push(client);
        }
        taken
    }

    /// Kills the server and starts it again after a pause.
    pub(crate) async fn crash(&self, down: Duration) -> Result<(), ServerError> {
        let mut server = self.server.write().await;
        tokio::task::block_in_place(|| server.crash())?;
        tokio::time::sleep(down).await;
        server.restart().await
    }

    /// Stops the server and starts it again.
    pub(crate) async fn restart(&self) -> Result<(), ServerError> {
        self.server.write().await.restart().await
    }

    pub(crate) async fn close(&self) -> Result<(), ServerError> {
        self.server.write().await.stop().await
    }
}

/// All privileges of the engine on `tables`, granted or revoked.
pub(crate) fn privileges(verb: &str, preposition: &str, tables: &str) -> String {
    let which = if tables == "graphsink_attempts" { "select, insert, delete" } else { "select, insert, update" };
    format!("{verb} {which} on {tables} {preposition} {ROLE}")
}

async fn connect(url: &str) -> Result<Client, AnyError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Ends with the client; an error of the connection also fails the statement under way.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}
