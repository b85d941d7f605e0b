//! An insert of the bench as a line of a history.

use serde_json::Value;

use super::connection::Inserted;
use crate::check::history::{Op, Operation, Outcome};
use crate::model::RequestId;

pub(super) fn insert(
    process: u32,
    id: &RequestId,
    key: i64,
    (invoke_ns, return_ns): (u64, u64),
    inserted: &Inserted,
) -> Operation {
    let (outcome, result, stamp, position) = match inserted {
        Inserted::Ok { stamp, position } => (Outcome::Ok, Value::Null, *stamp, *position),
        Inserted::Failed(why) => (Outcome::Fail, why.clone().into(), None, None),
        Inserted::Unknown(why) => (Outcome::Unknown, why.clone().into(), None, None),
    };
    Operation {
        process,
        request: Some(id.to_string()),
        op: Op::Insert,
        key: key.into(),
        value: process.into(),
        invoke_ns,
        return_ns,
        outcome,
        result,
        stamp,
        position,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::record::Recorder;

    #[tokio::test]
    async fn each_operation_is_a_line() {
        let path = std::env::temp_dir().join(format!("drumline-history-{}", bson::Uuid::new()));
        let (recorder, writer) = Recorder::create(&path).unwrap();
        let id = RequestId::parse("r1").unwrap();
        let ok = Inserted::Ok {
            stamp: Some(3),
            position: Some(2),
        };
        recorder.push(insert(7, &id, 1, (10, 20), &ok)).await;
        let unknown = Inserted::Unknown("connection lost".into());
        recorder.push(insert(7, &id, 2, (30, 40), &unknown)).await;
        drop(recorder);
        writer.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            r#"{"process":7,"request":"r1","op":"insert","key":1,"value":7,"invoke_ns":10,"return_ns":20,"outcome":"ok","result":null,"stamp":3,"position":2}"#
        );
        assert!(lines[1].contains(r#""outcome":"unknown","result":"connection lost""#));
        std::fs::remove_file(&path).unwrap();
    }
}
