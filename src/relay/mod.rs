//! The relay: bytes from one connection to the other, both ways, until both have ended.
//!
//! A connection is one task, which polls both directions together. The rules are apart from what moves the bytes:
//! - `Relay` (duplex.rs) knows outcomes, half-closes, idle time and whose fault an end was, and sees no byte;
//! - a [`Pump`] is one direction: it chooses a mover and knows backpressure, but no cause;
//! - the movers, copy.rs and splice.rs, know two transports and the buffer or pipe between them;
//! - a [`Framer`] knows where a direction ends before its connection does, as HTTP bodies do.
//!
//! None of them knows listeners, backends or logs.

mod byte_meter;
mod copy;
mod duplex;
mod engine;
mod framer;
mod mover_choice;
mod pipes;
mod pump;
mod pump_context;
mod relay_resources;
mod room;
mod scratch;
mod splice;
mod step;
mod unsent;

pub use byte_meter::{Direction, FirstByte, Meter, Tally};
pub use duplex::{Early, Limits, Outcome, Start, run};
pub use engine::Engine;
pub use framer::Framer;
pub use pipes::{PIPE_FILES_PER_WORKER, Pipes, WorkerPipe};
pub use pump::Pump;
pub use pump_context::PumpContext;
pub use relay_resources::RelayResources;
pub use scratch::Scratch;
pub use step::Step;
