//! Each lie that a history or a log may tell is found, and named by its rule.

use super::brute_tests::{Choices, found, simulated, simulated_with_log, text};
use super::history::{Op, Operation, Outcome};
use super::*;
use serde_json::{Value, json};

fn log_text(log: &[Value]) -> String {
    log.iter().map(|document| format!("{document}\n")).collect()
}

fn with_log(operations: &[Operation], log: &[Value]) -> Result<Findings, CheckError> {
    check(text(operations).as_bytes(), Some(log_text(log).as_bytes()))
}

/// The rules that are violated.
fn violated(findings: &Findings) -> Vec<Rule> {
    let violated = |rule: &Rule| findings.of(*rule).violations > 0;
    Rule::ALL.into_iter().filter(violated).collect()
}

/// One line, as short as a test can say it: `process op key value invoke return outcome result stamp`.
fn operation(line: &str) -> Operation {
    let mut words = line.split_whitespace();
    let mut next = || -> Value { serde_json::from_str(words.next().unwrap()).unwrap() };
    let process = next().as_u64().unwrap();
    let op: Op = serde_json::from_value(next()).unwrap();
    let (key, value) = (next(), next());
    let (invoke_ns, return_ns) = (next().as_u64().unwrap(), next().as_u64().unwrap());
    let outcome = serde_json::from_value(next()).unwrap();
    let (result, stamp) = (next(), next().as_i64());
    Operation {
        process: u32::try_from(process).unwrap(),
        request: (op != Op::Read).then(|| format!("{key}-{value}-{invoke_ns}")),
        op,
        key,
        value,
        invoke_ns,
        return_ns,
        outcome,
        result,
        stamp,
        position: stamp,
    }
}

fn history(lines: &[&str]) -> Vec<Operation> {
    lines
        .iter()
        .map(|line| {
            let words = line.split_whitespace().enumerate();
            let quoted = words.map(|(at, word)| match at {
                1 | 6 => format!("\"{word}\""),
                _ => word.to_owned(),
            });
            operation(&quoted.collect::<Vec<_>>().join(" "))
        })
        .collect()
}

/// A history that is right, to make wrong.
const RIGHT: [&str; 6] = [
    "0 insert 1 10 100 110 ok null 2",
    "1 put 1 11 120 130 ok 1 3",
    "2 read 1 null 140 150 ok 11 3",
    "0 cas 1 [11,12] 160 170 ok 1 4",
    "1 insert 1 13 180 190 fail \"duplicate\" 5",
    "2 read 1 null 200 210 ok 12 5",
];

fn right_log() -> Vec<Value> {
    let claim =
        json!({"_id": 1, "epoch": 1, "kind": "claim", "first": 1, "last": 1, "entries": []});
    let operations = history(&RIGHT);
    let writes = operations
        .iter()
        .filter(|operation| operation.op != Op::Read);
    let documents = writes.map(|operation| {
        let stamp = operation.stamp.unwrap();
        let mut entry = json!({"t": stamp, "id": operation.request, "ns": "a.b", "keys": [1]});
        if operation.outcome == Outcome::Fail {
            entry["error"] = json!({"code": 11000});
            entry["keys"] = json!([]);
        }
        json!({"_id": stamp, "epoch": 1, "kind": "batch", "first": stamp, "last": stamp, "entries": [entry]})
    });
    std::iter::once(claim).chain(documents).collect()
}

#[test]
fn a_right_history_holds_with_its_log_and_without() {
    let operations = history(&RIGHT);
    let findings = found(&operations);
    assert!(findings.hold(), "{findings:#?}");
    assert_eq!(findings.not_checked.len(), 1);
    assert_eq!(findings.verdicts().count(), 6);
    let findings = with_log(&operations, &right_log()).unwrap();
    assert!(findings.hold(), "{findings:#?}");
    assert_eq!(findings.verdicts().count(), Rule::ALL.len());
    assert!(findings.not_checked.is_empty());
    assert_eq!(findings.counts.acknowledged, 6);
    assert_eq!(findings.counts.entries, 4);
}

