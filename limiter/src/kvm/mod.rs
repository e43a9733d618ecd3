//! What the limiter itself does to a running vCPU. All unsafe code of this crate is here.

pub(crate) mod kick;
