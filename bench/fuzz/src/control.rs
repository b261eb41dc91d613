//! Messages of the dataplane's control socket. The other end is trusted more than a network,
//! but a bad message must be refused, not end the process that carries everybody's traffic.

use braid_dataplane::control::{Envelope, FromDataplane, Reply, Request, Setup};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One run.
///
/// # Panics
///
/// On a finding.
pub fn run(data: &[u8]) {
    let Some((kind, message)) = data.split_first() else {
        return;
    };
    match kind % 4 {
        0 => round_trip::<Envelope<Request>>(message),
        1 => round_trip::<Setup>(message),
        2 => round_trip::<FromDataplane>(message),
        _ => round_trip::<Envelope<Reply>>(message),
    }
}

/// What is understood can be said again, and is understood the same.
fn round_trip<T: Serialize + DeserializeOwned>(message: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(message) else {
        return;
    };
    let said = serde_json::to_vec(&value).expect("a message can be written");
    let again: T = serde_json::from_slice(&said).expect("what was written can be read");
    let twice = serde_json::to_vec(&again).expect("a message can be written");
    assert_eq!(said, twice);
}
