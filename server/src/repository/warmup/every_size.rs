//! On a GPU every batch size is run before the model is ready, as far as the device has memory for it.
//!
//! A session's arenas keep what they have taken, also after a batch that did not fit. So a shape that runs out beside
//! others says nothing of the memory there is without them, and one that has served its turn must be closed first.

use std::time::Instant;

use super::candidate::Candidate;
use super::{ROUNDS, Recalled, STEP, Warmup};
use crate::backend::{BackendError, FailureKind};
use crate::repository::shapes::{Choice, Measurements};
use crate::scheduler::{DryRun, every_size};

impl Warmup<'_> {
    /// Runs every batch size on every session, then times all of them in rounds: one whatever it takes, and more while
    /// there is time. Shapes of more sessions for which the device has no memory are closed; if the smallest one, the
    /// first, does not fit beside them, it is opened anew and has the device for itself.
    ///
    /// # Errors
    /// When the smallest shape fails, in words for the middle of a sentence; `candidates` is empty when it cannot be opened
    /// anew.
    pub(super) fn measure_every_size(&self, candidates: &mut Vec<Candidate>) -> Result<(), String> {
        let measured = self.warm_and_time(candidates);
        let is_short = |error: &BackendError| error.kind() == FailureKind::OutOfMemory;
        let measured = match measured {
            Err(error) if is_short(&error) && candidates.len() > 1 => {
                let shape = candidates[0].shape;
                tracing::warn!(
                    model = %self.signature.model, %error,
                    "The device has not memory enough for all that was to be measured: only {shape} is, by itself"
                );
                candidates.clear();
                candidates.push(self.candidate(shape)?);
                self.warm_and_time(candidates)
            }
            measured => measured,
        };
        measured.map_err(|error| error.to_string())
    }

    fn warm_and_time(&self, candidates: &mut Vec<Candidate>) -> Result<(), BackendError> {
        // The smallest one first: what others take is not counted against it.
        let (is_alone, smallest) = (candidates.len() == 1, &mut candidates[0]);
        self.warm_every_size(smallest)?;
        if let Some(fits) = smallest.fits.filter(|_| !is_alone) {
            return Err(short_of_memory(fits));
        }
        let mut others = candidates.split_off(1);
        others.retain_mut(|candidate| {
            let warmed = self.warm_every_size(candidate);
            let warmed =
                warmed.and_then(|()| candidate.fits.map_or(Ok(()), |fits| Err(short_of_memory(fits))));
            let shape = candidate.shape;
            warmed
                .inspect_err(|error| {
                    tracing::warn!(model = %self.signature.model, %error, "No {shape}: they do not run");
                })
                .is_ok()
        });
        candidates.append(&mut others);
        self.time_every_size(candidates)
    }

    fn time_every_size(&self, candidates: &mut [Candidate]) -> Result<(), BackendError> {
        let (started, is_alone) = (Instant::now(), candidates.len() == 1);
        for round in 0..ROUNDS {
            for rows in 1..=self.signature.max_batch_size.max(1) {
                let run = DryRun::of_zeros(self.signature, rows)?;
                for candidate in candidates.iter_mut().filter(|candidate| candidate.has_run(rows)) {
                    if round > 0 && started.elapsed() >= self.time {
                        return Ok(());
                    }
                    match candidate.time(&run, rows, self.time / STEP) {
                        // It ran once, and somebody else has taken the memory meanwhile.
                        Err(error) if error.kind() == FailureKind::OutOfMemory && is_alone && rows > 1 => {
                            self.warn_of_rows(rows, &error);
                            candidate.leave_out_from(rows);
                        }
                        outcome => outcome?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Opens and warms the shape that is known to be the best, or the smallest that is known where the device has not memory
    /// enough for it now.
    pub(super) fn recall_on_gpu(&self, known: &Measurements, choice: Choice) -> Result<Recalled, String> {
        let warmed = |at: usize| {
            let mut candidate = self.candidate(known.0[at].shape)?;
            match self.warm_every_size(&mut candidate) {
                Err(error) if !self.has_open_dimensions() => Err(error.to_string()),
                _ => Ok(candidate),
            }
        };
        let sessions = |at: &usize| known.0[*at].shape.instances;
        let smallest = (0..known.0.len()).min_by_key(sessions).unwrap_or(choice.narrow);
        let best = warmed(choice.narrow);
        let is_whole = best.as_ref().is_ok_and(|best| best.fits.is_none());
        let (narrow, candidate) = match best {
            best if is_whole || smallest == choice.narrow => (choice.narrow, best?),
            best => {
                let (model, shape) = (&self.signature.model, known.0[smallest].shape);
                let error = best.as_ref().err().map_or("not every size fits", String::as_str);
                tracing::warn!(%model, error, "What was found best does not run as it did: there is only {shape}");
                // What its arenas hold goes first.
                drop(best);
                (smallest, warmed(smallest)?)
            }
        };
        let choice = Choice { narrow, ..choice };
        Ok(Recalled { instances: candidate.instances.into(), choice, fits: candidate.fits })
    }

    /// Runs every batch size once on every session. The device may not have memory for all of them: then the largest that
    /// ran is noted.
    pub(super) fn warm_every_size(&self, candidate: &mut Candidate) -> Result<(), BackendError> {
        let most = self.signature.max_batch_size.max(1);
        for rows in every_size(most) {
            match candidate.warm(&DryRun::of_zeros(self.signature, rows)?, rows) {
                Ok(()) => {}
                Err(error) if error.kind() == FailureKind::OutOfMemory && rows > 1 => {
                    self.warn_of_rows(rows, &error);
                    candidate.leave_out_from(rows);
                    if rows < most {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn warn_of_rows(&self, rows: usize, error: &BackendError) {
        tracing::warn!(model = %self.signature.model, rows, %error, "Batches of {rows} rows do not fit");
    }
}

fn short_of_memory(fits: usize) -> BackendError {
    let detail = format!("batches of more than {fits} rows do not fit beside what else is open");
    BackendError::of_kind(FailureKind::OutOfMemory, detail)
}
