//! TCP options on the wire, as a script would write them.

use std::net::IpAddr;

use super::keys;
use super::options::{KIND_FAST_OPEN, KIND_MPTCP, View};
use super::syntax::{Field, OptionText};

/// An option as a script would write it.
pub(super) fn render(kind: u8, body: &[u8], view: &View) -> OptionText {
    let mut w = Writer::default();
    let known = match kind {
        2 if body.len() == 2 => {
            w.put("", u16::from_be_bytes([body[0], body[1]]));
            Some("mss")
        }
        3 if body.len() == 1 => {
            w.put("", body[0]);
            Some("ws")
        }
        4 if body.is_empty() => Some("sackok"),
        5 => Some("sack"),
        KIND_FAST_OPEN => {
            w.put("len", body.len());
            Some("fastopen")
        }
        8 if body.len() == 8 => {
            w.put("val", be(&body[..4]));
            w.put("ecr", be(&body[4..]));
            Some("ts")
        }
        KIND_MPTCP => render_mptcp(body, view, &mut w),
        _ => None,
    };
    let Some(name) = known else {
        let hex: String = body.iter().map(|b| format!("{b:02x}")).collect();
        let mut w = Writer::default();
        w.put("", format!("{kind:02x}{hex}"));
        return w.done("raw");
    };
    w.done(name)
}

#[derive(Default)]
struct Writer(Vec<Field>);

impl Writer {
    fn put(&mut self, name: &str, value: impl ToString) {
        self.0.push(Field {
            name: name.to_owned(),
            value: value.to_string(),
        });
    }

    fn unless_zero(&mut self, name: &str, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.put(name, value);
        }
    }

    fn verdict(&mut self, name: &str, got: &[u8], right: &[u8]) {
        if got == right {
            self.put(name, "ok");
        } else {
            let hex: String = got.iter().map(|b| format!("{b:02x}")).collect();
            self.put(name, hex);
        }
    }

    fn checksum(&mut self, got: &[u8], right: u16) {
        let got = be(got);
        if got == u64::from(right) {
            self.put("csum", "ok");
        } else {
            self.put("csum", format!("{got:#06x}"));
        }
    }

    fn done(self, name: &str) -> OptionText {
        OptionText {
            name: name.to_owned(),
            fields: self.0,
            rest: false,
        }
    }
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Signed, so that what lies a little before the origin reads well.
fn relative(absolute: u64, base: u64) -> i64 {
    absolute.wrapping_sub(base).cast_signed()
}

fn relative4(low: u64, base: u64) -> i64 {
    let low = u32::try_from(low).unwrap_or_default();
    let base = u32::try_from(base & 0xffff_ffff).unwrap_or_default();
    i64::from(low.wrapping_sub(base).cast_signed())
}

/// `None`: no form that RFC 8684 knows.
fn render_mptcp(body: &[u8], view: &View, w: &mut Writer) -> Option<&'static str> {
    let first = *body.first()?;
    let low = first & 0xf;
    match (first >> 4, body.len()) {
        (0, 2 | 10 | 18 | 20 | 22) => {
            w.put("v", low);
            w.put("flags", format!("{:#04x}", body[1]));
            for (name, at) in [("key1", 2), ("key2", 10)] {
                if let Some(key) = body.get(at..at + 8) {
                    w.put(name, view.symbol(be(key)));
                }
            }
            if let Some(len) = body.get(18..20) {
                let len = u16::from_be_bytes([len[0], len[1]]);
                w.put("len", len);
                if let Some(checksum) = body.get(20..22) {
                    w.checksum(checksum, view.checksum(1, 1, len, false));
                }
            }
            Some("capable")
        }
        (1, 10) => {
            w.put("b", low & 1);
            w.unless_zero("rsv", low >> 1);
            w.put("id", body[1]);
            let token = u32::try_from(be(&body[2..6])).ok()?;
            let owner = |key: Option<u64>| key.is_some_and(|k| keys::token(k) == token);
            if owner(view.secrets.key_braid) {
                w.put("token", "braid");
            } else if owner(view.secrets.key_peer) {
                w.put("token", "peer");
            } else {
                w.put("token", format!("{token:#x}"));
            }
            w.put("nonce", format!("{:#x}", be(&body[6..10])));
            Some("join")
        }
        (1, 14) => {
            w.put("b", low & 1);
            w.unless_zero("rsv", low >> 1);
            w.put("id", body[1]);
            w.verdict("hmac", &body[2..10], &view.join_hmac()[..8]);
            w.put("nonce", format!("{:#x}", be(&body[10..14])));
            Some("join")
        }
        (1, 22) => {
            w.unless_zero("rsv", u16::from(low) << 8 | u16::from(body[1]));
            w.verdict("hmac", &body[2..22], &view.join_hmac()[..20]);
            Some("join")
        }
        (2, _) => render_dss(body, view, w),
        (3, 6 | 8 | 14 | 16 | 18 | 20 | 26 | 28) => render_add_addr(body, view, w),
        (4, 2..) => {
            w.unless_zero("rsv", low);
            let ids: Vec<String> = body[1..].iter().map(u8::to_string).collect();
            w.put("ids", ids.join("+"));
            Some("rmaddr")
        }
        (5, 1) => {
            w.put("b", low & 1);
            w.unless_zero("rsv", low >> 1);
            Some("prio")
        }
        (6, 10) => {
            w.unless_zero("rsv", u16::from(low) << 8 | u16::from(body[1]));
            w.put("dsn", relative(be(&body[2..]), view.idsn(false)));
            Some("fail")
        }
        (7, 10) => {
            w.unless_zero("rsv", u16::from(low) << 8 | u16::from(body[1]));
            w.put("key", view.symbol(be(&body[2..])));
            Some("fastclose")
        }
        (8, 2) => {
            w.put("t", low & 1);
            w.unless_zero("rsv", low >> 1);
            w.put("reason", body[1]);
            Some("rst")
        }
        _ => None,
    }
}

