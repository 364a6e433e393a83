//! The one place of this daemon that looks at the wall clock.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ehe::time::UnixMs;

/// Tells the time. Tests bring their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixMs + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        })
    }

    /// A clock that answers as `now` does.
    pub fn new(now: impl Fn() -> UnixMs + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now.
    pub fn now(&self) -> UnixMs {
        (self.0)()
    }
}
