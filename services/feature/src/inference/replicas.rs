//! The addresses of model-serving: found by name again and again, balanced over, and left alone for a while when they
//! cannot be reached.
//!
//! tonic's own balancer holds on to an address that refuses connections as long as it is in the set, and gives it the
//! most calls, since those that fail at once are the fewest in flight. So the choice is made here; each address has a
//! tonic channel, which connects when it is first needed and again when its connection broke.

use crate::{ConfigError, config};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};
use tokio::net::lookup_host;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};

/// The flag that names them.
const FLAG: &str = "--model-serving-url";
/// A peer that takes longer to accept a connection is down; the next request tries again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what names resolve to is believed.
const FRESH: Duration = Duration::from_secs(2);
/// How long an address that is not available is passed over, while there is another one.
const REST: Duration = Duration::from_secs(1);

/// Resolves a host and a port: the system's resolver, but in tests.
#[derive(Clone)]
struct LookUp(Arc<Resolve>);

type Resolve = dyn Fn(&str, u16) -> LookedUp + Send + Sync;
type LookedUp = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

impl LookUp {
    fn of_the_system() -> Self {
        Self(Arc::new(|host, port| {
            let host = host.to_owned();
            Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
        }))
    }
}

impl fmt::Debug for LookUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LookUp")
    }
}

/// All addresses; cheap to clone, all clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Replicas(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    names: Vec<Name>,
    look_up: LookUp,
    known: Mutex<Known>,
    /// Only one look-up at a time.
    resolving: AtomicBool,
    turn: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Name {
    host: String,
    port: u16,
    /// What requests say they are for, whatever the address.
    origin: Uri,
}

#[derive(Debug, Default)]
struct Known {
    replicas: Vec<Arc<Replica>>,
    resolved: Option<Instant>,
}

/// One address.
#[derive(Debug)]
pub(crate) struct Replica {
    address: SocketAddr,
    channel: Channel,
    in_flight: AtomicUsize,
    unavailable_until: Mutex<Option<Instant>>,
}

/// A replica while a call uses it.
#[derive(Debug)]
pub(crate) struct Chosen(Arc<Replica>);

impl Drop for Chosen {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Chosen {
    /// Its connection.
    pub(crate) fn channel(&self) -> Channel {
        self.0.channel.clone()
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// It could not be reached, or is loading or stopping: others are asked for a while.
    pub(crate) fn rest(&self) {
        *lock(&self.0.unavailable_until) = Some(Instant::now() + REST);
    }
}

impl Replicas {
    /// The services at `urls`, separated by commas. Nothing is resolved or connected yet.
    pub(crate) fn new(urls: &str) -> Result<Self, ConfigError> {
        Self::with_look_up(urls, LookUp::of_the_system())
    }

    fn with_look_up(urls: &str, look_up: LookUp) -> Result<Self, ConfigError> {
        let names = urls.split(',').map(|url| Name::of(url.trim())).collect::<Result<Vec<_>, _>>()?;
        Ok(Self(Arc::new(Shared {
            names,
            look_up,
            known: Mutex::default(),
            resolving: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
        })))
    }

    /// Checks `urls` as [`Replicas::new`] does.
    pub(crate) fn validate(urls: &str) -> Result<(), ConfigError> {
        Self::new(urls).map(drop)
    }

    /// The replica with the fewest calls in flight of those that can be reached, and not `but` while there is another;
    /// `preferred` if it can be.
    ///
    /// # Errors
    /// Why no address is known, as a sentence without its end.
    pub(crate) async fn choose(
        &self,
        but: Option<SocketAddr>,
        preferred: Option<SocketAddr>,
    ) -> Result<Chosen, String> {
        let replicas = self.all().await?;
        let now = Instant::now();
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let rank = |at: usize, replica: &Replica| {
            let resting = lock(&replica.unavailable_until).is_some_and(|until| now < until);
            let other = but == Some(replica.address);
            let not_preferred = preferred != Some(replica.address);
            // Ties go round.
            let place = (at + turn) % replicas.len();
            (other, resting, not_preferred, replica.in_flight.load(Ordering::Relaxed), place)
        };
        let best = replicas.iter().enumerate().min_by_key(|(at, replica)| rank(*at, replica));
        let (_, best) = best.ok_or_else(|| "it has no address".to_owned())?;
        best.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Chosen(Arc::clone(best)))
    }

