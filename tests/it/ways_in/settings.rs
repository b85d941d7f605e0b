//! Settings: flags, variables, the settings file, and files that hold one secret. No cluster is needed.

use std::ffi::{OsStr, OsString};

use super::program::{Call, Said, file, toml};
use super::table::{Made, Text, Way, check};
use crate::cli::server::{Frozen, Reply, Server};
use crate::support::Sandbox;

/// A flag and its value in one word: a value may begin with a hyphen.
fn flag(name: &str, text: &Text) -> OsString {
    let mut word = OsString::from(format!("{name}="));
    word.push(text.os());
    word
}

/// A node that would be started with these settings, but lacks others.
fn serve<'c>() -> Call<'c> {
    Call::new(&["serve", "--name", "n1", "--listen", "127.0.0.1:0"])
}

fn lacks_others(said: &Said) -> Option<Made> {
    said.stderr
        .contains("serve needs")
        .then_some(Made::Accepted)
}

/// The ways of a setting of a node.
fn of_a_node<'w>(
    sandbox: &'w Sandbox,
    name: &'static str,
    variable: Option<&'static str>,
    line: &'static str,
) -> Vec<Way<'w>> {
    let by_flag = move |text: &Text| {
        let word = flag(name, text);
        serve().word(&word).made(sandbox, lacks_others)
    };
    let by_file = move |text: &Text| {
        let config = toml(sandbox, line, text);
        let flags = [OsStr::new("--config"), config.as_os_str()];
        let call = flags.into_iter().fold(serve(), Call::word);
        call.made(sandbox, lacks_others)
    };
    let mut ways: Vec<Way<'w>> = vec![
        ("serve, flag", Box::new(by_flag)),
        ("serve, --config", Box::new(by_file)),
    ];
    if let Some(variable) = variable {
        let by_variable = move |text: &Text| {
            let call = serve().variable(variable, text.os());
            call.made(sandbox, lacks_others)
        };
        ways.push(("serve, variable", Box::new(by_variable)));
    }
    ways
}

/// The ways of a setting of one-shot commands. `call` makes one that shows what it has read.
fn of_a_command<'w>(
    sandbox: &'w Sandbox,
    name: &'static str,
    variable: &'static str,
    line: &'static str,
    call: impl Fn() -> Call<'w> + Copy + Sync + 'w,
    shown: impl Fn(&Said) -> Option<Made> + Copy + Sync + 'w,
) -> Vec<Way<'w>> {
    let by_flag = move |text: &Text| {
        let word = flag(name, text);
        shorter(call()).word(&word).made(sandbox, shown)
    };
    let by_variable = move |text: &Text| {
        let call = shorter(call()).variable(variable, text.os());
        call.made(sandbox, shown)
    };
    let by_file = move |text: &Text| {
        let config = toml(sandbox, line, text);
        let call = shorter(call()).variable("DRUMLINE_CONFIG", config.as_os_str());
        call.made(sandbox, shown)
    };
    vec![
        ("flag", Box::new(by_flag)),
        ("variable", Box::new(by_variable)),
        ("settings file", Box::new(by_file)),
    ]
}

/// A call that lives no longer than what is given to it.
fn shorter<'s>(call: Call<'s>) -> Call<'s> {
    call
}

/// The servers that were asked in vain.
fn asked(said: &Said) -> Option<Made> {
    let (_, servers) = said.stderr.split_once("no server can be reached: ")?;
    let urls = servers
        .split("; ")
        .filter_map(|server| server.split_once(": "));
    let urls: Vec<_> = urls.map(|(url, _)| url).collect();
    Some(Made::Taken(urls.join(",")))
}

#[test]
fn server_urls() {
    let sandbox = Sandbox::new();
    let call = || Call::new(&["status", "--timeout", "60ms"]);
    let one = of_a_command(
        &sandbox,
        "--servers",
        "DRUMLINE_SERVERS",
        "servers = [TEXT]\n",
        call,
        asked,
    );
    check(include_str!("server_urls.txt"), &one);
    let several = &one[..2];
    check(include_str!("server_lists.txt"), several);
}

