//! The client's own Lamport clock.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The longest token that is kept, in bytes. Those of Drumline's nodes are shorter.
const TOKEN_BYTES_MAX: usize = 512;

/// What a node gave with a reply, to be sent back as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(String);

impl Token {
    /// Takes what a header and a line of a file can hold: visible ASCII, up to 512 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=TOKEN_BYTES_MAX).contains(&text.len());
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        (fits && visible).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How much of the serial order a client has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// The counter of the largest stamp; 0 if it has seen none.
    pub t: i64,
    /// The token that came with this stamp.
    pub token: Option<Token>,
}

/// The largest stamp that this client has seen. It goes out with each request, so that whatever
/// the client does next is stamped later than all it has seen, whichever server does it.
#[derive(Debug, Default)]
pub struct Clock(Mutex<Seen>);

impl Clock {
    pub const fn at(seen: Seen) -> Self {
        Self(Mutex::new(seen))
    }

    pub fn now(&self) -> i64 {
        self.lock().t
    }

    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Never goes back.
    pub fn witness(&self, reply: Seen) {
        let mut seen = self.lock();
        if reply > *seen {
            *seen = reply;
        }
    }

    /// Begins anew at a stamp of another log.
    pub fn restart(&self, t: i64) {
        *self.lock() = Seen { t, token: None };
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(t: i64, token: Option<&str>) -> Seen {
        let token = token.map(|text| Token::parse(text).unwrap());
        Seen { t, token }
    }

    #[test]
    fn the_token_is_the_one_that_came_with_the_largest_stamp() {
        let clock = Clock::default();
        for (reply, then) in [
            (seen(5, Some("b")), seen(5, Some("b"))),
            (seen(3, Some("c")), seen(5, Some("b"))),
            (seen(5, None), seen(5, Some("b"))),
            (seen(9, Some("a")), seen(9, Some("a"))),
            // A token of an older stamp would promise less.
            (seen(10, None), seen(10, None)),
        ] {
            clock.witness(reply);
            assert_eq!(clock.seen(), then);
        }
    }

    #[test]
    fn tokens_are_short_and_visible() {
        assert!(Token::parse(&"x".repeat(TOKEN_BYTES_MAX)).is_some());
        for text in ["", "a b", "a\n", "ü", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(Token::parse(text), None, "{text:?}");
        }
    }
}
