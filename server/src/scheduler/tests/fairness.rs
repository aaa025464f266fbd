//! A model whose queue is full takes nothing from another.

use super::*;

/// One model is flooded and its instances come to no end; the other's lone requests are served meanwhile. The bound, in
/// batches of the flooded model: none.
#[tokio::test]
async fn lone_requests_of_a_model_wait_for_no_batch_of_another_that_is_flooded() {
    let (behaviour, open) = gated();
    let flooded = bench(2, 1000, behaviour);
    let other = bench(1, 16, SimulatedBackend::echo);
    let mut held = Vec::new();
    for row in 0..200_u8 {
        held.push((flooded.ask(&[row], None).await, row));
    }
    for row in 0..100_u8 {
        assert_eq!(other.ask(&[row], None).await.await.unwrap().unwrap(), [row]);
    }
    assert!(lock(&flooded.recorder.batches).is_empty() && flooded.scheduler.pending() >= 198 - 16);
    drop(open);
    for (asked, row) in held {
        assert_eq!(asked.await.unwrap().unwrap(), [row]);
    }
}
