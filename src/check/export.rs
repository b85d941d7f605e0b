//! A history in the forms that other checkers take (docs/checker.md, "Export").

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use serde_json::{Value, json};

use super::CheckError;
use super::history::{Op, Operation, Outcome};
use super::line::{Lines, Place};
use super::sort::Sorter;

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// An array of porcupine's `Operation`.
    Porcupine,
    /// An array of the events of a register test, as elle's.
    Elle,
}

/// Writes the history in `history` to `file` in another form.
pub fn export(history: &Path, form: Export, file: &Path) -> Result<(), CheckError> {
    let source = super::open(history)?;
    refuse_itself(history, file)?;
    let created = File::create(file).map_err(|error| CheckError::Write {
        path: file.display().to_string(),
        error,
    })?;
    let written = write(history, source, form, created);
    let own = || file.symlink_metadata().is_ok_and(|found| found.is_file());
    if written.is_err() && own() {
        // Who reads it line by line would not notice that it is half of one.
        let _ = std::fs::remove_file(file);
    }
    written
}

fn write(history: &Path, source: impl BufRead, form: Export, file: File) -> Result<(), CheckError> {
    let mut out = Array::begin(BufWriter::new(file))?;
    match form {
        Export::Porcupine => each(source, |operation, _| {
            porcupine(operation).map_or(Ok(()), |value| Ok(out.element(&value)?))
        })?,
        Export::Elle => elle(history, source, &mut out)?,
    }
    Ok(out.end()?)
}

/// The history, or the log, is the evidence, and must not be written over.
pub fn refuse_itself(history: &Path, file: &Path) -> Result<(), CheckError> {
    let identity = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    let known = identity(history);
    if known.is_none() || identity(file) != known {
        return Ok(());
    }
    Err(CheckError::Write {
        path: file.display().to_string(),
        error: std::io::Error::new(
            std::io::ErrorKind::AlreadyExists,
            "that is the history or its log; name another file",
        ),
    })
}

/// A JSON array, an element a line.
struct Array<W> {
    out: W,
    count: u64,
}

impl<W: Write> Array<W> {
    fn begin(mut out: W) -> std::io::Result<Self> {
        out.write_all(b"[")?;
        Ok(Self { out, count: 0 })
    }

    fn element(&mut self, value: &Value) -> std::io::Result<()> {
        let lead = if self.count == 0 { "\n" } else { ",\n" };
        self.count += 1;
        write!(self.out, "{lead}{value}")
    }

    fn end(mut self) -> std::io::Result<()> {
        self.out.write_all(b"\n]\n")?;
        self.out.flush()
    }
}

/// Hands over each operation with the place of its line. A last line that is cut off is left out, as in
/// the check.
fn each(
    source: impl BufRead,
    mut take: impl FnMut(&Operation, &Place) -> Result<(), CheckError>,
) -> Result<(), CheckError> {
    let mut lines = Lines::new("history", source);
    while let Some(operation) = lines.next::<Operation>()? {
        take(&operation, &lines.place())?;
    }
    Ok(())
}

/// None: nothing was done, and a checker has nothing to order.
fn porcupine(operation: &Operation) -> Option<Value> {
    let (output, returned) = match (operation.outcome, operation.stamp) {
        (Outcome::Ok, _) => (json!({"result": operation.result}), operation.return_ns),
        (Outcome::Fail, None) => return None,
        (Outcome::Fail, Some(_)) => (json!({"refused": true}), operation.return_ns),
        // It may happen as late as it likes.
        (Outcome::Unknown, _) => (json!({"unknown": true}), i64::MAX.unsigned_abs()),
    };
    Some(json!({
        "ClientId": operation.process,
        "Input": {"op": operation.op, "key": operation.key, "value": operation.value},
        "Call": operation.invoke_ns,
        "Output": output,
        "Return": returned,
    }))
}

