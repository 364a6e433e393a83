//! Paths into JSON documents.
//!
//! ```text
//! path     = "$" | [ "$" ] step { step }          the "." before a first name may be left out
//! step     = "." name | "[" selector "]"
//! name     = bare | quoted
//! bare     = one or more characters except . [ ] = " and white space
//! quoted   = '"' any characters except '"' '"'
//! selector = "*"                                   every element of an array
//!          | digits                                the element with this index, from 0
//!          | name "=" literal                      the elements of an array whose member `name` equals the literal;
//!                                                  on an object: the object itself, if its member does
//! literal  = quoted                                this text
//!          | bare                                  this text, or this number (by value), or true, false, null
//! ```
//!
//! `bp.sys` · `samples[*].hr` · `data[type=temp].value` · `[kind=spo2].v` · `hr[0]` · `$` (the document itself, a bare number).
//!
//! A member that is not there, an index past the end and a `null` on the way give no value. A path through a number or text is
//! an error: the mapping is for another kind of document.

use ehe::decimal::Decimal;
use serde_json::Value;

use super::document::kind;
use crate::error::AdapterError;
use crate::limits::{PATH_MAX_BYTES, PATH_STEPS_MAX};

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No text.
    #[error("the path is empty; the document itself is \"$\"")]
    Empty,
    /// Longer than [`PATH_MAX_BYTES`].
    #[error("the path has {found} bytes; at most {PATH_MAX_BYTES} are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// More than [`PATH_STEPS_MAX`] steps.
    #[error("the path has more than {PATH_STEPS_MAX} steps")]
    TooManySteps,
    /// Something else than the grammar has there.
    #[error("at byte {at}: expected {expected}")]
    Syntax {
        /// Byte offset in the path.
        at: usize,
        /// What the grammar has there.
        expected: &'static str,
    },
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    text: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Every,
    Index(usize),
    Where { member: String, equals: Literal },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Literal {
    Text(String),
    Bare { text: String, number: Option<Decimal> },
}

impl Literal {
    fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text(text) | Self::Bare { text, .. }, Value::String(found)) => text == found,
            (Self::Bare { number: Some(number), .. }, Value::Number(found)) => found.as_str().parse() == Ok(*number),
            (Self::Bare { text, .. }, Value::Bool(found)) => text == if *found { "true" } else { "false" },
            (Self::Bare { text, .. }, Value::Null) => text == "null",
            _ => false,
        }
    }
}

/// A value that a path found, and the way to it.
pub(super) struct Found<'v> {
    /// What each step led to; the document first, the value last.
    nodes: Vec<&'v Value>,
    /// The index, and the length of the array, of each `[*]`.
    pub(super) places: Vec<(usize, usize)>,
}

impl<'v> Found<'v> {
    /// The value.
    pub(super) fn value(&self) -> &'v Value {
        self.nodes.last().copied().unwrap_or(&Value::Null)
    }
}

impl core::fmt::Display for Path {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.text)
    }
}

impl core::str::FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > PATH_MAX_BYTES {
            return Err(PathError::TooLong { found: text.len() });
        }
        let mut parser = Parser { text, at: 0 };
        let mut steps = Vec::new();
        let rooted = text == "$" || text.starts_with("$.") || text.starts_with("$[");
        if rooted {
            parser.at = 1;
        } else if !text.starts_with('[') && !text.starts_with('.') {
            steps.push(Step::Member(parser.name()?));
        }
        while !parser.rest().is_empty() {
            if steps.len() == PATH_STEPS_MAX {
                return Err(PathError::TooManySteps);
            }
            steps.push(parser.step()?);
        }
        Ok(Self { text: text.to_owned(), steps })
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect<T>(&self, found: Option<T>, expected: &'static str) -> Result<T, PathError> {
        found.ok_or(PathError::Syntax { at: self.at, expected })
    }

    /// The text up to the first character of `ends` (or the end), at least one character.
    fn until(&mut self, ends: impl Fn(char) -> bool, expected: &'static str) -> Result<&'t str, PathError> {
        let rest = self.rest();
        let token = rest.split_once(&ends).map_or(rest, |(token, _)| token);
        let token = self.expect((!token.is_empty()).then_some(token), expected)?;
        self.at += token.len();
        Ok(token)
    }

    fn quoted(&mut self) -> Result<Option<String>, PathError> {
        if !self.eat("\"") {
            return Ok(None);
        }
        let (token, _) = self.expect(self.rest().split_once('"'), "a closing quotation mark")?;
        self.at += token.len() + 1;
        Ok(Some(token.to_owned()))
    }

    fn name(&mut self) -> Result<String, PathError> {
        if let Some(quoted) = self.quoted()? {
            return Ok(quoted);
        }
        let ends = |c: char| matches!(c, '.' | '[' | ']' | '=' | '"') || c.is_whitespace();
        self.until(ends, "a name (quote it if it holds . [ ] = or a space)").map(str::to_owned)
    }

    fn step(&mut self) -> Result<Step, PathError> {
        if self.eat(".") {
            return self.name().map(Step::Member);
        }
        let open = self.eat("[");
        self.expect(open.then_some(()), "\".\" or \"[\"")?;
        let step = self.selector()?;
        let closed = self.eat("]");
        self.expect(closed.then_some(step), "\"]\"")
    }

    fn selector(&mut self) -> Result<Step, PathError> {
        if self.eat("*") {
            return Ok(Step::Every);
        }
        let start = self.at;
        let member = self.name()?;
        if self.eat("=") {
            let equals = match self.quoted()? {
                Some(text) => Literal::Text(text),
                None => {
                    let text = self.until(|c| matches!(c, '[' | ']' | '"'), "a value to compare with")?;
                    Literal::Bare { text: text.to_owned(), number: text.parse().ok() }
                }
            };
            return Ok(Step::Where { member, equals });
        }
        let index = member.parse().ok().filter(|_| member.bytes().all(|c| c.is_ascii_digit()));
        let wrong = PathError::Syntax { at: start, expected: "* or an index or member=value" };
        index.map(Step::Index).ok_or(wrong)
    }
}

