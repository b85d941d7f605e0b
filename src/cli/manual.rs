//! What the manual pages say beyond the flags: examples, exit statuses, variables and files. One
//! table of each; a test compares the variables with what the program reads.

/// A word, and what it means.
pub type Term = (&'static str, &'static str);

/// Which variables and files a command has to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The page of the whole program.
    All,
    /// A command that goes to servers.
    Remote,
    /// A node.
    Node,
    /// A command of local clusters.
    Cluster,
    /// It reads nothing of the kind.
    Nothing,
}

impl Reader {
    /// By the page's name, and by whether the command can be told its servers.
    pub fn of(page: &str, command: &clap::Command) -> Self {
        let has_servers = command.get_arguments().any(|arg| arg.get_id() == "servers");
        match page {
            "drumline" => Self::All,
            // It starts a cluster of its own, or goes to one that runs.
            "drumline-drill" => Self::All,
            "drumline-serve" => Self::Node,
            "drumline-up" | "drumline-down" | "drumline-info" | "drumline-ls" => Self::Cluster,
            _ if has_servers => Self::Remote,
            _ => Self::Nothing,
        }
    }

    fn has(self, readers: &[Self]) -> bool {
        self == Self::All || readers.contains(&self)
    }
}

pub const EXIT_STATUS: [Term; 6] = [
    ("0", "Done."),
    ("1", "Refused or failed; the line on stderr says why."),
    ("2", "The arguments or the settings are wrong."),
    ("3", "Degraded: it works, but not all of it."),
    ("4", "No server can be reached."),
    ("5", "A verification found a violation."),
];

use Reader::{Cluster, Node, Remote};

const VARIABLES: [(Term, &[Reader]); 14] = [
    (
        (
            "DRUMLINE_SERVERS",
            "The servers, as --servers takes them. The flag is stronger, and the settings \
             file weaker.",
        ),
        &[Remote],
    ),
    (
        (
            "DRUMLINE_API_KEY",
            "The API key, if no --api-key-file is given.",
        ),
        &[Remote, Node],
    ),
    (
        (
            "DRUMLINE_MONGODB",
            "The connection string of the replica set, which others cannot see as they can \
             see arguments.",
        ),
        &[Remote, Node],
    ),
    (
        (
            "DRUMLINE_TIMEOUT",
            "How long a command tries, as --timeout: 10s, 500ms, 2m.",
        ),
        &[Remote],
    ),
    (
        (
            "DRUMLINE_CONFIG",
            "The settings file, instead of the usual one. It must exist.",
        ),
        &[Remote, Node],
    ),
    (
        (
            "DRUMLINE_CLUSTER_SECRET",
            "The secret that the nodes of a cluster share, if no --cluster-secret-file is given.",
        ),
        &[Node],
    ),
    (
        (
            "DRUMLINE_ALLOW_HOSTS",
            "Other names that a node may be reached by, as --allow-host, with commas between them.",
        ),
        &[Node],
    ),
    (
        (
            "DRUMLINE_LOG",
            "What a node tells of itself on stderr: error, warn, info (the default), debug or \
             trace.",
        ),
        &[Node],
    ),
    (
        (
            "DRUMLINE_MONGOD",
            "The mongod program that local clusters run, instead of one from PATH or from the \
             cache.",
        ),
        &[Cluster],
    ),
    (
        (
            "DRUMLINE_MONGOD_ARCHIVE",
            "Where mongod is fetched from, instead of MongoDB's own archive.",
        ),
        &[Cluster],
    ),
    (
        (
            "XDG_CONFIG_HOME",
            "The folder above the settings file's, instead of ~/.config.",
        ),
        &[Remote, Node],
    ),
    (
        (
            "XDG_STATE_HOME, XDG_DATA_HOME, XDG_CACHE_HOME",
            "The folders above the other FILES, instead of ~/.local/state, ~/.local/share and \
             ~/.cache.",
        ),
        &[Remote, Cluster],
    ),
    (
        ("HOME", "The folder that is written ~ here."),
        &[Remote, Node, Cluster],
    ),
    (
        ("NO_COLOR", "If it is set, nothing is printed in colours."),
        &[Remote, Node],
    ),
];

