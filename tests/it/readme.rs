//! The tours of README.md and docs/*.md, typed as a reader would type them, on a terminal.
//!
//! Every ```console block of README.md, and of a page that holds the line `<!-- tour -->`, is run
//! in order, all blocks of a page in one shell with 80 columns. In a block:
//!
//! - a line `$ command` is typed; lines `> …` after it go on with it;
//! - the lines below it must be what the terminal then shows, and the command must succeed;
//! - `…` stands for any text within a line, a line `...` for any number of lines;
//! - times (`4.3 s`) and process ids (`pid 4711`) match any others, and so do positions, epochs and stamps: on a slow
//!   machine nodes may claim the log once more while they start;
//! - `^C` at the start of a line, and what stands after `[y/N] `, is typed when all before it is shown.
//!
//! Two things are changed before a command is typed: `cargo run --release --` becomes the program
//! under test, and the ports 74xx become free ones.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::faults::turn;
use crate::support::{Cluster, Sandbox};

/// Time for one command. Longest is the drill: on a machine that is too slow for its load it goes on until the
/// clients have caught up.
const COMMAND_MAX: Duration = Duration::from_secs(300);
/// Printed by the shell after each command, with the command's exit status.
const END: &str = "\u{1}end ";

/// A command and what the page says that the terminal then shows.
#[derive(Debug, PartialEq)]
pub struct Step {
    line: usize,
    pub command: String,
    pub shown: String,
}

/// The steps of all console blocks of a page.
pub fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (line, text) in (1..).zip(page.lines()) {
        if text.starts_with("```") {
            inside = !inside && text == "```console";
        } else if !inside {
        } else if let Some(command) = text.strip_prefix("$ ") {
            steps.push(Step {
                line,
                command: command.to_owned(),
                shown: String::new(),
            });
        } else {
            let step = steps.last_mut().expect("a console block begins with `$ `");
            match text.strip_prefix("> ").filter(|_| step.shown.is_empty()) {
                Some(more) => step.command += &format!("\n{more}"),
                None => step.shown += &format!("{text}\n"),
            }
        }
    }
    steps
}

/// Whether the real text is what the pattern describes.
fn matches(pattern: &str, real: &str) -> bool {
    fn lines(pattern: &[&str], real: &[&str]) -> bool {
        match pattern {
            [] => real.is_empty(),
            ["...", rest @ ..] => (0..=real.len()).any(|skip| lines(rest, &real[skip..])),
            [first, rest @ ..] => real
                .split_first()
                .is_some_and(|(line, others)| matches_line(first, line) && lines(rest, others)),
        }
    }
    let split = |text: &'_ str| -> Vec<String> { text.lines().map(settled).collect() };
    let (pattern, real) = (split(pattern), split(real));
    let (pattern, real): (Vec<_>, Vec<_>) = (
        pattern.iter().map(String::as_str).collect(),
        real.iter().map(String::as_str).collect(),
    );
    lines(&pattern, &real)
}

/// What stands before a position or a stamp.
const NUMBERED: [&str; 5] = [
    "\"position\": ",
    "\"stamp\": ",
    "drumline-position: ",
    "drumline-stamp: ",
    "\"t\":",
];

/// A line without trailing blanks, and with fixed numbers in the place of those that may differ.
fn settled(line: &str) -> String {
    let numbered = NUMBERED.iter().fold(line.to_owned(), |line, before| {
        let mut parts = line.split(before);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + before + &renumbered(part))
    });
    let stamped = numbered.split(' ').map(stamp_settled);
    let line = stamped.collect::<Vec<_>>().join(" ");
    match log_row(&line) {
        Some(row) => row,
        None => timeless(&line),
    }
}

/// A text whose first number, if it begins with one, is 1.
fn renumbered(text: &str) -> String {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    match rest.len() < text.len() {
        true => format!("1{rest}"),
        false => text.to_owned(),
    }
}

