//! A small HTTP client: GET, bounded in time.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// A machine without internet shall notice soon.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// From the request to the head of the answer, name resolution included.
const ANSWER_MAX: Duration = Duration::from_secs(6);
/// The longest silence within an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The longest answer that is taken as text.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Speaks HTTP and HTTPS. The text of an error says what happened, for a person.
#[derive(Debug, Clone)]
pub struct Web {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Web {
    pub fn new() -> Self {
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(CONNECT_MAX));
        http.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Self {
            client: Client::builder(TokioExecutor::new()).build(https),
        }
    }

    /// The status of the answer.
    pub async fn status(&self, url: &str) -> Result<StatusCode, String> {
        Ok(self.send(url).await?.status())
    }

    /// The body of a successful answer, to be read in parts.
    pub async fn get(&self, url: &str) -> Result<Body, String> {
        let answer = self.send(url).await?;
        if answer.status() != StatusCode::OK {
            return Err(format!("{url} answers {}", answer.status()));
        }
        let length = answer
            .headers()
            .get(hyper::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Body {
            length,
            body: answer.into_body(),
        })
    }

    /// The body of a successful answer as a short text.
    pub async fn text(&self, url: &str) -> Result<String, String> {
        let mut body = self.get(url).await?;
        let mut bytes = Vec::new();
        while let Some(part) = body.next().await? {
            bytes.extend_from_slice(&part);
            if bytes.len() > TEXT_BYTES_MAX {
                return Err(format!("{url} answers with more than a short text"));
            }
        }
        String::from_utf8(bytes).map_err(|_| format!("{url} does not answer with text"))
    }

    async fn send(&self, url: &str) -> Result<Response<Incoming>, String> {
        let uri: Uri = url.parse().map_err(|e| format!("'{url}' is no URL: {e}"))?;
        match timeout(ANSWER_MAX, self.client.get(uri)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{url} cannot be reached ({})", chain(&error))),
            Err(_) => {
                let seconds = ANSWER_MAX.as_secs();
                Err(format!("{url} did not answer within {seconds} s"))
            }
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct Body {
    /// In bytes, if the server said it.
    pub length: Option<u64>,
    body: Incoming,
}

impl Body {
    /// The next part; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = match timeout(SILENCE_MAX, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.map_err(|e| format!("the answer broke off ({e})"))?,
                Err(_) => return Err("the answer stopped in the middle".to_owned()),
            };
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

/// The innermost cause says most: "connection refused", "no such host".
fn chain(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
