//! Places in a document, so that a problem can say where it is.

use serde_json::{Map, Value};

use crate::error::AdapterError;
use crate::json::document::kind;

/// An object of the document, and where it stands.
pub(super) struct At<'v> {
    pub(super) node: &'v Map<String, Value>,
    pub(super) path: String,
}

impl<'v> At<'v> {
    pub(super) fn root(document: &'v Value) -> Result<Self, AdapterError> {
        Self::object_at(document, String::new())
    }

    fn object_at(value: &'v Value, path: String) -> Result<Self, AdapterError> {
        match value {
            Value::Object(node) => Ok(Self { node, path }),
            other => Err(AdapterError::Type { path, expected: "an object", found: kind(other) }),
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A member; `null` is none.
    pub(super) fn get(&self, name: &str) -> Option<&'v Value> {
        self.node.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, AdapterError> {
        self.get(name).map(|value| Self::object_at(value, self.path(name))).transpose()
    }

    /// The objects of an array; none if it is not there.
    pub(super) fn objects(&self, name: &str) -> Result<impl Iterator<Item = Self> + use<'v>, AdapterError> {
        let elements = match self.get(name) {
            None => &[],
            Some(Value::Array(elements)) => elements.as_slice(),
            Some(other) => {
                return Err(AdapterError::Type { path: self.path(name), expected: "an array", found: kind(other) });
            }
        };
        let each = |(index, value): (usize, &'v Value)| Self::object_at(value, self.path(&format!("{name}[{index}]")));
        Ok(elements.iter().enumerate().map(each).collect::<Result<Vec<_>, _>>()?.into_iter())
    }

    pub(super) fn is(&self, name: &str, text: &str) -> bool {
        self.get(name).and_then(Value::as_str) == Some(text)
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'v str>, AdapterError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(AdapterError::Type { path: self.path(name), expected: "text", found: kind(other) }),
        }
    }

    pub(super) fn owned(&self, name: &str) -> Result<Option<String>, AdapterError> {
        Ok(self.text(name)?.map(str::to_owned))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<serde_json::Number>, AdapterError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number.clone())),
            Some(other) => Err(AdapterError::Type { path: self.path(name), expected: "a number", found: kind(other) }),
        }
    }
}
