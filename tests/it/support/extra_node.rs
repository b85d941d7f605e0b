//! A node beside those of a cluster, as an operator might start one by mistake or on purpose.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Cluster, Pid, wait_until};

/// A node on a cluster's replica set; it ends with its test.
#[derive(Debug)]
pub struct ExtraNode {
    process: Child,
    pub url: String,
    address: String,
    log: PathBuf,
}

impl ExtraNode {
    /// Starts a node that reaches MongoDB by this connection string.
    pub fn start(cluster: &Cluster, name: &str, mongodb_uri: &str) -> Self {
        let address = free_address("127.0.0.1");
        Self::start_with(cluster, name, mongodb_uri, &address, |_| {})
    }

    /// Starts a node at this address, with what `more` adds to its command.
    pub fn start_with(
        cluster: &Cluster,
        name: &str,
        mongodb_uri: &str,
        address: &str,
        more: impl FnOnce(&mut Command),
    ) -> Self {
        let sandbox = cluster.sandbox();
        let log = sandbox.path(&format!("{name}-{address}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let mut command = sandbox.drumline(&["serve", "--name", name, "--listen", address]);
        command
            .env("DRUMLINE_MONGODB", mongodb_uri)
            .env("DRUMLINE_API_KEY", &cluster.info.api_key)
            .stdout(Stdio::null())
            .stderr(file.unwrap());
        more(&mut command);
        Self {
            process: command.spawn().unwrap(),
            url: format!("http://{address}"),
            address: address.to_owned(),
            log,
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

    /// Waits for its end, which a test has asked for.
    pub fn until_ended(&mut self) {
        let process = &mut self.process;
        wait_until("the node ends", || process.try_wait().unwrap().is_some());
    }

    /// What it has logged, and those before it at its address.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for ExtraNode {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address on this host that nobody listens on.
pub fn free_address(host: &str) -> String {
    let listener = std::net::TcpListener::bind((host, 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}
