//! One `hello` over a bare connection, for whoever may stand behind an address: a member, something
//! else, or nothing. The driver gives all that is not a member the same name.

use std::io::{self, ErrorKind};
use std::time::Duration;

use bson::{Document, doc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long it may take to find an address and to connect to it.
const CONNECT_MAX: Duration = Duration::from_millis(1_500);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// A longer reply to `hello` is none.
const REPLY_BYTES_MAX: usize = 1 << 20;
const OP_MSG: i32 = 2013;
const HEADER_BYTES: usize = 16;

/// What a greeting of TLS ends with, after its 32 random bytes: no session, three ciphers, no
/// compression, and the extensions without which a server hangs up in silence: groups, formats of
/// points, signatures, versions 1.3 and 1.2, no key yet.
const TLS_TAIL: [u8; 54] = [
    0, 0, 6, 0x13, 1, 0xc0, 0x2f, 0xc0, 0x2b, 1, 0, 0, 41, 0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2,
    1, 0, 0, 13, 0, 8, 0, 6, 4, 1, 4, 3, 8, 4, 0, 43, 0, 5, 4, 3, 4, 3, 3, 0, 51, 0, 2, 0, 0,
];
const HTTP_HELLO: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
const HTTP: &[u8] = b"HTTP";
/// In what mongod says to one who speaks HTTP.
const TO_A_BROWSER: &[u8] = b"native driver port";

/// Who stands behind an address.
#[derive(Debug, PartialEq)]
pub(super) enum Knocked {
    Hello(Document),
    /// Nobody for now; the words follow the host's name.
    Nothing(String),
    Tls,
    /// Something that is not MongoDB, and what it is.
    Foreign(&'static str),
}

/// Connects in plain and says `hello`.
pub(super) async fn hello(host: &str, port: u16) -> Knocked {
    let greeting = greeting();
    let bytes = match exchange(host, port, &greeting).await {
        Ok(bytes) => bytes,
        Err(nothing) => return nothing,
    };
    if let Some(reply) = reply_in(&bytes) {
        return Knocked::Hello(reply);
    }
    if bytes.starts_with(HTTP) {
        return Knocked::Foreign("it speaks HTTP");
    }
    let alert_or_greeting = |bytes: &[u8]| matches!(bytes, [0x15 | 0x16, 3, ..]);
    let answer = exchange(host, port, &tls_greeting()).await;
    let has_tls = answer.is_ok_and(|bytes| alert_or_greeting(&bytes));
    if has_tls || alert_or_greeting(&bytes) {
        return Knocked::Tls;
    }
    if !bytes.is_empty() {
        return Knocked::Foreign("it speaks another protocol");
    }
    match exchange(host, port, HTTP_HELLO).await {
        Ok(bytes)
            if bytes
                .windows(TO_A_BROWSER.len())
                .any(|part| part == TO_A_BROWSER) =>
        {
            Knocked::Nothing("is MongoDB and hangs up".into())
        }
        Ok(bytes) if bytes.starts_with(HTTP) => Knocked::Foreign("it speaks HTTP"),
        Ok(bytes) if !bytes.is_empty() => Knocked::Foreign("it speaks another protocol"),
        _ => Knocked::Nothing("takes connections and does not answer".into()),
    }
}

/// What comes back for these bytes: a whole message of MongoDB, or what there is of anything else
/// until it ends or falls silent.
async fn exchange(host: &str, port: u16, bytes: &[u8]) -> Result<Vec<u8>, Knocked> {
    let mut stream = connect(host, port).await?;
    let mut answer = Vec::new();
    let talk = async {
        stream.write_all(bytes).await?;
        let mut part = [0; 4_096];
        while answer.len() < REPLY_BYTES_MAX && !is_whole(&answer) {
            match stream.read(&mut part).await? {
                0 => break,
                read => answer.extend_from_slice(&part[..read]),
            }
        }
        Ok::<_, io::Error>(())
    };
    // Whether it hung up or is silent, what it has said is what there is to judge.
    let _ = timeout(ANSWER_MAX, talk).await;
    Ok(answer)
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, Knocked> {
    let connecting = async {
        let found = lookup_host((host, port)).await;
        let addresses: Vec<_> = found
            .map_err(|_| "is an unknown host".to_owned())?
            .collect();
        let mut last = "is an unknown host".to_owned();
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = words(&error),
            }
        }
        Err(last)
    };
    match timeout(CONNECT_MAX, connecting).await {
        Ok(connected) => connected.map_err(Knocked::Nothing),
        Err(_) => Err(Knocked::Nothing("does not answer".into())),
    }
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refuses connections: nothing listens there".into(),
        ErrorKind::TimedOut => "does not answer".into(),
        kind => format!("cannot be reached ({kind})"),
    }
}

