//! What runs out: without a current revocation list, or a certificate of its own, a node lets nobody in and a gateway reaches nobody.
//! That has to be loud in time.

use core::fmt;

use crate::store::{Credentials, names};

/// From this many days before the end on, each day is said.
const WARN_DAYS: i64 = 7;
const DAY_S: i64 = 24 * 60 * 60;

/// How long something still serves, if that is not long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// So many whole days, fewer than [`WARN_DAYS`].
    Days(i64),
    /// It is over.
    Nothing,
}

/// Of what ends at `end_unix_s`; `None` while that is long enough.
fn left(end_unix_s: i64, now_unix_s: i64) -> Option<Left> {
    let left_s = end_unix_s.saturating_sub(now_unix_s);
    match left_s.div_euclid(DAY_S) {
        _ if left_s < 0 => Some(Left::Nothing),
        days if days < WARN_DAYS => Some(Left::Days(days)),
        _ => None,
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Days(0) => f.write_str("is over in less than a day"),
            Self::Days(1) => f.write_str("is over in 1 day"),
            Self::Days(days) => write!(f, "is over in {days} days"),
            Self::Nothing => f.write_str("is over"),
        }
    }
}

/// What was said of each, so that a day is said once.
#[derive(Debug)]
pub struct Lapses {
    then: &'static str,
    list: Option<Left>,
    certificate: Option<Left>,
}

impl Lapses {
    /// `then`: what happens when it is over, for whoever reads the log.
    pub fn new(then: &'static str) -> Self {
        Self { then, list: None, certificate: None }
    }

    /// Says what is new.
    pub fn say(&mut self, credentials: &Credentials, now_unix_s: i64) {
        let list = credentials.revocations().and_then(|list| left(list.next_update_unix_s(), now_unix_s));
        if let Some(left) = changed(&mut self.list, list) {
            self.tell(left, names::CRL, "sign a new one (`ehe-certs revoke --refresh`) and put it there");
        }
        let certificate = left(credentials.certificate().not_after_unix_s, now_unix_s);
        if let Some(left) = changed(&mut self.certificate, certificate) {
            self.tell(left, names::CHANNEL, "have a new certificate issued (`ehe-certs issue`) and put it there");
        }
    }

    fn tell(&self, left: Left, file: &str, remedy: &str) {
        let then = self.then;
        match left {
            Left::Days(_) => {
                tracing::warn!("the time of {file} {left}; from then on {then}: {remedy}; no restart is needed");
            }
            Left::Nothing => tracing::error!("the time of {file} {left}: {then}; {remedy}; no restart is needed"),
        }
    }
}

fn changed(last: &mut Option<Left>, now: Option<Left>) -> Option<Left> {
    let changed = *last != now;
    *last = now;
    now.filter(|_| changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_last_seven_days_is_said_once_and_the_end_too() {
        let (end, mut last, mut said) = (30 * DAY_S, None, Vec::new());
        for minute in 0..32 * 24 * 60 {
            said.extend(changed(&mut last, left(end, minute * 60)));
        }
        let days = (0..7).rev().map(Left::Days).chain([Left::Nothing]);
        assert_eq!(said, days.collect::<Vec<_>>());
        assert_eq!(left(end, end), Some(Left::Days(0)), "the last second belongs to it");
        assert_eq!(left(end, end - 7 * DAY_S), None);
        assert_eq!(left(end, end - 7 * DAY_S + 1), Some(Left::Days(6)));
        assert_eq!(left(i64::MIN, i64::MAX), Some(Left::Nothing));
    }

    #[test]
    fn what_was_renewed_is_warned_of_again_when_its_own_time_comes() {
        let mut last = None;
        assert_eq!(changed(&mut last, Some(Left::Days(2))), Some(Left::Days(2)));
        assert_eq!(changed(&mut last, None), None);
        assert_eq!(changed(&mut last, Some(Left::Days(2))), Some(Left::Days(2)));
    }
}
