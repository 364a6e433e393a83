//! One of a thing for each who asks: what a second asks for while the first is under way, it does not get.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Who has one under way.
#[derive(Debug)]
pub struct OneEach<K: Ord>(Mutex<BTreeSet<K>>);

impl<K: Ord> Default for OneEach<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// One that is under way, until it is dropped.
#[derive(Debug)]
pub struct UnderWay<'a, K: Ord> {
    all: &'a OneEach<K>,
    who: K,
}

impl<K: Ord + Copy> OneEach<K> {
    /// `None`: this one has one under way.
    pub fn begin(&self, who: K) -> Option<UnderWay<'_, K>> {
        let new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(who);
        new.then_some(UnderWay { all: self, who })
    }
}

impl<K: Ord> Drop for UnderWay<'_, K> {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_and_another_when_it_is_over() {
        let all = OneEach::default();
        let first = all.begin(1);
        assert!(first.is_some() && all.begin(1).is_none() && all.begin(2).is_some());
        drop(first);
        assert!(all.begin(1).is_some());
    }
}
