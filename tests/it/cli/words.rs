//! Errors are told in the words of the command line, through a node and without one.

use std::io::Write as _;
use std::process::Stdio;

use super::one_line;
use crate::support::{Cluster, Outcome, Sandbox};

/// Words of the HTTP interface and of libraries: whoever types a command has never seen them.
const FOREIGN: [&str; 17] = [
    "insertOne",
    "insertMany",
    "updateOne",
    "updateMany",
    "replaceOne",
    "deleteOne",
    "deleteMany",
    "'document'",
    "'documents'",
    "'filter'",
    "'update'",
    "'replacement'",
    "'pipeline'",
    "BSON error",
    "Kind:",
    "Idempotency-Key",
    "Drumline-",
];

/// What the program says to these arguments, with this text on stdin.
fn run(sandbox: &Sandbox, arguments: &[&str], input: &str) -> Outcome {
    let mut command = sandbox.drumline(arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // What ends before it has read all closes its end.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Outcome {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn bad_input_is_told_in_the_words_of_the_command_line() {
    let cluster = Cluster::shared();
    let through = Sandbox::new()
        .set("DRUMLINE_SERVERS", &cluster.info.nodes[0].url)
        .set("DRUMLINE_API_KEY", &cluster.info.api_key);
    let without = Sandbox::new().set("DRUMLINE_MONGODB", &cluster.info.mongodb_uri);
    let ns = "words.c";
    through.ok(&["insert", ns, r#"{"_id": 1}"#]);
    let given = ["insert", ns, r#"{"_id": 2}"#, "--request-id", "words-1"];
    through.ok(&given);
    let many = "{}\n".repeat(10_001);
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(16_775_000));
    let table: &[(&[&str], &str, &str)] = &[
        (
            &["insert", ns, r#"{"a": {"$oid": "x"}}"#],
            "",
            "$oid takes 24 hexadecimal digits",
        ),
        (&["insert", ns, r#"{"a\u0000b": 1}"#], "", "null character"),
        (&["insert", ns, r#"{"_id": 1}"#], "", "E11000"),
        (&["insert", ns, r#"{"_id": [1]}"#], "", "_id"),
        (&["insert", ns, "-"], &many, "it holds 10001 documents"),
        (&["insert", ns, "-"], &large, "16380 KiB is the most"),
        (
            &["insert", ns, "-"],
            "{\"a\": 1}\n\n{\"a\": 2}\n{\"a\": }\n",
            "at line 4, column 7",
        ),
        (
            &["insert", ns, "-"],
            "\n\n{\"a\": 1}\n\n5\n",
            "the value on line 5 is no object",
        ),
        (
            &["insert", ns, "-"],
            "{\"a\": 1}\r\n\r\n{\"a\": x}\r\n",
            "at line 3, column 7",
        ),
        (
            &["insert", ns, r#"{"a": 1}"#, "--request-id", "words-1"],
            "",
            "the request id was used before",
        ),
        (&["insert", "admin.c", "{}"], "", "'admin' is reserved"),
        (
            &["put", ns, "3", r#"{"$set": {"a": 1}}"#],
            "",
            "`drumline update`",
        ),
        (
            &["replace", ns, "{}", r#"{"$set": {"a": 1}}"#],
            "",
            "`drumline update`",
        ),
        (&["replace", ns, "{}", "-"], &large, "16380 KiB is the most"),
        (
            &["replace", ns, r#"{"_id": 1}"#, r#"{"_id": 5}"#],
            "",
            "_id",
        ),
        (
            &["update", ns, "{}", "{}"],
            "",
            "UPDATE: it holds no operator",
        ),
        (&["update", ns, "{}", "[]"], "", "UPDATE: it holds no stage"),
        (
            &["update", ns, "{}", r#"{"a": 1}"#],
            "",
            "`drumline replace`",
        ),
        (
            &["update", ns, "{}", r#"{"$set": 1}"#],
            "",
            "$set in it takes an object",
        ),
        (&["update", ns, "{}", r#"{"$foo": {"a": 1}}"#], "", "$foo"),
        (
            &["update", ns, "{}", r#"{"$set": {"_stamp": 1}}"#],
            "",
            "'_stamp' is Drumline's own",
        ),
        (&["delete", ns, r#"{"a": {"$foo": 1}}"#], "", "$foo"),
        (&["find", ns, r#"{"$where": "1"}"#], "", "$where"),
        (
            &["find", ns, "{}", "--sort", r#"{"a": 5}"#],
            "",
            "1 (for ascending)",
        ),
        (
            &["find", ns, "{}", "--projection", r#"{"a": 1, "b": 0}"#],
            "",
            "exclusion",
        ),
        (&["get", ns, r#"{"$oid": 1}"#], "", "ID: "),
        (
            &["aggregate", ns, r#"[{"$out": "x"}]"#],
            "",
            "insert the documents instead",
        ),
        (
            &["aggregate", ns, r#"[{"$merge": "x"}]"#],
            "",
            "update or insert the documents",
        ),
        (&["aggregate", ns, "[{}]"], "", "exactly one field"),
    ];
    for sandbox in [&through, &without] {
        for (arguments, input, expected) in table {
            let outcome = run(sandbox, arguments, input);
            assert!(
                matches!(outcome.status, 1 | 2),
                "{arguments:?}: {outcome:#?}"
            );
            let told = one_line(&outcome);
            assert!(told.contains(expected), "{arguments:?}: {told}");
            for word in FOREIGN {
                assert!(!told.contains(word), "{arguments:?}: {told}");
            }
            let advice = told.matches("write it like").count();
            assert!(advice <= 1, "{arguments:?}: {told}");
        }
        assert_eq!(
            sandbox
                .ok(&["find", ns, "-o", "jsonl"])
                .stdout
                .lines()
                .count(),
            2
        );
    }
    let wrong_key = through.set("DRUMLINE_API_KEY", "wrong");
    let outcome = wrong_key.run(&["find", ns]);
    let told = one_line(&outcome);
    assert!(told.contains("does not take this API key"), "{told}");
    assert!(
        told.contains("DRUMLINE_API_KEY") && !told.contains("session"),
        "{told}"
    );
}
