//! What requests and answers hold is counted for as long as it is really there.

use super::hang_ups::Noting;
use super::*;
use bytes::Bytes;

/// A request of one row whose inputs are counted as so many bytes, and note when they are freed.
fn counted(bench: &Bench, bytes: usize, freed: &Arc<AtomicUsize>) -> InferenceRequest {
    let permit = bench.budget.permit();
    permit.grow(bytes).unwrap();
    let mut request = request(&[1]);
    request.inputs[0].data = Bytes::from_owner(Noting { rows: [1], freed: Arc::clone(freed) });
    request.account = MemoryAccount::of(Some(&permit));
    request
}

#[tokio::test]
async fn a_request_whose_caller_has_gone_is_counted_until_its_inputs_are_freed() {
    let (behaviour, open) = gated();
    let bench = bench(1, 16, behaviour);
    let (running, queued) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut first = Box::pin(bench.scheduler.infer(counted(&bench, 1000, &running), None));
    assert!(poll_fn(|context| Poll::Ready(first.as_mut().poll(context))).await.is_pending());
    bench.wait_for_pending(0).await;
    let mut second = Box::pin(bench.scheduler.infer(counted(&bench, 10, &queued), None));
    assert!(poll_fn(|context| Poll::Ready(second.as_mut().poll(context))).await.is_pending());
    assert_eq!((bench.scheduler.pending(), bench.budget.used()), (1, 1010));
    drop(second);
    assert_eq!((queued.load(Ordering::SeqCst), bench.budget.used()), (1, 1000), "out of the queue at once");
    drop(first);
    assert_eq!((running.load(Ordering::SeqCst), bench.budget.used()), (0, 1000), "it is being executed");
    drop(open);
    bench.scheduler.stop();
    assert_eq!((running.load(Ordering::SeqCst), bench.budget.used()), (1, 0));
}

#[tokio::test]
async fn an_answered_requests_inputs_are_freed_before_its_caller_knows() {
    let bench = bench(1, 16, SimulatedBackend::echo);
    for round in 1..=100 {
        let freed = Arc::new(AtomicUsize::new(0));
        drop(bench.scheduler.infer(counted(&bench, round, &freed), None).await.unwrap());
        assert_eq!((freed.load(Ordering::SeqCst), bench.budget.used()), (1, 0));
    }
}

/// The rows of a batch are views of its outputs: as long as one is held, all of them are in memory.
#[tokio::test]
async fn a_batch_is_counted_until_the_last_of_its_rows_is_let_go() {
    let (behaviour, open) = gated();
    let bench = bench(1, 16, behaviour);
    let first = bench.ask(&[1], None).await;
    bench.wait_for_pending(0).await;
    let (mut quick, mut slow) = (
        Box::pin(bench.scheduler.infer(request(&[1, 2, 3, 4, 5, 6, 7]), None)),
        Box::pin(bench.scheduler.infer(request(&[8]), None)),
    );
    let both = poll_fn(|context| {
        Poll::Ready((quick.as_mut().poll(context).is_pending(), slow.as_mut().poll(context).is_pending()))
    });
    assert_eq!(both.await, (true, true));
    drop(open);
    first.await.unwrap().unwrap();
    let (quick, slow) = (quick.await.unwrap(), slow.await.unwrap());
    assert_eq!((quick.batch_size, slow.outputs[0].data.len(), bench.budget.used()), (8, 1, 8));
    drop(quick);
    assert_eq!(bench.budget.used(), 8, "one row of eight keeps all of them");
    drop(slow);
    assert_eq!(bench.budget.used(), 0);
}
