//! Each request gets the answer that the plain driver gives, byte for byte, and leaves the same
//! documents behind, alone and beside others.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Runtime;

use crate::support::answers::{Dice, compare, must_agree};
use crate::support::inside::Inside;
use crate::support::{Cluster, SMALL, setting};

/// `DRUMLINE_SEED` draws the same requests again, `DRUMLINE_ROUNDS` more of them.
#[test]
fn each_answer_is_the_drivers_whatever_the_ids_the_collection_and_the_neighbours() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("DRUMLINE_SEED", u64::try_from(now.as_millis()).unwrap());
    let rounds = setting("DRUMLINE_ROUNDS", 1);
    println!("DRUMLINE_SEED={seed} DRUMLINE_ROUNDS={rounds}");
    let cluster = Cluster::start(&SMALL);
    Runtime::new().unwrap().block_on(async {
        let inside = Inside::patient(&cluster.info.mongodb_uri).await;
        let rounds = usize::try_from(rounds).unwrap();
        must_agree(&compare(&inside, &mut Dice(seed), rounds).await);
    });
}
