//! Encoded images as the input of a vision model: BYTES become the pixels that the model takes.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use sandbox::{ImageTensor, Placement, SandboxError};
use std::thread::available_parallelism;
use std::time::Instant;

use super::Caller;
use crate::error::ServingError;
use crate::repository::{ModelVersion, VisionInput};
use crate::state::ServingState;
use crate::tensor::{DataType, Shape, Tensor};

/// Where each image of a request lies in its row; empty when the request brought tensors.
pub(crate) type Placements = Vec<Placement>;

/// Decodes the image input of `model` in place, if it is among `inputs` and holds encoded images: BYTES `[n]` or
/// `[n,1]` becomes UINT8 `[n,h,w,3]`.
///
/// Each image is a job of its own in the sandbox. A request has as many there as can run at once and as many again:
/// more would only push other requests out of the sandbox's queue.
///
/// # Errors
/// `InvalidInput` for a shape that is none of these or more rows than the model takes, and [`ServingError::Image`],
/// with its index, for the first image that cannot be decoded.
pub(crate) async fn decode(
    state: &ServingState,
    model: &ModelVersion,
    inputs: &mut [Tensor],
    caller: Caller<'_>,
    deadline: Option<Instant>,
) -> Result<Placements, ServingError> {
    let Some(vision) = model.vision() else { return Ok(Vec::new()) };
    let Some(input) = inputs
        .iter_mut()
        .find(|input| input.datatype == DataType::Bytes && *input.name == *vision.input_name)
    else {
        return Ok(Vec::new());
    };
    let images = encoded(model, input)?;
    // Each on its own, and then in one tensor.
    let copies = if images.len() > 1 { 2 } else { 1 };
    caller.grow(copies * images.len() * vision.resize.width as usize * vision.resize.height as usize * 3)?;
    let at_once = 2 * available_parallelism().map_or(1, usize::from);
    let jobs = images.into_iter().enumerate().map(|(index, image)| async move {
        let decoded = state.metered_sandbox(model).tensor(image, vision.resize, deadline).await;
        state.metrics.image_seen(&decoded);
        decoded.map_err(|error| failed(vision, index, error))
    });
    let decoded: Vec<ImageTensor> = stream::iter(jobs).buffered(at_once).try_collect().await?;
    let placements = decoded.iter().map(|image| image.placement).collect();
    *input = pixels(vision, decoded);
    Ok(placements)
}

fn encoded(model: &ModelVersion, input: &Tensor) -> Result<Vec<Bytes>, ServingError> {
    let (name, most) = (&input.name, model.max_batch_size().max(1));
    let (&[rows] | &[rows, 1]) = &*input.shape else {
        return Err(ServingError::InvalidInput(format!(
            "Input `{name}` has encoded images in BYTES of shape {}: send them as [n] or [n,1].",
            input.shape
        )));
    };
    let rows = usize::try_from(rows).unwrap_or(0);
    if rows == 0 || rows > most {
        return Err(ServingError::InvalidInput(format!(
            "Input `{name}` has {rows} images; model `{}` takes from 1 to {most} in a request.",
            model.name()
        )));
    }
    let images = input.byte_strings().ok_or_else(|| {
        ServingError::InvalidInput(format!(
            "The BYTES elements of input `{name}` do not add up: each is its length (4 bytes, little-endian) and its \
             bytes."
        ))
    })?;
    if images.len() != rows {
        return Err(ServingError::InvalidInput(format!(
            "Input `{name}` of shape {} has {} BYTES elements.",
            input.shape,
            images.len()
        )));
    }
    Ok(images)
}

/// Of what is nobody's or the whole request's fault, the index says nothing.
fn failed(vision: &VisionInput, index: usize, error: SandboxError) -> ServingError {
    match error {
        SandboxError::Busy { .. }
        | SandboxError::Stopped
        | SandboxError::DeadlineExceeded
        | SandboxError::Component { .. } => ServingError::Sandbox(error),
        error => ServingError::Image { input: vision.input_name.to_string(), index, error },
    }
}

fn pixels(vision: &VisionInput, mut images: Vec<ImageTensor>) -> Tensor {
    let shape = [images.len(), vision.resize.height as usize, vision.resize.width as usize, 3];
    let data = match images.pop() {
        // Alone, it is not copied.
        Some(only) if images.is_empty() => only.pixels.into(),
        last => {
            let bytes = images.iter().chain(&last).map(|image| image.pixels.len()).sum();
            let mut data = BytesMut::with_capacity(bytes);
            for image in images.iter().chain(&last) {
                data.extend_from_slice(&image.pixels);
            }
            data.freeze()
        }
    };
    Tensor {
        name: vision.input_name.to_string(),
        datatype: DataType::Uint8,
        shape: Shape::from(shape.map(|dim| i64::try_from(dim).unwrap_or(i64::MAX))),
        data,
    }
}