/// Events in the order of time.
fn elle(
    history: &Path,
    source: impl BufRead,
    out: &mut Array<impl Write>,
) -> Result<(), CheckError> {
    const INVOKED: u64 = 0;
    const ENDED: u64 = 1;
    let mut events = Sorter::new();
    let mut processes = 0;
    each(source, |operation, place| {
        let deleted = operation.op == Op::Delete && end(operation) != "fail";
        if deleted {
            return Err(CheckError::NoForm(
                "elle's registers cannot be deleted from, and this history has deletes",
            ));
        }
        processes = processes.max(u64::from(operation.process) + 1);
        events.push([operation.invoke_ns, INVOKED, place.offset, place.bytes])?;
        events.push([operation.return_ns, ENDED, place.offset, place.bytes])?;
        Ok(())
    })?;
    let lines = File::open(history)?;
    let mut lives = HashMap::new();
    let mut events = events.sorted()?;
    let mut index = 0;
    while let Some([time, kind, offset, bytes]) = events.next()? {
        let operation = read_at(&lines, &Place { offset, bytes })?;
        let life = lives.entry(operation.process).or_insert(0);
        let process = u64::from(operation.process) + *life * processes;
        let kind = if kind == INVOKED {
            "invoke"
        } else {
            end(&operation)
        };
        // A process whose operation has an unknown end does nothing more; its client goes on as another.
        *life += u64::from(kind == "info");
        out.element(&json!({
            "index": index,
            "time": time,
            "process": process,
            "type": kind,
            "f": "txn",
            "value": transaction(&operation, kind == "ok"),
        }))?;
        index += 1;
    }
    Ok(())
}

fn read_at(lines: &File, place: &Place) -> Result<Operation, CheckError> {
    let mut text = vec![0; usize::try_from(place.bytes).unwrap_or_default()];
    lines.read_exact_at(&mut text, place.offset)?;
    serde_json::from_slice(&text).map_err(|error| CheckError::Io(error.into()))
}

/// The type of the second event. What matched nothing has changed nothing.
fn end(operation: &Operation) -> &'static str {
    match operation.outcome {
        Outcome::Unknown => "info",
        Outcome::Fail => "fail",
        Outcome::Ok if operation.op == Op::Put => "ok",
        Outcome::Ok if operation.op != Op::Read && operation.result == 0 => "fail",
        Outcome::Ok => "ok",
    }
}

