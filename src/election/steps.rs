//! What goes into the [machine](super::machine) and what comes out of it.

use crate::model::{Beat, Epoch, Liveness, Message, NodeName, Tenure};

/// What happens to the machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// The node begins.
    Start,
    /// A peer's message, or its reply to one of ours (a [`Message::Heartbeat`]).
    Heard {
        from: NodeName,
        beat: Beat,
        message: Message,
    },
    /// The failure detector has changed its mind.
    Became(NodeName, Liveness),
    /// Nothing listens at a peer's address. Tells more than silence does.
    Refused(NodeName),
    /// Whether this node reaches MongoDB's primary.
    Reaches(bool),
    Timeout(Timer),
    /// The look of [`Output::Look`] has ended.
    Looked(Looked),
    /// This node's claim is in the log.
    Claimed(Epoch),
    NotClaimed(NotClaimed),
    /// The log was changed behind the nodes: nobody can serve until it is mended.
    LogFault,
    /// The sequencer met a later epoch: another node has claimed.
    Deposed(Epoch),
    /// The sequencer has finished what it ran and begins nothing more.
    Drained,
    /// The node is about to stop.
    Leave,
}

/// What a look at the log and at the coordinator's signs of life shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Looked {
    /// Nothing moved while it lasted. The claim that stands last, if there is one.
    Quiet(Option<Tenure>),
    /// This coordinator is at work, whatever the network between us says.
    Active(Tenure),
    /// MongoDB did not answer.
    Unreachable,
}

/// Why a claim is not in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NotClaimed {
    /// Another claim came first.
    Superseded(Tenure),
    /// The log ends in this epoch, before the one that was heard of.
    Behind(Epoch),
    /// MongoDB did not answer. The claim may still appear; then its epoch passes without a
    /// coordinator.
    Unreachable,
}

/// A timer. There is one of each kind; setting it starts it anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// How long a new node waits for its peers before it stands.
    Discover,
    /// How long larger ranks may take to answer.
    Answer,
    /// How long whoever is to be coordinator may take to say so.
    Coordinator,
    /// How long a coordinator that was only told of may take to be heard.
    Confirm,
    /// How long a coordinator is left in peace by larger ranks.
    Dwell,
    /// How long a coordinator may be without MongoDB while peers reach it.
    Abdicate,
}

/// How long a look watches for signs of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Patience {
    /// One look: the coordinator itself says that it is none.
    None,
    /// Its address refuses connections: almost certainly dead, but a firewall can do that too.
    Short,
    /// It is silent: frozen, or cut off from this node alone.
    Long,
}

/// What the task is to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    Send(NodeName, Message),
    SetTimer(Timer),
    /// Look at the log and watch for signs of life; answer with [`Input::Looked`]. A new look takes
    /// the place of one that runs.
    Look(Patience),
    /// Append a claim if the log's last epoch is this one; answer with [`Input::Claimed`] or
    /// [`Input::NotClaimed`].
    Claim {
        over: Epoch,
    },
    /// Serve by the claim of this epoch.
    Serve(Epoch),
    /// Finish the batch that runs and begin no other; answer with [`Input::Drained`].
    Drain,
    /// Begin no other batch in an epoch before this one; what runs is in doubt.
    StepDown {
        before: Epoch,
    },
}