/// A stamp in a column: `4.n1`.
fn stamp_settled(word: &str) -> String {
    match word.split_once(".n") {
        Some((t, node)) if t.parse::<u64>().is_ok() => format!("1.n{node}"),
        _ => word.to_owned(),
    }
}

/// A row of `drumline log`: position, epoch, kind, node and stamps, in columns.
fn log_row(line: &str) -> Option<String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let kind = words
        .iter()
        .position(|word| matches!(*word, "batch" | "claim"))?;
    let numbers = [0, 1, kind + 2];
    let words = words.iter().enumerate().map(|(at, word)| {
        if at <= kind + 2 && numbers.contains(&at) {
            renumbered(word)
        } else {
            (*word).to_owned()
        }
    });
    Some(words.collect::<Vec<_>>().join(" "))
}

fn timeless(line: &str) -> String {
    let line = line.trim_end();
    if let Some((before, pid)) = line.rsplit_once(" pid ")
        && pid.parse::<u32>().is_ok()
    {
        return format!("{before} pid 1");
    }
    let (interrupt, rest) = line.split_at(if line.starts_with("^C") { 2 } else { 0 });
    match rest.trim_start().split_once(" s  ") {
        Some((seconds, rest)) if seconds.parse::<f32>().is_ok() => {
            format!("{interrupt}0.0 s  {rest}")
        }
        _ => line.to_owned(),
    }
}

fn matches_line(pattern: &str, real: &str) -> bool {
    match pattern.split_once('…') {
        None => pattern == real,
        Some((before, after)) => real.strip_prefix(before).is_some_and(|rest| {
            let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            starts
                .into_iter()
                .any(|at| matches_line(after, &rest[at..]))
        }),
    }
}

/// The parts of a shown text that end where something is typed, each with what is typed.
fn typed(shown: &str) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    let mut before = String::new();
    for line in shown.lines() {
        if line.starts_with("^C") {
            parts.push((before.clone(), "\u{3}".to_owned()));
        } else if let Some((question, answer)) = line.split_once("[y/N] ") {
            parts.push((format!("{before}{question}[y/N] "), format!("{answer}\n")));
        }
        before += &format!("{line}\n");
    }
    parts
}

/// A text as a terminal shows it: no carriage returns, no styles.
fn visible(text: &str) -> String {
    let mut seen = String::new();
    let mut rest = text;
    while let Some((before, styled)) = rest.split_once("\u{1b}[") {
        seen += before;
        rest = styled.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        rest = rest.get(1..).unwrap_or("");
    }
    (seen + rest).replace('\r', "")
}

/// A shell on a terminal of its own, which runs a script and stops at the first failure.
struct Terminal {
    shell: Child,
    keyboard: ChildStdin,
    screen: Receiver<Vec<u8>>,
    /// What was shown since the last command ended.
    shown: Vec<u8>,
}

