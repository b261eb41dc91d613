//! Frames and flow routes that travel between workers.
//!
//! The NIC's hash decides on which queue a joined subflow arrives; its connection lives
//! on the worker that its token names. One bounded SPSC ring per ordered pair of
//! workers carries the frame itself (no copy: the frame goes home by its pool's return
//! ring). When the ring is full the frame is dropped and counted: TCP repairs it.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::buf::PacketFrames;
use crate::io::PortId;
use crate::wire::types::FourTuple;

/// Entries per ring: two receive batches of 64 from each of several interfaces.
const RING_ENTRIES: usize = 1024;

/// One message to another worker.
#[derive(Debug)]
pub enum HandOff {
    /// A received packet of one of your connections.
    Packet {
        /// Interface it came in by (the same number in every worker).
        port: PortId,
        /// Worker that received it.
        from: u16,
        /// The packet, its checksum not looked at yet.
        frames: PacketFrames,
    },
    /// Hand me what arrives for this flow from now on.
    Claim {
        /// The flow.
        tuple: FourTuple,
        /// Its owner.
        owner: u16,
    },
    /// The flow is gone.
    Release {
        /// The flow.
        tuple: FourTuple,
        /// Its owner until now.
        owner: u16,
    },
}

/// One worker's ends of all rings.
#[derive(Debug)]
pub struct HandOffRings {
    index: usize,
    /// `to[w]`: written here, read by worker `w`.
    to: Vec<Arc<ArrayQueue<HandOff>>>,
    /// `from[w]`: written by worker `w`, read here.
    from: Vec<Arc<ArrayQueue<HandOff>>>,
    /// Whose ring is read next.
    turn: usize,
}

impl HandOffRings {
    /// The rings of `workers` workers.
    #[must_use]
    pub fn mesh(workers: usize) -> Vec<HandOffRings> {
        let rings: Vec<Vec<Arc<ArrayQueue<HandOff>>>> = (0..workers)
            .map(|_| {
                (0..workers)
                    .map(|_| Arc::new(ArrayQueue::new(RING_ENTRIES)))
                    .collect()
            })
            .collect();
        (0..workers)
            .map(|index| HandOffRings {
                index,
                to: rings[index].clone(),
                from: rings.iter().map(|row| row[index].clone()).collect(),
                turn: 0,
            })
            .collect()
    }

    /// Sends to a worker.
    ///
    /// # Errors
    /// Gives the message back when the ring is full or the worker does not exist.
    pub fn send(&self, worker: u16, message: HandOff) -> Result<(), HandOff> {
        match self.to.get(usize::from(worker)) {
            Some(ring) if usize::from(worker) != self.index => ring.push(message),
            _ => Err(message),
        }
    }

    /// The next message for this worker; peers take turns.
    pub fn receive(&mut self) -> Option<HandOff> {
        for _ in 0..self.from.len() {
            let ring = &self.from[self.turn];
            self.turn = (self.turn + 1) % self.from.len();
            // An empty ring costs a look, not the fence of a failed pop.
            if !ring.is_empty()
                && let Some(message) = ring.pop()
            {
                return Some(message);
            }
        }
        None
    }

    /// Drops what is on its way from and to this worker, which stops: frames go home.
    pub fn clear(&mut self) {
        for ring in self.from.iter().chain(&self.to) {
            while ring.pop().is_some() {}
        }
    }

    /// Something waits for this worker.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.from.iter().any(|ring| !ring.is_empty())
    }

    /// Other workers.
    pub fn peers(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.to.len())
            .filter(|w| *w != self.index)
            .map(|w| u16::try_from(w).expect("workers are counted in u16"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(port: u16, owner: u16) -> HandOff {
        let address = |p| std::net::SocketAddr::from(([10, 0, 0, 1], p));
        HandOff::Claim {
            tuple: FourTuple {
                local: address(port),
                remote: address(9),
            },
            owner,
        }
    }

    #[test]
    fn a_message_reaches_only_its_worker() {
        let mut rings = HandOffRings::mesh(3);
        rings[0].send(2, claim(1, 0)).unwrap();
        assert!(!rings[0].is_ready() && !rings[1].is_ready() && rings[2].is_ready());
        assert!(matches!(
            rings[2].receive(),
            Some(HandOff::Claim { owner: 0, .. })
        ));
        assert!(rings[2].receive().is_none());
        assert!(rings[0].send(0, claim(1, 0)).is_err(), "no ring to oneself");
        assert_eq!(rings[1].peers().collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_busy_peer_does_not_starve_another() {
        let mut rings = HandOffRings::mesh(3);
        for i in 0..100 {
            rings[0].send(2, claim(i, 0)).unwrap();
        }
        rings[1].send(2, claim(7, 1)).unwrap();
        let first = (0..2).map(|_| rings[2].receive().unwrap());
        assert!(
            first
                .into_iter()
                .any(|m| matches!(m, HandOff::Claim { owner: 1, .. }))
        );
        rings[2].clear();
        assert!(!rings[2].is_ready() && rings[2].receive().is_none());
    }

    #[test]
    fn a_full_ring_gives_the_message_back() {
        let mut rings = HandOffRings::mesh(2);
        for i in 0..RING_ENTRIES {
            rings[0]
                .send(1, claim(u16::try_from(i).unwrap(), 0))
                .unwrap();
        }
        assert!(rings[0].send(1, claim(7, 0)).is_err());
        // In order.
        for i in 0..RING_ENTRIES {
            match rings[1].receive() {
                Some(HandOff::Claim { tuple, .. }) => {
                    assert_eq!(usize::from(tuple.local.port()), i);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
