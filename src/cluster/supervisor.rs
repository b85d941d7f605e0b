//! The one process that owns a cluster: starts members and then nodes, keeps them alive, stops
//! nodes and then members.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;

use super::crew::{Crew, Fallen, Program};
use super::cut::Groups;
use super::error::Error;
use super::guard::THIS_PROGRAM;
use super::info::ClusterInfo;
use super::member;
use super::mongod::Mongod;
use super::place::Place;
use super::replica::{bring_up, wait_until};
use super::report::{self, Console};
use super::run::RunFile;
use super::secrets::Secrets;
use super::signals::StopRequests;
use super::spec::{Part, Spec};
use super::web::Web;

/// A node answers what it has begun.
const NODE_GRACE: Duration = Duration::from_secs(10);
/// How long after a failed call its cause is looked for.
const AFTERMATH: Duration = Duration::from_millis(500);

/// A cluster of which all is settled and nothing started yet.
#[derive(Debug)]
pub struct Prepared {
    pub spec: Spec,
    pub secrets: Secrets,
    pub mongod: Mongod,
    pub run: RunFile,
    pub console: Console,
}

/// The owner of a cluster; its caller holds the cluster's lock.
#[derive(Debug)]
pub struct Supervisor {
    pub place: Place,
    pub cluster: Prepared,
    pub assist_elections: bool,
    pub stop: StopRequests,
    pub ready_file: Option<PathBuf>,
    /// The members start in groups of their own, so that a drill can cut them off.
    pub groups: Option<Groups>,
    /// Its starter waits until it is ready, and then lets go of it.
    pub background: bool,
}

/// The processes of the cluster.
#[derive(Debug, Default)]
struct Crews {
    members: Crew,
    nodes: Crew,
}

impl Crews {
    async fn fallen(&mut self) -> Fallen {
        tokio::select! {
            fallen = self.members.fallen() => fallen,
            fallen = self.nodes.fallen() => fallen,
        }
    }
}

impl Supervisor {
    /// Runs the cluster until somebody asks to stop it. No child is left when this returns.
    pub async fn supervise(self) -> Result<(), Error> {
        let mut crews = Crews::default();
        let started = tokio::select! {
            started = self.start(&mut crews) => started,
            () = self.stop.asked() => Err(Error::Interrupted),
        };
        let result = match started {
            Ok(()) => self.attend(&crews).await,
            Err(error) => Err(error),
        };
        self.finish(&mut crews).await;
        result
    }

    async fn start(&self, crews: &mut Crews) -> Result<(), Error> {
        let Prepared {
            spec,
            secrets,
            mongod,
            run,
            console,
        } = &self.cluster;
        let members = spec.members.iter().map(|part| {
            let mut program = member::program(&self.place, spec, mongod, part);
            let groups = self.groups.as_ref();
            program.group = groups.map(|groups| groups.make(&part.name)).transpose()?;
            Ok(program)
        });
        let members = members.collect::<Result<Vec<_>, Error>>()?;
        crews.members = Crew::start(members, run, console)?;
        self.unless_fallen(crews, bring_up(spec, secrets, console))
            .await?;
        let nodes = spec.nodes.iter().map(|part| self.node(part));
        crews.nodes = Crew::start(nodes, run, console)?;
        self.unless_fallen(crews, self.wait_for_nodes()).await
    }

    /// Does a part of the start while every child lives.
    async fn unless_fallen(
        &self,
        crews: &mut Crews,
        work: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let explain = |fallen| member::explain(&fallen, &self.cluster.spec, &self.cluster.console);
        let error = tokio::select! {
            fallen = crews.fallen() => return Err(explain(fallen)),
            done = work => match done {
                Ok(()) => return Ok(()),
                Err(error) => error,
            }
        };
        // A child's death is often seen first by those who speak to it; its own log says more.
        match timeout(AFTERMATH, crews.fallen()).await {
            Ok(fallen) => Err(explain(fallen)),
            Err(_) => Err(error),
        }
    }