impl Terminal {
    fn open(sandbox: &Sandbox, commands: &[String]) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_drumline")).parent().unwrap();
        let path = program.display();
        // A shell that has started a command and does not wait for it yet would die of its ^C.
        let mut script =
            format!("trap : INT\nstty cols 80 rows 24\nexport PATH='{path}':\"$PATH\"\n");
        for command in commands {
            // A node of a busy machine may be suspect for a moment; a reader would look again.
            if command == "drumline status" {
                script += "until drumline status >/dev/null 2>&1; do sleep 0.1; done\n";
            }
            script += &format!("{command}\nprintf '\\001end %d\\n' $?\n");
        }
        let file = sandbox.path("tour.sh");
        fs::write(&file, script).unwrap();
        let mut shell = sandbox
            .command("script")
            .args(["--quiet", "--flush", "--return", "--command"])
            // A job in the background ignores SIGINT, and so would everything that it starts.
            .args(["env --default-signal=INT bash tour.sh", "/dev/null"])
            .current_dir(sandbox.folder())
            .env("DRUMLINE_MONGOD", Cluster::mongod())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, screen) = channel();
        let mut output = shell.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            keyboard: shell.stdin.take().unwrap(),
            shell,
            screen,
            shown: Vec::new(),
        }
    }

    /// Waits until one command has ended, types what it waits for, and checks what it showed.
    fn check(&mut self, step: &Step) -> Result<(), String> {
        let deadline = Instant::now() + COMMAND_MAX;
        let mut to_type = typed(&step.shown).into_iter().peekable();
        loop {
            let now = visible(&String::from_utf8_lossy(&self.shown));
            if let Some((shown, end)) = now.split_once(END)
                && let Some((status, rest)) = end.split_once('\n')
            {
                self.shown = rest.as_bytes().to_vec();
                return verdict(step, shown, status);
            }
            // The last line must be complete, or what is typed would be echoed behind it.
            let complete = now.ends_with('\n');
            let due = |before: &str| before.ends_with('\n') == complete && matches(before, &now);
            if let Some((_, keys)) = to_type.next_if(|(before, _)| due(before)) {
                self.keyboard.write_all(keys.as_bytes()).unwrap();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown.extend(bytes),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(failure(step, "did not end", &now));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(failure(step, "ended the shell", &now));
                }
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn verdict(step: &Step, shown: &str, status: &str) -> Result<(), String> {
    if status != "0" {
        return Err(failure(step, &format!("exited with {status}"), shown));
    }
    if !matches(&step.shown, shown) {
        return Err(failure(step, "showed something else", shown));
    }
    Ok(())
}

fn failure(step: &Step, what: &str, shown: &str) -> String {
    let Step {
        line,
        command,
        shown: written,
    } = step;
    format!("line {line}: `{command}` {what}\n--- the page says\n{written}--- it was\n{shown}")
}

/// A base port of four digits, like the usual one, whose ports are free. The digits count: output
/// in columns must keep its form.
fn free_base_port() -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = 20 + u16::try_from(std::process::id() % 70).unwrap();
    (first..99)
        .chain(20..first)
        .map(|hundreds| hundreds * 100)
        .find(|base| (base + 1..base + 20).all(free))
        .expect("a free range of ports")
}

/// Runs the blocks of one page.
fn run(page: &str) -> Result<(), String> {
    let base = free_base_port();
    let ports = format!(":{}", base / 100);
    let steps: Vec<Step> = steps(page)
        .into_iter()
        .map(|step| Step {
            command: step.command.replace(":74", &ports),
            shown: step.shown.replace(":74", &ports),
            ..step
        })
        .collect();
    let up = format!("drumline up --base-port {base}");
    let commands: Vec<String> = steps
        .iter()
        .map(|step| step.command.replace("cargo run --release --", "drumline"))
        .map(|command| match command.strip_prefix("drumline up") {
            Some(flags) if flags.is_empty() || flags.starts_with(' ') => format!("{up}{flags}"),
            _ => command,
        })
        .collect();
    let sandbox = Sandbox::new();
    let result = play(&sandbox, &steps, &commands);
    if result.is_err() {
        sandbox.stop_all();
    }
    result
}

/// Types the commands, one for each step, and compares.
pub fn play(sandbox: &Sandbox, steps: &[Step], commands: &[String]) -> Result<(), String> {
    let mut terminal = Terminal::open(sandbox, commands);
    steps.iter().try_for_each(|step| terminal.check(step))
}

/// README.md and the pages that carry the marker.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().flatten();
    let marked = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "md")
            && fs::read_to_string(path)
                .unwrap()
                .lines()
                .any(|line| line == "<!-- tour -->")
    };
    let mut pages = vec![root.join("README.md")];
    pages.extend(docs.map(|entry| entry.path()).filter(marked));
    pages
}

#[test]
fn the_tours_show_what_really_happens() {
    // One of them drills.
    let _turn = turn();
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        assert!(!steps(&page).is_empty(), "{} has no step", path.display());
        if let Err(failure) = run(&page) {
            panic!("{}, {failure}", path.display());
        }
    }
}

