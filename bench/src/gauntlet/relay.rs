//! The relay: joins the two halves of every path of a cut testbed and sends each frame
//! through that path's middleboxes, in real time.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use braid_dataplane::time::Instant;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::packet::PacketSocket;
use super::wire::{Wire, WireConfig};
use crate::failure;
use crate::middlebox::{Element, Toward};
use crate::sim::chain::Chain;
use crate::testbed::{Result, Role, Testbed};

/// How long the relay may sleep without looking whether it is still wanted.
const NAP: Duration = Duration::from_millis(20);

/// One path: a wire each way, then the boxes.
#[derive(Debug)]
struct Path {
    client: PacketSocket,
    server: PacketSocket,
    toward_client: Wire,
    toward_server: Wire,
}

/// A running relay; ends with its value.
#[derive(Debug)]
pub struct Relay {
    chains: Arc<Vec<Mutex<Chain>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

fn lock(chain: &Mutex<Chain>) -> MutexGuard<'_, Chain> {
    chain.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Joins the paths of a testbed that was built with [`crate::testbed::Options::cut`].
    /// For each path: its wire, and its boxes from the client's side to the server's.
    pub fn start(
        testbed: &Testbed,
        paths: Vec<(WireConfig, Vec<Box<dyn Element>>)>,
    ) -> Result<Self> {
        let (configs, chains): (Vec<_>, Vec<_>) = paths
            .into_iter()
            .map(|(config, elements)| (config, Mutex::new(Chain::new(elements))))
            .unzip();
        let chains = Arc::new(chains);
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let thread = std::thread::scope(|scope| {
            // A thread of its own enters the namespace: one cannot leave it again.
            let opened = scope.spawn(|| -> Result<Vec<Path>> {
                testbed.namespace_handle(Role::Hop)?.enter()?;
                configs
                    .iter()
                    .zip(1_u8..)
                    .map(|(config, path)| {
                        Ok(Path {
                            client: PacketSocket::open(&format!("hp{path}"))?,
                            server: PacketSocket::open(&format!("hb{path}"))?,
                            toward_client: Wire::new(*config),
                            toward_server: Wire::new(*config),
                        })
                    })
                    .collect()
            });
            opened
                .join()
                .map_err(|_| failure!("the relay panicked"))
                .flatten()
        })
        .map(|mut paths| {
            let (chains, stop) = (Arc::clone(&chains), Arc::clone(&stop));
            std::thread::spawn(move || {
                let _ = tell.send(());
                run(&mut paths, &chains, &stop)
            })
        })?;
        told.recv().map_err(|_| failure!("the relay ended"))?;
        Ok(Self {
            chains,
            stop,
            thread: Some(thread),
        })
    }

    /// What the boxes of a path did, counted from 0.
    #[must_use]
    pub fn counts(&self, path: usize) -> Vec<(&'static str, u64)> {
        let chain = lock(&self.chains[path]);
        chain.elements().iter().flat_map(|e| e.counts()).collect()
    }

    /// Ends it; frames that found a full queue.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take();
        thread.map_or(Ok(0), |thread| {
            thread.join().map_err(|_| failure!("the relay panicked"))?
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(paths: &mut [Path], chains: &[Mutex<Chain>], stop: &AtomicBool) -> Result<u64> {
    let origin = std::time::Instant::now();
    let clock =
        || Instant::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX));
    while !stop.load(Ordering::Relaxed) {
        let mut wake = clock() + NAP;
        for (path, chain) in paths.iter_mut().zip(chains) {
            let next = path.serve(&mut lock(chain), &clock)?;
            wake = next.map_or(wake, |next| wake.min(next));
        }
        let sleep = wake.saturating_duration_since(clock());
        let fds = paths.iter().flat_map(|path| [&path.client, &path.server]);
        let mut fds: Vec<_> = fds
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        match ppoll(&mut fds, Some(TimeSpec::from_duration(sleep)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(failure!("relay: {e}")),
        }
    }
    let lost = |path: &Path| path.toward_client.lost() + path.toward_server.lost();
    Ok(paths.iter().map(lost).sum())
}

impl Path {
    /// Moves everything whose time has come; when there is more to do.
    fn serve(
        &mut self,
        chain: &mut Chain,
        clock: &impl Fn() -> Instant,
    ) -> Result<Option<Instant>> {
        while let Some(frame) = self.client.receive()? {
            self.toward_server.put(clock(), frame);
        }
        while let Some(frame) = self.server.receive()? {
            self.toward_client.put(clock(), frame);
        }
        let now = clock();
        while let Some(frame) = self.toward_server.take(now) {
            chain.on_frame(now, Toward::Server, frame);
        }
        while let Some(frame) = self.toward_client.take(now) {
            chain.on_frame(now, Toward::Client, frame);
        }
        chain.on_timer(now);
        let mut left = chain.take_left();
        for out in left.drain(..) {
            match out.toward {
                Toward::Server => self.server.send(&out.frame),
                Toward::Client => self.client.send(&out.frame),
            };
        }
        chain.give_back(left);
        let arrivals = [
            self.toward_client.next_arrival(),
            self.toward_server.next_arrival(),
            chain
                .elements()
                .iter()
                .filter_map(|e| e.next_deadline())
                .min(),
        ];
        Ok(arrivals.into_iter().flatten().min())
    }
}
