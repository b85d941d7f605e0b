//! Counts connections by what they do, from the driver's own events.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::options::ClientOptions;

/// How many connections of one kind there are, by what they do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Being made.
    pub opening: u64,
    /// Open, and not in use.
    pub unused: u64,
    /// In use by a call.
    pub used: u64,
}

/// What drivers have told of their connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Each connection by its driver, member and number, and whether it is open already.
    open: Mutex<BTreeMap<(u64, String, u32), bool>>,
    used: AtomicI64,
}

impl Connections {
    /// Has the driver of this number tell of its connections.
    pub fn follow(&self, driver: u64, options: &mut ClientOptions) {
        let told = self.clone();
        let take = move |event| told.take(driver, &event);
        options.cmap_event_handler = Some(EventHandler::callback(take));
    }

    fn take(&self, driver: u64, event: &CmapEvent) {
        use CmapEvent as Event;
        let (address, id, open) = match event {
            Event::ConnectionCheckedOut(_) => {
                self.0.used.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Event::ConnectionCheckedIn(_) => {
                self.0.used.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            Event::ConnectionCreated(it) => (&it.address, it.connection_id, Some(false)),
            Event::ConnectionReady(it) => (&it.address, it.connection_id, Some(true)),
            Event::ConnectionClosed(it) => (&it.address, it.connection_id, None),
            _ => return,
        };
        self.set((driver, address.to_string(), id), open);
    }

    fn set(&self, connection: (u64, String, u32), open: Option<bool>) {
        let mut all = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open {
            Some(open) => all.insert(connection, open),
            None => all.remove(&connection),
        };
    }

    pub fn read(&self) -> Counts {
        let all = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.values().filter(|open| **open).count() as u64;
        // One that was given up while it was made is given back without having been taken.
        let used = u64::try_from(self.0.used.load(Ordering::Relaxed)).unwrap_or(0);
        Counts {
            opening: all.len() as u64 - open,
            unused: open.saturating_sub(used),
            used,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_two_drivers_are_told_apart() {
        let connections = Connections::default();
        let first = (0, "a:1".to_owned(), 1);
        connections.set(first.clone(), Some(false));
        connections.set((1, "a:1".to_owned(), 1), Some(true));
        let counts = |opening, unused| Counts {
            opening,
            unused,
            used: 0,
        };
        assert_eq!(connections.read(), counts(1, 1));
        connections.set(first, None);
        assert_eq!(connections.read(), counts(0, 1));
    }
}
