//! Tokens, passwords and redirections, against servers on loopback that write down what they are sent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use berth_oci::{Digest, Reference};
use berth_registry::{Client, Credentials, RegistryConfig};

/// A request: its path with the query, and its `Authorization`.
type Request = (String, Option<String>);

/// What a server answers: status and headers, each line ended by CR LF, and the body.
type Answer = (String, String);

struct Server {
    address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(answer: impl Fn(&Request) -> Answer + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&seen);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // A TLS handshake is no request: it is how the client finds out that there is no TLS.
                if let Some(request) = read(&connection) {
                    requests.lock().unwrap().push(request.clone());
                    let (head, body) = answer(&request);
                    let length = body.len();
                    let _ = write!(
                        &connection,
                        "HTTP/1.1 {head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                    );
                }
            }
        });
        Server { address, seen }
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    fn reference(&self) -> Reference {
        format!("{}/team/app:v1", self.address).parse().unwrap()
    }
}

fn read(connection: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(connection).lines();
    let first = lines.next()?.ok()?;
    let path = first.strip_prefix("GET ")?.split(' ').next()?.to_owned();
    let mut authorization = None;
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.to_owned());
        }
    }
    Some((path, authorization))
}

const MANIFEST: &str = r#"{"schemaVersion":2}"#;

fn ok(body: &str) -> Answer {
    ("200 OK\r\n".to_owned(), body.to_owned())
}

fn client() -> Client {
    Client::new(RegistryConfig::default())
}

fn password() -> Credentials {
    Credentials::Password { user: "user".to_owned(), password: "secret".to_owned() }
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_again() {
    let realm = Server::start(|_| ok(r#"{"token":"t0ken","expires_in":300}"#));
    let challenge = format!(
        "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"s\",scope=\"repository:team/app:pull\"\r\n",
        realm.address
    );
    let registry = Server::start(move |(_, authorization)| match authorization.as_deref() {
        Some("Bearer t0ken") => ok(MANIFEST),
        _ => (challenge.clone(), String::new()),
    });
    let reference = registry.reference();
    let client = client().with_credentials(reference.domain(), password());
    for _ in 0..2 {
        let answer = client.manifest(&reference, &["application/json"]).await.unwrap();
        assert_eq!(
            (answer.bytes.as_slice(), answer.digest),
            (MANIFEST.as_bytes(), Digest::of(MANIFEST.as_bytes()))
        );
    }
    let [(path, authorization)] = &realm.seen()[..] else { panic!("one token: {:?}", realm.seen()) };
    assert_eq!(authorization.as_deref(), Some("Basic dXNlcjpzZWNyZXQ="));
    assert_eq!(path, "/token?service=s&scope=repository%3Ateam%2Fapp%3Apull&account=user");
    // Nothing but the token went to the registry.
    assert!(
        registry.seen().iter().all(|(_, sent)| sent.as_deref().is_none_or(|sent| sent == "Bearer t0ken"))
    );
}

#[tokio::test]
async fn a_password_goes_only_where_it_is_asked_for() {
    let registry = Server::start(|(_, authorization)| match authorization {
        Some(_) => ok(MANIFEST),
        None => ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"\r\n".to_owned(), String::new()),
    });
    let reference = registry.reference();
    let client = client();
    let refused = client.manifest(&reference, &[]).await.unwrap_err();
    assert!(refused.is_denied(), "{refused}");
    let other = client.with_credentials("registry.example", password());
    assert!(other.manifest(&reference, &[]).await.is_err(), "they are another registry's");
    assert!(registry.seen().iter().all(|(_, sent)| sent.is_none()));
    client.with_credentials(reference.domain(), password()).manifest(&reference, &[]).await.unwrap();
}

#[tokio::test]
async fn r25_credentials_do_not_follow_a_redirection() {
    let elsewhere = Server::start(|_| ok(MANIFEST));
    let target = elsewhere.address.clone();
    let registry = Server::start(move |(_, authorization)| match authorization {
        Some(_) => (
            format!("307 Temporary Redirect\r\nLocation: http://{target}/there?signature=x\r\n"),
            String::new(),
        ),
        None => ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"\r\n".to_owned(), String::new()),
    });
    let reference = registry.reference();
    let client = client().with_credentials(reference.domain(), password());
    client.manifest(&reference, &[]).await.unwrap();
    assert_eq!(elsewhere.seen(), [("/there?signature=x".to_owned(), None)]);
}

#[tokio::test]
async fn redirections_without_end_are_given_up() {
    let registry = Server::start(|(path, _)| (format!("302 Found\r\nLocation: {path}\r\n"), String::new()));
    let error = client().manifest(&registry.reference(), &[]).await.unwrap_err().to_string();
    assert!(error.contains("redirected too often"), "{error}");
}

#[tokio::test]
async fn refusals_are_told_in_the_registrys_words() {
    let registry = Server::start(|_| {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        ("404 Not Found\r\n".to_owned(), body.to_owned())
    });
    let error = client().manifest(&registry.reference(), &[]).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("manifest unknown"), "{error}");
    let huge = Server::start(|_| ok(&" ".repeat(5 << 20)));
    let error = client().manifest(&huge.reference(), &[]).await.unwrap_err().to_string();
    assert!(error.contains("larger than"), "{error}");
}
