//! A text is read the same, or refused the same, whichever way it comes in: as an argument or a flag,
//! in a variable, a file, a header, a body, or on stdin. The texts are in `ways_in/*.txt`.

mod files;
mod program;
mod requests;
mod settings;
mod table;
mod twice;
