//! Handshakes, transfer and orderly close on clean paths.

use super::harness::*;
use crate::counters::Counter;
use crate::mptcp::*;
use crate::time::Duration;

const LIMIT: Duration = Duration::from_secs(200);

fn one_path() -> Net {
    Net::new(1, vec![PathConfig::default()])
}

#[test]
fn data_flows_both_ways_and_both_sides_close() {
    let mut net = one_path();
    net.start(TestApp::sender(3, 300_000), TestApp::sender(9, 200_000));
    net.established();
    net.complete(LIMIT);
    for h in &net.hosts {
        assert_eq!(h.count(Counter::RetransSegs), 0, "{}", net.describe());
        assert_eq!(h.count(Counter::MPTCPRetrans), 0);
    }
    assert_eq!(net.hosts[CLIENT].count(Counter::MPCapableSYNACKRX), 1);
    assert_eq!(net.hosts[SERVER].count(Counter::MPCapableACKRX), 1);
}
