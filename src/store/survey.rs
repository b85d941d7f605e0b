//! Asks each host of a connection string what it is, and the primary what it promises, so that what
//! is wrong can be told by its name. The driver alone says of all of it that no server is available.
//!
//! Never changes anything. Never judges: [`ground`](super::ground) does.

use std::time::Duration;

use bson::{Bson, Document, doc};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mongodb::Client;
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, ConnectionString, ServerAddress, Tls};

use super::error::{StoreError, refusal_of};
use super::gate::Gate;
use super::ground::{Fault, Found, Inside, Intent, of_hello, of_hosts, of_inside};
use super::hello::{HelloReply, Role};
use super::knock::{self, Knocked};
use super::schema::{DATABASE, RESTORE, half_restored};
use super::{Guest, Store, within};

/// How long one host may take for one answer.
const ASK_MAX: Duration = Duration::from_secs(2);
/// How long all of it may take: two rounds to the hosts, and what the primary is asked.
const SURVEY_MAX: Duration = Duration::from_secs(8);
/// UserNotFound, Unauthorized, AuthenticationFailed.
const NO_USER_CODES: [i32; 3] = [11, 13, 18];
/// One question at a time to each host.
const PLACES: usize = 1;

/// Looks at what a connection string leads to. `None`: it can be served, as far as the user of the
/// connection string may see.
pub async fn survey(uri: &str) -> Result<Option<Fault>, StoreError> {
    let parsed = ClientOptions::parse(uri).await;
    let options = parsed.map_err(StoreError::from_connection_string)?;
    let fault = within(SURVEY_MAX, async { Ok(look_around(&options).await) });
    match fault.await {
        Err(StoreError::TimedOut(_)) => {
            let why = "does not answer".to_owned();
            let hosts = options
                .hosts
                .iter()
                .map(|host| (host.to_string(), why.clone()));
            Ok(Some(Fault::Unreachable(hosts.collect())))
        }
        other => other,
    }
}

async fn look_around(options: &ClientOptions) -> Option<Fault> {
    let intent = Intent {
        set: options.repl_set_name.clone(),
        direct: options.direct_connection == Some(true),
        has_login: options.credential.is_some(),
    };
    let mut found = ask_all(options, &options.hosts, &intent).await;
    if let Some(primary) = named_only(&found, &intent) {
        found.extend(ask_all(options, &[primary], &intent).await);
    }
    let primary = match of_hosts(&found, &intent) {
        Ok(primary) => primary,
        Err(fault) => return Some(fault),
    };
    let address = ServerAddress::parse(&primary).ok()?;
    look_inside(options, address, &intent).await
}

/// Asks all at once; a primary that fits ends the round, and who is silent is not waited for.
async fn ask_all(
    options: &ClientOptions,
    hosts: &[ServerAddress],
    intent: &Intent,
) -> Vec<(String, Found)> {
    let asked = hosts.iter().cloned().map(|host| ask(options.clone(), host));
    let mut asked: FuturesUnordered<_> = asked.collect();
    let mut all = Vec::new();
    while let Some((host, found)) = asked.next().await {
        let leads = matches!(&found, Found::Member(reply)
            if HelloReply(reply).role() == Role::Primary
                && of_hello(&host, reply, intent).is_none());
        all.push((host, found));
        if leads {
            break;
        }
    }
    all
}

/// The primary, if those who answered name one that the connection string does not.
fn named_only(found: &[(String, Found)], intent: &Intent) -> Option<ServerAddress> {
    if intent.direct {
        return None;
    }
    let named = found.iter().find_map(|(host, found)| match found {
        Found::Member(reply) if of_hello(host, reply, intent).is_none() => {
            HelloReply(reply).primary_host()
        }
        _ => None,
    })?;
    let new = found.iter().all(|(host, _)| *host != named);
    new.then(|| ServerAddress::parse(&named).ok())?
}

async fn ask(options: ClientOptions, address: ServerAddress) -> (String, Found) {
    let host = address.to_string();
    let has_tls = matches!(options.tls, Some(Tls::Enabled(_)));
    let found = match (&address, has_tls) {
        (ServerAddress::Tcp { host: name, port }, false) => {
            let port = port.unwrap_or(27_017);
            found_by(knock::hello(name, port).await, &host)
        }
        _ => ask_by_driver(&options, &address, &host).await,
    };
    (host, found)
}

fn found_by(knocked: Knocked, host: &str) -> Found {
    let host = host.to_owned();
    match knocked {
        Knocked::Hello(reply) => Found::Member(reply),
        Knocked::Nothing(why) => Found::Nothing(why),
        Knocked::Tls => Found::Fault(Fault::TlsDemanded(host)),
        Knocked::Foreign(what) => Found::Fault(Fault::Foreign { host, what }),
    }
}

