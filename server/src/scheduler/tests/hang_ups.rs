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

/// What happened when, in an order that all threads agree on.
#[derive(Default)]
struct Order(AtomicUsize);

impl Order {
    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// Callers hang up while batches are taken out of the queue. Whoever had gone when the batch before ended, and so before
/// the next one was put together, is in none: what is executed for those who go was in flight when they went.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_has_gone_before_a_batch_is_put_together_is_not_in_it() {
    const CALLERS: usize = 255 * 16;
    let order = Arc::new(Order::default());
    // Of each batch when it ended, and whose rows were in it. A row is its caller's number.
    type Ends = Arc<Mutex<Vec<(usize, Vec<u16>)>>>;
    let ends = Ends::default();
    let bench = {
        let (order, ends) = (Arc::clone(&order), Arc::clone(&ends));
        let backend = SimulatedBackend::new(move |batch: &Batch<'_>| {
            let callers = batch.inputs[0].data.as_chunks::<2>().0.iter().map(|row| u16::from_le_bytes(*row));
            std::thread::yield_now();
            lock(&ends).push((order.next(), callers.collect()));
            SimulatedBackend::echo(batch)
        });
        let parts = InstanceParts { backend: Box::new(backend.clone()), factory: Arc::new(backend) };
        bench_for(signature_of(2), PolicyLimits::new(8, 1), vec![parts])
    };
    let mut tasks = Vec::new();
    for task in 0..16_u16 {
        let (scheduler, order) = (Arc::clone(&bench.scheduler), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let mut gone = Vec::new();
            // In groups, so that there is a queue to leave.
            for group in 0..17_u16 {
                let mut calls = Vec::new();
                for member in 0..15_u16 {
                    let number = task * 255 + group * 15 + member;
                    let mut request = request(&[0]);
                    request.inputs[0].shape = Shape::from([1, 2]);
                    request.inputs[0].data = number.to_le_bytes().to_vec().into();
                    let scheduler = Arc::clone(&scheduler);
                    let mut call = Box::pin(async move { scheduler.infer(request, None).await });
                    let polled = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
                    calls.push((number, call, polled.is_ready()));
                }
                for (number, call, ready) in calls {
                    if ready {
                        continue;
                    }
                    if number % 3 == 0 {
                        call.await.unwrap();
                        continue;
                    }
                    drop(call);
                    gone.push((number, order.next()));
                    if number % 5 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }
            gone
        }));
    }
    let mut gone = std::collections::HashMap::new();
    for task in tasks {
        gone.extend(task.await.unwrap());
    }
    bench.scheduler.stop();
    let (mut before, mut executed) = (None, 0);
    for (ended, callers) in lock(&ends).iter() {
        for caller in callers {
            executed += 1;
            // Whoever went after the batch before had ended may have been in this one already.
            let left = gone.get(caller).copied();
            assert!(
                left.is_none_or(|left| Some(left) > before),
                "{caller} had left before the batch was put together"
            );
        }
        before = Some(*ended);
    }
    let abandoned = bench.recorder.abandoned.load(Ordering::SeqCst);
    assert_eq!(executed + abandoned, CALLERS, "each was executed or taken out");
    assert!(abandoned > 0, "nobody left in time");
}
