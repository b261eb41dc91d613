//! Receive flow classification: rules by which a NIC delivers a flow to a queue of our
//! choice (`ethtool -N`), asked of its driver.
//!
//! Behind a trait, so that what is made of it can be tested without a NIC: of those that
//! QEMU has none takes a rule for a TCP four-tuple. This code and its bytes are tested;
//! that a real driver does with them what it promises is not.

use std::io;
use std::net::SocketAddr;

use super::Switch;
use super::ethtool::{self, RuleCommand};
use super::wire::{RX_CLS_LOC_ANY, RX_CLS_LOC_SPECIAL, RxNfc};

/// TCP packets that arrive for a flow are delivered to a queue.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Our end: the packets' destination.
    pub local: SocketAddr,
    /// The peer's end: their source.
    pub remote: SocketAddr,
    /// Queue.
    pub queue: u32,
}

/// What is at a location of a table.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No rule.
    Nothing,
    /// One of the kind that braid makes.
    Steers(Rule),
    /// Any other.
    Other,
}

/// A NIC's table of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// How many rules it holds; 0 if the driver does not say.
    pub size: u32,
    /// The driver chooses the locations; otherwise whoever inserts does.
    pub chooses: bool,
    /// Locations in use.
    pub used: Vec<u32>,
}

/// Rules of the interfaces of this network namespace.
pub trait FlowRules: Send {
    /// Whether ntuple filtering is on.
    ///
    /// # Errors
    /// No such interface.
    fn switch(&self, interface: &str) -> io::Result<Switch>;

    /// The table as it is.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the driver has none.
    fn table(&self, interface: &str) -> io::Result<Table>;

    /// What is at a location.
    fn get(&self, interface: &str, location: u32) -> Found;

    /// Puts a rule at a location, or where the driver wants it, and says where it is. May
    /// take milliseconds.
    ///
    /// # Errors
    /// The driver's refusal.
    fn insert(&mut self, interface: &str, rule: &Rule, location: Option<u32>) -> io::Result<u32>;

    /// Takes the rule at a location away. May take milliseconds.
    ///
    /// # Errors
    /// The driver's refusal.
    fn delete(&mut self, interface: &str, location: u32) -> io::Result<()>;
}

/// Why an interface takes no rules.
#[derive(Debug, thiserror::Error)]
pub enum NoRules {
    /// Its driver knows nothing of them.
    #[error("its driver ({0}) has no flow rules; joins are handed over in software")]
    Unsupported(String),
    /// The switch for them is off.
    #[error("ntuple filtering is off; switch it on with: ethtool -K {0} ntuple on")]
    Off(String),
    /// Its driver does not answer as it should.
    #[error("its driver ({driver}) does not tell its {what}: {error}")]
    Unknown {
        /// Driver.
        driver: String,
        /// What it was asked for.
        what: &'static str,
        /// Its answer.
        error: io::Error,
    },
    /// Its driver does not say how many there can be.
    #[error("its driver ({0}) does not say how many flow rules it holds")]
    NoSize(String),
}

/// The table of an interface that takes rules, as far as can be known without trying one.
///
/// # Errors
/// See [`NoRules`].
pub fn usable(nic: &impl FlowRules, interface: &str, driver: &str) -> Result<Table, NoRules> {
    let unknown = |what| {
        move |error: io::Error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => NoRules::Unsupported(driver.to_owned()),
            _ => NoRules::Unknown {
                driver: driver.to_owned(),
                what,
                error,
            },
        }
    };
    let table = nic.table(interface).map_err(unknown("flow rules"))?;
    match nic.switch(interface).map_err(unknown("features"))? {
        Switch::Off => return Err(NoRules::Off(interface.to_owned())),
        // Where there is no switch the driver decides.
        Switch::On | Switch::Fixed => {}
    }
    if table.size == 0 && !table.chooses {
        return Err(NoRules::NoSize(driver.to_owned()));
    }
    Ok(table)
}

/// The kernel's.
#[derive(Copy, Clone, Debug, Default)]
pub struct Ethtool;

impl FlowRules for Ethtool {
    fn switch(&self, interface: &str) -> io::Result<Switch> {
        ethtool::ntuple(interface)
    }

    fn table(&self, interface: &str) -> io::Result<Table> {
        let mut attempts = 3;
        loop {
            let mut nfc = RxNfc::default();
            ethtool::rule(interface, RuleCommand::Count, &mut nfc)?;
            // Exactly as many as there are: one driver (mlx5) fails when it finds fewer,
            // the others when they find more. Somebody may have come in between.
            match ethtool::rule_locations(interface, nfc.rule_cnt) {
                Err(e) if attempts > 1 && e.raw_os_error() != Some(libc::EOPNOTSUPP) => {
                    attempts -= 1;
                }
                answer => {
                    let (size, used) = answer?;
                    return Ok(describe(nfc.data, size, used));
                }
            }
        }
    }

    fn get(&self, interface: &str, location: u32) -> Found {
        let mut nfc = RxNfc::default();
        nfc.fs.location = location;
        match ethtool::rule(interface, RuleCommand::Get, &mut nfc) {
            Ok(()) => nfc.found(),
            // EINVAL or ENOENT, as the driver likes.
            Err(_) => Found::Nothing,
        }
    }

    fn insert(&mut self, interface: &str, rule: &Rule, location: Option<u32>) -> io::Result<u32> {
        let at = location.unwrap_or(RX_CLS_LOC_ANY);
        let mut nfc = RxNfc::insert(rule, at).ok_or(io::ErrorKind::InvalidInput)?;
        ethtool::rule(interface, RuleCommand::Insert, &mut nfc)?;
        Ok(nfc.fs.location)
    }

    fn delete(&mut self, interface: &str, location: u32) -> io::Result<()> {
        let mut nfc = RxNfc::default();
        nfc.fs.location = location;
        ethtool::rule(interface, RuleCommand::Delete, &mut nfc)
    }
}

/// A table from the `data` of both answers. With the count some drivers tell nothing (ixgbe,
/// igb), and with the locations one (bnxt) tells how many rules there are.
fn describe(with_count: u64, with_locations: u64, used: Vec<u32>) -> Table {
    let special = u64::from(RX_CLS_LOC_SPECIAL);
    let size = |data: u64| u32::try_from(data & !special).unwrap_or(0);
    Table {
        size: match size(with_count) {
            0 => size(with_locations),
            size => size,
        },
        chooses: with_count & special != 0,
        used,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_told_with_the_count_or_with_the_locations() {
        // As ixgbe, i40e and bnxt tell it.
        let table = |count, locations| describe(count, locations, Vec::new());
        assert_eq!((table(0, 8190).size, table(0, 8190).chooses), (8190, false));
        assert_eq!(table(7000, 7000).size, 7000);
        let chooses = table(0x8000_0000 | 1024, 3);
        assert_eq!((chooses.size, chooses.chooses), (1024, true));
        assert_eq!(table(0, 0), Table::default());
    }

    #[test]
    fn a_device_without_rules_says_so() {
        let refused = Ethtool.table("lo").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
        assert_eq!(Ethtool.get("lo", 0), Found::Nothing);
        let rule = Rule {
            local: "127.0.0.1:7".parse().unwrap(),
            remote: "127.0.0.1:8".parse().unwrap(),
            queue: 0,
        };
        // Refused for want of a privilege, or of rules.
        assert!(Ethtool.insert("lo", &rule, Some(0)).is_err());
        assert!(Ethtool.delete("lo", 0).is_err());
    }
}
