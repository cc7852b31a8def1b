//! A stream over a WebSocket (RFC 6455): the same records as text messages, one each, and a close code with its reason.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use tokio::time::timeout;

use super::dropped;
use super::feed::Feed;
use super::item::{End, Item};

/// The protocol that is chosen where it is offered: a browser that shows its credential as one needs another beside it.
const PROTOCOL: &str = "meanwhile.events";
/// Clients have nothing to say: their messages are small, or none.
const RECEIVED_BYTES_MAX: usize = 4 * 1024;
/// The time that a client has to take one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(75);
/// The time that a client has to take what is under way once its stream is over, and to answer the close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Close codes (RFC 6455, section 7.4.1, and IANA's registry).
mod code {
    pub(super) const FINISHED: u16 = 1000;
    pub(super) const POLICY: u16 = 1008;
    pub(super) const FAILED: u16 = 1011;
    pub(super) const RESTART: u16 = 1012;
    pub(super) const TRY_AGAIN_LATER: u16 = 1013;
}

/// The answer 101; the stream goes on beside it.
pub(super) fn answer(upgrade: WebSocketUpgrade, feed: Feed) -> Response {
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(RECEIVED_BYTES_MAX).max_frame_size(RECEIVED_BYTES_MAX);
    upgrade.on_upgrade(|socket| serve(socket, feed))
}

async fn serve(mut socket: WebSocket, mut feed: Feed) {
    let end = loop {
        let item = tokio::select! {
            biased;
            // Pings are answered by reading on. Anything else that a client says is passed over.
            received = socket.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            item = feed.next() => item,
        };
        let message = match item {
            None => return,
            Some(Item::End(end)) => break end,
            Some(Item::Event { text, .. }) => Message::text(text),
            Some(Item::Progress(text)) => Message::text(&*text),
            Some(Item::Heartbeat { .. }) => Message::Ping(axum::body::Bytes::new()),
        };
        if !send(&mut socket, &feed, message).await {
            return;
        }
    };
    close(&mut socket, &end).await;
}

/// False once the client is gone, or does not take anything.
async fn send(socket: &mut WebSocket, feed: &Feed, message: Message) -> bool {
    let sending = timeout(SEND_TIMEOUT, socket.send(message));
    tokio::pin!(sending);
    let sent = tokio::select! {
        biased;
        sent = &mut sending => Some(sent),
        () = feed.over() => None,
    };
    match sent {
        Some(Ok(sent)) => sent.is_ok(),
        Some(Err(_)) => {
            dropped("slow");
            false
        }
        // It may still be told the reason, if it reads on soon.
        None => matches!(timeout(CLOSE_TIMEOUT, sending).await, Ok(Ok(Ok(())))),
    }
}

async fn close(socket: &mut WebSocket, end: &End) {
    let code = match end {
        End::Finished => code::FINISHED,
        End::Slow | End::Unauthorized => code::POLICY,
        End::Leaving => code::RESTART,
        End::Crowded => code::TRY_AGAIN_LATER,
        End::Failed(_) => code::FAILED,
    };
    let frame = CloseFrame { code, reason: end.reason().0.into() };
    let closing = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    // As good as it goes: the other side may be gone.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}
