//! What a configuration leaves out is completed from the model file; what contradicts it is an error.
//!
//! Errors here are clauses without a full stop at their end.

use std::sync::Arc;

use convoy_proto::inference::model_input::Format;
use convoy_proto::inference::{self, ModelConfig, ModelInput, ModelOutput};
use sandbox::Resize;

use super::config::WrittenConfig;
use super::parameters::{OF_IMAGES, Parameters};
use super::version::VisionInput;
use crate::scheduler::{InputSpec, Layout, PixelConversion, PixelInput, PixelType, Signature};
use crate::tensor::{DataType, Shape, TensorSpec};

/// Largest width and height that the sandbox makes an image of.
const MAX_IMAGE_SIDE: i64 = 4096;

/// A model's configuration and file, brought together.
#[derive(Debug)]
pub(crate) struct CompletedModel {
    /// The configuration with nothing left out.
    pub(crate) config: ModelConfig,
    /// What requests are checked against.
    pub(crate) signature: Signature,
    /// The image input, if there is one.
    pub(crate) vision: Option<VisionInput>,
}

/// Completes the configuration of the model `name` from what its file says of its inputs and outputs.
pub(crate) fn complete(
    name: &str,
    written: &WrittenConfig,
    parameters: &Parameters,
    file_inputs: &[TensorSpec],
    file_outputs: &[TensorSpec],
    default_max_batch_size: usize,
) -> Result<CompletedModel, String> {
    let mut config = written.config.clone();
    if !config.name.is_empty() && config.name != name {
        return Err(format!("its name is `{}`, but its folder's is `{name}`", config.name));
    }
    config.name = name.to_owned();
    config.platform = "onnxruntime_onnx".to_owned();
    config.backend = "onnxruntime".to_owned();
    if config.default_model_filename.is_empty() {
        config.default_model_filename = "model.onnx".to_owned();
    }
    config.max_batch_size = max_batch_size(written, file_inputs, file_outputs, default_max_batch_size)?;
    let batched = config.max_batch_size > 0;

    let given = std::mem::take(&mut config.input);
    for input in &given {
        known(&input.name, file_inputs, "input")?;
    }
    // Inputs left out of the configuration are needed all the same; outputs left out of a list of some are not wanted.
    let missing = file_inputs.iter().filter(|spec| !given.iter().any(|input| input.name == *spec.name));
    let missing = missing.map(|spec| ModelInput { name: spec.name.to_string(), ..ModelInput::default() });
    config.input = given.iter().cloned().chain(missing).collect();
    if config.output.is_empty() {
        let all = file_outputs.iter();
        config.output =
            all.map(|spec| ModelOutput { name: spec.name.to_string(), ..ModelOutput::default() }).collect();
    }
    distinct(config.input.iter().map(|input| &input.name), "input")?;
    distinct(config.output.iter().map(|output| &output.name), "output")?;

    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for input in &mut config.input {
        let spec = known(&input.name, file_inputs, "input")?;
        inputs.push(agree(spec, "input", &mut input.data_type, &mut input.dims, batched)?);
    }
    for output in &mut config.output {
        let spec = known(&output.name, file_outputs, "output")?;
        outputs.push(agree(spec, "output", &mut output.data_type, &mut output.dims, batched)?);
    }

    let image = image_input(&mut config, &inputs, parameters)?;
    let vision = image.as_ref().map(|(at, pixels)| VisionInput {
        input_name: Arc::clone(&inputs[*at].name),
        resize: Resize {
            width: side(pixels.width),
            height: side(pixels.height),
            fit: parameters.fit,
            filter: parameters.filter,
            color: parameters.color,
            decode: parameters.decode,
        },
    });
    let inputs = inputs.into_iter().enumerate().map(|(at, tensor)| {
        let pixels = image.as_ref().filter(|(image, _)| *image == at).map(|(_, pixels)| pixels.clone());
        InputSpec { tensor, pixels }
    });
    let signature = Signature {
        model: name.into(),
        inputs: inputs.collect(),
        outputs,
        max_batch_size: usize::try_from(config.max_batch_size).unwrap_or(0),
    };
    parameters.complete(&mut config.parameters, vision.is_some());
    Ok(CompletedModel { config, signature, vision })
}

