#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;
use crate::repository::config;

fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, dims: dims.to_vec() }
}

/// Completes the configuration `text` of a model `m` with these inputs and an FP32 output `y` of any rows.
fn complete_text(text: &str, inputs: &[TensorSpec]) -> Result<CompletedModel, String> {
    let written = config::parse(Path::new("config.pbtxt"), text).map_err(|error| error.to_string())?;
    let parameters = Parameters::parse(&written.config.parameters)?;
    let first = inputs.first().and_then(|input| input.dims.first()).copied().unwrap_or(-1);
    complete("m", &written, &parameters, inputs, &[spec("y", DataType::Fp32, &[first, 2])], 8)
}

fn images(datatype: DataType, dims: &[i64]) -> [TensorSpec; 1] {
    [spec("images", datatype, dims)]
}

#[test]
fn nothing_written_is_completed_from_the_file() {
    let model = complete_text("", &images(DataType::Uint8, &[-1, 20, 30, 3])).unwrap();
    let config = &model.config;
    assert_eq!((&*config.name, &*config.platform, config.max_batch_size), ("m", "onnxruntime_onnx", 8));
    assert_eq!(config.input[0].dims, [20, 30, 3]);
    assert_eq!(config.input[0].data_type(), inference::DataType::TypeUint8);
    assert_eq!(config.input[0].format(), Format::Nhwc);
    assert_eq!((&*config.output[0].name, &*config.output[0].dims), ("y", &[2][..]));
    let resize = model.vision.unwrap().resize;
    assert_eq!((resize.width, resize.height), (30, 20));
    assert_eq!(config.parameters["fit"].string_value, "stretch");
}

#[test]
fn the_batch_dimension_is_found_or_given() {
    let batch = |text: &str, dims: &[i64]| {
        complete_text(text, &[spec("x", DataType::Fp32, dims)]).map(|model| model.config.max_batch_size)
    };
    assert_eq!(batch("", &[-1, 4]), Ok(8));
    assert_eq!(batch("", &[1, 4]), Ok(0));
    assert_eq!(batch("max_batch_size: 3", &[-1, 4]), Ok(3));
    assert_eq!(batch("max_batch_size: 0", &[-1, 4]), Ok(0));
    assert_eq!(batch("input [ { name: \"x\" dims: [ -1, 4 ] } ]", &[-1, 4]), Ok(0));
    assert_eq!(batch("input [ { name: \"x\" dims: [ 4 ] } ]", &[-1, 4]), Ok(8));
    let error = batch("max_batch_size: 3", &[1, 4]).unwrap_err();
    assert!(
        error.contains("the first dimension of `x` in the model file, of shape [1,4], is not open"),
        "{error}"
    );
    assert!(batch("max_batch_size: -1", &[-1, 4]).is_err());
}

#[test]
fn a_planar_float_model_takes_pixels_by_configuration_alone() {
    let text = "parameters { key: \"mean\" value { string_value: \"1, 2, 3\" } }
                parameters { key: \"scale\" value { string_value: \"0.5\" } }";
    let model = complete_text(text, &images(DataType::Fp32, &[-1, 3, 20, 30])).unwrap();
    let pixels = model.signature.inputs[0].pixels.as_ref().unwrap();
    assert_eq!((pixels.height, pixels.width), (20, 30));
    assert_eq!(
        pixels.conversion,
        PixelConversion::new(Layout::Nchw, PixelType::Fp32, [1.0, 2.0, 3.0], [0.5; 3])
    );
    assert_eq!(model.config.input[0].format(), Format::Nchw);
    // A model without a batch dimension has a 1 where others have it.
    let single = complete_text("", &images(DataType::Fp16, &[1, 3, 20, 30])).unwrap();
    assert!(single.vision.is_some());
}

#[test]
fn what_looks_like_no_image_is_none() {
    for (datatype, dims) in [
        (DataType::Fp32, &[-1, 4][..]),
        (DataType::Int64, &[-1, 3, 20, 30]),
        (DataType::Fp32, &[-1, 3, -1, -1]),
        (DataType::Uint8, &[-1, 20, 30, 1]),
        (DataType::Uint8, &[-1, 9000, 20, 3]),
    ] {
        assert!(complete_text("", &images(datatype, dims)).unwrap().vision.is_none(), "{dims:?}");
    }
    let two = [spec("a", DataType::Uint8, &[-1, 20, 30, 3]), spec("b", DataType::Fp32, &[-1, 1])];
    assert!(complete_text("", &two).unwrap().vision.is_none());
    let declared = complete_text("input [ { name: \"a\" format: FORMAT_NHWC } ]", &two).unwrap();
    assert_eq!(&*declared.vision.unwrap().input_name, "a");
    assert_eq!(declared.config.input.len(), 2, "the input left out is needed all the same");
}

#[test]
fn what_contradicts_the_file_is_an_error_that_says_both() {
    let image = images(DataType::Uint8, &[-1, 20, 30, 3]);
    for (text, part) in [
        ("name: \"n\"", "its name is `n`, but its folder's is `m`"),
        ("input [ { name: \"image\" } ]", "the model file has no input `image`; its inputs are `images`"),
        ("output [ { name: \"z\" } ]", "the model file has no output `z`; its outputs are `y`"),
        ("input [ { name: \"images\" }, { name: \"images\" } ]", "input `images` is configured twice"),
        (
            "input [ { name: \"images\" data_type: TYPE_FP32 } ]",
            "is configured as FP32, but is UINT8 in the model file",
        ),
        (
            "max_batch_size: 8 input [ { name: \"images\" dims: [ 20, 31, 3 ] } ]",
            "is configured with dims [20,31,3], but has [20,30,3] in the model file after its batch dimension",
        ),
        (
            "max_batch_size: 8 output [ { name: \"y\" dims: [ -1 ] } ]",
            "is configured with dims [-1], but has [2]",
        ),
        ("input [ { name: \"images\" format: FORMAT_NCHW } ]", "its format puts 20 where 3 channels must be"),
        (
            "parameters { key: \"mean\" value { string_value: \"1\" } }",
            "mean and scale are for a model with a float image",
        ),
    ] {
        let error = complete_text(text, &image).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let strings = [spec("x", DataType::Bytes, &[-1, 2, 2, 3])];
    let error = complete_text("input [ { name: \"x\" format: FORMAT_NHWC } ]", &strings).unwrap_err();
    assert!(error.contains("that is UINT8, FP16 or FP32"), "{error}");
}

#[test]
fn a_configuration_may_narrow_what_the_file_leaves_open() {
    let open = [spec("x", DataType::Fp32, &[-1, -1])];
    let model = complete_text("max_batch_size: 2 input [ { name: \"x\" dims: [ 7 ] } ]", &open).unwrap();
    assert_eq!(model.signature.inputs[0].tensor.dims, [7]);
}
