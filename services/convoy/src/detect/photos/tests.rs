#![allow(clippy::unwrap_used)]

use super::*;
use image::RgbImage;

fn touch(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"").unwrap();
    path
}

fn paths(photos: &[Photo]) -> Vec<&Path> {
    photos.iter().map(|photo| photo.path.as_path()).collect()
}

#[test]
fn folders_are_walked_and_sorted_and_files_taken_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let b = touch(folder.path(), "b.JPG");
    let a = touch(folder.path(), "deep/er/a.png");
    touch(folder.path(), "notes.txt");
    let odd = touch(folder.path(), "odd.dat");
    std::os::unix::fs::symlink(folder.path(), folder.path().join("deep/circle")).unwrap();

    let photos = find(&[odd.clone(), folder.path().to_owned()], None).unwrap();
    assert_eq!(paths(&photos), [odd, b, a]);
    assert!(photos.iter().all(|photo| photo.annotated.is_none()));
}

#[test]
fn nothing_to_do_is_said() {
    let folder = tempfile::tempdir().unwrap();
    touch(folder.path(), "notes.txt");
    let failure = find(&[folder.path().to_owned()], None).unwrap_err();
    assert_eq!(failure.code(), 64);
    assert!(failure.to_string().contains("There are no photos in"), "{failure}");
    let failure = find(&[folder.path().join("missing.jpg")], None).unwrap_err();
    assert!(failure.to_string().contains("missing.jpg cannot be read"), "{failure}");
}

#[test]
fn copies_get_places_of_their_own_and_never_the_photo_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (left, right) = (folder.path().join("left"), folder.path().join("right"));
    touch(&left, "bus.jpg");
    touch(&right, "bus.jpg");
    touch(&right, "deep/tram.webp");
    let named = [left.clone(), right.clone()];

    let out = folder.path().join("out");
    let places = |photos: Vec<Photo>| photos.into_iter().map(|p| p.annotated.unwrap()).collect::<Vec<_>>();
    let found = places(find(&named, Some(&out)).unwrap());
    assert_eq!(found, [out.join("bus.jpg"), out.join("bus-detected.jpg"), out.join("deep/tram.png")]);

    // Into the folder of the photos itself, also through another name of it.
    let alias = folder.path().join("alias");
    std::os::unix::fs::symlink(&left, &alias).unwrap();
    let found = places(find(&[left], Some(&alias)).unwrap());
    assert_eq!(found, [alias.join("bus-detected.jpg")]);
}

#[test]
fn copies_of_an_earlier_run_are_no_photos() {
    let folder = tempfile::tempdir().unwrap();
    let photo = touch(folder.path(), "bus.jpg");
    touch(folder.path(), "out/bus.jpg");
    let photos = find(&[folder.path().to_owned()], Some(&folder.path().join("out"))).unwrap();
    assert_eq!(paths(&photos), [photo]);
}

/// A JPEG of 6 by 4 pixels with an EXIF orientation.
fn jpeg_turned(orientation: u8) -> Vec<u8> {
    let mut plain = Cursor::new(Vec::new());
    RgbImage::new(6, 4).write_to(&mut plain, image::ImageFormat::Jpeg).unwrap();
    let plain = plain.into_inner();
    let exif =
        [b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(), &[orientation], &[0; 6]]
            .concat();
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    [&plain[..2], &[0xff, 0xe1], &length, &exif, &plain[2..]].concat()
}

#[test]
fn the_size_is_that_of_the_upright_photo() {
    assert_eq!(upright_size(&jpeg_turned(1)).unwrap(), (6, 4));
    assert_eq!(upright_size(&jpeg_turned(6)).unwrap(), (4, 6));
    assert_eq!(upright_size(&jpeg_turned(3)).unwrap(), (6, 4));
    assert!(upright_size(b"no photo").is_err());
}
