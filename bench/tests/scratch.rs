mod common;
use std::time::Duration;
use braid_bench::sim::{LinkConfig, HostConfig, Role, Sim};
#[test]
fn t() {
    for q in [60_000u64, 128*1024, 400_000] {
    for cc in [braid_dataplane::tcp::CongestionKind::Cubic, braid_dataplane::tcp::CongestionKind::NewReno] {
    for echo in [false, true] {
        let mut sim = Sim::new(1);
        let mut hc = HostConfig::default();
        hc.mptcp.tcp.congestion = cc; hc.join = false;
        sim.add_host(&hc); sim.add_host(&hc);
        sim.add_link(0, 1, LinkConfig{queue_bytes: q, ..LinkConfig::default()});
        sim.host(1).serve(&[(7, Role::Echo), (9, Role::Peer{send:0})]);
        #[allow(unused)] let (tok, out) = sim.connect(0, 0, if echo {7} else {9}, Role::Peer{send: 20<<20});
        let mut next = Duration::ZERO;
        sim.run_until(Duration::from_secs(100), |s| {
            if s.elapsed() >= next && !echo && q==128*1024 && cc==braid_dataplane::tcp::CongestionKind::Cubic {
                next = s.elapsed() + Duration::from_millis(20);
                let now = braid_dataplane::time::Instant::default() + braid_bench::sim::EPOCH + s.elapsed();
                let lost = s.link(0).lost;
                if let Some(c) = s.host(0).engine().connection(tok) { let i = c.info(now); if let Some(sf)=i.subflows.first() { {let t=&sf.tcp; println!("{:?} lost {} {} cwnd {} ssth {} fl {} un {} sack {} l {} rtt {} min {} pace {} rtx {} rec {} wnd {} reord {}", s.elapsed(), lost, t.phase, t.cwnd_bytes, t.ssthresh_bytes, t.in_flight_bytes, t.unacked_bytes, t.sacked_segments, t.lost_segments, t.srtt_us, t.min_rtt_us, t.pacing_bytes_per_s/1000, t.retransmits, t.recoveries, t.snd_wnd_bytes, t.reordering_seen)}; } }
            }
            out.get().closed.is_some() });
        println!("q {q} {cc:?} echo {echo} {:?} {:?}", sim.elapsed(), sim.link(0));
        println!("  c {:?}", sim.host(0).counters());
        println!("  s {:?}", sim.host(1).counters());
    }}}
}
