//! The whole of docker-compose.yml, with stand-ins for its images: see `stand_in`.

use std::fs;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use bson::doc;
use drumline::config::env_path;
use serde_json::Value;
use tokio::time::timeout;

use super::stand_in::StandIns;
use super::{Pid, Sandbox, alive, wait_until};

/// The longest that one command may take; building an image on a slow disk is the slowest.
const COMMAND_SECONDS_MAX: &str = "300";
/// The driver waits for a frozen member without end.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const PROJECT: &str = "drumline-test-";
const NODE_IMAGE: &str = "drumline-test/node";
pub const MEMBERS: [&str; 3] = ["m1", "m2", "m3"];
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Runs a command to its end; `Err` says what it was and what it said.
pub fn run(command: &[&str]) -> Result<String, String> {
    run_with(command, &[])
}

/// Asks the engine.
pub fn docker(arguments: &[&str]) -> Result<String, String> {
    run(&[&["docker"], arguments].concat())
}

fn run_with(command: &[&str], variables: &[(String, String)]) -> Result<String, String> {
    let output = Command::new("timeout")
        .args(["--kill-after=5", COMMAND_SECONDS_MAX])
        .args(command)
        .envs(variables.iter().cloned())
        // The engine's old builder is on every machine; the new one is an extra.
        .env("DOCKER_BUILDKIT", "0")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = [text(&output.stdout), text(&output.stderr)].join("\n");
    Err(format!(
        "`{}`: {}: {said}",
        command.join(" "),
        output.status
    ))
}

/// A network of the compose file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Members and nodes.
    Replica,
    /// Nodes among themselves.
    Peers,
}

impl Network {
    fn name(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Peers => "peers",
        }
    }

    /// The name that others find a service by.
    fn alias(self, service: &str) -> String {
        match self {
            Self::Replica => service.to_owned(),
            Self::Peers => format!("{service}.peers"),
        }
    }
}

/// A project of docker-compose.yml of its own, on free ports. Nothing of it is left when it drops.
#[derive(Debug)]
pub struct Compose {
    project: String,
    ports: [u16; 3],
    node_image: String,
    /// What points `docker compose` to this project.
    variables: Vec<(String, String)>,
    sandbox: Sandbox,
    /// One project at a time: each is six servers.
    _turn: MutexGuard<'static, ()>,
}

