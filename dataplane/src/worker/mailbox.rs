//! Orders from the process's control thread to a worker, and events back.
//!
//! Bounded rings with an eventfd on each side: a worker that sleeps in poll(2) wakes for
//! mail, and the control thread for events. Answers travel by a one-shot channel inside
//! the order, so the worker never waits for anybody.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::channel::Sender;
use crossbeam::queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::engine::{ConnectError, Order, OrderError, Service};
use crate::app::App;
use crate::control::{ConnReport, PoolReport, PortReport, WorkerReport};
use crate::counters::Counters;
use crate::io::PortId;
use crate::mptcp::{Announcement, Event, SubflowPath};

/// Orders waiting for one worker at the most.
const MAIL_MAX: usize = 256;

/// Events waiting for the control thread, all workers together, at the most.
const EVENTS_MAX: usize = 8192;

/// An order to a worker.
#[derive(Debug)]
pub enum Mail {
    /// Open a connection.
    Connect {
        /// Name of the active open.
        name: Arc<str>,
        /// Where.
        path: SubflowPath,
        /// What for.
        app: App,
        /// Own token, or why not.
        answer: Sender<Result<u32, ConnectError>>,
    },
    /// About one connection.
    Order {
        /// Own token.
        token: u32,
        /// What.
        order: Order,
        /// Done, or why not.
        answer: Sender<Result<(), OrderError>>,
    },
    /// Carrier of an interface changed.
    Carrier {
        /// Interface.
        port: PortId,
        /// Can it send?
        up: bool,
    },
    /// Hardware address of a next hop changed.
    Neighbour {
        /// Interface.
        port: PortId,
        /// Peer behind it.
        remote: IpAddr,
        /// New address.
        mac: [u8; 6],
    },
    /// New limits for every connection.
    Limits {
        /// Subflows of a connection at the most.
        subflows_max: u8,
        /// Announced addresses remembered per connection at the most.
        accept_addresses: u8,
    },
    /// What connections announce by themselves from now on.
    Announcements(Arc<[Announcement]>),
    /// New list of services.
    Services(Vec<Service<App>>),
    /// Report.
    Snapshot {
        /// Connections to skip.
        offset: usize,
        /// Connections to report.
        limit: usize,
        /// The report.
        answer: Sender<Snapshot>,
    },
    /// No new connections.
    Drain,
    /// Abort every connection.
    AbortAll,
    /// Abort what lives, give every frame back, end.
    Stop,
}

/// What a worker knows about itself.
#[derive(Debug)]
pub struct Snapshot {
    /// Totals.
    pub worker: WorkerReport,
    /// Counters.
    pub counters: Counters,
    /// Ports.
    pub ports: Vec<PortReport>,
    /// Frame pools.
    pub pools: Vec<PoolReport>,
    /// Connections asked for.
    pub conns: Vec<ConnReport>,
}

/// Mail for one worker.
#[derive(Debug)]
pub struct Mailbox {
    queue: ArrayQueue<Mail>,
    wake: EventFd,
}

impl Mailbox {
    /// An empty mailbox.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> nix::Result<Self> {
        Ok(Self {
            queue: ArrayQueue::new(MAIL_MAX),
            wake: wake_fd()?,
        })
    }

    /// Puts mail in and wakes the worker.
    ///
    /// # Errors
    /// Gives the mail back when the box is full: the worker hangs or is overloaded.
    pub fn send(&self, mail: Mail) -> Result<(), Box<Mail>> {
        self.queue.push(mail).map_err(Box::new)?;
        self.wake();
        Ok(())
    }

    /// Wakes the worker without mail.
    pub fn wake(&self) {
        // The counter cannot overflow in practice; a full one is awake anyway.
        let _ = self.wake.write(1);
    }

    /// The next mail.
    pub fn receive(&self) -> Option<Mail> {
        self.queue.pop()
    }

    /// Makes [`as_fd`](AsFd::as_fd) unreadable until the next mail.
    pub fn clear_wake(&self) {
        let _ = self.wake.read();
    }

    /// Mail waits.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.queue.is_empty()
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Events of all workers on their way to the control thread.
#[derive(Debug)]
pub struct EventQueue {
    queue: ArrayQueue<(usize, Arc<str>, Event)>,
    lost: AtomicU64,
    /// The control thread has been woken and has not looked yet.
    woken: AtomicBool,
    wake: EventFd,
}

impl EventQueue {
    /// An empty queue.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> nix::Result<Self> {
        Ok(Self {
            queue: ArrayQueue::new(EVENTS_MAX),
            lost: AtomicU64::new(0),
            woken: AtomicBool::new(false),
            wake: wake_fd()?,
        })
    }

    /// Adds an event; false (and counted as lost) when nobody reads.
    pub fn push(&self, worker: usize, name: Arc<str>, event: Event) -> bool {
        let taken = self.queue.push((worker, name, event)).is_ok();
        if !taken {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Counts events that were lost before they came here.
    pub fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// Wakes the control thread, after a batch of events. No system call while an earlier wake
    /// is still to be answered.
    pub fn wake(&self) {
        // Whoever reads what this wrote has what was pushed before; else it is false here.
        if !self.woken.swap(true, Ordering::AcqRel) {
            let _ = self.wake.write(1);
        }
    }

    /// The next event.
    pub fn pop(&self) -> Option<(usize, Arc<str>, Event)> {
        self.queue.pop()
    }

    /// Events lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Makes [`as_fd`](AsFd::as_fd) unreadable until the next wake. Events are taken after it.
    pub fn clear_wake(&self) {
        let _ = self.wake.read();
        self.woken.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for EventQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn wake_fd() -> nix::Result<EventFd> {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
}
