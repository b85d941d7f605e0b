//! docker-compose.yml with real containers: they come up, come back, and go without a trace.

mod drill;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::readme::{play, steps};
use crate::support::docker::{Compose, MEMBERS, NODES, Network, program, run};
use crate::support::http::Http;
use crate::support::{Pid, kill, wait_for, wait_until};

/// Nothing is compiled before, and the machine may be busy.
const BUILD_SECONDS_MAX: &str = "1200";

/// A user on the machine that runs the containers.
struct User<'a> {
    compose: &'a Compose,
    key: String,
}

impl<'a> User<'a> {
    fn of(compose: &'a Compose) -> Self {
        let key = compose.api_key();
        Self { compose, key }
    }

    #[track_caller]
    fn insert(&self, id: u32) {
        let document = format!("{{\"_id\": {id}}}");
        // MongoDB's own election takes 10 to 12 s, where the nodes cannot help.
        self.drumline(&["insert", "shop.orders", &document, "--timeout", "50s"]);
    }

    #[track_caller]
    fn ids(&self) -> Vec<u64> {
        let found = self.drumline(&["find", "shop.orders", "--sort", "{\"_id\": 1}"]);
        let id = |line| serde_json::from_str::<Value>(line).unwrap()["_id"].as_u64();
        found.lines().filter_map(id).collect()
    }