#[test]
fn urls_of_nodes() {
    let sandbox = Sandbox::new();
    let by_peer = |text: &Text| {
        let mut pair = OsString::from("n2=");
        pair.push(text.os());
        serve()
            .word(OsStr::new("--peer"))
            .word(&pair)
            .made(&sandbox, lacks_others)
    };
    let by_url = |text: &Text| {
        let word = flag("--url", text);
        serve().word(&word).made(&sandbox, lacks_others)
    };
    let by_file = |text: &Text| {
        let config = toml(&sandbox, "peers = { n2 = TEXT }\n", text);
        let call = serve().variable("DRUMLINE_CONFIG", config.as_os_str());
        call.made(&sandbox, lacks_others)
    };
    let ways: [Way<'_>; 3] = [
        ("--peer", Box::new(by_peer)),
        ("--url", Box::new(by_url)),
        ("settings file", Box::new(by_file)),
    ];
    check(include_str!("server_urls.txt"), &ways);
}

#[test]
fn node_names() {
    let sandbox = Sandbox::new();
    let by_name = |text: &Text| {
        let word = flag("--name", text);
        let call = Call::new(&["serve", "--listen", "127.0.0.1:0"]).word(&word);
        call.made(&sandbox, lacks_others)
    };
    let by_peer = |text: &Text| {
        let mut pair = text.os().to_owned();
        pair.push("=http://127.0.0.1:1");
        serve()
            .word(OsStr::new("--peer"))
            .word(&pair)
            .made(&sandbox, lacks_others)
    };
    let by_file = |text: &Text| {
        let config = toml(&sandbox, "[peers]\nTEXT = \"http://127.0.0.1:1\"\n", text);
        let call = serve().variable("DRUMLINE_CONFIG", config.as_os_str());
        call.made(&sandbox, lacks_others)
    };
    let ways: [Way<'_>; 3] = [
        ("--name", Box::new(by_name)),
        ("--peer", Box::new(by_peer)),
        ("settings file", Box::new(by_file)),
    ];
    check(include_str!("node_names.txt"), &ways);
}

#[test]
fn durations() {
    let sandbox = Sandbox::new();
    let frozen = Frozen::start();
    let call = || Call::new(&["status", "--servers", &frozen.url]);
    let waited = |said: &Said| {
        let (_, time) = said.stderr.split_once("no answer within ")?;
        Some(Made::Taken(time.trim_end().to_owned()))
    };
    let timeout = of_a_command(
        &sandbox,
        "--timeout",
        "DRUMLINE_TIMEOUT",
        "timeout = TEXT\n",
        call,
        waited,
    );
    check(include_str!("durations.txt"), &timeout);
    let dwell = of_a_node(&sandbox, "--dwell", None, "dwell = TEXT\n");
    check(include_str!("durations.txt"), &dwell);
    check(include_str!("long_durations.txt"), &dwell);
    bare_numbers(
        &sandbox,
        "--dwell",
        "dwell",
        include_str!("bare_durations.txt"),
    );
}

/// What stands in a settings file without quotes.
fn bare_numbers(sandbox: &Sandbox, name: &'static str, key: &'static str, table: &'static str) {
    let by_flag = |text: &Text| {
        let word = flag(name, text);
        serve().word(&word).made(sandbox, lacks_others)
    };
    let by_file = |text: &Text| {
        let content = format!("{key} = {}\n", text.utf8().unwrap());
        let config = file(sandbox, content.as_bytes());
        let call = serve().variable("DRUMLINE_CONFIG", config.as_os_str());
        call.made(sandbox, lacks_others)
    };
    let ways: [Way<'_>; 2] = [
        ("flag", Box::new(by_flag)),
        ("settings file", Box::new(by_file)),
    ];
    check(table, &ways);
}

#[test]
fn counts_of_a_node() {
    let sandbox = Sandbox::new();
    let table = include_str!("bare_counts.txt");
    bare_numbers(&sandbox, "--missed-heartbeats", "missed_heartbeats", table);
}

#[test]
fn allowed_hosts() {
    let sandbox = Sandbox::new();
    let variable = Some("DRUMLINE_ALLOW_HOSTS");
    let ways = of_a_node(&sandbox, "--allow-host", variable, "allow_hosts = [TEXT]\n");
    check(include_str!("hosts.txt"), &ways);
}

#[test]
fn names_of_clusters() {
    let sandbox = Sandbox::new();
    let ways = of_a_node(&sandbox, "--cluster", None, "cluster = TEXT\n");
    check(include_str!("cluster_names.txt"), &ways);
}

