//! Why a compose project cannot be drilled, in words for the person who typed the command.

/// What went wrong between the drill and the docker engine. No text holds anything that a container printed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "there is no program `docker` on the PATH: install it, or drill a cluster of the drill's own with --fresh"
    )]
    NoProgram,
    #[error(
        "the docker engine does not answer: {0}; start it, and see that `docker ps` works for this user"
    )]
    NoEngine(String),
    #[error(
        "there is no compose project '{0}': start it with `docker compose -p {0} up -d`; `docker compose ls` lists all"
    )]
    NoProject(String),
    #[error(
        "another drill harms the compose project '{0}': wait until it ends, or drill a cluster of the drill's own with --fresh"
    )]
    Busy(String),
    /// It is there, and not what a drill needs.
    #[error("the compose project '{project}' cannot be drilled: {why}")]
    Unfit { project: String, why: String },
    #[error("`docker {what}` failed: {said}")]
    Refused { what: String, said: String },
    #[error("`docker {what}` did not end within {seconds} s")]
    Late { what: String, seconds: u64 },
    #[error("`docker {what}` told something else than expected: {why}")]
    Unreadable { what: String, why: String },
    #[error("{0} was told to end and has not: when it does, `docker start` it")]
    Endless(String),
    /// The cluster is not as it was.
    #[error(
        "the compose project '{project}' is not as it was: {why}; `docker compose -p {project} up -d --force-recreate` \
         makes its containers anew and keeps the data"
    )]
    NotPutBack { project: String, why: String },
}
