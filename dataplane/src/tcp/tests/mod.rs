//! Tests of the whole state machine.
//!
//! `peer` drives one connection segment by segment; `pair` lets two of them talk over a bad
//! network in virtual time.

mod close;
mod ecn;
mod handshake;
mod loss;
mod pair;
mod peer;
mod seeds;
mod validity;
mod windows;