impl Path {
    /// How many `[*]` it has.
    pub(super) fn wildcards(&self) -> usize {
        self.steps.iter().filter(|step| **step == Step::Every).count()
    }

    /// How many first steps it has in common with `other`.
    pub(super) fn shared(&self, other: &Path) -> usize {
        self.steps.iter().zip(&other.steps).take_while(|(a, b)| a == b).count()
    }

    /// Hands everything that it finds in `document` to `each`, in the order of the document.
    pub(super) fn find<'v>(
        &self,
        document: &'v Value,
        each: &mut dyn FnMut(&Found<'v>) -> Result<(), AdapterError>,
    ) -> Result<(), AdapterError> {
        let mut found = Found { nodes: vec![document], places: Vec::new() };
        self.walk(&self.steps, &mut found, each)
    }

    fn walk<'v>(
        &self,
        steps: &[Step],
        found: &mut Found<'v>,
        each: &mut dyn FnMut(&Found<'v>) -> Result<(), AdapterError>,
    ) -> Result<(), AdapterError> {
        let Some((step, rest)) = steps.split_first() else { return each(found) };
        let node = found.value();
        match (step, node) {
            (_, Value::Null) => Ok(()),
            (Step::Every, Value::Array(elements)) => {
                for (index, element) in elements.iter().enumerate() {
                    found.places.push((index, elements.len()));
                    self.walk_into(element, rest, found, each)?;
                    found.places.pop();
                }
                Ok(())
            }
            (Step::Where { .. }, Value::Array(elements)) => {
                for element in elements.iter().filter(|element| step.holds(element)) {
                    self.walk_into(element, rest, found, each)?;
                }
                Ok(())
            }
            _ => match self.single(step, node)? {
                Some(next) => self.walk_into(next, rest, found, each),
                None => Ok(()),
            },
        }
    }

    fn walk_into<'v>(
        &self,
        node: &'v Value,
        rest: &[Step],
        found: &mut Found<'v>,
        each: &mut dyn FnMut(&Found<'v>) -> Result<(), AdapterError>,
    ) -> Result<(), AdapterError> {
        found.nodes.push(node);
        self.walk(rest, found, each)?;
        found.nodes.pop();
        Ok(())
    }

    /// What a step that leads to at most one place leads to.
    fn single<'v>(&self, step: &Step, node: &'v Value) -> Result<Option<&'v Value>, AdapterError> {
        match (step, node) {
            (_, Value::Null) => Ok(None),
            (Step::Member(name), Value::Object(members)) => Ok(members.get(name)),
            (Step::Index(index), Value::Array(elements)) => Ok(elements.get(*index)),
            (Step::Where { .. }, Value::Object(_)) => Ok(Some(node).filter(|node| step.holds(node))),
            (Step::Where { .. }, Value::Array(elements)) => Ok(elements.iter().find(|element| step.holds(element))),
            (Step::Member(_), _) => Err(self.shape("an object", node)),
            (Step::Every | Step::Index(_), _) => Err(self.shape("an array", node)),
            (Step::Where { .. }, _) => Err(self.shape("an array or object", node)),
        }
    }

    /// The one value that this path means for a value found by `other`, of which it shares the first `shared` steps.
    ///
    /// As far as the two paths agree they are in the same element. Beyond, `[*]` takes the index that the same `[*]` of the
    /// other path has, counted from the left, and `[member=value]` the first element that fits.
    pub(super) fn beside<'v>(&self, found: &Found<'v>, shared: usize) -> Result<Option<&'v Value>, AdapterError> {
        let Some(mut node) = found.nodes.get(shared).copied() else { return Ok(None) };
        let (same, rest) = self.steps.split_at_checked(shared).unwrap_or((&self.steps, &[]));
        let mut wildcard = same.iter().filter(|step| **step == Step::Every).count();
        for step in rest {
            let next = match (step, node) {
                (Step::Every, Value::Array(elements)) => {
                    let index = found.places.get(wildcard).map(|(index, _)| *index);
                    wildcard += 1;
                    index.and_then(|index| elements.get(index))
                }
                _ => self.single(step, node)?,
            };
            let Some(next) = next else { return Ok(None) };
            node = next;
        }
        Ok(Some(node).filter(|node| !node.is_null()))
    }

    fn shape(&self, expected: &'static str, node: &Value) -> AdapterError {
        AdapterError::Shape { path: self.text.clone(), expected, found: kind(node) }
    }
}

impl Step {
    /// Whether an element fits `[member=value]`.
    fn holds(&self, element: &Value) -> bool {
        match self {
            Step::Where { member, equals } => element.get(member).is_some_and(|value| equals.equals(value)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
