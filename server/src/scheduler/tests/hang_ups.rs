//! Nothing is executed for callers that have gone, and nothing of theirs is kept.

use super::*;

/// The bytes of a request, which note that they were freed.
pub(super) struct Noting {
    pub(super) rows: [u8; 1],
    pub(super) freed: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Noting {
    fn as_ref(&self) -> &[u8] {
        &self.rows
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        self.freed.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn of_ten_thousand_callers_that_hang_up_nothing_is_run_and_nothing_is_left() {
    const CALLERS: usize = 10_000;
    let (behaviour, open) = gated();
    let bench = bench(2, 2 * CALLERS, behaviour);
    let first = bench.ask(&[1], None).await;
    bench.wait_for_pending(0).await;
    let second = bench.ask(&[2], None).await;
    bench.wait_for_pending(0).await;
    let freed = Arc::new(AtomicUsize::new(0));
    let mut calls = Vec::new();
    for _ in 0..CALLERS {
        let mut request = request(&[13]);
        request.inputs[0].data = bytes::Bytes::from_owner(Noting { rows: [13], freed: Arc::clone(&freed) });
        let scheduler = Arc::clone(&bench.scheduler);
        let mut call = Box::pin(async move { scheduler.infer(request, None).await });
        let polled = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        assert!(polled.is_pending());
        calls.push(call);
    }
    assert_eq!(bench.scheduler.pending(), CALLERS);
    drop(calls);
    let last = bench.ask(&[3], None).await;
    drop(open);
    for (asked, row) in [first, second, last].into_iter().zip(1..) {
        assert_eq!(asked.await.unwrap().unwrap(), [row]);
    }
    bench.scheduler.stop();
    assert_eq!(lock(&bench.recorder.batches).iter().map(|batch| batch.requests).collect::<Vec<_>>(), [1; 3]);
    assert_eq!(bench.recorder.abandoned.load(Ordering::SeqCst), CALLERS);
    assert_eq!(freed.load(Ordering::SeqCst), CALLERS);
    assert_eq!(bench.scheduler.pending(), 0);
}
