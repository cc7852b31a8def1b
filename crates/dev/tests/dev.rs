//! Laptop mode comes up whole, takes real ones where they are given, and says which port is in the way.

use dev::{Dev, Options};
use tokio::net::{TcpListener, TcpStream};

fn options() -> Options {
    let any = || "127.0.0.1:0".to_owned();
    Options { kafka_listen: any(), registry_listen: any(), ..Options::default() }
}

#[tokio::test]
async fn everything_that_was_not_given_is_started() {
    let dev = Dev::start(options()).await.unwrap();
    assert!(dev.in_process.is_some());
    assert_eq!(dev.forgets(), (true, true));
    assert!(dev.database_url.starts_with("postgres://"));
    for address in [dev.kafka_brokers.clone(), dev.kafka_shown.clone(), dev.registry_url.replace("http://", "")] {
        TcpStream::connect(&address).await.unwrap();
    }
    assert_ne!(dev.kafka_brokers, dev.kafka_shown);
    dev.stop().await;
}

#[tokio::test]
async fn what_was_given_is_used_as_it_is() {
    let given = Options {
        database_url: Some("postgres://real".to_owned()),
        kafka_brokers: Some("real:9092".to_owned()),
        registry_url: Some("http://real:8081".to_owned()),
        ..Options::default()
    };
    let dev = Dev::start(given).await.unwrap();
    assert_eq!((dev.database_url.as_str(), dev.kafka_brokers.as_str()), ("postgres://real", "real:9092"));
    assert_eq!((dev.registry_url.as_str(), dev.kafka_shown.as_str()), ("http://real:8081", "real:9092"));
    assert!(dev.in_process.is_none());
    assert_eq!(dev.forgets(), (false, false));
    dev.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_flag_to_change() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Dev::start(Options { kafka_listen: address.clone(), ..options() }).await.unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("--kafka-listen"), "{error}");
    let error = Dev::start(Options { registry_listen: address.clone(), ..options() }).await.unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("--registry-listen"), "{error}");
}

#[tokio::test]
async fn kcat_reaches_the_in_process_kafka_through_its_fixed_address() {
    let given = Some("postgres://real".to_owned());
    let dev = Dev::start(Options { database_url: given, ..options() }).await.unwrap();
    let address = dev.kafka_shown.clone();
    let kcat = move |line: &str| {
        let output = std::process::Command::new("sh").args(["-c", line, &address]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let seen = tokio::task::spawn_blocking(move || {
        kcat("echo hello | kcat -P -b \"$0\" -t greetings -p 0 -k someone");
        kcat("kcat -C -b \"$0\" -t greetings -p 0 -o beginning -c 1 -f '%k says %s' -q")
    });
    assert_eq!(seen.await.unwrap(), "someone says hello");
    dev.stop().await;
}
