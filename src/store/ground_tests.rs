use bson::doc;

use super::*;

const HOST: &str = "a:1";

fn member(fields: Document) -> Document {
    let mut reply = doc! {"setName": "rs", "maxWireVersion": 17};
    reply.extend(fields);
    reply
}

fn primary() -> Document {
    member(doc! {"isWritablePrimary": true, "primary": HOST, "hosts": [HOST, "b:1"]})
}

fn secondary(primary: Option<&str>) -> Document {
    let mut reply = member(doc! {"isWritablePrimary": false, "secondary": true});
    reply.extend(primary.map(|host| ("primary".to_owned(), host.into())));
    reply
}

fn wants(set: &str) -> Intent {
    Intent {
        set: Some(set.into()),
        ..Intent::default()
    }
}

#[test]
fn one_hello_tells_what_stands_behind_an_address() {
    let any = Intent::default();
    let direct = Intent {
        direct: true,
        ..Intent::default()
    };
    let host = || HOST.to_owned();
    let old = |version: &str| Fault::TooOld {
        host: host(),
        version: Some(version.into()),
    };
    let alone = doc! {"isWritablePrimary": true, "maxWireVersion": 21};
    let mongos = doc! {"isWritablePrimary": true, "msg": "isdbgrid", "maxWireVersion": 21};
    let fresh = doc! {"isWritablePrimary": false, "isreplicaset": true, "maxWireVersion": 17};
    let wrong = Fault::WrongSet {
        host: host(),
        found: "rs".into(),
        wanted: "other".into(),
    };
    let ancient = doc! {"ok": 0.0, "code": 59, "codeName": "CommandNotFound"};
    let unknown = Fault::TooOld {
        host: host(),
        version: None,
    };
    let table = [
        (primary(), &any, None),
        (primary(), &wants("rs"), None),
        (primary(), &direct, None),
        (secondary(None), &any, None),
        (
            secondary(None),
            &direct,
            Some(Fault::DirectToSecondary(host())),
        ),
        (alone, &any, Some(Fault::Standalone(host()))),
        (mongos, &any, Some(Fault::Mongos(host()))),
        (fresh, &any, Some(Fault::NotInitiated(host()))),
        (primary(), &wants("other"), Some(wrong)),
        (member(doc! {"maxWireVersion": 13}), &any, Some(old("5.0"))),
        (member(doc! {"maxWireVersion": 9}), &any, Some(old("4.4"))),
        (ancient, &any, Some(unknown)),
    ];
    for (reply, intent, expected) in table {
        assert_eq!(of_hello(HOST, &reply, intent), expected, "{reply}");
    }
}

fn at(host: &str, found: Found) -> (String, Found) {
    (host.into(), found)
}

#[test]
fn a_primary_that_answers_outweighs_what_is_wrong_with_the_others() {
    let any = Intent::default();
    let nothing = || Found::Nothing("refuses connections".into());
    let well = [
        at("c:1", nothing()),
        at(
            "d:1",
            Found::Member(doc! {"maxWireVersion": 17, "isWritablePrimary": true}),
        ),
        at(HOST, Found::Member(primary())),
    ];
    assert_eq!(of_hosts(&well, &any), Ok(HOST.to_owned()));

    let away = [
        at("b:1", Found::Member(secondary(Some(HOST)))),
        at(HOST, nothing()),
    ];
    let told = of_hosts(&away, &any).unwrap_err();
    assert!(
        matches!(&told, Fault::PrimaryUnreachable { host, .. } if host == HOST),
        "{told}"
    );
    assert!(!told.is_permanent());

    let none = [
        at("b:1", Found::Member(secondary(None))),
        at(HOST, nothing()),
    ];
    let told = of_hosts(&none, &any).unwrap_err().to_string();
    for part in [
        "no primary",
        "b:1 is a secondary",
        "a:1 refuses connections",
    ] {
        assert!(told.contains(part), "{told}");
    }

    let both = [at("b:1", nothing()), at(HOST, nothing())];
    let told = of_hosts(&both, &any).unwrap_err();
    assert!(
        matches!(&told, Fault::Unreachable(hosts) if hosts.len() == 2),
        "{told}"
    );

    let http = Found::Fault(Fault::Foreign {
        host: "b:1".into(),
        what: "it speaks HTTP",
    });
    let told = of_hosts(&[at(HOST, nothing()), at("b:1", http)], &any).unwrap_err();
    assert!(
        told.is_permanent() && told.to_string().contains("HTTP"),
        "{told}"
    );
}

