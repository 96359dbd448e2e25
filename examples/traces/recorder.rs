//! Spans of the engine for OpenTelemetry.

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

/// The destination of spans: memory, for readers in the same process, and with `print` also standard output. A service
/// has an exporter of `opentelemetry-otlp` here, which sends them to a collector, in batches.
pub fn provider(print: bool) -> (SdkTracerProvider, InMemorySpanExporter) {
    let kept = InMemorySpanExporter::default();
    let mut provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone());
    if print {
        provider = provider.with_simple_exporter(opentelemetry_stdout::SpanExporter::default());
    }
    (provider.build(), kept)
}

/// Forwards only the engine's spans to `provider`: those of statements are at level trace.
pub fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("graphsink"))
        .with_location(false)
        .with_threads(false)
        .with_filter(EnvFilter::new("graphsink=trace"))
}
