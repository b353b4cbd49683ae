//! Messages on the daemon's sockets: data and its encoding, no behaviour.
//!
//! [`frame`], [`ipc`], [`message`], [`field`] and [`page`] are the command protocol between clients and the daemon;
//! [`worker`] is the protocol between the daemon and a worker. `tests/golden/` holds messages of both protocols as
//! files; the tests of both sides read them.

mod encoding;
pub mod field;
pub mod frame;
pub mod ipc;
pub mod message;
pub mod page;
pub mod worker;