#[test]
fn each_lie_of_a_history_is_found() {
    let changed = |at: usize, line: &'static str| {
        let mut lines = RIGHT;
        lines[at] = line;
        violated(&found(&history(&lines)))
    };
    // A stale read, one of the future, and one of a value that nobody wrote.
    assert_eq!(changed(2, "2 read 1 null 140 150 ok 10 3"), [Rule::Reads]);
    assert_eq!(changed(2, "2 read 1 null 140 150 ok 12 3"), [Rule::Reads]);
    assert_eq!(changed(2, "2 read 1 null 140 150 ok 99 3"), [Rule::Reads]);
    // A lost insert.
    assert_eq!(changed(2, "2 read 1 null 140 150 ok null 3"), [Rule::Reads]);
    // Replies that are not the model's.
    assert_eq!(changed(1, "1 put 1 11 120 130 ok 0 3"), [Rule::Replies]);
    assert_eq!(
        changed(4, "1 insert 1 13 180 190 ok null 5"),
        [Rule::Replies, Rule::Reads]
    );
    // Stamps: missing, given twice, against real time, against the client's own.
    assert_eq!(
        changed(2, "2 read 1 null 140 150 ok 11 null"),
        [Rule::Stamps]
    );
    assert!(changed(1, "1 put 1 11 120 130 ok 1 2").contains(&Rule::Stamps));
    assert_eq!(
        changed(2, "2 read 1 null 140 150 ok 10 2"),
        [Rule::RealTime]
    );
    assert!(changed(5, "1 read 1 null 200 210 ok 11 3").contains(&Rule::Clients));
    let mut operations = history(&RIGHT);
    operations[3].position = Some(2);
    assert_eq!(violated(&found(&operations)), [Rule::Stamps]);
    // One request that two lines tell of.
    let mut operations = history(&RIGHT);
    operations[3].request = operations[0].request.clone();
    let findings = found(&operations);
    assert_eq!(violated(&findings), [Rule::Once]);
    assert_eq!(findings.counts.doubled, 1);
    let witness = &findings.of(Rule::Once).witnesses[0];
    assert_eq!(witness.lines, [1, 4]);
    assert_eq!(
        witness.text,
        "lines 1 and 4 are one request, done at stamps 2 and 4"
    );
}

#[test]
fn a_witness_names_the_lines_that_contradict_each_other() {
    let mut lines = RIGHT;
    lines[2] = "2 read 1 null 140 150 ok 10 3";
    let findings = found(&history(&lines));
    let witness = &findings.of(Rule::Reads).witnesses[0];
    assert_eq!(witness.lines, [2, 3]);
    assert_eq!(
        witness.text,
        "line 3 read another value at stamp 3, but line 2 had stored its value last, and no \
         unknown write explains it"
    );
}

/// Two unknown compare-and-sets from each value to the next, and a read of the last. Who wrote the
/// first one is in `first`, if anybody did.
fn chain(first: Option<&str>, length: u64) -> Findings {
    let step = |number: u64| {
        let invoke_ns = 200 + number;
        let (from, to) = (1_000 + number / 2, 1_001 + number / 2);
        format!("{number} cas 1 [{from},{to}] {invoke_ns} 5000 unknown \"lost\" null")
    };
    let mut lines: Vec<String> = first.map(str::to_owned).into_iter().collect();
    lines.extend((0..2 * length).map(step));
    let last = 1_000 + length;
    lines.push(format!("1000 read 1 null 4000 4010 ok {last} 3"));
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    found(&history(&lines))
}

#[test]
fn what_takes_too_long_is_not_decided() {
    let undecided = |findings: &Findings| {
        assert_eq!(violated(findings), []);
        assert_eq!(findings.undecided, 1);
        assert!(!findings.hold());
    };
    undecided(&chain(None, 60));
    // Nobody can tell 2^20 ways apart either, and 65 writes for one reply are too many.
    undecided(&chain(Some("1000 put 1 1000 100 110 ok 0 2"), 20));
    undecided(&chain(None, 65));
    // Short chains are decided.
    assert_eq!(violated(&chain(None, 4)), [Rule::Reads]);
    assert!(chain(Some("1000 put 1 1000 100 110 ok 0 2"), 4).hold());
}

/// What is done to the log.
type Lie = fn(&mut Vec<Value>);

