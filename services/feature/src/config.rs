//! The settings of feature-service, each a flag and an environment variable.

use crate::inference::Replicas;
use service_kit::ByteSize;
use std::net::SocketAddr;
use std::time::Duration;

/// The settings of feature-service.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "feature-service")]
pub struct Config {
    /// Address of feature-service's REST interface; port 0 takes any free one
    #[arg(long, env = "FEATURE_ADDR", default_value = "0.0.0.0:5001")]
    pub feature_addr: SocketAddr,

    /// Where model-serving's gRPC interface is (http only): a URL, or several separated by commas. Calls are balanced over
    /// all addresses that their hosts resolve to, which are looked up again and again
    #[arg(long, env = "MODEL_SERVING_URL", default_value = "http://localhost:50051", value_name = "URLS")]
    pub model_serving_url: String,

    /// Where results-service's REST interface is (http only)
    #[arg(long, env = "RESULTS_URL", default_value = "http://localhost:5002", value_name = "URL")]
    pub results_url: String,

    /// Time one request to feature-service may take, as in `30s`, `1m 30s` or `500ms`; what is left of it is the
    /// deadline of the calls to the other services
    #[arg(long, env = "REQUEST_TIMEOUT", default_value = "30s", value_name = "DURATION", value_parser = parse_duration)]
    pub request_timeout: Duration,

    /// Largest encoded image feature-service takes (and model-serving, with `convoy up`); a JSON body may be half as large
    /// again, since base64 is longer than what it encodes
    #[arg(long, env = "MAX_IMAGE_BYTES", default_value_t = ByteSize::from(32 << 20), value_name = "BYTES")]
    pub max_image_bytes: ByteSize,
}

/// A setting that cannot work, as a sentence for whoever starts the service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A URL of a peer that cannot be called.
    #[error("{flag} is `{value}`, but {problem}.")]
    Url {
        /// The flag, with its dashes.
        flag: &'static str,
        /// What it was set to.
        value: String,
        /// What is wrong with it, without a full stop at its end.
        problem: String,
    },
    /// A number or duration outside its range.
    #[error("{flag} is {value}, but must be {expected}.")]
    OutOfRange {
        /// The flag, with its dashes.
        flag: &'static str,
        /// What it was set to.
        value: String,
        /// The range it must be in.
        expected: &'static str,
    },
}

/// A longer time is more likely a slip of the unit than a wish.
const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// The most that `--max-image-bytes` may be. The JSON body of a larger image would not fit into what a client or proxy usually
/// handles, nor into memory often.
pub const MAX_IMAGE_BYTES: usize = 1 << 30;

impl Config {
    /// Checks what can be known before a port is bound.
    ///
    /// # Errors
    /// One sentence that names the flag, what it was set to and what is wrong with that.
    pub fn validate(&self) -> Result<(), ConfigError> {
        Replicas::validate(&self.model_serving_url)?;
        peer_url("--results-url", &self.results_url)?;
        if self.request_timeout.is_zero() || self.request_timeout > MAX_REQUEST_TIMEOUT {
            return Err(ConfigError::OutOfRange {
                flag: "--request-timeout",
                value: format!("{:?}", self.request_timeout),
                expected: "more than 0s and at most 24h",
            });
        }
        if !(1..=MAX_IMAGE_BYTES).contains(&self.max_image_bytes.get()) {
            return Err(ConfigError::OutOfRange {
                flag: "--max-image-bytes",
                value: self.max_image_bytes.to_string(),
                expected: "between 1 and 1GiB",
            });
        }
        Ok(())
    }
}

/// Parses the URL of a peer: `http`, with a host, and nothing behind the path.
pub(crate) fn peer_url(flag: &'static str, value: &str) -> Result<reqwest::Url, ConfigError> {
    let refuse = |problem: String| ConfigError::Url { flag, value: value.to_owned(), problem };
    let url = reqwest::Url::parse(value)
        .map_err(|error| refuse(format!("that is no URL ({error}): write it as http://host:port")))?;
    match url.scheme() {
        "http" => {}
        "https" => {
            return Err(refuse(
                "this build has no TLS: use http:// inside a private network, or a local proxy that adds TLS"
                    .to_owned(),
            ));
        }
        other => {
            return Err(refuse(format!("`{other}` is no scheme it can call: write it as http://host:port")));
        }
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("a user name or password in it would not be used: leave it out".to_owned()));
    }
    // Both clients take the services to be at the root: tonic would drop a path without a word.
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("nothing may follow the host and port".to_owned()));
    }
    Ok(url)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "expected a duration with its unit, such as 30s, 1m 30s or 500ms".to_owned())?;
    Duration::try_from(duration).map_err(|_| "a duration cannot be negative".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    fn parse(args: &[&str]) -> Config {
        Cli::try_parse_from([&["test"], args].concat()).map(|cli| cli.config).unwrap()
    }

    #[test]
    fn the_defaults_are_the_documented_ones_and_valid() {
        let config = parse(&[]);
        assert_eq!(config.feature_addr, "0.0.0.0:5001".parse().unwrap());
        assert_eq!(config.model_serving_url, "http://localhost:50051");
        assert_eq!(config.results_url, "http://localhost:5002");
        assert_eq!(config.request_timeout, Duration::from_secs(30));
        assert_eq!(config.max_image_bytes.get(), 33_554_432);
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [("500ms", 500), ("2s", 2_000), ("1m 30s", 90_000), ("1h", 3_600_000)] {
            assert_eq!(parse(&["--request-timeout", text]).request_timeout, Duration::from_millis(millis));
        }
        for text in ["30", "soon", "-1s", ""] {
            assert!(Cli::try_parse_from(["test", &format!("--request-timeout={text}")]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_flag_in_the_sentence() {
        for (flag, value, sentence) in [
            ("--model-serving-url", "https://serving:50051", "no TLS"),
            ("--model-serving-url", "http://serving:50051/v1", "nothing may follow"),
            ("--model-serving-url", "localhost:50051", "no scheme"),
            ("--results-url", "ftp://results", "no scheme"),
            ("--results-url", "", "no URL"),
            ("--results-url", "http://me:secret@results", "password"),
            ("--request-timeout", "0s", "more than 0s"),
            ("--request-timeout", "48h", "at most 24h"),
            ("--max-image-bytes", "0", "between 1 and"),
        ] {
            let error = parse(&[&format!("{flag}={value}")]).validate().unwrap_err().to_string();
            assert!(error.starts_with(flag) && error.contains(sentence), "{error}");
        }
    }
}
