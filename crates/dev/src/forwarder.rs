//! A fixed address for the in-process broker, whose own port is its choice.
//!
//! Kafka clients connect here once, read the broker's own address from the metadata and go on there. This works on one
//! machine, and dev mode serves no other.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections carried at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;

/// Carries every connection to `listener` on to `target` (`host:port`) until shutdown.
#[expect(clippy::disallowed_methods, reason = "a connection ends with its peers, or at shutdown")]
pub async fn serve(listener: TcpListener, target: String, shutdown: CancellationToken) {
    let target: Arc<str> = target.into();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    shutdown
        .run_until_cancelled(async {
            loop {
                let place = Arc::clone(&places).acquire_owned().await;
                match listener.accept().await {
                    Ok((client, _)) => {
                        let (target, shutdown) = (Arc::clone(&target), shutdown.clone());
                        tokio::spawn(async move {
                            shutdown.run_until_cancelled(carry(client, &target)).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        // No file descriptors are left, say: only waiting for connections to end helps.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        })
        .await;
}

async fn carry(mut client: TcpStream, target: &str) {
    let carried = async {
        let mut broker = TcpStream::connect(target).await?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        copy_bidirectional(&mut client, &mut broker).await
    };
    if let Err(error) = carried.await {
        tracing::debug!(%error, target, "a forwarded connection ended");
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own what they start")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_until_shutdown() {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target_address = target.local_addr().unwrap().to_string();
        let echo = tokio::spawn(async move {
            let (mut connection, _) = target.accept().await.unwrap();
            let (mut reader, mut writer) = connection.split();
            tokio::io::copy(&mut reader, &mut writer).await
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let forwarder = tokio::spawn(serve(listener, target_address, shutdown.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
        shutdown.cancel();
        forwarder.await.unwrap();
        assert_eq!(client.read(&mut answer).await.unwrap_or(0), 0);
        // The connection was cut, so the echo ends, well or not.
        let _ = echo.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
