//! A second node in front of the same replica set.

use std::fs::File;
use std::process::{Child, Stdio};

use super::Cluster;

/// A second node on the same replica set, as an operator might start by mistake or on purpose.
#[derive(Debug)]
pub struct SecondNode {
    process: Child,
    pub url: String,
}

impl SecondNode {
    pub fn start(cluster: &Cluster) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let sandbox = cluster.sandbox();
        let log = File::create(sandbox.path("n2.log")).unwrap();
        let process = sandbox
            .drumline(&["serve", "--name", "n2", "--listen", &address])
            .env("DRUMLINE_MONGODB", &cluster.info.mongodb_uri)
            .env("DRUMLINE_API_KEY", &cluster.info.api_key)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            process,
            url: format!("http://{address}"),
        }
    }
}

impl Drop for SecondNode {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
