//! Which versions of which models are served, and what the index says of the others: a state machine without I/O.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::control::IndexEntry;
use crate::error::ServingError;

/// Reason of a version that was served and is not any more, in Triton's word.
const UNLOADED: &str = "unloaded";

/// Where a version is in its life, in Triton's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelState {
    /// It is served.
    Ready,
    /// It is being loaded, or waits for that.
    Loading,
    /// It is asked nothing more, and answers what it was asked.
    Unloading,
    /// It could not be loaded, or it was unloaded.
    Unavailable,
}

impl ModelState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// The models that are served, were, or are to be; `V` is a version that can be asked.
#[derive(Debug)]
pub(crate) struct Registry<V> {
    models: BTreeMap<String, Entry<V>>,
    /// The last load that was begun.
    loads: LoadId,
}

/// Tells one load of a model from the others: the same version may be loaded again while it still drains from before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LoadId(u64);

#[derive(Debug)]
struct Entry<V> {
    /// Whether it was to be served when it was last spoken of.
    wanted: bool,
    /// Newest first.
    served: Vec<(u64, Arc<V>)>,
    /// The load that made what is served, or what was served last.
    made_by: LoadId,
    /// What was served and given back, and still answers what it was asked: version and load.
    draining: BTreeSet<(u64, LoadId)>,
    /// Every version that was ever spoken of, newest first.
    versions: BTreeMap<Reverse<u64>, Status>,
    /// What is said of the model besides, where no version can be named.
    status: Option<Status>,
}

/// A state, and why it is not [`ModelState::Ready`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Status {
    state: ModelState,
    reason: String,
}

impl Status {
    fn new(state: ModelState) -> Self {
        Self { state, reason: String::new() }
    }

    fn unavailable(reason: impl Into<String>) -> Self {
        Self { state: ModelState::Unavailable, reason: reason.into() }
    }

    fn is_unloaded(&self) -> bool {
        self.state == ModelState::Unloading
            || (self.state == ModelState::Unavailable && self.reason == UNLOADED)
    }
}

/// What came of loading a model: the versions that can be served, and those that cannot, with the reason.
#[derive(Debug)]
pub(crate) struct Outcome<V> {
    pub(crate) loaded: Vec<(u64, Arc<V>)>,
    pub(crate) failed: Vec<(u64, String)>,
}

impl<V> Registry<V> {
    pub(crate) fn new() -> Self {
        Self { models: BTreeMap::new(), loads: LoadId::default() }
    }

    /// The model is to be served. What is served of it still is.
    pub(crate) fn want(&mut self, name: &str) {
        let entry = self.entry(name);
        entry.wanted = true;
        if entry.served.is_empty() {
            entry.status = Some(Status::new(ModelState::Loading));
        }
    }

    /// These versions of it are being loaded.
    pub(crate) fn loading(&mut self, name: &str, versions: impl IntoIterator<Item = u64>) -> LoadId {
        self.loads.0 += 1;
        let load = self.loads;
        let entry = self.entry(name);
        entry.status = None;
        for version in versions {
            if !entry.serves(version) {
                entry.versions.insert(Reverse(version), Status::new(ModelState::Loading));
            }
        }
        load
    }

    /// It cannot be loaded, and it is not even known which versions it has. What is served of it still is.
    pub(crate) fn refused(&mut self, name: &str, reason: &str) {
        let entry = self.entry(name);
        if entry.served.is_empty() {
            entry.status = Some(Status::unavailable(reason));
        }
    }

    /// Serves what `load` made instead of what was served before, which is given back: to be dropped without the lock.
    ///
    /// When something was served and not all could be loaded, what was served stays, and what was loaded is given
    /// back: a model is not replaced by half of another.
    pub(crate) fn finish(&mut self, name: &str, load: LoadId, outcome: Outcome<V>) -> Vec<Arc<V>> {
        let Outcome { mut loaded, failed } = outcome;
        let entry = self.entry(name);
        if !failed.is_empty() && !entry.served.is_empty() {
            for (version, _) in &loaded {
                if !entry.serves(*version) {
                    let reason = "not served, because another version could not be loaded";
                    entry.versions.insert(Reverse(*version), Status::unavailable(reason));
                }
            }
            for (version, reason) in failed {
                if !entry.serves(version) {
                    entry.versions.insert(Reverse(version), Status::unavailable(reason));
                }
            }
            return loaded.into_iter().map(|(_, version)| version).collect();
        }
        for (version, reason) in failed {
            entry.versions.insert(Reverse(version), Status::unavailable(reason));
        }
        loaded.sort_by_key(|&(version, _)| Reverse(version));
        let before = std::mem::replace(&mut entry.served, loaded);
        let made_by = std::mem::replace(&mut entry.made_by, load);
        for (version, _) in &before {
            entry.draining.insert((*version, made_by));
            entry.versions.insert(Reverse(*version), Status::new(ModelState::Unloading));
        }
        for (version, _) in &entry.served {
            entry.versions.insert(Reverse(*version), Status::new(ModelState::Ready));
        }
        before.into_iter().map(|(_, version)| version).collect()
    }

    /// Serves the model no more; gives back what was served, to be dropped without the lock, and the load that made it.
    /// `None`: there is no such model.
    pub(crate) fn unload(&mut self, name: &str) -> Option<(Vec<Arc<V>>, LoadId)> {
        let entry = self.models.get_mut(name)?;
        entry.wanted = false;
        entry.status = entry.versions.is_empty().then(|| Status::unavailable(UNLOADED));
        for status in entry.versions.values_mut() {
            *status = match status.state {
                ModelState::Ready | ModelState::Unloading => Status::new(ModelState::Unloading),
                ModelState::Loading | ModelState::Unavailable => Status::unavailable(UNLOADED),
            };
        }
        let made_by = entry.made_by;
        entry.draining.extend(entry.served.iter().map(|(version, _)| (*version, made_by)));
        let served = std::mem::take(&mut entry.served);
        Some((served.into_iter().map(|(_, version)| version).collect(), made_by))
    }

