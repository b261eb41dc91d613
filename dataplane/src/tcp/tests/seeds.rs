//! Hundreds of random networks: the stream arrives, the connection ends.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::pair::{Link, Pair};
use crate::tcp::{CongestionKind, EcnPolicy, TcpConfig};
use crate::time::Duration;

fn scenario(seed: u64) -> Pair {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x5eed);
    let config = TcpConfig {
        mss: [1460, 536, 8960][rng.random_range(0..3)],
        option_room: [12, 32, 40][rng.random_range(0..3)],
        recv_buffer_max: 1 << rng.random_range(12..22),
        window_scale: rng.random_bool(0.8),
        timestamps: rng.random_bool(0.8),
        sack: rng.random_bool(0.8),
        congestion: [CongestionKind::Cubic, CongestionKind::NewReno][rng.random_range(0..2)],
        pacing: rng.random_bool(0.7),
        hystart: rng.random_bool(0.7),
        segments_max: [16, 100, 10_000][rng.random_range(0..3)],
        ecn: [EcnPolicy::Passive, EcnPolicy::Always][rng.random_range(0..2)],
        // A fifth of all packets lost in both directions is bad luck for minutes, now and then.
        user_timeout: Duration::from_secs(3_000),
        // ... longer than TIME-WAIT, which must stay to acknowledge the last FIN.
        time_wait: Duration::from_secs(3_000),
        ..TcpConfig::default()
    };
    let mut link = Link::new(1_000_000 << rng.random_range(0..8), rng.random_range(0..80));
    link.jitter = Duration::from_micros([0, 0, 500, 20_000][rng.random_range(0..4)]);
    link.loss = [0.0, 0.001, 0.02, 0.1, 0.2][rng.random_range(0..5)];
    link.duplicate = [0.0, 0.01, 0.1][rng.random_range(0..3)];
    link.queue_bytes = [3_000, 30_000, 1 << 30][rng.random_range(0..3)];
    link.mark_bytes = [0, 2_000, 20_000][rng.random_range(0..3)];
    let bytes = |rng: &mut SmallRng| [0, 1, 5_000, 60_000, 150_000][rng.random_range(0..5)];
    let bytes = [bytes(&mut rng), bytes(&mut rng)];
    let mut pair = Pair::new(seed, &config, &link, bytes);
    // Some readers sleep first: the window closes and opens.
    if rng.random_bool(0.2) {
        pair.hosts[1].read_from = pair.now + Duration::from_millis(rng.random_range(0..5_000));
    }
    pair
}

#[test]
fn every_seed_delivers_the_stream_and_closes() {
    // One seed alone: BRAID_SEED=n; BRAID_TRACE=1 prints its packets.
    let seeds = match std::env::var("BRAID_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..4_000,
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| scenario(seed).finish(10_000));
        if let Err(panic) = result {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
