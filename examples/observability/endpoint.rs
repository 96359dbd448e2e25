//! The monitoring endpoint of a program: `/metrics` for Prometheus, `/livez` and `/readyz` for an orchestrator,
//! `/stats` for `top` and all other readers of JSON.
//!
//! Copy it into your program: besides graphsink it needs axum and metrics-exporter-prometheus.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use graphsink::{Engine, Health, Stats};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Upper bounds of buckets, in seconds: from a single unit to the deadline.
const SECONDS: [f64; 16] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Upper bounds of buckets, in rows or units of a transaction.
const SIZES: [f64; 11] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0];

/// How often recorded values are moved into buckets, whether or not they are scraped: until then they take memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// The content of `/stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub health: Health,
    pub stats: Stats,
}

impl Report {
    pub fn of(engine: &Engine) -> Self {
        Self { health: engine.health(), stats: engine.stats() }
    }
}

/// Installs the recorder of this program. It must be installed before the engine starts, because the engine then
/// describes its metrics.
pub fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_rows".to_owned()), &SIZES)?
        .set_buckets_for_metric(Matcher::Suffix("_units".to_owned()), &SIZES)?
        .install_recorder()
}

/// Serves an address until this is dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Endpoint {
    /// Begins to serve.
    pub async fn serve(address: SocketAddr, engine: Engine, metrics: PrometheusHandle) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let upkeep = metrics.clone();
        let upkeep = tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                upkeep.run_upkeep();
            }
        });
        let router = Router::new()
            .route(
                "/metrics",
                get(async move || ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())),
            )
            .route("/livez", get(async |State(engine): State<Engine>| probe(engine.health(), |health| health.live)))
            .route("/readyz", get(async |State(engine): State<Engine>| probe(engine.health(), |health| health.ready)))
            .route("/stats", get(async |State(engine): State<Engine>| Json(Report::of(&engine))))
            .with_state(engine);
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(error = %error, "the endpoint for metrics broke down");
            }
        });
        Ok(Self { address, tasks: [upkeep, serving] })
    }

    /// The address.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The status is for machines, the text for people.
fn probe(health: Health, is_good: impl Fn(&Health) -> bool) -> Response {
    let status = if is_good(&health) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}
