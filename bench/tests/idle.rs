//! What an idle connection holds: two subflows at each end, after a question and its answer.
//!
//! A binary of its own, for its allocator counts.

use braid_bench::benchmark::conn::engines::idle;
use braid_bench::hostile::heap::Counting;

#[global_allocator]
static HEAP: Counting = Counting;

/// As many as nearly fill tables that grow by doubling: what is pinned is the connection, not
/// the luck of the count.
const CONNECTIONS: u32 = 28_000;
/// Of heap, per connection and end, frames aside.
const BYTES_MAX: f64 = 4096.0;

#[test]
fn an_idle_connection_with_two_subflows_takes_four_kibibytes() {
    let idle = idle(CONNECTIONS).unwrap();
    assert_eq!(idle.flows, 2 * CONNECTIONS as usize);
    assert_eq!(idle.frames, 0, "frames are for data");
    let bytes = idle.bytes_per_connection;
    assert!(bytes > 1000.0, "the allocator counts: {bytes}");
    assert!(bytes <= BYTES_MAX, "{bytes} bytes");
}
