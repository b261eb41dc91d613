//! Every interleaving of the protocols between workers, tried by loom.
//!
//! The sleep protocol is the file the worker runs with (`src/worker/wake.rs`), compiled here
//! with loom's atomics. Rings and eventfds are models that promise less than the real ones: a
//! ring is a counter with release and acquire, an eventfd a flag under a lock. Variants that have
//! a fence less, or steps in another order, show that the models can tell.

#![allow(unreachable_pub, reason = "one file of the crate stands here alone")]

mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};
}

#[path = "../src/worker/wake.rs"]
mod wake;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use self::wake::Sleeping;

/// An eventfd with a sleeper that has no timeout.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
    }

    fn is_rung(&self) -> bool {
        *self.rung.lock().unwrap()
    }

    fn clear(&self) {
        *self.rung.lock().unwrap() = false;
    }
}

/// What was ever pushed; the reader keeps count itself.
#[derive(Default)]
struct Ring(AtomicUsize);

impl Ring {
    fn push(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn pushed(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// The protocol, so that variants can stand in for it.
trait Protocol: Default + Send + Sync + 'static {
    fn begin(&self, ready: impl FnOnce() -> bool) -> bool;
    fn end(&self);
    fn must_be_woken(&self) -> bool;
}

impl Protocol for Sleeping {
    fn begin(&self, ready: impl FnOnce() -> bool) -> bool {
        Sleeping::begin(self, ready)
    }
    fn end(&self) {
        Sleeping::end(self);
    }
    fn must_be_woken(&self) -> bool {
        Sleeping::must_be_woken(self)
    }
}

/// The same with a choice of fences.
#[derive(Default)]
struct Weaker<const SLEEPER: bool, const SENDER: bool>(AtomicBool);

impl<const SLEEPER: bool, const SENDER: bool> Protocol for Weaker<SLEEPER, SENDER> {
    fn begin(&self, ready: impl FnOnce() -> bool) -> bool {
        self.0.store(true, Ordering::Release);
        if SLEEPER {
            fence(Ordering::SeqCst);
        }
        !ready()
    }
    fn end(&self) {
        self.0.store(false, Ordering::Release);
    }
    fn must_be_woken(&self) -> bool {
        if SENDER {
            fence(Ordering::SeqCst);
        }
        self.0.load(Ordering::Acquire)
    }
}

/// The sleeper looks at its rings after it has said that it sleeps, or before.
#[derive(Default)]
struct LooksTooEarly(Sleeping);

impl Protocol for LooksTooEarly {
    fn begin(&self, ready: impl FnOnce() -> bool) -> bool {
        let ready = ready();
        self.0.begin(|| ready)
    }
    fn end(&self) {
        self.0.end();
    }
    fn must_be_woken(&self) -> bool {
        self.0.must_be_woken()
    }
}

/// Senders each push `each` messages into a ring of their own; the worker takes them all,
/// and sleeps whenever there is nothing.
fn hand_off<P: Protocol>(senders: usize, each: usize) {
    let mut explorer = loom::model::Builder::new();
    // All interleavings of so many switches; all there are would take minutes.
    explorer.preemption_bound = Some(2);
    explorer.check(move || {
        let rings: Arc<Vec<Ring>> = Arc::new((0..senders).map(|_| Ring::default()).collect());
        let sleeping = Arc::new(P::default());
        let bell = Arc::new(Bell::default());
        let threads: Vec<_> = (0..senders)
            .map(|i| {
                let (rings, sleeping, bell) = (rings.clone(), sleeping.clone(), bell.clone());
                thread::spawn(move || {
                    for _ in 0..each {
                        rings[i].push();
                        if sleeping.must_be_woken() {
                            bell.ring();
                        }
                    }
                })
            })
            .collect();
        let mut taken = vec![0; senders];
        loop {
            for (taken, ring) in taken.iter_mut().zip(rings.iter()) {
                *taken = ring.pushed();
            }
            if taken.iter().all(|n| *n == each) {
                break;
            }
            let ready = || rings.iter().zip(&taken).any(|(ring, n)| ring.pushed() > *n);
            if sleeping.begin(ready) {
                bell.wait();
            }
            sleeping.end();
            bell.clear();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// A worker that sleeps on although a message waits leaves this with a deadlock.
#[test]
fn every_hand_off_arrives() {
    hand_off::<Sleeping>(1, 2);
}

/// One message, and a worker that wants to sleep: when all is over it has seen the message or
/// its bell was rung.
fn one_message<P: Protocol>() {
    loom::model(|| {
        let ring = Arc::new(Ring::default());
        let sleeping = Arc::new(P::default());
        let bell = Arc::new(Bell::default());
        let sender = {
            let (ring, sleeping, bell) = (ring.clone(), sleeping.clone(), bell.clone());
            thread::spawn(move || {
                ring.push();
                if sleeping.must_be_woken() {
                    bell.ring();
                }
            })
        };
        let sleeps = sleeping.begin(|| ring.pushed() > 0);
        sender.join().unwrap();
        assert!(!sleeps || bell.is_rung(), "slept through");
        sleeping.end();
    });
}

#[test]
fn no_hand_off_is_slept_through() {
    one_message::<Sleeping>();
    one_message::<Weaker<true, true>>();
}

#[test]
#[should_panic(expected = "slept through")]
fn a_sleeper_without_its_fence_is_caught() {
    one_message::<Weaker<false, true>>();
}

#[test]
#[should_panic(expected = "slept through")]
fn a_sender_without_its_fence_is_caught() {
    one_message::<Weaker<true, false>>();
}

#[test]
#[should_panic(expected = "slept through")]
fn a_look_before_the_flag_is_caught() {
    one_message::<LooksTooEarly>();
}

/// The mailbox always rings after it was filled. The worker clears the bell and looks into the
/// box afterwards; in the other order mail that comes between the two is slept through.
fn mail(clear_first: bool) {
    loom::model(move || {
        let ring = Arc::new(Ring::default());
        let bell = Arc::new(Bell::default());
        let sender = {
            let (ring, bell) = (ring.clone(), bell.clone());
            thread::spawn(move || {
                ring.push();
                bell.ring();
            })
        };
        if clear_first {
            bell.clear();
        }
        let seen = ring.pushed();
        if !clear_first {
            bell.clear();
        }
        sender.join().unwrap();
        assert!(seen == 1 || bell.is_rung(), "slept through");
    });
}

#[test]
fn no_mail_is_slept_through() {
    mail(true);
}

#[test]
#[should_panic(expected = "slept through")]
fn clearing_after_the_look_is_caught() {
    mail(false);
}

/// A worker claims a flow before it answers the peer; the peer's next packet may reach another
/// worker's queue. That one takes its batch first and the ring before it looks at the batch,
/// so it always knows the owner. `ring_first`: the other order.
fn claim(ring_first: bool) {
    loom::model(move || {
        let ring = Arc::new(Ring::default());
        // The answer, and the packet that it provokes.
        let wire = Arc::new(AtomicBool::new(false));
        let owner = {
            let (ring, wire) = (ring.clone(), wire.clone());
            thread::spawn(move || {
                ring.push();
                wire.store(true, Ordering::Release);
            })
        };
        let early = ring.pushed();
        let packet = wire.load(Ordering::Acquire);
        let claims = if ring_first { early } else { ring.pushed() };
        assert!(!packet || claims == 1, "a packet without an owner");
        owner.join().unwrap();
    });
}

#[test]
fn a_claim_is_known_before_the_packet_it_is_for() {
    claim(false);
}

#[test]
#[should_panic(expected = "without an owner")]
fn a_ring_taken_before_the_batch_is_caught() {
    claim(true);
}