    #[track_caller]
    fn drumline(&self, arguments: &[&str]) -> String {
        let output = self
            .compose
            .sandbox()
            .drumline(arguments)
            .args(["--servers", &self.compose.servers()])
            .env("DRUMLINE_API_KEY", &self.key)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Ends a service's process as a crash would, and waits until the engine has started it again.
fn crash(compose: &Compose, service: &str) {
    let pid: Pid = compose.pid(service);
    kill(pid, Signal::KILL);
    wait_until(&format!("{service} is started again"), || {
        let now = compose.pid(service);
        now != 0 && now != pid
    });
}

fn until_serving(compose: &Compose, runtime: &Runtime, node: &str) {
    let http = Http::new(&compose.url(node), "");
    wait_until(&format!("{node} serves at its port"), || {
        runtime.block_on(http.status_of("/livez")) == Some(200)
    });
}

#[test]
fn what_crashes_or_is_cut_off_comes_back_and_nothing_is_lost() {
    let Some(compose) = Compose::start() else {
        return;
    };
    let runtime = Runtime::new().unwrap();
    let primary = || wait_for("a primary", || runtime.block_on(compose.primary()));
    let follows = |member: &str| {
        wait_until(&format!("{member} follows"), || {
            runtime.block_on(compose.says(member, "secondary"))
        });
    };
    let user = User::of(&compose);
    user.insert(1);

    for node in NODES {
        crash(&compose, node);
        until_serving(&compose, &runtime, node);
    }
    user.insert(2);

    let crashed = primary();
    crash(&compose, crashed);
    user.insert(3);
    compose.until_healthy(crashed);

    let cut = primary();
    compose.disconnect(cut, Network::Replica);
    user.insert(4);
    assert_ne!(primary(), cut);
    compose.connect(cut, Network::Replica);
    follows(cut);

    let primary = primary();
    let frozen = MEMBERS.into_iter().find(|member| *member != primary);
    compose.pause(frozen.unwrap());
    user.insert(5);
    compose.unpause(frozen.unwrap());
    follows(frozen.unwrap());

    assert_eq!(user.ids(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_coordinator_that_is_killed_or_cut_off_is_succeeded_only_if_it_must_be() {
    let Some(compose) = Compose::start() else {
        return;
    };
    let runtime = Runtime::new().unwrap();
    let user = User::of(&compose);
    let agreed = || until_agreed(&compose, &runtime);
    user.insert(1);

    let (killed, _) = agreed();
    compose.kill(&killed);
    user.insert(2);
    compose.start_again(&killed);
    let (coordinator, epoch) = agreed();
    assert_ne!(coordinator, killed);

    // It reaches MongoDB, its peers do too, and they do not hear each other: no duel.
    let other = NODES
        .into_iter()
        .find(|node| **node != coordinator)
        .unwrap();
    let connect = format!("exec 3<>/dev/tcp/{other}.peers/7401");
    let reaches_peer = || compose.exec(&coordinator, &["timeout", "5", "bash", "-c", &connect]);
    reaches_peer().unwrap();
    compose.disconnect(&coordinator, Network::Peers);
    reaches_peer().unwrap_err();
    wait_until("a follower suspects it", || {
        let view = view(&compose, &runtime, other).unwrap_or_default();
        let nodes = view["nodes"].as_array().cloned().unwrap_or_default();
        nodes
            .iter()
            .any(|node| node["name"] == *coordinator && node["state"] != "alive")
    });
    user.insert(3);
    compose.connect(&coordinator, Network::Peers);
    assert_eq!(agreed(), (coordinator.clone(), epoch));

    // It hears its peers, and only they reach MongoDB.
    compose.disconnect(&coordinator, Network::Replica);
    user.insert(4);
    compose.connect(&coordinator, Network::Replica);
    let (successor, later) = agreed();
    assert_ne!(successor, coordinator);
    assert!(later > epoch);
    user.insert(5);
    assert_eq!(user.ids(), [1, 2, 3, 4, 5]);
}

/// The cluster as one node sees it.
fn view(compose: &Compose, runtime: &Runtime, node: &str) -> Option<Value> {
    let http = Http::new(&compose.url(node), "");
    let reply = runtime.block_on(async {
        http.status_of("/livez").await?;
        Some(http.get("/status").await)
    })?;
    (reply.status == 200).then(|| reply.json())
}

/// Waits until all nodes hear each other and agree on the coordinator; gives it and its epoch.
fn until_agreed(compose: &Compose, runtime: &Runtime) -> (String, i64) {
    wait_for("the nodes agree", || {
        let views = NODES.map(|node| view(compose, runtime, node));
        let mut told = BTreeSet::new();
        for view in views {
            let view = view?;
            let alive = |node: &Value| node["state"] == "alive" && node["role"] != "electing";
            let all = view["nodes"].as_array()?.iter().all(alive);
            let coordinator = view["coordinator"].as_str().filter(|_| all)?;
            told.insert((coordinator.to_owned(), view["epoch"].as_i64()?));
        }
        let mut told = told.into_iter();
        told.next().filter(|_| told.next().is_none())
    })
}

/// One project for all that does no harm: it takes a while to come and to go.
#[test]
fn containers_have_what_they_need_and_leave_the_data_or_nothing() {
    let Some(compose) = Compose::start() else {
        return;
    };
    no_container_has_more_than_it_needs(&compose);
    no_secret_is_shown(&compose);
    only_the_nodes_are_published_and_here_only(&compose);
    the_health_checks_see_what_a_client_sees(&compose);
    up_again_is_the_same_cluster_and_down_leaves_the_data_or_nothing(&compose);
}

/// A check that is always content would pass every other test.
fn the_health_checks_see_what_a_client_sees(compose: &Compose) {
    let runtime = Runtime::new().unwrap();
    User::of(compose).insert(0);
    for node in NODES {
        let http = Http::new(&compose.url(node), "");
        wait_until(&format!("{node}'s check agrees with /readyz"), || {
            let ready = runtime.block_on(http.status_of("/readyz")) == Some(200);
            ready == compose.is_healthy_now(node)
        });
    }
    let ready = NODES[0];
    let frozen = compose.pid(ready);
    kill(frozen, Signal::STOP);
    assert!(!compose.is_healthy_now(ready));
    kill(frozen, Signal::CONT);
    compose.until_healthy(ready);

    let check = "exec 3<>/dev/tcp/127.0.0.1/27017";
    let test = compose.inspect("m1", "{{json .Config.Healthcheck.Test}}");
    assert_eq!(test, format!("[\"CMD\",\"bash\",\"-c\",\"{check}\"]"));
    let nobody = check.replace("27017", "27018");
    assert!(compose.is_healthy_now("m1"));
    compose.exec("m1", &["bash", "-c", &nobody]).unwrap_err();
}

fn up_again_is_the_same_cluster_and_down_leaves_the_data_or_nothing(compose: &Compose) {
    let containers = || {
        [MEMBERS, NODES]
            .concat()
            .iter()
            .map(|s| compose.container(s))
            .collect::<Vec<_>>()
    };
    let before = containers();
    let key = {
        let user = User::of(compose);
        user.insert(1);
        user.key
    };

    compose.up();
    assert_eq!(containers(), before, "nothing was started anew");
    compose.compose(&["down"]);
    assert_eq!(compose.left().lines().count(), 5, "the volumes");
    compose.up();
    let user = User::of(compose);
    assert_eq!(user.key, key);
    user.insert(2);
    assert_eq!(user.ids(), [0, 1, 2]);

    compose.compose(&["down", "--volumes"]);
    assert_eq!(compose.left(), "");
}

fn no_container_has_more_than_it_needs(compose: &Compose) {
    for service in [MEMBERS, NODES].concat() {
        assert_ne!(compose.exec(service, &["id", "-u"]).unwrap(), "0");
        compose.exec(service, &["touch", "/usr/bin/x"]).unwrap_err();
        let capabilities = compose
            .exec(service, &["grep", "CapBnd", "/proc/1/status"])
            .unwrap();
        assert!(capabilities.ends_with("0000000000000000"), "{capabilities}");
    }
    // Each side has its own secrets; nobody but their user reads them.
    compose.exec("n1", &["ls", "/run/members"]).unwrap_err();
    compose.exec("m1", &["ls", "/run/nodes"]).unwrap_err();
    let modes = |service, files: &str| {
        let list = format!("stat -c %a {files} | sort -u");
        compose.exec(service, &["bash", "-c", &list]).unwrap()
    };
    assert_eq!(modes("m1", "/run/members/*"), "400");
    assert_eq!(modes("n1", "/run/nodes/*"), "400");
}

fn no_secret_is_shown(compose: &Compose) {
    let uri = compose
        .exec("n1", &["cat", "/run/nodes/mongodb-uri"])
        .unwrap();
    let password = uri.split(['@', ':']).nth(2).unwrap();
    let keyfile = compose
        .exec("m1", &["cat", "/run/members/keyfile"])
        .unwrap();
    let peers = compose
        .exec("n1", &["cat", "/run/nodes/cluster-secret"])
        .unwrap();
    let secrets = [password, &keyfile, &peers, &compose.api_key()];
    for (at, secret) in secrets.iter().enumerate() {
        assert!(
            secret.len() == 64 && !secrets[..at].contains(secret),
            "{secret} is drawn"
        );
    }
    let mut shown = compose.compose(&["config"]);
    for service in [&MEMBERS[..], &NODES, &["secrets", "initiate"]].concat() {
        shown += &compose.inspect(service, "{{json .}}");
        shown += &compose.logs(service);
    }
    assert!(secrets.iter().all(|secret| !shown.contains(*secret)));
}

fn only_the_nodes_are_published_and_here_only(compose: &Compose) {
    for node in NODES {
        let bound = compose.inspect(node, "{{json .NetworkSettings.Ports}}");
        let port = compose.port(node);
        let only = format!(r#"{{"7401/tcp":[{{"HostIp":"127.0.0.1","HostPort":"{port}"}}]}}"#);
        assert_eq!(bound, only);
    }
    for member in MEMBERS {
        let bound = compose.inspect(member, "{{json .HostConfig.PortBindings}}");
        assert!(matches!(&*bound, "{}" | "null"), "{bound}");
    }
}

/// The engine's own build would ask a registry for its base image. So the command that compiles runs
/// here, with what the engine is given, and with the crates that were fetched for these tests.
#[test]
fn the_image_is_built_from_all_that_cargo_asks_for_and_from_no_more() {
    let Some(compose) = Compose::prepare() else {
        return;
    };
    let folder = compose.sandbox().path("context");
    compose.build_context(&folder);
    let given: BTreeSet<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    let needed = ["Cargo.lock", "Cargo.toml", "benches", "src", "tests"];
    assert_eq!(given, needed.map(OsString::from).into());

    let recipe = fs::read_to_string(project().join("Dockerfile")).unwrap();
    let commands = recipe.lines().filter_map(|line| line.strip_prefix("RUN "));
    let builds: Vec<_> = commands.filter(|run| run.contains("cargo")).collect();
    let [build] = builds[..] else {
        panic!("one command of the Dockerfile compiles: {builds:?}");
    };
    // Other tests run beside it.
    let built = Command::new("nice")
        .args(["-n", "19", "timeout", "--kill-after=5", BUILD_SECONDS_MAX])
        .args(["sh", "-c", build])
        .current_dir(&folder)
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_BUILD_JOBS", "1")
        .env(
            "CARGO_TARGET_DIR",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/context"),
        )
        // Whether it builds is the question; how fast the program will be is not.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{build}: {said}");
}

#[test]
fn one_service_alone_builds_the_image() {
    let file = fs::read_to_string(project().join("docker-compose.yml")).unwrap();
    let builds = file
        .lines()
        .filter(|line| line.trim().starts_with("build:"));
    assert_eq!(
        builds.count(),
        1,
        "Compose fails when several build one tag"
    );
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// docs/compose.md, typed by a user whose `docker compose` is whatever this machine has.
#[test]
fn the_page_shows_what_really_happens() {
    let Some(compose) = Compose::prepare() else {
        return;
    };
    let page = project().join("docs/compose.md");
    let mut steps = steps(&fs::read_to_string(page).unwrap());
    for step in &mut steps {
        for (node, written) in NODES.iter().zip(["7501", "7502", "7503"]) {
            let port = compose.port(node).to_string();
            step.command = step.command.replace(written, &port);
            step.shown = step.shown.replace(written, &port);
        }
        let project = format!(" {}", compose.project());
        for option in ["--compose", "--confirm"] {
            let named = format!("{option} drumline");
            step.command = step.command.replace(&named, &format!("{option}{project}"));
        }
    }
    let mut commands: Vec<_> = steps.iter().map(|step| step.command.clone()).collect();
    let folder = give_docker_compose(&compose);
    commands[0] = format!("PATH='{folder}':\"$PATH\"; {}", commands[0]);
    play(compose.sandbox(), &steps, &commands).unwrap();
    assert_eq!(compose.left(), "", "the page ends with `down --volumes`");
}

/// A folder for `PATH` where `docker compose` runs the older program if there is no other.
fn give_docker_compose(compose: &Compose) -> String {
    let folder = compose.sandbox().path("bin");
    fs::create_dir(&folder).unwrap();
    if let [older] = program().unwrap() {
        let docker = run(&["which", "docker"]).unwrap();
        let file = folder.join("docker");
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = compose ]; then shift; exec {older} \"$@\"; fi\nexec {docker} \"$@\"\n"
        );
        fs::write(&file, script).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}
