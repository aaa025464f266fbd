#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Loads `versions` and fails on `failed`; gives what was given back.
fn load(registry: &mut Registry<u64>, name: &str, versions: &[u64], failed: &[u64]) -> Vec<u64> {
    registry.want(name);
    let id = registry.loading(name, versions.iter().chain(failed).copied());
    let outcome = Outcome {
        loaded: versions.iter().map(|&version| (version, Arc::new(version))).collect(),
        failed: failed.iter().map(|&version| (version, format!("{version} is broken"))).collect(),
    };
    registry.finish(name, id, outcome).into_iter().map(|version| *version).collect()
}

fn index(registry: &Registry<u64>) -> Vec<String> {
    let lines = registry.index(["z".to_owned(), "a".to_owned()]);
    lines
        .iter()
        .map(|line| format!("{} {} {} {}", line.name, line.version, line.state, line.reason))
        .collect()
}

fn newest(registry: &Registry<u64>, name: &str) -> u64 {
    *registry.get(name, "").unwrap()
}

#[test]
fn the_index_says_what_triton_says() {
    let mut registry = Registry::new();
    registry.want("m");
    assert_eq!(index(&registry), ["a   ", "m  LOADING ", "z   "]);
    registry.loading("m", [2, 10]);
    assert_eq!(index(&registry), ["a   ", "m 10 LOADING ", "m 2 LOADING ", "z   "]);
    load(&mut registry, "m", &[2], &[10]);
    assert_eq!(index(&registry), ["a   ", "m 10 UNAVAILABLE 10 is broken", "m 2 READY ", "z   "]);
    registry.unload("m");
    assert_eq!(index(&registry), ["a   ", "m 10 UNAVAILABLE unloaded", "m 2 UNLOADING ", "z   "]);
    registry.drained("m", 2, LoadId(2));
    assert_eq!(index(&registry)[2], "m 2 UNAVAILABLE unloaded");
    registry.want("m");
    registry.refused("m", "no such file");
    assert_eq!(index(&registry)[2..4], ["m 2 UNAVAILABLE unloaded", "m  UNAVAILABLE no such file"]);
}

#[test]
fn a_version_that_is_not_served_is_an_error_that_says_why() {
    let mut registry = Registry::new();
    let error = |registry: &Registry<u64>, version: &str| registry.get("m", version).unwrap_err().to_string();
    assert!(error(&registry, "").contains("no model `m`"));
    registry.want("m");
    assert!(error(&registry, "").contains("is being loaded"));
    registry.refused("m", "why");
    assert!(error(&registry, "").contains("could not be loaded"));
    load(&mut registry, "m", &[1, 3], &[2]);
    assert_eq!(newest(&registry, "m"), 3);
    assert_eq!(*registry.get("m", "1").unwrap(), 1);
    assert!(error(&registry, "2").contains("could not be loaded"));
    for version in ["4", "01", "x", "-1"] {
        assert!(matches!(registry.get("m", version), Err(ServingError::VersionNotFound { .. })), "{version}");
    }
    registry.unload("m");
    assert!(matches!(registry.get("m", ""), Err(ServingError::ModelNotLoaded { .. })));
    assert!(matches!(registry.get("m", "3"), Err(ServingError::VersionNotFound { .. })));
}

#[test]
fn a_model_is_not_replaced_by_half_of_another() {
    let mut registry = Registry::new();
    assert_eq!(load(&mut registry, "m", &[1], &[]), [0; 0]);
    assert_eq!(load(&mut registry, "m", &[1, 2], &[3]), [1, 2], "what was just loaded");
    assert_eq!(newest(&registry, "m"), 1);
    assert_eq!(load(&mut registry, "m", &[2], &[]), [1]);
    assert_eq!(newest(&registry, "m"), 2);
    // Those of the second load were never served.
    registry.drained("m", 1, LoadId(2));
    registry.drained("m", 2, LoadId(2));
    assert!(registry.is_draining("m", LoadId(1)));
    // The same version again: the one before drains, and its end says nothing of the new one.
    assert_eq!(load(&mut registry, "m", &[2], &[]), [2]);
    registry.drained("m", 2, LoadId(3));
    registry.drained("m", 1, LoadId(1));
    assert_eq!(newest(&registry, "m"), 2);
    assert!(!registry.is_draining("m", LoadId(4)));
}

/// A version is loaded again, and unloaded before that from the first load has answered all it was asked.
#[test]
fn the_end_of_one_load_is_not_taken_for_that_of_another() {
    let mut registry = Registry::new();
    load(&mut registry, "m", &[1], &[]);
    load(&mut registry, "m", &[1], &[]);
    let (_, unloaded) = registry.unload("m").unwrap();
    assert_eq!(unloaded, LoadId(2));
    registry.drained("m", 1, LoadId(1));
    assert!(registry.is_draining("m", unloaded), "what was unloaded has not ended");
    assert_eq!(index(&registry)[1], "m 1 UNLOADING ");
    // Loaded a third time meanwhile: who waits for the unload still waits for what was unloaded, and for nothing else.
    load(&mut registry, "m", &[1], &[]);
    assert!(registry.is_draining("m", unloaded));
    load(&mut registry, "m", &[1], &[]);
    registry.drained("m", 1, LoadId(2));
    assert!(!registry.is_draining("m", unloaded) && registry.is_draining("m", LoadId(3)));
    assert_eq!(index(&registry)[1], "m 1 READY ");
}

