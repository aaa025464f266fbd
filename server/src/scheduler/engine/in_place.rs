//! A new backend on an accelerator: the old one goes first, and the new one is warmed like one of a model that loads.

use super::{Engine, none_there};
use crate::backend::{Backend, BackendError, FailureKind};
use crate::scheduler::every_size;

/// Rows that the device had no memory for, and what it said.
pub(crate) type TooLarge = (usize, BackendError);

impl Engine {
    /// Makes a new backend in the place of the old one, or finds that the old one runs again.
    ///
    /// The old one goes before the new one is made: its arenas hold memory that the new one needs. Only while its device
    /// is lost is it kept: a call into the driver of such a GPU may never come back, and where CUDA's context is gone,
    /// freeing pinned memory fails in a destructor of ONNX Runtime (`CUDAPinnedAllocator::Free` in its
    /// `cuda_allocator.cc`), which ends the process.
    pub(super) fn rebuild_in_place(
        &mut self,
        most: usize,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Option<TooLarge>, String> {
        if self.lost && self.backend.is_some() {
            let there = self.backend.as_deref().ok_or_else(none_there).and_then(Backend::check);
            self.noted(there)?;
            match self.run_zeros(1) {
                // It came back with all that it has learned.
                Ok(()) => {
                    self.lost = false;
                    return Ok(None);
                }
                Err(error) if error.kind() == FailureKind::DeviceLost => {}
                Err(_) => self.backend = None,
            }
        } else {
            self.backend = None;
        }
        let made = self.make();
        let made = self.noted(made)?;
        let old = self.backend.replace(made);
        let warmed = self.warm(most, goes_on);
        match &warmed {
            Ok(_) => self.lost = false,
            Err(_) => self.backend = old,
        }
        self.noted(warmed)
    }

    /// Runs every batch size once. What zeros cannot tell is no reason to do without the backend: some models take other
    /// input only.
    fn warm(&mut self, most: usize, goes_on: &dyn Fn() -> bool) -> Result<Option<TooLarge>, BackendError> {
        let mut too_large = None;
        self.zeros_tell = true;
        for rows in every_size(most) {
            if !goes_on() {
                return Err(BackendError::new("the server stops"));
            }
            let Err(error) = self.run_zeros(rows) else { continue };
            match error.kind() {
                FailureKind::DeviceLost => return Err(error),
                FailureKind::OutOfMemory if rows == 1 => return Err(error),
                FailureKind::OutOfMemory => {
                    too_large = Some((rows, error));
                    if rows < most {
                        break;
                    }
                }
                FailureKind::Other => {
                    self.zeros_tell = rows > 1;
                    break;
                }
            }
        }
        Ok(too_large)
    }
}

#[cfg(test)]
mod tests;
