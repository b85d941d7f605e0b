//! The reply to `hello`: what a member says of itself.

use bson::{Bson, DateTime, Document, Timestamp};

/// What a member does in its replica set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    Secondary,
    /// Starting, copying data, or not part of a set yet.
    Other,
}

/// Reads the reply; what a member leaves out is `None` or `false`.
#[derive(Debug, Clone, Copy)]
pub(super) struct HelloReply<'a>(pub(super) &'a Document);

impl<'a> HelloReply<'a> {
    pub(super) fn role(self) -> Role {
        if self.is("isWritablePrimary") {
            return Role::Primary;
        }
        match self.is("secondary") {
            true => Role::Secondary,
            false => Role::Other,
        }
    }

    /// The term in which it was elected, if it is primary: the last eight bytes of the election's id.
    pub(super) fn elected_in(self) -> Option<i64> {
        let id = self.0.get_object_id("electionId").ok()?.bytes();
        let term: [u8; 8] = id[4..].try_into().ok()?;
        Some(i64::from_be_bytes(term))
    }

    /// The time of the last write that it has applied, and the term of its primary.
    pub(super) fn applied(self) -> Option<(Timestamp, i64)> {
        optime(self.last_write()?, "opTime")
    }

    /// The same of the last write that it knows a majority to hold.
    pub(super) fn committed(self) -> Option<(Timestamp, i64)> {
        optime(self.last_write()?, "majorityOpTime")
    }

    /// When the last write that it has applied was made, in whole seconds.
    pub(super) fn applied_at(self) -> Option<DateTime> {
        let at = self.last_write()?.get_datetime("lastWriteDate");
        at.ok().copied()
    }

    /// The name of its replica set; `None` before that is initiated.
    pub(super) fn set_name(self) -> Option<String> {
        self.text("setName")
    }

    /// The host of the primary that it knows.
    pub(super) fn primary_host(self) -> Option<String> {
        self.text("primary")
    }

    /// All members of its set that hold data.
    pub(super) fn hosts(self) -> Vec<String> {
        let hosts = self.0.get_array("hosts").into_iter().flatten();
        hosts.filter_map(Bson::as_str).map(str::to_owned).collect()
    }

    fn is(self, key: &str) -> bool {
        self.0.get_bool(key).unwrap_or(false)
    }

    fn text(self, key: &str) -> Option<String> {
        self.0.get_str(key).ok().map(str::to_owned)
    }

    fn last_write(self) -> Option<&'a Document> {
        self.0.get_document("lastWrite").ok()
    }
}

fn optime(last_write: &Document, key: &str) -> Option<(Timestamp, i64)> {
    let optime = last_write.get_document(key).ok()?;
    let at = optime.get_timestamp("ts").ok()?;
    Some((at, optime.get_i64("t").ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;
    use bson::oid::ObjectId;

    #[test]
    fn a_primary_shows_its_term_before_it_writes() {
        let mut id = [0xff; 12];
        id[0] = 0x7f;
        id[4..].copy_from_slice(&7_u64.to_be_bytes());
        let ts = Timestamp {
            time: 9,
            increment: 2,
        };
        let reply = doc! {
            "isWritablePrimary": true, "hosts": ["a:1", "b:1"], "setName": "s",
            "electionId": ObjectId::from_bytes(id),
            "lastWrite": {
                "opTime": {"ts": ts, "t": 6_i64}, "majorityOpTime": {"ts": ts, "t": 5_i64},
                "lastWriteDate": DateTime::from_millis(9_000),
            },
        };
        let hello = HelloReply(&reply);
        assert_eq!(hello.role(), Role::Primary);
        assert_eq!(hello.elected_in(), Some(7));
        assert_eq!(
            (hello.applied(), hello.committed()),
            (Some((ts, 6)), Some((ts, 5)))
        );
        assert_eq!(hello.applied_at(), Some(DateTime::from_millis(9_000)));
        assert_eq!(hello.hosts(), ["a:1", "b:1"]);
        assert_eq!(hello.set_name().as_deref(), Some("s"));
    }

    #[test]
    fn what_a_member_leaves_out_is_not_made_up() {
        let reply = doc! {"isWritablePrimary": false, "isreplicaset": true};
        let hello = HelloReply(&reply);
        assert_eq!(hello.role(), Role::Other);
        assert_eq!(hello.elected_in(), None);
        assert_eq!((hello.applied(), hello.committed()), (None, None));
        assert_eq!((hello.applied_at(), hello.set_name()), (None, None));
        assert!(hello.hosts().is_empty());
    }
}
