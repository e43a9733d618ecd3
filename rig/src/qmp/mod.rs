//! QMP, the protocol of QEMU's monitor: JSON objects, one a line, over a stream socket.

pub mod client;