/// An insert through a server of its own, and the key that came with it.
fn with_key(sandbox: &Sandbox, give: impl FnOnce(Call<'_>) -> Option<Said>) -> Made {
    let server = Server::start([Reply::new(201, r#"{"insertedId":1}"#)]);
    let call = Call::new(&["insert", "a.b", "{}", "--servers", &server.url]);
    let Some(said) = give(call) else {
        return Made::Impossible;
    };
    match server.asked().first() {
        Some(asked) => Made::Taken(asked.headers["api-key"].clone()),
        None => {
            assert_eq!(said.status, 2, "{said:#?}");
            assert!(!said.stderr.contains("hunter"), "{}", said.stderr);
            assert!(sandbox.folder().exists());
            Made::Refused(said.stderr)
        }
    }
}

#[test]
fn api_keys() {
    let sandbox = &Sandbox::new();
    let by_file = |text: &Text| {
        let key = file(sandbox, &text.0);
        with_key(sandbox, |call| {
            let flag = OsStr::new("--api-key-file");
            call.word(flag).word(key.as_os_str()).run(sandbox)
        })
    };
    let by_pipe = |text: &Text| {
        with_key(sandbox, |call| {
            let flag = OsStr::new("--api-key-file=/dev/stdin");
            call.word(flag).input(&text.0).run(sandbox)
        })
    };
    let by_variable = |text: &Text| {
        with_key(sandbox, |call| {
            call.variable("DRUMLINE_API_KEY", text.os()).run(sandbox)
        })
    };
    let by_settings = |text: &Text| {
        let config = toml(sandbox, "api_key = TEXT\n", text);
        with_key(sandbox, |call| {
            call.variable("DRUMLINE_CONFIG", config.as_os_str())
                .run(sandbox)
        })
    };
    let by_named_file = |text: &Text| {
        let key = file(sandbox, &text.0);
        let line = format!("api_key_file = \"{}\"\n", key.display());
        let config = file(sandbox, line.as_bytes());
        with_key(sandbox, |call| {
            call.variable("DRUMLINE_CONFIG", config.as_os_str())
                .run(sandbox)
        })
    };
    let ways: [Way<'_>; 5] = [
        ("--api-key-file", Box::new(by_file)),
        ("a pipe", Box::new(by_pipe)),
        ("variable", Box::new(by_variable)),
        ("settings file", Box::new(by_settings)),
        ("a file that it names", Box::new(by_named_file)),
    ];
    check(include_str!("secrets.txt"), &ways);
}

#[test]
fn connection_strings() {
    let sandbox = &Sandbox::new();
    let call = || Call::new(&["get", "a.b", "1", "--timeout", "50ms"]);
    let used = |said: &Said| {
        assert!(!said.stderr.contains("hunter"), "{}", said.stderr);
        (said.status != 2).then_some(Made::Accepted)
    };
    let mut ways = of_a_command(
        sandbox,
        "--mongodb",
        "DRUMLINE_MONGODB",
        "mongodb = TEXT\n",
        call,
        used,
    );
    ways.extend(of_a_node(
        sandbox,
        "--mongodb",
        Some("DRUMLINE_MONGODB"),
        "mongodb = TEXT\n",
    ));
    let by_file = |text: &Text| {
        let uri = file(sandbox, &text.0);
        let flag = OsStr::new("--mongodb-file");
        call().word(flag).word(uri.as_os_str()).made(sandbox, used)
    };
    let by_file_of_a_node = |text: &Text| {
        let uri = file(sandbox, &text.0);
        let flag = OsStr::new("--mongodb-file");
        serve()
            .word(flag)
            .word(uri.as_os_str())
            .made(sandbox, lacks_others)
    };
    ways.push(("--mongodb-file", Box::new(by_file)));
    ways.push(("serve, --mongodb-file", Box::new(by_file_of_a_node)));
    check(include_str!("connection_strings.txt"), &ways);
}

#[test]
fn secrets_of_clusters() {
    let sandbox = &Sandbox::new();
    let by_file = |text: &Text| {
        let secret = file(sandbox, &text.0);
        let flag = OsStr::new("--cluster-secret-file");
        serve()
            .word(flag)
            .word(secret.as_os_str())
            .made(sandbox, lacks_others)
    };
    let by_variable = |text: &Text| {
        let call = serve().variable("DRUMLINE_CLUSTER_SECRET", text.os());
        call.made(sandbox, lacks_others)
    };
    let by_settings = |text: &Text| {
        let config = toml(sandbox, "cluster_secret = TEXT\n", text);
        let call = serve().variable("DRUMLINE_CONFIG", config.as_os_str());
        call.made(sandbox, lacks_others)
    };
    let ways: [Way<'_>; 3] = [
        ("--cluster-secret-file", Box::new(by_file)),
        ("variable", Box::new(by_variable)),
        ("settings file", Box::new(by_settings)),
    ];
    check(include_str!("secrets.txt"), &ways);
}
