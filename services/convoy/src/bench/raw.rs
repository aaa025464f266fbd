//! What there is to reach: the same model on ONNX Runtime itself, no server, no network, no queue.

use super::statistics::Latency;
use model_serving::backend::onnx::{OnnxRuntime, SessionOptions};
use model_serving::backend::{Acceleration, Backend, Batch, BatchInput, ExecutionProvider, RawSession};
use model_serving::tensor::{DataType, Shape};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// So many sessions at work at once, each with so many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct SessionShape {
    pub(super) sessions: usize,
    pub(super) threads: usize,
    /// Rows of each call.
    pub(super) rows: usize,
}

impl SessionShape {
    /// The shapes that are worth measuring on so many cores: all cores on one call, and one call on each core; and
    /// on four and more, calls of two cores each.
    pub(super) fn on(cores: usize) -> Vec<Self> {
        let mut shapes = vec![Self { sessions: 1, threads: cores, rows: 1 }];
        for threads in [2, 1] {
            let shape = Self { sessions: cores / threads, threads, rows: 1 };
            if shape.sessions > 1 {
                shapes.push(shape);
            }
        }
        shapes
    }

    /// The shapes that are worth measuring on a GPU that takes calls of so many rows: a lone call of one row, and the
    /// largest ones, one at a time and two.
    pub(super) fn on_gpu(rows: usize) -> Vec<Self> {
        let mut shapes = vec![Self { sessions: 1, threads: 1, rows: 1 }];
        shapes.extend((rows > 1).then_some(Self { sessions: 1, threads: 1, rows }));
        shapes.push(Self { sessions: 2, threads: 1, rows });
        shapes
    }
}

/// What runs raw sessions.
#[derive(Clone, Debug)]
pub(super) struct RawDevice {
    pub(super) provider: ExecutionProvider,
    /// Number of the GPU, where it is one.
    pub(super) gpu: i32,
    pub(super) acceleration: Acceleration,
}

impl RawDevice {
    /// Options of a session with so many threads.
    pub(super) fn options(&self, threads: usize) -> SessionOptions {
        let acceleration = self.acceleration.clone();
        SessionOptions { acceleration, ..SessionOptions::new(self.provider, self.gpu, threads) }
    }

    /// The shapes that are worth measuring.
    pub(super) fn shapes(&self, cores: usize, max_rows: usize) -> Vec<SessionShape> {
        match self.provider.is_gpu() {
            true => SessionShape::on_gpu(max_rows.max(1)),
            false => SessionShape::on(cores),
        }
    }
}

impl fmt::Display for SessionShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.sessions, self.threads)?;
        if self.rows > 1 { write!(f, " with {} rows", self.rows) } else { Ok(()) }
    }
}

/// The one input of a model, filled.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) datatype: DataType,
    pub(super) shape: Shape,
    /// Sent in turn; aligned as the allocator aligns what is large.
    pub(super) rows: Vec<Vec<u8>>,
}

impl Input {
    /// The bytes of so many rows.
    pub(super) fn data(&self, rows: usize) -> Vec<u8> {
        self.rows.iter().cycle().take(rows).flatten().copied().collect()
    }

    /// A batch of these bytes.
    pub(super) fn batch<'a>(&'a self, data: &'a [u8], rows: usize) -> Batch<'a> {
        let mut dims = self.shape.to_vec();
        if let Some(first) = dims.first_mut().filter(|_| rows > 1) {
            *first = rows as i64;
        }
        let input = BatchInput { name: &self.name, datatype: self.datatype, shape: Shape::from(dims), data };
        Batch { rows, inputs: vec![input] }
    }
}

/// What a run of raw sessions gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RawSeen {
    pub(super) images_per_s: f64,
    pub(super) latency: Latency,
}

/// Open sessions of every shape.
pub(super) struct RawSessions<B = RawSession> {
    shapes: Vec<(SessionShape, Vec<B>)>,
    input: Input,
}

impl RawSessions {
    /// Opens `model`. Blocking.
    ///
    /// # Errors
    /// A sentence: why the library or the model cannot be used.
    pub(super) fn open(
        library: Option<&Path>,
        model: &Path,
        shapes: &[SessionShape],
        device: &RawDevice,
        input: Input,
    ) -> Result<Self, String> {
        let runtime = OnnxRuntime::load(library).map_err(|error| error.to_string())?;
        let session = |threads| runtime.open(model, &device.options(threads));
        let opened: Result<_, _> = shapes
            .iter()
            .map(|shape| {
                let sessions =
                    (0..shape.sessions).map(|_| session(shape.threads)).collect::<Result<_, _>>()?;
                Ok((*shape, sessions))
            })
            .collect();
        let opened = opened.map_err(|error: model_serving::backend::BackendError| {
            format!(
                "The model {} cannot be opened on {}: {error}.",
                PathBuf::from(model).display(),
                device.provider
            )
        });
        Ok(Self { shapes: opened?, input })
    }
}

