use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::http::Version;
use axum::routing::get;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, SupportedProtocolVersion};
use service_kit::identity::Clock;
use test_kit::{Authority, Leaf, eventually};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::super::tests::{Door, problem, rest};
use super::super::{Limits, Server, without_delay};
use super::*;
use crate::problem::PublicUrl;

/// A request that is answered with 404, after which the connection ends.
const REQUEST: &[u8] = b"GET /missing HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// The settings of a server with this leaf, whose files are copied so that a test can change them.
fn settings(authority: &Authority, leaf: &Leaf) -> TlsSettings {
    let file = |kind: &str| authority.folder().join(format!("served.{kind}.pem")).to_str().unwrap().to_owned();
    let settings =
        TlsSettings { certificate: file("certificate"), key: file("key"), look_every_s: 5, ..TlsSettings::default() };
    serve(&settings, leaf);
    settings
}

fn serve(settings: &TlsSettings, leaf: &Leaf) {
    fs::copy(&leaf.certificate, &settings.certificate).unwrap();
    fs::copy(&leaf.key, &settings.key).unwrap();
}

fn load(settings: &TlsSettings) -> Tls {
    Tls::load(settings).unwrap().unwrap()
}

/// A client that trusts this authority.
struct Caller {
    config: ClientConfig,
}

impl Caller {
    fn of(authority: &Authority, versions: &[&'static SupportedProtocolVersion], leaf: Option<&Leaf>) -> Self {
        service_kit::tls::install_ring();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.certificate()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
        let config = match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain = vec![CertificateDer::from_pem_file(&leaf.certificate).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&leaf.key).unwrap()).unwrap()
            }
        };
        Self { config }
    }

    fn speaking(mut self, protocols: &[&[u8]]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        self
    }

    async fn call(&self, door: &Door) -> io::Result<ClientStream<DuplexStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(self.config.clone())).connect(name, door.call()).await
    }

    /// The status of a whole request; with TLS 1.3 a server's refusal of the client comes only here.
    async fn ask(&self, door: &Door) -> io::Result<u16> {
        let mut stream = self.call(door).await?;
        stream.write_all(REQUEST).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8(answer).unwrap().split(' ').nth(1).unwrap().parse().unwrap())
    }
}

#[tokio::test]
async fn tls_1_3_is_spoken_and_1_2_by_choice() {
    let authority = Authority::new("versions").unwrap();
    let mut settings = settings(&authority, &authority.server().unwrap());
    let (older, newer) = (Caller::of(&authority, &[&TLS12], None), Caller::of(&authority, &[&TLS13], None));
    let door = Door::with(Limits::default(), Some(load(&settings)));
    assert_eq!(newer.ask(&door).await.unwrap(), 404);
    let told = older.ask(&door).await.unwrap_err().to_string();
    assert!(told.contains("ProtocolVersion"), "{told}");
    door.leave().await;
    settings.min_version = TlsVersion::V12;
    let door = Door::with(Limits::default(), Some(load(&settings)));
    assert_eq!((newer.ask(&door).await.unwrap(), older.ask(&door).await.unwrap()), (404, 404));
    door.leave().await;
}

