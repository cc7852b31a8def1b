//! Of several relays one delivers; another takes over, and a zombie is fenced.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use relay::seam::{Seam, Seams};
use store::reader::Way;

use crate::child;
use crate::stage::{Stage, WITHIN, either_way};

either_way!(
    a_standby_takes_over_when_the_other_leaves,
    a_standby_takes_over_from_a_killed_relay,
    a_relay_that_hung_with_an_open_transaction_wakes_up_fenced,
);

async fn a_standby_takes_over_when_the_other_leaves(way: Way) {
    let stage = Stage::by(way).await;
    let mut first = stage.start();
    stage.commit(0..10).await;
    first.relayed(10).await;
    let mut second = stage.start();
    second.says("slot", true, "standby").await;
    assert!(second.delivered.borrow().is_none());
    first.stop().await;
    stage.commit(10..20).await;
    second.relayed(20).await;
    second.says("slot", true, "").await;
    stage.assert_once_in_order(20).await;
    second.stop().await;
}

async fn a_standby_takes_over_from_a_killed_relay(way: Way) {
    let stage = Stage::by(way).await;
    let mut first = child::start(&stage);
    stage.commit(0..10).await;
    let delivered = async || (!stage.read(&stage.topics.relay()).await.is_empty()).then_some(());
    test_kit::eventually(WITHIN, "the first relay delivers", delivered).await;
    let mut standby = stage.start();
    standby.says("slot", true, "standby").await;
    stage.commit(10..20).await;
    first.kill9();
    stage.commit(20..30).await;
    standby.relayed(30).await;
    stage.assert_once_in_order(30).await;
    standby.stop().await;
}

/// A seam that stops the delivering thread before a commit, once it is armed: `reached` says so, `go` lets it go on.
struct Freeze {
    armed: Arc<AtomicBool>,
    reached: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

fn freezing() -> (Freeze, Seams) {
    let (tell, reached) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let armed = Arc::new(AtomicBool::new(false));
    let (arm, wait) = (Arc::clone(&armed), Mutex::new(wait));
    let seams = Seams::new(move |seam| {
        if seam == Seam::BeforeCommit && arm.swap(false, Ordering::Relaxed) {
            tell.send(()).unwrap();
            let _ = wait.lock().unwrap().recv();
        }
        ControlFlow::Continue(())
    });
    (Freeze { armed, reached, go }, seams)
}

async fn a_relay_that_hung_with_an_open_transaction_wakes_up_fenced(way: Way) {
    let stage = Stage::by(way).await;
    let (freeze, seams) = freezing();
    // The whole first relay hangs: its delivering thread in the seam, and the one thread of its runtime too.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut first = {
        let _guard = runtime.enter();
        stage.start_with(seams)
    };
    stage.commit(0..10).await;
    first.relayed(10).await;
    freeze.armed.store(true, Ordering::Relaxed);
    stage.commit(10..20).await;
    let (thaw, frozen) = mpsc::channel::<()>();
    tokio::task::block_in_place(|| freeze.reached.recv().unwrap());
    runtime.spawn(async move {
        let _ = frozen.recv();
    });

    let mut second = stage.start();
    second.relayed(20).await;
    freeze.go.send(()).unwrap();
    thaw.send(()).unwrap();
    first.says("slot", true, "standby").await;
    stage.commit(20..30).await;
    second.relayed(30).await;
    second.stop().await;
    stage.commit(30..40).await;
    first.relayed(40).await;
    stage.assert_once_in_order(40).await;
    runtime.shutdown_background();
}
