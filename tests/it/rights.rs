//! What the nodes of a local cluster may do in MongoDB: their work, and no more.

use std::fs;

use mongodb::bson::{Document, doc};
use mongodb::{Client, Database};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::support::http::Http;
use crate::support::{Cluster, eventually};

/// MongoDB's code for what a user may not do.
const UNAUTHORIZED: i32 = 13;

fn code(ran: mongodb::error::Result<Document>) -> Option<i32> {
    match *ran.unwrap_err().kind {
        mongodb::error::ErrorKind::Command(refusal) => Some(refusal.code),
        _ => None,
    }
}

/// The users that are logged in.
async fn users(admin: &Database) -> Vec<String> {
    let sessions = vec![
        doc! {"$listLocalSessions": {"allUsers": true}},
        doc! {"$group": {"_id": "$user"}},
    ];
    let mut found = admin.aggregate(sessions).await.unwrap();
    let mut users = Vec::new();
    while found.advance().await.unwrap() {
        let user = found.deserialize_current().unwrap();
        users.extend(user.get_str("_id").map(str::to_owned));
    }
    users.sort();
    users
}

#[test]
fn nodes_have_the_rights_that_they_need_and_no_others() {
    let cluster = Cluster::start(&["--nodes", "1"]);
    let folder = cluster
        .sandbox()
        .cluster(&cluster.info.name)
        .join("secrets");
    let as_node = fs::read_to_string(folder.join("node-uri")).unwrap();
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(&cluster);
        let insert = json!({"database": "rights", "collection": "c", "document": {"_id": 1}});
        http.act("insertOne", &insert).await.expect(201);

        let root = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let root = root.database("admin");
        eventually("the node is logged in as its own user", async || {
            let users = users(&root).await;
            users
                .contains(&"drumline-node@admin".to_owned())
                .then_some(())
        })
        .await;

        let node = Client::with_uri_str(&as_node).await.unwrap();
        let admin = node.database("admin");
        let status = admin
            .run_command(doc! {"connectionStatus": 1})
            .await
            .unwrap();
        let info = status.get_document("authInfo").unwrap();
        let roles = info.get_array("authenticatedUserRoles").unwrap();
        let has = |name: &str| {
            let mut roles = roles.iter().filter_map(|role| role.as_document());
            roles.any(|role| role.get_str("role").is_ok_and(|role| role == name))
        };
        assert!(has("drumlineNode") && !has("root"), "{roles:?}");
        for command in [
            doc! {"createUser": "x", "pwd": "x", "roles": ["root"]},
            doc! {"grantRolesToUser": "drumline-node", "roles": ["root"]},
            doc! {"updateRole": "drumlineNode", "roles": ["root"]},
            doc! {"replSetReconfig": {"_id": "x", "version": 2, "members": []}},
            doc! {"fsync": 1, "lock": true},
            doc! {"shutdown": 1},
            doc! {"find": "system.users"},
        ] {
            let name = command.keys().next().unwrap().clone();
            let refused = code(admin.run_command(command).await);
            assert_eq!(refused, Some(UNAUTHORIZED), "{name}");
        }
        let local = node.database("local");
        let write = local.run_command(doc! {"insert": "x", "documents": [{}]});
        assert_eq!(code(write.await), Some(UNAUTHORIZED));

        // What it lacks it would say.
        let view = http.get("/status").await.expect(200).json();
        assert!(view["faults"].is_null(), "{view}");
        assert!(
            view["members"][0]["sync_source"].is_string()
                || view["members"][1]["sync_source"].is_string(),
            "{view}"
        );
        let said = fs::read_to_string(&cluster.info.nodes[0].log).unwrap();
        for complaint in ["user lacks", "user may not"] {
            assert!(!said.contains(complaint), "{said}");
        }
    });
}
