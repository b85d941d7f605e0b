//! A server that answers as a test tells it to, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server does with one request.
#[derive(Debug, Clone)]
pub enum Reply {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// Closes the connection without a word.
    HangUp,
}

impl Reply {
    pub fn new(status: u16, body: &str) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }

    pub fn error(status: u16, text: &str) -> Self {
        let body = serde_json::json!({ "error": text, "error_code": "Test", "link": "" });
        Self::new(status, &body.to_string())
    }

    /// An insert that was done, at a stamp and at the position one below.
    pub fn inserted(stamp: i64) -> Self {
        Self::new(201, r#"{"insertedId":{"$numberInt":"7"}}"#).at(stamp)
    }

    pub fn at(self, stamp: i64) -> Self {
        let placed = self.with("drumline-stamp", &format!("{stamp}.n1"));
        placed.with("drumline-position", &(stamp - 1).to_string())
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Asked {
    pub fn id(&self) -> &str {
        self.headers["idempotency-key"].trim_matches('"')
    }
}

/// Answers the n-th request with the n-th reply, and all later ones with the last.
#[derive(Debug)]
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub fn start(replies: impl Into<Vec<Reply>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = url_of(&listener);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (replies, seen) = (Arc::new(replies.into()), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (replies, seen) = (Arc::clone(&replies), Arc::clone(&seen));
                std::thread::spawn(move || serve(&stream, &replies, &seen));
            }
        });
        Self { url, asked }
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// Takes connections (the kernel does, into its backlog) and never answers.
#[derive(Debug)]
pub struct Frozen {
    pub url: String,
    _listener: TcpListener,
}

impl Frozen {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            url: url_of(&listener),
            _listener: listener,
        }
    }
}

/// The URL of a port at which nobody listens.
pub fn nobody() -> String {
    url_of(&TcpListener::bind("127.0.0.1:0").unwrap())
}

fn url_of(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

/// One connection, kept open between requests.
fn serve(stream: &TcpStream, replies: &[Reply], seen: &Mutex<Vec<Asked>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let asked = read_request(&mut reader)?;
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(asked);
            seen.len() - 1
        };
        let Reply::Answer {
            status,
            headers,
            body,
        } = &replies[number.min(replies.len() - 1)]
        else {
            return None;
        };
        let mut text = format!(
            "HTTP/1.1 {status} Told\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(body);
        (&*stream).write_all(text.as_bytes()).ok()?;
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Asked> {
    let path = read_line(reader)?.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_lowercase(), value.trim_ascii().to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(Some(0), |text| text.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        path,
        headers,
        body: String::from_utf8(body).ok()?,
    })
}

fn read_line(reader: &mut BufReader<&TcpStream>) -> Option<String> {
    let mut line = String::new();
    (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_ascii_end().to_owned())
}
