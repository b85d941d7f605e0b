//! A request by the plain driver.

use bson::{Bson, Document, doc};
use drumline::model::{Answer, Refusal, Update, Write};
use mongodb::error::ErrorKind;
use mongodb::{Client, ClientSession, Database};

pub struct Reference {
    client: Client,
    database: Database,
    collection: &'static str,
}

impl Reference {
    pub fn new(client: &Client, database: &str, collection: &'static str) -> Self {
        Self {
            client: client.clone(),
            database: client.database(database),
            collection,
        }
    }

    /// Runs a request. Without a transaction one that is refused may be done in part.
    pub async fn run(&self, write: &Write) -> Result<Answer, Refusal> {
        let mut session = self.client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let ran = self.send(&mut session, self.command(write)).await;
        match ran {
            Ok(_) => session.commit_transaction().await.unwrap(),
            Err(_) => session.abort_transaction().await.unwrap(),
        }
        ran.map(|reply| answer(write, &reply))
    }

    /// Whether MongoDB refuses the filter, whatever else is wrong with the request.
    pub async fn refuses_filter(&self, write: &Write) -> bool {
        let (Write::Update { filter, .. }
        | Write::Replace { filter, .. }
        | Write::Delete { filter, .. }) = write
        else {
            return false;
        };
        let find = doc! {"find": self.collection, "filter": filter};
        self.database.run_command(find).await.is_err()
    }

    fn command(&self, write: &Write) -> Document {
        match write {
            Write::Insert { documents } => {
                doc! {"insert": self.collection, "documents": documents}
            }
            Write::Update {
                filter,
                update,
                many,
                upsert,
            } => {
                let update = match update {
                    Update::Operators(operators) => Bson::Document(operators.clone()),
                    Update::Pipeline(stages) => Bson::from(stages.clone()),
                };
                let one = doc! {"q": filter, "u": update, "multi": many, "upsert": upsert};
                doc! {"update": self.collection, "updates": [one]}
            }
            Write::Replace {
                filter,
                replacement,
                upsert,
            } => {
                let one = doc! {"q": filter, "u": replacement, "upsert": upsert};
                doc! {"update": self.collection, "updates": [one]}
            }
            Write::Delete { filter, many } => {
                let one = doc! {"q": filter, "limit": i32::from(!many)};
                doc! {"delete": self.collection, "deletes": [one]}
            }
        }
    }

    async fn send(
        &self,
        session: &mut ClientSession,
        command: Document,
    ) -> Result<Document, Refusal> {
        let reply = self.database.run_command(command).session(session).await;
        let reply = reply.map_err(|error| match error.kind.as_ref() {
            ErrorKind::Command(refused) => refusal(refused.code, &refused.message),
            _ => panic!("{error:?}"),
        })?;
        let errors = reply.get_array("writeErrors").ok();
        match errors.and_then(|errors| errors.first()?.as_document()) {
            Some(error) => Err(refusal(
                error.get_i32("code").unwrap(),
                error.get_str("errmsg").unwrap(),
            )),
            None => Ok(reply),
        }
    }
}

fn refusal(code: i32, message: &str) -> Refusal {
    Refusal {
        code,
        name: String::new(),
        message: message.to_owned(),
    }
}

fn answer(write: &Write, reply: &Document) -> Answer {
    if let Write::Insert { documents } = write {
        let id = |document: &Document| document.get("_id").cloned().unwrap();
        let ids = documents.iter().map(id).collect();
        return Answer::Inserted { ids };
    }
    let number = |field: &str| {
        reply
            .get(field)
            .map_or(0, |n| i64::from(n.as_i32().unwrap()))
    };
    if let Write::Delete { .. } = write {
        let deleted = number("n");
        return Answer::Deleted { deleted };
    }
    let upserted = reply.get_array("upserted").ok();
    let upserted = upserted.and_then(|all| all.first()?.as_document()?.get("_id").cloned());
    Answer::Updated {
        matched: number("n") - i64::from(upserted.is_some()),
        modified: number("nModified"),
        upserted,
    }
}
