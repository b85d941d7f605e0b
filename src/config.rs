//! Settings: flags first, then the environment, then the file, then defaults. The only reader of
//! the environment and of settings files.

/// A variable of the environment; an empty one counts as absent.
#[allow(clippy::disallowed_methods)] // this is the one place the ban points to
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
