//! What the server says of itself: lines of JSON without content.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

/// Where lines go.
#[derive(Clone)]
pub struct Journal(Arc<dyn Fn(&str) + Send + Sync>);

impl Journal {
    /// A journal that hands each line to `sink`.
    pub fn new(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// One line: what happened, and facts that are no content: hashes, names, numbers.
    pub(crate) fn line(&self, what: &str, facts: Value) {
        let mut line = Map::new();
        line.insert("time".into(), json!(now()));
        line.insert("what".into(), what.into());
        if let Value::Object(facts) = facts {
            line.extend(facts);
        }
        (self.0)(&Value::Object(line).to_string());
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs())
}
