//! Which members there are, by the monitoring of the driver in use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mongodb::ServerType;
use mongodb::event::EventHandler;
use mongodb::event::sdam::{SdamEvent, TopologyDescription};
use mongodb::options::{ClientOptions, ServerAddress};
use tokio::sync::watch;

/// The members in the order of their names, with what the driver takes each for.
pub(super) type Seen = watch::Receiver<Servers>;
type Servers = Vec<(ServerAddress, ServerType)>;

/// What the driver in use has told of its replica set, of several that may be at work.
#[derive(Debug)]
pub(super) struct Sightings {
    by_driver: Mutex<ByDriver>,
    out: watch::Sender<Servers>,
}

#[derive(Debug, Default)]
struct ByDriver {
    in_use: u64,
    last: BTreeMap<u64, Servers>,
}

impl Default for Sightings {
    fn default() -> Self {
        Self {
            by_driver: Mutex::default(),
            out: watch::Sender::new(Vec::new()),
        }
    }
}

impl Sightings {
    pub fn seen(&self) -> Seen {
        self.out.subscribe()
    }

    /// Has the driver of this number tell what it finds out.
    pub fn follow(self: &Arc<Self>, driver: u64, options: &mut ClientOptions) {
        let sightings = self.clone();
        options.sdam_event_handler = Some(EventHandler::callback(move |event| {
            if let SdamEvent::TopologyDescriptionChanged(change) = event {
                sightings.take(driver, servers(&change.new_description));
            }
        }));
    }

    fn take(&self, driver: u64, servers: Servers) {
        let mut drivers = self.by_driver();
        if driver == drivers.in_use {
            self.out.send_replace(servers.clone());
        }
        // One that was in use before tells nothing any more, nor does one that was tried in vain.
        let in_use = drivers.in_use;
        if driver >= in_use {
            let stays = |known: &u64| *known == in_use || *known > driver;
            drivers.last.retain(|known, _| stays(known));
            drivers.last.insert(driver, servers);
        }
    }

    /// From now on this driver is in use, which was begun later than the one that was.
    pub fn turn_to(&self, driver: u64) {
        let mut drivers = self.by_driver();
        drivers.in_use = driver;
        drivers.last.retain(|known, _| *known >= driver);
        if let Some(servers) = drivers.last.get(&driver) {
            self.out.send_replace(servers.clone());
        }
    }

    fn by_driver(&self) -> MutexGuard<'_, ByDriver> {
        let drivers = self.by_driver.lock();
        drivers.unwrap_or_else(PoisonError::into_inner)
    }
}

fn servers(description: &TopologyDescription) -> Servers {
    let servers = description.servers();
    let mut servers: Vec<_> = servers
        .into_iter()
        .map(|(address, server)| (address.clone(), server.server_type()))
        .collect();
    servers.sort_by_key(|(address, _)| address.to_string());
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary_at(host: &str) -> Servers {
        vec![(ServerAddress::parse(host).unwrap(), ServerType::RsPrimary)]
    }

    #[test]
    fn only_the_driver_in_use_is_believed() {
        let sightings = Sightings::default();
        let seen = sightings.seen();
        let sees = |host| assert_eq!(*seen.borrow(), primary_at(host));
        sightings.take(0, primary_at("a:1"));
        for driver in 1..9 {
            sightings.take(driver, primary_at("a:2"));
        }
        sees("a:1");
        let known = sightings.by_driver().last.len();
        assert_eq!(known, 2, "those that were tried in vain are forgotten");
        sightings.turn_to(8);
        sees("a:2");
        sightings.take(0, primary_at("a:1"));
        sees("a:2");
        sightings.take(8, primary_at("a:3"));
        sees("a:3");
    }
}
