//! What the peers say that find no primary, and when their word is worth a knock at it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::NodeName;

/// How often a node knocks on a word that it has heard before. A peer that alone cannot reach the primary
/// repeats its word with each heartbeat, for hours it may be, and each knock is a few connections.
const KNOCK_REST: Duration = Duration::from_secs(1);

/// What was heard, and what came of it.
#[derive(Debug, Default)]
pub struct Hearsay {
    /// Of each peer: the term of the primary that it misses, and when it last said so.
    said: BTreeMap<NodeName, (i64, Instant)>,
    /// Something was said for the first time, and nobody has knocked since.
    news: bool,
    knocked_at: Option<Instant>,
}

impl Hearsay {
    /// A peer misses the primary of this term.
    pub fn heard(&mut self, node: NodeName, term: i64, now: Instant) {
        let before = self.said.insert(node, (term, now));
        self.news |= before.is_none_or(|(known, _)| known != term);
    }

    /// Whether to knock now. It counts as done if so.
    pub fn takes_a_knock(&mut self, now: Instant) -> bool {
        let rested = |at: Instant| now >= at + KNOCK_REST;
        if !self.news && !self.knocked_at.is_none_or(rested) {
            return false;
        }
        self.news = false;
        self.knocked_at = Some(now);
        true
    }

    /// Takes out those that have said nothing for longer than this.
    pub fn hushed(&mut self, patience: Duration, now: Instant) -> Vec<NodeName> {
        let mut hushed = Vec::new();
        self.said.retain(|node, (_, at)| {
            let old = now > *at + patience;
            if old {
                hushed.push(node.clone());
            }
            !old
        });
        hushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(100);

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    /// How many of so many heartbeats bring a knock, if a peer repeats itself with each.
    fn knocks(hearsay: &mut Hearsay, node: &str, begin: Instant, beats: u32) -> usize {
        let knocks = (0..beats).filter(|beat| {
            let now = begin + BEAT * *beat;
            hearsay.heard(name(node), 5, now);
            hearsay.takes_a_knock(now)
        });
        knocks.count()
    }

    #[test]
    fn a_word_that_is_repeated_brings_a_knock_at_once_and_then_one_a_second() {
        let mut hearsay = Hearsay::default();
        let begin = Instant::now();
        assert_eq!(knocks(&mut hearsay, "b", begin, 1), 1);
        assert_eq!(knocks(&mut hearsay, "b", begin + BEAT, 9), 0);
        assert_eq!(knocks(&mut hearsay, "b", begin + BEAT * 10, 600), 60);
    }

    #[test]
    fn a_first_word_brings_a_knock_whatever_others_repeat() {
        let mut hearsay = Hearsay::default();
        let now = Instant::now();
        assert_eq!(knocks(&mut hearsay, "b", now, 3), 1);
        hearsay.heard(name("c"), 5, now + BEAT * 3);
        assert!(hearsay.takes_a_knock(now + BEAT * 3), "another peer");
        hearsay.heard(name("b"), 6, now + BEAT * 4);
        assert!(hearsay.takes_a_knock(now + BEAT * 4), "another primary");
        hearsay.heard(name("b"), 6, now + BEAT * 5);
        assert!(!hearsay.takes_a_knock(now + BEAT * 5));
    }

    #[test]
    fn a_first_word_that_comes_while_a_knock_is_under_way_brings_the_next() {
        let mut hearsay = Hearsay::default();
        let now = Instant::now();
        assert_eq!(knocks(&mut hearsay, "b", now, 1), 1);
        hearsay.heard(name("c"), 5, now + BEAT);
        hearsay.heard(name("b"), 5, now + BEAT * 2);
        assert!(hearsay.takes_a_knock(now + BEAT * 2));
    }

    #[test]
    fn who_was_silent_for_a_while_is_hushed_and_news_when_it_speaks_again() {
        let mut hearsay = Hearsay::default();
        let now = Instant::now();
        assert_eq!(knocks(&mut hearsay, "b", now, 1), 1);
        hearsay.heard(name("c"), 5, now + BEAT * 3);
        assert_eq!(hearsay.hushed(BEAT * 3, now + BEAT * 3), []);
        assert_eq!(hearsay.hushed(BEAT * 3, now + BEAT * 4), [name("b")]);
        assert_eq!(hearsay.hushed(BEAT * 3, now + BEAT * 4), []);
        assert_eq!(knocks(&mut hearsay, "b", now + BEAT * 4, 1), 1);
    }
}
