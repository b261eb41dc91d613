//! TCP options as scripts write them, compared and put on the wire.
//!
//! | option | fields |
//! |---|---|
//! | `capable` | `v` `flags` `key1` (sender's) `key2` (receiver's) `len` `csum` |
//! | `join` | SYN: `b` `id` `token` `nonce`; SYN/ACK: `b` `id` `hmac` `nonce`; ACK: `hmac` |
//! | `dss` | `ack` or `ack4`, `dsn` or `dsn4` with `ssn` `len` `csum`, `fin` |
//! | `addaddr` | `e` `id` `addr` `port` `hmac` |
//! | `rmaddr` | `ids` |
//! | `prio` | `b` |
//! | `fail` | `dsn` (of data that the option's receiver sent) |
//! | `fastclose` | `key` |
//! | `rst` | `t` `reason` |
//!
//! Reserved bits are `rsv`: absent means zero, in both directions.

use std::net::IpAddr;

use braid_dataplane::app::pattern;

use super::keys;
use super::syntax::{Field, OptionText};

/// RFC 8684 §3.
pub(super) const KIND_MPTCP: u8 = 30;
/// RFC 7413 §4.1.1.
pub(super) const KIND_FAST_OPEN: u8 = 34;

/// One of the two ends.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Braid,
    Peer,
}

/// What gives symbols their values on one path.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Secrets {
    pub(super) key_braid: Option<u64>,
    pub(super) key_peer: Option<u64>,
    pub(super) nonce_braid: u32,
    pub(super) nonce_peer: u32,
}

/// [`Secrets`] seen by the sender of an option.
#[derive(Copy, Clone, Debug)]
pub(super) struct View {
    pub(super) secrets: Secrets,
    pub(super) sender: Side,
}

impl View {
    fn key(&self, of_sender: bool) -> Option<u64> {
        if (self.sender == Side::Braid) == of_sender {
            self.secrets.key_braid
        } else {
            self.secrets.key_peer
        }
    }

    pub(super) fn keys(&self) -> Option<(u64, u64)> {
        Some((self.key(true)?, self.key(false)?))
    }

    /// The sender's nonce first.
    fn nonces(&self) -> (u32, u32) {
        let Secrets {
            nonce_braid,
            nonce_peer,
            ..
        } = self.secrets;
        match self.sender {
            Side::Braid => (nonce_braid, nonce_peer),
            Side::Peer => (nonce_peer, nonce_braid),
        }
    }

    pub(super) fn idsn(&self, of_sender: bool) -> u64 {
        self.key(of_sender).map_or(0, keys::idsn)
    }

    pub(super) fn join_hmac(&self) -> [u8; 32] {
        self.keys()
            .map_or([0; 32], |(a, b)| keys::join(a, b, self.nonces()))
    }

    pub(super) fn symbol(&self, key: u64) -> String {
        if self.secrets.key_braid == Some(key) {
            "braid".to_owned()
        } else if self.secrets.key_peer == Some(key) {
            "peer".to_owned()
        } else {
            format!("{key:#x}")
        }
    }

    fn named_key(&self, text: &str) -> Result<u64, String> {
        match text {
            "braid" => self
                .secrets
                .key_braid
                .ok_or("braid has shown no key yet".to_owned()),
            "peer" => self
                .secrets
                .key_peer
                .ok_or("the peer has no key".to_owned()),
            other => number(other),
        }
    }

    /// DSS checksum of a mapping of the pattern.
    pub(super) fn checksum(&self, relative: u64, ssn: u32, len: u16, fin: bool) -> u16 {
        let bytes = usize::from(len.saturating_sub(u16::from(fin)));
        let mut data = vec![0; bytes];
        let _ = pattern::fill(relative.wrapping_sub(1), &mut data);
        keys::dss(self.idsn(true).wrapping_add(relative), ssn, len, &data)
    }
}

/// A decimal or `0x` number; negative ones wrap.
pub(super) fn number(text: &str) -> Result<u64, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let value = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    let value = value.map_err(|_| format!("`{text}` is no number"))?;
    Ok(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

/// A number that fits.
pub(super) fn small<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    T::try_from(number(text)?).map_err(|_| format!("`{text}` is too large"))
}