impl<B: Backend> RawSessions<B> {
    /// Runs all sessions of the shape number `at` at once for `duration`, after one run of each and a tenth of that time,
    /// which are not counted. Blocking.
    ///
    /// # Errors
    /// A sentence: why the model fails.
    pub(super) fn run(&mut self, at: usize, duration: Duration) -> Result<(SessionShape, RawSeen), String> {
        let (shape, sessions) = &mut self.shapes[at];
        let input = &self.input;
        let rows = shape.rows;
        // The first run of a shape chooses kernels and takes memory: on a GPU that may take longer than all the rest.
        side_by_side(sessions, |session| infer(session, &input.batch(&input.data(rows), rows)))?;
        let counted_from = Instant::now() + duration / 10;
        let until = counted_from + duration;
        let latencies = side_by_side(sessions, |session| run_one(session, input, rows, counted_from, until))?;
        let latencies = latencies.concat();
        let images_per_s = (latencies.len() * rows) as f64 / duration.as_secs_f64();
        Ok((*shape, RawSeen { images_per_s, latency: Latency::of(latencies) }))
    }
}

/// What `work` gives for each of the sessions, on a thread for each.
fn side_by_side<B: Backend, R: Send>(
    sessions: &mut [B],
    work: impl Fn(&mut B) -> Result<R, String> + Sync,
) -> Result<Vec<R>, String> {
    let work = &work;
    thread::scope(|scope| {
        let running: Vec<_> = sessions.iter_mut().map(|session| scope.spawn(move || work(session))).collect();
        let ended = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("A raw session panicked.".to_owned())));
        ended.collect()
    })
}

fn infer(session: &mut impl Backend, batch: &Batch<'_>) -> Result<(), String> {
    session.infer(batch).map(drop).map_err(|error| format!("The model fails: {error}."))
}

fn run_one(
    session: &mut impl Backend,
    input: &Input,
    rows: usize,
    counted_from: Instant,
    until: Instant,
) -> Result<Vec<Duration>, String> {
    // One row is sent in turn; a batch is the same each time.
    let many = (rows > 1).then(|| input.data(rows));
    let mut latencies = Vec::new();
    for row in input.rows.iter().cycle() {
        let started = Instant::now();
        if started >= until {
            break;
        }
        let batch = input.batch(many.as_deref().unwrap_or(row), rows);
        let outputs = session.infer(&batch).map_err(|error| format!("The model fails: {error}."))?;
        let ended = Instant::now();
        drop(outputs);
        if ended >= counted_from && ended < until {
            latencies.push(ended - started);
        }
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use model_serving::backend::simulated::SimulatedBackend;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The first run of each session outlasts the time that is counted.
    #[test]
    fn the_clock_starts_after_a_run_of_each_session() {
        let session = || {
            let runs = AtomicUsize::new(0);
            SimulatedBackend::new(move |batch| {
                if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                    thread::sleep(Duration::from_millis(400));
                }
                SimulatedBackend::echo(batch)
            })
        };
        let shape = SessionShape { sessions: 2, threads: 1, rows: 4 };
        let input = Input {
            name: "x".to_owned(),
            datatype: DataType::Uint8,
            shape: Shape::from([1, 1]),
            rows: vec![vec![0]],
        };
        let mut sessions = RawSessions { shapes: vec![(shape, vec![session(), session()])], input };
        let (_, seen) = sessions.run(0, Duration::from_millis(200)).unwrap();
        assert!(seen.images_per_s > 0.0, "{seen:?}");
    }

    #[test]
    fn shapes_use_all_cores_and_none_twice() {
        let shapes = |cores| SessionShape::on(cores).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shapes(1), ["1x1"]);
        assert_eq!(shapes(2), ["1x2", "2x1"]);
        assert_eq!(shapes(4), ["1x4", "2x2", "4x1"]);
        let on_gpu = |rows| SessionShape::on_gpu(rows).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(on_gpu(8), ["1x1", "1x1 with 8 rows", "2x1 with 8 rows"]);
        assert_eq!(on_gpu(1), ["1x1", "2x1"]);
    }
}
