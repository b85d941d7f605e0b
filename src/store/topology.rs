//! Which member is primary, by the driver's own monitoring.

use std::sync::Arc;

use bson::doc;
use mongodb::options::{SelectionCriteria, ServerAddress};
use mongodb::{ServerInfo, ServerType};
use tokio::sync::watch;

use super::SELECTION_MAX;
use super::error::StoreError;
use super::gate::Gate;
use super::sightings::Seen;

fn primary_of(servers: &[(ServerAddress, ServerType)]) -> Option<ServerAddress> {
    let mut servers = servers.iter();
    let primary = servers.find(|(_, kind)| *kind == ServerType::RsPrimary);
    primary.map(|(address, _)| address.clone())
}

/// The member that the driver takes for primary. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Primary(watch::Receiver<Option<ServerAddress>>);

impl Primary {
    /// Follows the primary that a driver sends its calls to. Ends when nobody asks for it any more.
    pub fn of(gate: &Gate, seen: &Seen) -> Self {
        let (out, primary) = watch::channel(None);
        let gate = gate.clone();
        let used = move |primary| is_used(gate.clone(), primary);
        tokio::spawn(tell(seen.clone(), out, used));
        Self(primary)
    }

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

    /// Waits for a call to the primary no longer when another member becomes primary: one that is frozen or cut
    /// off would not answer, and now there is somebody to ask. What it did is unknown.
    pub async fn lasting<T>(&self, call: impl Future<Output = T>) -> Result<T, StoreError> {
        tokio::select! {
            result = call => Ok(result),
            () = succeeded(self.0.clone()) => Err(StoreError::Unavailable(
                "another member became primary".into(),
            )),
        }
    }
}

/// Tells of a primary when the driver uses it. Its events come a moment before it does: a call that is made in
/// between goes to the old primary, and if that is cut off nothing ends it for a second or more.
async fn tell<F>(
    mut seen: Seen,
    out: watch::Sender<Option<ServerAddress>>,
    used: impl Fn(ServerAddress) -> F,
) where
    F: Future<Output = ()>,
{
    loop {
        let now = primary_of(&seen.borrow_and_update());
        let known = out.borrow().clone();
        let told = async {
            if now != known {
                if let Some(primary) = now.clone() {
                    used(primary).await;
                }
                out.send_replace(now);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = told => {}
            () = out.closed() => return,
            changed = seen.changed() => if changed.is_err() { return },
        }
    }
}

/// Waits until the driver takes this member for primary when it chooses one for a call. The call is never made: no
/// member is good enough for it.
async fn is_used(gate: Gate, primary: ServerAddress) {
    let (out, mut used) = watch::channel(false);
    let look = move |server: &ServerInfo<'_>| {
        if *server.address() == primary && server.server_type() == ServerType::RsPrimary {
            out.send_replace(true);
        }
        false
    };
    let nobody = SelectionCriteria::Predicate(Arc::new(look));
    let call = gate.call(SELECTION_MAX, |client| async move {
        let admin = client.database("admin");
        let ping = admin.run_command(doc! {"ping": 1});
        ping.selection_criteria(nobody).await
    });
    tokio::select! {
        // Only that no member was found in time: then another change comes.
        _ = call => {}
        _ = used.wait_for(|used| *used) => {}
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
    async fn a_primary_is_told_when_the_driver_uses_it_and_not_when_it_is_seen() {
        let primary = |host: &str| {
            let address = ServerAddress::parse(host).unwrap();
            vec![(address, ServerType::RsPrimary)]
        };
        let (see, seen) = watch::channel(primary("a:1"));
        let (out, mut told) = watch::channel(None);
        let (use_it, used) = watch::channel(ServerAddress::parse("a:1").unwrap());
        let uses = move |address: ServerAddress| {
            let mut used = used.clone();
            async move {
                let _ = used.wait_for(|now| *now == address).await;
            }
        };
        let telling = tokio::spawn(tell(seen, out, uses));
        told.wait_for(|now| *now == member("a:1")).await.unwrap();

        see.send_replace(primary("b:1"));
        tokio::task::yield_now().await;
        assert_eq!(*told.borrow(), member("a:1"), "calls still go to a");
        use_it.send_replace(ServerAddress::parse("b:1").unwrap());
        told.wait_for(|now| *now == member("b:1")).await.unwrap();

        // One that is gone before it was used is not waited for.
        see.send_replace(primary("c:1"));
        tokio::task::yield_now().await;
        see.send_replace(Vec::new());
        told.wait_for(Option::is_none).await.unwrap();

        drop(told);
        telling.await.unwrap();
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
