#![allow(clippy::unwrap_used)]

use super::*;
use crate::{Color, Decode, Filter, Fit};

/// A call that arrived so long ago, of which it ran for `ran`, and where its answer comes.
fn call(arrived: Duration, ran: Duration) -> (Call, oneshot::Receiver<Result<ImageTensor, SandboxError>>) {
    let guest = Arc::new(Guest::new(&SandboxConfig::default()).unwrap());
    let left = guest.limits().run_time() - ran;
    let (reply, answer) = oneshot::channel();
    let call = Call {
        guest,
        lane: Lane::Slow,
        onward: None,
        turns: Arc::new(Turns::new(1, 1 << 30)),
        image: Bytes::from_static(b"no image"),
        resize: Resize {
            width: 8,
            height: 8,
            fit: Fit::Stretch,
            filter: Filter::Bilinear,
            color: Color::Rgb,
            decode: Decode::Auto,
        },
        arrived: Instant::now().checked_sub(arrived).unwrap(),
        deadline: None,
        left,
        pixels: 0,
        abandoned: Arc::default(),
        meter: None,
        work: Work::Tensor(reply),
    };
    (call, answer)
}

#[test]
fn what_has_waited_for_too_long_is_refused_and_not_begun() {
    let timeout = Limits::default().timeout;
    let (late, mut answer) = call(timeout, Duration::ZERO);
    assert!(late.unless_late().is_none());
    assert!(
        matches!(answer.try_recv(), Ok(Err(SandboxError::Busy { retry_after })) if retry_after == timeout)
    );
}

#[test]
fn what_is_begun_has_all_its_time_before_its_caller_goes() {
    let limits = Limits::default();
    // In the quick lane it ran for a second, which is no waiting.
    let (in_time, mut answer) = call(limits.timeout, Duration::from_secs(1));
    let left = in_time.left;
    let in_time = in_time.unless_late().unwrap();
    assert!(answer.try_recv().is_err(), "it has no answer yet");
    // Its caller waits until then.
    assert!(in_time.arrived.elapsed() + left < limits.answer_time());
    in_time.run(&Arc::default());
    assert!(matches!(answer.try_recv(), Ok(Err(SandboxError::NotAnImage))));
}
