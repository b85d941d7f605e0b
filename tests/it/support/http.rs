//! Data API requests with any headers, and their replies as they are.

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::{Cluster, POLL};

/// A client of one node that tries nothing twice.
#[derive(Debug, Clone)]
pub struct Http {
    url: String,
    key: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A reply.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Http {
    /// To the cluster's first node.
    pub fn to(cluster: &Cluster) -> Self {
        Self::new(&cluster.info.nodes[0].url, &cluster.info.api_key)
    }

    pub fn new(url: &str, key: &str) -> Self {
        Self {
            url: url.to_owned(),
            key: key.to_owned(),
            // A connection that a killed node left behind is no part of any test.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build_http(),
        }
    }

    /// A request whose body is canonical Extended JSON, as is its reply.
    pub async fn act(&self, action: &str, body: &Value) -> Reply {
        self.act_with(action, &[], body).await
    }

    pub async fn act_with(&self, action: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let body = Bytes::from(body.to_string());
        self.act_bytes(action, headers, body).await
    }

    /// A request whose body is written already, so that its time is the node's alone.
    pub async fn act_bytes(&self, action: &str, headers: &[(&str, &str)], body: Bytes) -> Reply {
        self.try_act(action, headers, body).await.unwrap()
    }

    /// As above; an error if no reply comes.
    pub async fn try_act(
        &self,
        action: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, String> {
        let mut request = Request::post(format!("{}/action/{action}", self.url))
            .header("apiKey", &self.key)
            .header("content-type", "application/ejson")
            .header("accept", "application/ejson");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body)).unwrap();
        self.send(request).await
    }

    /// The status of a GET; `None` if nobody answers.
    pub async fn status_of(&self, path: &str) -> Option<u16> {
        let reply = self.send(self.getting(path)).await;
        reply.ok().map(|reply| reply.status)
    }

    /// A GET without the key.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.getting(path)).await.unwrap()
    }

    /// A GET with the key.
    pub async fn get_with_key(&self, path: &str) -> Reply {
        let mut request = self.getting(path);
        let key = self.key.parse().unwrap();
        request.headers_mut().insert("apiKey", key);
        self.send(request).await.unwrap()
    }

    /// As [`Http::get`]; an error if no reply comes.
    pub async fn try_get(&self, path: &str) -> Result<Reply, String> {
        self.send(self.getting(path)).await
    }

    fn getting(&self, path: &str) -> Request<Full<Bytes>> {
        let request = Request::builder().method(Method::GET);
        let mut request = request.uri(format!("{}{path}", self.url));
        if !self.key.is_empty() {
            request = request.header("apiKey", &self.key);
        }
        request.body(Full::default()).unwrap()
    }

    /// Waits until the node is ready.
    pub async fn until_ready(&self) {
        while self.status_of("/readyz").await != Some(200) {
            tokio::time::sleep(POLL).await;
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Reply, String> {
        let response = self.client.request(request).await;
        let response = response.map_err(|error| format!("{error:?}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?;
        Ok(Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(body.to_bytes().into()).unwrap(),
        })
    }
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Fails the test unless the reply has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }
}