impl Compose {
    /// Prepares a project. `None`, and a line on stderr, where the machine cannot; with
    /// `DRUMLINE_REQUIRE_DOCKER=1` that fails the test.
    pub fn prepare() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        static SWEPT: Once = Once::new();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let stand_ins = program().and_then(|_| {
            SWEPT.call_once(sweep);
            StandIns::make()
        });
        let stand_ins = match stand_ins {
            Ok(stand_ins) => stand_ins,
            Err(why) if env_path("DRUMLINE_REQUIRE_DOCKER").is_some() => {
                panic!("DRUMLINE_REQUIRE_DOCKER is set, but {why}");
            }
            Err(why) => {
                // Not by `eprintln!`: a skipped test must not look like one that passed.
                let _ = writeln!(io::stderr(), "skipped, no containers here: {why}");
                return None;
            }
        };
        let mut sandbox = Sandbox::new();
        let number = sandbox.folder().file_name().unwrap().to_str().unwrap();
        let project = number.replacen("it-", PROJECT, 1);
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.map(|listener| listener.local_addr().unwrap().port());
        let node_image = node_image(&sandbox, &stand_ins.runtime, &project);
        let variables = variables(&project, &stand_ins.mongo, &node_image, ports);
        for (name, value) in &variables {
            sandbox = sandbox.set(name, value);
        }
        Some(Self {
            project,
            ports,
            node_image,
            variables,
            sandbox,
            _turn: turn,
        })
    }

    /// Prepares a project and starts it.
    pub fn start() -> Option<Self> {
        let compose = Self::prepare()?;
        compose.up();
        Some(compose)
    }

    /// `docker compose up`, until all nodes are ready.
    pub fn up(&self) {
        self.compose(&["up", "--detach", "--no-build"]);
        wait_until("all nodes are ready", || {
            NODES.iter().all(|node| self.is_healthy_now(node))
        });
    }

    /// Runs `docker compose` on the project.
    #[track_caller]
    pub fn compose(&self, arguments: &[&str]) -> String {
        let program = program().unwrap();
        run_with(&[program, arguments].concat(), &self.variables).unwrap()
    }

    /// The folder and the environment of a user of this project.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The name of the project.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The published port of a node.
    pub fn port(&self, node: &str) -> u16 {
        self.ports[NODES.iter().position(|known| *known == node).unwrap()]
    }

    pub fn url(&self, node: &str) -> String {
        format!("http://127.0.0.1:{}", self.port(node))
    }

    /// All nodes, as `--servers` takes them.
    pub fn servers(&self) -> String {
        NODES.map(|node| self.url(node)).join(",")
    }

    pub fn api_key(&self) -> String {
        self.exec("n1", &["cat", "/run/nodes/api-key"]).unwrap()
    }

    /// Runs a command in a service's container.
    pub fn exec(&self, service: &str, command: &[&str]) -> Result<String, String> {
        docker(&[&["exec", &self.container(service)], command].concat())
    }

    /// The id of a service's container.
    #[track_caller]
    pub fn container(&self, service: &str) -> String {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={service}");
        let found = docker(&["ps", "-aq", "--filter", &project, "--filter", &service]).unwrap();
        assert_eq!(found.lines().count(), 1, "{service}: {found:?}");
        found
    }

    /// A detail of a service's container, as `docker inspect --format` gives it.
    #[track_caller]
    pub fn inspect(&self, service: &str, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.container(service)]).unwrap()
    }

    pub fn logs(&self, service: &str) -> String {
        docker(&["logs", &self.container(service)]).unwrap()
    }

    /// The process of a service, as this machine sees it. Killed by its id it has crashed, and the
    /// engine starts it again.
    pub fn pid(&self, service: &str) -> Pid {
        self.inspect(service, "{{.State.Pid}}").parse().unwrap()
    }

    /// Stops a service's container for good, with SIGKILL, until [`Self::start_again`].
    pub fn kill(&self, service: &str) {
        docker(&["kill", &self.container(service)]).unwrap();
    }

    pub fn start_again(&self, service: &str) {
        docker(&["start", &self.container(service)]).unwrap();
    }

    pub fn pause(&self, service: &str) {
        docker(&["pause", &self.container(service)]).unwrap();
    }

    pub fn unpause(&self, service: &str) {
        docker(&["unpause", &self.container(service)]).unwrap();
    }

    /// Takes a service out of a network.
    pub fn disconnect(&self, service: &str, network: Network) {
        let name = self.network(network);
        docker(&["network", "disconnect", &name, &self.container(service)]).unwrap();
    }

    /// Puts it back, under the name that it had there.
    pub fn connect(&self, service: &str, network: Network) {
        let (name, alias) = (self.network(network), network.alias(service));
        let container = self.container(service);
        docker(&["network", "connect", "--alias", &alias, &name, &container]).unwrap();
    }

    fn network(&self, network: Network) -> String {
        format!("{}_{}", self.project, network.name())
    }

    /// What the service's own health check says if it runs now.
    pub fn is_healthy_now(&self, service: &str) -> bool {
        let check = self.inspect(service, "{{json .Config.Healthcheck.Test}}");
        let check: Vec<String> = serde_json::from_str(&check).unwrap();
        let command: Vec<_> = check[1..].iter().map(String::as_str).collect();
        self.exec(service, &[&["timeout", "5"], &*command].concat())
            .is_ok()
    }

    /// Waits until the engine counts a service as healthy.
    pub fn until_healthy(&self, service: &str) {
        wait_until(&format!("{service} is healthy"), || {
            self.inspect(service, "{{.State.Health.Status}}") == "healthy"
        });
    }

    /// Whether a member answers and says this of itself: `secondary`, or `isWritablePrimary`.
    pub async fn says(&self, member: &str, what: &str) -> bool {
        let network = self.network(Network::Replica);
        let networks = self.inspect(member, "{{json .NetworkSettings.Networks}}");
        let networks: Value = serde_json::from_str(&networks).unwrap();
        let Some(host) = networks[&network]["IPAddress"].as_str() else {
            return false;
        };
        let uri =
            format!("mongodb://{host}:27017/?directConnection=true&serverSelectionTimeoutMS=2000");
        let driver = mongodb::Client::with_uri_str(uri).await.unwrap();
        let admin = driver.database("admin");
        let hello = timeout(ANSWER_MAX, admin.run_command(doc! {"hello": 1}));
        let Ok(Ok(hello)) = hello.await else {
            return false;
        };
        hello.get_bool(what).unwrap_or(false)
    }

    /// The member that calls itself primary.
    pub async fn primary(&self) -> Option<&'static str> {
        for member in MEMBERS {
            if self.says(member, "isWritablePrimary").await {
                return Some(member);
            }
        }
        None
    }

    /// Puts what `docker build` sees of the project into a new folder.
    pub fn build_context(&self, folder: &Path) {
        let tag = self.node_image.replacen("node", "context", 1);
        let recipe = self.sandbox.path("context.Dockerfile");
        let content = format!("FROM {}\nCOPY . /src\n", self.node_image);
        fs::write(&recipe, content).unwrap();
        let (recipe, project) = (recipe.to_str().unwrap(), env!("CARGO_MANIFEST_DIR"));
        // By stdin: the engine is given a recipe that lies in the project beside what it asks for.
        let build = r#"exec docker build --quiet --tag "$0" --file - "$1" <"$2""#;
        run(&["sh", "-c", build, &tag, project, recipe]).unwrap();
        let container = docker(&["create", &tag]).unwrap();
        let source = format!("{container}:/src");
        let copied = docker(&["cp", &source, folder.to_str().unwrap()]);
        docker(&["rm", &container]).unwrap();
        docker(&["rmi", &tag]).unwrap();
        copied.unwrap();
    }

    /// All that the engine holds of the project, one line each.
    pub fn left(&self) -> String {
        left(&self.project)
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.left().is_empty() {
            // Why it failed is often in there.
            let program = program().unwrap();
            let logs = [program, &["logs", "--no-color", "--tail=15"]].concat();
            eprintln!("{}", run_with(&logs, &self.variables).unwrap_or_default());
        }
        remove(&self.project);
        let _ = docker(&["rmi", &self.node_image]);
    }
}