#[test]
fn the_only_model_is_the_only_one_wanted() {
    let mut registry = Registry::<u64>::new();
    assert_eq!(registry.only(), None);
    registry.want("a");
    assert_eq!(registry.only(), Some("a"));
    registry.want("b");
    registry.refused("b", "broken");
    assert_eq!(registry.only(), None, "a broken model is still one that is wanted");
    registry.unload("b");
    assert_eq!(registry.only(), Some("a"));
}

#[derive(Clone, Debug)]
enum Step {
    Load {
        loaded: BTreeSet<u64>,
        failed: BTreeSet<u64>,
    },
    Refused,
    Unload,
    /// The first or the last of what was given back and has not ended.
    Drained {
        last: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let versions = || prop::collection::btree_set(1..5_u64, 0..4);
    prop_oneof![
        (versions(), versions()).prop_map(|(loaded, failed)| Step::Load {
            failed: failed.difference(&loaded).copied().collect(),
            loaded,
        }),
        Just(Step::Refused),
        Just(Step::Unload),
        any::<bool>().prop_map(|last| Step::Drained { last }),
    ]
}

proptest! {
    /// Whatever happens: each version that was loaded is served or was given back, never both; the index says READY
    /// of just what is served; the newest answers for the model.
    #[test]
    fn nothing_is_lost_and_the_index_tells_the_truth(steps in prop::collection::vec((0..2_usize, step()), 0..40)) {
        let mut registry = Registry::new();
        let (mut made, mut given_back) = (0_u64, Vec::new());
        // What each model has given back and what has not ended; each of it, served once or never.
        let (mut open, mut of) = ([Vec::new(), Vec::new()], BTreeMap::new());
        for (model, step) in steps {
            let name = ["m", "n"][model];
            match step {
                Step::Load { loaded, failed } => {
                    registry.want(name);
                    let id = registry.loading(name, loaded.iter().chain(&failed).copied());
                    let mut new = |version| {
                        made += 1;
                        of.insert(made, (version, id));
                        Arc::new(made)
                    };
                    let outcome = Outcome {
                        loaded: loaded.iter().map(|&version| (version, new(version))).collect(),
                        failed: failed.iter().map(|&version| (version, "broken".to_owned())).collect(),
                    };
                    let half = !failed.is_empty() && registry.serves(name);
                    let back = registry.finish(name, id, outcome);
                    open[model].extend(back.iter().map(|made| (of[&**made], !half)));
                    given_back.extend(back);
                }
                Step::Refused => {
                    registry.want(name);
                    registry.refused(name, "refused");
                }
                Step::Unload => {
                    let back = registry.unload(name).map(|(back, _)| back).unwrap_or_default();
                    open[model].extend(back.iter().map(|made| (of[&**made], true)));
                    given_back.extend(back);
                }
                Step::Drained { last } => {
                    let at = if last { open[model].len().saturating_sub(1) } else { 0 };
                    if at < open[model].len() {
                        let ((version, id), _) = open[model].remove(at);
                        registry.drained(name, version, id);
                    }
                }
            }
            let were_served = |model: usize| open[model].iter().filter(|(_, served)| *served).map(|(of, _)| *of);
            for (model, name) in ["m", "n"].into_iter().enumerate() {
                let draining: BTreeSet<_> = were_served(model).collect();
                for number in 0..=registry.loads.0 {
                    let up_to = LoadId(number);
                    let expected = draining.iter().any(|(_, made_by)| *made_by <= up_to);
                    prop_assert_eq!(registry.is_draining(name, up_to), expected);
                }
                for line in registry.index([]).iter().filter(|line| line.name == name && line.state == "UNLOADING") {
                    let version: u64 = line.version.parse().unwrap();
                    prop_assert!(draining.iter().any(|(other, _)| *other == version), "{:?} has ended", line);
                }
            }
            let served: BTreeSet<u64> = registry.served().map(|version| **version).collect();
            let back: BTreeSet<u64> = given_back.iter().map(|version| **version).collect();
            prop_assert_eq!(back.len(), given_back.len(), "given back twice");
            prop_assert!(served.is_disjoint(&back));
            prop_assert_eq!((served.len() + back.len()) as u64, made, "lost");
            for name in ["m", "n"] {
                let ready: Vec<u64> = registry
                    .index([])
                    .iter()
                    .filter(|line| line.name == name && line.state == "READY")
                    .map(|line| line.version.parse().unwrap())
                    .collect();
                let by_number: Vec<u64> =
                    ready.iter().map(|number| *registry.get(name, &number.to_string()).unwrap()).collect();
                let served: Vec<u64> = registry.served_of(name).map(|version| **version).collect();
                prop_assert_eq!(&by_number, &served);
                prop_assert!(ready.is_sorted_by(|a, b| a > b));
                prop_assert_eq!(registry.get(name, "").ok().map(|version| *version), served.first().copied());
            }
        }
    }
}
