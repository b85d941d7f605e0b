//! How nodes of one cluster know each other: by proofs that they have its secret.
//!
//! The secret itself never travels: whoever happens to listen at a peer's address must not learn it.
//! A request proves it over a nonce of its own, and the reply over the same nonce, so that nobody
//! else can answer for a peer. What is said in between is not protected.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::Uuid;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use sha2::Sha256;
use thiserror::Error;

use crate::config::{ConfigError, Secret};
use crate::model::NodeName;

const CLUSTER: HeaderName = HeaderName::from_static("drumline-cluster");
const FROM: HeaderName = HeaderName::from_static("drumline-from");
const TO: HeaderName = HeaderName::from_static("drumline-to");
const NONCE: HeaderName = HeaderName::from_static("drumline-nonce");
const PROOF: HeaderName = HeaderName::from_static("drumline-proof");

/// Why a peer's message is not taken. The texts are for the peer's operator too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Error)]
pub enum Refused {
    #[error("the cluster secret is another one")]
    Secret,
    #[error("this node belongs to another cluster than '{0}'")]
    Cluster(String),
    #[error("this node is {here}, not '{wanted}'; correct the --peer of the sender")]
    Addressee { here: NodeName, wanted: String },
    #[error("'{0}' is not among the peers of this node; start it with a --peer for it")]
    Stranger(String),
}

/// What one node proves to another with each request, and checks in theirs.
#[derive(Clone)]
pub struct Credentials {
    me: NodeName,
    cluster: HeaderValue,
    mac: Hmac<Sha256>,
}

/// What a request was sent with, to check its reply.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    to: NodeName,
    nonce: String,
}

/// A request of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub from: NodeName,
    nonce: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({} of {:?})", self.me, self.cluster)
    }
}

impl Credentials {
    pub fn new(me: NodeName, cluster: &str, secret: &Secret) -> Result<Self, ConfigError> {
        let wrong = |_| ConfigError("the cluster's name must be visible ASCII characters".into());
        let empty = |_| ConfigError("the cluster secret cannot be used".into());
        Ok(Self {
            me,
            cluster: HeaderValue::from_str(cluster).map_err(wrong)?,
            mac: Hmac::new_from_slice(secret.expose().as_bytes()).map_err(empty)?,
        })
    }

    /// Puts a proof into a request to this peer.
    pub(super) fn write(&self, headers: &mut HeaderMap, to: &NodeName) -> Sent {
        let nonce = Uuid::new().to_string();
        let proof = self.over("request", self.cluster.as_bytes(), &self.me, to, &nonce);
        headers.insert(CLUSTER, self.cluster.clone());
        put(headers, FROM, self.me.as_str());
        put(headers, TO, to.as_str());
        put(headers, NONCE, &nonce);
        put(headers, PROOF, &encoded(proof));
        Sent {
            to: to.clone(),
            nonce,
        }
    }

    /// Who sends this, if it belongs to the cluster and means this node.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<Admitted, Refused> {
        let (from, wanted) = (text(headers, &FROM), text(headers, &TO));
        let nonce = text(headers, &NONCE);
        let cluster = text(headers, &CLUSTER);
        let sender = NodeName::parse(&from).map_err(|_| Refused::Secret)?;
        let meant = NodeName::parse(&wanted).map_err(|_| Refused::Secret)?;
        let expected = self.over("request", cluster.as_bytes(), &sender, &meant, &nonce);
        if !proves(headers, expected) {
            return Err(Refused::Secret);
        }
        if cluster.as_bytes() != self.cluster.as_bytes() {
            return Err(Refused::Cluster(cluster));
        }
        if meant != self.me {
            let here = self.me.clone();
            return Err(Refused::Addressee { here, wanted });
        }
        Ok(Admitted {
            from: sender,
            nonce,
        })
    }

    /// Puts the proof into the reply to a request.
    pub(super) fn sign(&self, headers: &mut HeaderMap, request: &Admitted) {
        let cluster = self.cluster.as_bytes();
        let proof = self.over("reply", cluster, &self.me, &request.from, &request.nonce);
        put(headers, PROOF, &encoded(proof));
    }

    /// Takes the proof out of a reply; whether it is that of the peer which was asked.
    pub(super) fn is_reply_to(&self, sent: &Sent, headers: &mut HeaderMap) -> bool {
        let cluster = self.cluster.as_bytes();
        let expected = self.over("reply", cluster, &sent.to, &self.me, &sent.nonce);
        let proves = proves(headers, expected);
        headers.remove(PROOF);
        proves
    }

    /// Names and nonces hold no line breaks, so no two different messages look the same.
    fn over(
        &self,
        kind: &str,
        cluster: &[u8],
        from: &NodeName,
        to: &NodeName,
        nonce: &str,
    ) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        for part in [
            kind.as_bytes(),
            cluster,
            from.as_str().as_bytes(),
            to.as_str().as_bytes(),
            nonce.as_bytes(),
        ] {
            mac.update(part);
            mac.update(b"\n");
        }
        mac
    }
}