fn render_dss(body: &[u8], view: &View, w: &mut Writer) -> Option<&'static str> {
    let flags = *body.get(1)?;
    w.unless_zero("rsv", u16::from(body[0] & 0xf) << 3 | u16::from(flags >> 5));
    let mut at = 2;
    let mut take = |n: usize| {
        let piece = body.get(at..at + n);
        at += n;
        piece
    };
    if flags & 1 != 0 {
        let base = view.idsn(false);
        if flags & 2 != 0 {
            w.put("ack", relative(be(take(8)?), base));
        } else {
            w.put("ack4", relative4(be(take(4)?), base));
        }
    }
    let fin = flags & 0x10 != 0;
    if flags & 4 != 0 {
        let base = view.idsn(true);
        let dsn = if flags & 8 != 0 {
            let dsn = relative(be(take(8)?), base);
            w.put("dsn", dsn);
            dsn
        } else {
            let dsn = relative4(be(take(4)?), base);
            w.put("dsn4", dsn);
            dsn
        };
        let ssn = u32::try_from(be(take(4)?)).ok()?;
        let len = u16::try_from(be(take(2)?)).ok()?;
        w.put("ssn", ssn);
        w.put("len", len);
        if body.len() == at + 2 {
            let right = view.checksum(dsn.cast_unsigned(), ssn, len, fin);
            w.checksum(&body[at..], right);
            at += 2;
        }
    }
    if fin {
        w.put("fin", 1);
    }
    (at == body.len()).then_some("dss")
}

fn render_add_addr(body: &[u8], view: &View, w: &mut Writer) -> Option<&'static str> {
    let (echo, id) = (body[0] & 1 != 0, body[1]);
    if echo {
        w.put("e", 1);
    }
    w.unless_zero("rsv", (body[0] & 0xf) >> 1);
    w.put("id", id);
    let rest = body.len() - 2;
    // 4 or 16 bytes of address; 2 of port; 8 of HMAC unless it is an echo.
    let wide = rest >= 16;
    let address_len = if wide { 16 } else { 4 };
    let address: IpAddr = if wide {
        <[u8; 16]>::try_from(&body[2..18]).ok()?.into()
    } else {
        <[u8; 4]>::try_from(&body[2..6]).ok()?.into()
    };
    w.put("addr", address);
    let mut tail = &body[2 + address_len..];
    let mut port = 0;
    if tail.len() % 8 == 2 {
        port = u16::from_be_bytes([tail[0], tail[1]]);
        w.put("port", port);
        tail = &tail[2..];
    }
    match tail.len() {
        0 => {}
        8 => {
            let right = view
                .keys()
                .map_or([0; 8], |(a, b)| keys::add_addr(a, b, id, address, port));
            w.verdict("hmac", tail, &right);
        }
        _ => return None,
    }
    Some("addaddr")
}
