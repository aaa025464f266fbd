//! What serving has learned of a model's kept latencies, for the next start.
//!
//! A profile that was measured in a noisy moment is too slow, and would be too slow again after each start: it may raise
//! the objective until enough has run. What serving has seen corrects it. Only downwards: whatever else a machine does
//! adds to a duration and takes nothing from it, and a device that really is slower is noticed within a few batches.

use serde::{Deserialize, Serialize};

use super::profile_cache::{ProfileCache, ProfileKey};
use crate::scheduler::{LatencyProfile, Profiles};

/// A change that is worth a file: less is the difference between a run in the server and one by itself.
const WORTH: f64 = 0.9;

/// How many times as long as measured batches took in service, 1 at most; by lane.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Factors {
    narrow: f64,
    wide: f64,
}

impl Default for Factors {
    fn default() -> Self {
        Self { narrow: 1.0, wide: 1.0 }
    }
}

impl Factors {
    /// What cannot be is as if it were not there.
    pub(crate) fn possible(self) -> Self {
        let possible = |factor: f64| if factor > 0.0 && factor <= 1.0 { factor } else { 1.0 };
        Self { narrow: possible(self.narrow), wide: possible(self.wide) }
    }

    /// Profiles as measured, with what is known of them.
    pub(crate) fn apply(self, profiles: Profiles) -> Profiles {
        Profiles {
            narrow: profiles.narrow.with_factor(self.narrow),
            wide: profiles.wide.map(|wide| wide.with_factor(self.wide)),
        }
    }

    /// With what profiles have learned; what they have not stays.
    fn learn(self, profiles: &Profiles) -> Self {
        let learned = |profile: Option<&LatencyProfile>, known: f64| {
            profile.and_then(LatencyProfile::learned).map_or(known, |factor| factor.min(known))
        };
        Self {
            narrow: learned(Some(&profiles.narrow), self.narrow),
            wide: learned(profiles.wide.as_ref(), self.wide),
        }
        .possible()
    }

    fn is_worth_keeping_instead_of(self, known: Self) -> bool {
        let differs = |one: f64, other: f64| one < other * WORTH || other < one * WORTH;
        differs(self.narrow, known.narrow) || differs(self.wide, known.wide)
    }
}

/// Where a version's profiles are kept.
#[derive(Debug)]
pub(crate) struct KeptProfile {
    pub(crate) cache: ProfileCache,
    pub(crate) key: ProfileKey,
}

impl KeptProfile {
    /// What was learned before.
    pub(crate) fn factors(&self) -> Factors {
        self.cache.factors(&self.key)
    }

    /// Keeps what profiles have learned since, where that matters. Blocking.
    pub(crate) fn take_over(&self, profiles: &Profiles) {
        let known = self.factors();
        let learned = known.learn(profiles);
        if learned.is_worth_keeping_instead_of(known)
            && let Some(measurements) = self.cache.get(&self.key)
        {
            self.cache.put_learned(&self.key, &measurements, learned);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::repository::shapes::{InstanceShape, Measurements, ShapeLatencies, candidates};
    use std::time::Duration;

    fn kept(folder: &std::path::Path) -> KeptProfile {
        let key = ProfileKey {
            model_sha256: "ab".repeat(32),
            device: "cpu".to_owned(),
            library: "1.32".to_owned(),
            cores: 2,
            max_batch_size: 8,
            tensors: "x".to_owned(),
            candidates: candidates(2),
        };
        KeptProfile { cache: ProfileCache::new(folder), key }
    }

    fn observe(profile: &mut LatencyProfile, milliseconds: u64) {
        for _ in 0..100 {
            profile.observe(1, Duration::from_millis(milliseconds));
        }
    }

    #[test]
    fn what_was_measured_in_a_noisy_moment_is_right_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let kept = kept(folder.path());
        let of = |shape: InstanceShape, one| ShapeLatencies { shape, milliseconds: vec![(1, one)] };
        let noisy = Measurements(vec![of(candidates(2)[0], 100.0), of(candidates(2)[1], 180.0)]);
        kept.cache.put(&kept.key, &noisy);
        let start = || kept.factors().apply(noisy.profiles(noisy.choose(true)));
        let mut profiles = start();
        assert_eq!(profiles.narrow.expected(1), Duration::from_millis(180));
        kept.take_over(&profiles);
        assert_eq!(kept.factors(), Factors::default(), "nothing has been learned");
        observe(&mut profiles.narrow, 15);
        kept.take_over(&profiles);
        let mut second = start();
        assert_eq!(second.narrow.expected(1), Duration::from_millis(15));
        assert!(second.narrow.q99(1) < Duration::from_millis(20), "the objective is not raised by it");
        assert_eq!(second.wide.as_ref().unwrap().expected(1), Duration::from_millis(100), "it never ran");
        // What runs in a second noisy moment is no reason to forget it: it was as quick once.
        observe(&mut second.narrow, 300);
        observe(second.wide.as_mut().unwrap(), 8);
        kept.take_over(&second);
        let third = start();
        assert_eq!(third.narrow.expected(1), Duration::from_millis(15));
        assert_eq!(third.wide.unwrap().expected(1), Duration::from_millis(8));
        assert_eq!(kept.cache.get(&kept.key), Some(noisy.clone()), "the measurements stay what they were");
    }

    #[test]
    fn a_factor_that_cannot_be_counts_as_none() {
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1.5] {
            assert_eq!(Factors { narrow: wrong, wide: 0.5 }.possible(), Factors { narrow: 1.0, wide: 0.5 });
        }
        let learned = |narrow, wide| Factors { narrow, wide };
        assert!(!learned(0.95, 1.0).is_worth_keeping_instead_of(Factors::default()));
        assert!(learned(1.0, 0.5).is_worth_keeping_instead_of(Factors::default()));
    }
}