fn greeting() -> Vec<u8> {
    let hello = doc! {"hello": 1, "$db": "admin"};
    // Two fields can be encoded; an empty message would be answered by nobody.
    let body = hello.to_vec().unwrap_or_default();
    let length = HEADER_BYTES + 5 + body.len();
    let mut bytes = Vec::with_capacity(length);
    let head = [i32::try_from(length).unwrap_or(0), 1, 0, OP_MSG, 0];
    bytes.extend(head.into_iter().flat_map(i32::to_le_bytes));
    bytes.push(0); // one document follows
    bytes.extend(body);
    bytes
}

/// Who speaks TLS answers it with a greeting of its own or with an alert.
fn tls_greeting() -> Vec<u8> {
    const RANDOM: [u8; 32] = [7; 32];
    // Lengths count what comes after them; all are far below 256.
    let body = u8::try_from(2 + RANDOM.len() + TLS_TAIL.len()).unwrap_or(0);
    let mut bytes = vec![0x16, 3, 1, 0, body + 4, 1, 0, 0, body, 3, 3];
    bytes.extend(RANDOM);
    bytes.extend(TLS_TAIL);
    bytes
}

fn number_at(bytes: &[u8], at: usize) -> Option<i32> {
    let four = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(i32::from_le_bytes(four))
}

/// Whether a message of MongoDB is there to its end, or it is none, or the greeting of TLS.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(length) = number_at(bytes, 0) else {
        return false;
    };
    match usize::try_from(length) {
        Ok(length) if length <= REPLY_BYTES_MAX => bytes.len() >= length,
        _ => true,
    }
}

fn reply_in(bytes: &[u8]) -> Option<Document> {
    let length = usize::try_from(number_at(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER_BYTES + 5..length)?;
    let is_message = number_at(bytes, 12)? == OP_MSG;
    is_message.then(|| Document::from_reader(body).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// One who reads what comes and says this to each connection.
    async fn says(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut part = [0; 4_096];
                let _ = stream.read(&mut part).await;
                let _ = stream.write_all(answer).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn what_is_not_mongodb_is_told_by_what_it_says() {
        let http = says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let told = hello("127.0.0.1", http).await;
        assert_eq!(told, Knocked::Foreign("it speaks HTTP"));
        let other = says(b"SSH-2.0-x\r\n").await;
        let told = hello("127.0.0.1", other).await;
        assert_eq!(told, Knocked::Foreign("it speaks another protocol"));
        let alert = says(&[0x15, 3, 1, 0, 2, 2, 40]).await;
        assert_eq!(hello("127.0.0.1", alert).await, Knocked::Tls);
        let mute = says(b"").await;
        assert!(matches!(
            hello("127.0.0.1", mute).await,
            Knocked::Nothing(_)
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = listener.local_addr().unwrap().port();
        drop(listener);
        let Knocked::Nothing(why) = hello("127.0.0.1", free).await else {
            panic!("nothing listens there");
        };
        assert!(why.contains("refuses"), "{why}");
        let Knocked::Nothing(why) = hello("no-such-host.invalid", 1).await else {
            panic!("there is no such host");
        };
        assert!(why.contains("unknown host"), "{why}");
    }

    #[test]
    fn the_greeting_is_a_message_that_is_read_back() {
        let bytes = greeting();
        assert!(is_whole(&bytes) && !is_whole(&bytes[..bytes.len() - 1]));
        assert_eq!(reply_in(&bytes), Some(doc! {"hello": 1, "$db": "admin"}));
        assert_eq!(reply_in(b"HTTP/1.1 400 Bad Request\r\n\r\n"), None);
        assert_eq!(reply_in(&[]), None);
        let tls = tls_greeting();
        assert_eq!((tls.len(), tls[4], tls[8]), (97, 92, 88));
    }
}