fn encoded(mac: Hmac<Sha256>) -> String {
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Compares in a time that tells nothing about the proof.
fn proves(headers: &HeaderMap, expected: Hmac<Sha256>) -> bool {
    let shown = headers.get(PROOF).map_or(&b""[..], HeaderValue::as_bytes);
    let shown = STANDARD.decode(shown).unwrap_or_default();
    expected.verify_slice(&shown).is_ok()
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Names, nonces and proofs are signs that any header may hold.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    fn of(node: &str, cluster: &str, secret: &str) -> Credentials {
        Credentials::new(name(node), cluster, &Secret::new(secret.into())).unwrap()
    }

    fn sent(from: &Credentials, to: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let _ = from.write(&mut headers, &name(to));
        headers
    }

    #[test]
    fn only_the_same_cluster_with_the_same_secret_is_let_in() {
        let here = of("n2", "blue", "s1");
        let check = |from: Credentials, to| {
            let admitted = here.check(&sent(&from, to));
            admitted.map(|admitted| admitted.from)
        };
        assert_eq!(check(of("n1", "blue", "s1"), "n2"), Ok(name("n1")));
        assert_eq!(check(of("n1", "blue", "s2"), "n2"), Err(Refused::Secret));
        assert_eq!(check(of("n1", "blue", "S1"), "n2"), Err(Refused::Secret));
        let other = Err(Refused::Cluster("red".into()));
        assert_eq!(check(of("n1", "red", "s1"), "n2"), other);
        assert!(matches!(
            check(of("n1", "blue", "s1"), "n3"),
            Err(Refused::Addressee { .. })
        ));
        assert_eq!(here.check(&HeaderMap::new()), Err(Refused::Secret));
    }

    #[test]
    fn a_proof_is_for_one_sender_one_addressee_and_one_nonce() {
        let (one, here) = (of("n1", "blue", "s1"), of("n2", "blue", "s1"));
        for (header, other) in [
            ("from", "n3"),
            ("to", "n3"),
            ("nonce", "x"),
            ("cluster", "red"),
        ] {
            let mut headers = sent(&one, "n2");
            let header = HeaderName::try_from(format!("drumline-{header}")).unwrap();
            headers.insert(header, HeaderValue::from_static(other));
            assert_eq!(here.check(&headers), Err(Refused::Secret), "{other}");
        }
    }

    #[test]
    fn only_the_peer_that_was_asked_can_answer() {
        let (one, two) = (of("n1", "blue", "s1"), of("n2", "blue", "s1"));
        let mut request = HeaderMap::new();
        let asked = one.write(&mut request, &name("n2"));
        let admitted = two.check(&request).unwrap();
        let answered = |by: &Credentials| {
            let mut reply = HeaderMap::new();
            by.sign(&mut reply, &admitted);
            one.is_reply_to(&asked, &mut reply)
        };
        assert!(answered(&two));
        assert!(!answered(&of("n3", "blue", "s1")));
        assert!(!answered(&of("n2", "blue", "s2")));
        assert!(!one.is_reply_to(&asked, &mut HeaderMap::new()));
        let again = one.write(&mut HeaderMap::new(), &name("n2"));
        let mut reply = HeaderMap::new();
        two.sign(&mut reply, &admitted);
        assert!(!one.is_reply_to(&again, &mut reply), "an old reply");
    }

    #[test]
    fn the_secret_never_travels() {
        let headers = sent(&of("n1", "blue", "hunter2"), "n2");
        assert!(
            headers
                .values()
                .all(|value| !value.to_str().unwrap().contains("hunter2"))
        );
    }

    #[test]
    fn the_secret_is_never_shown() {
        assert!(!format!("{:?}", of("n1", "blue", "hunter2")).contains("hunter2"));
    }
}
