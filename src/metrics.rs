//! Counters of what a node does about its replica set, for `/metrics`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the node started. Cheap to clone: all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    primaries_lost: AtomicU64,
    members_asked: AtomicU64,
    members_elected: AtomicU64,
    sync_source_changes: AtomicU64,
}

impl Metrics {
    /// This node found that the primary is gone.
    pub fn primary_lost(&self) {
        self.0.primaries_lost.fetch_add(1, Ordering::Relaxed);
    }

    /// This node asked members to stand for election.
    pub fn asked(&self) {
        self.0.members_asked.fetch_add(1, Ordering::Relaxed);
    }

    /// A member that this node asked was elected.
    pub fn elected(&self) {
        self.0.members_elected.fetch_add(1, Ordering::Relaxed);
    }

    /// This node had a member copy from another one.
    pub fn sync_source_changed(&self) {
        self.0.sync_source_changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters in Prometheus' text format 0.0.4.
    pub fn text(&self) -> String {
        let counters = &self.0;
        let rows = [
            (
                "primaries_lost",
                "Times this node found that the primary is gone.",
                &counters.primaries_lost,
            ),
            (
                "elections_asked",
                "Times this node asked members to stand for election.",
                &counters.members_asked,
            ),
            (
                "elections_won",
                "Times a member that this node asked was elected.",
                &counters.members_elected,
            ),
            (
                "sync_source_changes",
                "Times this node had a member copy from another one.",
                &counters.sync_source_changes,
            ),
        ];
        let mut text = String::new();
        for (name, help, counter) in rows {
            let count = counter.load(Ordering::Relaxed);
            let samples = [(String::new(), count)];
            append(
                &mut text,
                &format!("{name}_total"),
                help,
                "counter",
                &samples,
            );
        }
        text
    }
}

/// Appends a metric with its samples, each with labels like `{host="h:1"}` or none.
pub fn append<V: std::fmt::Display>(
    text: &mut String,
    name: &str,
    help: &str,
    kind: &str,
    samples: &[(String, V)],
) {
    let _ = write!(
        text,
        "# HELP drumline_{name} {help}\n# TYPE drumline_{name} {kind}\n"
    );
    for (labels, value) in samples {
        let _ = writeln!(text, "drumline_{name}{labels} {value}");
    }
}

/// A label with its value, escaped as the format wants it.
pub fn label(name: &str, value: &str) -> String {
    let value = value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n");
    format!("{{{name}=\"{value}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_labels_have_the_exact_form() {
        let metrics = Metrics::default();
        metrics.clone().primary_lost();
        let text = metrics.text();
        let first = [
            "# HELP drumline_primaries_lost_total Times this node found that the primary is gone.",
            "# TYPE drumline_primaries_lost_total counter",
            "drumline_primaries_lost_total 1",
        ];
        assert!(text.starts_with(&first.join("\n")), "{text}");
        assert!(text.contains("\ndrumline_elections_won_total 0\n"));
        assert_eq!(label("host", "a\"\\\n"), r#"{host="a\"\\\n"}"#);
    }
}