/// Whether what was expected is what came.
pub(super) fn agrees(expected: &str, got: &str) -> bool {
    if expected == "*" || expected == got {
        return true;
    }
    if let Some((low, high)) = expected.split_once("..")
        && let (Ok(low), Ok(high), Ok(got)) = (number(low), number(high), number(got))
    {
        return (low..=high).contains(&got);
    }
    match (number(expected), number(got)) {
        (Ok(a), Ok(b)) => a == b,
        _ => expected == "bad" && got != "ok",
    }
}

/// Whether an option is what was expected: every field named, unless `*` ends it.
pub(super) fn option_agrees(expected: &OptionText, got: &OptionText) -> bool {
    let known = |f: &Field| {
        got.get(&f.name)
            .is_some_and(|value| agrees(&f.value, value))
    };
    expected.name == got.name
        && expected.fields.iter().all(known)
        && (expected.rest || got.fields.iter().all(|f| expected.get(&f.name).is_some()))
}

struct Reader<'a> {
    text: &'a OptionText,
    used: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    fn get(&mut self, name: &'a str) -> Option<&'a str> {
        self.used.push(name);
        self.text.get(name)
    }

    fn num<T: TryFrom<u64>>(&mut self, name: &'a str, otherwise: u64) -> Result<T, String> {
        match self.get(name) {
            Some(text) => small(text),
            None => T::try_from(otherwise).map_err(|_| "too large".to_owned()),
        }
    }

    fn finish(self) -> Result<(), String> {
        match self
            .text
            .fields
            .iter()
            .find(|f| !self.used.contains(&f.name.as_str()))
        {
            Some(f) => Err(format!("`{}` has no field `{}`", self.text.name, f.name)),
            None => Ok(()),
        }
    }
}

fn hex_bytes(text: &str) -> Result<Vec<u8>, String> {
    let nibbles: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let nibbles = nibbles.filter(|n| n.len() % 2 == 0);
    let nibbles = nibbles.ok_or_else(|| format!("`{text}` are no hexadecimal bytes"))?;
    let byte = |pair: &[u32]| u8::try_from(pair[0] << 4 | pair[1]).expect("two nibbles");
    Ok(nibbles.chunks(2).map(byte).collect())
}

/// `ok`, `bad` or bytes: an authenticator of a certain length.
fn authenticator(text: &str, right: &[u8]) -> Result<Vec<u8>, String> {
    match text {
        "ok" => Ok(right.to_vec()),
        "bad" => {
            let mut wrong = right.to_vec();
            wrong[0] ^= 0x80;
            Ok(wrong)
        }
        hex => hex_bytes(hex),
    }
}

fn checksum(text: &str, right: u16) -> Result<u16, String> {
    match text {
        "ok" => Ok(right),
        // Not its complement: zero and 0xffff are the same sum.
        "bad" => Ok(right ^ 0x0100),
        other => small(other),
    }
}

