//! The configuration file as it is written: every value with its place in the file.
//!
//! Nothing is judged here but the shape; [`super::validate`] turns it into a
//! [`super::Config`]. Words and numbers stay unparsed so that every complaint about a
//! value is made in one place, with its line and with what would have been allowed.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use toml::Spanned;

/// A value that may be absent, with its place.
pub(super) type Maybe<T> = Option<Spanned<T>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) dataplane: Dataplane,
    #[serde(default)]
    pub(super) interface: Vec<Spanned<Interface>>,
    #[serde(default)]
    pub(super) mptcp: Mptcp,
    #[serde(default)]
    pub(super) path: Path,
    #[serde(default)]
    pub(super) service: Vec<Spanned<Service>>,
    #[serde(default)]
    pub(super) connect: Vec<Spanned<Connect>>,
    #[serde(default)]
    pub(super) control: Control,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Dataplane {
    pub(super) cores: Maybe<Vec<Spanned<i64>>>,
    pub(super) idle: Maybe<String>,
    pub(super) frames: Maybe<i64>,
    pub(super) frame_size: Maybe<i64>,
    pub(super) rx_ring: Maybe<i64>,
    pub(super) tx_ring: Maybe<i64>,
    pub(super) memory_limit: Maybe<String>,
    pub(super) hugepages: Maybe<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Interface {
    pub(super) name: Spanned<String>,
    pub(super) queues: Maybe<WordOrNumbers>,
    pub(super) mode: Maybe<String>,
    pub(super) rx_checksum: Maybe<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Mptcp {
    pub(super) checksum: Maybe<String>,
    pub(super) scheduler: Maybe<String>,
    pub(super) congestion: Maybe<String>,
    pub(super) allow_v0: Option<bool>,
    pub(super) connect_version: Maybe<i64>,
    pub(super) pacing: Option<bool>,
    pub(super) ecn: Maybe<String>,
    pub(super) fast_open: Option<bool>,
    pub(super) syn_cookies: Option<bool>,
    pub(super) subflowless_timeout: Maybe<String>,
    pub(super) window_option: Option<bool>,
    pub(super) deny_join_id0: Option<bool>,
    pub(super) receive_buffer_max: Maybe<String>,
    pub(super) send_buffer_max: Maybe<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Path {
    pub(super) policy: Maybe<String>,
    pub(super) subflows: Maybe<i64>,
    pub(super) accept_addresses: Maybe<i64>,
    #[serde(default)]
    pub(super) endpoint: Vec<Spanned<Endpoint>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Endpoint {
    pub(super) address: Spanned<String>,
    pub(super) port: Maybe<i64>,
    #[serde(default)]
    pub(super) flags: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Service {
    pub(super) name: Spanned<String>,
    pub(super) listen: Spanned<Words>,
    pub(super) app: Spanned<String>,
    pub(super) bytes: Maybe<String>,
    pub(super) root: Maybe<String>,
    pub(super) to: Maybe<String>,
    pub(super) to_protocol: Maybe<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Connect {
    pub(super) name: Spanned<String>,
    pub(super) to: Spanned<String>,
    pub(super) app: Spanned<String>,
    pub(super) bytes: Maybe<String>,
    pub(super) autostart: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Control {
    pub(super) socket: Maybe<String>,
    pub(super) metrics: Maybe<String>,
}

/// `"all"` or `[0, 1]`.
#[derive(Debug)]
pub(super) enum WordOrNumbers {
    Word(String),
    Numbers(Vec<Spanned<i64>>),
}

impl<'de> Deserialize<'de> for WordOrNumbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = WordOrNumbers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\" or a list of queue numbers")
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(WordOrNumbers::Word(v.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut numbers = Vec::new();
                while let Some(n) = seq.next_element()? {
                    numbers.push(n);
                }
                Ok(WordOrNumbers::Numbers(numbers))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// One string or a list of them.
#[derive(Debug)]
pub(super) enum Words {
    One(String),
    Many(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Words;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address with port or a list of them")
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Words::One(v.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut words = Vec::new();
                while let Some(w) = seq.next_element()? {
                    words.push(w);
                }
                Ok(Words::Many(words))
            }
        }
        deserializer.deserialize_any(V)
    }
}
