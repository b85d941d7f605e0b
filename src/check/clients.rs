//! What each client saw, in its own order.

use std::collections::HashMap;

use super::findings::{Findings, Rule};
use super::line::Line;

/// Clients of one history.
const CLIENTS_MAX: usize = 1 << 20;

/// All clients so far.
#[derive(Debug, Default)]
pub(super) struct Clients(HashMap<u32, Client>);

/// The last operation of a client.
#[derive(Debug, Default)]
struct Client {
    line: u64,
    return_ns: u64,
    stamp: u64,
}

impl Clients {
    /// A client does one thing at a time, and what it sees does not go back. An error says what the history
    /// lacks to be one.
    pub(super) fn take(
        &mut self,
        line: &Line,
        number: u64,
        stamp: Option<u64>,
        findings: &mut Findings,
    ) -> Result<(), String> {
        let process = line.process;
        if line.return_ns < line.invoke_ns {
            return Err("return_ns is before invoke_ns".into());
        }
        if self.0.len() >= CLIENTS_MAX && !self.0.contains_key(&process) {
            return Err(format!("a history has {CLIENTS_MAX} clients at most"));
        }
        let client = self.0.entry(process).or_default();
        if line.invoke_ns < client.return_ns {
            return Err(format!(
                "client {process} had not ended its operation of line {}: the operations of a \
                 client must not overlap, and stand in order",
                client.line
            ));
        }
        if let Some(stamp) = stamp {
            client.sees(stamp, line.is_read(), process, number, findings);
        }
        client.return_ns = line.return_ns;
        client.line = number;
        Ok(())
    }
}

impl Client {
    fn sees(&mut self, stamp: u64, read: bool, process: u32, number: u64, findings: &mut Findings) {
        let before = self.stamp;
        let fits = stamp > before || read && stamp == before;
        if !fits {
            findings.violate(Rule::Clients, &[self.line, number], || {
                format!(
                    "client {process} has stamp {stamp} on line {number}, and had {before} by line {}",
                    self.line
                )
            });
        }
        self.stamp = stamp;
    }
}
