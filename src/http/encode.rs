//! Answers and documents become the bodies of replies.

use std::io;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bson::{Bson, Document};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::action::Action;
use super::metered::MeteredBuffer;
use crate::budget::Reservation;
use crate::ejson::{Fields, Format, Json};
use crate::model::{Answer, Failure};

/// The reply to a write that was done.
pub fn answer(action: Action, answer: &Answer, format: Format) -> Response {
    let status = match answer {
        Answer::Inserted { .. } => StatusCode::CREATED,
        Answer::Updated { .. } | Answer::Deleted { .. } => StatusCode::OK,
    };
    let body = AnswerBody {
        action,
        answer,
        format,
    };
    // The writer of JSON fails only where the bytes go, and a Vec takes all.
    let bytes = serde_json::to_vec(&body).unwrap_or_default();
    response(status, bytes.into(), format)
}

/// The reply to a read. Its bytes hold their share of memory until they are sent.
pub fn documents(
    action: Action,
    documents: &[Document],
    format: Format,
    reservation: Reservation,
) -> Result<Response, Failure> {
    let body = DocumentsBody {
        action,
        documents,
        format,
    };
    let mut buffer = MeteredBuffer::new(reservation);
    serde_json::to_writer(&mut buffer, &body).map_err(|error| no_room(error.into()))?;
    Ok(response(StatusCode::OK, buffer.into_bytes(), format))
}

/// The reply to a look at the log.
pub fn log(
    documents: &[Document],
    format: Format,
    reservation: Reservation,
) -> Result<Response, Failure> {
    let entries = List(documents, |document| Fields(document, format));
    let mut buffer = MeteredBuffer::new(reservation);
    let body = std::collections::BTreeMap::from([("entries", entries)]);
    serde_json::to_writer(&mut buffer, &body).map_err(|error| no_room(error.into()))?;
    Ok(response(StatusCode::OK, buffer.into_bytes(), format))
}

/// The buffer is the only part of writing JSON that can fail, and says so with a [`Failure`].
pub fn no_room(error: io::Error) -> Failure {
    error.downcast().unwrap_or(Failure::Busy)
}

fn response(status: StatusCode, bytes: Bytes, format: Format) -> Response {
    let media = match format {
        Format::Plain => "application/json",
        Format::Canonical | Format::Short => "application/ejson",
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let media = HeaderValue::from_static(media);
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

struct AnswerBody<'a> {
    action: Action,
    answer: &'a Answer,
    format: Format,
}

impl Serialize for AnswerBody<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        match self.answer {
            Answer::Inserted { ids } if self.action == Action::InsertOne => {
                let id = ids.first().unwrap_or(&Bson::Null);
                map.serialize_entry("insertedId", &Json(id, self.format))?;
            }
            Answer::Inserted { ids } => {
                map.serialize_entry("insertedIds", &List(ids, |id| Json(id, self.format)))?;
            }
            Answer::Updated {
                matched,
                modified,
                upserted,
            } => {
                map.serialize_entry("matchedCount", &Json(&count(*matched), self.format))?;
                map.serialize_entry("modifiedCount", &Json(&count(*modified), self.format))?;
                if let Some(id) = upserted {
                    map.serialize_entry("upsertedId", &Json(id, self.format))?;
                }
            }
            Answer::Deleted { deleted } => {
                map.serialize_entry("deletedCount", &Json(&count(*deleted), self.format))?;
            }
        }
        map.end()
    }
}

struct DocumentsBody<'a> {
    action: Action,
    documents: &'a [Document],
    format: Format,
}

impl Serialize for DocumentsBody<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let fields = |document| Fields(document, self.format);
        match self.action {
            Action::FindOne => {
                let document = self.documents.first().map(fields);
                to.collect_map([("document", document)])
            }
            _ => to.collect_map([("documents", List(self.documents, fields))]),
        }
    }
}

/// A slice that serializes as an array, each item through a view of it.
struct List<'a, T, F>(&'a [T], F);

impl<'a, T, V: Serialize, F: Fn(&'a T) -> V> Serialize for List<'a, T, F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(&self.1))
    }
}

/// Counts follow the rule for integers: the smallest type that holds them.
fn count(number: i64) -> Bson {
    i32::try_from(number).map_or(Bson::Int64(number), Bson::Int32)
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use bson::oid::ObjectId;

    use super::*;

    fn text(action: Action, answer: &Answer, format: Format) -> String {
        let body = AnswerBody {
            action,
            answer,
            format,
        };
        serde_json::to_string(&body).unwrap()
    }

    #[test]
    fn inserts_say_their_ids() {
        let oid = ObjectId::from_bytes([1; 12]);
        let hex = "01".repeat(12);
        let ids = Answer::Inserted {
            ids: vec![oid.into()],
        };
        assert_eq!(
            text(Action::InsertOne, &ids, Format::Plain),
            format!(r#"{{"insertedId":"{hex}"}}"#)
        );
        assert_eq!(
            text(Action::InsertMany, &ids, Format::Canonical),
            format!(r#"{{"insertedIds":[{{"$oid":"{hex}"}}]}}"#)
        );
        let response = answer(Action::InsertOne, &ids, Format::Plain);
        assert_eq!(response.status(), StatusCode::CREATED);
    }

    #[test]
    fn counts_have_a_type_in_the_canonical_form() {
        let updated = Answer::Updated {
            matched: 0,
            modified: 3_000_000_000,
            upserted: Some(7.into()),
        };
        assert_eq!(
            text(Action::UpdateMany, &updated, Format::Plain),
            r#"{"matchedCount":0,"modifiedCount":3000000000,"upsertedId":7}"#
        );
        assert_eq!(
            text(Action::UpdateMany, &updated, Format::Canonical),
            r#"{"matchedCount":{"$numberInt":"0"},"modifiedCount":{"$numberLong":"3000000000"},"upsertedId":{"$numberInt":"7"}}"#
        );
        let deleted = Answer::Deleted { deleted: 1 };
        assert_eq!(
            text(Action::DeleteOne, &deleted, Format::Plain),
            r#"{"deletedCount":1}"#
        );
    }

    #[test]
    fn finding_nothing_is_null_for_one_and_an_empty_list_for_many() {
        let text = |action, documents: &[Document]| {
            let body = DocumentsBody {
                action,
                documents,
                format: Format::Plain,
            };
            serde_json::to_string(&body).unwrap()
        };
        assert_eq!(text(Action::FindOne, &[]), r#"{"document":null}"#);
        assert_eq!(
            text(Action::FindOne, &[doc! {"a": 1}]),
            r#"{"document":{"a":1}}"#
        );
        assert_eq!(text(Action::Find, &[]), r#"{"documents":[]}"#);
        assert_eq!(
            text(Action::Aggregate, &[doc! {"a": 1}]),
            r#"{"documents":[{"a":1}]}"#
        );
    }
}