fn rights(resource: Document, actions: &[&str]) -> Document {
    doc! {"authInfo": {
        "authenticatedUsers": [{"user": "u", "db": "admin"}],
        "authenticatedUserPrivileges": [{"resource": resource, "actions": actions}],
    }}
}

#[test]
fn rights_on_the_own_database_are_read_from_all_forms_of_a_resource() {
    let missing = |resource, actions: &[&str]| missing_rights(&rights(resource, actions));
    let all = RIGHTS;
    assert_eq!(missing(doc! {"anyResource": true}, &["anyAction"]), [""; 0]);
    assert_eq!(missing(doc! {"db": "", "collection": ""}, &all), [""; 0]);
    assert_eq!(
        missing(doc! {"db": "drumline", "collection": ""}, &all),
        [""; 0]
    );
    assert_eq!(
        missing(doc! {"db": "drumline", "collection": "log"}, &all),
        all
    );
    assert_eq!(missing(doc! {"db": "shop", "collection": ""}, &all), all);
    assert_eq!(missing(doc! {"cluster": true}, &all), all);
    let reads = missing(doc! {"db": "drumline", "collection": ""}, &["find"]);
    assert_eq!(reads, all[1..]);
    let nobody = doc! {"authInfo": {"authenticatedUsers": []}};
    assert_eq!(missing_rights(&nobody), [""; 0]);
}

#[test]
fn the_set_itself_tells_what_it_cannot_promise() {
    let inside = Inside::default();
    assert_eq!(of_inside(&inside), None, "what is not known is no fault");
    let config = doc! {"writeConcernMajorityJournalDefault": false};
    let forgets = Inside {
        config: Some(config),
        ..inside.clone()
    };
    assert_eq!(of_inside(&forgets), Some(Fault::NotJournaled));
    let behaves = |version: &str| {
        of_inside(&Inside {
            compatibility: Some(version.into()),
            ..Inside::default()
        })
    };
    assert_eq!(behaves("5.0"), Some(Fault::OldCompatibility("5.0".into())));
    assert_eq!(
        (behaves("6.0"), behaves("8.0"), behaves("10.1")),
        (None, None, None)
    );
}

/// States as MongoDB counts them, and the health of each member.
fn status(needed: i32, members: &[(i32, f64)]) -> Document {
    let members = (0..).zip(members).map(|(id, (state, health))| {
        doc! {"_id": id, "state": *state, "health": *health}
    });
    doc! {"writeMajorityCount": needed, "members": members.collect::<Vec<_>>()}
}

#[test]
fn an_arbiter_votes_for_a_primary_that_cannot_commit() {
    let psa = |secondary: (i32, f64)| majority(&status(2, &[(1, 1.0), secondary, (7, 1.0)]), None);
    assert_eq!(psa((2, 1.0)), None);
    let lost = Fault::NoMajority {
        up: 1,
        needed: 2,
        arbiters: 1,
    };
    assert_eq!(psa((8, 0.0)), Some(lost.clone()));
    assert_eq!(
        psa((5, 1.0)),
        Some(lost),
        "one that copies its data has not got it"
    );
    assert_eq!(
        majority(&status(1, &[(1, 1.0), (7, 1.0), (7, 1.0)]), None),
        None
    );
    // A member without a vote does not count.
    let config = doc! {"members": [{"_id": 1, "votes": 0}]};
    let told = majority(&status(2, &[(1, 1.0), (2, 1.0), (8, 0.0)]), Some(&config));
    assert!(
        matches!(
            told,
            Some(Fault::NoMajority {
                up: 1,
                arbiters: 0,
                ..
            })
        ),
        "{told:?}"
    );
}
