#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Loads `versions` and fails on `failed`; gives what was given back.
fn load(registry: &mut Registry<u64>, name: &str, versions: &[u64], failed: &[u64]) -> Vec<u64> {
    registry.want(name);
    registry.loading(name, versions.iter().chain(failed).copied());
    let outcome = Outcome {
        loaded: versions.iter().map(|&version| (version, Arc::new(version))).collect(),
        failed: failed.iter().map(|&version| (version, format!("{version} is broken"))).collect(),
    };
    registry.finish(name, outcome).into_iter().map(|version| *version).collect()
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
    registry.drained("m", 2);
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
    assert!(registry.is_unloading("m"));
    // The same version again: the one before drains, and its end says nothing of the new one.
    assert_eq!(load(&mut registry, "m", &[2], &[]), [2]);
    registry.drained("m", 2);
    registry.drained("m", 1);
    assert_eq!(newest(&registry, "m"), 2);
    assert!(!registry.is_unloading("m"));
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
    Load { loaded: BTreeSet<u64>, failed: BTreeSet<u64> },
    Refused,
    Unload,
    Drained(u64),
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
        (1..5_u64).prop_map(Step::Drained),
    ]
}

proptest! {
    /// Whatever happens: each version that was loaded is served or was given back, never both; the index says READY
    /// of just what is served; the newest answers for the model.
    #[test]
    fn nothing_is_lost_and_the_index_tells_the_truth(steps in prop::collection::vec((0..2_usize, step()), 0..40)) {
        let mut registry = Registry::new();
        let (mut made, mut given_back) = (0_u64, Vec::new());
        for (model, step) in steps {
            let name = ["m", "n"][model];
            match step {
                Step::Load { loaded, failed } => {
                    registry.want(name);
                    registry.loading(name, loaded.iter().chain(&failed).copied());
                    let mut new = || {
                        made += 1;
                        Arc::new(made)
                    };
                    let outcome = Outcome {
                        loaded: loaded.iter().map(|&version| (version, new())).collect(),
                        failed: failed.iter().map(|&version| (version, "broken".to_owned())).collect(),
                    };
                    given_back.extend(registry.finish(name, outcome));
                }
                Step::Refused => {
                    registry.want(name);
                    registry.refused(name, "refused");
                }
                Step::Unload => given_back.extend(registry.unload(name).unwrap_or_default()),
                Step::Drained(version) => registry.drained(name, version),
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
