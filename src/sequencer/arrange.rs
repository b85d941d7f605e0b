//! The order inside a batch: requests of one kind beside each other, so that they can share a
//! command.
//!
//! All requests of a batch are in flight at the same time, so any order of them is a serial order
//! that no client can tell from its own. Requests that touch the same document keep the order in
//! which they arrived all the same, and so does everything around a request of unknown reach.

use std::collections::BTreeSet;

/// How many groups back a request may go. A bound on the work for a batch.
const LOOK_BACK_MAX: usize = 16;

/// What a request touches, as far as its payload alone tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Touches {
    /// Requests with one kind (collection and operation) may share a command.
    pub kind: u64,
    /// A hash of each document's collection and `_id`. Two documents with one hash only cost a
    /// command more.
    pub documents: Vec<u64>,
}

struct Group<T> {
    /// `None` for a request of unknown reach, which nothing passes.
    kind: Option<u64>,
    documents: BTreeSet<u64>,
    members: Vec<T>,
}

/// Puts requests of one kind beside each other.
pub fn arrange<T>(items: Vec<T>, touches: impl Fn(&T) -> Option<&Touches>) -> Vec<T> {
    let mut groups: Vec<Group<T>> = Vec::new();
    for item in items {
        let Some(own) = touches(&item).cloned() else {
            groups.push(Group {
                kind: None,
                documents: BTreeSet::new(),
                members: vec![item],
            });
            continue;
        };
        if let Some(at) = home(&groups, &own) {
            groups[at].documents.extend(own.documents);
            groups[at].members.push(item);
            continue;
        }
        groups.push(Group {
            kind: Some(own.kind),
            documents: own.documents.into_iter().collect(),
            members: vec![item],
        });
    }
    groups.into_iter().flat_map(|group| group.members).collect()
}

/// The nearest group before the end that a request may join without passing one that it depends on.
fn home<T>(groups: &[Group<T>], own: &Touches) -> Option<usize> {
    for (at, group) in groups.iter().enumerate().rev().take(LOOK_BACK_MAX) {
        let meets = own
            .documents
            .iter()
            .any(|one| group.documents.contains(one));
        if group.kind.is_none() || meets {
            return None;
        }
        if group.kind == Some(own.kind) {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Item = (char, Option<Touches>);

    /// `a1` is a request of kind a on document 1; `!` one of unknown reach.
    fn arranged(text: &str) -> String {
        let items: Vec<(&str, Item)> = text.split(' ').map(|word| (word, item(word))).collect();
        let words = arrange(items, |(_, (_, touches))| touches.as_ref());
        let words: Vec<_> = words.into_iter().map(|(word, _)| word).collect();
        words.join(" ")
    }

    fn item(word: &str) -> Item {
        let kind = word.chars().next().unwrap();
        let documents = word[1..].bytes().map(u64::from).collect();
        let touches = (kind != '!').then_some(Touches {
            kind: kind.into(),
            documents,
        });
        (kind, touches)
    }

    #[test]
    fn like_goes_to_like_and_dependence_keeps_its_order() {
        for (arrived, expected) in [
            ("a1 b2 a3 b4", "a1 a3 b2 b4"),
            ("a1 b1 a2", "a1 a2 b1"),
            ("a1 b1 a1", "a1 b1 a1"),
            ("a1 a1", "a1 a1"),
            ("a1 b2 a2", "a1 b2 a2"),
            ("a1 !x a2 b3 a4", "a1 !x a2 a4 b3"),
            ("a12 b3 a24 b2", "a12 b3 a24 b2"),
        ] {
            assert_eq!(arranged(arrived), expected, "{arrived}");
        }
    }

    #[test]
    fn nothing_passes_what_it_depends_on() {
        // Every order of six requests out of eight, by counting in base eight.
        let words = ["a1", "a2", "b1", "b2", "c12", "c3", "!x", "b3"];
        for number in 0..8_usize.pow(6) {
            let chosen = (0..6).map(|place| number / 8_usize.pow(place) % 8);
            let arrived: Vec<_> = chosen.map(|index| item(words[index])).collect();
            let items: Vec<_> = arrived.iter().cloned().enumerate().collect();
            let places: Vec<_> = arrange(items, |(_, (_, touches))| touches.as_ref())
                .into_iter()
                .map(|(place, _)| place)
                .collect();
            for (late, place) in places.iter().enumerate() {
                for passed in &places[late + 1..] {
                    let swapped = passed < place;
                    assert!(!swapped || commute(&arrived[*passed].1, &arrived[*place].1));
                }
            }
        }
    }

    fn commute(one: &Option<Touches>, other: &Option<Touches>) -> bool {
        let (Some(one), Some(other)) = (one, other) else {
            return false;
        };
        !one.documents
            .iter()
            .any(|document| other.documents.contains(document))
    }
}
