//! Settings: flags first, then the environment, then the file, then defaults. The only reader of
//! the environment and of settings files.