#[test]
fn each_lie_of_a_log_is_found() {
    let lies: [(Lie, Rule); 12] = [
        // An acknowledged write is lost; a position is.
        (|log| log[3]["entries"] = json!([]), Rule::Durable),
        (|log| _ = log.remove(3), Rule::Contiguous),
        (|log| _ = log.remove(4), Rule::Durable),
        (|log| log.swap(2, 3), Rule::Contiguous),
        (|log| log[3]["epoch"] = json!(2), Rule::Epochs),
        (
            |log| {
                let again = log[2]["entries"][0].clone();
                log[3]["entries"].as_array_mut().unwrap().push(again);
            },
            Rule::Once,
        ),
        (|log| log[2]["entries"][0]["t"] = json!(7), Rule::Durable),
        (|log| log[2]["entries"][0]["t"] = json!(1), Rule::Stamps),
        (
            |log| log[2]["entries"][0]["error"] = json!({"code": 1}),
            Rule::Durable,
        ),
        (
            |log| {
                let entry = log[4]["entries"][0].as_object_mut().unwrap();
                entry.remove("error");
            },
            Rule::Durable,
        ),
        (
            |log| log[2]["entries"][0]["keys"] = json!([2]),
            Rule::NothingElse,
        ),
        (
            |log| log[2]["entries"][0]["id"] = json!("nobody's"),
            Rule::NothingElse,
        ),
    ];
    for (number, (lie, rule)) in lies.into_iter().enumerate() {
        let mut log = right_log();
        lie(&mut log);
        let findings = with_log(&history(&RIGHT), &log).unwrap();
        assert!(
            violated(&findings).contains(&rule),
            "{number}: {findings:#?}"
        );
    }
}

#[test]
fn a_reply_is_held_against_what_the_log_says_was_done() {
    let told = |result: Value| {
        let mut log = right_log();
        log[2]["entries"][0]["result"] = result;
        violated(&with_log(&history(&RIGHT), &log).unwrap())
    };
    assert_eq!(told(json!({"matched": 1, "modified": 0})), []);
    let lost = json!({"matched": 0, "modified": 0});
    assert_eq!(told(lost), [Rule::Durable]);
    let more = json!({"matched": 2, "modified": 2});
    assert_eq!(told(more), [Rule::Durable]);
}

#[test]
fn a_log_begins_with_a_claim() {
    let mut log = right_log();
    log[0]["kind"] = json!("batch");
    let findings = with_log(&history(&RIGHT), &log).unwrap();
    assert_eq!(violated(&findings), [Rule::Epochs]);
}

#[test]
fn a_refusal_in_the_log_is_no_false_alarm() {
    let mut lines = RIGHT.to_vec();
    lines[4] = "1 insert 1 13 180 190 fail \"slow\" null";
    let findings = with_log(&history(&lines), &right_log()).unwrap();
    assert!(findings.hold(), "{findings:#?}");
}

#[test]
fn what_failed_must_not_be_in_the_log() {
    let mut lines = RIGHT.to_vec();
    lines[3] = "0 cas 1 [11,12] 160 170 fail \"503\" null";
    lines[5] = "2 read 1 null 200 210 ok 11 5";
    let findings = with_log(&history(&lines), &right_log()).unwrap();
    assert_eq!(violated(&findings), [Rule::NothingElse]);
}

#[test]
fn a_read_stands_at_the_end_of_a_position() {
    let mut log = right_log();
    log[2]["last"] = json!(4);
    log[2]["entries"] = json!([log[2]["entries"][0], log[3]["entries"][0]]);
    log.remove(3);
    log[3]["_id"] = json!(4);
    let mut operations = history(&RIGHT);
    operations[3].position = Some(3);
    operations[4].position = Some(4);
    operations[5].position = Some(4);
    let findings = with_log(&operations, &log).unwrap();
    assert!(violated(&findings).contains(&Rule::Reads), "{findings:#?}");
    operations[2].stamp = Some(4);
    operations[2].return_ns = 165;
    operations[2].result = json!(12);
    let findings = with_log(&operations, &log).unwrap();
    assert!(findings.hold(), "{findings:#?}");
}

#[test]
fn a_log_must_reach_back_far_enough() {
    let log = right_log();
    let error = with_log(&history(&RIGHT), &log[3..]).unwrap_err();
    assert!(
        matches!(error, CheckError::LogTooShort { first: 4, .. }),
        "{error}"
    );
    let findings = with_log(&history(&RIGHT), &log[1..]).unwrap();
    assert!(findings.hold(), "{findings:#?}");
    assert!(findings.not_checked[0].contains("begins at position 2"));
}

#[test]
fn what_stands_behind_the_end_of_the_log_is_lost_or_the_log_was_printed_too_early() {
    let log = right_log();
    let findings = with_log(&history(&RIGHT), &log[..log.len() - 1]).unwrap();
    assert!(violated(&findings).contains(&Rule::Durable));
    let told = format!("{findings:?}");
    assert!(told.contains("if it was printed too early"), "{told}");
}

