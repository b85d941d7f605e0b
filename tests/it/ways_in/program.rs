//! The program with texts of any bytes as its arguments, variables, files and stdin.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use super::table::{Made, Text};
use crate::support::Sandbox;

/// One run of the program.
#[derive(Debug, Default)]
pub struct Call<'c> {
    pub words: Vec<&'c OsStr>,
    pub variables: Vec<(&'c str, &'c OsStr)>,
    pub input: &'c [u8],
}

/// What it said.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl<'c> Call<'c> {
    /// These words of the command line.
    pub fn new(words: &[&'c str]) -> Self {
        Self {
            words: words.iter().map(|word| OsStr::new(*word)).collect(),
            ..Self::default()
        }
    }

    pub fn word(mut self, word: &'c OsStr) -> Self {
        self.words.push(word);
        self
    }

    pub fn variable(mut self, name: &'c str, value: &'c OsStr) -> Self {
        self.variables.push((name, value));
        self
    }

    pub fn input(mut self, input: &'c [u8]) -> Self {
        self.input = input;
        self
    }

    /// Runs it; `None` if no process can be given such words.
    pub fn run(self, sandbox: &Sandbox) -> Option<Said> {
        let variables = self.variables.iter().map(|(_, value)| *value);
        let mut given = self.words.iter().copied().chain(variables);
        if given.any(|word| word.as_encoded_bytes().contains(&0)) {
            return None;
        }
        let mut command = sandbox.drumline(&[]);
        command.args(&self.words).envs(self.variables);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        // A program that refuses its arguments does not read.
        let _ = child.stdin.take().unwrap().write_all(self.input);
        let output = child.wait_with_output().unwrap();
        Some(Said {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        })
    }

    /// What it makes of a setting: `taken` is looked for in what it says.
    pub fn made(self, sandbox: &Sandbox, taken: impl Fn(&Said) -> Option<Made>) -> Made {
        let Some(said) = self.run(sandbox) else {
            return Made::Impossible;
        };
        if let Some(made) = taken(&said) {
            return made;
        }
        assert_eq!(said.stderr.trim_end().lines().count(), 1, "{said:#?}");
        match said.status {
            2 => Made::Refused(said.stderr),
            _ => panic!("{said:#?}"),
        }
    }
}

/// A new file of this content in the sandbox.
pub fn file(sandbox: &Sandbox, content: &[u8]) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = sandbox.path(&format!("given-{number}"));
    fs::write(&path, content).unwrap();
    path
}

/// A settings file in which the text is the string at the place of `TEXT`.
pub fn toml(sandbox: &Sandbox, line: &str, text: &Text) -> PathBuf {
    let (before, after) = line.split_once("TEXT").unwrap();
    let mut content = before.as_bytes().to_vec();
    content.push(b'"');
    for byte in &text.0 {
        match byte {
            b'"' | b'\\' => content.extend([b'\\', *byte]),
            0..0x20 | 0x7f => content.extend(format!("\\u{byte:04x}").bytes()),
            _ => content.push(*byte),
        }
    }
    content.push(b'"');
    content.extend(after.as_bytes());
    file(sandbox, &content)
}