/// Kind and body of an option as written.
pub(super) fn encode(text: &OptionText, view: &View) -> Result<(u8, Vec<u8>), String> {
    let mut r = Reader {
        text,
        used: Vec::new(),
    };
    let body = match text.name.as_str() {
        "mss" => {
            let mss: u16 = r.num("", 1460)?;
            return Ok((2, mss.to_be_bytes().to_vec()));
        }
        "ws" => return Ok((3, vec![r.num("", 7)?])),
        "sackok" => return Ok((4, Vec::new())),
        "raw" => {
            let bytes = hex_bytes(r.get("").unwrap_or_default())?;
            let (kind, body) = bytes.split_first().ok_or("`raw=KIND…` takes bytes")?;
            return Ok((*kind, body.to_vec()));
        }
        "capable" => {
            let mut out = vec![r.num("v", 1)?, r.num("flags", 1)?];
            for name in ["key1", "key2"] {
                if let Some(key) = r.get(name) {
                    out.extend(view.named_key(key)?.to_be_bytes());
                }
            }
            if let Some(len) = r.get("len") {
                let len: u16 = small(len)?;
                out.extend(len.to_be_bytes());
                if let Some(text) = r.get("csum") {
                    let right = view.checksum(1, 1, len, false);
                    out.extend(checksum(text, right)?.to_be_bytes());
                }
            }
            out
        }
        "join" => join(&mut r, view)?,
        "dss" => dss(&mut r, view)?,
        "addaddr" => add_addr(&mut r, view)?,
        "rmaddr" => {
            let mut out = vec![0x40 | r.num::<u8>("rsv", 0)?];
            for id in r.get("ids").ok_or("`rmaddr ids=1,2`")?.split('+') {
                out.push(small(id)?);
            }
            out
        }
        "prio" => vec![0x50 | r.num::<u8>("rsv", 0)? << 1 | r.num::<u8>("b", 0)?],
        "fail" => {
            let rsv: u16 = r.num("rsv", 0)?;
            let dsn = number(r.get("dsn").ok_or("`fail dsn=N`")?)?;
            let mut out = (0x6000 | rsv).to_be_bytes().to_vec();
            out.extend(view.idsn(false).wrapping_add(dsn).to_be_bytes());
            out
        }
        "fastclose" => {
            let rsv: u16 = r.num("rsv", 0)?;
            let key = view.named_key(r.get("key").ok_or("`fastclose key=braid`")?)?;
            let mut out = (0x7000 | rsv).to_be_bytes().to_vec();
            out.extend(key.to_be_bytes());
            out
        }
        "rst" => {
            let flags = r.num::<u8>("rsv", 0)? << 1 | r.num::<u8>("t", 0)?;
            vec![0x80 | flags, r.num("reason", 0)?]
        }
        other => return Err(format!("there is no option `{other}`")),
    };
    r.finish()?;
    Ok((KIND_MPTCP, body))
}

fn join(r: &mut Reader<'_>, view: &View) -> Result<Vec<u8>, String> {
    let rsv: u8 = r.num("rsv", 0)?;
    let b: u8 = r.num("b", 0)?;
    let mut out = vec![0x10 | rsv << 1 | b, r.num("id", 0)?];
    let own_nonce = u64::from(view.nonces().0);
    if let Some(token) = r.get("token") {
        let token: u32 = match token {
            "braid" | "peer" => keys::token(view.named_key(token)?),
            other => small(other)?,
        };
        out.extend(token.to_be_bytes());
        out.extend(r.num::<u32>("nonce", own_nonce)?.to_be_bytes());
        return Ok(out);
    }
    let mac = view.join_hmac();
    let wanted = r.get("hmac").ok_or("`join` has a token or an hmac")?;
    if r.text.get("nonce").is_some() {
        out.extend(authenticator(wanted, &mac[..8])?);
        let nonce: u32 = match r.get("nonce") {
            Some("own") => view.nonces().0,
            _ => r.num("nonce", own_nonce)?,
        };
        out.extend(nonce.to_be_bytes());
    } else {
        out.extend(authenticator(wanted, &mac[..20])?);
    }
    Ok(out)
}

fn dss(r: &mut Reader<'_>, view: &View) -> Result<Vec<u8>, String> {
    let fin: u8 = r.num("fin", 0)?;
    let mut flags = r.num::<u8>("rsv", 0)? << 5 | fin << 4;
    let mut numbers = Vec::new();
    for (wide, of_sender, bits) in [("ack", false, (0x01, 0x02)), ("dsn", true, (0x04, 0x08))] {
        let base = view.idsn(of_sender);
        if let Some(n) = r.get(wide) {
            flags |= bits.0 | bits.1;
            numbers.extend(base.wrapping_add(number(n)?).to_be_bytes());
        } else if let Some(n) = r.get(if of_sender { "dsn4" } else { "ack4" }) {
            flags |= bits.0;
            numbers.extend(&base.wrapping_add(number(n)?).to_be_bytes()[4..]);
        }
    }
    if let Some(dsn) = r.text.get("dsn").or(r.text.get("dsn4")) {
        let ssn: u32 = small(r.get("ssn").ok_or("a mapping has `ssn=`")?)?;
        let len: u16 = small(r.get("len").ok_or("a mapping has `len=`")?)?;
        numbers.extend(ssn.to_be_bytes());
        numbers.extend(len.to_be_bytes());
        if let Some(text) = r.get("csum") {
            let right = view.checksum(number(dsn)?, ssn, len, fin != 0);
            numbers.extend(checksum(text, right)?.to_be_bytes());
        }
    }
    let mut out = vec![0x20, flags];
    out.extend(numbers);
    Ok(out)
}

