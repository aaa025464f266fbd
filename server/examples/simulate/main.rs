//! Compares the server's batching policy with others in invented time, prints the tables, and writes them and the
//! plot into `docs/`.
//!
//! `cargo run --release -p model-serving --example simulate [-- quick]`: ten traces of each kind (a minute or two), or
//! with `quick` two short ones, which writes nothing. It fails when anything that was to be shown was not. `CARGO_PROFILE_DEV_OPT_LEVEL=3` instead of `--release` spares a
//! build of everything else.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod plot;
mod report;
mod simulation;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;
use std::{fs, io, thread};

use report::Verdict;
use simulation::baselines::Setting;
use simulation::device::Device;
use simulation::recovery::{Recovery, recoveries};
use simulation::study::{Cell, Row, Scale, study};

const FULL: Scale = Scale { seeds: 10, sweep_seeds: 2, requests: 30_000.0, shortest: Duration::from_secs(4) };
const QUICK: Scale = Scale { seeds: 2, sweep_seeds: 1, requests: 8_000.0, shortest: Duration::from_secs(1) };

fn main() -> io::Result<ExitCode> {
    let quick = std::env::args().any(|argument| argument == "quick");
    let rows = study_all(if quick { &QUICK } else { &FULL });
    let troubles: Vec<Recovery> = Device::ALL
        .into_iter()
        .flat_map(|device| {
            [0.5, 2.0].into_iter().flat_map(move |load| recoveries(device, Duration::from_millis(100), load))
        })
        .collect();
    let tables = report::tables(&rows, &troubles);
    println!("{tables}");
    let missed = report::verdicts(&rows).into_iter().filter(|verdict| !verdict.holds);
    let missed: Vec<_> =
        missed.map(|Verdict { what, required, simulated, .. }| (what, required, simulated)).collect();
    for (what, required, simulated) in &missed {
        eprintln!("missed: {what}: {required} required, {simulated} simulated");
    }
    let code = if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if quick {
        return Ok(code);
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    fs::write(docs.join("images/batching.svg"), plot::svg(&rows))?;
    let page = docs.join("batching.md");
    fs::write(&page, report::insert(&fs::read_to_string(&page)?, &tables))?;
    Ok(code)
}

/// Simulates every cell, on every core.
fn study_all(scale: &Scale) -> Vec<Row> {
    let cells = Cell::all();
    let next = Mutex::new(0..cells.len());
    let done: Mutex<Vec<(usize, Row)>> = Mutex::new(Vec::new());
    let take = || next.lock().expect("no thread panics with the lock").next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(at) = take() {
                    let row = study(cells[at], scale, Setting::sweep);
                    done.lock().expect("no thread panics with the lock").push((at, row));
                }
            });
        }
    });
    let mut rows = done.into_inner().expect("no thread panics with the lock");
    rows.sort_unstable_by_key(|&(at, _)| at);
    rows.into_iter().map(|(_, row)| row).collect()
}
