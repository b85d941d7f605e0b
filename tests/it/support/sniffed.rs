//! What somebody who listens between two nodes can do with a message that he hears.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::eventually;
use super::line::Mode;
use super::trio::Trio;

pub const ACTION: &str = "/peer/action/";
pub const MESSAGE: &str = "/peer/message";
pub const DATABASE: &str = "sniffed";

/// A message from one node to another, with its proof.
#[derive(Debug, Clone)]
pub struct Sniffed {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Sniffed {
    /// The first whole message to such a path.
    fn find(heard: &[u8], path: &str) -> Option<Self> {
        let begins = format!("POST {path}");
        let found = |part: &[u8]| heard.windows(part.len()).position(|window| window == part);
        let message = &heard[found(begins.as_bytes())?..];
        let end = message
            .windows(4)
            .position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(message[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        };
        let headers: Vec<_> = lines.map(header).collect();
        let length = headers.iter().find(|(name, _)| name == "content-length")?;
        let body = message[end + 4..].get(..length.1.parse().unwrap())?;
        Some(Self {
            path,
            headers,
            body: body.to_vec(),
        })
    }

    /// The first message to such a path that was heard on this line.
    pub async fn on(trio: &Trio<'_>, (from, to): (usize, usize), path: &str) -> Self {
        eventually("a message is heard", async || {
            let heard = trio.line(from, to).heard();
            heard.iter().find_map(|bytes| Self::find(bytes, path))
        })
        .await
    }

    /// A request that a follower passes on to the coordinator, and that is answered.
    pub async fn answered(trio: &Trio<'_>, from: usize, to: usize, id: &str) -> Self {
        trio.line(from, to).listen();
        trio.http(from)
            .act("insertOne", &insert(id))
            .await
            .expect(201);
        Self::on(trio, (from, to), ACTION).await
    }

    /// A request that a follower passes on, and that does not reach the coordinator: the follower has
    /// to send it again.
    pub async fn withheld(trio: &Trio<'_>, from: usize, to: usize, id: &str) -> Self {
        // The follower keeps this connection.
        let opens = json!({"database": DATABASE, "collection": "c", "filter": {"_id": id}});
        trio.http(from).act("find", &opens).await.expect(200);
        let line = trio.line(from, to);
        line.listen();
        line.set(Mode::Silent);
        let http = trio.http(from);
        let body = insert(id);
        let sending = tokio::spawn(async move { http.act("insertOne", &body).await });
        let withheld = Self::on(trio, (from, to), ACTION).await;
        line.lose_all().await;
        sending.await.unwrap().expect(201);
        withheld
    }

    pub fn with_path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it to this node, and says what status it gets.
    pub async fn send_to(&self, address: &str) -> u16 {
        let mut request = format!("POST {} HTTP/1.1\r\n", self.path);
        for (name, value) in &self.headers {
            if name != "content-length" {
                request += &format!("{name}: {value}\r\n");
            }
        }
        request += &format!(
            "connection: close\r\ncontent-length: {}\r\n\r\n",
            self.body.len()
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        let bytes = [request.as_bytes(), &self.body].concat();
        stream.write_all(&bytes).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        let status = String::from_utf8_lossy(&reply);
        status.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// The body of an insert of this document.
pub fn insert(id: &str) -> serde_json::Value {
    json!({"database": DATABASE, "collection": "c", "document": {"_id": id}})
}
