//! One engine on a memory sink, under a clock that moves only when told.

use std::collections::VecDeque;
use std::time::Duration;

use braid_dataplane::buf::{Frame, FramePool};
use braid_dataplane::io::{PortId, RxChecksum, Tx};
use braid_dataplane::mptcp::TxSink;
use braid_dataplane::time::Instant;
use braid_dataplane::worker::{Arrival, Engine, EngineConfig};

use super::app::ScriptApp;

/// Time starts here, so that subtracting a little from it stays positive.
const EPOCH: Duration = Duration::from_secs(1);
pub(crate) const FRAMES: u32 = 4096;
const FRAME_BYTES: u32 = 2048;
const MTU: u32 = 1500;
/// Packets per turn.
const RING: u32 = 256;
/// Turns without rest after which the engine is said to spin.
const TURNS_MAX: u32 = 10_000;

/// A frame that left.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) nic: u16,
    pub(crate) frame: Vec<u8>,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) engine: Engine<ScriptApp>,
    pub(crate) now: Instant,
    pool: FramePool,
    pub(crate) sent: VecDeque<Sent>,
}

struct Sink<'a> {
    pool: &'a FramePool,
    sent: &'a mut VecDeque<Sent>,
    at: Instant,
    room: u32,
}

impl TxSink for Sink<'_> {
    fn alloc(&mut self, _port: PortId) -> Option<Frame> {
        self.pool.alloc()
    }

    fn send(&mut self, port: PortId, frame: &Frame) -> Tx {
        if self.room == 0 {
            return Tx::Full;
        }
        self.room -= 1;
        self.sent.push_back(Sent {
            at: self.at,
            nic: port.0,
            frame: frame.packet().to_vec(),
        });
        Tx::Queued
    }

    fn room(&self, _port: PortId) -> u32 {
        self.room
    }

    fn shares_frames(&self, _a: PortId, _b: PortId) -> bool {
        true
    }
}

impl Host {
    /// The same `seed` gives the same keys, nonces and sequence numbers.
    pub(crate) fn new(config: EngineConfig, seed: u8) -> Self {
        let now = Instant::default() + EPOCH;
        let pool = FramePool::heap(FRAMES, FRAME_BYTES);
        assert!(pool.adopt(), "a new pool is nobody's");
        Self {
            engine: Engine::new(config, [seed; 32], now),
            now,
            pool,
            sent: VecDeque::new(),
        }
    }

    /// A frame arrives, alone.
    pub(crate) fn receive(&mut self, nic: u16, bytes: &[u8]) -> Result<(), String> {
        self.receive_one(nic, bytes)?;
        self.settle()
    }

    /// A frame arrives; its batch lasts until [`Self::settle`].
    pub(crate) fn receive_one(&mut self, nic: u16, bytes: &[u8]) -> Result<(), String> {
        let mut frame = self.pool.alloc().ok_or("no frame is left")?;
        let room = frame.buffer_mut().ok_or("a fresh frame is in a ring")?;
        let fits = room.get_mut(..bytes.len());
        fits.ok_or("the packet does not fit into a frame")?
            .copy_from_slice(bytes);
        frame.set_len(bytes.len());
        let arrival = Arrival {
            port: PortId(nic),
            mtu: MTU,
            checksum: RxChecksum::Verify,
            from: None,
        };
        let mut sink = Sink {
            pool: &self.pool,
            sent: &mut self.sent,
            at: self.now,
            room: RING,
        };
        let frames = [frame].into();
        let handed = self.engine.on_packet(self.now, arrival, frames, &mut sink);
        assert!(handed.is_none(), "one worker has nobody to hand to");
        Ok(())
    }

    /// Runs the engine until it rests.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..TURNS_MAX {
            let mut sink = Sink {
                pool: &self.pool,
                sent: &mut self.sent,
                at: self.now,
                room: RING,
            };
            if !self.engine.run(self.now, &mut sink) && !self.engine.has_work() {
                return Ok(());
            }
        }
        Err("the engine spins".to_owned())
    }

    /// The next timer, if it is due by `until`, fires. False when none is; then it is
    /// `until`.
    pub(crate) fn step(&mut self, until: Instant) -> Result<bool, String> {
        match self.engine.next_deadline() {
            Some(at) if at <= until => {
                self.now = self.now.max(at);
                self.engine.on_timers(self.now);
                self.settle()?;
                Ok(true)
            }
            _ => {
                self.now = self.now.max(until);
                Ok(false)
            }
        }
    }

    /// Frames that did not come home, once nothing is connected any more.
    pub(crate) fn frames_missing(&self) -> u32 {
        self.pool.frames() - self.pool.available()
    }
}