/// `docker compose`, which may be a program of its own. `Err` says what is lacking.
pub fn program() -> Result<&'static [&'static str], String> {
    docker(&["info", "--format", "{{.ServerVersion}}"])?;
    let known: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    let runs = |program: &&[&str]| run(&[*program, &["version"]].concat()).is_ok();
    known
        .into_iter()
        .find(runs)
        .ok_or_else(|| "there is neither `docker compose` nor `docker-compose`".to_owned())
}

fn compose_file() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/docker-compose.yml").to_owned()
}

fn variables(project: &str, mongo: &str, node: &str, ports: [u16; 3]) -> Vec<(String, String)> {
    let [n1, n2, n3] = ports.map(|port| port.to_string());
    [
        ("COMPOSE_PROJECT_NAME", project.to_owned()),
        ("COMPOSE_FILE", compose_file()),
        ("MONGO_IMAGE", mongo.to_owned()),
        ("DRUMLINE_IMAGE", node.to_owned()),
        ("N1_PORT", n1),
        ("N2_PORT", n2),
        ("N3_PORT", n3),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The image of a node: the program under test on what the project's Dockerfile makes below it.
fn node_image(sandbox: &Sandbox, runtime: &str, project: &str) -> String {
    let tag = project.replacen(PROJECT, &format!("{NODE_IMAGE}:"), 1);
    let context = sandbox.path("image");
    fs::create_dir(&context).unwrap();
    let program = context.join("drumline");
    fs::copy(env!("CARGO_BIN_EXE_drumline"), &program).unwrap();
    let recipe = format!("FROM {runtime}\nCOPY drumline /usr/local/bin/drumline\n");
    fs::write(context.join("Dockerfile"), recipe).unwrap();
    docker(&["build", "--quiet", "--tag", &tag, context.to_str().unwrap()]).unwrap();
    fs::remove_file(program).unwrap();
    tag
}

fn left(project: &str) -> String {
    let label = format!("label=com.docker.compose.project={project}");
    let filter = ["--filter", &label];
    let kinds: [&[&str]; 3] = [
        &["ps", "-aq"],
        &["network", "ls", "-q"],
        &["volume", "ls", "-q"],
    ];
    kinds
        .map(|kind| docker(&[kind, &filter].concat()).unwrap_or_default())
        .join("\n")
        .trim()
        .to_owned()
}

fn remove(project: &str) {
    if left(project).is_empty() {
        return;
    }
    let file = compose_file();
    let down = ["-p", project, "-f", &file, "down", "-v", "--timeout=1"];
    let gone = program().and_then(|program| run(&[program, &down].concat()));
    if let Err(why) = gone {
        eprintln!("{why}");
    }
}

/// Removes what earlier test processes left because they were killed.
fn sweep() {
    let ended = |name: &str| {
        let owner = name.split('-').next().and_then(|pid| pid.parse().ok());
        owner.is_some_and(|pid| !alive(pid))
    };
    let format = "{{.Label \"com.docker.compose.project\"}}";
    let projects = docker(&["ps", "-a", "--format", format]).unwrap_or_default();
    for project in projects.lines() {
        if project.strip_prefix(PROJECT).is_some_and(ended) {
            remove(project);
        }
    }
    let images = docker(&["images", "--format", "{{.Tag}}", NODE_IMAGE]).unwrap_or_default();
    for tag in images.lines().filter(|tag| ended(tag)) {
        let _ = docker(&["rmi", &format!("{NODE_IMAGE}:{tag}")]);
    }
}
