//! Serves the counters over HTTP for Prometheus and what reads the same: as text of Prometheus' own format 0.0.4, or of
//! `OpenMetrics` 1.0 where the client's `Accept` prefers that.
//!
//! Counters go out as they are, since the probes were attached; rates are the scraper's to make. What the kernel does not
//! show has no metric at all, rather than one that says 0. A VM that has ended leaves after [`LINGER`].

mod families;
mod lives;
mod negotiation;
mod server;

pub use lives::LINGER;
pub use server::Metrics;
