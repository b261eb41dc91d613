//! `struct ethtool_rxnfc` of linux/ethtool.h, and the one kind of rule that is written into
//! it: TCP packets of one four-tuple go to one queue.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::rules::{Found, Rule};

/// Flow types of linux/ethtool.h. Whatever else may be or-ed in (`FLOW_EXT`,
/// `FLOW_MAC_EXT`, `FLOW_RSS`) makes another kind of rule of it.
const TCP_V4_FLOW: u32 = 0x01;
const TCP_V6_FLOW: u32 = 0x05;

/// The driver chooses a location.
pub(super) const RX_CLS_LOC_ANY: u32 = 0xffff_ffff;
/// In the answer to a count: the driver knows [`RX_CLS_LOC_ANY`].
pub(super) const RX_CLS_LOC_SPECIAL: u32 = 0x8000_0000;

/// Bytes of `union ethtool_flow_union` and `struct ethtool_flow_ext`.
const FLOW_BYTES: usize = 52;
const EXT_BYTES: usize = 20;

/// `struct ethtool_rx_flow_spec`. Padding is spelt out: all of it is zero.
#[repr(C)]
#[derive(Copy, Clone, Debug)]
pub(super) struct FlowSpec {
    flow_type: u32,
    h_u: [u8; FLOW_BYTES],
    h_ext: [u8; EXT_BYTES],
    m_u: [u8; FLOW_BYTES],
    m_ext: [u8; EXT_BYTES],
    padding: u32,
    ring_cookie: u64,
    pub(super) location: u32,
    padding_end: u32,
}

/// `struct ethtool_rxnfc`.
#[repr(C)]
#[derive(Copy, Clone, Debug)]
pub(super) struct RxNfc {
    pub(super) cmd: u32,
    flow_type: u32,
    pub(super) data: u64,
    pub(super) fs: FlowSpec,
    pub(super) rule_cnt: u32,
    /// Where `rule_locs[]` begins, which takes no room in C.
    padding: u32,
}

/// Where the two fields of a list of locations lie, in 32-bit words.
pub(super) const RULE_CNT_WORD: usize = offset_of!(RxNfc, rule_cnt) / 4;
pub(super) const RULE_LOCS_WORD: usize = offset_of!(RxNfc, padding) / 4;

const _: () = {
    assert!(size_of::<FlowSpec>() == 168 && size_of::<RxNfc>() == 192);
    assert!(offset_of!(FlowSpec, h_u) == 4 && offset_of!(FlowSpec, h_ext) == 56);
    assert!(offset_of!(FlowSpec, m_u) == 76 && offset_of!(FlowSpec, m_ext) == 128);
    assert!(offset_of!(FlowSpec, ring_cookie) == 152 && offset_of!(FlowSpec, location) == 160);
    assert!(offset_of!(RxNfc, data) == 8 && offset_of!(RxNfc, fs) == 16);
    assert!(offset_of!(RxNfc, rule_cnt) == 184 && offset_of!(RxNfc, padding) == 188);
};

impl Default for RxNfc {
    fn default() -> Self {
        Self {
            cmd: 0,
            flow_type: 0,
            data: 0,
            fs: FlowSpec {
                flow_type: 0,
                h_u: [0; FLOW_BYTES],
                h_ext: [0; EXT_BYTES],
                m_u: [0; FLOW_BYTES],
                m_ext: [0; EXT_BYTES],
                padding: 0,
                ring_cookie: 0,
                location: 0,
                padding_end: 0,
            },
            rule_cnt: 0,
            padding: 0,
        }
    }
}

/// Fields of `struct ethtool_tcpip4_spec` and `struct ethtool_tcpip6_spec`: source address,
/// destination address, source port, destination port; after them a byte of TOS or traffic
/// class, of which rules do not ask.
struct Fields {
    source: std::ops::Range<usize>,
    destination: std::ops::Range<usize>,
    ports: [std::ops::Range<usize>; 2],
}

const V4: Fields = Fields {
    source: 0..4,
    destination: 4..8,
    ports: [8..10, 10..12],
};

const V6: Fields = Fields {
    source: 0..16,
    destination: 16..32,
    ports: [32..34, 34..36],
};

impl Fields {
    /// The mask of a rule that asks for all four, and for nothing else.
    fn mask(&self) -> [u8; FLOW_BYTES] {
        let mut mask = [0; FLOW_BYTES];
        // They follow one another.
        mask[self.source.start..self.ports[1].end].fill(0xff);
        mask
    }

    /// The NIC's view: what arrives comes from the remote end.
    fn put(&self, rule: &Rule, source: &[u8], destination: &[u8]) -> [u8; FLOW_BYTES] {
        let mut fields = [0; FLOW_BYTES];
        fields[self.source.clone()].copy_from_slice(source);
        fields[self.destination.clone()].copy_from_slice(destination);
        fields[self.ports[0].clone()].copy_from_slice(&rule.remote.port().to_be_bytes());
        fields[self.ports[1].clone()].copy_from_slice(&rule.local.port().to_be_bytes());
        fields
    }

    fn ports(&self, fields: &[u8; FLOW_BYTES]) -> [u16; 2] {
        self.ports
            .clone()
            .map(|at| u16::from_be_bytes([fields[at.start], fields[at.start + 1]]))
    }
}

