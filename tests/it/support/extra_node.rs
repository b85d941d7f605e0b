//! A node beside those of a cluster, as an operator might start one by mistake or on purpose.

use std::fs::File;
use std::process::{Child, Stdio};

use super::{Cluster, Pid, wait_until};

/// A node on a cluster's replica set; it ends with its test.
#[derive(Debug)]
pub struct ExtraNode {
    process: Child,
    pub url: String,
    address: String,
}

impl ExtraNode {
    /// Starts a node that reaches MongoDB by this connection string.
    pub fn start(cluster: &Cluster, name: &str, mongodb_uri: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let sandbox = cluster.sandbox();
        let log = File::create(sandbox.path(&format!("{name}.log"))).unwrap();
        let process = sandbox
            .drumline(&["serve", "--name", name, "--listen", &address])
            .env("DRUMLINE_MONGODB", mongodb_uri)
            .env("DRUMLINE_API_KEY", &cluster.info.api_key)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            process,
            url: format!("http://{address}"),
            address,
        }
    }

    pub fn pid(&self) -> Pid {
        self.process.id()
    }

    /// Waits until it accepts connections.
    pub fn until_listening(&self) {
        wait_until("the node listens", || {
            std::net::TcpStream::connect(&self.address).is_ok()
        });
    }
}

impl Drop for ExtraNode {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
