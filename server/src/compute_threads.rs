//! How many threads compute models on the processor.
//!
//! What multiplies matrices (candle, and rayon under it) asks `RAYON_NUM_THREADS` when it is first used. Where that is not
//! set candle counts the cores of the machine, however few of them this process may use: in a container with a limit, threads that wait
//! for each other would then take each other's time. So the variable is set here, to what the operator wants, else to what
//! the process may use. Who has set it already is left alone.

#![expect(unsafe_code, reason = "the environment is changed before any thread is there; the block says why that holds")]

use crate::{config::gpu::THREADS_VARIABLE, threads::available};

/// What candle and rayon read.
const RAYON_VARIABLE: &str = "RAYON_NUM_THREADS";
/// More threads than any machine has use for are a mistake.
pub const MAX_THREADS: usize = 1_024;

/// Says how many threads compute: once, before the process has a second thread. `of_file`: what the configuration names.
pub fn set(of_file: Option<usize>) {
    let get = |name: &str| std::env::var(name).ok();
    let given = get(RAYON_VARIABLE);
    if let Some(threads) = wanted(given.as_deref(), get(THREADS_VARIABLE).as_deref(), of_file, available()) {
        // SAFETY: nobody else reads or writes the environment: `main` calls this before it starts the runtime, whose threads
        // are the first beside its own.
        unsafe { std::env::set_var(RAYON_VARIABLE, threads.to_string()) };
    }
}

/// How many threads compute models in this process, once [`set`] was called.
pub fn now() -> usize {
    let given = std::env::var(RAYON_VARIABLE).ok().and_then(|text| text.parse().ok());
    given.filter(|threads| *threads > 0).unwrap_or_else(available)
}

/// How many they are to be; `None`: `given`, which the caller set, says it. What is no such number is said when the
/// configuration is checked.
fn wanted(
    given: Option<&str>,
    of_environment: Option<&str>,
    of_file: Option<usize>,
    available: usize,
) -> Option<usize> {
    let is_given = given.and_then(|text| text.parse::<usize>().ok()).is_some_and(|threads| threads > 0);
    let named = of_environment.map_or(of_file, |text| text.parse().ok());
    (!is_given).then(|| named.filter(|threads| (1..=MAX_THREADS).contains(threads)).unwrap_or(available))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_set_the_variable_is_left_alone_and_else_the_environment_is_before_the_file() {
        let table = [
            (Some("3"), Some("4"), Some(5), None),
            (Some("3"), None, None, None),
            (None, Some("4"), Some(5), Some(4)),
            (None, None, Some(5), Some(5)),
            (None, None, None, Some(7)),
            // What is no number of threads is as if nothing were said: rayon and candle take it so too.
            (Some("0"), Some("4"), None, Some(4)),
            (Some(""), None, Some(5), Some(5)),
            (None, Some("many"), None, Some(7)),
            (None, Some("0"), None, Some(7)),
            (None, None, Some(MAX_THREADS + 1), Some(7)),
        ];
        for (given, of_environment, of_file, expect) in table {
            let found = wanted(given, of_environment, of_file, 7);
            assert_eq!(found, expect, "{given:?} {of_environment:?} {of_file:?}");
        }
    }
}
