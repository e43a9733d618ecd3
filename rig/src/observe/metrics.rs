//! Serves the counters over HTTP in `OpenMetrics` text, for Prometheus and what reads the same.
//!
//! Counters go out as they are, since the probes were attached; rates are the scraper's to make. What the kernel does not
//! show has no metric at all, rather than one that says 0.

mod families;
mod server;

pub use server::Metrics;