/// Through TLS. A login is not needed for a `hello`, and would hide what else is wrong.
async fn ask_by_driver(options: &ClientOptions, address: &ServerAddress, host: &str) -> Found {
    let mut options = straight(options, address);
    options.credential = None;
    let error = match open_and_ask(options, doc! {"hello": 1}).await {
        Ok(Ok(reply)) => return Found::Member(reply),
        Ok(Err(error)) => error.kind.to_string(),
        // A file that is not there, or holds no certificate.
        Err(StoreError::ConnectionString(why)) => {
            let host = host.to_owned();
            return Found::Fault(Fault::TlsFails { host, why });
        }
        Err(error) => error.to_string(),
    };
    let ServerAddress::Tcp { host: name, port } = address else {
        return Found::Nothing("does not answer".into());
    };
    // In plain: who understands this has no TLS, and who speaks TLS was not content with ours.
    let host = host.to_owned();
    match knock::hello(name, port.unwrap_or(27_017)).await {
        Knocked::Hello(_) => Found::Fault(Fault::TlsNotSpoken(host)),
        Knocked::Nothing(why) => Found::Nothing(why),
        Knocked::Foreign(what) => Found::Fault(Fault::Foreign { host, what }),
        Knocked::Tls => Found::Fault(Fault::TlsFails {
            host,
            why: reason_in(&error),
        }),
    }
}

/// The driver wraps the reason into the state of its topology.
fn reason_in(text: &str) -> String {
    const BEFORE: &str = "I/O error: ";
    let reason = text.find(BEFORE).map(|at| &text[at + BEFORE.len()..]);
    let reason = reason.and_then(|rest| rest.split(", labels").next());
    let reason = reason.unwrap_or("the handshake is not completed");
    reason.chars().take(200).collect()
}

async fn look_inside(
    options: &ClientOptions,
    address: ServerAddress,
    intent: &Intent,
) -> Option<Fault> {
    let host = address.to_string();
    let gate = Gate::open(
        straight(options, &address),
        "looks at the ground",
        PLACES,
        0,
    )
    .ok()?;
    let first = ask_gate(&gate, doc! {"connectionStatus": 1, "showPrivileges": true}).await;
    let rights = match first {
        Ok(Ok(rights)) => rights,
        Ok(Err(error)) => return of_error(&error, &host, intent),
        Err(_) => {
            let why = "does not answer".to_owned();
            return Some(Fault::Unreachable(vec![(host, why)]));
        }
    };
    let nobody = is_nobody(&rights);
    let asked = inside(&gate, Some(rights)).await;
    match asked {
        Err(error) if nobody => of_error(&error, &host, intent),
        Ok(inside) => of_inside(&inside),
        Err(_) => None,
    }
}

fn is_nobody(rights: &Document) -> bool {
    let info = rights.get_document("authInfo").ok();
    let users = info.and_then(|info| info.get_array("authenticatedUsers").ok());
    users.is_none_or(Vec::is_empty)
}

fn of_error(error: &Error, host: &str, intent: &Intent) -> Option<Fault> {
    if matches!(error.kind.as_ref(), ErrorKind::Authentication { .. }) {
        return Some(Fault::WrongPassword(host.to_owned()));
    }
    let code = refusal_of(error)?.code;
    Fault::of_code(code, host, intent.has_login)
}

/// Connections that are open may be of a user who is gone by now. Whether there is one again, a new
/// connection tells.
async fn of_lost_login(error: &Error, uri: &str) -> Option<Fault> {
    let is_lost = matches!(error.kind.as_ref(), ErrorKind::Authentication { .. })
        || refusal_of(error).is_some_and(|refusal| NO_USER_CODES.contains(&refusal.code));
    if !is_lost {
        return None;
    }
    let anew = Box::pin(survey(uri)).await.ok()?;
    Some(anew.unwrap_or(Fault::StaleLogin))
}

/// What a member tells of its set. A user without a right gets the rest; `Err` is the refusal to one
/// who may see nothing at all.
async fn inside(gate: &Gate, rights: Option<Document>) -> Result<Inside, Error> {
    let known = |reply: Result<Result<Document, Error>, StoreError>| reply.ok()?.ok();
    let status = match ask_gate(gate, doc! {"replSetGetStatus": 1}).await {
        Ok(Err(error)) if rights.as_ref().is_some_and(is_nobody) => return Err(error),
        other => known(other),
    };
    let mut config = known(ask_gate(gate, doc! {"replSetGetConfig": 1}).await);
    let config = match config.as_mut().and_then(|reply| reply.remove("config")) {
        Some(Bson::Document(config)) => Some(config),
        _ => None,
    };
    let version = doc! {"getParameter": 1, "featureCompatibilityVersion": 1};
    let version = known(ask_gate(gate, version).await);
    let compatibility = version.and_then(|reply| {
        let told = reply.get_document("featureCompatibilityVersion").ok()?;
        told.get_str("version").ok().map(str::to_owned)
    });
    let note = doc! { "find": RESTORE, "limit": 1 };
    let note = known(ask_gate_of(gate, DATABASE, note).await);
    let restore = note.and_then(|reply| {
        let found = reply.get_document("cursor").ok()?.get_array("firstBatch");
        half_restored(found.ok()?.first()?.as_document()?)
    });
    Ok(Inside {
        rights,
        status,
        config,
        compatibility,
        restore,
    })
}

