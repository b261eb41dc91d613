//! Messages between the control plane and the dataplane process.
//!
//! One transport ([`transport`]): JSON, one message per `SOCK_SEQPACKET` datagram,
//! descriptors beside it by `SCM_RIGHTS`. One vocabulary ([`messages`]): the control
//! plane sends [`Request`]s, the dataplane answers each with one [`Reply`] of the
//! same id and, to a subscriber, adds [`DataplaneEvent`]s. Mechanism lives here in
//! the dataplane, policy in the control plane.

pub mod messages;
pub mod transport;

pub use messages::*;
