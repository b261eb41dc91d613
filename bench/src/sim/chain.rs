//! The middleboxes of one link, in order, as one box.

use std::collections::VecDeque;

use braid_dataplane::time::Instant;

use crate::middlebox::{Element, Out, Toward};

/// What one packet may turn into within a chain. Elements that answer each other for ever
/// would otherwise hang the simulation.
const STEPS_MAX: usize = 100_000;

/// Elements from the client side to the server side. A packet towards the server meets
/// them in this order, one towards the client in the reverse.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    elements: Vec<Box<dyn Element>>,
    /// Packets between elements: in front of which one (counted from the client side; a
    /// packet towards the client is behind it), and the packet.
    between: VecDeque<(usize, Out)>,
    out: Vec<Out>,
    left: Vec<Out>,
    /// The timer event that is under way.
    timer: Option<Instant>,
}

impl Chain {
    pub(crate) fn new(elements: Vec<Box<dyn Element>>) -> Self {
        Self {
            elements,
            ..Self::default()
        }
    }

    pub(crate) fn push(&mut self, element: Box<dyn Element>) {
        self.elements.push(element);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    pub(crate) fn elements(&self) -> &[Box<dyn Element>] {
        &self.elements
    }

    /// A packet enters at the end it comes from.
    pub(crate) fn on_frame(&mut self, now: Instant, toward: Toward, frame: Vec<u8>) {
        let entry = match toward {
            Toward::Server => 0,
            Toward::Client => self.elements.len(),
        };
        self.between.push_back((entry, Out { toward, frame }));
        self.work(now);
    }

    /// Every element whose time has come.
    pub(crate) fn on_timer(&mut self, now: Instant) {
        if self.timer.is_some_and(|at| at <= now) {
            self.timer = None;
        }
        for index in 0..self.elements.len() {
            let element = &mut self.elements[index];
            if element.next_deadline().is_some_and(|at| at <= now) {
                element.on_timer(now, &mut self.out);
                self.collect(index);
                self.work(now);
            }
        }
    }

    /// When a timer event must be scheduled: once per deadline.
    pub(crate) fn timer_to_set(&mut self) -> Option<Instant> {
        let next = self.elements.iter().filter_map(|e| e.next_deadline()).min();
        let at = next?;
        if self.timer.is_some_and(|set| set <= at) {
            return None;
        }
        self.timer = next;
        next
    }

    /// What left the chain since the last call, in order.
    pub(crate) fn take_left(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.left)
    }

    /// Returns the list that [`Chain::take_left`] gave, to be filled again.
    pub(crate) fn give_back(&mut self, mut list: Vec<Out>) {
        if self.left.is_empty() {
            list.clear();
            self.left = list;
        }
    }

    fn work(&mut self, now: Instant) {
        let mut steps = 0;
        while let Some((gap, Out { toward, frame })) = self.between.pop_front() {
            steps += 1;
            assert!(steps < STEPS_MAX, "middleboxes answer each other for ever");
            let index = match toward {
                Toward::Server => Some(gap).filter(|i| *i < self.elements.len()),
                Toward::Client => gap.checked_sub(1),
            };
            match index {
                Some(index) => {
                    self.elements[index].on_frame(now, toward, frame, &mut self.out);
                    self.collect(index);
                }
                None => self.left.push(Out { toward, frame }),
            }
        }
    }

    /// Sorts what element `index` let out into the gaps beside it.
    fn collect(&mut self, index: usize) {
        for out in self.out.drain(..) {
            let gap = match out.toward {
                Toward::Server => index + 1,
                Toward::Client => index,
            };
            self.between.push_back((gap, out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Appends its letter, and holds packets for a time if told to.
    #[derive(Debug)]
    struct Letter {
        letter: u8,
        hold: Option<Duration>,
        held: VecDeque<(Instant, Out)>,
    }

    impl Element for Letter {
        fn on_frame(
            &mut self,
            now: Instant,
            toward: Toward,
            mut frame: Vec<u8>,
            out: &mut Vec<Out>,
        ) {
            frame.push(self.letter);
            let packet = Out { toward, frame };
            match self.hold {
                Some(hold) => self.held.push_back((now + hold, packet)),
                None => out.push(packet),
            }
        }

        fn next_deadline(&self) -> Option<Instant> {
            self.held.front().map(|(at, _)| *at)
        }

        fn on_timer(&mut self, now: Instant, out: &mut Vec<Out>) {
            while self.held.front().is_some_and(|(at, _)| *at <= now) {
                out.extend(self.held.pop_front().map(|(_, o)| o));
            }
        }
    }

    fn letter(letter: u8, hold: Option<Duration>) -> Box<dyn Element> {
        Box::new(Letter {
            letter,
            hold,
            held: VecDeque::new(),
        })
    }

    #[test]
    fn packets_meet_the_elements_in_their_direction_s_order() {
        let mut chain = Chain::new(vec![letter(b'x', None), letter(b'y', None)]);
        chain.push(letter(b'z', None));
        let now = Instant::from_millis(1);
        chain.on_frame(now, Toward::Server, b">".to_vec());
        chain.on_frame(now, Toward::Client, b"<".to_vec());
        let left: Vec<_> = chain.take_left().into_iter().map(|o| o.frame).collect();
        assert_eq!(left, [b">xyz".to_vec(), b"<zyx".to_vec()]);
        assert_eq!(chain.timer_to_set(), None);
    }

    #[test]
    fn a_held_packet_goes_on_from_where_it_was_held() {
        let hold = Some(Duration::from_millis(5));
        let mut chain = Chain::new(vec![
            letter(b'x', None),
            letter(b'y', hold),
            letter(b'z', None),
        ]);
        chain.on_frame(Instant::from_millis(1), Toward::Client, b"<".to_vec());
        assert!(chain.take_left().is_empty());
        let at = Instant::from_millis(6);
        assert_eq!(chain.timer_to_set(), Some(at));
        assert_eq!(chain.timer_to_set(), None, "one event per deadline");
        chain.on_timer(at);
        let left = chain.take_left();
        assert_eq!(left[0].frame, b"<zyx");
        assert_eq!(chain.timer_to_set(), None);
    }
}
