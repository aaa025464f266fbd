use super::*;

fn served(percent_of_raw: f64, failed: usize) -> Served {
    let raw_best_images_per_s = 100.0;
    Served { callers: 4, images_per_s: percent_of_raw, raw_best_images_per_s, percent_of_raw, failed }
}

const PAIRS: Pairs = Pairs { checked: 5, apart: 0, least_iou: 1.0, most_score: 0.0 };

fn checked(difference: Vec<Difference>, pairs: Pairs, served: Served) -> Checked {
    let (batches, untimed) = (Vec::new(), None);
    Checked { difference, pairs: Some(pairs), not_checked: None, batches, untimed, served }
}

fn report(checked: Checked) -> Report {
    let gpu = GpuFacts {
        number: 0,
        name: "Test GPU".to_owned(),
        uuid: "GPU-first".to_owned(),
        is_certain: true,
        driver: "580.65.06".to_owned(),
        capability: (9, 0),
    };
    Report {
        requested: "auto".to_owned(),
        provider: "cuda",
        fallback_reason: None,
        gpu: Some(Gpu::from(gpu)),
        cores: 2,
        session_threads: 1,
        library: "of a test",
        model: "m version 1".to_owned(),
        checked,
    }
}

#[test]
fn what_is_wrong_is_said_with_its_bound() {
    let good = Difference {
        output: "scores".to_owned(),
        datatype: "FP32",
        max_abs: Some(0.0005),
        mean_abs: Some(0.0001),
        unequal: 7,
        bound: Some(0.001),
        within: true,
    };
    assert!(report(checked(vec![good.clone()], PAIRS, served(90.0, 0))).wrong().is_empty());
    let bad = Difference { max_abs: Some(0.002), within: false, ..good.clone() };
    let ids = Difference { output: "ids".to_owned(), max_abs: None, bound: None, within: false, ..good };
    let wrong = checked(vec![bad, ids], Pairs { apart: 2, ..PAIRS }, served(90.0, 3));
    assert_eq!(
        report(wrong).wrong().join("; "),
        "output `scores` is 0.002000 from the CPU's, and may be 0.001000; output `ids` has 7 elements that are not \
         the CPU's; 2 of the CPU's 5 detections are not the device's; 3 requests failed"
    );
}

#[test]
fn on_a_gpu_the_server_must_carry_nine_tenths_of_the_raw_sessions() {
    let on =
        |provider, percent| Report { provider, ..report(checked(Vec::new(), PAIRS, served(percent, 0))) };
    assert_eq!(
        on("cuda", 89.9).wrong(),
        ["the server carries 89.9 % of the best raw sessions, and must carry 90 %"]
    );
    assert_eq!((on("tensorrt", f64::NAN).wrong().len(), on("tensorrt", 120.0).wrong().len()), (1, 0));
    assert!(on("cpu", 50.0).wrong().is_empty());
}

#[test]
fn what_was_not_checked_or_timed_is_said() {
    let nothing = Pairs { checked: 0, ..PAIRS };
    assert_eq!((PAIRS.not_checked(false), PAIRS.not_checked(true)), (None, None));
    assert!(nothing.not_checked(true).is_some_and(|advice| advice.contains("give another")));
    let beyond = BatchRow {
        rows: 16,
        p50_ms: 2.0,
        p99_ms: 3.0,
        images_per_s: 8000.0,
        beyond_server: true,
        copies: None,
    };
    let batches = vec![BatchRow { rows: 8, beyond_server: false, ..beyond.clone() }, beyond];
    let untimed = Some(Untimed { rows: 32, reason: "out of memory".to_owned() });
    let not_checked = nothing.not_checked(false);
    let checked =
        Checked { pairs: None, not_checked, batches, untimed, ..checked(Vec::new(), PAIRS, served(95.0, 0)) };
    let text = report(checked).to_string();
    assert!(text.contains("detections of the CPU: not checked: give --photo\n"), "{text}");
    let line = |rows: &str| text.lines().find(|line| line.trim_start().starts_with(rows)).unwrap_or_default();
    assert!(line("16 ").ends_with("beyond the server's max_batch_size: not compared"), "{text}");
    assert!(line("8 ").ends_with("8000.0"), "{text}");
    assert!(text.contains("  32  not timed, nor what follows: out of memory\n"), "{text}");
}