fn add_addr(r: &mut Reader<'_>, view: &View) -> Result<Vec<u8>, String> {
    let echo: u8 = r.num("e", 0)?;
    let id: u8 = r.num("id", 0)?;
    let mut out = vec![0x30 | r.num::<u8>("rsv", 0)? << 1 | echo, id];
    let text = r.get("addr").ok_or("`addaddr id=1 addr=…`")?;
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("`{text}` is no address"))?;
    match address {
        IpAddr::V4(a) => out.extend(a.octets()),
        IpAddr::V6(a) => out.extend(a.octets()),
    }
    let port = r.get("port").map(small::<u16>).transpose()?;
    if let Some(port) = port {
        out.extend(port.to_be_bytes());
    }
    if let Some(text) = r.get("hmac") {
        let (a, b) = view.keys().ok_or("the keys are not known yet")?;
        let right = keys::add_addr(a, b, id, address, port.unwrap_or(0));
        out.extend(authenticator(text, &right)?);
    }
    Ok(out)
}

/// Whether it is an MPTCP option.
pub(super) fn is_mptcp(kind: u8) -> bool {
    kind == KIND_MPTCP
}

#[cfg(test)]
mod tests {
    use super::super::render::render;
    use super::*;
    use crate::script::syntax::options_text;

    const VIEW: View = View {
        secrets: Secrets {
            key_braid: Some(0x1111),
            key_peer: Some(0x2222),
            nonce_braid: 5,
            nonce_peer: 6,
        },
        sender: Side::Peer,
    };

    fn written(text: &str) -> OptionText {
        options_text(text).list.remove(0)
    }

    #[test]
    fn options_survive_the_way_there_and_back() {
        for text in [
            "capable v=1 flags=0x81",
            "capable v=1 flags=0x01 key1=peer",
            "capable v=1 flags=0x01 key1=peer key2=braid len=100 csum=ok",
            "join b id=3 token=braid nonce=0x6",
            "join b=0 id=3 hmac=ok nonce=0x6",
            "join hmac=ok",
            "dss ack=1 dsn=1 ssn=1 len=10 csum=ok",
            "dss ack4=-3 dsn4=7 ssn=0 len=1 fin",
            "dss ack=1",
            "addaddr id=2 addr=10.0.0.1 hmac=ok",
            "addaddr e id=2 addr=fd77::1 port=81",
            "rmaddr ids=1+2",
            "prio b",
            "fail dsn=101",
            "fastclose key=braid",
            "rst t=0 reason=6",
            "mss=1460",
            "ws=7",
        ] {
            let option = written(text);
            let (kind, body) = encode(&option, &VIEW).unwrap();
            let back = render(kind, &body, &VIEW);
            assert!(option_agrees(&option, &back), "{text}: {back}");
        }
    }

    #[test]
    fn reserved_bits_and_wrong_values_are_seen() {
        for (sent, expected) in [
            (
                "join b=0 rsv=1 id=1 token=braid nonce=1",
                "join b=0 id=1 token=braid nonce=1",
            ),
            ("dss ack=1 rsv=2", "dss ack=1"),
            ("join hmac=bad", "join hmac=ok"),
            (
                "dss dsn=1 ssn=1 len=9 csum=bad",
                "dss dsn=1 ssn=1 len=9 csum=ok",
            ),
            ("dss dsn=1 ssn=1 len=9 csum=ok", "dss dsn=1 ssn=1 len=9"),
            ("dss ack=1", "dss ack4=1"),
            ("rst t=0 rsv=4 reason=1", "rst t=0 reason=1"),
        ] {
            let (kind, body) = encode(&written(sent), &VIEW).unwrap();
            let got = render(kind, &body, &VIEW);
            assert!(!option_agrees(&written(expected), &got), "{sent}");
            assert!(option_agrees(&written(sent), &got), "{sent}: {got}");
        }
    }

    #[test]
    fn ranges_stars_and_bad_agree() {
        assert!(agrees("1..9", "9") && !agrees("1..9", "10"));
        assert!(agrees("*", "x") && agrees("0x10", "16"));
        assert!(agrees("bad", "00ff") && !agrees("bad", "ok"));
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(encode(&written("dss akc=1"), &VIEW).is_err());
        assert!(encode(&written("nonsense"), &VIEW).is_err());
    }
}