    fn node(&self, part: &Part) -> Program {
        let uri = self.place.secret("node-uri");
        let key = self.place.secret("api-key");
        let secret = self.place.secret("cluster-secret");
        let spec = &self.cluster.spec;
        let mut command: Vec<OsString> = vec![
            THIS_PROGRAM.into(),
            "serve".into(),
            "--name".into(),
            part.name.clone().into(),
            "--listen".into(),
            part.host().into(),
            "--mongodb-file".into(),
            uri.into(),
            "--api-key-file".into(),
            key.into(),
            "--cluster".into(),
            spec.name.as_str().into(),
            "--cluster-secret-file".into(),
            secret.into(),
            format!("--assist-elections={}", self.assist_elections).into(),
        ];
        for peer in spec.nodes.iter().filter(|peer| peer.name != part.name) {
            let peer = format!("{}=http://{}", peer.name, peer.host());
            command.extend(["--peer".into(), peer.into()]);
        }
        Program {
            name: part.name.clone(),
            command,
            log: self.place.node_log(&part.name),
            folder: self.place.folder().join("secrets"),
            group: None,
            // All nodes stop: there is nobody to hand over to.
            stop_signal: Signal::INT,
            grace: NODE_GRACE,
        }
    }

    async fn wait_for_nodes(&self) -> Result<(), Error> {
        let web = Web::new();
        for node in &self.cluster.spec.nodes {
            let url = format!("http://{}/readyz", node.host());
            let ready = async || {
                let status = web.status(&url).await.ok()?;
                status.is_success().then_some(())
            };
            wait_until(&format!("{} to be ready", node.name), ready).await?;
            self.cluster
                .console
                .step(&format!("{} is ready", node.name));
        }
        Ok(())
    }

    /// Tells that the cluster is ready, and keeps it so.
    async fn attend(&self, crews: &Crews) -> Result<(), Error> {
        crews.members.keep();
        crews.nodes.keep();
        if self.background {
            let_go_of_terminal()?;
        }
        self.cluster.run.ready()?;
        let Prepared {
            spec, secrets, run, ..
        } = &self.cluster;
        let info = ClusterInfo::of(&self.place, spec, secrets, &run.read());
        if let Some(path) = &self.ready_file {
            info.write(path)?;
        }
        if !self.background {
            report::show(&report::block(&info, spec, self.place.folder()));
            self.cluster.console.step("ready; Ctrl-C stops the cluster");
        }
        self.stop.asked().await;
        Ok(())
    }

    /// Nodes first: they answer what they have begun while there is a replica set.
    async fn finish(&self, crews: &mut Crews) {
        if let Some(path) = &self.ready_file {
            let _ = fs::remove_file(path);
        }
        self.cluster
            .console
            .step("stopping; a second Ctrl-C stops at once");
        let in_order = async {
            crews.nodes.stop().await;
            if self.cluster.spec.ephemeral {
                // What a clean shutdown would save is deleted in a moment.
                crews.members.kill().await;
            } else {
                crews.members.stop().await;
            }
        };
        let insisted = tokio::select! {
            () = in_order => false,
            () = self.stop.insisted() => true,
        };
        if insisted {
            crews.nodes.kill().await;
            crews.members.kill().await;
        }
        if let Some(groups) = &self.groups
            && let Err(error) = groups.remove(&self.cluster.spec.members)
        {
            self.cluster.console.step(&error.to_string());
        }
        self.cluster.console.step("stopped");
    }
}

/// Whoever reads this process's output must see its end now, not when the cluster stops.
fn let_go_of_terminal() -> Result<(), Error> {
    let path = "/dev/null".as_ref();
    let nothing: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::io("open", path))?;
    rustix::stdio::dup2_stdout(&nothing)
        .and_then(|()| rustix::stdio::dup2_stderr(&nothing))
        .map_err(|error| Error::io("use", path)(error.into()))
}