/// Rows of a batch at most; 0 without a batch dimension.
fn max_batch_size(
    written: &WrittenConfig,
    file_inputs: &[TensorSpec],
    file_outputs: &[TensorSpec],
    default: usize,
) -> Result<i32, String> {
    let fixed = |specs: &[TensorSpec]| specs.iter().find(|spec| spec.dims.first() != Some(&-1)).cloned();
    let configured = written.config.max_batch_size;
    if configured < 0 {
        return Err(format!("max_batch_size is {configured}, and must be 0 or more"));
    }
    if written.has_max_batch_size {
        let of_file = fixed(file_inputs).or_else(|| fixed(file_outputs));
        if let Some(spec) = of_file.filter(|_| configured > 0) {
            return Err(format!(
                "max_batch_size is {configured}, but the first dimension of `{}` in the model file, of shape {}, is not open: set max_batch_size: 0",
                spec.name,
                Shape::from(spec.dims)
            ));
        }
        return Ok(configured);
    }
    // Dimensions written out in full say that the first of them is no batch dimension.
    let in_full = |name: &str, dims: &[i64], specs: &[TensorSpec]| {
        specs.iter().any(|spec| *spec.name == *name && !dims.is_empty() && spec.dims.len() == dims.len())
    };
    let in_full = written.config.input.iter().any(|input| in_full(&input.name, &input.dims, file_inputs))
        || written.config.output.iter().any(|output| in_full(&output.name, &output.dims, file_outputs));
    let batched = fixed(file_inputs).is_none() && fixed(file_outputs).is_none() && !file_inputs.is_empty();
    Ok(if batched && !in_full { i32::try_from(default).unwrap_or(i32::MAX) } else { 0 })
}

fn known<'a>(name: &str, specs: &'a [TensorSpec], kind: &str) -> Result<&'a TensorSpec, String> {
    specs.iter().find(|spec| *spec.name == *name).ok_or_else(|| {
        let names: Vec<_> = specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
        format!("the model file has no {kind} `{name}`; its {kind}s are {}", names.join(", "))
    })
}

fn distinct<'a>(names: impl Iterator<Item = &'a String> + Clone, kind: &str) -> Result<(), String> {
    match names.clone().enumerate().find(|(at, name)| names.clone().take(*at).any(|other| other == *name)) {
        Some((_, name)) => Err(format!("{kind} `{name}` is configured twice")),
        None => Ok(()),
    }
}

/// Fills in the type and dimensions of a configured tensor, or checks them against the file's.
fn agree(
    spec: &TensorSpec,
    kind: &str,
    data_type: &mut i32,
    dims: &mut Vec<i64>,
    batched: bool,
) -> Result<TensorSpec, String> {
    let name = &spec.name;
    let of_file = if batched { &spec.dims[1..] } else { &spec.dims[..] };
    let configured = inference::DataType::try_from(*data_type)
        .map_err(|_| format!("the data type of {kind} `{name}`, {data_type}, does not exist"))?;
    if let Some(configured) = DataType::from_config(configured)
        && configured != spec.datatype
    {
        return Err(format!(
            "{kind} `{name}` is configured as {configured}, but is {} in the model file",
            spec.datatype
        ));
    }
    *data_type = inference::DataType::from(spec.datatype).into();
    if dims.is_empty() {
        *dims = of_file.to_vec();
    }
    let agrees =
        |(&configured, &of_file): (&i64, &i64)| configured == of_file || (of_file < 0 && configured > 0);
    if dims.len() != of_file.len() || !dims.iter().zip(of_file).all(agrees) {
        let batch = if batched { " after its batch dimension" } else { "" };
        return Err(format!(
            "{kind} `{name}` is configured with dims {}, but has {} in the model file{batch}",
            Shape::from(&**dims),
            Shape::from(of_file)
        ));
    }
    Ok(TensorSpec { name: Arc::clone(name), datatype: spec.datatype, dims: dims.clone() })
}

