//! QMP, the protocol of QEMU's monitor: JSON objects, one per line, over a stream socket. [`client`] is the side that asks
//! a real QEMU; the rest is the side that answers, a monitor that puts the limiter under remote control in QEMU's words.
//!
//! ```text
//!  socket ─▶ server ─▶ connection ─▶ framing ─▶ request ─▶ session ─▶ monitor ─▶ LimitedVm
//!            (accepts)  (a thread     (bytes to  (JSON to   (mode,      ▲          (the rig's guest,
//!                        a client)     values)    words)     dispatch)  │           or a VM outside)
//!                                                              hmp ─────┘
//! ```
//!
//! [`LimitedVm`] is all that a VM has to offer to be served. Messages are in our own words; names, shapes and error
//! classes are those of QEMU 10.

mod arguments;
pub mod client;
mod connection;
mod dirty_rate;
mod ending;
mod framing;
pub mod hmp;
mod monitor;
mod request;
mod server;
mod session;
mod socket;
mod vm;
pub mod wire;

#[cfg(test)]
mod tests;

pub use self::{
    monitor::Monitor,
    server::{Listening, Server},
    socket::SocketError,
    vm::{LimitedVm, VcpuInfo},
};