#[tokio::test]
async fn the_protocol_is_chosen_with_the_handshake() {
    let authority = Authority::new("protocols").unwrap();
    let tls = load(&settings(&authority, &authority.server().unwrap()));
    let door = Door::with(Limits::default(), Some(tls));
    for (offered, chosen) in
        [(&[&b"http/1.1"[..], b"h2"][..], Some(&b"h2"[..])), (&[b"http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let caller = Caller::of(&authority, &[&TLS13], None).speaking(offered);
        let stream = caller.call(&door).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
    }
    let told = Caller::of(&authority, &[&TLS13], None).speaking(&[b"smtp"]).ask(&door).await.unwrap_err().to_string();
    assert!(told.contains("NoApplicationProtocol"), "{told}");
    door.leave().await;
}

#[tokio::test]
async fn http_2_and_http_1_1_are_served_over_a_real_connection() {
    let authority = Authority::new("http").unwrap();
    let tls = load(&settings(&authority, &authority.server().unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let mut server = Server::new(PublicUrl::default().with_tls(true), Clock::manual(0));
    server.tls = Some(tls);
    let shutdown = CancellationToken::new();
    let router = Router::new().route("/", get(async || "here"));
    #[expect(clippy::disallowed_methods, reason = "the test waits for its end")]
    let serving = tokio::spawn(server.serve(without_delay(listener), router, shutdown.clone()));
    let root = reqwest::Certificate::from_pem(&fs::read(authority.certificate()).unwrap()).unwrap();
    let ask = async |is_old: bool| {
        #[expect(clippy::disallowed_methods, reason = "it calls this machine")]
        let builder = reqwest::Client::builder().no_proxy().tls_certs_only([root.clone()]);
        let builder = if is_old { builder.http1_only() } else { builder };
        let answer = builder.build().unwrap().get(&url).send().await.unwrap();
        (answer.version(), answer.text().await.unwrap())
    };
    assert_eq!(ask(false).await, (Version::HTTP_2, "here".to_owned()));
    assert_eq!(ask(true).await, (Version::HTTP_11, "here".to_owned()));
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn new_files_are_used_while_no_request_fails_and_files_that_are_broken_are_not() {
    let authority = Authority::new("reload").unwrap();
    let (first, second) = (authority.server().unwrap(), authority.server().unwrap());
    let settings = settings(&authority, &first);
    let tls = load(&settings);
    let door = Arc::new(Door::with(Limits::default(), Some(tls.clone())));
    let (asked, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let load = (0..4).map(|_| {
        let caller = Caller::of(&authority, &[&TLS13], None);
        let (door, asked, done) = (Arc::clone(&door), Arc::clone(&asked), Arc::clone(&done));
        async move {
            while !done.load(Ordering::SeqCst) {
                assert_eq!(caller.ask(&door).await.unwrap(), 404);
                asked.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    #[expect(clippy::disallowed_methods, reason = "the test waits for its end")]
    let callers: Vec<_> = load.map(tokio::spawn).collect();
    let more = async || {
        let before = asked.load(Ordering::SeqCst);
        eventually(Duration::from_secs(60), "requests", async || {
            (asked.load(Ordering::SeqCst) > before + 20).then_some(())
        })
        .await;
    };
    let served = async || {
        let stream = Caller::of(&authority, &[&TLS13], None).call(&door).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let der = |leaf: &Leaf| CertificateDer::from_pem_file(&leaf.certificate).unwrap().to_vec();
    let mut unreadable = None;
    more().await;
    assert_eq!(served().await, der(&first));
    // As it is between the two copies of a careless hand.
    fs::copy(&second.certificate, &settings.certificate).unwrap();
    tls.look(&mut unreadable);
    assert!(unreadable.as_ref().unwrap().contains("do not fit"), "{unreadable:?}");
    more().await;
    assert_eq!(served().await, der(&first));
    serve(&settings, &second);
    tls.look(&mut unreadable);
    assert_eq!(unreadable, None);
    more().await;
    assert_eq!(served().await, der(&second));
    fs::remove_file(&settings.key).unwrap();
    tls.look(&mut unreadable);
    assert!(unreadable.as_ref().unwrap().contains("`tls.key`"), "{unreadable:?}");
    more().await;
    assert_eq!(served().await, der(&second));
    done.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    Arc::into_inner(door).unwrap().leave().await;
}

#[tokio::test(start_paused = true)]
async fn the_files_are_looked_at_again_and_again() {
    let authority = Authority::new("follow").unwrap();
    let (first, second) = (authority.server().unwrap(), authority.server().unwrap());
    let settings = settings(&authority, &first);
    let tls = load(&settings);
    let shutdown = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "the test waits for its end")]
    let following = tokio::spawn(tls.clone().follow(shutdown.clone()));
    let before = Arc::as_ptr(&tls.0.config.lock());
    serve(&settings, &second);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_ne!(Arc::as_ptr(&tls.0.config.lock()), before);
    shutdown.cancel();
    following.await.unwrap().unwrap();
}

#[tokio::test]
async fn with_client_authorities_only_their_clients_are_let_in() {
    let (authority, other) = (Authority::new("clients").unwrap(), Authority::new("others").unwrap());
    let mut settings = settings(&authority, &authority.server().unwrap());
    settings.client_authorities = authority.certificate().to_str().unwrap().to_owned();
    settings.min_version = TlsVersion::V12;
    let door = Door::with(Limits::default(), Some(load(&settings)));
    let (known, unknown) = (authority.client("shop").unwrap(), other.client("shop").unwrap());
    for version in [&TLS12, &TLS13] {
        let ask = async |leaf| Caller::of(&authority, &[version], leaf).ask(&door).await;
        assert_eq!(ask(Some(&known)).await.unwrap(), 404);
        let told = ask(None).await.unwrap_err().to_string();
        assert!(told.contains("CertificateRequired") || told.contains("HandshakeFailure"), "{told}");
        let told = ask(Some(&unknown)).await.unwrap_err().to_string();
        assert!(told.contains("UnknownCA") || told.contains("DecryptError"), "{told}");
    }
    door.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_slow_has_a_place_and_is_cut_off() {
    let authority = Authority::new("slow").unwrap();
    let tls = load(&settings(&authority, &authority.server().unwrap()));
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let door = Door::with(limits, Some(tls));
    let mut slow = door.call();
    // The beginning of a record of 512 bytes that does not come.
    slow.write_all(&[HANDSHAKE, 3, 1, 2, 0, 1]).await.unwrap();
    let began = Instant::now();
    assert_eq!(Caller::of(&authority, &[&TLS13], None).ask(&door).await.unwrap(), 404);
    assert!(began.elapsed() >= limits.head_timeout, "{:?}", began.elapsed());
    assert_eq!(rest(&mut slow).await, "");
    let mut silent = door.call();
    assert_eq!(rest(&mut silent).await, "");
    door.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_does_not_hold_up_the_end_of_the_process() {
    let authority = Authority::new("end").unwrap();
    let tls = load(&settings(&authority, &authority.server().unwrap()));
    let door = Door::with(Limits::default(), Some(tls));
    let mut silent = door.call();
    let began = Instant::now();
    door.shutdown.cancel();
    assert_eq!(rest(&mut silent).await, "");
    door.leave().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_request_without_tls_is_told_so() {
    let authority = Authority::new("plain").unwrap();
    let tls = load(&settings(&authority, &authority.server().unwrap()));
    let door = Door::with(Limits::default(), Some(tls));
    let mut plain = door.call();
    plain.write_all(REQUEST).await.unwrap();
    let answer = rest(&mut plain).await;
    assert_eq!(problem(&answer), (400, "bad-request".to_owned()));
    assert!(answer.contains("This port speaks TLS") && answer.contains("https://"), "{answer}");
    door.leave().await;
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_setting() {
    let authority = Authority::new("refused").unwrap();
    let leaf = authority.server().unwrap();
    let good = settings(&authority, &leaf);
    let told = |settings: TlsSettings| format!("{:#}", Tls::load(&settings).unwrap_err());
    let key = told(TlsSettings { key: good.certificate.clone(), ..good.clone() });
    assert!(key.contains("`tls.key` (MEANWHILE__TLS__KEY)") && key.contains("no private key"), "{key}");
    let certificate = told(TlsSettings { certificate: good.key.clone(), ..good.clone() });
    assert!(certificate.contains("`tls.certificate`") && certificate.contains("no certificate"), "{certificate}");
    let missing = told(TlsSettings { certificate: "/nowhere".to_owned(), ..good.clone() });
    assert!(missing.contains("/nowhere") && missing.contains("No such file"), "{missing}");
    let authorities = told(TlsSettings { client_authorities: good.key.clone(), ..good.clone() });
    assert!(authorities.contains("`tls.client_authorities`"), "{authorities}");
    assert!(Tls::load(&TlsSettings::default()).unwrap().is_none());
}