const FILES: [(Term, &[Reader]); 4] = [
    (
        (
            "~/.config/drumline/config.toml",
            "Settings: servers, api_key_file, mongodb_file, timeout, output. It need not exist.",
        ),
        &[Remote, Node],
    ),
    (
        (
            "~/.local/state/drumline/clock-*",
            "The clock of this user, one file for each list of servers, so that no command \
             sees less than one before it.",
        ),
        &[Remote],
    ),
    (
        (
            "~/.local/share/drumline/NAME/",
            "A local cluster: its data, its logs and its secrets. One that runs is found here \
             by the other commands.",
        ),
        &[Remote, Cluster],
    ),
    (
        (
            "~/.cache/drumline/mongod/",
            "Programs that were fetched. They can be deleted at any time.",
        ),
        &[Cluster],
    ),
];

/// By the page's name. They are taken by the command line: a test says so.
const EXAMPLES: &[(&str, &[Term])] = &[
    (
        "drumline",
        &[
            ("drumline up --detach", "Start a local cluster."),
            (
                r#"drumline insert shop.orders '{"_id": 1, "qty": 5}'"#,
                "Store a document.",
            ),
            ("drumline find shop.orders", "See what is stored."),
            ("drumline drill kill", "See what a failure costs."),
        ],
    ),
    (
        "drumline-up",
        &[
            (
                "drumline up",
                "Three members and three nodes, until Ctrl-C.",
            ),
            (
                "drumline up --name two --base-port 0 --detach",
                "A second cluster, on free ports, in the background.",
            ),
        ],
    ),
    (
        "drumline-down",
        &[(
            "drumline down --name two --purge",
            "Stop the cluster 'two', and delete its data.",
        )],
    ),
    (
        "drumline-info",
        &[("drumline info -o json", "All that programs need.")],
    ),
    ("drumline-ls", &[("drumline ls", "The local clusters.")]),
    (
        "drumline-serve",
        &[(
            "drumline serve --name n1 --listen 127.0.0.1:7401 --mongodb-file uri --peer \
             n2=http://10.0.0.2:7401 --peer n3=http://10.0.0.3:7401 --cluster-secret-file \
             secret --api-key-file key",
            "One of three nodes.",
        )],
    ),
    (
        "drumline-insert",
        &[
            (
                r#"drumline insert shop.orders '{"_id": 1, "qty": 5}'"#,
                "One document.",
            ),
            (
                "drumline insert shop.orders -",
                "Documents from stdin, one a line or an array: all of them, or none.",
            ),
        ],
    ),
    (
        "drumline-put",
        &[(
            r#"drumline put shop.orders ada '{"qty": 1}'"#,
            "Store it under the _id 'ada', whether there was one or not.",
        )],
    ),
    (
        "drumline-get",
        &[
            (
                "drumline get shop.orders 1",
                "The document whose _id is the number 1.",
            ),
            (
                "drumline get shop.orders '\"1\"'",
                "The one whose _id is the string.",
            ),
        ],
    ),
    (
        "drumline-find",
        &[(
            r#"drumline find shop.orders '{"qty": {"$gt": 1}}' --sort '{"qty": -1}' --limit 10"#,
            "The ten largest.",
        )],
    ),
    (
        "drumline-update",
        &[(
            r#"drumline update shop.orders '{"_id": 1}' '{"$inc": {"qty": 1}}'"#,
            "One more of it.",
        )],
    ),
    (
        "drumline-replace",
        &[(
            r#"drumline replace shop.orders '{"_id": 1}' '{"qty": 9}' --upsert"#,
            "Put another in its place.",
        )],
    ),
    (
        "drumline-delete",
        &[(
            r#"drumline delete shop.orders '{"qty": 0}' --many"#,
            "Delete all that the filter finds.",
        )],
    ),
    (
        "drumline-aggregate",
        &[(
            r#"drumline aggregate shop.orders '[{"$group": {"_id": "$item", "n": {"$sum": 1}}}]'"#,
            "How many there are of each.",
        )],
    ),
    (
        "drumline-status",
        &[("drumline status --watch", "Look each second, until Ctrl-C.")],
    ),
    (
        "drumline-log",
        &[(
            "drumline log --from 100 --follow -o jsonl",
            "The log from there on, as it grows.",
        )],
    ),
    (
        "drumline-watch",
        &[
            (
                r#"drumline watch shop.orders '[{"$match": {"operationType": "delete"}}]'"#,
                "The deletions in a collection, as they happen.",
            ),
            (
                "drumline watch shop.orders --from-stamp 17 -o jsonl",
                "All that has changed after the write with stamp 17, and goes on changing.",
            ),
        ],
    ),
    (
        "drumline-repair",
        &[(
            "drumline repair",
            "Say whether somebody has changed the log behind the nodes.",
        )],
    ),
    (
        "drumline-backup",
        &[
            (
                "drumline backup shop-backup",
                "Begin a backup in this folder, or add what is new to it.",
            ),
            (
                "drumline backup shop-backup --follow --every 10s",
                "Go on adding, until Ctrl-C.",
            ),
        ],
    ),
    (
        "drumline-backup-list",
        &[(
            "drumline backup list shop-backup",
            "From when to when it can be restored.",
        )],
    ),
    (
        "drumline-backup-verify",
        &[(
            "drumline backup verify shop-backup",
            "Exit status 5 if a byte is not what was written.",
        )],
    ),
    (
        "drumline-backup-prune",
        &[(
            "drumline backup prune shop-backup --keep-bases 2 --keep-hours 72 --dry-run",
            "Say which bases would go.",
        )],
    ),
    (
        "drumline-restore",
        &[
            (
                "drumline restore shop-backup --mongodb-file uri",
                "All of it, into an empty replica set.",
            ),
            (
                "drumline restore shop-backup --to-time 2026-01-31T12:00:00Z --dry-run",
                "Say what would be restored, and where it would end.",
            ),
            (
                "drumline restore shop-backup --ns shop.orders=shop.orders_of_may",
                "One collection, under another name, beside what is there.",
            ),
        ],
    ),
    (
        "drumline-bench",
        &[
            (
                "drumline bench --clients 1,64 --compare",
                "Side by side with MongoDB's driver.",
            ),
            (
                "drumline bench --rate 500 --history h.jsonl",
                "At a fixed rate, with a history to check.",
            ),
        ],
    ),
    (
        "drumline-drill",
        &[
            (
                "drumline drill kill --runs 30 --report kill/",
                "What 30 failures cost.",
            ),
            (
                "drumline drill freeze --slo outage=300ms,stall=1s,loss=0",
                "A gate: it fails if one of them is passed.",
            ),
        ],
    ),
    (
        "drumline-drill-list",
        &[("drumline drill list", "What can be done to a cluster.")],
    ),
    (
        "drumline-drill-diff",
        &[(
            "drumline drill diff before/ after/",
            "Two reports side by side.",
        )],
    ),
    (
        "drumline-check",
        &[(
            "drumline check h.jsonl --log log.jsonl",
            "Compare a history with the log.",
        )],
    ),
    (
        "drumline-completions",
        &[("drumline completions bash", "The script for bash.")],
    ),
    (
        "drumline-man",
        &[(
            "drumline man ~/.local/share/man/man1",
            "Where man looks for a user's pages.",
        )],
    ),
];