impl RxNfc {
    /// The order to put a rule at a location; none if its ends are of two families.
    pub(super) fn insert(rule: &Rule, location: u32) -> Option<Self> {
        let mut nfc = Self::default();
        let fs = &mut nfc.fs;
        (fs.flow_type, fs.h_u, fs.m_u) = match (rule.remote.ip(), rule.local.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let fields = V4.put(rule, &from.octets(), &to.octets());
                (TCP_V4_FLOW, fields, V4.mask())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let fields = V6.put(rule, &from.octets(), &to.octets());
                (TCP_V6_FLOW, fields, V6.mask())
            }
            _ => return None,
        };
        fs.ring_cookie = u64::from(rule.queue);
        fs.location = location;
        Some(nfc)
    }

    /// What was found at a location.
    pub(super) fn found(&self) -> Found {
        let fs = &self.fs;
        let fields = match fs.flow_type {
            TCP_V4_FLOW => &V4,
            TCP_V6_FLOW => &V6,
            // Some drivers succeed with nothing.
            0 => return Found::Nothing,
            _ => return Found::Other,
        };
        // A queue, and not a virtual function's, nor "drop" and "wake up", which are all ones.
        let Ok(queue) = u32::try_from(fs.ring_cookie) else {
            return Found::Other;
        };
        if fs.m_u != fields.mask() {
            return Found::Other;
        }
        let address = |at: &std::ops::Range<usize>| -> IpAddr {
            let bytes = &fs.h_u[at.clone()];
            match <[u8; 4]>::try_from(bytes) {
                Ok(v4) => Ipv4Addr::from(v4).into(),
                Err(_) => <[u8; 16]>::try_from(bytes)
                    .map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from)
                    .into(),
            }
        };
        let [from, to] = fields.ports(&fs.h_u);
        Found::Steers(Rule {
            remote: SocketAddr::new(address(&fields.source), from),
            local: SocketAddr::new(address(&fields.destination), to),
            queue,
        })
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;

    fn bytes(nfc: &RxNfc) -> [u8; 192] {
        // SAFETY: both are plain bytes of the same size, and RxNfc has no padding but the
        // fields of this name.
        unsafe { std::mem::transmute(*nfc) }
    }

    fn rule(remote: &str, local: &str, queue: u32) -> Rule {
        Rule {
            remote: remote.parse().unwrap(),
            local: local.parse().unwrap(),
            queue,
        }
    }

    /// 192 bytes from what is not zero in them.
    fn expected(parts: &[(usize, &[u8])]) -> [u8; 192] {
        let mut all = [0; 192];
        for (at, part) in parts {
            all[*at..at + part.len()].copy_from_slice(part);
        }
        all
    }

    /// What a C program that fills in `struct ethtool_rxnfc` by its members' names has in
    /// memory for the same two rules (little endian).
    #[test]
    #[cfg(target_endian = "little")]
    fn rules_are_the_bytes_that_c_makes_of_them() {
        let v4 = rule("192.0.2.1:40000", "198.51.100.10:7", 3);
        let mut nfc = RxNfc::insert(&v4, RX_CLS_LOC_ANY).unwrap();
        nfc.cmd = 0x32;
        let c = expected(&[
            (0, &[0x32]),
            (16, &[1, 0, 0, 0, 0xc0, 0, 2, 1, 0xc6, 0x33, 0x64, 0x0a]),
            (28, &[0x9c, 0x40, 0, 7]),
            (92, &[0xff; 12]),
            (168, &[3]),
            (176, &[0xff; 4]),
        ]);
        assert_eq!(bytes(&nfc), c);
        assert_eq!(nfc.found(), Found::Steers(v4));

        let v6 = rule("[2001:db8::1]:40001", "[fd00:77:2::2]:8080", 1);
        let mut nfc = RxNfc::insert(&v6, 8189).unwrap();
        nfc.cmd = 0x32;
        let c = expected(&[
            (0, &[0x32]),
            (16, &[5, 0, 0, 0, 0x20, 1, 0x0d, 0xb8]),
            (35, &[1, 0xfd, 0, 0, 0x77, 0, 2]),
            (51, &[2, 0x9c, 0x41, 0x1f, 0x90]),
            (92, &[0xff; 36]),
            (168, &[1]),
            (176, &[0xfd, 0x1f]),
        ]);
        assert_eq!(bytes(&nfc), c);
        assert_eq!(nfc.found(), Found::Steers(v6));
    }

    #[test]
    fn other_rules_are_not_taken_for_ours() {
        let ours = RxNfc::insert(&rule("192.0.2.1:4", "192.0.2.2:7", 3), 0).unwrap();
        let changed = |change: fn(&mut FlowSpec)| {
            let mut nfc = ours;
            change(&mut nfc.fs);
            nfc.found()
        };
        // UDP; with a VLAN; any source port; one TOS; dropped; of a virtual function.
        assert_eq!(changed(|fs| fs.flow_type = 2), Found::Other);
        assert_eq!(changed(|fs| fs.flow_type |= 0x8000_0000), Found::Other);
        assert_eq!(changed(|fs| fs.m_u[8..10].fill(0)), Found::Other);
        assert_eq!(changed(|fs| fs.m_u[12] = 0xff), Found::Other);
        assert_eq!(changed(|fs| fs.ring_cookie = u64::MAX), Found::Other);
        assert_eq!(changed(|fs| fs.ring_cookie |= 1 << 32), Found::Other);
        assert_eq!(RxNfc::default().found(), Found::Nothing);
        assert!(RxNfc::insert(&rule("192.0.2.1:4", "[fd00::1]:7", 3), 0).is_none());
    }
}
