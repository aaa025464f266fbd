//! The corpus of hostile images, and every input that fuzzing once failed on, through what the fuzz target `guest` checks.
//! What `host` checks is tried where wasmtime is compiled anyway: `preprocess-wasm/host/tests/it/mirror.rs`.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;

/// The contents of the files in a folder of the repository, by name.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("its entries can be read").path())
        .filter(|path| path.extension().is_none_or(|extension| extension != "md"))
        .map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path))
        .map(|(name, path)| (name, fs::read(path).expect("it can be read")))
        .collect();
    files.sort();
    files
}

#[test]
fn the_guest_answers_the_corpus_whatever_is_asked_of_it() {
    let corpus = files("../tests/corpus/files");
    assert!(corpus.len() > 200, "only {} files", corpus.len());
    // Each with the options that its own last bytes are, and with some that make it small, large, narrow and grey.
    let choices: [&[u8]; 5] = [b"", &[0, 0, 0, 0], &[255, 255, 4, 1], &[99, 0, 11, 2], &[7, 200, 8, 5]];
    for (name, image) in corpus {
        for choice in choices {
            println!("{name} {choice:?}");
            convoy_fuzz::guest(&[&image[..], choice].concat());
        }
    }
}

#[test]
fn the_guest_answers_what_was_found() {
    for (name, data) in files("regressions/guest") {
        println!("{name}");
        convoy_fuzz::guest(&data);
    }
}
