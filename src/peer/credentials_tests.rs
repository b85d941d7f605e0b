use hyper::Request;

use super::*;

const BODY: &[u8] = b"{\"filter\": {}}";

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn of(node: &str, cluster: &str, secret: &str) -> Credentials {
    Credentials::new(name(node), cluster, &Secret::new(secret.into())).unwrap()
}

fn trusted(node: &str) -> Credentials {
    of(node, "blue", "s1")
}

fn request() -> request::Parts {
    let request = Request::post("http://n2:7401/peer/action/find?a=b")
        .header("content-type", "application/json")
        .header("drumline-read", "causal");
    request.body(()).unwrap().into_parts().0
}

fn sent(from: &Credentials, to: &str) -> (request::Parts, Sent) {
    let mut head = request();
    let asked = from.write(&mut head, &name(to), Content::of(BODY));
    (head, asked)
}

fn take(here: &Credentials, head: &request::Parts) -> Result<Admitted, Refused> {
    here.admit(here.check(head)?)
}

/// Lets `from` know the process and the clock of `to`, as its first request would.
fn introduce(from: &Credentials, to: &Credentials) {
    let (head, asked) = sent(from, to.me.as_str());
    let Err(Refused::Stale { from: asker, nonce }) = take(to, &head) else {
        panic!("a process that was not met takes no request");
    };
    let mut reply = HeaderMap::new();
    to.greet(&mut reply, &asker, &nonce);
    assert!(from.learns(&asked, StatusCode::UNAUTHORIZED, &reply));
}

fn pair_of_peers() -> (Credentials, Credentials) {
    let (one, two) = (trusted("n1"), trusted("n2"));
    introduce(&one, &two);
    (one, two)
}

#[test]
fn only_the_same_cluster_with_the_same_secret_is_let_in() {
    let here = trusted("n2");
    let check = |from: Credentials, to| {
        let proven = here.check(&sent(&from, to).0);
        proven.map(|proven| proven.from)
    };
    assert_eq!(check(trusted("n1"), "n2"), Ok(name("n1")));
    assert_eq!(check(of("n1", "blue", "s2"), "n2"), Err(Refused::Secret));
    assert_eq!(check(of("n1", "blue", "S1"), "n2"), Err(Refused::Secret));
    let other = Err(Refused::Cluster("red".into()));
    assert_eq!(check(of("n1", "red", "s1"), "n2"), other);
    let elsewhere = check(trusted("n1"), "n3");
    assert!(matches!(elsewhere, Err(Refused::Addressee { .. })));
    assert_eq!(here.check(&request()).unwrap_err(), Refused::Secret);
}

#[test]
fn a_proof_covers_all_that_is_done() {
    let (one, two) = pair_of_peers();
    let names = [&CLUSTER, &FROM, &TO, &NONCE, &TIME, &CONTENT];
    for header in names.into_iter().chain(&REQUEST_HEADERS) {
        for (change, value) in [("another", Some("x")), ("none", None)] {
            let (mut head, _) = sent(&one, "n2");
            let before = head.headers.remove(header);
            if let Some(value) = value {
                head.headers.insert(header, HeaderValue::from_static(value));
            } else if before.is_none() {
                continue;
            }
            let refused = take(&two, &head).unwrap_err();
            assert_eq!(refused, Refused::Secret, "{change} {header}");
        }
        let (mut head, _) = sent(&one, "n2");
        head.headers.append(header, HeaderValue::from_static("x"));
        assert_eq!(
            take(&two, &head).unwrap_err(),
            Refused::Secret,
            "two {header}"
        );
    }
    for target in [
        "/peer/action/deleteMany?a=b",
        "/peer/action/find",
        "/peer/message",
    ] {
        let (mut head, _) = sent(&one, "n2");
        head.uri = target.parse().unwrap();
        assert_eq!(take(&two, &head).unwrap_err(), Refused::Secret, "{target}");
    }
    let (mut head, _) = sent(&one, "n2");
    head.method = hyper::Method::PUT;
    assert_eq!(take(&two, &head).unwrap_err(), Refused::Secret);
    // The same target in the short form, as it comes in, and headers that nobody reads.
    let (mut head, _) = sent(&one, "n2");
    head.uri = "/peer/action/find?a=b".parse().unwrap();
    head.headers
        .insert("x-other", HeaderValue::from_static("x"));
    let admitted = take(&two, &head).unwrap();
    assert_eq!(admitted.content, Content::of(BODY));
    assert_ne!(admitted.content, Content::of(b"{\"filter\": { }}"));
}

#[test]
fn a_message_is_taken_once() {
    let (one, two) = pair_of_peers();
    let heads: Vec<_> = (0..100).map(|_| sent(&one, "n2").0).collect();
    for head in heads.iter().rev() {
        assert!(take(&two, head).is_ok());
        assert_eq!(take(&two, head), Err(Refused::Repeated));
    }
    assert!(heads.iter().all(|head| take(&two, head).is_err()));
}

#[test]
fn a_message_is_for_some_seconds() {
    let (one, two) = pair_of_peers();
    let at = |off: i64| {
        let proven = two.check(&sent(&one, "n2").0).unwrap();
        let now = proven.meant.1 + off;
        two.admit_at(now, proven)
    };
    for off in [0, 5_000, -5_000] {
        assert!(at(off).is_ok(), "{off}");
    }
    for off in [5_001, 60_000, -5_001, i64::MAX / 2] {
        assert!(matches!(at(off), Err(Refused::Stale { .. })), "{off}");
    }
}

