//! `drumline repair`.

use super::Exit;
use super::args::Remote;
use super::exit::{ExitError, say};
use super::route;
use super::up::block_on;
use crate::model::{BatchId, NodeName};
use crate::store::{LogFault, Store, StoreError};

/// Show whether somebody has changed the log behind the nodes, and let them go on with it.
///
/// A node whose log was dropped, emptied, restored from an older day or has lost a document takes no
/// writes, so that nothing is executed twice. The best way out is to put the log back as it was:
/// then the nodes go on by themselves. Where that cannot be done, this command accepts the log as it
/// is. What was lost of it is not known any more: a retry of a request from there is executed again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Accept the log as it is
    #[arg(long)]
    confirm: bool,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let settings = args.remote.settings()?;
    let uri = route::mongodb(&args.remote, &settings)?;
    block_on(async move {
        let name = format!("repair-{:016x}", BatchId::fresh().nonce());
        let name = NodeName::parse(&name).map_err(|error| ExitError::usage(error.to_string()))?;
        let store = Store::connect(uri.expose(), name).await.map_err(failed)?;
        let fault = store.examine().await.map_err(failed)?;
        match &fault {
            None => say("the log is whole, by all that is stored in MongoDB"),
            Some(fault) => say(&format!("{fault}")),
        }
        if !args.confirm {
            if fault.is_none() {
                return Ok(Exit::Ok);
            }
            say("nothing was changed; --confirm accepts the log as it is");
            return Ok(Exit::Failed);
        }
        if let Some(LogFault::Foreign { .. }) = fault {
            say("nothing was changed: that document must be taken out by hand first");
            return Ok(Exit::Failed);
        }
        if let Some(LogFault::HalfRestored(_)) = fault {
            say("nothing was changed: the restore must come to its end first");
            return Ok(Exit::Failed);
        }
        // Nodes that run may know more than what is stored: where all of it was dropped, say.
        let position = store.repair(fault.as_ref()).await.map_err(failed)?;
        say(&format!(
            "the log goes on from position {position}; nodes that run notice within seconds"
        ));
        Ok(Exit::Ok)
    })?
}

fn failed(error: StoreError) -> anyhow::Error {
    anyhow::Error::new(error.into_failure())
}
