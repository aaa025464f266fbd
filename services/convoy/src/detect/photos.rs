//! Finding the photos that the command line names, and where their annotated copies go.

use crate::exit::Failure;
use image::metadata::Orientation;
use image::{ImageDecoder as _, ImageReader};
use std::collections::HashSet;
use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

/// Endings that are searched for in folders.
const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];

/// One photo to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Photo {
    /// The file.
    pub path: PathBuf,
    /// Where its annotated copy goes.
    pub annotated: Option<PathBuf>,
}

/// The photos that `named` files and folders mean, in the order named, those of a folder sorted by path. With `out`,
/// each gets a place for its annotated copy, which is no photo's own.
///
/// # Errors
/// [`Failure::Usage`] when a name does not exist, or a folder holds no photos.
pub(super) fn find(named: &[PathBuf], out: Option<&Path>) -> Result<Vec<Photo>, Failure> {
    // Copies of an earlier run are no photos, unless the user names their folder itself.
    let copies = out.and_then(|folder| folder.canonicalize().ok());
    let mut found: Vec<(PathBuf, PathBuf)> = Vec::new();
    for name in named {
        let unreadable =
            |error: io::Error| Failure::Usage(format!("{} cannot be read: {error}.", name.display()));
        if !fs::metadata(name).map_err(unreadable)?.is_dir() {
            let file_name = name.file_name().map(PathBuf::from).unwrap_or_default();
            found.push((name.clone(), file_name));
            continue;
        }
        let mut files = Vec::new();
        walk(name, copies.as_deref(), &mut files).map_err(unreadable)?;
        if files.is_empty() {
            return Err(Failure::Usage(format!(
                "There are no photos in {}: name a folder with files that end in {}.",
                name.display(),
                EXTENSIONS.join(", ")
            )));
        }
        files.sort();
        found.extend(files.into_iter().map(|file| {
            let within = file.strip_prefix(name).unwrap_or(&file).to_owned();
            (file, within)
        }));
    }
    let copies = out.map(|folder| places(folder, &found));
    let mut places = copies.into_iter().flatten();
    Ok(found.into_iter().map(|(path, _)| Photo { path, annotated: places.next() }).collect())
}

fn walk(folder: &Path, skipped: Option<&Path>, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        // Links to folders are not followed: they can lead in circles.
        if kind.is_dir() {
            let is_skipped = skipped.is_some() && path.canonicalize().ok().as_deref() == skipped;
            if !is_skipped {
                walk(&path, skipped, files)?;
            }
        } else if has_image_extension(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// A place under `folder` for each photo's copy: no two alike, and none that is one of the photos.
fn places(folder: &Path, photos: &[(PathBuf, PathBuf)]) -> Vec<PathBuf> {
    let originals: HashSet<PathBuf> =
        photos.iter().filter_map(|(path, _)| path.canonicalize().ok()).collect();
    let mut taken = HashSet::new();
    let mut place = |within: &Path| {
        let extension = match within.extension().and_then(|e| e.to_str()) {
            Some(extension) if extension.eq_ignore_ascii_case("jpeg") => "jpeg",
            Some(extension) if extension.eq_ignore_ascii_case("jpg") => "jpg",
            _ => "png",
        };
        let stem = within.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let names = (0_u32..).map(|attempt| match attempt {
            0 => format!("{stem}.{extension}"),
            1 => format!("{stem}-detected.{extension}"),
            n => format!("{stem}-detected-{n}.{extension}"),
        });
        let beside = folder.join(within);
        let candidates = names.map(|name| beside.with_file_name(name));
        let mut free = candidates.filter(|candidate| {
            let is_original = candidate.canonicalize().is_ok_and(|file| originals.contains(&file));
            !is_original && !taken.contains(candidate)
        });
        let chosen = free.next().expect("there are more numbers than photos");
        taken.insert(chosen.clone());
        chosen
    };
    photos.iter().map(|(_, within)| place(within)).collect()
}

/// Width and height in pixels of the upright photo, from its header alone.
///
/// # Errors
/// A sentence.
pub(super) fn upright_size(photo: &[u8]) -> Result<(u32, u32), String> {
    let unreadable = |error: image::ImageError| format!("Its size cannot be read: {error}.");
    let reader = ImageReader::new(Cursor::new(photo)).with_guessed_format();
    let reader = reader.map_err(|error| format!("Its size cannot be read: {error}."))?;
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        decoder.orientation().map_err(unreadable)?,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    Ok(if turned { (height, width) } else { (width, height) })
}

#[cfg(test)]
mod tests;
