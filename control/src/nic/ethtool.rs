//! The ioctl `SIOCETHTOOL`, and the few of its commands that are used: all `unsafe` of
//! [`nic`](super) is here, behind functions that fit each command with its struct.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use super::Channels;
use super::wire::{RULE_CNT_WORD, RULE_LOCS_WORD, RxNfc};

/// Numbers of linux/ethtool.h.
const ETHTOOL_GDRVINFO: u32 = 0x3;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GRXCLSRLCNT: u32 = 0x2e;
const ETHTOOL_GRXCLSRULE: u32 = 0x2f;
const ETHTOOL_GRXCLSRLALL: u32 = 0x30;
const ETHTOOL_SRXCLSRLDEL: u32 = 0x31;
const ETHTOOL_SRXCLSRLINS: u32 = 0x32;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

const ETH_FLAG_NTUPLE: u32 = 1 << 27;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;

/// More features than this no kernel has; it has 64 or so.
const FEATURES_MAX: u32 = 1024;
/// More rules than this no NIC has.
const RULES_MAX: u32 = 1 << 20;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    erom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

const _: () = assert!(size_of::<DriverInfo>() == 196 && size_of::<RawChannels>() == 36);

/// Calls ethtool with `command`, which begins with its number.
///
/// # Safety
/// `T` must be, or be as long as, the struct that the kernel reads and writes for that
/// number, with whatever the struct's own counts say lies behind it.
unsafe fn call<T: ?Sized>(interface: &str, command: &mut T) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: a C struct of integers, byte arrays and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
    // SAFETY: the request names the interface with a final NUL and points to a struct of
    // the size the command has, which lives until the call returns.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Name of the driver.
///
/// # Errors
/// No such interface, or one without ethtool.
pub fn driver(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo {
        cmd: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        erom: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    // SAFETY: the struct of this command, 196 bytes as in the kernel's header.
    unsafe { call(interface, &mut info)? };
    let end = info
        .driver
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..end]).into_owned())
}

/// Queues as they are now. Devices that do not say have one.
#[must_use]
pub fn channels(interface: &str) -> Channels {
    let mut raw = RawChannels {
        cmd: ETHTOOL_GCHANNELS,
        ..RawChannels::default()
    };
    // SAFETY: the struct of this command, nine 32-bit integers as in the kernel's header.
    match unsafe { call(interface, &mut raw) } {
        Ok(()) => Channels {
            rx: (raw.combined + raw.rx).max(1),
            tx: (raw.combined + raw.tx).max(1),
            combined: raw.max_combined > 0,
        },
        Err(_) => Channels {
            rx: 1,
            tx: 1,
            combined: true,
        },
    }
}

/// A feature of a device: what `ethtool -k` says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off, and `ethtool -K` can switch it on.
    Off,
    /// Off, and there is no switch.
    Fixed,
}

/// Whether ntuple filtering is on.
///
/// # Errors
/// No such interface.
pub(super) fn ntuple(interface: &str) -> io::Result<Switch> {
    let mut value = [ETHTOOL_GFLAGS, 0];
    // SAFETY: `struct ethtool_value`, two 32-bit integers.
    unsafe { call(interface, &mut value)? };
    if value[1] & ETH_FLAG_NTUPLE != 0 {
        return Ok(Switch::On);
    }
    // Who does not tell features has nothing to switch.
    Ok(match can_switch(interface, "rx-ntuple-filter") {
        Ok(true) => Switch::Off,
        Ok(false) | Err(_) => Switch::Fixed,
    })
}

/// Whether a feature, by the kernel's name for it, can be switched.
fn can_switch(interface: &str, name: &str) -> io::Result<bool> {
    // struct ethtool_sset_info: cmd, reserved, sset_mask (64 bits), data[one per bit].
    let mask = (1_u64 << ETH_SS_FEATURES).to_ne_bytes();
    let half = |b: &[u8]| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
    let mut info = [ETHTOOL_GSSET_INFO, 0, half(&mask[..4]), half(&mask[4..]), 0];
    // SAFETY: the struct of this command, with room for the one number that is asked for.
    unsafe { call(interface, &mut info)? };
    let count = info[4];
    if count == 0 || count > FEATURES_MAX {
        return Ok(false);
    }
    let features = usize::try_from(count).map_err(io::Error::other)?;
    // struct ethtool_gstrings: cmd, string_set, len, data[len * 32].
    let mut strings = vec![0_u32; 3 + features * ETH_GSTRING_LEN / 4];
    strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count]);
    // SAFETY: the struct of this command, with room for all strings of the set: their
    // number, which the kernel just told, is a constant of it.
    unsafe { call(interface, &mut strings[..])? };
    let bytes: Vec<u8> = strings[3..].iter().flat_map(|w| w.to_ne_bytes()).collect();
    let is_it = |string: &[u8]| string.split(|b| *b == 0).next() == Some(name.as_bytes());
    let Some(bit) = bytes.chunks_exact(ETH_GSTRING_LEN).position(is_it) else {
        return Ok(false);
    };
    // struct ethtool_gfeatures: cmd, size, then for each 32 features: available,
    // requested, active, never_changed.
    let blocks = count.div_ceil(32);
    let mut state = vec![0_u32; 2 + 4 * features.div_ceil(32)];
    state[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks]);
    // SAFETY: the struct of this command with as many blocks as it says.
    unsafe { call(interface, &mut state[..])? };
    Ok(state[2 + 4 * (bit / 32)] >> (bit % 32) & 1 == 1)
}