/// Finds the image input (its position, and how pixels become it), and writes its format into the configuration.
fn image_input(
    config: &mut ModelConfig,
    inputs: &[TensorSpec],
    parameters: &Parameters,
) -> Result<Option<(usize, PixelInput)>, String> {
    let formats = config.input.iter().map(|input| (&input.name, Format::try_from(input.format)));
    let mut declared = None;
    for (at, (name, format)) in formats.enumerate() {
        let layout = match format.map_err(|_| format!("the format of input `{name}` does not exist"))? {
            Format::None => continue,
            Format::Nhwc => Layout::Nhwc,
            Format::Nchw => Layout::Nchw,
        };
        if declared.replace((at, layout)).is_some() {
            return Err("more than one input has a format: a model has one image input".to_owned());
        }
    }
    let (found, is_declared) = match (declared, inputs) {
        (Some(declared), _) => (Some(declared), true),
        (None, [only]) => (layout_by_dims(&only.dims).map(|layout| (0, layout)), false),
        (None, _) => (None, false),
    };
    let image = match found {
        Some((at, layout)) => match pixel_input(&inputs[at], layout, parameters) {
            Ok(pixels) => Some((at, pixels)),
            Err(reason) if is_declared => return Err(reason),
            Err(_) => None,
        },
        None => None,
    };
    let takes_floats = image.as_ref().is_some_and(|&(at, _)| inputs[at].datatype != DataType::Uint8);
    if !takes_floats && (parameters.mean.is_some() || parameters.scale.is_some()) {
        return Err(
            "the parameters mean and scale are for a model with a float image input, and this one has none"
                .to_owned(),
        );
    }
    if image.is_none()
        && let Some(name) = OF_IMAGES.into_iter().find(|name| config.parameters.contains_key(*name))
    {
        return Err(format!(
            "the parameter {name} is for a model with an image input, and this one has none"
        ));
    }
    if let Some((at, pixels)) = &image {
        config.input[*at].format = match pixels.conversion.layout() {
            Layout::Nhwc => Format::Nhwc,
            Layout::Nchw => Format::Nchw,
        }
        .into();
    }
    Ok(image)
}

/// The three image dimensions; a model without a batch dimension may have a 1 in front of them.
fn image_dims(dims: &[i64]) -> Option<[i64; 3]> {
    match *dims {
        [a, b, c] | [1, a, b, c] => Some([a, b, c]),
        _ => None,
    }
}

fn layout_by_dims(dims: &[i64]) -> Option<Layout> {
    match image_dims(dims)? {
        [_, _, 3] => Some(Layout::Nhwc),
        [3, _, _] => Some(Layout::Nchw),
        _ => None,
    }
}

fn pixel_input(spec: &TensorSpec, layout: Layout, parameters: &Parameters) -> Result<PixelInput, String> {
    let described =
        format!("input `{}`, {} with dims {},", spec.name, spec.datatype, Shape::from(&*spec.dims));
    let datatype = match spec.datatype {
        DataType::Uint8 => PixelType::Uint8,
        DataType::Fp16 => PixelType::Fp16,
        DataType::Fp32 => PixelType::Fp32,
        _ => return Err(format!("{described} cannot be an image: that is UINT8, FP16 or FP32")),
    };
    let (height, width, channels) = match (layout, image_dims(&spec.dims)) {
        (Layout::Nhwc, Some([height, width, channels])) | (Layout::Nchw, Some([channels, height, width])) => {
            (height, width, channels)
        }
        (_, None) => return Err(format!("{described} cannot be an image: that has three dims")),
    };
    if channels != 3 {
        return Err(format!(
            "{described} cannot be an RGB image: its format puts {channels} where 3 channels must be"
        ));
    }
    if [height, width].iter().any(|side| !(1..=MAX_IMAGE_SIDE).contains(side)) {
        return Err(format!(
            "{described} cannot be an image: height and width must be fixed, from 1 to {MAX_IMAGE_SIDE}"
        ));
    }
    let (mean, scale) = (parameters.mean.unwrap_or([0.0; 3]), parameters.scale.unwrap_or([1.0; 3]));
    Ok(PixelInput { height, width, conversion: PixelConversion::new(layout, datatype, mean, scale) })
}

fn side(pixels: i64) -> u32 {
    u32::try_from(pixels).expect("the sides of an image input are from 1 to 4096")
}

#[cfg(test)]
mod tests;
