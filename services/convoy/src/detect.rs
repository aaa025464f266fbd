//! `convoy detect`: sends photos to a running Convoy and shows what it finds in them.
//!
//! The photos are the user's own, so this client decodes them itself where it needs their pixels; strangers' images
//! are decoded in the sandbox only.

mod annotate;
mod client;
mod glyphs;
mod output;
mod photos;
mod table;

use crate::exit::Failure;
use crate::options::duration;
use annotate::annotate;
use client::Client;
use futures_util::StreamExt as _;
use futures_util::stream;
use output::Output;
use photos::Photo;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// `convoy detect`.
#[derive(clap::Args, Clone, Debug)]
pub struct DetectArgs {
    /// Photos, or folders that are searched for photos (jpg, jpeg, png, webp, gif, bmp, tif, tiff), subfolders
    /// included.
    #[arg(required = true, value_name = "PHOTO")]
    photos: Vec<PathBuf>,

    /// The Convoy to ask: its feature-service.
    #[arg(long, env = "CONVOY_SERVER", value_name = "URL", default_value = "http://localhost:5001")]
    server: String,

    /// User id to store the predictions under. Default: none, and each prediction gets a user of its own.
    #[arg(long, env = "CONVOY_USER", value_name = "ID")]
    user: Option<String>,

    /// Model to ask. Default: the server's default model.
    #[arg(long, env = "CONVOY_MODEL", value_name = "NAME")]
    model: Option<String>,

    /// Photos sent at once.
    #[arg(long, env = "CONVOY_JOBS", value_name = "PHOTOS", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,

    /// Time one photo may take, retries included. With a unit: 30s, 2m.
    #[arg(long, env = "CONVOY_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,

    /// Folder for annotated copies of the photos, upright and without metadata: JPEG for JPEG, else PNG. It is
    /// created; a photo that was given is never overwritten.
    #[arg(long, env = "CONVOY_OUT", value_name = "DIR")]
    out: Option<PathBuf>,

    /// Print one JSON object per photo and line (NDJSON), in the order of the photos: the server's answer and
    /// "photo", "width", "height" (pixels, upright) and "annotated"; or "photo" and "error".
    #[arg(long, env = "CONVOY_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    json: bool,
}

/// Sends all photos; results go to standard output in the order of the photos, errors to standard error.
///
/// # Errors
/// [`Failure::Failed`] when any photo failed (the others are done), [`Failure::Usage`] when there is nothing to do or
/// the server's address is none.
pub async fn run(args: DetectArgs) -> Result<(), Failure> {
    let photos = photos::find(&args.photos, args.out.as_deref())?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::Usage(format!("The folder {} cannot be created: {error}.", folder.display()))
        })?;
    }
    let client = Arc::new(Client::new(&args.server, args.user, args.model, args.timeout)?);
    let output = Output::new(args.json, photos.len());
    let count = photos.len();
    let mut failed = 0;
    let mut results = stream::iter(photos)
        .map(|photo| {
            let client = Arc::clone(&client);
            async move { (photo.path.clone(), detect(&client, photo).await) }
        })
        .buffered(usize::from(args.jobs));
    while let Some((path, result)) = results.next().await {
        failed += usize::from(result.is_err());
        output.photo(&path, &result).map_err(|error| {
            Failure::Failed(format!("The results could not be written to standard output: {error}."))
        })?;
    }
    output.finish();
    match failed {
        0 => Ok(()),
        1 if count == 1 => Err(Failure::Failed("The photo failed.".to_owned())),
        _ => Err(Failure::Failed(format!("{failed} of {count} photos failed."))),
    }
}

/// What is known about one photo in the end.
#[derive(Clone, Debug)]
struct Seen {
    /// Pixels of the upright photo.
    width: u32,
    height: u32,
    /// The server's answer, field by field as it was sent.
    answer: client::Answer,
    /// The annotated copy.
    annotated: Option<PathBuf>,
}

/// Detects what is in one photo. An error is a sentence.
async fn detect(client: &Client, photo: Photo) -> Result<Seen, String> {
    let path = photo.path.clone();
    let bytes = tokio::fs::read(&path).await.map_err(|error| format!("It cannot be read: {error}."))?;
    let bytes = bytes::Bytes::from(bytes);
    // The server goes first: what it says of a file that is no photo is said once, by those who know.
    let answer = client.predict(bytes.clone()).await?;
    let drawn = answer.clone();
    let done = tokio::task::spawn_blocking(move || match photo.annotated {
        None => photos::upright_size(&bytes).map(|size| (size, None)),
        Some(target) => annotate(&bytes, &drawn.detections, &target).map(|size| (size, Some(target))),
    });
    let ((width, height), annotated) =
        done.await.map_err(|error| format!("It could not be drawn: {error}."))??;
    Ok(Seen { width, height, answer, annotated })
}
