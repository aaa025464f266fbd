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
    use crate::repository::{InferenceRequest, ModelRepository, RepositoryConfig};
    use crate::scheduler::NoObserver;
    use crate::tensor::{DataType, Shape, Tensor};
    use crate::test_models;
    use serde_json::Value;
    use std::fs;
    use std::sync::Arc;
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

    /// The model as it is measured, and then as it would have been on a machine a thousand times as slow.
    #[tokio::test]
    async fn a_version_that_stops_keeps_what_it_has_learned() {
        let models = test_models::repository(&[("m", "lookup", "max_batch_size: 4")]);
        let cache = tempfile::tempdir().unwrap();
        let config = RepositoryConfig {
            onnxruntime_lib: Some(test_models::library()),
            profile_time: Duration::from_millis(100),
            profile_cache: Some(cache.path().to_owned()),
            slo: None,
            ..RepositoryConfig::new(models.path())
        };
        let load = || ModelRepository::load(&config, Arc::new(NoObserver)).unwrap();
        // What was measured while the machine did much else is not kept.
        let file = loop {
            drop(load());
            let mut files = fs::read_dir(cache.path().join("profiles")).into_iter().flatten();
            if let Some(file) = files.next() {
                break file.unwrap().path();
            }
        };
        let read = || serde_json::from_str::<Value>(&fs::read_to_string(&file).unwrap()).unwrap();
        let mut entry = read();
        for shape in entry["measurements"].as_array_mut().unwrap() {
            for size in shape["milliseconds"].as_array_mut().unwrap() {
                // A whole number: JSON keeps it to the last bit.
                size[1] = (size[1].as_f64().unwrap() * 1000.0).ceil().into();
            }
        }
        fs::write(&file, entry.to_string()).unwrap();

        let repository = load();
        let model = repository.get("m", "").unwrap();
        for _ in 0..2_000 {
            let index = Tensor {
                name: "index".to_owned(),
                datatype: DataType::Int64,
                shape: Shape::from([1, 1]),
                data: 1_i64.to_le_bytes().to_vec().into(),
            };
            let request = InferenceRequest { inputs: vec![index], ..InferenceRequest::default() };
            model.infer(request, None).await.unwrap();
        }
        repository.shutdown();
        let factors = read()["factors"].clone();
        let least =
            ["narrow", "wide"].map(|lane| factors[lane].as_f64().unwrap()).into_iter().reduce(f64::min);
        assert!(least.unwrap() < 0.2, "{factors}");
        assert_eq!(read()["measurements"], entry["measurements"]);
    }
}
