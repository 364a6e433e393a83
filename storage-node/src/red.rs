//! Faults built in on purpose: a checker that has never seen one proves nothing. They are there in a build with `--cfg ehe_red` alone, which
//! nobody ships (`make red` makes one in a target directory of its own); there the variable `EHE_RED` names one. In every other build
//! [`on`] is the constant `false`.

/// Whether this build has that fault, and was told to have it.
#[cfg(ehe_red)]
pub(crate) fn on(fault: &str) -> bool {
    static TOLD: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    TOLD.get_or_init(|| std::env::var("EHE_RED").ok()).as_deref() == Some(fault)
}

/// No.
#[cfg(not(ehe_red))]
pub(crate) const fn on(_: &str) -> bool {
    false
}

/// Does that a little later, in such a build.
#[cfg(ehe_red)]
pub(crate) fn afterwards<T: Send + 'static>(fault: &str, work: impl Future<Output = T> + Send + 'static) {
    if on(fault) {
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            work.await
        });
    }
}

/// Never.
#[cfg(not(ehe_red))]
pub(crate) fn afterwards<T>(_: &str, _: impl Future<Output = T>) {}

#[cfg(all(ehe_red, not(debug_assertions)))]
compile_error!("a build that is broken on purpose is no release");