#[test]
fn a_message_is_for_one_process() {
    let (one, two) = pair_of_peers();
    let (head, _) = sent(&one, "n2");
    assert!(take(&two, &head).is_ok());
    let again = trusted("n2");
    assert!(matches!(take(&again, &head), Err(Refused::Stale { .. })));
    introduce(&one, &again);
    assert!(take(&again, &sent(&one, "n2").0).is_ok());
}

#[test]
fn clocks_need_not_agree_and_may_run_away() {
    let two = trusted("n2");
    let mut one = trusted("n1");
    let day = Duration::from_secs(86_400);
    let earlier = Instant::now().checked_sub(day).unwrap_or_else(Instant::now);
    Arc::get_mut(&mut one.process).unwrap().began = earlier;
    introduce(&one, &two);
    assert!(take(&two, &sent(&one, "n2").0).is_ok());
    // Six seconds off by now: one request is refused, and that puts it right.
    let met = Met {
        ahead: one.process.met.lock().unwrap()[&name("n2")].ahead - 6_000,
        process: two.process.id,
    };
    one.process.met.lock().unwrap().insert(name("n2"), met);
    introduce(&one, &two);
    assert!(take(&two, &sent(&one, "n2").0).is_ok());
}

#[test]
fn a_greeting_is_for_the_one_who_asked() {
    let (one, two) = (trusted("n1"), trusted("n2"));
    let (head, asked) = sent(&one, "n2");
    let Err(Refused::Stale { from, nonce }) = take(&two, &head) else {
        panic!("it was not met");
    };
    let mut greeting = HeaderMap::new();
    two.greet(&mut greeting, &from, &nonce);
    let (_, later) = sent(&one, "n2");
    let learns = |sent, headers| one.learns(sent, StatusCode::UNAUTHORIZED, headers);
    assert!(!learns(&later, &greeting), "an old one");
    let mut forged = HeaderMap::new();
    of("n2", "blue", "s2").greet(&mut forged, &from, &nonce);
    assert!(!learns(&asked, &forged), "another secret");
    let mut changed = greeting.clone();
    put(&mut changed, TIME, &pair(two.process.id, 1_000_000));
    assert!(!learns(&asked, &changed), "another time");
    assert!(!one.learns(&asked, StatusCode::OK, &greeting));
    assert!(learns(&asked, &greeting));
}

#[test]
fn only_the_peer_that_was_asked_can_answer_and_its_reply_stays_as_it_is() {
    let (one, two) = pair_of_peers();
    let (head, asked) = sent(&one, "n2");
    let admitted = take(&two, &head).unwrap();
    let reply = |by: &Credentials| {
        let mut headers = HeaderMap::new();
        headers.insert("drumline-stamp", HeaderValue::from_static("17"));
        by.sign(
            &admitted,
            StatusCode::OK,
            &mut headers,
            Some(Content::of(BODY)),
        );
        headers
    };
    let good = reply(&two);
    let takes = |headers: &HeaderMap| one.is_reply_to(&asked, StatusCode::OK, headers);
    assert!(takes(&good));
    assert_eq!(content_of(&good), Some(Content::of(BODY)));
    assert!(!takes(&reply(&trusted("n3"))));
    assert!(!takes(&reply(&of("n2", "blue", "s2"))));
    assert!(!takes(&HeaderMap::new()));
    assert!(!one.is_reply_to(&asked, StatusCode::CREATED, &good));
    for header in [CONTENT].iter().chain(&REPLY_HEADERS) {
        let mut headers = good.clone();
        headers.insert(header, HeaderValue::from_static("18"));
        assert!(!takes(&headers), "{header}");
    }
    let (_, again) = sent(&one, "n2");
    assert!(
        !one.is_reply_to(&again, StatusCode::OK, &good),
        "an old reply"
    );
}

#[test]
fn the_secret_never_travels_and_is_never_shown() {
    let (head, _) = sent(&of("n1", "blue", "hunter2"), "n2");
    let mut values = head.headers.values();
    assert!(values.all(|value| !value.to_str().unwrap().contains("hunter2")));
    assert!(!format!("{:?}", of("n1", "blue", "hunter2")).contains("hunter2"));
}

/// What a request with a body of 256 bytes costs in all, on both sides.
#[test]
fn a_proof_costs_microseconds() {
    const ROUNDS: u32 = 2_000;
    let (one, two) = pair_of_peers();
    let body = [b'x'; 256];
    let began = Instant::now();
    for _ in 0..ROUNDS {
        let mut head = request();
        let asked = one.write(&mut head, &name("n2"), Content::of(&body));
        let admitted = take(&two, &head).unwrap();
        assert_eq!(admitted.content, Content::of(&body));
        let mut reply = HeaderMap::new();
        two.sign(
            &admitted,
            StatusCode::OK,
            &mut reply,
            Some(Content::of(&body)),
        );
        assert!(one.is_reply_to(&asked, StatusCode::OK, &reply));
        assert_eq!(content_of(&reply), Some(Content::of(&body)));
    }
    let each = began.elapsed() / ROUNDS;
    println!("a proven request and its proven reply, 256 bytes each: {each:?}");
    assert!(each < Duration::from_millis(2), "{each:?}");
}