/// Commands about one rule, or about none.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum RuleCommand {
    /// How many there are.
    Count,
    /// What is at a location.
    Get,
    /// Put one there.
    Insert,
    /// Take it away.
    Delete,
}

/// Gives the driver one of the [`RuleCommand`]s.
///
/// # Errors
/// The driver's, or `EOPNOTSUPP` where it has no rules.
pub(super) fn rule(interface: &str, command: RuleCommand, nfc: &mut RxNfc) -> io::Result<()> {
    nfc.cmd = match command {
        RuleCommand::Count => ETHTOOL_GRXCLSRLCNT,
        RuleCommand::Get => ETHTOOL_GRXCLSRULE,
        RuleCommand::Insert => ETHTOOL_SRXCLSRLINS,
        RuleCommand::Delete => ETHTOOL_SRXCLSRLDEL,
    };
    // SAFETY: `struct ethtool_rxnfc`, whose size and offsets `wire` asserts. For these
    // four commands nothing follows it (only GRXCLSRLALL writes `rule_locs`).
    unsafe { call(interface, nfc) }
}

/// The table's size, and the locations of the rules in it, which must be `count`.
///
/// # Errors
/// The driver's; among others when there are more than `count`.
pub(super) fn rule_locations(interface: &str, count: u32) -> io::Result<(u64, Vec<u32>)> {
    if count > RULES_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let locations = usize::try_from(count).map_err(io::Error::other)?;
    // rule_locs[0] lies in the struct's last word, not behind it.
    let words = (RULE_LOCS_WORD + locations).max(size_of::<RxNfc>() / 4);
    let mut nfc = vec![0_u32; words];
    nfc[0] = ETHTOOL_GRXCLSRLALL;
    nfc[RULE_CNT_WORD] = count;
    // SAFETY: `struct ethtool_rxnfc` with room for as many locations as its `rule_cnt`
    // says, which is as many as the kernel allocates and, checked by the driver
    // (EMSGSIZE), the most it writes back.
    unsafe { call(interface, &mut nfc[..])? };
    let (low, high) = (nfc[2].to_ne_bytes(), nfc[3].to_ne_bytes());
    let mut data = [0; 8];
    data[..4].copy_from_slice(&low);
    data[4..].copy_from_slice(&high);
    let known = usize::try_from(nfc[RULE_CNT_WORD]).map_or(locations, |n| n.min(locations));
    let found = nfc[RULE_LOCS_WORD..RULE_LOCS_WORD + known].to_vec();
    Ok((u64::from_ne_bytes(data), found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_ethtool_has_one_queue() {
        assert_eq!(
            channels("no-such-device"),
            Channels {
                rx: 1,
                tx: 1,
                combined: true
            }
        );
        assert!(driver("no-such-device").is_err());
        assert!(driver("a-name-that-is-longer-than-any").is_err());
    }

    /// Every namespace has a loopback, and its features are known: generic receive offload
    /// can be switched, that it is a loopback cannot, and it has no rules.
    #[test]
    fn features_are_those_of_the_device() {
        assert!(can_switch("lo", "rx-gro").unwrap());
        assert!(!can_switch("lo", "loopback").unwrap());
        assert!(!can_switch("lo", "no-such-feature").unwrap());
        assert_eq!(ntuple("lo").unwrap(), Switch::Fixed);
        assert!(ntuple("no-such-device").is_err());
        for command in [RuleCommand::Count, RuleCommand::Get] {
            let refused = rule("lo", command, &mut RxNfc::default()).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
        }
        let refused = rule_locations("lo", 3).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
        assert!(rule_locations("lo", u32::MAX).is_err());
    }
}