#[test]
fn a_page_that_lies_is_caught() {
    let page = |lines: &str| format!("```console\n{lines}\n```\n");
    for (lines, complaint) in [
        ("$ echo one\none", None),
        ("$ X=two\n$ echo one \\\n> $X\none two", None),
        (
            "$ read -p 'Sure? [y/N] ' A; echo got $A\nSure? [y/N] yes\ngot yes",
            None,
        ),
        (
            "$ (trap 'echo caught; exit' INT; echo on; while :; do read -t 0.1 A; done)\non\n^Ccaught",
            None,
        ),
        ("$ echo one\ntwo", Some("showed something else")),
        (
            "$ echo one\n$ echo two\ntwo",
            Some("line 2: `echo one` showed"),
        ),
        ("$ true\nnothing", Some("showed something else")),
        ("$ echo one; false\none", Some("exited with 1")),
        ("$ exit 0", Some("ended the shell")),
    ] {
        match (run(&page(lines)), complaint) {
            (Ok(()), None) => (),
            (Err(told), Some(complaint)) => assert!(told.contains(complaint), "{lines}: {told}"),
            (result, _) => panic!("{lines}: {result:?}"),
        }
    }
}

#[test]
fn only_console_blocks_are_steps() {
    let page = "$ a\n```sh\n$ b\n```\n```console\n$ c \\\n> d\nout\n> more\n$ e\n```\n";
    let step = |line, command: &str, shown: &str| Step {
        line,
        command: command.to_owned(),
        shown: shown.to_owned(),
    };
    let expected = [step(6, "c \\\nd", "out\n> more\n"), step(10, "e", "")];
    assert_eq!(steps(page), expected);
}

#[test]
fn the_notation() {
    let same = [
        ("one\ntwo\n", "one  \r\ntwo\n".replace('\r', "")),
        ("id 6b…01 end", "id 6b9901 end".into()),
        ("…", String::from("anything")),
        ("a\n...\nz", "a\nz".into()),
        ("a\n...\nz", "a\nb\nc\nz".into()),
        ("  0.4 s  ready", " 12.9 s  ready".into()),
        ("n1  pid 31", "n1  pid 4711".into()),
        (
            r#"{"position": 3, "stamp": 4}"#,
            r#"{"position": 14, "stamp": 15}"#.into(),
        ),
        (
            r#"{"_stamp":{"t":5,"n":"n…"}}"#,
            r#"{"_stamp":{"t":6,"n":"n2"}}"#.into(),
        ),
        ("2    stick  12   4.n…", "2    stick  12   5.n3".into()),
        ("drumline-stamp: 7", "drumline-stamp: 12".into()),
        (
            "     6    2  batch  n…   6   …  1 insert",
            "    10    3  batch  n2   9   2026-11-27T00:00:00Z  1 insert".into(),
        ),
        ("   …  claim  n…", "   11    4  claim  n3  x".into()),
    ];
    for (pattern, real) in same {
        assert!(matches(pattern, &real), "{pattern:?} {real:?}");
    }
    let different = [
        ("one", "two"),
        ("one", "one\ntwo"),
        ("one\ntwo", "one"),
        ("id 6b… end", "id 6b01 ended"),
        ("a…b", "a\nb"),
        ("a\n...\nz", "a\nz\nq"),
        ("  0.4 s  ready", "  0.4 s  not ready"),
        ("n1  pid 31", "n2  pid 31"),
        ("n1  pid 31", "n1  pid none"),
        (r#"{"position": 3}"#, r#"{"position": null}"#),
        (r#"{"modifiedCount": 1}"#, r#"{"modifiedCount": 2}"#),
        ("2    stick  12   4.n…", "2    stick  13   4.n1"),
        (
            "     6    2  batch  n…   6   …  1 insert",
            "     6    2  batch  n1   6   x  2 insert",
        ),
    ];
    for (pattern, real) in different {
        assert!(!matches(pattern, real), "{pattern:?} {real:?}");
    }
}