#[test]
fn collections_that_are_too_many_are_told() {
    let mut lines = RIGHT;
    lines[5] = "2 read 1 null 200 210 ok 12 3000";
    let operations = history(&lines);
    let others = |count: i64| {
        let stamps = 6..6 + count;
        let other = stamps.map(|stamp| {
            let entry = json!({"t": stamp, "id": stamp, "ns": format!("a.c{stamp}"), "keys": [1]});
            json!({"_id": stamp, "epoch": 1, "kind": "batch", "first": stamp, "last": stamp, "entries": [entry]})
        });
        let end = 6 + count;
        let mut log = right_log();
        log.extend(other);
        log.push(
            json!({"_id": end, "epoch": 1, "kind": "batch", "first": 3000, "last": 3000,
            "entries": [{"t": 3000, "id": "end", "ns": "a.c6", "keys": [1]}]}),
        );
        let mut operations = operations.clone();
        operations[5].position = Some(end);
        with_log(&operations, &log).unwrap()
    };
    let findings = others(1_023);
    assert!(findings.hold(), "{findings:#?}");
    assert!(findings.not_checked.is_empty());
    let findings = others(1_024);
    assert!(findings.hold(), "{findings:#?}");
    assert_eq!(findings.not_checked.len(), 1);
    assert!(findings.not_checked[0].contains("more than 1024 collections"));
}

#[test]
fn a_log_places_the_unknown_writes() {
    for seed in 0..2_000 {
        let (operations, log) = simulated_with_log(&mut Choices::new(seed), 2);
        let findings = with_log(&operations, &log).unwrap();
        assert!(
            findings.hold(),
            "seed {seed}: {findings:#?}\n{}{}",
            text(&operations),
            log_text(&log)
        );
    }
    // By the history alone it may have happened; the log says that it has not.
    let mut lines = RIGHT[..2].to_vec();
    lines.push("3 put 1 20 120 130 unknown \"lost\" null");
    lines.push("2 read 1 null 140 150 ok 20 4");
    let operations = history(&lines);
    assert!(found(&operations).hold());
    let findings = with_log(&operations, &right_log()[..3]).unwrap();
    assert!(violated(&findings).contains(&Rule::Reads));
}

#[test]
fn an_unknown_write_happens_once() {
    let seen = |then: &'static str| {
        let lines = [
            "0 put 1 10 100 110 ok 0 2",
            "1 put 1 11 120 130 unknown \"lost\" null",
            "2 read 1 null 140 150 ok 11 3",
            "0 put 1 12 160 170 ok 1 4",
            then,
        ];
        violated(&found(&history(&lines)))
    };
    assert_eq!(seen("2 read 1 null 180 190 ok 12 4"), []);
    assert_eq!(seen("2 read 1 null 180 190 ok 11 5"), [Rule::Reads]);
    // It cannot be seen before it was invoked.
    let early = [
        "0 put 1 10 100 110 ok 0 2",
        "2 read 1 null 112 115 ok 11 3",
        "1 put 1 11 120 130 unknown \"lost\" null",
        "0 put 2 12 117 118 ok 0 4",
    ];
    assert_eq!(violated(&found(&history(&early))), [Rule::Reads]);
}

#[test]
fn lines_that_are_no_history_are_refused() {
    let fails = |text: &str| {
        check(text.as_bytes(), None::<&[u8]>)
            .unwrap_err()
            .to_string()
    };
    let right = text(&history(&RIGHT));
    assert!(fails("").contains("empty"));
    assert!(fails("\n\n").contains("empty"));
    let error = fails(&right.replace("\"op\":\"cas\"", "\"op\":\"swap\""));
    assert!(
        error.starts_with("line 4 of the history: unknown variant `swap`"),
        "{error}"
    );
    let error = fails(&right.replacen("\"key\":1,", "", 1));
    assert!(
        error.starts_with("line 1 of the history: missing field `key`"),
        "{error}"
    );
    let error = fails(&right.replace("[11,12]", "[11]"));
    assert!(
        error.contains("line 4") && error.contains("[from, to]"),
        "{error}"
    );
    let error = fails(&right.replace("\"result\":1", "\"result\":2"));
    assert!(
        error.contains("the result of this put must be 0 or 1"),
        "{error}"
    );
    let error = fails(&format!("{right}{right}"));
    assert!(
        error.contains("line 7") && error.contains("overlap"),
        "{error}"
    );
}