    /// A version that `load` made, and that was given back, has answered all it was asked.
    pub(crate) fn drained(&mut self, name: &str, version: u64, load: LoadId) {
        let Some(entry) = self.models.get_mut(name) else { return };
        entry.draining.remove(&(version, load));
        // The same version may drain from several loads.
        let drains = entry.draining.iter().any(|(other, _)| *other == version);
        let status = entry.versions.get_mut(&Reverse(version)).filter(|_| !drains);
        if let Some(status) = status.filter(|status| status.state == ModelState::Unloading) {
            *status = Status::unavailable(UNLOADED);
        }
    }

    /// Whether anything of the model that this load made, or one before it, still has requests to answer, although it is
    /// served no more.
    pub(crate) fn is_draining(&self, name: &str, load: LoadId) -> bool {
        self.models.get(name).is_some_and(|entry| entry.draining.iter().any(|(_, made_by)| *made_by <= load))
    }

    /// Whether anything of the model is served.
    pub(crate) fn serves(&self, name: &str) -> bool {
        self.models.get(name).is_some_and(|entry| !entry.served.is_empty())
    }

    /// Whether the model was ever spoken of.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.models.contains_key(name)
    }

    /// The only model that is to be served.
    pub(crate) fn only(&self) -> Option<&str> {
        let mut wanted = self.models.iter().filter(|(_, entry)| entry.wanted);
        match (wanted.next(), wanted.next()) {
            (Some((name, _)), None) => Some(name),
            _ => None,
        }
    }

    /// The version that is served under this number; the newest when it is empty.
    pub(crate) fn get(&self, name: &str, version: &str) -> Result<Arc<V>, ServingError> {
        let not_found = || ServingError::ModelNotFound { name: name.to_owned() };
        let entry = self.models.get(name).ok_or_else(not_found)?;
        if version.is_empty() {
            if let Some((_, newest)) = entry.served.first() {
                return Ok(Arc::clone(newest));
            }
            // What was tried last says why there is none: the model as a whole, else the newest version.
            let tried =
                entry.status.iter().chain(entry.versions.values()).find(|status| !status.is_unloaded());
            return Err(tried.map_or_else(
                || ServingError::ModelNotLoaded { name: name.to_owned() },
                |status| not_served(name, status),
            ));
        }
        let no_version =
            || ServingError::VersionNotFound { name: name.to_owned(), version: version.to_owned() };
        let number = version.parse::<u64>().ok().filter(|number| number.to_string() == version);
        let number = number.ok_or_else(no_version)?;
        match entry.served.iter().find(|(served, _)| *served == number) {
            Some((_, served)) => Ok(Arc::clone(served)),
            None => Err(entry
                .versions
                .get(&Reverse(number))
                .filter(|status| !status.is_unloaded())
                .map_or_else(no_version, |status| not_served(name, status))),
        }
    }

    /// What is served, by name, then newest first.
    pub(crate) fn served(&self) -> impl Iterator<Item = &Arc<V>> {
        self.models.values().flat_map(|entry| entry.served.iter().map(|(_, version)| version))
    }

    /// What is served of one model, newest first.
    pub(crate) fn served_of(&self, name: &str) -> impl Iterator<Item = &Arc<V>> {
        let served = self.models.get(name).into_iter().flat_map(|entry| entry.served.iter());
        served.map(|(_, version)| version)
    }

    /// A line for each version of the models spoken of and, by its name alone, for each of `others`.
    pub(crate) fn index(&self, others: impl IntoIterator<Item = String>) -> Vec<IndexEntry> {
        let line = |name: &str, version: String, status: &Status| IndexEntry {
            name: name.to_owned(),
            version,
            state: status.state.as_str(),
            reason: status.reason.clone(),
        };
        let mut lines = Vec::new();
        for (name, entry) in &self.models {
            lines.extend(
                entry.versions.iter().map(|(number, status)| line(name, number.0.to_string(), status)),
            );
            lines.extend(entry.status.as_ref().map(|status| line(name, String::new(), status)));
        }
        for name in others {
            if !self.knows(&name) {
                lines.push(IndexEntry { name, version: String::new(), state: "", reason: String::new() });
            }
        }
        // Stable: the versions of a model stay as they are.
        lines.sort_by(|a, b| a.name.cmp(&b.name));
        lines
    }

    fn entry(&mut self, name: &str) -> &mut Entry<V> {
        self.models.entry(name.to_owned()).or_insert_with(|| Entry {
            wanted: false,
            served: Vec::new(),
            made_by: LoadId::default(),
            draining: BTreeSet::new(),
            versions: BTreeMap::new(),
            status: None,
        })
    }
}

impl<V> Entry<V> {
    fn serves(&self, version: u64) -> bool {
        self.served.iter().any(|(served, _)| *served == version)
    }
}

/// Why a version that is wanted is not served.
fn not_served(name: &str, status: &Status) -> ServingError {
    ServingError::Unavailable(match status.state {
        ModelState::Unavailable => {
            format!("Model `{name}` could not be loaded: the repository's index says why.")
        }
        ModelState::Ready | ModelState::Loading | ModelState::Unloading => {
            format!("Model `{name}` is being loaded: try again in a few seconds.")
        }
    })
}

#[cfg(test)]
mod tests;