/// The options of a connection to this host alone, whatever it is.
fn straight(options: &ClientOptions, address: &ServerAddress) -> ClientOptions {
    let mut options = options.clone();
    options.hosts = vec![address.clone()];
    options.app_name = Some("drumline".to_owned());
    options.direct_connection = Some(true);
    options.repl_set_name = None;
    options.load_balanced = None;
    options.srv_max_hosts = None;
    options.connect_timeout = Some(ASK_MAX);
    options.server_selection_timeout = Some(ASK_MAX);
    options.retry_reads = Some(false);
    options.retry_writes = Some(false);
    options.write_concern = None;
    options.read_concern = None;
    options.selection_criteria = None;
    options.min_pool_size = None;
    options
}

async fn open_and_ask(
    options: ClientOptions,
    command: Document,
) -> Result<Result<Document, Error>, StoreError> {
    let gate = Gate::open(options, "looks at the ground", PLACES, 0)?;
    ask_gate(&gate, command).await
}

/// The driver's own error is kept: its kind is what there is to learn.
async fn ask_gate(gate: &Gate, command: Document) -> Result<Result<Document, Error>, StoreError> {
    ask_gate_of(gate, "admin", command).await
}

async fn ask_gate_of(
    gate: &Gate,
    database: &'static str,
    command: Document,
) -> Result<Result<Document, Error>, StoreError> {
    let call = |client: Client| async move {
        let answer = client.database(database).run_command(command).await;
        Ok::<_, StoreError>(answer)
    };
    gate.call(ASK_MAX * 2, call).await
}

fn is_direct(uri: &str) -> bool {
    let parsed = ConnectionString::parse(uri);
    parsed.is_ok_and(|parsed| parsed.direct_connection == Some(true))
}

impl Guest {
    /// Whether what the connection string leads to can take a write at all. On some ground a write
    /// would neither be done nor refused.
    pub async fn can_write(&self, uri: &str) -> Result<(), Fault> {
        match self.store.can_write(is_direct(uri)).await {
            Some(fault) => fault.map_or(Ok(()), Err),
            // Nobody answers: why, it is said at once rather than after the write has tried.
            None => match Box::pin(survey(uri)).await {
                Ok(Some(fault)) => Err(fault),
                _ => Ok(()),
            },
        }
    }
}

impl Store {
    /// Asks the primary, by the connections that are open, what [`survey`] asks it.
    pub async fn look_inside(&self, uri: &str) -> Option<Fault> {
        let intent = Intent {
            direct: is_direct(uri),
            ..Intent::default()
        };
        let hello = ask_gate(&self.vital, doc! {"hello": 1}).await.ok()?.ok()?;
        let host = hello.get_str("me").unwrap_or("the host").to_owned();
        if let Some(fault) = of_hello(&host, &hello, &intent) {
            return Some(fault);
        }
        let rights = doc! {"connectionStatus": 1, "showPrivileges": true};
        let rights = match ask_gate(&self.vital, rights).await {
            Ok(Ok(rights)) => rights,
            Ok(Err(error)) => return of_lost_login(&error, uri).await,
            Err(_) => return None,
        };
        match inside(&self.vital, Some(rights)).await {
            Ok(inside) => of_inside(&inside),
            Err(error) => of_lost_login(&error, uri).await,
        }
    }

    /// Asks the one that a write would go to whether it is of a set that can take it: two short
    /// commands. `direct`: the connection string names one member and no other may answer. `None`:
    /// there is no answer.
    async fn can_write(&self, direct: bool) -> Option<Option<Fault>> {
        let intent = Intent {
            direct,
            ..Intent::default()
        };
        let known = |reply: Result<Result<Document, Error>, StoreError>| reply.ok()?.ok();
        let hello = known(ask_gate(&self.looks, doc! {"hello": 1}).await)?;
        let host = hello.get_str("me").unwrap_or("the host").to_owned();
        if let Some(fault) = of_hello(&host, &hello, &intent) {
            return Some(Some(fault));
        }
        let config = ask_gate(&self.looks, doc! {"replSetGetConfig": 1}).await;
        let config = known(config).and_then(|reply| reply.get_document("config").ok().cloned());
        let inside = Inside {
            config,
            ..Inside::default()
        };
        Some(of_inside(&inside))
    }

    /// Whether the primary answers at once.
    pub async fn is_there(&self) -> bool {
        self.primary_answers().await
    }
}

#[cfg(test)]
mod tests {
    use super::reason_in;

    #[test]
    fn the_reason_is_taken_out_of_the_drivers_text() {
        let text = "Server selection timeout: No available servers. Topology: { Type: Single, \
            Servers: [ { Address: a:1, Type: Unknown, Error: Kind: I/O error: invalid peer \
            certificate: UnknownIssuer, labels: {}, source: None, server response: None } ] }";
        assert_eq!(reason_in(text), "invalid peer certificate: UnknownIssuer");
        assert_eq!(reason_in("else"), "the handshake is not completed");
    }
}
