//! Which members there are, and which is primary, by the driver's own monitoring.

use std::time::Duration;

use mongodb::ServerType;
use mongodb::event::EventHandler;
use mongodb::event::sdam::{SdamEvent, TopologyDescription};
use mongodb::options::{ClientOptions, ServerAddress};
use tokio::sync::watch;

use super::error::StoreError;
use super::within;

/// The members in the order of their names, with what the driver takes each for.
pub(super) type Seen = watch::Receiver<Vec<(ServerAddress, ServerType)>>;

/// Follows what a driver with these options will find out about its replica set.
pub(super) fn follow(options: &mut ClientOptions) -> (Seen, Primary) {
    let (seen_out, seen) = watch::channel(Vec::new());
    let (primary_out, primary) = watch::channel(None);
    options.sdam_event_handler = Some(EventHandler::callback(move |event| {
        if let SdamEvent::TopologyDescriptionChanged(change) = event {
            let servers = servers(&change.new_description);
            let primary = primary_of(&servers);
            seen_out.send_replace(servers);
            primary_out.send_if_modified(|known| {
                let differs = *known != primary;
                *known = primary;
                differs
            });
        }
    }));
    (seen, Primary(primary))
}

fn servers(description: &TopologyDescription) -> Vec<(ServerAddress, ServerType)> {
    let servers = description.servers();
    let mut servers: Vec<_> = servers
        .into_iter()
        .map(|(address, server)| (address.clone(), server.server_type()))
        .collect();
    servers.sort_by_key(|(address, _)| address.to_string());
    servers
}

fn primary_of(servers: &[(ServerAddress, ServerType)]) -> Option<ServerAddress> {
    let mut servers = servers.iter();
    let primary = servers.find(|(_, kind)| *kind == ServerType::RsPrimary);
    primary.map(|(address, _)| address.clone())
}

/// The member that the driver takes for primary. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Primary(watch::Receiver<Option<ServerAddress>>);

impl Primary {
    /// Waits until a member becomes primary.
    pub async fn next(&self) {
        let mut primary = self.0.clone();
        primary.mark_unchanged();
        while primary.changed().await.is_ok() {
            if primary.borrow_and_update().is_some() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Gives a call to the primary up when another member becomes primary: one that is frozen or cut
    /// off would not answer, and now there is somebody to ask. What it did is unknown.
    pub async fn lasting<T>(&self, call: impl Future<Output = T>) -> Result<T, StoreError> {
        tokio::select! {
            result = call => Ok(result),
            () = succeeded(self.0.clone()) => Err(StoreError::Unavailable(
                "another member became primary".into(),
            )),
        }
    }

    /// The same for a call that is bounded in time too.
    pub async fn bounded<T>(
        &self,
        time: Duration,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.lasting(within(time, call)).await?
    }
}

/// Waits until another member is primary than the one that is, or that comes next.
async fn succeeded(mut primary: watch::Receiver<Option<ServerAddress>>) {
    let mut known = primary.borrow_and_update().clone();
    while primary.changed().await.is_ok() {
        let now = primary.borrow_and_update().clone();
        match (&known, now) {
            (Some(before), Some(now)) if *before != now => return,
            (None, Some(now)) => known = Some(now),
            _ => {}
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt as _;

    use super::*;

    fn member(host: &str) -> Option<ServerAddress> {
        ServerAddress::parse(host).ok()
    }

    #[tokio::test]
    async fn a_call_ends_when_another_member_is_primary_and_not_before() {
        let (out, primary) = watch::channel(member("a:1"));
        let primary = Primary(primary);
        let call = primary.lasting::<()>(pending());
        tokio::pin!(call);
        for now in [member("a:1"), None, member("a:1"), None] {
            out.send_replace(now);
            assert!(
                (&mut call).now_or_never().is_none(),
                "nobody else is primary"
            );
        }
        out.send_replace(member("b:1"));
        assert!(matches!(call.await, Err(StoreError::Unavailable(_))));
    }

    #[tokio::test]
    async fn a_call_that_waits_for_the_first_primary_is_left_alone() {
        let (out, primary) = watch::channel(None);
        let primary = Primary(primary);
        let call = primary.lasting::<()>(pending());
        tokio::pin!(call);
        assert!((&mut call).now_or_never().is_none());
        out.send_replace(member("a:1"));
        assert!((&mut call).now_or_never().is_none(), "the call goes there");
        out.send_replace(member("b:1"));
        assert!(matches!(call.await, Err(StoreError::Unavailable(_))));
    }
}
