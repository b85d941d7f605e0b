//! Identifiers: request ids, batch ids, node names, namespaces and payload digests.

use std::fmt;
use std::sync::Arc;

use bson::{Document, Uuid};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::text::repeated;

/// An identifier that does not have the form it must have; the text says which form that is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidId(pub String);

/// The longest request id that is taken, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Names one request over all its tries. The client draws it and keeps it while it retries (the
/// `Idempotency-Key` header); for a client that gives none the node draws one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new random id.
    pub fn fresh() -> Self {
        Self(Uuid::new().to_string().into())
    }

    /// Takes 1 to [`REQUEST_ID_BYTES_MAX`] visible ASCII characters.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let fits = (1..=REQUEST_ID_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self(text.into()));
        }
        Err(InvalidId(format!(
            "a request id is 1 to {REQUEST_ID_BYTES_MAX} visible ASCII characters without spaces"
        )))
    }

    /// Takes an id bare, or quoted as the IETF draft of `Idempotency-Key` writes it; both name the same
    /// request, in a header and on the command line.
    pub fn read(text: &str) -> Result<Self, InvalidId> {
        let text = text.trim_ascii();
        let quoted = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        Self::parse(quoted.unwrap_or(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names the exact content of one batch: a batch that is built anew gets a new id, a batch that
/// is merely run again keeps its id. Resolving a position relies on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId([u8; 16]);

impl BatchId {
    pub fn fresh() -> Self {
        Self(Uuid::new().bytes())
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The first half, for a sequencer to derive its batch ids from.
    pub fn nonce(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).fmt(f)
    }
}

/// The longest node name, in bytes.
pub const NODE_NAME_BYTES_MAX: usize = 64;

/// The name of a node, unique in its cluster. It breaks ties between stamps and between ranks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// Takes 1 to [`NODE_NAME_BYTES_MAX`] ASCII letters, digits, `-`, `_` and `.`.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let fits = (1..=NODE_NAME_BYTES_MAX).contains(&text.len());
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if fits && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidId(format!(
            "a node name is 1 to {NODE_NAME_BYTES_MAX} letters, digits, '-', '_' or '.', like n1"
        )))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NodeName {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A collection in a database, written `database.collection`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace {
    database: String,
    collection: String,
}

/// MongoDB's bound on `database.collection`, in bytes.
const NAMESPACE_BYTES_MAX: usize = 255;
/// MongoDB's bound on a database name, in bytes.
const DATABASE_BYTES_MAX: usize = 63;

impl Namespace {
    /// Checks both names by MongoDB's rules, so that a bad name never reaches the server.
    pub fn new(database: &str, collection: &str) -> Result<Self, InvalidId> {
        check_database(database)?;
        check_collection(collection)?;
        if database.len() + 1 + collection.len() > NAMESPACE_BYTES_MAX {
            return Err(InvalidId(format!(
                "'{}' is longer than {NAMESPACE_BYTES_MAX} bytes",
                repeated(&format!("{database}.{collection}"))
            )));
        }
        Ok(Self {
            database: database.to_owned(),
            collection: collection.to_owned(),
        })
    }

    /// Splits `database.collection` at its first dot.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let (database, collection) = text.split_once('.').ok_or_else(|| {
            InvalidId(format!(
                "'{}' is not a namespace: write database.collection, like shop.orders",
                repeated(text)
            ))
        })?;
        Self::new(database, collection)
    }

    pub fn database(&self) -> &str {
        &self.database
    }

    pub fn collection(&self) -> &str {
        &self.collection
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.collection)
    }
}

fn check_database(name: &str) -> Result<(), InvalidId> {
    if name.is_empty() || name.len() > DATABASE_BYTES_MAX {
        return Err(InvalidId(format!(
            "a database name is 1 to {DATABASE_BYTES_MAX} bytes long, '{}' is not",
            repeated(name)
        )));
    }
    let banned = |c: char| matches!(c, '/' | '\\' | '.' | ' ' | '"' | '$' | '\0');
    match name.chars().find(|c| banned(*c)) {
        Some(c) => Err(InvalidId(format!(
            "a database name cannot hold {c:?}, '{}' does",
            repeated(name)
        ))),
        None => Ok(()),
    }
}

fn check_collection(name: &str) -> Result<(), InvalidId> {
    let why = if name.is_empty() {
        "is empty"
    } else if name.contains('\0') {
        "holds a null character"
    } else if name.contains('$') {
        "holds '$'"
    } else if name.starts_with('.') || name.ends_with('.') {
        "begins or ends with '.'"
    } else if name.starts_with("system.") {
        "begins with 'system.', which MongoDB keeps for itself"
    } else {
        return Ok(());
    };
    Err(InvalidId(format!(
        "the collection name '{}' {why}",
        repeated(name)
    )))
}

/// SHA-256 of what a request asks for. Two requests with one id must have one digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Hashes the parts with their kinds and lengths, so that no two lists of parts collide.
    pub fn of(kind: &str, namespace: &Namespace, documents: &[&Document]) -> Self {
        let mut hasher = Sha256::new();
        for text in [kind, namespace.database(), namespace.collection()] {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        for document in documents {
            // BSON begins with its own length. A document that cannot be encoded never gets here:
            // it was decoded from JSON or BSON just before.
            let bytes = document.to_vec().unwrap_or_default();
            hasher.update(bytes);
        }
        Self(hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn namespaces_follow_mongodb_rules() {
        let ns = Namespace::parse("shop.orders.2024").unwrap();
        assert_eq!((ns.database(), ns.collection()), ("shop", "orders.2024"));
        for bad in [
            "shop",
            ".x",
            "shop.",
            "a b.c",
            "a$.c",
            "shop.a$b",
            "shop..x",
            "shop.system.users",
            "a/b.c",
            "a\\b.c",
            "a\"b.c",
            "a\0.c",
            "shop.a\0b",
        ] {
            assert!(Namespace::parse(bad).is_err(), "{bad:?} was taken");
        }
        assert!(Namespace::parse(&format!("{}.c", "d".repeat(64))).is_err());
        assert!(Namespace::parse(&format!("d.{}", "c".repeat(254))).is_err());
        assert!(Namespace::parse(&format!("d.{}", "c".repeat(253))).is_ok());
    }

    #[test]
    fn request_ids_are_short_visible_ascii() {
        assert!(RequestId::parse("order-17/a").is_ok());
        for bad in ["", "a b", "a\n", "ü", &"x".repeat(REQUEST_ID_BYTES_MAX + 1)] {
            assert!(RequestId::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn digests_tell_payloads_apart() {
        let ns = Namespace::parse("a.b").unwrap();
        let other = Namespace::parse("a.c").unwrap();
        let one = Digest::of("insert", &ns, &[&doc! {"a": 1}]);
        assert_eq!(one, Digest::of("insert", &ns, &[&doc! {"a": 1}]));
        assert_ne!(one, Digest::of("insert", &ns, &[&doc! {"a": 1_i64}]));
        assert_ne!(one, Digest::of("insert", &other, &[&doc! {"a": 1}]));
        assert_ne!(one, Digest::of("delete", &ns, &[&doc! {"a": 1}]));
        assert_ne!(one, Digest::of("insert", &ns, &[&doc! {"a": 1}, &doc! {}]));
    }
}