/// The micro-operations. What is read is known in the end alone.
fn transaction(operation: &Operation, known: bool) -> Value {
    let Operation { key, value, .. } = operation;
    let seen = |value: &Value| if known { value.clone() } else { Value::Null };
    match operation.op {
        Op::Read => json!([["r", key, seen(&operation.result)]]),
        Op::Insert => json!([["r", key, null], ["w", key, value]]),
        Op::Put | Op::Update => json!([["w", key, value]]),
        Op::Cas => json!([["r", key, seen(&value[0])], ["w", key, value[1]]]),
        Op::Delete => json!([]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const HISTORY: &str = r#"{"process":0,"request":"a","op":"insert","key":1,"value":5,"invoke_ns":10,"return_ns":30,"outcome":"ok","result":null,"stamp":2,"position":2}
{"process":1,"request":"b","op":"cas","key":1,"value":[5,6],"invoke_ns":20,"return_ns":40,"outcome":"unknown","result":"lost","stamp":null,"position":null}
{"process":1,"request":null,"op":"read","key":1,"value":null,"invoke_ns":50,"return_ns":60,"outcome":"ok","result":6,"stamp":3,"position":3}
{"process":0,"request":"c","op":"put","key":1,"value":7,"invoke_ns":50,"return_ns":70,"outcome":"fail","result":"503","stamp":null,"position":null}
"#;

    #[test]
    fn a_history_is_not_written_over() {
        let path = std::env::temp_dir().join(format!("drumline-itself-{}", std::process::id()));
        std::fs::write(&path, "{}\n").unwrap();
        let refused = export(&path, Export::Elle, &path);
        let left = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(refused, Err(CheckError::Write { .. })));
        assert_eq!(left, "{}\n");
    }

    fn exported(form: Export, history: &str) -> Result<Value, CheckError> {
        let folder = std::env::temp_dir();
        let name = bson::Uuid::new();
        let (from, to) = (
            folder.join(format!("{name}.jsonl")),
            folder.join(format!("{name}.json")),
        );
        fs::write(&from, history).unwrap();
        let result = export(&from, form, &to);
        let text = fs::read_to_string(&to);
        fs::remove_file(&from).unwrap();
        let _ = fs::remove_file(&to);
        assert_eq!(text.is_ok(), result.is_ok(), "half a file is left");
        result.map(|()| serde_json::from_str(&text.unwrap()).unwrap())
    }

    #[test]
    fn a_cut_last_line_is_left_out() {
        let whole = HISTORY.lines().count();
        for form in [Export::Porcupine, Export::Elle] {
            let before = HISTORY.lines().take(whole - 1);
            let before: String = before.map(|line| format!("{line}\n")).collect();
            let cut = &HISTORY[..HISTORY.len() - 20];
            assert_eq!(
                exported(form, cut).unwrap(),
                exported(form, &before).unwrap()
            );
            // In the middle it is malformed, as in the check.
            let error = exported(form, &format!("{cut}\n{before}")).unwrap_err();
            let place = format!("line {whole} of the history");
            assert!(error.to_string().starts_with(&place), "{error}");
        }
    }

    #[test]
    fn lines_may_end_as_on_windows_and_be_empty() {
        let other = HISTORY.replace('\n', "\r\n\r\n");
        for form in [Export::Porcupine, Export::Elle] {
            assert_eq!(
                exported(form, &other).unwrap(),
                exported(form, HISTORY).unwrap()
            );
        }
    }

    #[test]
    fn porcupine_takes_operations() {
        let value = exported(Export::Porcupine, HISTORY).unwrap();
        assert_eq!(
            value,
            json!([
                {"ClientId": 0, "Input": {"op": "insert", "key": 1, "value": 5}, "Call": 10,
                    "Output": {"result": null}, "Return": 30},
                {"ClientId": 1, "Input": {"op": "cas", "key": 1, "value": [5, 6]}, "Call": 20,
                    "Output": {"unknown": true}, "Return": i64::MAX},
                {"ClientId": 1, "Input": {"op": "read", "key": 1, "value": null}, "Call": 50,
                    "Output": {"result": 6}, "Return": 60},
            ])
        );
    }

    #[test]
    fn elle_takes_events_in_the_order_of_time() {
        let value = exported(Export::Elle, HISTORY).unwrap();
        let events = value.as_array().unwrap();
        let short = |event: &Value| {
            let field = |name: &str| event[name].to_string().replace('"', "");
            format!("{} {} {}", field("process"), field("type"), field("value"))
        };
        let events: Vec<_> = events.iter().map(short).collect();
        assert_eq!(
            events,
            [
                "0 invoke [[r,1,null],[w,1,5]]",
                "1 invoke [[r,1,null],[w,1,6]]",
                "0 ok [[r,1,null],[w,1,5]]",
                "1 info [[r,1,null],[w,1,6]]",
                "3 invoke [[r,1,null]]",
                "0 invoke [[w,1,7]]",
                "3 ok [[r,1,6]]",
                "0 fail [[w,1,7]]",
            ]
        );
        let first = json!({"index": 0, "time": 10, "process": 0, "type": "invoke", "f": "txn",
            "value": [["r", 1, null], ["w", 1, 5]]});
        assert_eq!(value[0], first);
        let deleted = HISTORY.replace("\"insert\"", "\"delete\"");
        let deleted = deleted.replacen("\"result\":null", "\"result\":1", 1);
        let error = exported(Export::Elle, &deleted).unwrap_err();
        assert!(error.to_string().contains("deletes"), "{error}");
    }
}
