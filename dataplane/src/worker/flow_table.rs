//! From a segment's addresses and ports to whom it belongs.
//!
//! Keys are chosen by peers, so the hash is SipHash-1-3 under the worker's secret.
//! The table is bounded; a full table refuses new flows and counts.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher13;

use crate::mptcp::SubflowId;
use crate::wire::types::FourTuple;

/// Whose a flow is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A subflow of one of this worker's connections.
    Subflow {
        /// Connection slot.
        conn: u32,
        /// Which subflow.
        subflow: SubflowId,
    },
    /// Closed, in TIME-WAIT.
    TimeWait {
        /// Serial number in the TIME-WAIT queue.
        serial: u64,
    },
    /// A connection of another worker; the NIC delivers this flow to our queue.
    Foreign {
        /// Its owner.
        worker: u16,
    },
}

/// A four-tuple as 36 bytes, so that it is hashed in one write.
#[derive(Copy, Clone, PartialEq, Eq)]
struct FlowKey([u8; 36]);

impl FlowKey {
    fn new(tuple: &FourTuple) -> Self {
        let mut key = [0; 36];
        put(&mut key[..18], tuple.local);
        put(&mut key[18..], tuple.remote);
        Self(key)
    }
}

fn put(out: &mut [u8], address: SocketAddr) {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    out[..16].copy_from_slice(&ip);
    out[16..18].copy_from_slice(&address.port().to_be_bytes());
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

#[derive(Copy, Clone, Debug)]
struct Keyed([u8; 16]);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

/// See the module documentation.
pub struct FlowTable {
    map: HashMap<FlowKey, Flow, Keyed>,
    flows_max: usize,
    /// Frames come in runs of one flow: the last answer saves most lookups.
    last: Option<(FlowKey, Flow)>,
}

impl std::fmt::Debug for FlowTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FlowTable({} of {})", self.map.len(), self.flows_max)
    }
}

/// The flow table is full.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TableFull;

impl FlowTable {
    /// An empty table for at most `flows_max` flows under `secret`.
    #[must_use]
    pub fn new(secret: [u8; 16], flows_max: usize) -> Self {
        Self {
            map: HashMap::with_hasher(Keyed(secret)),
            flows_max,
            last: None,
        }
    }

    /// Whose segment is this?
    pub fn lookup(&mut self, tuple: &FourTuple) -> Option<Flow> {
        let key = FlowKey::new(tuple);
        if let Some((last, flow)) = &self.last
            && *last == key
        {
            return Some(*flow);
        }
        let flow = self.map.get(&key).copied()?;
        self.last = Some((key, flow));
        Some(flow)
    }

    /// Adds or replaces a flow.
    ///
    /// # Errors
    /// [`TableFull`] when it is new and the table is full.
    pub fn insert(&mut self, tuple: &FourTuple, flow: Flow) -> Result<(), TableFull> {
        let key = FlowKey::new(tuple);
        self.last = None;
        if self.map.len() >= self.flows_max && !self.map.contains_key(&key) {
            return Err(TableFull);
        }
        self.map.insert(key, flow);
        Ok(())
    }

    /// Removes a flow if it still is `flow`.
    pub fn remove(&mut self, tuple: &FourTuple, flow: Flow) {
        let key = FlowKey::new(tuple);
        self.last = None;
        if self.map.get(&key) == Some(&flow) {
            self.map.remove(&key);
        }
    }

    /// No room for a new flow?
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.map.len() >= self.flows_max
    }

    /// Flows in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// No flow at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> FourTuple {
        FourTuple {
            local: "10.0.0.1:80".parse().unwrap(),
            remote: SocketAddr::new("10.0.0.2".parse().unwrap(), port),
        }
    }

    #[test]
    fn finds_replaces_and_removes() {
        let mut t = FlowTable::new([7; 16], 2);
        t.insert(&tuple(1), Flow::Foreign { worker: 1 }).unwrap();
        assert_eq!(t.lookup(&tuple(1)), Some(Flow::Foreign { worker: 1 }));
        t.insert(&tuple(1), Flow::TimeWait { serial: 9 }).unwrap();
        assert_eq!(t.lookup(&tuple(1)), Some(Flow::TimeWait { serial: 9 }));
        t.remove(&tuple(1), Flow::Foreign { worker: 1 });
        assert!(
            t.lookup(&tuple(1)).is_some(),
            "removed although it belongs to another"
        );
        t.remove(&tuple(1), Flow::TimeWait { serial: 9 });
        assert_eq!(t.lookup(&tuple(1)), None);
        assert!(t.is_empty());
    }

    #[test]
    fn a_full_table_refuses_new_flows_only() {
        let mut t = FlowTable::new([7; 16], 2);
        for p in 1..=2 {
            t.insert(&tuple(p), Flow::Foreign { worker: 0 }).unwrap();
        }
        assert_eq!(
            t.insert(&tuple(3), Flow::Foreign { worker: 0 }),
            Err(TableFull)
        );
        assert!(t.is_full());
        assert_eq!(t.insert(&tuple(2), Flow::Foreign { worker: 5 }), Ok(()));
        assert_eq!(t.lookup(&tuple(2)), Some(Flow::Foreign { worker: 5 }));
    }
}