pub fn examples(page: &str) -> impl Iterator<Item = Term> + use<> {
    let of_page = EXAMPLES.iter().find(|(name, _)| *name == page);
    of_page
        .into_iter()
        .flat_map(|(_, terms)| terms.iter().copied())
}

pub fn variables(reader: Reader) -> impl Iterator<Item = Term> {
    let known = VARIABLES.iter();
    known.filter_map(move |(term, readers)| reader.has(readers).then_some(*term))
}

pub fn files(reader: Reader) -> impl Iterator<Item = Term> {
    let known = FILES.iter();
    known.filter_map(move |(term, readers)| reader.has(readers).then_some(*term))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, offered};
    use super::*;

    /// As a shell reads it, with single quotes and nothing else.
    fn words(command: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        for (index, part) in command.split('\'').enumerate() {
            if index % 2 == 1 {
                words.last_mut().unwrap().push_str(part);
                continue;
            }
            let mut pieces = part.split(' ');
            words.last_mut().unwrap().push_str(pieces.next().unwrap());
            words.extend(pieces.map(str::to_owned));
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn every_command_has_an_example_and_each_is_taken() {
        let mut command = offered().disable_help_subcommand(true);
        command.build();
        let mut left = vec![command];
        while let Some(command) = left.pop() {
            let page = command.get_display_name().unwrap_or("drumline").to_owned();
            assert!(examples(&page).count() > 0, "{page}");
            left.extend(command.get_subcommands().cloned());
        }
        for (page, terms) in EXAMPLES {
            for (example, _) in *terms {
                let begins = page.replace('-', " ");
                assert!(example.starts_with(&begins), "{page}: {example}");
                let read = Cli::try_parse_from(words(example));
                assert!(read.is_ok(), "{example}: {}", read.unwrap_err());
            }
        }
    }
}