#[test]
fn a_folder_is_no_history() {
    let folder = std::env::temp_dir();
    let error = open(&folder).unwrap_err().to_string();
    let named = format!("cannot read {}: ", folder.display());
    assert!(error.starts_with(&named), "{error}");
    assert!(error.contains("directory"), "{error}");
    // As stdin may be one.
    let file = BufReader::new(File::open(&folder).unwrap());
    let error = check(file, None::<&[u8]>).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the history: "), "{error}");
}

#[test]
fn lines_may_end_as_on_windows() {
    let right = text(&history(&RIGHT)).replace('\n', "\r\n");
    let findings = check(right.as_bytes(), None::<&[u8]>).unwrap();
    assert!(findings.hold(), "{findings:#?}");
    assert_eq!(findings.counts.operations, 6);
}

#[test]
fn a_cut_last_line_is_told() {
    let right = text(&history(&RIGHT));
    let cut = &right[..right.len() - 20];
    let findings = check(cut.as_bytes(), None::<&[u8]>).unwrap();
    assert_eq!(findings.counts.operations, 5);
    assert!(findings.not_checked[0].starts_with("the last line (6) is cut off"));
    // In the middle it is no sign of a stopped recorder.
    let broken = format!("{cut}\n{right}");
    let error = check(broken.as_bytes(), None::<&[u8]>).unwrap_err();
    assert!(
        error.to_string().starts_with("line 6 of the history"),
        "{error}"
    );
}

fn plain(lines: &[&str]) -> Vec<Rule> {
    let findings = check_unstamped(text(&history(lines)).as_bytes()).unwrap();
    violated(&findings)
}

#[test]
fn without_stamps_nothing_right_is_accused() {
    for seed in 0..5_000 {
        let mut operations = simulated(&mut Choices::new(seed), 3);
        for operation in &mut operations {
            operation.stamp = None;
            operation.position = None;
        }
        let findings = check_unstamped(text(&operations).as_bytes()).unwrap();
        assert!(
            findings.hold(),
            "seed {seed}: {findings:#?}\n{}",
            text(&operations)
        );
    }
}

#[test]
fn without_stamps_what_no_order_explains_is_found() {
    let insert = "0 insert 1 10 100 110 ok null null";
    let put = "0 put 1 11 120 130 ok 1 null";
    assert_eq!(
        plain(&[insert, put, "1 read 1 null 140 150 ok 11 null"]),
        []
    );
    // Lost, stale, out of nothing, from the future, after its deletion.
    assert_eq!(
        plain(&[insert, "1 read 1 null 140 150 ok null null"]),
        [Rule::Reads]
    );
    assert_eq!(
        plain(&[insert, put, "1 read 1 null 140 150 ok 10 null"]),
        [Rule::Reads]
    );
    assert_eq!(
        plain(&[insert, put, "1 read 1 null 140 150 ok 12 null"]),
        [Rule::Reads]
    );
    assert_eq!(
        plain(&["1 read 1 null 40 50 ok 10 null", insert]),
        [Rule::Reads]
    );
    let deleted = "0 delete 1 null 120 130 ok 1 null";
    assert_eq!(
        plain(&[insert, deleted, "1 read 1 null 140 150 ok null null"]),
        []
    );
    assert_eq!(
        plain(&[insert, deleted, "1 read 1 null 140 150 ok 10 null"]),
        [Rule::Reads]
    );
    assert_eq!(
        plain(&[insert, deleted, "1 update 1 12 140 150 ok 1 null"]),
        [Rule::Replies]
    );
    // Two that both found the same value, and an insert beside one.
    let cas = [
        "1 cas 1 [10,21] 120 150 ok 1 null",
        "2 cas 1 [10,22] 120 150 ok 1 null",
    ];
    assert_eq!(plain(&[insert, cas[0], cas[1]]), [Rule::Replies]);
    assert_eq!(
        plain(&[insert, "1 insert 1 20 120 130 ok null null"]),
        [Rule::Replies]
    );
    // An unknown write that was seen has happened.
    let unknown = "2 put 1 20 112 115 unknown \"lost\" null";
    assert_eq!(
        plain(&[insert, unknown, "1 read 1 null 140 150 ok 10 null"]),
        []
    );
    let seen = "1 read 1 null 140 150 ok 20 null";
    assert_eq!(
        plain(&[insert, unknown, seen, "0 read 1 null 160 170 ok 10 null"]),
        [Rule::Reads]
    );
}
