//! What goes over the sockets: data and its encoding, no behaviour.
//!
//! [`frame`], [`ipc`], [`message`] and [`field`] are the command protocol between clients and the daemon; [`worker`] is
//! what the daemon and a worker say to each other. `tests/golden/` holds messages of both as files, read by the tests
//! of both sides.

pub mod field;
pub mod frame;
pub mod ipc;
pub mod message;
pub mod page;
pub mod worker;
