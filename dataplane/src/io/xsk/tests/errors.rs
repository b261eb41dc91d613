//! What cannot be opened, and what the operator is told.

use super::netns::{Attach, isolated};
use super::{config, group};
use crate::io::xsk::{BindMode, HugePages, OpenError, UmemConfig, UmemGroup, XskConfig, XskPort};

#[test]
fn errors_name_their_cause() {
    isolated(|| {
        let (mine, _pools) = group(&[256]);
        let base = config("va", Attach::Native);
        let open = |change: &dyn Fn(&mut XskConfig)| {
            let mut config = base.clone();
            change(&mut config);
            XskPort::open(&mine, &config).map(drop)
        };
        let gone = open(&|c| c.interface = "nope".into());
        assert!(
            matches!(gone, Err(OpenError::InterfaceGone { .. })),
            "{gone:?}"
        );
        let long = open(&|c| c.interface = "x".repeat(40));
        assert!(
            matches!(long, Err(OpenError::InterfaceGone { .. })),
            "{long:?}"
        );
        let queue = open(&|c| c.queue = 17);
        assert!(
            matches!(queue, Err(OpenError::QueueOutOfRange { queue: 17, .. })),
            "{queue:?}"
        );
        let zero_copy = open(&|c| c.bind = BindMode::ZeroCopy);
        assert!(
            matches!(zero_copy, Err(OpenError::NoZeroCopy { .. })),
            "{zero_copy:?}"
        );
        let ring = open(&|c| c.rx_ring = 500);
        assert!(
            matches!(ring, Err(OpenError::Config { key: "rx-ring", .. })),
            "{ring:?}"
        );
        let ring = open(&|c| c.tx_ring = 1024);
        assert!(
            matches!(ring, Err(OpenError::Config { key: "tx-ring", .. })),
            "{ring:?}"
        );

        let port = XskPort::open(&mine, &base).expect("failed attempts leave nothing behind");
        let (other, _other_pools) = group(&[256]);
        let busy = XskPort::open(&other, &base).map(drop);
        assert!(matches!(busy, Err(OpenError::QueueBusy { .. })), "{busy:?}");
        drop(port);
        XskPort::open(&other, &base).expect("released with the port, not with the group");
        // libxdp's descriptor of the UMEM went with its first socket.
        let lost = XskPort::open(&mine, &base).map(drop);
        assert!(matches!(lost, Err(OpenError::GroupLost { .. })), "{lost:?}");
    });
}

#[test]
fn group_dimensions_are_checked_before_anything_is_mapped() {
    let good = UmemConfig {
        pools: vec![64],
        frame_bytes: 2048,
        fill_ring: 64,
        completion_ring: 64,
        hugepages: HugePages::Off,
        memory_limit_bytes: 1 << 20,
    };
    let refused = |config: UmemConfig| UmemGroup::create(&config).map(drop).unwrap_err();
    let limit = refused(UmemConfig {
        memory_limit_bytes: 64 * 2048,
        ..good.clone()
    });
    assert!(matches!(limit, OpenError::MemoryLimit { .. }), "{limit}");
    let size = refused(UmemConfig {
        frame_bytes: 8192,
        ..good.clone()
    });
    assert!(
        matches!(
            size,
            OpenError::Config {
                key: "frame-size",
                ..
            }
        ),
        "{size}"
    );
    let ring = refused(UmemConfig {
        fill_ring: 100,
        ..good.clone()
    });
    assert!(
        matches!(ring, OpenError::Config { key: "rx-ring", .. }),
        "{ring}"
    );
    for pools in [vec![], vec![0], vec![64, 0], vec![u32::MAX, 2]] {
        let frames = refused(UmemConfig {
            pools,
            ..good.clone()
        });
        assert!(
            matches!(frames, OpenError::Config { key: "frames", .. }),
            "{frames}"
        );
    }
}

#[test]
fn huge_pages_are_had_or_their_lack_is_named() {
    isolated(|| {
        let config = UmemConfig {
            pools: vec![100],
            frame_bytes: 4096,
            fill_ring: 64,
            completion_ring: 64,
            hugepages: HugePages::Require,
            memory_limit_bytes: 1 << 30,
        };
        match UmemGroup::create(&config) {
            Ok((group, pools)) => {
                assert!(group.hugepages());
                assert_eq!((group.frames(), pools[0].frames()), (100, 100));
            }
            Err(error) => assert!(
                matches!(error, OpenError::HugePages { pages: 1, .. }),
                "{error}"
            ),
        }
        let off = UmemConfig {
            hugepages: HugePages::Off,
            ..config
        };
        let (group, _) = UmemGroup::create(&off).expect("plain memory");
        assert!(!group.hugepages());
    });
}
