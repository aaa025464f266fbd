//! The services against their own OpenAPI documents: schemathesis sends what they allow and what they do not, and looks
//! for faults (5xx) and for answers that are not documented. How: `tests/python/schemathesis.toml`.

use crate::fixture::data_folder;
use crate::photo::repository;
use crate::process::Process;
use crate::python;

/// Requests for each operation in each phase. More find rarer faults: `SCHEMATHESIS_EXAMPLES=1000 cargo test -p e2e openapi`.
const EXAMPLES: &str = "10";

#[test]
fn every_answer_is_one_that_the_document_allows() {
    let (folder, backups) = (data_folder(), data_folder());
    // A database of its own: what is stored here is erased here, too.
    let (_server, addresses) = Process::ready(&["--backup-dir", backups.path().to_str().unwrap()]);
    let examples = std::env::var("SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| EXAMPLES.to_owned());
    let configuration = repository().join("tests/python/schemathesis.toml");
    for (name, address) in [
        ("feature-service", addresses.feature),
        ("results-service", addresses.results),
        ("the operator's address", addresses.admin),
    ] {
        let url = format!("http://{}/openapi.json", address.unwrap());
        let configured = ["--config-file", configuration.to_str().unwrap(), "run", &url];
        // A warning says that most of what it makes up is refused: it cannot make up images.
        let options = ["--max-examples", &examples, "--seed", "1", "--no-color", "--warnings", "off"];
        let Some(output) = python::run_schemathesis(&[&configured[..], &options].concat(), folder.path())
        else {
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("No issues found"), "{name}: {text}");
    }
}
