//! A demo engine with a load that rises and falls, served like any other.

use std::error::Error;
use std::time::{Duration, Instant};

use graphsink::loader::{Input, Sample, Units};
use graphsink::server::EmbeddedServer;
use graphsink::{AsOf, Config, Engine, Migrations, SubmitError};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_postgres::NoTls;

use crate::endpoint::{self, Endpoint};

type AnyError = Box<dyn Error + Send + Sync>;

/// Average units per second: few enough not to occupy the machine or fill its disk.
const UNITS_PER_SECOND: f64 = 1_500.0;
/// Amplitude of the load.
const SWELL: f64 = 1_200.0;
const SWELL_PERIOD: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(20);
/// Lines of one sample; then the next sample follows.
const SAMPLE_LINES: u64 = 1_000_000;
const SHUTDOWN: Duration = Duration::from_secs(10);

/// An engine under load, until it is ended.
#[derive(Debug)]
pub(crate) struct Demo {
    engine: Engine,
    endpoint: Endpoint,
    load: JoinHandle<()>,
    url: String,
    schema: String,
    server: Option<EmbeddedServer>,
}

impl Demo {
    /// Starts it on `DATABASE_URL`, in its own schema, or on an embedded server.
    pub(crate) async fn start() -> Result<Self, AnyError> {
        let (url, server) = match std::env::var("DATABASE_URL") {
            Ok(url) if !url.is_empty() => (url, None),
            _ => {
                let server = EmbeddedServer::temporary().await?;
                (server.url("postgres"), Some(server))
            }
        };
        let schema = format!("graphsink_top_{}", std::process::id());
        let config = Config::builder(&url).schema(&schema).as_of(AsOf::Fixed(Sample::as_of())).build()?;
        Migrations::all().run(&config).await?;
        let metrics = endpoint::install_recorder()?;
        let engine = Engine::start(config).await?;
        let endpoint = Endpoint::serve(([127, 0, 0, 1], 0).into(), engine.clone(), metrics).await?;
        let load = tokio::spawn(load(engine.clone()));
        Ok(Self { engine, endpoint, load, url, schema, server })
    }

    /// The address of its endpoint.
    pub(crate) fn address(&self) -> String {
        self.endpoint.address().to_string()
    }

    /// Ends it and removes its data.
    pub(crate) async fn end(self) -> Result<(), AnyError> {
        self.load.abort();
        self.engine.shutdown(SHUTDOWN).await;
        if let Some(mut server) = self.server {
            server.stop().await?;
            return Ok(());
        }
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        // An error of the connection also ends the statement that waits for it, which reports it.
        tokio::spawn(async move { drop(connection.await) });
        client.batch_execute(&format!("drop schema {} cascade", self.schema)).await?;
        Ok(())
    }
}

/// Submits one sample after another.
async fn load(engine: Engine) {
    let mut units = (Sample::SEED..).flat_map(|seed| {
        let reader = Box::new(Sample::new(seed, SAMPLE_LINES).into_reader());
        let sample = Input::Reader { name: format!("sample {seed}"), reader };
        Units::new([sample]).keep_records(false).filter_map(|unit| unit.ok()?.content.ok())
    });
    let (started, mut submitted) = (Instant::now(), 0.0);
    let mut tick = tokio::time::interval(TICK);
    // Ticks missed while the engine was full are skipped.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due = 0.0;
    loop {
        tick.tick().await;
        let turn = started.elapsed().as_secs_f64() / SWELL_PERIOD.as_secs_f64() * std::f64::consts::TAU;
        due += (UNITS_PER_SECOND + SWELL * turn.sin()) * TICK.as_secs_f64();
        while submitted < due {
            let Some(unit) = units.next() else { return };
            match engine.submit(unit).await {
                // The picture shows its outcome.
                Ok(receipt) => drop(receipt),
                Err(SubmitError::Invalid(_)) => {}
                // The engine ended, which the picture shows.
                Err(_) => return,
            }
            submitted += 1.0;
        }
    }
}
