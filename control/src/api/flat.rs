//! Events of the dataplane as one object, `{"kind": …, "event": …, "token": …}`: easy to pick
//! from with jq. Between the processes they are names with contents, which are read faster.

use braid_dataplane::control::DataplaneEvent;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Value};

/// `{name: contents}`, or `name` alone, as the contents with the name under `key`.
fn flatten(key: &str, named: Value) -> Option<Map<String, Value>> {
    let (name, contents) = match named {
        Value::String(name) => (name, Map::new()),
        Value::Object(one) => match one.into_iter().next()? {
            (name, Value::Object(contents)) => (name, contents),
            _ => return None,
        },
        _ => return None,
    };
    let mut flat = Map::from_iter([(key.to_owned(), Value::String(name))]);
    flat.extend(contents);
    Some(flat)
}

/// Undoes [`flatten`].
fn unflatten(key: &str, mut flat: Map<String, Value>) -> Option<Value> {
    let Some(Value::String(name)) = flat.remove(key) else {
        return None;
    };
    Some(if flat.is_empty() {
        Value::String(name)
    } else {
        Value::Object(Map::from_iter([(name, Value::Object(flat))]))
    })
}

pub(super) fn serialize<S: Serializer>(
    event: &DataplaneEvent,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let named = serde_json::to_value(event).map_err(ser::Error::custom)?;
    let mut flat = flatten("kind", named).unwrap_or_default();
    if let Some(inner) = flat.remove("event") {
        flat.extend(flatten("event", inner).unwrap_or_default());
    }
    flat.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<DataplaneEvent, D::Error> {
    let mut flat = Map::<String, Value>::deserialize(deserializer)?;
    if flat.contains_key("event") {
        let mut outer = Map::new();
        for key in ["kind", "worker", "service"] {
            if let Some(value) = flat.remove(key) {
                outer.insert(key.to_owned(), value);
            }
        }
        let inner = unflatten("event", flat).ok_or_else(|| de::Error::missing_field("event"))?;
        outer.insert("event".to_owned(), inner);
        flat = outer;
    }
    let named = unflatten("kind", flat).ok_or_else(|| de::Error::missing_field("kind"))?;
    serde_json::from_value(named).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_dataplane::mptcp::{CloseReason, Event};

    #[derive(Serialize, Deserialize)]
    struct Told(#[serde(with = "super")] DataplaneEvent);

    #[test]
    fn events_are_flat_and_can_be_read_again() {
        let closed = DataplaneEvent::Connection {
            worker: 1,
            service: "echo".to_owned(),
            event: Event::Closed {
                token: 7,
                reason: CloseReason::Finished,
            },
        };
        let cases = [
            (
                closed,
                r#"{"event":"closed","kind":"connection","reason":"finished","service":"echo","token":7,"worker":1}"#,
            ),
            (
                DataplaneEvent::Lost { count: 3 },
                r#"{"count":3,"kind":"lost"}"#,
            ),
            (DataplaneEvent::Drained, r#"{"kind":"drained"}"#),
        ];
        for (event, text) in cases {
            let told = serde_json::to_value(Told(event.clone())).unwrap();
            assert_eq!(told, serde_json::from_str::<Value>(text).unwrap());
            let Told(again) = serde_json::from_value(told).unwrap();
            assert_eq!(format!("{again:?}"), format!("{event:?}"));
        }
    }
}