    /// Every replica's connection, for what is asked of each.
    pub(crate) async fn channels(&self) -> Result<Vec<Channel>, String> {
        Ok(self.all().await?.iter().map(|replica| replica.channel.clone()).collect())
    }

    /// All that are known. The first time names are resolved here; later, what is known is used and resolved anew behind
    /// the requests' backs.
    async fn all(&self) -> Result<Vec<Arc<Replica>>, String> {
        let (replicas, fresh) = {
            let known = lock(&self.0.known);
            (known.replicas.clone(), known.resolved.is_some_and(|at| at.elapsed() < FRESH))
        };
        if replicas.is_empty() {
            return self.resolve().await;
        }
        if !fresh && !self.0.resolving.swap(true, Ordering::Relaxed) {
            let this = self.clone();
            tokio::spawn(async move {
                if let Err(error) = this.resolve().await {
                    tracing::warn!(
                        error,
                        "model-serving's addresses cannot be looked up: the last ones are used"
                    );
                }
                this.0.resolving.store(false, Ordering::Relaxed);
            });
        }
        Ok(replicas)
    }

    /// Looks the names up. Addresses that were known keep their connections; those that are gone finish what they have.
    async fn resolve(&self) -> Result<Vec<Arc<Replica>>, String> {
        let mut found: Vec<(SocketAddr, &Name)> = Vec::new();
        let mut failure = None;
        for name in &self.0.names {
            match (self.0.look_up.0)(&name.host, name.port).await {
                Ok(addresses) => found.extend(addresses.into_iter().map(|address| (address, name))),
                Err(error) => failure = Some(format!("{} cannot be resolved ({error})", name.host)),
            }
        }
        // One host may have two names, and a name the same address twice.
        found.sort_by_key(|(address, _)| *address);
        found.dedup_by_key(|(address, _)| *address);
        let mut known = lock(&self.0.known);
        known.resolved = Some(Instant::now());
        let kept = match failure {
            Some(failure) if found.is_empty() && known.replicas.is_empty() => return Err(failure),
            // A name server that does not answer is no reason to let go of what was reached before.
            Some(failure) => {
                tracing::warn!(failure, "The addresses of model-serving that are known are kept");
                let is_new =
                    |replica: &&Arc<Replica>| found.iter().all(|(address, _)| *address != replica.address);
                known.replicas.iter().filter(is_new).cloned().collect()
            }
            None => Vec::new(),
        };
        let replicas = found.into_iter().filter_map(|(address, name)| {
            let same = known.replicas.iter().find(|replica| replica.address == address);
            same.cloned().or_else(|| Replica::new(address, name))
        });
        known.replicas = replicas.chain(kept).collect();
        Ok(known.replicas.clone())
    }
}

impl Name {
    fn of(url: &str) -> Result<Self, ConfigError> {
        let parsed = config::peer_url(FLAG, url)?;
        let refuse = |problem: &str| ConfigError::Url {
            flag: FLAG,
            value: url.to_owned(),
            problem: problem.to_owned(),
        };
        let host = parsed.host_str().ok_or_else(|| refuse("it has no host"))?;
        let port = parsed.port_or_known_default().ok_or_else(|| refuse("it has no port"))?;
        let origin = parsed.as_str().parse().map_err(|_| refuse("it cannot be called"))?;
        Ok(Self { host: host.trim_matches(['[', ']']).to_owned(), port, origin })
    }
}

impl Replica {
    fn new(address: SocketAddr, name: &Name) -> Option<Arc<Self>> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let channel = endpoint
            .origin(name.origin.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            // A peer that vanished without closing the connection is noticed, and another one is made.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .connect_lazy();
        Some(Arc::new(Self {
            address,
            channel,
            in_flight: AtomicUsize::new(0),
            unavailable_until: Mutex::default(),
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is in them is whole after a panic elsewhere: each change is a single assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn two() -> Replicas {
        Replicas::new("http://127.0.0.1:1, http://127.0.0.1:2").unwrap()
    }

    #[tokio::test]
    async fn calls_go_where_the_fewest_are() {
        let replicas = two();
        let first = replicas.choose(None, None).await.unwrap();
        let second = replicas.choose(None, None).await.unwrap();
        assert_ne!(first.address(), second.address());
        let freed = first.address();
        drop(first);
        assert_eq!(replicas.choose(None, None).await.unwrap().address(), freed);
    }

    #[tokio::test]
    async fn one_that_is_preferred_is_taken_unless_it_rests() {
        tokio::time::pause();
        let replicas = two();
        let first = replicas.choose(None, None).await.unwrap();
        let address = first.address();
        let again = replicas.choose(None, Some(address)).await.unwrap();
        assert_eq!(again.address(), address, "though it has more to do");
        again.rest();
        assert_ne!(replicas.choose(None, Some(address)).await.unwrap().address(), address);
    }

    #[tokio::test]
    async fn one_that_cannot_be_reached_rests_unless_it_is_the_only_one() {
        tokio::time::pause();
        let replicas = two();
        let chosen = replicas.choose(None, None).await.unwrap();
        chosen.rest();
        let broken = chosen.address();
        drop(chosen);
        for _ in 0..4 {
            assert_ne!(replicas.choose(None, None).await.unwrap().address(), broken);
        }
        tokio::time::advance(REST).await;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2 {
            seen.insert(replicas.choose(None, None).await.unwrap().address());
        }
        assert!(seen.contains(&broken), "it had its rest: {seen:?}");

        let only = Replicas::new("http://127.0.0.1:1").unwrap();
        only.choose(None, None).await.unwrap().rest();
        assert_eq!(only.choose(Some(([127, 0, 0, 1], 1).into()), None).await.unwrap().address().port(), 1);
    }

    #[tokio::test]
    async fn addresses_of_a_name_come_and_go() {
        tokio::time::pause();
        let hosts = Arc::new(Mutex::new(vec![1, 2]));
        let answers = Arc::clone(&hosts);
        let look_up = LookUp(Arc::new(move |host, port| {
            assert_eq!((host, port), ("model-serving", 50051));
            let address = |&host: &u8| SocketAddr::from(([10, 0, 0, host], port));
            let found: Vec<_> = lock(&answers).iter().map(address).collect();
            Box::pin(std::future::ready(Ok(found)))
        }));
        let replicas = Replicas::with_look_up("http://model-serving:50051", look_up).unwrap();
        let all = async || {
            let all = replicas.all().await.unwrap();
            all.iter().map(|replica| replica.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(all().await, ["10.0.0.1:50051", "10.0.0.2:50051"]);
        let kept = Arc::clone(&replicas.all().await.unwrap()[1]);
        *lock(&hosts) = vec![3, 2];
        assert_eq!(
            all().await,
            ["10.0.0.1:50051", "10.0.0.2:50051"],
            "what was found is believed for a while"
        );
        tokio::time::advance(FRESH).await;
        // It is looked up behind the back of the call that finds it old.
        all().await;
        while replicas.0.resolving.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        assert_eq!(all().await, ["10.0.0.2:50051", "10.0.0.3:50051"]);
        assert!(Arc::ptr_eq(&kept, &replicas.all().await.unwrap()[0]), "its connection is kept");
    }

    #[tokio::test]
    async fn a_name_that_is_none_is_a_reason() {
        let error =
            Replicas::new("http://no-such-host.invalid:1").unwrap().choose(None, None).await.unwrap_err();
        assert!(error.contains("no-such-host.invalid"), "{error}");
        // One of several is enough.
        let some = Replicas::new("http://no-such-host.invalid:1,http://127.0.0.1:2").unwrap();
        assert_eq!(some.choose(None, None).await.unwrap().address().port(), 2);
    }

    #[test]
    fn every_url_of_the_list_is_checked() {
        for urls in ["", "http://a:1,", "http://a:1,ftp://b:2", "http://a:1 http://b:2"] {
            assert!(Replicas::validate(urls).unwrap_err().to_string().contains(FLAG), "{urls}");
        }
    }
}
