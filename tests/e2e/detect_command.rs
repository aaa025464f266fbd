//! `convoy detect` on the real binary, against a running Convoy.

use crate::fixture::{Convoy, data_folder, unique};
use crate::photo::{self, assert_detections};
use crate::process::{errors, run};
use crate::rest::{self, with_segment};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;

fn detect(arguments: &[&str], paths: &[&Path]) -> Output {
    let server = Convoy::shared().feature("");
    let fixed = ["detect", "--server", &server];
    let words = fixed.into_iter().chain(arguments.iter().copied()).map(std::ffi::OsString::from);
    run(words.chain(paths.iter().map(|path| path.as_os_str().to_owned())))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_photo_is_a_table_in_pixels() {
    let output = detect(&[], &[&photo::path()]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let table = text(&output.stdout);
    let mut lines = table.lines();
    assert!(
        lines.next().unwrap().contains("double_decker_bus.jpg: 546 x 413 pixels, vehicle-detector version 1")
    );
    let headings: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(headings, ["class", "confidence", "x_min", "y_min", "x_max", "y_max"]);
    let best: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(best[0], "bus");
    assert!(best[1].parse::<f64>().unwrap() >= 0.9);
    for (edge, expected) in best[2..].iter().zip([60.0, 123.0, 482.0, 394.0]) {
        assert!((edge.parse::<f64>().unwrap() - expected).abs() < 10.0, "{table}");
    }
}

#[tokio::test]
async fn json_is_one_object_a_line_and_the_user_owns_the_predictions() {
    let folder = data_folder();
    for name in ["b.jpg", "a.jpeg", "deep/c.jpg"] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(photo::path(), path).unwrap();
    }
    let user = unique("détective & co");
    let path = folder.path().to_owned();
    let named = user.clone();
    let output =
        tokio::task::spawn_blocking(move || detect(&["--json", "--user", &named, "--jobs", "2"], &[&path]))
            .await
            .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let objects: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let photos: Vec<_> = objects.iter().map(|o| Path::new(o["photo"].as_str().unwrap())).collect();
    assert_eq!(photos, ["a.jpeg", "b.jpg", "deep/c.jpg"].map(|name| folder.path().join(name)));
    for object in &objects {
        assert_eq!((object["width"].as_u64(), object["height"].as_u64()), (Some(546), Some(413)));
        assert_eq!(object["user_id"], user);
        assert_detections(&rest::detections(object));
    }
    let url = with_segment(Convoy::shared().results("/predictions/user"), &user);
    assert_eq!(rest::delete(url).await.json(200)["deleted_count"], 3);
}

#[test]
fn a_photo_that_fails_is_said_and_the_others_are_done() {
    let folder = data_folder();
    let (good, broken) = (folder.path().join("a.jpg"), folder.path().join("broken.jpg"));
    fs::copy(photo::path(), &good).unwrap();
    fs::write(&broken, b"This is no image.").unwrap();
    let missing = folder.path().join("gone.jpg");

    let output = detect(&[], &[&broken, &good]);
    assert_eq!(output.status.code(), Some(1));
    let said = errors(&output);
    assert!(said.contains("broken.jpg: The data is not an image"), "{said}");
    assert!(said.contains("1 of 2 photos failed"), "{said}");
    assert!(text(&output.stdout).contains("a.jpg: 546 x 413"));
    assert!(!text(&output.stdout).contains("broken.jpg"));

    let output = detect(&["--json"], &[&broken, &good]);
    assert_eq!(output.status.code(), Some(1));
    let first: Value = serde_json::from_str(text(&output.stdout).lines().next().unwrap()).unwrap();
    assert!(first["error"].as_str().unwrap().contains("not an image"), "{first}");

    let output = detect(&[], &[&missing]);
    assert_eq!(output.status.code(), Some(64), "{}", errors(&output));
    assert!(errors(&output).contains("gone.jpg cannot be read"), "{}", errors(&output));
}

#[test]
fn annotated_copies_are_written_and_the_photo_is_left_alone() {
    let folder = data_folder();
    let photo = folder.path().join("bus.jpg");
    fs::copy(photo::path(), &photo).unwrap();
    let out = folder.path().join("new/annotated");

    let output = detect(&["--out", out.to_str().unwrap()], &[folder.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let copy = fs::read(out.join("bus.jpg")).unwrap();
    assert!(copy.starts_with(&[0xff, 0xd8]) && copy != photo::bytes());
    assert!(text(&output.stdout).contains("annotated: "), "{}", text(&output.stdout));

    // Into the photo's own folder: beside it, never over it.
    let output = detect(&["--out", folder.path().to_str().unwrap()], &[&photo]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(fs::read(&photo).unwrap(), photo::bytes());
    assert!(folder.path().join("bus-detected.jpg").is_file());
}

#[test]
fn nothing_to_do_and_nobody_there_are_said() {
    let folder = data_folder();
    let output = detect(&[], &[folder.path()]);
    assert_eq!(output.status.code(), Some(64));
    assert!(errors(&output).contains("There are no photos in"), "{}", errors(&output));

    let photo = photo::path();
    let output = run(["detect", "--server", "http://127.0.0.1:1", photo.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("cannot be reached"), "{}", errors(&output));
}

#[test]
fn health_asks_over_http_and_grpc() {
    let convoy = Convoy::shared();
    let grpc = format!("grpc://{}", convoy.addresses.grpc.unwrap());
    for target in [convoy.feature(""), convoy.results("/ready"), grpc] {
        let output = run(["health", &target]);
        assert_eq!(output.status.code(), Some(0), "{target}: {}", errors(&output));
    }
    // Where any of the services may run, a port at which nobody listens is one of a service that does not run there.
    let one_of_three = format!("grpc://127.0.0.1:1,http://127.0.0.1:1,{}", convoy.results(""));
    assert_eq!(run(["health", &one_of_three]).status.code(), Some(0));
    let nobody = run(["health", "grpc://127.0.0.1:1,http://127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(errors(&nobody).contains("cannot be reached"), "{}", errors(&nobody));
    let no_page = format!("{},{}", convoy.results(""), convoy.feature("/no-such-page"));
    assert_eq!(run(["health", &no_page]).status.code(), Some(1), "one that answers no counts");
    for (target, code) in [("http://127.0.0.1:1", 1), ("grpc://127.0.0.1:1", 1), ("127.0.0.1:1", 64)] {
        let output = run(["health", target]);
        assert_eq!(output.status.code(), Some(code), "{target}: {}", errors(&output));
    }
}
